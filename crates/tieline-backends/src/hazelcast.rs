//! Hazelcast as the broker: every node subscribes to a topic that goes to all and to one of 64 inboxes (`topics.rs`). And as where a
//! directory has its table, which is in `directory.rs`; the rest here is the broker's.
//!
//! ```text
//! send → queue → writer ─→ ┌────────┐
//!                          │ member │   one connection
//! Inbound ←────── reader ← └────────┘
//! ```
//!
//! **The client is ours** (`protocol.rs`), because there is none for Rust, and small: members forward to each other, so one
//! connection to any of them is enough for all that a broker needs. Calls go out one behind the other without waiting for
//! answers, bounded in number and bytes (`calls.rs`), and every one is answered in time or ends the session. Envelopes that wait
//! for the same target go as one message.
//!
//! **Order.** What one node publishes to one topic arrives in its order. Topics are on different partitions, and so on different
//! members, so the two channels have no order with each other, which the cluster is told.
//!
//! **Several members** are tried in the order of the URL, each for at most a second and a half, beginning behind the one that failed. A member
//! that dies, or drops its clients because its cluster merges with another one, is an outage of as long as it takes to
//! subscribe at the next. Members carry on without one that was killed; of one that stands still they believe for a time of their
//! own that it lives, and what is on its partitions does not move until then.
//!
//! **Nothing stays behind.** A member forgets what a client subscribed to when its connection ends, and the topics' names are the
//! same for all starts of all nodes.
//!
//! Members put no bound on what they keep for a client that does not read; ours always reads. One whose machine is gone without a word
//! is forgotten after `hazelcast.client.max.no.heartbeat.seconds`.
//!
//! Tested by the conformance suite, killed and standing members among it, and by `tests.rs` with several members, strangers and the
//! official client.

mod address;
mod calls;
mod connection;
mod directory;
mod protocol;
mod session;
#[cfg(test)]
mod tests;
mod topics;

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tieline_core::broker::Inbound;
use tieline_proto::{Incarnation, NodeId};
use tokio::time::timeout;

pub use address::HazelcastAddress;
pub use directory::HazelcastDirectorySettings;

use crate::hosts::{self, Host};
use crate::medium::{Engine, Fault, Medium, Pace, Queue, quoted};
use connection::Connection;
use protocol::{Garbage, Refusal};
use session::Signs;
use topics::{Came, Names, Sessions};

/// The most bytes of a cluster's name.
const MAX_CLUSTER: usize = 256;

/// How long connecting to one member may take, where there is another one.
const MEMBER: Duration = Duration::from_millis(1_500);

/// Why a Hazelcast broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum HazelcastError {
    /// The URL is not one of members. It is not repeated, because there may be a password in it.
    #[error(
        "the address of a Hazelcast cluster is `hazelcast://[USER:PASSWORD@]HOST[:PORT][,HOST…][?cluster=NAME]`: {0}"
    )]
    Url(&'static str),
    /// The cluster's name is empty, or too long for a topic's.
    #[error("a cluster's name has 1 to {MAX_CLUSTER} bytes")]
    Cluster,
    /// The members are not there, or not as the URL says.
    #[error("cannot use the Hazelcast cluster at {server}: {trouble}")]
    Server {
        /// `host:port`, of each.
        server: String,
        /// What is wrong.
        trouble: Trouble,
    },
}

/// Why there is no connection to a member, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody is there.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The network failed.
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// The member closed the connection.
    #[error("the member closed the connection")]
    Left,
    /// The member does not know us.
    #[error("the member says that its cluster is not called `{cluster}`, or that user or password is wrong")]
    Login {
        /// The name that the URL gives, or the default one.
        cluster: String,
    },
    /// The member refused a call, and said why.
    #[error("the member says: {0}")]
    Refused(String),
    /// What answers is no Hazelcast member, or wants TLS.
    #[error(
        "what answers there does not speak Hazelcast's client protocol, or wants TLS, which is not spoken here"
    )]
    Garbage,
    /// Nothing came back for too long.
    #[error("it does not answer")]
    Silent,
    /// The member still starts, or stops.
    #[error("the member is not active")]
    Inactive,
}

impl Trouble {
    /// Whether it says more than that a member cannot be reached now.
    fn is_telling(&self) -> bool {
        matches!(self, Trouble::Login { .. } | Trouble::Refused(_) | Trouble::Garbage)
    }
}

impl Fault for Trouble {
    const NAMES: &'static [&'static str] =
        &["connect", "broke", "left", "login", "refused", "garbage", "silent", "inactive"];

    fn index(&self) -> usize {
        match self {
            Trouble::Connect(_) => 0,
            Trouble::Io(_) => 1,
            Trouble::Left => 2,
            Trouble::Login { .. } => 3,
            Trouble::Refused(_) => 4,
            Trouble::Garbage => 5,
            Trouble::Silent => 6,
            Trouble::Inactive => 7,
        }
    }

    fn silent() -> Self {
        Trouble::Silent
    }
}

impl From<Garbage> for Trouble {
    fn from(_: Garbage) -> Self {
        Trouble::Garbage
    }
}

impl From<Refusal<'_>> for Trouble {
    /// In words of a length fit for a log.
    fn from(refusal: Refusal<'_>) -> Self {
        if refusal.is_passing() {
            return Trouble::Inactive;
        }
        Trouble::Refused(quoted(&refusal.text()))
    }
}

/// How a node uses a Hazelcast cluster as its broker.
#[derive(Clone, Debug)]
pub struct HazelcastSettings {
    /// The name of our cluster, which is in the names of its topics.
    pub cluster: String,
    /// Where the members are.
    pub address: HazelcastAddress,
    /// How patient a node is with them.
    pub pace: Pace,
}

impl HazelcastSettings {
    /// The defaults.
    pub fn new(cluster: &str, address: HazelcastAddress) -> Self {
        // Two members that stand still are found out, and a third one is reached.
        let pace = Pace { connect: 3 * MEMBER, ..Pace::default() };
        HazelcastSettings { cluster: cluster.to_owned(), address, pace }
    }
}

/// A node's way to a Hazelcast cluster, and the engine of `hazelcast://`. It stops when it is dropped.
pub type HazelcastBroker = Medium<Hazelcast>;

impl HazelcastBroker {
    /// Connects and subscribes. `inbound` hears of envelopes from now on, from a task of the runtime this is called in.
    ///
    /// # Errors
    /// When the settings are wrong, or no member is there or takes this node, at the latest after [`Pace::connect`].
    pub async fn start(
        settings: HazelcastSettings,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Self, HazelcastError> {
        check_cluster(&settings.cluster)?;
        let server = hosts::listed(&settings.address.members);
        let pace = settings.pace.clone();
        let engine = Hazelcast {
            names: Arc::new(Names::new(&settings.cluster, node.incarnation)),
            node: node.incarnation,
            name: format!("tieline-{}", node.name),
            members: Members::new(&settings.address),
            settings,
            connections: AtomicU32::new(0),
            sessions: Mutex::default(),
            foreign: AtomicU64::new(0),
        };
        let begun = Medium::begin(engine, pace, inbound).await;
        begun.map_err(|trouble| HazelcastError::Server { server, trouble })
    }
}

fn check_cluster(name: &str) -> Result<(), HazelcastError> {
    if name.is_empty() || name.len() > MAX_CLUSTER { Err(HazelcastError::Cluster) } else { Ok(()) }
}

/// Something that is tried with one member after the other.
trait Attempt: Sync {
    /// What comes of it.
    type Connection: Send;

    /// Tries it with this one.
    fn at(&self, member: &Host) -> impl Future<Output = Result<Self::Connection, Trouble>> + Send;
}

/// The members, which are tried in turn.
struct Members {
    hosts: Vec<Host>,
    /// Which is tried next.
    next: AtomicUsize,
}

impl Members {
    fn new(address: &HazelcastAddress) -> Self {
        Members { hosts: address.members.clone(), next: AtomicUsize::new(0) }
    }

    /// The member that was tried is of no use now.
    fn pass_on(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }

    /// Tries each once, beginning behind the last that was of no use, and gives the first connection, or else the most telling trouble.
    async fn dial<A: Attempt>(&self, attempt: &A) -> Result<A::Connection, Trouble> {
        let mut told = None;
        for _ in 0..self.hosts.len() {
            let dial = attempt.at(&self.hosts[self.next.load(Ordering::Relaxed) % self.hosts.len()]);
            let dialled = if self.hosts.len() == 1 {
                // It has all the time that connecting may take.
                dial.await
            } else {
                timeout(MEMBER, dial).await.unwrap_or(Err(Trouble::Silent))
            };
            match dialled {
                Ok(connection) => return Ok(connection),
                Err(trouble) => {
                    self.pass_on();
                    if trouble.is_telling() || told.is_none() {
                        told = Some(trouble);
                    }
                }
            }
        }
        Err(told.unwrap_or(Trouble::Silent))
    }
}

/// What is spoken with the members.
pub struct Hazelcast {
    settings: HazelcastSettings,
    node: Incarnation,
    /// What members call this client.
    name: String,
    names: Arc<Names>,
    members: Members,
    /// The connections so far.
    connections: AtomicU32,
    /// The newest session of each origin, through all of our own.
    sessions: Mutex<Sessions>,
    /// Messages that no node has published.
    foreign: AtomicU64,
}

impl Hazelcast {
    /// The number of a new connection.
    fn next_session(&self) -> u32 {
        self.connections.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Takes in what was published to a topic that this node hears; if it was a canary, the number of its connection.
    fn take(&self, item: Option<&[u8]>, inbound: &dyn Inbound) -> Option<u32> {
        let came = item.map_or(Came::Foreign, |item| {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            topics::sort(item, self.node, &mut sessions)
        });
        match came {
            Came::Envelopes(envelopes) => envelopes.for_each(|envelope| inbound.envelope(envelope)),
            Came::Canary(session) => return Some(session),
            Came::Other => {}
            Came::Late => tracing::debug!("A member has published late what a node has said before others."),
            Came::Foreign => {
                self.foreign.fetch_add(1, Ordering::Relaxed);
                tracing::debug!("Somebody who is no node has published to a topic of the cluster.")
            }
        }
        None
    }
}

/// Connects to a member, and what others publish meanwhile is heard by this.
struct Dial<'a>(&'a Hazelcast, &'a dyn Inbound);

impl Attempt for Dial<'_> {
    type Connection = Connection;

    async fn at(&self, member: &Host) -> Result<Connection, Trouble> {
        let Dial(engine, inbound) = self;
        engine.dial_member(member, *inbound).await
    }
}

impl Engine for Hazelcast {
    type Connection = Connection;
    type Words = Signs;
    type Fault = Trouble;

    const SERVER: &'static str = "Hazelcast cluster";
    const ORDERS_CHANNELS: bool = false;

    fn server(&self) -> String {
        hosts::listed(&self.settings.address.members)
    }

    fn strays(&self) -> Vec<(&'static str, u64)> {
        vec![("foreign", self.foreign.load(Ordering::Relaxed))]
    }

    async fn dial(&self, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        self.members.dial(&Dial(self, inbound)).await
    }

    async fn run(&self, connection: Connection, queue: &Arc<Queue<Signs>>, inbound: &dyn Inbound) -> Trouble {
        let trouble = session::run(self, inbound, connection, queue).await;
        self.members.pass_on();
        trouble
    }
}
