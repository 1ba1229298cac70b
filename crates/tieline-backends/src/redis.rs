//! Redis as the broker: every node subscribes to a channel that goes to all and to one of its own (`channels.rs`).
//!
//! ```text
//! send → queue → writer ─→ ┌────────┐
//!                          │ server │   one connection, RESP3
//! Inbound ←────── reader ← └────────┘
//! ```
//!
//! **One connection** publishes and is subscribed, which RESP3 allows. So there is one thing that can break, one thing that a
//! canary proves, and envelopes to all and to one node keep their order among each other: the server carries out the commands
//! of a connection one after the other.
//!
//! **The protocol is ours**, not a client library's (`resp.rs`): the part of it that a publisher and subscriber needs is small,
//! and it is the hot path of a cluster. Commands go into one write and messages are handed up where they were read; a general
//! client makes a future with an answer of each command and a tree of values of each message. Measured with 64 envelopes of 256
//! bytes on their way: 1.8 to 5.2 µs of processor time for each, sent and received, against 6.1 to 6.7 with the crate `redis` 1.8 and its
//! pipelines. And it hides what we have to
//! know: whether a subscription was restored, and what became of commands in an outage. TLS and certificates are rustls'.
//!
//! **Outages** and the start are those of every medium (`medium.rs`). Connections that break are noticed at once, a silent server
//! after three canaries.
//!
//! Redis itself cuts off subscribers that lag behind (`client-output-buffer-limit pubsub`, 32 MiB by default): the reader hands
//! up and never waits, so that takes a node that does not run at all. It then is away for a moment, and a gap is told.
//!
//! Tested by the conformance suite, killed and standing servers among it, and by `tests.rs` with passwords, TLS and strangers.

mod channels;
pub mod cluster;
mod connection;
pub mod directory;
mod link;
pub mod registry;
mod resp;
pub mod sentinel;
mod settings;
mod several;
pub mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use tieline_core::broker::Inbound;
use tieline_proto::NodeId;

pub use settings::{RedisAddress, RedisSettings};
pub use several::RedisSeveralAddress;

use crate::inbox::Inbox;
use crate::medium::stream::{self, Ended, Signs, Stream};
use crate::medium::{Engine, Fault, Medium, Pace, Queue, quoted};
use crate::tls::TlsError;
use channels::Channels;
use connection::Dialler;
use resp::Garbage;
use settings::Login;

/// The most bytes of a cluster's name.
const MAX_CLUSTER: usize = 256;

/// Why a Redis broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The URL is not one of a server. It is not repeated, because there may be a password in it.
    #[error(
        "the address of a Redis server is `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…`, that of a cluster `redis+cluster://…HOST[:PORT],HOST[:PORT]`, that of sentinels `redis+sentinel://…HOST[:PORT],HOST[:PORT]/MASTER`: {0}"
    )]
    Url(&'static str),
    /// The cluster's name is empty, or too long for a channel's.
    #[error("a cluster's name has 1 to {MAX_CLUSTER} bytes")]
    Cluster,
    /// TLS cannot even be begun.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server is not there, or not as the URL says.
    #[error("cannot use the Redis server at {server}: {trouble}")]
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
    /// The server refused a command, and said why.
    #[error("the server says: {0}")]
    Refused(String),
    /// The sentinels have no such master.
    #[error("the sentinels know no master of this name")]
    NoMaster,
    /// Where the sentinels say that the master is, is none, or not yet.
    #[error("the server is no master")]
    Replica,
    /// A channel of this node belongs to nobody.
    #[error("the cluster has nobody for some of its slots")]
    Unheld,
    /// A channel of this node belongs to another server now.
    #[error("the slots of the cluster have moved")]
    Moved,
    /// What answers is no Redis server, or wants TLS.
    #[error("what answers there does not speak RESP3; a server that wants TLS is named by `rediss://`")]
    Garbage,
    /// Nothing came back for too long.
    #[error("it does not answer")]
    Silent,
}

impl Fault for Trouble {
    const NAMES: &'static [&'static str] =
        &["connect", "tls", "broke", "left", "refused", "garbage", "silent"];

    fn index(&self) -> usize {
        match self {
            Trouble::Connect(_) => 0,
            Trouble::Tls(_) => 1,
            Trouble::Io(_) => 2,
            Trouble::Left => 3,
            Trouble::Refused(_) | Trouble::NoMaster | Trouble::Replica | Trouble::Unheld | Trouble::Moved => {
                4
            }
            Trouble::Garbage => 5,
            Trouble::Silent => 6,
        }
    }

    fn silent() -> Self {
        Trouble::Silent
    }
}

impl Trouble {
    /// A refusal, of a length fit for a log. An old server repeats the command it does not know, so the password is taken out.
    fn refused(reason: &[u8], login: Option<&Login>) -> Trouble {
        let mut text = String::from_utf8_lossy(reason).into_owned();
        if let Some(login) = login.filter(|login| !login.password.is_empty()) {
            text = text.replace(&login.password, "***");
        }
        Trouble::Refused(quoted(&text))
    }
}

impl From<Garbage> for Trouble {
    fn from(_: Garbage) -> Self {
        Trouble::Garbage
    }
}

impl From<Ended> for Trouble {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Broke(error) => Trouble::Io(error),
            Ended::Left => Trouble::Left,
        }
    }
}

fn check_cluster(name: &str) -> Result<(), RedisError> {
    if name.is_empty() || name.len() > MAX_CLUSTER { Err(RedisError::Cluster) } else { Ok(()) }
}

/// What is spoken with a Redis server.
pub struct Redis {
    pace: Pace,
    channels: Arc<Channels>,
    dialler: Dialler,
    /// `host:port`.
    server: String,
}

/// A node's way to a Redis server, and the engine of `redis://`. It stops when it is dropped.
pub type RedisBroker = Medium<Redis>;

impl Medium<Redis> {
    /// Connects and subscribes. `inbound` hears of envelopes from now on, from a task of the runtime this is called in.
    ///
    /// # Errors
    /// When the settings are wrong, or the server is not there or refuses this node, at the latest after
    /// [`Pace::connect`].
    pub async fn start(
        settings: RedisSettings,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<RedisBroker, RedisError> {
        let RedisSettings { cluster, address, pace } = settings;
        check_cluster(&cluster)?;
        let server = address.server();
        let redis = Redis {
            pace: pace.clone(),
            channels: Arc::new(Channels::new(&cluster, node.incarnation, channels::Kind::Plain)),
            dialler: Dialler::new(address, format!("tieline-{}", node.name))?,
            server: server.clone(),
        };
        Medium::begin(redis, pace, inbound).await.map_err(|trouble| RedisError::Server { server, trouble })
    }
}

impl Engine for Redis {
    type Connection = Stream;
    type Words = Signs;
    type Fault = Trouble;

    const SERVER: &'static str = "Redis server";

    /// One node publishes by one connection, another hears both channels by one, and the server carries out one command after the
    /// other.
    const ORDERS_CHANNELS: bool = true;

    fn server(&self) -> String {
        self.server.clone()
    }

    fn strays(&self) -> Vec<(&'static str, u64)> {
        self.channels.strays()
    }

    async fn dial(&self, inbound: &dyn Inbound) -> Result<Stream, Trouble> {
        self.dialler.dial(&self.channels, inbound).await
    }

    async fn run(&self, stream: Stream, queue: &Arc<Queue<Signs>>, inbound: &dyn Inbound) -> Trouble {
        let channels = &self.channels;
        let hear = |inbox: &mut Inbox| channels.hear(inbox, inbound, None);
        stream::run(&self.pace, stream, queue, Arc::clone(channels), hear).await
    }
}
