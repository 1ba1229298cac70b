//! Connections that are sent to other nodes: because this one is emptied, because they belong elsewhere, or because their client has
//! another one already.
//!
//! A client of `tieline.v1` is told to connect again, keeps what it has until then, and says which connection the new one replaces. One of the
//! reliable protocol loses its socket and comes back anywhere with all that it had. The others are closed with a code that says: come
//! again. What comes meanwhile for a user without a connection is held by [`Transit`](crate::transit::Transit).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_proto::{CloseCode, ConnectionId, HubName, UserId, reply};
use tieline_switchboard::{Address, Shard, Slot};
use tieline_websocket::Kind;

use super::Operator;
use crate::command::Command;
use crate::directory::Beside;
use crate::hub::Hub;
use crate::node::{Node, Overloaded};
use crate::session::Session;
use crate::stamp::unix_ms;
use crate::subprotocol::Subprotocol;

/// How long a client that was told to connect again may take, before its connection is closed.
const TIME_TO_GO: Duration = Duration::from_secs(10);

/// Over how long such clients spread themselves.
const JITTER: Duration = Duration::from_secs(1);

/// What a client is told whose newer connection has come.
const REPLACED: &str = "The client has connected again.";

/// Whether a connection can be sent away: it is whole, goes nowhere yet, and was not told to.
fn may_go(session: &Session) -> bool {
    session.greeted && !session.leaving && session.taking == 0
}

impl Operator {
    /// Sends so many connections away that were not yet. Returns how many it has sent.
    pub(crate) fn send_away(&mut self, shard: &mut Shard<Self>, most: usize) -> usize {
        let may_go = shard.sessions().filter(|(_, session)| may_go(session));
        let slots: Vec<Slot> = may_go.map(|(slot, _)| slot).take(most).collect();
        slots.iter().for_each(|slot| self.send_one_away(shard, *slot));
        slots.len()
    }

    /// The same with certain connections, those of them that are still there.
    pub(crate) fn send_these_away(&mut self, shard: &mut Shard<Self>, these: &[Address]) -> usize {
        let mut sent = 0;
        for address in these {
            let Some(slot) = shard.find(*address) else { continue };
            if shard.session(slot).is_some_and(may_go) {
                self.send_one_away(shard, slot);
                sent += 1;
            }
        }
        sent
    }

    fn send_one_away(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let Some(session) = shard.session_mut(slot) else { return };
        session.leaving = true;
        self.tally.sent_away += 1;
        match session.subprotocol {
            Subprotocol::Tieline => {
                let jitter = JITTER.as_millis() as u64;
                shard.send(slot, Kind::Text, |out| reply::reconnect(out, 0, jitter, None));
                let until = unix_ms() + TIME_TO_GO.as_millis() as u64;
                self.going.push_back((until, shard.address(slot)));
            }
            Subprotocol::AzureReliable => {
                shard.unplug(self, slot);
            }
            Subprotocol::Azure | Subprotocol::Plain => {
                self.hang_up(shard, slot, CloseCode::Draining, CloseCode::Draining.text());
            }
        }
    }

    /// Closes those that were told to go and did not.
    pub(super) fn close_lingering(&mut self, shard: &mut Shard<Self>) {
        let now = unix_ms();
        while let Some((until, address)) = self.going.front().copied()
            && until <= now
        {
            self.going.pop_front();
            if let Some(slot) = shard.find(address) {
                self.hang_up(shard, slot, CloseCode::Draining, CloseCode::Draining.text());
            }
        }
    }

    /// The client of a connection has another one now.
    fn replaced(&mut self, shard: &mut Shard<Self>, hub: &HubName, id: ConnectionId, user: &UserId) {
        let Some(slot) = self.find(shard, id) else { return };
        let is_its = |session: &Session| {
            session.hub.name() == hub && session.user.as_ref() == Some(user) && session.greeted
        };
        if let Some(session) = shard.session_mut(slot).filter(|session| is_its(session)) {
            session.leaving = true;
            self.hang_up(shard, slot, CloseCode::Normal, REPLACED);
        }
    }

    /// A connection of a user has ended. The claim to the user ends too, at once, or where it was the last one and was sent away, when the
    /// user has come elsewhere.
    pub(super) fn let_user_go(&mut self, hub: &Hub, user: &UserId, address: Address, session: (u64, bool)) {
        let given = self.fresh.remove(address);
        let (claim, was_leaving) = session;
        let travels = was_leaving && self.node.cluster().is_some();
        let transit = self.node.transit();
        if travels {
            // Whoever finds no connection from now on finds the user on its way.
            transit.begin_login();
        }
        let was_last = hub.remove_user(user, address);
        if travels && was_last {
            transit.leave(hub.name(), user, claim, given, Instant::now());
        } else {
            self.release_user(hub.name(), user, claim);
        }
        if travels {
            transit.end_login();
        }
    }

    /// A user is connected here: it gets what came while it was on its way.
    pub(super) fn arrive_from_transit(
        &mut self,
        shard: &mut Shard<Self>,
        address: Address,
        hub: &Arc<Hub>,
        user: &UserId,
    ) {
        let found = self.node.cluster().map(|cluster| cluster.directory().find(hub.name(), user));
        let is_from_elsewhere =
            found.is_some_and(|found| found.holders.len() > 1 || found.beside != Beside::Nobody);
        // Who comes back to this node may be followed by what was on its way to another shard.
        if is_from_elsewhere || self.node.transit().is_leaving(hub.name(), user) {
            self.fresh.add(address, unix_ms());
        }
        for delivery in self.node.transit().take(hub.name(), user) {
            self.deliver(shard, &delivery);
        }
        self.node.transit().end_login();
    }

    /// A login has ended before its user was connected: what was held for it is for nobody, unless another claim of this node stands.
    pub(super) fn did_not_arrive(&self, hub: &HubName, user: &UserId) {
        if !self.node.cluster().is_some_and(|cluster| cluster.directory().is_claimed(hub, user)) {
            self.node.transit().take(hub, user).iter().for_each(|delivery| self.node.lose(delivery));
        }
        self.node.transit().end_login();
    }
}

impl Node {
    /// A client that has connected here says which connection that replaces: it is closed, wherever it is. Only a connection of
    /// the same user is.
    pub(crate) fn replace(&self, hub: &HubName, id: ConnectionId, user: &UserId) {
        match self.cluster() {
            Some(cluster) if self.address(id).is_none() => cluster.tell_replaced(hub, id, user),
            _ => self.end_replaced(hub.clone(), id, user.clone()),
        }
    }

    /// The same for a connection of this node, as another one has heard.
    pub(crate) fn end_replaced(&self, hub: HubName, id: ConnectionId, user: UserId) {
        let Some(address) = self.address(id) else { return };
        let end = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            operator.replaced(shard, &hub, id, &user);
        };
        // A shard without room now closes it later, as one that was told to go and has not.
        let _ = self.post(address.shard, Command::Run(Box::new(end)));
    }

    /// Sends about so many connections away, of all shards together. Returns how many it has sent.
    ///
    /// # Errors
    /// [`Overloaded`] when a shard has no room for the request.
    pub async fn send_away(&self, most: usize) -> Result<usize, Overloaded> {
        let shards = self.handle().shards();
        let most = most.div_ceil(shards);
        let mut sent = 0;
        for shard in 0..shards {
            let away =
                move |operator: &mut Operator, shard: &mut Shard<Operator>| operator.send_away(shard, most);
            sent += self.ask(shard as u16, away).await?;
        }
        Ok(sent)
    }

    /// The connections that `belong` elsewhere, of those that can be sent there. It looks at every connection once.
    ///
    /// # Errors
    /// As [`send_away`](Node::send_away).
    pub async fn to_be_sent_away(
        &self,
        belong: impl Fn(&Session) -> bool + Clone + Send + 'static,
    ) -> Result<Vec<Address>, Overloaded> {
        let mut all = Vec::new();
        for shard in 0..self.handle().shards() {
            let belong = belong.clone();
            let look = move |_: &mut Operator, shard: &mut Shard<Operator>| {
                let going = shard.sessions().filter(|(_, session)| may_go(session) && belong(session));
                going.map(|(slot, _)| shard.address(slot)).collect::<Vec<_>>()
            };
            all.extend(self.ask(shard as u16, look).await?);
        }
        Ok(all)
    }

    /// Sends certain connections away. Returns how many of them were still there.
    ///
    /// # Errors
    /// As [`send_away`](Node::send_away). Those of other shards may have been sent.
    pub async fn send_these_away(&self, these: &[Address]) -> Result<usize, Overloaded> {
        let mut sent = 0;
        for shard in 0..self.handle().shards() as u16 {
            let own: Vec<Address> = these.iter().copied().filter(|address| address.shard == shard).collect();
            if !own.is_empty() {
                let away = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
                    operator.send_these_away(shard, &own)
                };
                sent += self.ask(shard, away).await?;
            }
        }
        Ok(sent)
    }
}
