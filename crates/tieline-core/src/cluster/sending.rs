//! Sending: where a message has to go, and handing it to the broker, on the thread of whoever sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tieline_proto::envelope::{Envelope, Header, Message, Rare};
use tieline_proto::{ConnectionId, HubName, Incarnation, UserId};

use super::numbers::Afters;
use super::peers::Peers;
use super::{Cluster, Nodes, Peer, Routing, lock};
use crate::broker::{NotTaken, To};
use crate::delivery::{Delivery, Outcome, Target};
use crate::directory::asked::PATIENCE;
use crate::directory::{Beside, Whereabouts};
use crate::node::{Elsewhere, Node, Places};
use crate::transit::Due;

impl Cluster {
    /// Numbers an envelope and hands it to the broker.
    pub(super) fn say(&self, to: To, envelope: &Envelope<'_>) -> Result<(), NotTaken> {
        let mut bytes = Vec::with_capacity(256);
        let mut numbers = lock(&self.numbers);
        let is_message = matches!(envelope, Envelope::Message(_));
        let (number, after) = if is_message && !self.orders_channels() {
            numbers.next_message(to)
        } else {
            (numbers.next(to), Afters::new())
        };
        let origin = self.id.incarnation;
        Header { origin, to_all: to == To::All, number }.write(&after, &mut bytes);
        envelope.write(&mut bytes);
        // What arrives while the broker is still being started is not answered.
        let broker = self.engines.get().map(|engines| &engines.broker);
        let result = broker.ok_or(NotTaken::Unreachable).and_then(|broker| broker.send(to, &bytes.into()));
        drop(numbers);
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            self.counters.not_taken.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Whether a user or a group may be held by another node, so that a message to it has to be kept.
    pub(crate) fn may_hold_user(&self, hub: &HubName, user: &str) -> bool {
        let peers = self.peer_view();
        !peers.is_alone() && (self.is_broadcast() || !peers.complete() || self.is_elsewhere(peers, hub, user))
    }

    /// Whether no other node holds a user. Nobody knows where what a node holds is not known whole.
    pub(crate) fn is_held_by_nobody_else(&self, hub: &HubName, user: &str) -> bool {
        let peers = self.peer_view();
        peers.is_alone() || peers.complete() && !self.is_elsewhere(peers, hub, user)
    }

    /// Whether other nodes hold a user, or may.
    fn is_elsewhere(&self, peers: Arc<Peers>, hub: &HubName, user: &str) -> bool {
        let me = self.id.incarnation;
        let found = self.directory.find(hub, user);
        let peers = self.peers_after(peers);
        found.beside != Beside::Nobody
            || found.holders.iter().any(|holder| holder.node != me)
            || peers.apart().next().is_some()
    }

    /// The peers as everybody sees them after something was found in a directory: one that goes by the members is shown those of another
    /// mind first.
    fn peers_after(&self, before: Arc<Peers>) -> Arc<Peers> {
        if self.goes_by_members { self.peer_view() } else { before }
    }

    /// As [`Cluster::may_hold_user`], for a group.
    pub(crate) fn may_hold_group(&self, hub: &HubName, group: &str) -> bool {
        let peers = self.peer_view();
        !peers.is_alone()
            && (self.is_broadcast() || !peers.complete() || !self.interest.of(hub, group).is_empty())
    }

    /// The node that holds a connection, if it is there: one that has moved is where it was taken in, any other where its id
    /// says.
    pub(crate) fn seat_of(&self, id: ConnectionId) -> Incarnation {
        self.moved_to(id).unwrap_or(id.incarnation())
    }

    /// The other node that has taken a connection in.
    pub(crate) fn moved_to(&self, id: ConnectionId) -> Option<Incarnation> {
        self.interest.of_connection(id)
    }

    fn is_broadcast(&self) -> bool {
        self.routing == Routing::Broadcast
    }

    /// Whether there are others at all.
    pub(crate) fn is_alone(&self) -> bool {
        self.peer_view().is_alone()
    }

    /// Where a message has to go among the other nodes, how many of its named targets nobody holds as far as is known, and for whom it
    /// is to be held on this `node`, at whose `places` its recipients were looked for before.
    pub(crate) fn route(&self, node: &Node, delivery: &Delivery, places: &Places) -> Elsewhere {
        let mut peers = self.peer_view();
        let mut nodes = Nodes::new();
        let (mut unknown, mut doubtful, me) = (0, 0, self.id.incarnation);
        let (mut newest, mut held) = (None, None);
        let can_be_held = delivery.to.len() == 1 && delivery.message.position.is_none();
        let hub = delivery.hub.name();
        let mut add = |node: Incarnation| {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        };
        for (target, is_here) in delivery.to.iter().zip(places.present.iter().copied()) {
            match target {
                Target::Everyone => peers.all().iter().for_each(|peer| add(peer.id.incarnation)),
                Target::Group(group) => {
                    self.interest.of(hub, group).into_iter().for_each(&mut add);
                    peers.incomplete().for_each(&mut add);
                }
                Target::User(user) => {
                    let Whereabouts { holders, beside } = self.directory.find(hub, user);
                    peers = self.peers_after(peers);
                    holders.iter().filter(|holder| holder.node != me).for_each(|holder| add(holder.node));
                    peers.apart().for_each(&mut add);
                    match beside {
                        Beside::Nobody => {}
                        Beside::One(node) => add(node),
                        Beside::Anybody => peers.all().iter().for_each(|peer| add(peer.id.incarnation)),
                    }
                    let is_certain = beside == Beside::Nobody && peers.apart().next().is_none();
                    let first = holders.first().map(|holder| holder.node).filter(|_| is_certain);
                    newest = first.filter(|_| delivery.to.len() == 1);
                    if !is_certain && !is_here && holders.is_empty() && delivery.to.len() == 1 {
                        doubtful = 1;
                    }
                    let is_mine = match is_certain {
                        true => first == Some(me),
                        false => holders.iter().any(|holder| holder.node == me),
                    };
                    // What this node claims may be a login that has begun, or has come to its end, since its places were looked at.
                    let may_travel = || {
                        places.may_travel
                            || node.transit().is_any()
                            || delivery.hub.user_connections(user) > 0
                    };
                    if can_be_held && is_mine && !is_here && may_travel() {
                        held = Some(user.clone());
                    } else if !is_here && is_certain && holders.iter().all(|holder| holder.node == me) {
                        // Not found only where the view is complete; otherwise the others are asked.
                        peers.incomplete().for_each(&mut add);
                        unknown += u64::from(peers.complete());
                    }
                }
                Target::Connection(_) if is_here => {}
                Target::Connection(id) => {
                    let node = self.seat_of(*id);
                    if peers.get(node).is_some() { add(node) } else { unknown += 1 }
                }
            }
        }
        let mut unreachable = Nodes::new();
        nodes.retain(|node| {
            let is_reached = peers.is_reached(*node);
            // One that was forgotten this moment holds nobody any more.
            if !is_reached && peers.get(*node).is_some() {
                unreachable.push(*node);
            }
            is_reached
        });
        if self.is_broadcast() {
            let reached = peers.all().iter().filter(|peer| peer.is_reached());
            nodes = reached.map(|peer| peer.id.incarnation).collect();
        }
        Elsewhere { nodes, members: peers.all().len(), unreachable, unknown, doubtful, newest, held }
    }

    /// The user for whom a message is to be held here: one that this node claims without having a connection, as `present` tells, and of
    /// whom the message's origin knew no newer claim. Where the origin did not know who has the newest, each that claims holds it, and who
    /// is given it twice knows it by its id. A message to several targets is held for nobody: its shards look for each of
    /// them once more.
    pub(crate) fn traveller(&self, delivery: &Delivery, present: &[bool]) -> Option<UserId> {
        let me = self.id.incarnation;
        let ([Target::User(user)], [false]) = (&delivery.to[..], present) else { return None };
        let may_be_mine = delivery.newest.is_none_or(|newest| newest == me);
        let is_mine = may_be_mine && self.directory.is_claimed(delivery.hub.name(), user);
        is_mine.then(|| user.clone())
    }

    /// Hands on what was held for users who have come to other nodes, and gives up what was held for too long.
    pub(super) fn look_after_travellers(&self, node: &Node, now: Instant) {
        if !node.transit().is_any() {
            return;
        }
        let me = self.id.incarnation;
        let newest = |hub: &HubName, user: &UserId| {
            let newest = self.directory.find(hub, user).holders.first().map(|newest| newest.node);
            newest.filter(|node| *node != me)
        };
        for due in node.transit().due(now, newest) {
            match due {
                Due::HandOn(to, mut delivery) => {
                    delivery.handed_on = true;
                    self.counters.handed_on.fetch_add(1, Ordering::Relaxed);
                    let (nodes, newest) = (Nodes::from_iter([to]), Some(to));
                    let to = Elsewhere { nodes, newest, members: 2, ..Elsewhere::default() };
                    self.forward(&delivery, &to);
                }
                Due::Lost(delivery) => {
                    self.counters.held_in_vain.fetch_add(1, Ordering::Relaxed);
                    node.lose(&delivery);
                }
                Due::Release(hub, user, claim) => self.release_user(&hub, &user, claim),
            }
        }
    }

    /// Waits until it is known where a message's users are, at most [`PATIENCE`]: who waits can tell exactly what becomes of it. Without
    /// that the message would go to all nodes.
    pub(crate) async fn seek(&self, delivery: &Delivery) {
        let Some(asked) = self.asked.as_ref().filter(|_| !self.is_alone()) else { return };
        let hub = delivery.hub.name();
        // All are asked for, not only those up to the first that is not known.
        let is_sought = || {
            let users = delivery.to.iter().filter_map(|target| match target {
                Target::User(user) => Some(user),
                _ => None,
            });
            users.filter(|user| asked.is_sought(hub, user)).count() > 0
        };
        let mut answers = asked.answers();
        // What is not known by then goes to all.
        drop(tokio::time::timeout(PATIENCE, answers.wait_for(|_| !is_sought())).await);
    }

    /// Has it looked up where a user is, who will be sent to.
    pub(crate) fn seek_early(&self, hub: &HubName, user: &UserId) {
        if let Some(asked) = &self.asked {
            asked.is_sought(hub, user);
        }
    }

    /// Asks another node of this name to be emptied. Returns whether there is one that is reached.
    pub fn request_drain(&self, name: &str) -> bool {
        let peers = self.peer_view();
        let is_it = |peer: &&Peer| peer.is_reached() && peer.id.name.as_str() == name;
        let Some(peer) = peers.all().iter().find(is_it) else { return false };
        self.say(To::One(peer.id.incarnation), &Rare::Drain.into()).is_ok()
    }

    /// Tells the node that holds a connection that its client has another one.
    pub(crate) fn tell_replaced(&self, hub: &HubName, id: ConnectionId, user: &UserId) {
        let to = To::One(self.seat_of(id));
        // What is not taken closes later: its node has told the client to go.
        let _ = self.say(to, &Rare::Replaced(hub.clone(), id, user.clone()).into());
    }

    /// Hands a message to other nodes.
    pub(crate) fn forward(&self, delivery: &Delivery, to: &Elsewhere) {
        // Where more than half of the nodes want it, one envelope to all costs the origin least; but what goes to a single node
        // goes to it alone, because a broker with a server gives back what went to all. Who asks for receipts does so
        // only where all are reached: one that comes back this moment would answer without being waited for.
        let wanted = to.nodes.len();
        let least = if self.is_broadcast() { 1 } else { 2 };
        let is_most = self.is_broadcast() || wanted * 2 > to.members + 1;
        let by_all = wanted >= least && (wanted == to.members || delivery.receipt.is_none() && is_most);
        if !by_all && !to.unreachable.is_empty() {
            // Who cannot be given it misses its number, and so finds out when there is a way again.
            let mut numbers = lock(&self.numbers);
            for node in &to.unreachable {
                numbers.next(To::One(*node));
            }
        }
        if to.nodes.is_empty() {
            return;
        }
        let (mut groups, mut users, mut connections) = (Vec::new(), Vec::new(), Vec::new());
        let mut everyone = false;
        for target in &delivery.to {
            match target {
                Target::Everyone => everyone = true,
                Target::Group(group) => groups.push(group.as_str()),
                Target::User(user) => users.push(user.as_str()),
                Target::Connection(id) => connections.push(*id),
            }
        }
        let message = &delivery.message;
        let receipt = match &delivery.receipt {
            Some(receipt) => {
                let (number, given_up) = self.receipts.expect(receipt, &to.nodes);
                if let (Some(settled), Some(node)) = (given_up, self.node.upgrade()) {
                    node.settle(settled);
                }
                number
            }
            None => 0,
        };
        let envelope = Envelope::Message(Message {
            hub: delivery.hub.name(),
            way: message.way.borrow(),
            from_user: message.from_user.as_deref(),
            id: message.id,
            time_ms: message.time_ms,
            data_type: message.payload.as_data().data_type(),
            json: message.payload.as_data().json(),
            everyone,
            groups,
            users,
            newest: to.newest.into_iter().collect(),
            handed_on: delivery.handed_on,
            connections,
            except: delivery.except.to_vec(),
            only_users: delivery.users.iter().map(UserId::as_str).collect(),
            filter: delivery.filter.as_ref().map(|filter| filter.source()),
            receipt,
            position: message.position,
        });
        if by_all {
            // What was not taken is counted; the receivers see the gap.
            let _ = self.say(To::All, &envelope);
            return;
        }
        for node in &to.nodes {
            if self.say(To::One(*node), &envelope).is_err() && receipt > 0 {
                let outcome = Outcome { unreachable: 1, ..Outcome::default() };
                let settled = self.receipts.arrived(receipt, *node, outcome);
                if let (Some(settled), Some(node)) = (settled, self.node.upgrade()) {
                    node.settle(settled);
                }
            }
        }
    }
}
