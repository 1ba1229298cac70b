//! Carrying messages: from a client to connections of this node.
//!
//! A message whose recipients are all on this shard is published as it is borrowed from its frame. Otherwise it
//! is kept once and handed to each shard that holds recipients; each resolves its own.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::reply::{Extra, From};
use tieline_proto::request::Targets;
use tieline_proto::{ConnectionId, Data, ErrorCode, GroupName, UserId};
use tieline_switchboard::{Address, Only, Publication, Recipients, Shard, Slot, WhenLagging};

use super::Operator;
use super::answer::{Refusal, told};
use super::fresh::Giving;
use crate::command::Command;
use crate::delivery::{Delivery, Outcome, Receipt, Settled, Target};
use crate::hub::Hub;
use crate::logs::{Publishing, Reply};
use crate::message::{Letter, Message, Way, letter};
use crate::session::Session;
use crate::store::{AppendKey, LogKey};
use crate::subprotocol::Subprotocol;

/// What all sends of a client have in common.
pub(super) struct Send<'a> {
    pub(super) ack_id: Option<u64>,
    /// The client's own id of the message.
    pub(super) message_id: Option<&'a str>,
    pub(super) no_echo: bool,
    pub(super) data: Data<'a>,
}

/// The parts of a sender's session that its messages need.
struct Sender {
    slot: Slot,
    id: ConnectionId,
    hub: Arc<Hub>,
    user: Option<UserId>,
    address: Address,
    subprotocol: Subprotocol,
}

impl Operator {
    fn sender(&self, shard: &Shard<Self>, slot: Slot) -> Option<Sender> {
        let session = shard.session(slot)?;
        Some(Sender {
            slot,
            id: session.id,
            hub: Arc::clone(&session.hub),
            user: session.user.clone(),
            address: shard.address(slot),
            subprotocol: session.subprotocol,
        })
    }

    /// Refuses what the sender's roles do not allow.
    fn permit(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        ack_id: Option<u64>,
        may: impl FnOnce(&Session) -> bool,
    ) -> bool {
        let permitted = shard.session(slot).is_some_and(may);
        if !permitted {
            self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::Forbidden));
        }
        permitted
    }

    pub(super) fn send_to_group(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        group: &str,
        users: &[Cow<'_, str>],
        send: Send<'_>,
    ) {
        if !self.permit(shard, slot, send.ack_id, |session| session.roles.may_send_to_group(group)) {
            return;
        }
        self.tally.to_group += 1;
        let Some(sender) = self.sender(shard, slot) else { return };
        let held = sender.hub.group(group);
        let on_other_shards = held.as_ref().is_some_and(|held| held.is_elsewhere(self.shard));
        let cluster = self.node.cluster();
        let keeps = self.node.keeps_group(group);
        if keeps
            || on_other_shards
            || cluster.is_some_and(|cluster| cluster.may_hold_group(sender.hub.name(), group))
        {
            let Ok(name) = GroupName::new(group) else { return };
            let users = users.iter().filter_map(|user| UserId::new(user).ok()).collect();
            let to = SmallVec::from_iter([Target::Group(name.clone())]);
            let draft = Draft { way: Way::Group(name), to, users, ..Draft::default() };
            return self.hand_out(shard, &sender, &send, draft);
        }
        let Some(held) = held else {
            return self.settle(shard, slot, &send, Outcome::default());
        };
        let named = |_: Slot, session: &Session| {
            session.user.as_deref().is_some_and(|user| users.iter().any(|named| named == user))
        };
        let only: Option<Only<'_, Session>> = if users.is_empty() { None } else { Some(&named) };
        let to = [Recipients::Group(held.id())];
        let from = From::Group { name: group };
        let delivered = self.publish(shard, &sender, &send, from, &to, only);
        self.settle(shard, slot, &send, Outcome::delivered(delivered));
    }

    pub(super) fn send_to_user(&mut self, shard: &mut Shard<Self>, slot: Slot, user: &str, send: Send<'_>) {
        if self.permit(shard, slot, send.ack_id, |session| session.roles.may_send_to_user(user)) {
            self.tally.to_user += 1;
            self.carry_to_user(shard, slot, user, &send);
        }
    }

    /// Carries a message to all connections of a user. Returns whether it has any.
    fn carry_to_user(&mut self, shard: &mut Shard<Self>, slot: Slot, user: &str, send: &Send<'_>) -> bool {
        let Some(sender) = self.sender(shard, slot) else { return false };
        // Asked before and after the look, as for the places of a delivery.
        let had_travellers = self.node.has_travellers();
        let addresses = sender.hub.user(user);
        let on_other_shards = addresses.iter().any(|address| address.shard != self.shard);
        let cluster = self.node.cluster();
        if self.node.keeps_inboxes()
            || on_other_shards
            // Who has no connection may be on its way.
            || addresses.is_empty() && (had_travellers || self.node.has_travellers())
            || cluster.is_some_and(|cluster| cluster.may_hold_user(sender.hub.name(), user))
        {
            let Ok(user) = UserId::new(user) else { return false };
            let to = SmallVec::from_iter([Target::User(user.clone())]);
            let draft = Draft { way: Way::User(user), to, ..Draft::default() };
            self.hand_out(shard, &sender, send, draft);
            return true;
        }
        if addresses.is_empty() {
            self.settle(shard, slot, send, Outcome { unknown: 1, ..Outcome::default() });
            return false;
        }
        let to: SmallVec<[Recipients; 2]> = addresses.into_iter().map(Recipients::Connection).collect();
        let delivered = self.publish(shard, &sender, send, From::User { to: user }, &to, None);
        self.settle(shard, slot, send, Outcome::delivered(delivered));
        true
    }

    pub(super) fn send_to_all(&mut self, shard: &mut Shard<Self>, slot: Slot, send: Send<'_>) {
        if !self.permit(shard, slot, send.ack_id, |session| session.roles.may_send_to_all()) {
            return;
        }
        self.tally.to_all += 1;
        let Some(sender) = self.sender(shard, slot) else { return };
        let alone = self.node.cluster().is_none_or(|cluster| cluster.is_alone());
        if !alone || sender.hub.everyone().is_elsewhere(self.shard) {
            let to = SmallVec::from_iter([Target::Everyone]);
            let draft = Draft { to, ..Draft::default() };
            return self.hand_out(shard, &sender, &send, draft);
        }
        let to = [Recipients::Group(sender.hub.everyone().id())];
        let delivered = self.publish(shard, &sender, &send, From::Server, &to, None);
        self.settle(shard, slot, &send, Outcome::delivered(delivered));
    }

    pub(super) fn send_to_many(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        targets: &Targets<'_>,
        send: Send<'_>,
    ) {
        let permitted = |session: &Session| {
            let roles = &session.roles;
            targets.users.iter().all(|user| roles.may_send_to_user(user))
                && targets.groups.iter().all(|group| roles.may_send_to_group(group))
                // A connection is nobody's name: only who may send to everybody may address it.
                && (targets.connections.is_empty() || roles.may_send_to_all())
        };
        if !self.permit(shard, slot, send.ack_id, permitted) {
            return;
        }
        self.tally.to_many += 1;
        let Some(sender) = self.sender(shard, slot) else { return };
        let mut to: SmallVec<[Target; 1]> = SmallVec::new();
        to.extend(targets.groups.iter().filter_map(|group| GroupName::new(group).ok()).map(Target::Group));
        to.extend(targets.users.iter().filter_map(|user| UserId::new(user).ok()).map(Target::User));
        to.extend(targets.connections.iter().copied().map(Target::Connection));
        let except = targets.excluded.iter().copied().collect();
        self.hand_out(shard, &sender, &send, Draft { to, except, ..Draft::default() });
    }

    /// Plain JSON: to a user, and the sender hears when nobody is there.
    pub(super) fn send_plain(&mut self, shard: &mut Shard<Self>, slot: Slot, user: &str, data: Data<'_>) {
        let send = Send { ack_id: None, message_id: None, no_echo: true, data };
        if !self.permit(shard, slot, None, |session| session.roles.may_send_to_user(user)) {
            return;
        }
        self.tally.to_user += 1;
        if !self.carry_to_user(shard, slot, user, &send) {
            let refusal = Refusal::new(None, ErrorCode::NotFound)
                .because("The receiver has no connection; the message was not delivered.");
            self.refuse(shard, slot, &refusal);
        }
    }

    /// Publishes on this shard, straight from the sender's frame.
    fn publish(
        &mut self,
        shard: &mut Shard<Self>,
        sender: &Sender,
        send: &Send<'_>,
        from: From<'_>,
        to: &[Recipients],
        only: Option<Only<'_, Session>>,
    ) -> u64 {
        let (time_ms, id) = self.stamper.stamp();
        let letter = Letter(letter(from, sender.user.as_deref(), id, time_ms, send.data));
        let except: &[Address] = if send.no_echo { std::slice::from_ref(&sender.address) } else { &[] };
        let when_lagging = match from {
            From::Group { name } => self.when_lagging(name),
            _ => WhenLagging::End,
        };
        shard.publish(&Publication { message: &letter, to, except, only, when_lagging }) as u64
    }

    /// What becomes of a message for a member of a group that lags behind.
    fn when_lagging(&self, group: &str) -> WhenLagging {
        self.node.logs().map_or(WhenLagging::End, |logs| logs.rules().when_lagging(group))
    }

    /// Keeps a message and hands it to every shard that holds recipients, this one included.
    fn hand_out(&mut self, shard: &mut Shard<Self>, sender: &Sender, send: &Send<'_>, mut draft: Draft) {
        let slot = sender.slot;
        if send.no_echo {
            draft.except.push(sender.id);
        }
        let (time_ms, id) = self.stamper.stamp();
        let message = Message::new(draft.way, sender.user.clone(), id, time_ms, send.data.to_payload());
        let mut delivery = Delivery {
            hub: Arc::clone(&sender.hub),
            message,
            to: draft.to,
            newest: None,
            handed_on: false,
            except: draft.except,
            users: draft.users,
            filter: None,
            receipt: None,
        };
        if delivery.to.iter().any(|target| self.node.keeps(target)) {
            return self.keep(shard, sender, send, delivery);
        }
        let route = self.node.route(&delivery);
        if route.is_nowhere() {
            self.node.forward(&delivery, &route);
            return self.settle(shard, slot, send, route.known());
        }
        // Only `tieline.v1` is told numbers; to the others an ack means that the message is on its way.
        match send.ack_id {
            Some(ack_id) if sender.subprotocol == Subprotocol::Tieline => {
                // Carried out from now on, although its ack waits: the same ackId again is a duplicate already.
                if let Some(session) = shard.session_mut(slot) {
                    session.acks.insert(ack_id);
                }
                delivery.receipt =
                    Some(Receipt::for_connection(route.answers(), route.known(), sender.address, ack_id));
            }
            ack_id => self.ack(shard, slot, ack_id, Extra::None),
        }
        delivery.newest = route.elsewhere.newest;
        let delivery = Arc::new(delivery);
        self.node.forward(&delivery, &route);
        for to in route.shards {
            if to == self.shard {
                self.deliver(shard, &delivery);
            } else {
                shard.post(to, Command::Deliver(Arc::clone(&delivery)));
            }
        }
    }

    /// Has a message stored before anybody gets it.
    fn keep(&mut self, shard: &mut Shard<Self>, sender: &Sender, send: &Send<'_>, mut delivery: Delivery) {
        let Some(logs) = self.node.logs() else { return };
        let hub = delivery.hub.name();
        let connection = sender.id.to_string();
        let key = match (send.message_id, send.ack_id) {
            // Its own id of the message counts on whichever connection it says it again.
            (Some(id), _) => match &sender.user {
                Some(user) => AppendKey::of(&["user", hub, user, id]),
                None => AppendKey::of(&["connection", hub, &connection, id]),
            },
            (None, Some(ack_id)) => AppendKey::of(&["ack", hub, &connection, &ack_id.to_string()]),
            (None, None) => delivery.message.id.into(),
        };
        if let Some(ack_id) = send.ack_id.filter(|_| sender.subprotocol == Subprotocol::Tieline) {
            // The one answer is the clerk's, which waits for more as it finds out where the message goes.
            delivery.receipt = Some(Receipt::for_connection(1, Outcome::default(), sender.address, ack_id));
        }
        let reply = Reply::Connection(sender.address, send.ack_id);
        if let Err(error) = logs.publish(Publishing { delivery, key, reply }) {
            self.refuse_kept(shard, sender.slot, send.ack_id, &error);
        }
    }

    /// The ack of a message whose fate is known at once.
    fn settle(&mut self, shard: &mut Shard<Self>, slot: Slot, send: &Send<'_>, outcome: Outcome) {
        self.ack(shard, slot, send.ack_id, Extra::Receipt(told(Some(outcome))));
    }

    /// Delivers a message to its recipients on this shard.
    pub(super) fn deliver(&mut self, shard: &mut Shard<Self>, delivery: &Delivery) {
        let outcome = self.hand_to_connections(shard, delivery);
        self.follow_who_left(shard, delivery);
        let Some(receipt) = &delivery.receipt else { return };
        match receipt.add(outcome) {
            None => {}
            Some(Settled::Connection(address, ack_id, outcome)) if address.shard == self.shard => {
                if let Some(slot) = shard.find(address) {
                    self.ack_outcome(shard, slot, ack_id, outcome);
                }
            }
            Some(Settled::Connection(address, ack_id, outcome)) => {
                shard.post(address.shard, Command::Settled { address, ack_id, outcome });
            }
            Some(settled @ Settled::Node(..)) => self.node.settle(settled),
        }
    }

    /// Its user may have left since the message was on its way to this shard: then it is held like one that comes later, or follows to
    /// the shards where the user has come back since.
    fn follow_who_left(&self, shard: &mut Shard<Self>, delivery: &Delivery) {
        let [Target::User(user)] = &delivery.to[..] else { return };
        if delivery.message.position.is_some() || !self.node.transit().is_any() {
            return;
        }
        let Some(cluster) = self.node.cluster() else { return };
        let here = delivery.hub.user(user);
        if here.is_empty() {
            let Some(traveller) = cluster.traveller(delivery, &[false]) else { return };
            if let Some(receipt) = &delivery.receipt {
                receipt.await_more(1);
            }
            return self.node.hold(delivery, Some(&traveller));
        }
        let mut shards: SmallVec<[u16; 2]> = here.iter().map(|address| address.shard).collect();
        if shards.contains(&self.shard) {
            return;
        }
        shards.sort_unstable();
        shards.dedup();
        if let Some(receipt) = &delivery.receipt {
            receipt.await_more(shards.len());
        }
        // Connections that were there before are given it by their shards.
        let part = Arc::new(Delivery { handed_on: true, ..delivery.for_user(user) });
        for to in shards {
            shard.post(to, Command::Deliver(Arc::clone(&part)));
        }
    }

    fn hand_to_connections(&mut self, shard: &mut Shard<Self>, delivery: &Delivery) -> Outcome {
        let mut unknown = 0;
        let mut to: SmallVec<[Recipients; 4]> = SmallVec::new();
        let mut readers: SmallVec<[Slot; 2]> = SmallVec::new();
        for target in &delivery.to {
            match target {
                Target::Everyone => to.push(Recipients::Group(delivery.hub.everyone().id())),
                Target::Group(group) => {
                    to.extend(delivery.hub.group(group).map(|group| Recipients::Group(group.id())));
                }
                Target::User(user) => {
                    let here = delivery.hub.user(user);
                    let here = here.into_iter().filter(|address| address.shard == self.shard);
                    match delivery.message.position {
                        None if self.fresh.is_empty() && !delivery.handed_on => {
                            to.extend(here.map(Recipients::Connection));
                        }
                        None => {
                            let id = delivery.message.id;
                            let lacks = |address: &Address| match self.fresh.give(*address, id) {
                                Giving::NotFresh => !delivery.handed_on,
                                Giving::First => true,
                                Giving::Again => false,
                            };
                            to.extend(here.filter(lacks).map(Recipients::Connection));
                        }
                        Some(_) => {
                            for address in here {
                                let Some(slot) = shard.find(address).filter(|slot| hears(shard, *slot))
                                else {
                                    continue;
                                };
                                readers.push(slot);
                                to.push(Recipients::Connection(address));
                            }
                        }
                    }
                }
                Target::Connection(id) => {
                    let address = self.node.address(*id).filter(|address| address.shard == self.shard);
                    let Some(address) = address else { continue };
                    let of_this_hub = self
                        .find(shard, *id)
                        .and_then(|slot| shard.session(slot))
                        .is_some_and(|session| session.greeted && Arc::ptr_eq(&session.hub, &delivery.hub));
                    if of_this_hub {
                        to.push(Recipients::Connection(address));
                    } else {
                        unknown += 1;
                    }
                }
            }
        }
        let except: SmallVec<[Address; 2]> =
            delivery.except.iter().filter_map(|id| self.node.address(*id)).collect();
        let chosen = |_: Slot, session: &Session| {
            let named = delivery.users.is_empty()
                || session.user.as_ref().is_some_and(|user| delivery.users.contains(user));
            let filter = delivery.filter.as_deref();
            named && filter.is_none_or(|filter| filter.matches(session))
        };
        let conditional = !delivery.users.is_empty() || delivery.filter.is_some();
        let only: Option<Only<'_, Session>> = if conditional { Some(&chosen) } else { None };
        let message = delivery.message.as_ref();
        let when_lagging = match &delivery.to[..] {
            [Target::Group(group)] => self.when_lagging(group),
            _ => WhenLagging::End,
        };
        let delivered =
            shard.publish(&Publication { message, to: &to, except: &except, only, when_lagging }) as u64;
        if let Some(position) = delivery.message.position {
            if let [Target::Group(name)] = &delivery.to[..]
                && let Some(group) = delivery.hub.group(name)
            {
                self.ends.note(&group, position);
                if self.node.logs().is_some_and(|logs| logs.rules().stores_members(name)) {
                    self.members_given(shard, &group, position);
                }
            }
            if let ([Target::User(user)], false) = (&delivery.to[..], readers.is_empty()) {
                let log = LogKey::Inbox(delivery.hub.name().clone(), user.clone());
                for slot in readers {
                    self.given(shard, slot, &log, position);
                    self.ask_what_arrived(shard, slot, &log);
                }
            }
        }
        Outcome { delivered, unknown, ..Outcome::default() }
    }
}

/// Whether a connection is given what comes into its user's inbox.
fn hears(shard: &Shard<Operator>, slot: Slot) -> bool {
    let inbox = shard.session(slot).and_then(|session| session.inbox.as_ref());
    inbox.is_some_and(|inbox| inbox.is_open)
}

/// A delivery whose message is not made yet.
#[derive(Default)]
struct Draft {
    way: Way,
    to: SmallVec<[Target; 1]>,
    except: SmallVec<[ConnectionId; 1]>,
    users: Vec<UserId>,
}
