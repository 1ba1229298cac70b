//! [`Directory`]: which nodes hold a user.
//!
//! The router asks it for every message to a user, so a lookup answers at once from what is known here. The one that needs
//! nothing else is [`Replicated`], from the rosters that the nodes tell each other.

use std::cmp::Reverse;

use smallvec::SmallVec;
use tieline_proto::{HubName, Incarnation, UserId};

mod claims;
mod replicated;

pub(crate) use claims::{Claims, Standing};
pub use replicated::Replicated;

/// A node that holds connections of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: Incarnation,
    /// The number of its newest claim.
    pub claim: u64,
}

impl Holder {
    /// Newest first; of equal numbers, which nodes give that do not know of each other, the later incarnation.
    fn rank(&self) -> Reverse<(u64, Incarnation)> {
        Reverse((self.claim, self.node))
    }
}

/// The nodes that hold a user, newest claim first: the same order on every node that knows the same.
pub type Holders = SmallVec<[Holder; 2]>;

/// A claim that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Its number, which its release names.
    pub number: u64,
    /// The version of this node's statements by which the others know that it holds the user; 0 where they know already.
    pub stated: u64,
}

/// Which nodes hold a user.
///
/// *Guarantee*: what a node claimed is known to every other that has read its statements, until it is released or the
/// node is forgotten; a release takes back one claim of its own number and never another's. A lookup may be behind, and
/// who finds nobody asks the nodes whose statements are not known whole, before it says so. *Ordering*: a claim has a
/// higher number than every claim of its user that was known when it was made, so nodes that know the same give the same
/// order. *Cancellation*: nothing waits, so nothing is cancelled. *Retries*: the directory brings what it was told to the
/// others by itself, also after losses and outages.
pub trait Directory: Send + Sync + 'static {
    /// A connection of this node belongs to the user from now on.
    fn claim(&self, hub: &HubName, user: &UserId) -> Claimed;

    /// Takes back a claim of this node.
    fn release(&self, hub: &HubName, user: &UserId, number: u64);

    /// The nodes that hold the user, this one among them.
    fn holders(&self, hub: &HubName, user: &str) -> Holders;

    /// A node is dead: it holds nobody any more.
    fn forget(&self, node: Incarnation);
}
