//! Receiving: what the other nodes say, on the broker's own tasks. Messages go into the mailboxes of the shards, words that
//! take memory of who is there go to the cluster's task, and nothing waits for either.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use smallvec::SmallVec;
use tieline_proto::envelope::{Envelope, EnvelopeError, Header, Message, Rare};
use tieline_proto::filter::Filter;
use tieline_proto::{ConnectionId, GroupName, HubName, Incarnation, Payload, UserId};

use super::attendant::Word;
use super::order::Order;
use super::sequence::{Arrived, Channel};
use super::{Cluster, lock};
use crate::broker::{Inbound, To};
use crate::delivery::{Delivery, Outcome, Receipt, Target};
use crate::logs::log_of;
use crate::message::{self, Way};
use crate::node::{Node, Places};
use crate::registry::Hearers;

/// What the broker tells the cluster by. It does not keep the cluster, which keeps the broker.
pub(super) struct Ears(pub(super) Weak<Cluster>);

impl Inbound for Ears {
    fn envelope(&self, bytes: &[u8]) {
        if let Some(cluster) = self.0.upgrade()
            && let Some(node) = cluster.node.upgrade()
        {
            cluster.take_in(&node, bytes);
        }
    }

    fn reachable(&self, node: Incarnation) {
        self.tell(Word::Reachable(node));
    }

    fn unreachable(&self, node: Incarnation) {
        self.tell(Word::Unreachable(node));
    }

    fn away(&self) {
        self.switch(true);
    }

    fn back(&self) {
        self.switch(false);
    }
}

impl Ears {
    fn tell(&self, word: Word) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.tell(word);
        }
    }

    fn switch(&self, is_away: bool) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.is_away.store(is_away, Ordering::Release);
            cluster.statements.changed.notify_one();
        }
    }
}

impl Cluster {
    fn take_in(&self, node: &Arc<Node>, bytes: &[u8]) {
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.hear(node, bytes) {
            self.count_malformed(error);
        }
    }

    fn count_malformed(&self, error: EnvelopeError) {
        self.counters.malformed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "An envelope could not be read.");
    }

    fn hear(&self, node: &Arc<Node>, bytes: &[u8]) -> Result<(), EnvelopeError> {
        let (header, after, said) = Header::read(bytes, self.id.incarnation)?;
        if header.origin == self.id.incarnation {
            return Ok(());
        }
        if self.orders_channels() {
            return self.hear_said(node, header, said);
        }
        let (origin, channel) = (header.origin, channel_of(header));
        // Held until the envelope is in the shards' mailboxes: the two channels may come on threads of their own.
        let mut order = lock(&self.order);
        let now = Instant::now();
        if order.must_wait(origin, channel, after, &lock(&self.seen)) {
            lock(&self.seen).heard(origin);
            order.hold(origin, channel, after, bytes, now);
            return self.hear_late(node, &mut order, now.checked_sub(self.times.beat));
        }
        let heard = self.hear_said(node, header, said);
        self.hear_ready(node, &mut order, origin);
        heard
    }

    /// Takes in what the other nodes said so long ago that it is not waited for any longer what should be before it.
    pub(super) fn end_waits(&self, node: &Arc<Node>) {
        if !self.orders_channels() {
            let before = Instant::now().checked_sub(self.times.beat);
            if let Err(error) = self.hear_late(node, &mut lock(&self.order), before) {
                self.count_malformed(error);
            }
        }
    }

    /// A node is gone: what it said is not waited with any longer.
    pub(super) fn end_waits_of(&self, node: &Arc<Node>, origin: Incarnation) {
        let mut order = lock(&self.order);
        while let Some(bytes) = order.give_up(origin) {
            if let Err(error) = self.hear_held(node, &bytes) {
                self.count_malformed(error);
            }
        }
    }

    fn hear_late(
        &self,
        node: &Arc<Node>,
        order: &mut Order,
        before: Option<Instant>,
    ) -> Result<(), EnvelopeError> {
        // A machine that started less than a beat ago has nothing that is late.
        let Some(before) = before else { return Ok(()) };
        while let Some((origin, bytes)) = order.late(before) {
            self.counters.out_of_order.fetch_add(1, Ordering::Relaxed);
            let (header, after, said) = Header::read(&bytes, self.id.incarnation)?;
            if let Some(number) = after {
                self.note_tail(origin, channel_of(header).other(), number);
            }
            self.hear_said(node, header, said)?;
            self.hear_ready(node, order, origin);
        }
        Ok(())
    }

    fn hear_ready(&self, node: &Arc<Node>, order: &mut Order, origin: Incarnation) {
        loop {
            let ready = order.ready(origin, &lock(&self.seen));
            let Some(bytes) = ready else { return };
            if let Err(error) = self.hear_held(node, &bytes) {
                self.count_malformed(error);
            }
        }
    }

    fn hear_held(&self, node: &Arc<Node>, bytes: &[u8]) -> Result<(), EnvelopeError> {
        let (header, _, said) = Header::read(bytes, self.id.incarnation)?;
        self.hear_said(node, header, said)
    }

    fn hear_said(&self, node: &Arc<Node>, header: Header, said: &[u8]) -> Result<(), EnvelopeError> {
        if header.number > 0 {
            match lock(&self.seen).envelope(header.origin, channel_of(header), header.number) {
                Arrived::InOrder => {}
                Arrived::AfterGap(missing) => self.note_gap(missing),
                Arrived::Again => {
                    self.counters.again.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
        match Envelope::read(said)? {
            Envelope::Message(message) => self.receive(node, header.origin, &message),
            Envelope::Receipt(number, delivered, unknown) => {
                if let Some(settled) = self.receipts.arrived(
                    number,
                    header.origin,
                    Outcome { delivered, unknown, ..Outcome::default() },
                ) {
                    node.settle(settled);
                }
            }
            Envelope::Rare(rare) => self.hear_rare(node, header, rare),
        }
        Ok(())
    }

    fn hear_rare(&self, node: &Arc<Node>, header: Header, rare: Rare) {
        let origin = header.origin;
        match rare {
            Rare::Beat(beat) => {
                if header.to_all || self.orders_channels() {
                    self.note_tail(origin, Channel::All, beat.last_to_all);
                } else {
                    lock(&self.seen).mark(origin, Channel::All, beat.last_to_all);
                }
                let hearers = if header.to_all { Hearers::All } else { Hearers::ThisNode };
                self.tell(Word::Beat(origin, hearers, beat));
            }
            Rare::Changes(version, changes) => self.tell(Word::Changes(origin, version, changes)),
            Rare::Read(version) => self.tell(Word::Read(origin, version)),
            Rare::RosterWanted => self.tell(Word::RosterWanted(origin)),
            Rare::Roster(version, left, held) => {
                self.tell(Word::Roster(origin, version, left, held));
            }
            Rare::Ask(number, hub, ask) => self.tell(Word::Ask(origin, number, hub, ask)),
            Rare::Wish(number, wish) => self.tell(Word::Wish(origin, number, wish)),
            Rare::Fence(number) => {
                let _ = self.say(To::One(origin), &Rare::Answer(number, None).into());
            }
            Rare::Answer(number, answer) => self.asks.answered(number, answer),
            Rare::Replaced(hub, id, user) => node.end_replaced(hub, id, user),
            Rare::Drain => node.request_drain(),
            Rare::Tail(number) => self.note_tail(origin, Channel::One, number),
            Rare::Stale(stale) => {
                if let Some(asked) = self.asked()
                    && let Some(answer) = asked.hear_stale(&stale)
                {
                    let _ = self.say(To::One(origin), &answer.into());
                }
            }
            Rare::Forgotten(numbers) => {
                if let Some(asked) = self.asked() {
                    asked.hear_forgotten(origin, &numbers);
                }
            }
            Rare::Goodbye => self.tell(Word::Goodbye(origin)),
        }
    }

    fn note_tail(&self, origin: Incarnation, channel: Channel, number: u64) {
        let missing = lock(&self.seen).last_number(origin, channel, number);
        if missing > 0 {
            self.note_gap(missing);
        }
    }

    fn note_gap(&self, missing: u64) {
        self.counters.missing.fetch_add(missing, Ordering::Relaxed);
        // No word: there may be no room for one.
        self.has_gap.store(true, Ordering::Release);
        self.statements.changed.notify_one();
    }

    fn tell(&self, word: Word) {
        if self.words.try_send(word).is_err() {
            self.counters.words_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Delivers another node's message to connections of this one.
    fn receive(&self, node: &Arc<Node>, origin: Incarnation, message: &Message<'_>) {
        let outcome = self.deliver(node, origin, message);
        if let (Some(outcome), true) = (outcome, message.receipt > 0) {
            self.answer(origin, message.receipt, outcome);
        }
    }

    /// Tells an origin what became of its message.
    pub(crate) fn answer(&self, origin: Incarnation, receipt: u64, outcome: Outcome) {
        let _ = self.say(To::One(origin), &Envelope::Receipt(receipt, outcome.delivered, outcome.unknown));
    }

    /// Hands a message to the shards that hold recipients. Returns what became of it when that is known at once;
    /// otherwise the last shard answers.
    fn deliver(&self, node: &Arc<Node>, origin: Incarnation, message: &Message<'_>) -> Option<Outcome> {
        let nobody = Some(Outcome::default());
        let hub = HubName::new(message.hub).ok().and_then(|name| node.hubs().get(&name));
        // Nobody of this hub is here: there is nothing to do, and nothing wrong.
        let Some(hub) = hub else { return nobody };
        let way = Way::of(message.way)?;
        let mut to: SmallVec<[Target; 1]> = SmallVec::new();
        if message.everyone {
            to.push(Target::Everyone);
        }
        to.extend(message.groups.iter().filter_map(|group| GroupName::new(group).ok()).map(Target::Group));
        to.extend(message.users.iter().filter_map(|user| UserId::new(user).ok()).map(Target::User));
        let newest = message.newest.first().copied().filter(|node| to.len() == 1 && *node != Incarnation(0));
        let own = |id: &&ConnectionId| node.address(**id).is_some();
        to.extend(message.connections.iter().filter(own).copied().map(Target::Connection));
        let filter = match message.filter {
            None => None,
            // The origin has compiled it already, so that a filter is never dropped here and wider sent than asked.
            Some(text) => Some(Arc::new(Filter::parse(text).ok()?)),
        };
        let from_user = message.from_user.and_then(|user| UserId::new(user).ok());
        let payload = Payload::from_parts(message.data_type, message.json).ok()?;
        let (id, time_ms) = (message.id, message.time_ms);
        let mut delivery = Delivery {
            hub,
            message: match message.position {
                None => message::Message::new(way, from_user, id, time_ms, payload),
                Some(position) => message::Message::kept(way, from_user, id, time_ms, payload, position),
            },
            to,
            newest,
            handed_on: message.handed_on,
            except: message.except.iter().copied().collect(),
            users: message.only_users.iter().filter_map(|user| UserId::new(user).ok()).collect(),
            filter,
            receipt: None,
        };
        if let (Some(position), Some(logs), [target]) = (message.position, node.logs(), &delivery.to[..])
            && let Some(log) = log_of(delivery.hub.name(), target)
        {
            // What has a place in a log waits for its turn there.
            if message.receipt > 0 {
                delivery.receipt = Some(Receipt::for_node(1, origin, message.receipt));
            }
            logs.offer(log, position, &delivery);
            return None;
        }
        let Places { shards, present, may_travel } = node.places_of(&delivery);
        let held = match may_travel {
            true => self.traveller(&delivery, &present),
            false => None,
        };
        if shards.is_empty() && held.is_none() {
            return nobody;
        }
        if message.receipt > 0 {
            let answers = shards.len() + usize::from(held.is_some());
            delivery.receipt = Some(Receipt::for_node(answers, origin, message.receipt));
        }
        node.hold(&delivery, held.as_ref());
        let refused = node.hand_to_shards(&shards, &Arc::new(delivery));
        self.counters.dropped.fetch_add(refused as u64, Ordering::Relaxed);
        None
    }
}

fn channel_of(header: Header) -> Channel {
    if header.to_all { Channel::All } else { Channel::One }
}
