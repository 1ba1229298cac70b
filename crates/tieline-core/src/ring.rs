//! [`Ring`]: where a new connection of a user should go.
//!
//! A pure function of the names and weights of the nodes: whoever knows the same nodes has the same ring, before and after
//! any restart, in whatever order it learned of them. So a ring is made anew for every change, and never changed. What it
//! is not: it knows nothing of who is connected where. That is the directory's business, and delivery asks the directory
//! alone.
//!
//! Tested by properties and by vectors in `ring/tests.rs`; what it comes to is measured in `ring/measured.rs` and stands in
//! `docs/placement.md`.

mod hash;
#[cfg(test)]
mod measured;
mod placement;
mod plan;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;

pub use hash::{RingHash, UnknownHash};
pub use placement::{Placement, UnknownPlacement};
pub use plan::Plan;

/// The most that a node weighs; what weighs more weighs this. It bounds what a foreign registry's entry can make of a ring.
pub const MAX_WEIGHT: u32 = 100;

/// The nodes on a circle of hashes, each at many points. A user belongs to the node whose point comes next after the user's
/// own hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    hash: RingHash,
    /// By name, each once, with its weight. A node without weight has no points.
    nodes: Vec<(Box<str>, u32)>,
    /// Hash and index of the node, sorted; so of two nodes at the same point the one with the smaller name has it.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// The ring of these names and weights. Their order says nothing; a name that is there twice counts once, with the
    /// greater weight.
    pub fn new<'a>(hash: RingHash, nodes: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
        for (name, weight) in nodes {
            let known = by_name.entry(name).or_default();
            *known = weight.min(MAX_WEIGHT).max(*known);
        }
        let mut points = Vec::new();
        for (index, (name, weight)) in (0..).zip(&by_name) {
            hash.points(name, *weight, |point| points.push((point, index)));
        }
        points.sort_unstable();
        let nodes = by_name.into_iter().map(|(name, weight)| (name.into(), weight)).collect();
        Ring { hash, nodes, points }
    }

    /// How it hashes.
    pub fn hash(&self) -> RingHash {
        self.hash
    }

    /// The nodes, by name, with their weights.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        self.nodes.iter().map(|(name, weight)| (&**name, *weight))
    }

    /// The node that a user belongs to; none when no node has any weight.
    pub fn owner(&self, user: &str) -> Option<&str> {
        let (_, node) = self.points.get(self.first_point(user)?)?;
        Some(&self.nodes[*node as usize].0)
    }

    /// All nodes with any weight, the owner first, and then in the order in which they would own the user if those before
    /// them were not there. Who cannot go to one goes to the next, as everybody does who makes the same choice.
    pub fn walk(&self, user: &str) -> impl Iterator<Item = &str> {
        let start = self.first_point(user).unwrap_or(0);
        let mut is_seen = vec![false; self.nodes.len()];
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).filter_map(move |(_, node)| {
            let node = *node as usize;
            let is_new = !std::mem::replace(&mut is_seen[node], true);
            is_new.then(|| &*self.nodes[node].0)
        })
    }

    /// Where a *new* connection of a user should go when no node is to have more than `factor` times its share of all
    /// connections: the first node of the [walk](Ring::walk) that has room, by what `connections` says of each now. It is
    /// nearly always the owner. A factor below 1 is taken for 1; then there is always one that has room.
    pub fn place(&self, user: &str, factor: f64, connections: impl Fn(&str) -> u64) -> Option<&str> {
        let weighing = self.nodes().filter(|(_, weight)| *weight > 0);
        let (connected, weights) = weighing.fold((0, 0), |(connected, weights), (name, weight)| {
            (connected + connections(name), weights + u64::from(weight))
        });
        let has_room = |name: &&str| {
            let share = f64::from(self.weight(name)) / weights as f64;
            let most = (factor.max(1.0) * share * (connected + 1) as f64).ceil();
            (connections(name) as f64) < most
        };
        self.walk(user).find(has_room).or_else(|| self.owner(user))
    }

    /// What a node weighs; nothing when it is not there.
    pub fn weight(&self, name: &str) -> u32 {
        let found = self.nodes.binary_search_by(|(known, _)| (**known).cmp(name));
        found.map_or(0, |index| self.nodes[index].1)
    }

    /// The index of the point that comes next after a user's hash, the first one after the last.
    fn first_point(&self, user: &str) -> Option<usize> {
        let hash = self.hash.user(user);
        let is_before = |point: &(u64, u32)| match point.0.cmp(&hash) {
            Ordering::Less => true,
            Ordering::Equal => self.hash.is_strict(),
            Ordering::Greater => false,
        };
        let next = self.points.partition_point(is_before);
        (!self.points.is_empty()).then(|| next % self.points.len())
    }
}
