//! [`Directory`]: which nodes hold a user.
//!
//! The router asks it for every message to a user, so it answers at once, from what is known here. The one that needs
//! nothing else is [`Replicated`], from the rosters that the nodes tell each other. [`Asked`] keeps users in a table on a server,
//! and remembers what it was answered; [`Ringed`] has no table, but knows where users should be.
//! `docs/directories.md` says what each costs. What every one must do is in the conformance suite of tieline-backends.

use std::cmp::Reverse;
use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::{HubName, Incarnation, UserId};

use crate::ring::RingHash;

pub mod asked;
mod claims;
mod replicated;
mod ringed;

pub use asked::Asked;
pub(crate) use claims::{Claim, Claims, Standing};
pub use replicated::Replicated;
pub use ringed::Ringed;

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

/// Puts a node's claim into its place, or with none takes it out.
fn place(holders: &mut Holders, node: Incarnation, claim: Option<u64>) {
    holders.retain(|holder| holder.node != node);
    if let Some(claim) = claim {
        let holder = Holder { node, claim };
        let at = holders.partition_point(|other| other.rank() < holder.rank());
        holders.insert(at, holder);
    }
}

/// Who may hold a user beside those that are known to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beside {
    /// No other node.
    #[default]
    Nobody,
    /// One other node may.
    One(Incarnation),
    /// Any other node may: a message goes to all, which sort out.
    Anybody,
}

/// Where a user is, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The nodes that are known to hold the user, newest claim first, this one among them.
    pub holders: Holders,
    /// Who may beside them.
    pub beside: Beside,
}

/// When the other nodes know of a claim, or of what else this node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until {
    /// They have read this version of the node's statements; 0 where that is not waited for.
    pub read: u64,
    /// What was asked under this number is settled ([`Asked::is_settled`]); 0 where that is not waited for.
    pub settled: u64,
}

impl Until {
    /// When both are so.
    pub(crate) fn and(self, other: Until) -> Until {
        // A connection has one user, so of the numbers there is one.
        Until { read: self.read.max(other.read), settled: self.settled.max(other.settled) }
    }

    /// Whether it is so, given the version of this node's statements that all nodes which are reached have read. It is not as long as one
    /// of them has not said that it knows this node at all.
    pub(crate) fn is_over(self, read: Option<u64>, asked: Option<&Asked>) -> bool {
        read.is_some_and(|read| {
            self.read <= read && asked.is_none_or(|asked| asked.is_settled(self.settled, read))
        })
    }
}

/// A claim that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Its number, which its release names.
    pub number: u64,
    /// When the others know that this node holds the user.
    pub until: Until,
}

/// Another node, as a directory that goes by the members has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fellow {
    /// Its stable name.
    pub name: Box<str>,
    /// This start of it.
    pub node: Incarnation,
    /// How many shares of the clients it is to have.
    pub weight: u32,
    /// What it calls its directory; none before it has said so.
    pub directory: Option<Box<str>>,
}

/// Which nodes hold a user.
///
/// *Guarantee*: what a node claimed is found by every other that it reaches when [`Claimed::until`] says so, until it is released
/// or the node is forgotten: it is among the holders, or [`Whereabouts::beside`] says that it may hold the user. A release takes back
/// one claim of its own number and never another's. A look may be behind, and
/// who finds nobody asks the nodes whose statements are not known whole, before it says so. *Ordering*: a claim has a
/// higher number than every claim of its user that was known when it was made, so nodes that know the same give the same
/// order. *Cancellation*: nothing waits, so nothing is cancelled. *Retries*: the directory brings what it was told to the
/// others by itself, also after losses and outages. Nodes that [call](Directory::name) their directories differently cannot know of
/// each other's users: what is for a user goes to those as well.
pub trait Directory: Send + Sync + 'static {
    /// What it is called between nodes: its kind, and behind a blank what else has to be the same. Those find each other's users that
    /// call theirs the same.
    fn name(&self) -> Box<str>;

    /// A connection of this node belongs to the user from now on.
    fn claim(&self, hub: &HubName, user: &UserId) -> Claimed;

    /// Takes back a claim of this node.
    fn release(&self, hub: &HubName, user: &UserId, number: u64);

    /// Where the user is.
    fn find(&self, hub: &HubName, user: &str) -> Whereabouts;

    /// Whether this node claims the user.
    fn is_claimed(&self, hub: &HubName, user: &str) -> bool;

    /// Another node states a claim to everybody, or with none that it does so no longer.
    fn stated(&self, hub: &HubName, user: &UserId, node: Incarnation, claim: Option<u64>);

    /// A node is dead: it holds nobody any more.
    fn forget(&self, node: Incarnation);

    /// Whether its [name](Directory::name) depends on who is there.
    fn goes_by_members(&self) -> bool {
        false
    }

    /// These are the other nodes, and this is this node's own weight. `show` is called once, with what the directory is called from
    /// now on: those who have another one are known to everybody before the directory goes by what it was told here. Returns whether it
    /// has another name than before.
    fn meet(&self, fellows: &[Fellow], own_weight: u32, show: &mut dyn FnMut(&str)) -> bool;
}

/// Which directory a cluster has: all its nodes the same.
#[derive(Clone, Default)]
pub enum Choice {
    /// Every node knows all users.
    #[default]
    Replicated,
    /// A table on a server, which somebody serves already.
    Asked(Arc<Asked>),
    /// None: users are where the ring of this hash says, and those who are not are told of.
    Ringed(RingHash),
}
