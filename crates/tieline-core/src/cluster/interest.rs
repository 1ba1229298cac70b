//! [`Interest`]: which other nodes hold members of a group, or a connection that has come to them, as the shards ask when they route.
//!
//! Written by the cluster's task from the rosters that the others state; read by every shard without waiting.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use smallvec::SmallVec;
use tieline_proto::{ConnectionId, GroupName, HubName, Incarnation};

/// Nodes, in no order.
pub(crate) type Nodes = SmallVec<[Incarnation; 2]>;

/// Where groups and connections are held elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    groups: DashMap<HubName, DashMap<GroupName, Nodes>>,
    /// Connections that are not where their ids say. One that moves on is held by two nodes for a moment; the newest is last.
    connections: DashMap<ConnectionId, Nodes>,
    /// How many those are, so that nobody looks where there is none.
    moved: AtomicUsize,
}

impl Interest {
    /// The nodes that hold members of a group.
    pub(crate) fn of(&self, hub: &HubName, group: &str) -> Nodes {
        self.groups.get(hub).and_then(|hub| hub.get(group).map(|nodes| nodes.clone())).unwrap_or_default()
    }

    /// A node holds some from now on.
    pub(crate) fn add(&self, hub: &HubName, group: &GroupName, node: Incarnation) {
        let hub = self.groups.entry(hub.clone()).or_default();
        let mut nodes = hub.entry(group.clone()).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }

    /// A node holds none any more.
    pub(crate) fn remove(&self, hub: &HubName, group: &GroupName, node: Incarnation) {
        let Some(hub) = self.groups.get(hub) else { return };
        if let Some(mut nodes) = hub.get_mut(group) {
            nodes.retain(|known| *known != node);
        }
        hub.remove_if(group, |_, nodes| nodes.is_empty());
    }

    /// The node that holds a connection which is not where its id says.
    pub(crate) fn of_connection(&self, id: ConnectionId) -> Option<Incarnation> {
        if self.moved.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.connections.get(&id).and_then(|nodes| nodes.last().copied())
    }

    /// A node holds it from now on.
    pub(crate) fn add_connection(&self, id: ConnectionId, node: Incarnation) {
        let mut nodes = self.connections.entry(id).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
        drop(nodes);
        self.moved.store(self.connections.len(), Ordering::Relaxed);
    }

    /// A node does no longer.
    pub(crate) fn remove_connection(&self, id: ConnectionId, node: Incarnation) {
        if let Some(mut nodes) = self.connections.get_mut(&id) {
            nodes.retain(|known| *known != node);
        }
        self.connections.remove_if(&id, |_, nodes| nodes.is_empty());
        self.moved.store(self.connections.len(), Ordering::Relaxed);
    }
}
