//! Sending: where a message has to go, and handing it to the broker, on the thread of whoever sends.

use std::sync::atomic::Ordering;

use tieline_proto::envelope::{Envelope, Header, Message, Way};
use tieline_proto::{HubName, Incarnation, UserId};

use super::{Cluster, Nodes, lock};
use crate::broker::{NotTaken, To};
use crate::delivery::{Delivery, Target};
use crate::message;

impl Cluster {
    /// Numbers an envelope and hands it to the broker.
    pub(super) fn say(&self, to: To, envelope: &Envelope<'_>) -> Result<(), NotTaken> {
        let mut bytes = Vec::with_capacity(256);
        let mut numbers = lock(&self.numbers);
        let number = numbers.next(to);
        let origin = self.id.incarnation;
        Header { origin, to_all: to == To::All, number }.write(&mut bytes);
        envelope.write(&mut bytes);
        let result = self.broker().send(to, &bytes.into());
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
        !peers.is_alone() && (!peers.complete() || self.elsewhere(hub, user).next().is_some())
    }

    /// The other nodes that hold a user.
    fn elsewhere(&self, hub: &HubName, user: &str) -> impl Iterator<Item = Incarnation> {
        let me = self.id.incarnation;
        self.directory
            .holders(hub, user)
            .into_iter()
            .map(|holder| holder.node)
            .filter(move |node| *node != me)
    }

    /// As [`Cluster::may_hold_user`], for a group.
    pub(crate) fn may_hold_group(&self, hub: &HubName, group: &str) -> bool {
        let peers = self.peer_view();
        !peers.is_alone() && (!peers.complete() || !self.interest.of(hub, group).is_empty())
    }

    /// Whether there are others at all.
    pub(crate) fn is_alone(&self) -> bool {
        self.peer_view().is_alone()
    }

    /// The nodes that a message has to go to, and how many of its named targets none of them holds as far as is
    /// known, `here` telling which this node holds.
    pub(crate) fn route(&self, delivery: &Delivery, here: impl Fn(&Target) -> bool) -> (Nodes, u64) {
        let peers = self.peer_view();
        let mut nodes = Nodes::new();
        let mut unknown = 0;
        let hub = delivery.hub.name();
        let mut add = |node: Incarnation| {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        };
        for target in &delivery.to {
            match target {
                Target::Everyone => peers.all().iter().for_each(|peer| add(peer.id.incarnation)),
                Target::Group(group) => {
                    self.interest.of(hub, group).into_iter().for_each(&mut add);
                    peers.incomplete().for_each(&mut add);
                }
                Target::User(user) => {
                    let mut is_held = false;
                    for node in self.elsewhere(hub, user) {
                        is_held = true;
                        add(node);
                    }
                    if !is_held && !here(target) {
                        // Not found only where the view is complete; otherwise the others are asked.
                        peers.incomplete().for_each(&mut add);
                        unknown += u64::from(peers.complete());
                    }
                }
                Target::Connection(id) if peers.is_reached(id.incarnation()) => add(id.incarnation()),
                Target::Connection(_) => unknown += u64::from(!here(target)),
            }
        }
        nodes.retain(|node| peers.is_reached(*node));
        (nodes, unknown)
    }

    /// Hands a message to other nodes.
    pub(crate) fn forward(&self, delivery: &Delivery, nodes: &[Incarnation]) {
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
                let (number, given_up) = self.receipts.expect(receipt, nodes.len());
                if let (Some(settled), Some(node)) = (given_up, self.node.upgrade()) {
                    node.settle(settled);
                }
                number
            }
            None => 0,
        };
        let envelope = Envelope::Message(Message {
            hub: delivery.hub.name(),
            way: match &message.way {
                message::Way::Group(group) => Way::Group(group),
                message::Way::Server => Way::Server,
                message::Way::User(user) => Way::User(user),
            },
            from_user: message.from_user.as_deref(),
            id: message.id,
            time_ms: message.time_ms,
            data_type: message.payload.as_data().data_type(),
            json: message.payload.as_data().json(),
            everyone,
            groups,
            users,
            connections,
            except: delivery.except.to_vec(),
            only_users: delivery.users.iter().map(UserId::as_str).collect(),
            filter: delivery.filter.as_ref().map(|filter| filter.source()),
            receipt,
        });
        // Where more than half of the nodes want it, one envelope to all costs the origin least.
        let all = self.peer_view().all().len();
        if nodes.len() == all || nodes.len() * 2 > all + 1 && receipt == 0 {
            // What was not taken is counted; the receivers see the gap.
            let _ = self.say(To::All, &envelope);
        } else {
            for node in nodes {
                let _ = self.say(To::One(*node), &envelope);
            }
        }
    }
}
