//! Kafka as the broker: every node writes to two topics of the cluster and reads two partitions of them (`topics.rs`).
//!
//! ```text
//! send → Outbox: librdkafka's producer ─→ ┌─────────┐
//!                                         │ servers │
//! Inbound ←── Service: consumer ←──────── └─────────┘
//! ```
//!
//! **The protocol is librdkafka's**, by the crate `rdkafka`: idempotent writing, leaders that move between servers and the versions of the protocol are more
//! than a small client can know, and it has been tried for years. It has threads of its own; one more is ours (`service.rs`), which reads and hands up.
//!
//! **Order.** What goes to all is in one partition, what goes to one node in another, and nobody orders the two: the cluster does.
//!
//! **Outages.** In contrast to other brokers with a server, what was taken before an outage is kept in it, and more is taken: a server that
//! is killed and started again leaves no gap. It is bounded by [`KafkaSettings::queue`] and [`KafkaSettings::keep`]; an envelope that is older was
//! given up, and whether it has arrived nobody knows. Servers know the numbers of what they were sent, so that what is sent again is not
//! written again, but for one case: if a server that goes on after a standstill refuses a message and takes the one behind it, the library numbers
//! all anew, and what was written and not confirmed is written twice, in order. The cluster drops it by its own numbers. Away and back is told by
//! canaries (`pulse.rs`).
//!
//! **At its start** a node tries for a few seconds, and then says what is wrong.
//!
//! Tested by the conformance suite, killed and standing servers among it, and by `tests.rs` with passwords, strangers and topics that vanish.

mod address;
mod bootstrap;
mod outbox;
mod pulse;
mod reader;
mod service;
mod settings;
mod signs;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rdkafka::error::RDKafkaErrorCode as Code;
use tieline_core::broker::{Broker, BrokerStats, Inbound, NotTaken, To};
use tieline_proto::{Incarnation, NodeId};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use address::KafkaAddress;
pub use settings::KafkaSettings;

pub use crate::medium::MAX_ENVELOPE;

use crate::life::Life;
use outbox::Outbox;
use signs::Signs;
use topics::Topics;

/// The most characters of what a server or the library said that are repeated.
const MAX_QUOTE: usize = 300;

/// Why a Kafka broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The URL is not one of servers. It is not repeated, because there may be a password in it.
    #[error(
        "the address of a Kafka cluster is `kafka://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][?mechanism=…]`, or `kafka+ssl://…`: {0}"
    )]
    Url(&'static str),
    /// TLS or SCRAM is asked for, and was not built in.
    #[error(
        "TLS and SCRAM with Kafka need a build with `--features kafka-tls`, and for that the files of OpenSSL for developers (Debian: `libssl-dev`)"
    )]
    NoTls,
    /// The cluster's name is empty, or too long for a topic's.
    #[error(
        "a cluster's name has 1 to 230 letters, digits and `-` with Kafka; every other byte counts three times"
    )]
    Cluster,
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The servers are not there, or not as the URL says.
    #[error("cannot use the Kafka cluster at {server}: {trouble}")]
    Server {
        /// `host:port` of each server that the URL names.
        server: String,
        /// What is wrong.
        trouble: Trouble,
    },
}

/// What is wrong with the servers, or the way to them.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody is there, or who is there speaks another protocol.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Somebody is there, but not with TLS, or not whom the certificate names.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// User or password are not right, or not proved in a way that the servers take.
    #[error("the login failed: {0}")]
    Login(String),
    /// The servers refuse something, and say why.
    #[error("the servers refuse it: {0}")]
    Refused(String),
    /// The library does not take a setting, such as a file that is not there.
    #[error("it cannot be set up: {0}")]
    Setting(String),
    /// Nothing came back for too long.
    #[error(
        "it does not answer; servers that want a user and a password, or TLS, say nothing to who comes without"
    )]
    Silent,
    /// Something else failed, and is tried again.
    #[error("{0}")]
    Other(String),
}

impl Trouble {
    /// The words by which they are counted.
    const NAMES: [&'static str; 7] = ["connect", "tls", "login", "refused", "setting", "silent", "other"];

    /// Where its word is.
    fn index(&self) -> usize {
        match self {
            Trouble::Connect(_) => 0,
            Trouble::Tls(_) => 1,
            Trouble::Login(_) => 2,
            Trouble::Refused(_) => 3,
            Trouble::Setting(_) => 4,
            Trouble::Silent => 5,
            Trouble::Other(_) => 6,
        }
    }

    /// What an error of the library is, by its code; the words are cut to a length fit for a log.
    fn of(code: Code, reason: &str) -> Trouble {
        let text = reason.chars().take(MAX_QUOTE).flat_map(char::escape_debug).collect();
        match code {
            Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::BadMessage => {
                Trouble::Connect(text)
            }
            Code::SSL => Trouble::Tls(text),
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState => Trouble::Login(text),
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature => Trouble::Refused(text),
            Code::OperationTimedOut | Code::RequestTimedOut => Trouble::Silent,
            _ => Trouble::Other(text),
        }
    }
}

/// What the broker and its thread share.
struct Shared {
    settings: KafkaSettings,
    incarnation: Incarnation,
    topics: Arc<Topics>,
    /// What hears of envelopes and outages.
    inbound: Arc<dyn Inbound>,
    /// What the library says on its own threads.
    signs: Arc<Signs>,
    outbox: Outbox,
    /// Envelopes that a full queue refused.
    overflows: AtomicU64,
    /// Messages that no node has written.
    foreign: AtomicU64,
    /// How far the broker has come to its end.
    life: Life,
}

/// A node's way to a Kafka cluster, and the engine of `kafka://`. It stops when it is dropped.
pub struct KafkaBroker {
    shared: Arc<Shared>,
    /// The thread that reads, until somebody joins it.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl KafkaBroker {
    /// Connects, makes the topics if they are not there, and begins to read. `inbound` hears of envelopes from now on, from a thread of
    /// the broker's own.
    ///
    /// # Errors
    /// When the settings are wrong, or the servers are not there or refuse this node, soon after [`KafkaSettings::connect`] at the latest.
    pub async fn start(
        settings: KafkaSettings,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<KafkaBroker, KafkaError> {
        let address = &settings.address;
        let topics = Arc::new(Topics::new(&settings.cluster, address.replicas)?);
        let server = address.server();
        let signs = Signs::new(address.login.as_ref().map(|login| login.password.clone()));
        let config = settings.producer(node.name.as_str());
        let outbox =
            Outbox::new(config, Arc::clone(&signs), Arc::clone(&topics), node.incarnation, settings.queue);
        let shared = Arc::new(Shared {
            settings,
            incarnation: node.incarnation,
            topics,
            inbound,
            signs,
            outbox,
            overflows: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            life: Life::new(),
        });
        let (begun, beginning) = oneshot::channel();
        let name = node.name.as_str().to_owned();
        let thread = service::start(Arc::clone(&shared), name, Handle::current(), begun)?;
        // From here on it is stopped if nobody waits for the start.
        let broker = KafkaBroker { shared, thread: Mutex::new(Some(thread)) };
        match beginning.await.unwrap_or(Err(Trouble::Silent)) {
            Ok(()) => Ok(broker),
            Err(trouble) => Err(KafkaError::Server { server, trouble }),
        }
    }

    /// How many envelopes a full queue refused.
    pub fn overflows(&self) -> u64 {
        self.shared.overflows.load(Ordering::Relaxed)
    }

    /// How many messages were given up, of which nobody knows whether they arrived.
    pub fn expired(&self) -> u64 {
        self.shared.signs.expired()
    }

    /// How many messages were read that no node has written. They are passed over.
    pub fn foreign(&self) -> u64 {
        self.shared.foreign.load(Ordering::Relaxed)
    }

    /// Waits until everything has stopped after [`close`](Broker::close): about two seconds at most.
    pub async fn closed(&self) {
        self.shared.life.stopped().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has just said its last word. What it failed by was printed.
            drop(thread.join());
        }
    }
}

impl Broker for KafkaBroker {
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        if !self.shared.life.is_running() {
            return Err(NotTaken::Unreachable);
        }
        let sent = self.shared.outbox.send(to, envelope);
        if sent == Err(NotTaken::Full) {
            self.shared.overflows.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn reports_peers(&self) -> bool {
        false
    }

    fn keeps(&self) -> bool {
        true
    }

    fn stats(&self) -> BrokerStats {
        let signs = &self.shared.signs;
        let strays = vec![("foreign", self.foreign())];
        BrokerStats { queued_bytes: signs.waiting() as u64, refused: signs.counts(), strays }
    }

    fn close(&self) {
        self.shared.life.stop();
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        self.close();
    }
}
