//! [`Registry`]: which nodes live, and what they say of themselves to whoever places connections.
//!
//! Two views are kept apart. *Delivery* follows the beats over the broker alone ([`Heartbeat::neighbours`]): who does not
//! answer there cannot be delivered to, whatever a registry says. *Placement* (a gateway, the ring, rebalancing, nodes that
//! look for each other) follows a [`Registry`]: the same beats, or a server that others can read too.
//!
//! What all registries with a server share is here and has no I/O: [`words`] is a registration as text, [`Keeping`] makes a
//! view of what a server shows and does not believe one that has just forgotten everybody.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tieline_proto::NodeId;
use tokio::sync::watch;

mod fixed;
mod heartbeat;
mod view;
pub mod words;

pub use fixed::{Fixed, FixedError};
pub use heartbeat::{Due, Hearers, Heartbeat, Met, Sign};
pub use view::{HOLD, Keeping, MAX_MEMBERS};

pub use crate::ring::MAX_WEIGHT;
use crate::ring::{Ring, RingHash};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Where its clients reach it, such as `wss://a.example.com`; empty where nobody knows.
    pub client_url: String,
    /// Where other nodes reach it, `mesh://HOST:PORT`; empty where they do not connect to it.
    pub peer_url: String,
    /// Its connections.
    pub connections: u64,
    /// How many shares of the clients it is to have, 1 to [`MAX_WEIGHT`]: a node of weight 2 gets twice what one of weight 1
    /// gets.
    pub weight: u32,
    /// How many connections it may hold; 0 where it does not say.
    pub capacity: u64,
    /// The version of its program; empty where it does not say.
    pub version: String,
    /// Where it says that connections belong, as [`Placement`](crate::ring::Placement) is written: all nodes of a cluster say the
    /// same. Empty where it does not say, as one does that somebody has written down.
    pub placement: String,
    /// Whether it wants clients.
    pub state: NodeState,
}

impl Default for Registration {
    fn default() -> Self {
        Registration {
            client_url: String::new(),
            peer_url: String::new(),
            connections: 0,
            weight: 1,
            capacity: 0,
            version: String::new(),
            placement: String::new(),
            state: NodeState::Up,
        }
    }
}

/// Whether a node wants clients, as it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// It does.
    #[default]
    Up,
    /// It gives its clients away and takes no new ones.
    Draining,
}

/// Another node that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is. A node that was written down by hand has the incarnation 0, which no other has.
    pub id: NodeId,
    /// What it said last.
    pub registration: Registration,
    /// Whether the operators of the registry let it have new clients. Those that it has are not concerned.
    pub is_enabled: bool,
}

impl Member {
    /// Whether new clients may be sent to it.
    pub fn takes_clients(&self) -> bool {
        self.is_enabled && self.registration.state == NodeState::Up
    }
}

/// What a registry shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The other nodes that are registered, by their names, of each name one.
    pub members: Vec<Member>,
    /// Whether the registry is out of reach, so that this is what it showed last.
    pub is_degraded: bool,
    /// Another node that is registered under this one's name: of the two the one with the higher incarnation started later.
    pub namesake: Option<Member>,
    /// Entries of the cluster that nobody can read, or that are too many, as of the last time that it was looked at.
    pub strange: usize,
}

impl View {
    /// The ring of those that new clients may be sent to: these nodes, and whoever looks, if that is such a node too. Gateways
    /// make theirs of the same nodes.
    pub fn ring(&self, hash: RingHash, own: Option<(&str, u32)>) -> Ring {
        Ring::new(hash, self.takers().chain(own))
    }

    /// Whether that ring is this one, without making it.
    pub fn is_on(&self, ring: &Ring, own: Option<(&str, u32)>) -> bool {
        let mut nodes: Vec<(&str, u32)> = self.takers().chain(own).collect();
        nodes.sort_unstable();
        nodes.into_iter().eq(ring.nodes())
    }

    fn takers(&self) -> impl Iterator<Item = (&str, u32)> {
        let takers = self.members.iter().filter(|member| member.takes_clients());
        takers.map(|member| (member.id.name.as_str(), member.registration.weight.min(MAX_WEIGHT)))
    }
}

/// What a registry shows, as it is shared.
pub type SharedView = Arc<View>;

/// Done when a registry has been told, or has given up.
pub type Done = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Which nodes live, for whoever places connections.
///
/// *Guarantee*: a node that lives and is registered is a member for every other that reaches the registry, and who died or
/// left is none any more, at the latest one lease after its last sign of life (after it deregistered, at once). While the
/// registry itself is out of reach the last view stays, and says that it is degraded; after an outage nobody is dropped for
/// missing before it had the time to register again ([`HOLD`]). Of a node that was started again its former self is no member.
/// *Ordering*: each view that is shown is newer than the one before; views between two may be skipped. *Cancellation*: nothing
/// waits, so nothing is cancelled; a registration lasts until [`deregister`](Registry::deregister), or a lease beyond the
/// node's end. A registry that is dropped says nothing more: its node's lease ends it, as if it had died. *Retries*: the
/// registry keeps its own registration alive and comes back from outages by itself.
pub trait Registry: Send + Sync + 'static {
    /// Registers this node, or says what has changed since. Cheap when nothing has. Numbers of connections may be told with
    /// the next sign of life only; anything else at once.
    fn register(&self, registration: Registration);

    /// Takes this node out, as it stops. It is begun when this returns, also if nobody waits for its end, which comes within 2 s.
    fn deregister(&self) -> Done;

    /// What it shows, as of now and at each change.
    fn view(&self) -> watch::Receiver<SharedView>;
}

/// Another node whose lease runs, as the beats tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
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
pub type Neighbours = Arc<Vec<Neighbour>>;
