//! Whether the nodes of a cluster have the same `placement`. Where they differ each would send clients to where the other does not
//! want them, so the one that was started later ends. Tested by processes in `tests/cluster/rebalancing.rs`.

use tieline_core::cluster::Peer;
use tieline_core::registry::{Member, View};
use tieline_proto::NodeId;

use super::NameLost;

/// A node has another placement than this one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node `{other}` of this cluster has `placement = {theirs:?}`, and this one has `placement = {own:?}`: all nodes of a cluster must have the same"
)]
pub struct PlacementDiffers {
    /// The other node.
    pub other: NodeId,
    /// Its placement.
    pub theirs: String,
    /// This node's.
    pub own: String,
}

/// Why a node may not be, or remain, a member of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Expelled {
    /// Its name is another one's.
    #[error(transparent)]
    Name(#[from] NameLost),
    /// It disagrees with those that were there before it.
    #[error(transparent)]
    Placement(#[from] PlacementDiffers),
}

/// What a node says of its placement.
pub(crate) trait Says {
    fn id(&self) -> &NodeId;
    /// Empty where it says nothing.
    fn placement(&self) -> &str;
}

impl Says for Peer {
    fn id(&self) -> &NodeId {
        &self.id
    }

    fn placement(&self) -> &str {
        &self.placement
    }
}

impl Says for Member {
    fn id(&self) -> &NodeId {
        &self.id
    }

    fn placement(&self) -> &str {
        &self.registration.placement
    }
}

/// Those of other nodes that say another placement than this one's. Who says nothing, as earlier programs do, does not differ.
pub(crate) fn differing<'a, T: Says>(
    own: &'a str,
    others: &'a [T],
) -> impl Iterator<Item = PlacementDiffers> + 'a {
    let differ = move |other: &&T| !other.placement().is_empty() && other.placement() != own;
    others.iter().filter(differ).map(move |other| PlacementDiffers {
        other: other.id().clone(),
        theirs: other.placement().to_owned(),
        own: own.to_owned(),
    })
}

/// Looks at a registry before the node joins anything.
///
/// # Errors
/// [`PlacementDiffers`], of the first that is registered with another one.
pub(super) fn check(own: &str, view: &View) -> Result<(), PlacementDiffers> {
    differing(own, &view.members).next().map_or(Ok(()), Err)
}
