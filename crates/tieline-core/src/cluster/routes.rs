//! [`Routes`]: which other nodes hold a user or a group, as the shards ask when they route.
//!
//! Written by the cluster's task from the rosters that the others state; read by every shard without waiting.

use dashmap::DashMap;
use smallvec::SmallVec;
use tieline_proto::envelope::Held;
use tieline_proto::{GroupName, HubName, Incarnation, UserId};

/// Nodes, in no order.
pub(crate) type Nodes = SmallVec<[Incarnation; 2]>;

/// The routes of one hub.
#[derive(Debug, Default)]
struct HubRoutes {
    users: DashMap<UserId, Nodes>,
    groups: DashMap<GroupName, Nodes>,
}

/// Where users and groups are held elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Routes(DashMap<HubName, HubRoutes>);

impl Routes {
    /// The nodes that hold a user.
    pub(crate) fn user(&self, hub: &HubName, user: &str) -> Nodes {
        self.0.get(hub).and_then(|hub| hub.users.get(user).map(|nodes| nodes.clone())).unwrap_or_default()
    }

    /// The nodes that hold members of a group.
    pub(crate) fn group(&self, hub: &HubName, group: &str) -> Nodes {
        self.0.get(hub).and_then(|hub| hub.groups.get(group).map(|nodes| nodes.clone())).unwrap_or_default()
    }

    /// A node holds something from now on.
    pub(crate) fn add(&self, hub: &HubName, what: &Held, node: Incarnation) {
        let insert = |nodes: &mut Nodes| {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        };
        let hub = self.0.entry(hub.clone()).or_default();
        match what {
            Held::User(user) => insert(&mut hub.users.entry(user.clone()).or_default()),
            Held::Group(group) => insert(&mut hub.groups.entry(group.clone()).or_default()),
        }
    }

    /// A node holds it no longer.
    pub(crate) fn remove(&self, hub: &HubName, what: &Held, node: Incarnation) {
        let Some(hub) = self.0.get(hub) else { return };
        match what {
            Held::User(user) => {
                if let Some(mut nodes) = hub.users.get_mut(user) {
                    nodes.retain(|known| *known != node);
                }
                hub.users.remove_if(user, |_, nodes| nodes.is_empty());
            }
            Held::Group(group) => {
                if let Some(mut nodes) = hub.groups.get_mut(group) {
                    nodes.retain(|known| *known != node);
                }
                hub.groups.remove_if(group, |_, nodes| nodes.is_empty());
            }
        }
    }
}
