//! [`Duties`]: which node tells the application that a user has come or gone. Each node works it out by itself, without I/O or a
//! clock.
//!
//! It is the node whose connection that was. Where that one is dead it is the owner of the user on the ring of those who live,
//! so that all who see the same nodes agree. What another node has to tell is kept for [`WITNESSED`]: when that
//! node is found dead meanwhile, it may have died before it told, and the owner tells it, perhaps again. Where nodes see different
//! ones, two may tell; the event has the same id. Tested here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tieline_proto::NodeId;

use crate::events::Appearance;
use crate::ring::{Ring, RingHash};

/// How long what others have to tell is kept: as long as it takes to find one dead, twice.
const WITNESSED: Duration = Duration::from_secs(30);

/// The most that is kept; of more the oldest is left to its node.
const MOST: usize = 100_000;

/// Something that another node has to tell.
struct Witnessed {
    since: Instant,
    teller: NodeId,
    appearance: Appearance,
}

/// What this node, and others, have to tell.
pub(super) struct Duties {
    me: NodeId,
    /// Those who live, this one among them, sorted.
    alive: Vec<NodeId>,
    /// Of their names.
    ring: Ring,
    /// The oldest first.
    witnessed: VecDeque<Witnessed>,
}

impl Duties {
    pub(super) fn new(me: NodeId) -> Self {
        let ring = Duties::ring(std::slice::from_ref(&me));
        Duties { alive: vec![me.clone()], me, ring, witnessed: VecDeque::new() }
    }

    /// These live now. Returns what this node has to tell in the place of those who do not any more.
    pub(super) fn see(&mut self, mut alive: Vec<NodeId>, now: Instant) -> Vec<Appearance> {
        while self.witnessed.front().is_some_and(|first| first.since + WITNESSED < now) {
            self.witnessed.pop_front();
        }
        alive.sort_unstable();
        if alive == self.alive {
            return Vec::new();
        }
        self.ring = Duties::ring(&alive);
        self.alive = alive;
        let mut to_tell = Vec::new();
        for witnessed in std::mem::take(&mut self.witnessed) {
            if self.alive.contains(&witnessed.teller) {
                self.witnessed.push_back(witnessed);
            } else if let Some(appearance) =
                self.take(witnessed.appearance, witnessed.teller, witnessed.since)
            {
                to_tell.push(appearance);
            }
        }
        self.witnessed.make_contiguous().sort_by_key(|witnessed| witnessed.since);
        to_tell
    }

    /// Something happened that a node has to tell, if it lives. Returns it where this one has to.
    pub(super) fn take(
        &mut self,
        appearance: Appearance,
        teller: NodeId,
        now: Instant,
    ) -> Option<Appearance> {
        let teller = if self.alive.contains(&teller) { teller } else { self.owner(&appearance) };
        if teller == self.me {
            return Some(appearance);
        }
        if self.witnessed.len() >= MOST {
            self.witnessed.pop_front();
        }
        self.witnessed.push_back(Witnessed { since: now, teller, appearance });
        None
    }

    /// Whether nothing is kept.
    pub(super) fn is_idle(&self) -> bool {
        self.witnessed.is_empty()
    }

    fn owner(&self, appearance: &Appearance) -> NodeId {
        let name = self.ring.owner(&appearance.event.user);
        let owner = self.alive.iter().rev().find(|node| Some(node.name.as_str()) == name);
        owner.unwrap_or(&self.me).clone()
    }

    fn ring(alive: &[NodeId]) -> Ring {
        Ring::new(RingHash::default(), alive.iter().map(|node| (node.name.as_str(), 1)))
    }
}

#[cfg(test)]
mod tests {
    use tieline_proto::presence::{Event, Turn};
    use tieline_proto::{HubName, Incarnation, NodeName, UserId};

    use super::*;

    fn node(n: u64) -> NodeId {
        NodeId { name: NodeName::new(&format!("n{n}")).unwrap(), incarnation: Incarnation(n) }
    }

    fn left(n: u64, user: usize) -> Appearance {
        let user = UserId::new(&format!("u{user}")).unwrap();
        let event = Event { turn: Turn::Leave, user, node: node(n).name, details: None };
        Appearance { hub: HubName::new("hub").unwrap(), group: None, event, visit: 7 }
    }

    #[test]
    fn one_node_tells_and_when_it_dies_one_of_the_others() {
        let now = Instant::now();
        let mut all: Vec<Duties> = (0..4).map(|n| Duties::new(node(n))).collect();
        let see = |all: &mut [Duties], alive: &[u64], now| {
            let nodes: Vec<NodeId> = alive.iter().map(|n| node(*n)).collect();
            alive.iter().map(|n| all[*n as usize].see(nodes.clone(), now)).collect::<Vec<_>>()
        };
        see(&mut all, &[0, 1, 2, 3], now);
        // A node that lives tells what happened there.
        for user in 0..50 {
            let told = all.iter_mut().filter_map(|duties| duties.take(left(3, user), node(3), now));
            assert_eq!(told.count(), 1);
        }
        // It dies: the others tell that again, and what becomes of its users, each by one of them.
        let told: Vec<usize> = see(&mut all, &[0, 1, 2], now).iter().map(Vec::len).collect();
        assert_eq!(told.iter().sum::<usize>(), 50);
        assert!(told.iter().all(|count| *count > 5), "all have a share: {told:?}");
        for user in 50..100 {
            let told =
                all[..3].iter_mut().filter_map(|duties| duties.take(left(3, user), node(3), now)).count();
            assert_eq!(told, 1);
        }
        // Who was to tell it instead may die too, and what was told long ago is nobody's duty any more.
        let told: usize = see(&mut all, &[0, 1], now).iter().map(Vec::len).sum();
        assert!(told > 10);
        see(&mut all, &[0, 1], now + WITNESSED + Duration::from_secs(1));
        assert!(all[..2].iter().all(Duties::is_idle));
        assert!(see(&mut all, &[0], now).concat().is_empty());
    }

    #[test]
    fn an_event_has_one_id_whoever_tells_it() {
        let id = |appearance: &Appearance| appearance.id();
        let one = left(1, 1);
        assert_eq!(
            id(&one),
            id(&Appearance { event: Event { node: node(2).name, ..one.event.clone() }, ..one.clone() })
        );
        let group = tieline_proto::GroupName::new("hub").ok();
        for other in [
            left(1, 2),
            Appearance { visit: 8, ..one.clone() },
            Appearance { group, ..one.clone() },
            Appearance { event: Event { turn: Turn::Join, ..one.event.clone() }, ..one.clone() },
        ] {
            assert_ne!(id(&one), id(&other));
        }
    }
}
