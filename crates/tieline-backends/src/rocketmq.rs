//! RocketMQ as the broker: every node pulls from one queue what goes to all and what goes to itself (`names.rs`).
//!
//! ```text
//! send → queue → sending ─→ ┌────────┐
//!                           │ broker │   one topic of one queue, two connections
//! Inbound ←──── pulling ←── └────────┘
//! ```
//!
//! **The client is ours**: the published ones for Rust lose acknowledged messages when nothing fails, or reorder them, and keep state
//! on the disk. What is needed is small: frames (`frames.rs`), messages (`messages.rs`), seven questions (`questions.rs`), asked one
//! after the other by a connection (`link.rs`), and signed where the server knows its users (`signature.rs`). There is no
//! offset on the server and nothing is committed: how far a node has read is its own knowledge (`reading.rs`).
//!
//! **Outages.** A node is *away* from the end of a session until a canary, a message to itself, has come back through new connections
//! (`connection.rs`). It goes back to the broker that it knows, without asking a name server, and reads on where it was: the broker keeps
//! its messages on the disk, so a restart loses nothing of what it had taken. Connections that break are noticed at once, a silent broker
//! after three canaries.
//!
//! Tested by the conformance suite, killed and standing servers among it, and by `tests.rs` with keys, strangers, foreign messages and
//! name servers that are gone.

mod connection;
mod frames;
mod link;
mod messages;
mod names;
mod questions;
mod reading;
mod session;
mod settings;
mod signature;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tieline_core::broker::Inbound;
use tieline_proto::{Incarnation, NodeId};

pub use settings::{RocketMqAddress, RocketMqSettings};

use crate::hosts::{self, Host};
use crate::medium::{Engine, Fault, Medium, Pace, Queue, quoted};
use connection::Connection;
use frames::{Answer, Garbage};
use names::Names;
use reading::Reading;
use session::Signs;
use signature::Signer;

/// The most bytes of a cluster's name.
const MAX_CLUSTER: usize = 256;

/// Why a RocketMQ broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum RocketMqError {
    /// The URL is not one of name servers. It is not repeated, because there may be a secret in it.
    #[error(
        "the address of RocketMQ's name servers is `rocketmq://[ACCESSKEY:SECRETKEY@]HOST[:PORT][,HOST[:PORT]…]`: {0}"
    )]
    Url(&'static str),
    /// The cluster's name is empty, or too long.
    #[error("a cluster's name has 1 to {MAX_CLUSTER} bytes")]
    Cluster,
    /// The server is not there, or not as the URL says.
    #[error("cannot use RocketMQ by the name servers {server}: {trouble}")]
    Server {
        /// Each `host:port`.
        server: String,
        /// What is wrong.
        trouble: Trouble,
    },
}

/// Why there is no connection to the broker, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody is there.
    #[error("cannot connect to {place}: {error}")]
    Connect {
        /// A name server, or where one says that the broker is.
        place: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The network failed.
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Left,
    /// The server refused something, and said why.
    #[error("the server says: {text} ({code})")]
    Refused {
        /// RocketMQ's number for it.
        code: i32,
        /// Its words.
        text: String,
    },
    /// What answers is no RocketMQ.
    #[error("what answers there does not speak RocketMQ's remoting protocol")]
    Garbage,
    /// Nothing came back for too long.
    #[error("it does not answer")]
    Silent,
    /// Nowhere to go.
    #[error("the name server knows no broker")]
    NoBroker,
    /// Messages are gone that were not read.
    #[error("the broker no longer has the place that was read up to")]
    Moved,
}

impl Fault for Trouble {
    const NAMES: &'static [&'static str] =
        &["connect", "broke", "left", "refused", "garbage", "silent", "no_broker", "moved"];

    fn index(&self) -> usize {
        match self {
            Trouble::Connect { .. } => 0,
            Trouble::Io(_) => 1,
            Trouble::Left => 2,
            Trouble::Refused { .. } => 3,
            Trouble::Garbage => 4,
            Trouble::Silent => 5,
            Trouble::NoBroker => 6,
            Trouble::Moved => 7,
        }
    }

    fn silent() -> Self {
        Trouble::Silent
    }
}

impl Trouble {
    /// A refusal, of a length fit for a log. Servers add lines with links to their manual.
    fn refused(answer: &Answer) -> Trouble {
        let text = answer.remark.lines().next().unwrap_or_default().trim_end();
        Trouble::Refused { code: answer.code, text: quoted(text) }
    }

    /// Whether it is that the topic is not there.
    fn is_no_topic(&self) -> bool {
        matches!(self, Trouble::Refused { code: questions::NO_TOPIC, .. })
    }
}

impl From<Garbage> for Trouble {
    fn from(_: Garbage) -> Self {
        Trouble::Garbage
    }
}

/// What is spoken with RocketMQ.
pub struct RocketMq {
    pace: Pace,
    /// The name servers.
    servers: Vec<Host>,
    signer: Option<Arc<Signer>>,
    me: Incarnation,
    names: Names,
    /// Where the topic was last; none before the first connection.
    broker: Mutex<Option<String>>,
    /// How far this node has read.
    reading: Mutex<Reading>,
}

/// A node's way to a RocketMQ cluster, and the engine of `rocketmq://`. It stops when it is dropped.
pub type RocketMqBroker = Medium<RocketMq>;

impl Medium<RocketMq> {
    /// Connects, and makes the cluster's topic where there is none. `inbound` hears of envelopes from now on, from a task of the runtime
    /// this is called in.
    ///
    /// # Errors
    /// When the settings are wrong, or the server is not there or refuses this node, at the latest after
    /// [`Pace::connect`].
    pub async fn start(
        settings: RocketMqSettings,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<RocketMqBroker, RocketMqError> {
        let RocketMqSettings { cluster, address, pace } = settings;
        if cluster.is_empty() || cluster.len() > MAX_CLUSTER {
            return Err(RocketMqError::Cluster);
        }
        let server = address.server();
        let engine = RocketMq {
            pace: pace.clone(),
            signer: address.login.as_ref().map(|login| Arc::new(Signer::new(login))),
            servers: address.servers,
            me: node.incarnation,
            names: Names::new(&cluster, node.incarnation),
            broker: Mutex::default(),
            reading: Mutex::new(Reading::new(node.incarnation)),
        };
        let begun = Medium::begin(engine, pace, inbound).await;
        begun.map_err(|trouble| RocketMqError::Server { server, trouble })
    }
}

impl RocketMq {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for RocketMq {
    type Connection = Connection;
    type Words = Signs;
    type Fault = Trouble;

    const SERVER: &'static str = "RocketMQ broker";

    /// Everything is in one queue, and a node sends one batch after the other.
    const ORDERS_CHANNELS: bool = true;

    fn server(&self) -> String {
        let broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner);
        broker.clone().unwrap_or_else(|| hosts::listed(&self.servers))
    }

    fn strays(&self) -> Vec<(&'static str, u64)> {
        vec![("foreign", self.reading().foreign())]
    }

    async fn dial(&self, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        self.connect(inbound).await
    }

    async fn run(&self, connection: Connection, queue: &Arc<Queue<Signs>>, inbound: &dyn Inbound) -> Trouble {
        self.carry(connection, queue, inbound).await
    }
}
