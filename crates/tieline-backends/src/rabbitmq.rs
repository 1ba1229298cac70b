//! RabbitMQ as the broker: every node has a queue, bound to an exchange that copies to all and to one that picks a node by its name
//! (`names.rs`).
//!
//! ```text
//! send → queue → writer ─→ ┌──────────────────────────────────────────────┐
//!                  ↑       │ exchange to all ─┬─→ queue of this connection │   one connection, one channel
//!               confirms   │ exchange to one ─┘                            │
//! Inbound ←────── reader ← └──────────────────────────────────────────────┘
//! ```
//!
//! **One connection and one channel** publish and consume, so there is one thing that can break and one thing that a canary proves.
//! The server routes what is published by a channel one after the other, and both exchanges lead to one queue: so envelopes to all and to
//! one node keep their order among each other.
//!
//! **The protocol is ours** (`frames.rs`), not a client library's: the part of AMQP 0-9-1 that a node needs is small, and it is the hot
//! path of a cluster. All that waits is one write, and messages are handed up where they were read. The crate `lapin` 4.12 was looked at: an
//! attempt to connect that nobody answers leaves a thread and 8 MiB behind for as long as that server is silent, messages that come back are
//! written into the log whole, and it brings 53 crates.
//!
//! **Nothing lasts.** Messages are in the server's memory alone, queues are deleted with their connection, exchanges with the last queue.
//! Whoever connects declares everything anew. The consumer acknowledges nothing: a message is done with when it was sent, and what is no
//! node's is counted and forgotten, never put back.
//!
//! **Limits.** A queue holds so many bytes for a node that does not read; past it the server drops the oldest, and their numbers tell that
//! they are missing. A server that is short of memory or disk says so (`connection.blocked`) and takes nothing: that is an outage like any
//! other, so envelopes do not pile up.
//!
//! **Outages** and the start are those of every medium (`medium.rs`). Connections that break are noticed at once, a silent server
//! after three canaries; a server forgets a node that it does not hear of for 20 s.
//!
//! Tested by the conformance suite, killed and standing servers among it, and by `tests.rs` with users, TLS, limits and strangers.

mod confirms;
mod connection;
mod ear;
mod frames;
mod messages;
mod mouth;
mod names;
mod session;
mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tieline_core::broker::Inbound;
use tieline_proto::NodeId;

pub use settings::{RabbitMqAddress, RabbitMqSettings};

use crate::medium::{Engine, Fault, Medium, Pace, Queue, quoted};
use crate::tls::TlsError;
use connection::{Connection, Dialler};
use frames::Garbage;
use names::Names;
use session::Signs;

/// The most bytes of a message. Servers take 16 MiB or more by default; a longer envelope is cut.
const LONGEST: usize = 8 << 20;

/// The most bytes of a cluster's name.
const MAX_CLUSTER: usize = 256;

/// Why a RabbitMQ broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum RabbitMqError {
    /// The URL is not one of a server. It is not repeated, because there may be a password in it.
    #[error(
        "the address of a RabbitMQ server is `amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST]`, or `amqps://…`: {0}"
    )]
    Url(&'static str),
    /// The cluster's name is empty, or too long.
    #[error("a cluster's name has 1 to {MAX_CLUSTER} bytes")]
    Cluster,
    /// TLS cannot even be begun.
    #[error("`amqps://`: {0}")]
    Tls(#[from] TlsError),
    /// The server is not there, or not as the URL says.
    #[error("cannot use the RabbitMQ server at {server}: {trouble}")]
    Server {
        /// `host:port`.
        server: String,
        /// What is wrong.
        trouble: Trouble,
    },
}

/// Why there is no connection to the server, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody is there.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// Somebody is there, but not with TLS, or not whom the certificate names.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The network failed.
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Left,
    /// The server refused something, and said why.
    #[error("the server says: {0}")]
    Refused(String),
    /// The server takes no messages, and said why.
    #[error("the server takes no messages: {0}")]
    Blocked(String),
    /// What answers is no such server, or wants TLS.
    #[error("what answers there does not speak AMQP 0-9-1; a server that wants TLS is named by `amqps://`")]
    Garbage,
    /// Nothing came back for too long.
    #[error("it does not answer")]
    Silent,
}

impl Trouble {
    /// A refusal, which names users and what they may not do, and never a password.
    fn refused(text: &[u8]) -> Trouble {
        Trouble::Refused(quoted(&String::from_utf8_lossy(text)))
    }

    fn blocked(reason: &[u8]) -> Trouble {
        Trouble::Blocked(quoted(&String::from_utf8_lossy(reason)))
    }
}

impl Fault for Trouble {
    const NAMES: &'static [&'static str] =
        &["connect", "tls", "broke", "left", "refused", "blocked", "garbage", "silent"];

    fn index(&self) -> usize {
        match self {
            Trouble::Connect(_) => 0,
            Trouble::Tls(_) => 1,
            Trouble::Io(_) => 2,
            Trouble::Left => 3,
            Trouble::Refused(_) => 4,
            Trouble::Blocked(_) => 5,
            Trouble::Garbage => 6,
            Trouble::Silent => 7,
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

/// Messages that came to nothing.
#[derive(Default)]
struct Counts {
    /// Came to this node, and are no node's.
    foreign: AtomicU64,
    /// Came back, because nobody has a queue for them.
    returned: AtomicU64,
    /// The server did not take charge of.
    refused: AtomicU64,
}

impl Counts {
    fn foreign(&self) {
        self.foreign.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("Somebody who is no node has published to the cluster.");
    }

    fn returned(&self) {
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
    }
}

/// The engine of `amqp://`.
pub struct RabbitMq {
    pace: Pace,
    names: Arc<Names>,
    dialler: Dialler,
    /// `host:port`.
    server: String,
    counts: Arc<Counts>,
}

/// A node's way to the other nodes through RabbitMQ. It stops when it is dropped.
pub type RabbitMqBroker = Medium<RabbitMq>;

impl Medium<RabbitMq> {
    /// Connects, declares and consumes. `inbound` hears of envelopes from now on, from a task of the runtime this is called in.
    ///
    /// # Errors
    /// When the settings are wrong, or the server is not there or refuses this node, at the latest after [`Pace::connect`].
    pub async fn start(
        settings: RabbitMqSettings,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Self, RabbitMqError> {
        let RabbitMqSettings { cluster, address, pace, backlog } = settings;
        if cluster.is_empty() || cluster.len() > MAX_CLUSTER {
            return Err(RabbitMqError::Cluster);
        }
        let server = address.server();
        let engine = RabbitMq {
            pace: pace.clone(),
            names: Arc::new(Names::new(&cluster, node.incarnation)),
            dialler: Dialler::new(address, format!("tieline-{}", node.name), backlog, pace.canary)?,
            server: server.clone(),
            counts: Arc::default(),
        };
        let begun = Medium::begin(engine, pace, inbound).await;
        begun.map_err(|trouble| RabbitMqError::Server { server, trouble })
    }
}

impl Engine for RabbitMq {
    type Connection = Connection;
    type Words = Signs;
    type Fault = Trouble;

    const SERVER: &'static str = "RabbitMQ server";

    const ORDERS_CHANNELS: bool = true;

    fn server(&self) -> String {
        self.server.clone()
    }

    fn strays(&self) -> Vec<(&'static str, u64)> {
        let Counts { foreign, returned, refused } = &*self.counts;
        let counts = [("foreign", foreign), ("returned", returned), ("refused", refused)];
        counts.map(|(reason, count)| (reason, count.load(Ordering::Relaxed))).into()
    }

    async fn dial(&self, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        self.dialler.dial(&self.names, &self.counts, inbound).await
    }

    async fn run(&self, connection: Connection, queue: &Arc<Queue<Signs>>, inbound: &dyn Inbound) -> Trouble {
        session::run(&self.pace, inbound, connection, queue).await
    }
}
