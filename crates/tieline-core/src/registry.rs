//! [`Registry`]: which nodes live.
//!
//! The cluster asks one registry, follows what it says, and forgets whoever is no longer in it. The one that needs nothing
//! else is [`Heartbeat`], over any broker.

use std::sync::Arc;
use std::time::Instant;

use tieline_proto::NodeId;
use tokio::sync::watch;

mod heartbeat;

pub use heartbeat::{Due, Heartbeat, Met, Sign};

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Where its clients reach it.
    pub client_url: String,
    /// Its connections.
    pub connections: u64,
}

/// Another node whose lease runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub id: NodeId,
    /// What it said last.
    pub registration: Registration,
    /// Whether there is a way to it.
    pub standing: Standing,
}

/// Whether there is a way to a node that is believed to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is.
    Reached,
    /// There has been none since then; it is believed to come back until its lease is over.
    Lost(Instant),
    /// There has been none since then, but a third node that is reached says that it reaches it.
    Vouched(Instant),
}

/// The other nodes whose lease runs, in no order.
pub type Members = Arc<Vec<Member>>;

/// Which nodes live.
///
/// *Guarantee*: a node that lives and is registered is a member for every other that it can reach, and who died or left is
/// none any more, at the latest one lease after its last sign of life (after a goodbye, at once). While the registry itself
/// is out of reach nobody is thought dead. Of a node that was started again its former self is no member. *Ordering*: each
/// state that is shown is newer than the one before; states between two may be skipped. *Cancellation*: nothing waits, so
/// nothing is cancelled; a registration lasts until [`deregister`](Registry::deregister), or a lease beyond the node's end.
/// *Retries*: the registry keeps its own registration alive and comes back from outages by itself.
pub trait Registry: Send + Sync + 'static {
    /// Registers this node, or says what has changed since.
    fn register(&self, registration: Registration);

    /// Takes this node out, as it stops.
    fn deregister(&self);

    /// The other nodes, as of now and at each change.
    fn members(&self) -> watch::Receiver<Members>;
}
