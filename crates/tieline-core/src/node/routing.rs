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
        let places = self.places_of(delivery);
        let elsewhere = match self.cluster() {
            Some(cluster) => cluster.route(self, delivery, &places),
            None => {
                let is_named = |target: &Target| matches!(target, Target::User(_) | Target::Connection(_));
                let targets = delivery.to.iter().zip(&places.present);
                let unknown = targets.filter(|(target, is_here)| is_named(target) && !**is_here).count();
                Elsewhere { unknown: unknown as u64, ..Elsewhere::default() }
            }
        };
        Route { shards: places.shards, elsewhere }
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
        match self.transit.hold(user, delivery.for_user(user), Instant::now()) {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tieline_proto::{HubName, MessageId, NodeName, Payload};
    use tieline_switchboard::{Address, Settings};

    use super::*;
    use crate::broker::{Broker, MemoryExchange};
    use crate::message::{Message, Way};
    use crate::presence::PresenceRules;
    use crate::token::Keys;
    use crate::{Cluster, ClusterSettings, Limits, NodeSettings};

    fn message_to(user: &UserId, hub: Arc<Hub>) -> Delivery {
        let way = Way::User(user.clone());
        Delivery {
            hub,
            message: Message::new(way, None, MessageId(1), 1, Payload::from_text("hello")),
            to: SmallVec::from_iter([Target::User(user.clone())]),
            newest: None,
            handed_on: false,
            except: SmallVec::new(),
            users: Vec::new(),
            filter: None,
            receipt: None,
        }
    }

    #[tokio::test]
    async fn who_logs_in_behind_the_look_at_the_places_is_held_for() {
        let settings = NodeSettings {
            name: NodeName::new("n").unwrap(),
            shards: 1,
            limits: Limits::default(),
            switchboard: Settings::default(),
            keys: Arc::new(Keys::new(["a key"])),
            hubs: Vec::new(),
            presence: PresenceRules::default(),
        };
        let (node, switchboard) = Node::start(settings).unwrap();
        let (exchange, id) = (MemoryExchange::links(), node.id().incarnation);
        let connect = |inbound| {
            let broker: Arc<dyn Broker> = Arc::new(exchange.join(id, inbound));
            std::future::ready(Ok::<_, Infallible>(broker))
        };
        let (cluster, task) =
            Cluster::start(Arc::clone(&node), ClusterSettings::default(), connect).await.unwrap();
        let (user, hub) = (UserId::new("u").unwrap(), node.hubs().get_or_make(&HubName::new("hub").unwrap()));
        let delivery = message_to(&user, Arc::clone(&hub));
        let places = node.places_of(&delivery);
        let routed = || {
            let Elsewhere { held, unknown, .. } = cluster.route(&node, &delivery, &places);
            (held, unknown)
        };
        let (held, nowhere) = ((Some(user.clone()), 0), (None, 1));
        assert_eq!(routed(), nowhere);
        node.transit().begin_login();
        let (_, claim) = cluster.hold_user(hub.name(), &user);
        assert_eq!(routed(), held);
        let address = Address { shard: 0, slot: 0, generation: 0 };
        hub.add_user(&user, address);
        node.transit().end_login();
        assert_eq!(routed(), held, "whoever holds it for somebody who is here gives it");
        // Gone without having been sent away, and still claimed for a moment.
        hub.remove_user(&user, address);
        assert_eq!(routed(), nowhere);
        cluster.release_user(hub.name(), &user, claim);
        assert_eq!(routed(), nowhere);
        task.stop().await;
        switchboard.stop(1001, "The test is over.").unwrap();
    }
}
