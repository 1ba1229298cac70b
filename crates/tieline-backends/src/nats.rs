//! NATS as the broker: every node subscribes to a subject that goes to all and to one of its own (`nats/subjects.rs`).
//!
//! **One connection** publishes and is subscribed, so there is one thing that can break and one thing that a canary proves. The server
//! handles what comes over a connection one after the other and puts it into the way of each subscriber at once, so
//! what goes to all and what goes to one arrive in the order they were sent. Between the servers of a NATS cluster all messages
//! of an account go over one route and keep that order too (tested with two servers).
//!
//! **The protocol is ours** (`nats/protocol.rs`), not a client library's: the part of it that a publisher and subscriber needs is small, and it
//! is the hot path of a cluster. All that waits is one write, and messages are handed up where they were read. And nothing is kept for
//! a server that is away: what is published late, in one burst, is worse than what is told to be missing.
//!
//! **Several servers** may be named. One at a time is used; when it is gone, the others are tried in turn. They are those of one
//! NATS cluster, so that it does not matter which node uses which.
//!
//! A server that is asked to carry more than a subscriber takes cuts that one off (`max_pending`, 64 MiB; `write_deadline`, 10 s): the
//! reader hands up and never waits, so that takes a node that does not run at all. It then is away for a moment, and a gap is told.
//!
//! Tested by the conformance suite, killed and standing servers among it, and by `nats/tests.rs` with all ways to authenticate, TLS,
//! several servers and strangers.

mod connection;
mod key;
mod protocol;
mod settings;
mod subjects;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tieline_core::broker::Inbound;
use tieline_proto::NodeId;

pub use settings::{NatsAddress, NatsSettings};

use crate::medium::stream::{self, Ended, Signs};
use crate::medium::{Engine, Fault, Medium, Pace, Queue, quoted};
use crate::tls::TlsError;
use connection::{Connection, Dialler};
use key::BadKey;
use protocol::Garbage;
use settings::Login;
use subjects::Subjects;

/// The most bytes of a cluster's name.
const MAX_CLUSTER: usize = 256;

/// Why a NATS broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The URL is not one of servers. It is not repeated, because there may be a password in it.
    #[error(
        "the address of NATS servers is `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST…][?creds=FILE|?nkey=FILE]`, or `tls://…`: {0}"
    )]
    Url(&'static str),
    /// The cluster's name is empty, or too long for a subject's.
    #[error("a cluster's name has 1 to {MAX_CLUSTER} bytes")]
    Cluster,
    /// The servers are not there, or not as the URL says.
    #[error("cannot use the NATS server at {server}: {trouble}")]
    Server {
        /// `host:port,…`.
        server: String,
        /// What is wrong.
        trouble: Trouble,
    },
}

/// Why there is no connection to a server, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody is there.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// TLS cannot even be begun.
    #[error(transparent)]
    Unfit(#[from] TlsError),
    /// Somebody is there, but not with TLS, or not whom the certificate names.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The server would speak without TLS only.
    #[error("the server does not speak TLS; one that does not is named by `nats://`")]
    Plain,
    /// A file that says who this is cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What came of it.
        error: io::Error,
    },
    /// A file that says who this is does not.
    #[error("{} is of no use: {reason}", file.display())]
    Key {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: BadKey,
    },
    /// The network failed.
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Left,
    /// The server refused a command, and said why.
    #[error("the server says: {0}")]
    Refused(String),
    /// What answers is no NATS server.
    #[error("what answers there does not speak the protocol of NATS clients")]
    Garbage,
    /// The server takes messages too short for anything.
    #[error("the server takes messages of at most {0} bytes (`max_payload`), which is too little")]
    Cramped(usize),
    /// Nothing came back for too long.
    #[error("it does not answer")]
    Silent,
}

impl Trouble {
    /// A refusal, of a length fit for a log, in which nobody repeats a secret.
    fn refused(reason: &[u8], login: &Login) -> Trouble {
        let mut text = String::from_utf8_lossy(reason).into_owned();
        if !login.secret().is_empty() {
            text = text.replace(login.secret(), "***");
        }
        Trouble::Refused(quoted(&text))
    }
}

impl Fault for Trouble {
    const NAMES: &'static [&'static str] =
        &["connect", "tls", "credentials", "broke", "left", "refused", "garbage", "silent"];

    fn index(&self) -> usize {
        match self {
            Trouble::Connect(_) => 0,
            Trouble::Unfit(_) | Trouble::Tls(_) | Trouble::Plain => 1,
            Trouble::File { .. } | Trouble::Key { .. } => 2,
            Trouble::Io(_) => 3,
            Trouble::Left => 4,
            Trouble::Refused(_) | Trouble::Cramped(_) => 5,
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

impl From<Ended> for Trouble {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Broke(error) => Trouble::Io(error),
            Ended::Left => Trouble::Left,
        }
    }
}

/// The engine of `nats://`.
pub struct Nats {
    dialler: Dialler,
    pace: Pace,
}

/// A node's way to the other nodes through NATS. It stops when it is dropped.
pub type NatsBroker = Medium<Nats>;

impl Medium<Nats> {
    /// Connects and subscribes. `inbound` hears of envelopes from now on, from a task of the runtime this is called in.
    ///
    /// # Errors
    /// When the settings are wrong, or no server is there, or the servers refuse this node, at the latest after
    /// [`Pace::connect`].
    pub async fn start(
        settings: NatsSettings,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Self, NatsError> {
        let NatsSettings { cluster, address, pace } = settings;
        if cluster.is_empty() || cluster.len() > MAX_CLUSTER {
            return Err(NatsError::Cluster);
        }
        let server = address.server();
        let subjects = Subjects::new(&cluster, node.incarnation);
        let dialler = Dialler::new(address, subjects, format!("tieline-{}", node.name), pace.connect);
        let begun = Medium::begin(Nats { dialler, pace: pace.clone() }, pace, inbound).await;
        begun.map_err(|trouble| NatsError::Server { server, trouble })
    }
}

impl Engine for Nats {
    type Connection = Connection;
    type Words = Signs;
    type Fault = Trouble;
    const SERVER: &'static str = "NATS server";
    const ORDERS_CHANNELS: bool = true;

    fn server(&self) -> String {
        self.dialler.address().server()
    }

    fn strays(&self) -> Vec<(&'static str, u64)> {
        vec![("foreign", self.dialler.foreign())]
    }

    async fn dial(&self, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        self.dialler.dial(inbound).await
    }

    async fn run(&self, connection: Connection, queue: &Arc<Queue<Signs>>, inbound: &dyn Inbound) -> Trouble {
        let Connection { stream, mut ear, mouth } = connection;
        let login = &self.dialler.address().login;
        stream::run(&self.pace, stream, queue, mouth, |inbox| ear.hear(inbox, inbound, login, drop)).await
    }
}
