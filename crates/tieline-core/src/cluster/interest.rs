//! [`Interest`]: which other nodes hold members of a group, as the shards ask when they route.
//!
//! Written by the cluster's task from the rosters that the others state; read by every shard without waiting.

use dashmap::DashMap;
use smallvec::SmallVec;
use tieline_proto::{GroupName, HubName, Incarnation};

/// Nodes, in no order.
pub(crate) type Nodes = SmallVec<[Incarnation; 2]>;

/// Where groups are held elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Interest(DashMap<HubName, DashMap<GroupName, Nodes>>);

impl Interest {
    /// The nodes that hold members of a group.
    pub(crate) fn of(&self, hub: &HubName, group: &str) -> Nodes {
        self.0.get(hub).and_then(|hub| hub.get(group).map(|nodes| nodes.clone())).unwrap_or_default()
    }

    /// A node holds some from now on.
    pub(crate) fn add(&self, hub: &HubName, group: &GroupName, node: Incarnation) {
        let hub = self.0.entry(hub.clone()).or_default();
        let mut nodes = hub.entry(group.clone()).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }

    /// A node holds none any more.
    pub(crate) fn remove(&self, hub: &HubName, group: &GroupName, node: Incarnation) {
        let Some(hub) = self.0.get(hub) else { return };
        if let Some(mut nodes) = hub.get_mut(group) {
            nodes.retain(|known| *known != node);
        }
        hub.remove_if(group, |_, nodes| nodes.is_empty());
    }
}
