//! Where a message goes: the shards of this node and the other nodes that hold recipients, and what becomes of it where its user
//! is on the way from one node to another. Tested with whole sessions, in `tests/sessions` and `tests/interleavings`.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;
use tieline_proto::{Incarnation, UserId};

use super::Node;
use crate::cluster::Nodes;
use crate::delivery::{Delivery, Outcome, Target};
use crate::hub::Hub;
use crate::transit::Held;

/// Where a message has to go: every shard and node of it gives one answer.
pub(crate) struct Route {
    /// Shards of this node that hold recipients.
    pub(crate) shards: Vec<u16>,
    /// The way to other nodes that do, or may.
    pub(crate) elsewhere: Elsewhere,
}

/// Where the recipients of a message are on this node.
pub(crate) struct Places {
    /// The shards that hold them, each once.
    pub(crate) shards: Vec<u16>,
    /// Of each target whether anybody is here.
    pub(crate) present: SmallVec<[bool; 2]>,
    /// Whether anybody who is not here may be on the way.
    pub(crate) may_travel: bool,
}

/// Where a message has to go among the other nodes.
#[derive(Default)]
pub(crate) struct Elsewhere {
    /// Those that hold recipients, or may, and that there is a way to.
    pub(crate) nodes: Nodes,
    /// How many other nodes there are, those that cannot be reached among them.
    pub(crate) members: usize,
    /// Those that there is no way to.
    pub(crate) unreachable: Nodes,
    /// Where the only target is a user, the node with the newest claim, if that is known.
    pub(crate) newest: Option<Incarnation>,
    /// The user who is on the way to this node or from it, and the only target: the message is held.
    pub(crate) held: Option<UserId>,
    /// Named users and connections that nobody holds, as far as is known.
    pub(crate) unknown: u64,
    /// A named user, the only target, of whom it is not known whether anybody holds it.
    pub(crate) doubtful: u64,
}

impl Route {
    pub(crate) fn answers(&self) -> usize {
        self.shards.len() + self.elsewhere.nodes.len() + usize::from(self.elsewhere.held.is_some())
    }

    /// What can be told before anybody has answered.
    pub(crate) fn known(&self) -> Outcome {
        let unreachable = self.elsewhere.unreachable.len() as u64;
        let Elsewhere { unknown, doubtful, .. } = self.elsewhere;
        Outcome { unknown, unreachable, doubtful, ..Outcome::default() }
    }

    pub(crate) fn is_nowhere(&self) -> bool {
        self.answers() == 0
    }
}

impl Node {
    /// Where the recipients of a delivery are on this node, all looked up once: whoever comes or leaves meanwhile is at one place.
    pub(crate) fn places_of(&self, delivery: &Delivery) -> Places {
        // Asked before and after the look: who comes is no traveller any more once it is here, who leaves is one before it is gone.
        let might_travel = self.transit.is_any();
        let mut wanted = vec![false; self.tallies.len()];
        let mut present = SmallVec::with_capacity(delivery.to.len());
        for target in &delivery.to {
            let mut is_present = false;
            let mut add = |shard: u16| {
                is_present = true;
                wanted[usize::from(shard)] = true;
            };
            match target {
                Target::Everyone => delivery.hub.everyone().shards().for_each(add),
                Target::Group(group) => {
                    if let Some(group) = delivery.hub.group(group) {
                        group.shards().for_each(add);
                    }
                }
                Target::User(user) => {
                    delivery.hub.user(user).iter().for_each(|address| add(address.shard));
                }
                Target::Connection(id) => {
                    if let Some(address) = self.address(*id) {
                        add(address.shard);
                    }
                }
            }
            present.push(is_present);
        }
        let shards = wanted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(shard, _)| shard as u16);
        Places { shards: shards.collect(), present, may_travel: might_travel || self.transit.is_any() }
    }

    /// Where a message has to go.
    pub(crate) fn route(&self, delivery: &Delivery) -> Route {
        let Places { shards, present, may_travel } = self.places_of(delivery);
        let elsewhere = match self.cluster() {
            Some(cluster) => cluster.route(delivery, may_travel, &present),
            None => {
                let is_named = |target: &Target| matches!(target, Target::User(_) | Target::Connection(_));
                let targets = delivery.to.iter().zip(&present);
                let unknown = targets.filter(|(target, is_here)| is_named(target) && !**is_here).count();
                Elsewhere { unknown: unknown as u64, ..Elsewhere::default() }
            }
        };
        Route { shards, elsewhere }
    }

    /// Hands a message to the other nodes on its route.
    pub(crate) fn forward(&self, delivery: &Delivery, route: &Route) {
        if let Some(cluster) = self.cluster() {
            cluster.forward(delivery, &route.elsewhere);
        }
        self.hold(delivery, route.elsewhere.held.as_ref());
    }

    /// Holds a message for a user who is on the way, if there is one. Where there is no room for it, the user is unknown.
    pub(crate) fn hold(&self, delivery: &Delivery, traveller: Option<&UserId>) {
        let Some(user) = traveller else { return };
        let part = Delivery {
            hub: Arc::clone(&delivery.hub),
            message: Arc::clone(&delivery.message),
            to: SmallVec::from_iter([Target::User(user.clone())]),
            newest: None,
            handed_on: false,
            except: delivery.except.clone(),
            users: delivery.users.clone(),
            filter: delivery.filter.clone(),
            receipt: delivery.receipt.clone(),
        };
        match self.transit.hold(user, part, Instant::now()) {
            Held::Yes => self.meet(&delivery.hub, user),
            Held::Again(part) => self.settle_part(&part, Outcome::default()),
            Held::NoRoom(part) => self.lose(&part),
        }
    }

    /// Gives a user what is held for it, where it was connected while that was put there.
    fn meet(&self, hub: &Hub, user: &UserId) {
        if hub.user_connections(user) == 0 {
            return;
        }
        for part in self.transit.take(hub.name(), user) {
            let shards = self.places_of(&part).shards;
            if let Some(receipt) = &part.receipt {
                receipt.await_more(shards.len());
            }
            let part = Arc::new(part);
            self.hand_to_shards(&shards, &part);
            self.settle_part(&part, Outcome::default());
        }
    }

    /// Nobody gets what was held.
    pub(crate) fn lose(&self, part: &Delivery) {
        self.settle_part(part, Outcome { unknown: 1, ..Outcome::default() });
    }

    fn settle_part(&self, part: &Delivery, outcome: Outcome) {
        let settled = part.receipt.as_ref().and_then(|receipt| receipt.add(outcome));
        settled.into_iter().for_each(|settled| self.settle(settled));
    }
}
