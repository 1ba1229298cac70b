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
//! **Outages.** A node is *away* from the end of a session (`session.rs`) until a canary, a message to itself, has come back
//! through a new connection. Meanwhile nothing is taken. Connections that break are noticed at once, a silent server after three
//! canaries. Attempts are at most a second apart for ever, so that a server that is back is found soon after.
//!
//! **At its start** a node makes one attempt alone: whatever is wrong then, the address or the password, is likely to stay so,
//! and whoever starts nodes also starts them again.
//!
//! Redis itself cuts off subscribers that lag behind (`client-output-buffer-limit pubsub`, 32 MiB by default): the reader hands
//! up and never waits, so that takes a node that does not run at all. It then is away for a moment, and a gap is told.
//!
//! Tested by the conformance suite, killed and standing servers among it, and by `tests.rs` with passwords, TLS and strangers.

mod channels;
mod connection;
mod link;
pub mod registry;
mod resp;
mod session;
mod settings;
pub mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tieline_core::broker::{Broker, BrokerStats, Inbound, NotTaken, To};
use tieline_proto::NodeId;
use tokio::time::{sleep, timeout};

pub use settings::{RedisAddress, RedisSettings};

use crate::life::Life;
use crate::pause::pause;
use channels::Channels;
use connection::{Connection, Dialler};
use resp::Garbage;
use session::Queue;
use settings::Login;

/// The most bytes of one envelope. A longer one is not taken.
pub const MAX_ENVELOPE: usize = 16 << 20;

/// The most bytes of a cluster's name.
const MAX_CLUSTER: usize = 256;

/// The most characters of a server's refusal that are repeated.
const MAX_QUOTE: usize = 200;

/// How long what was taken may take to reach the server when the broker stops.
const FLUSH: Duration = Duration::from_secs(1);

/// Why a Redis broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The URL is not one of a server. It is not repeated, because there may be a password in it.
    #[error(
        "the address of a Redis server is `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…`: {0}"
    )]
    Url(&'static str),
    /// The cluster's name is empty, or too long for a channel's.
    #[error("a cluster's name has 1 to {MAX_CLUSTER} bytes")]
    Cluster,
    /// Nobody could be trusted.
    #[error(
        "`rediss://` needs certificates that this system trusts, and there are none (Debian: `ca-certificates`)"
    )]
    Roots,
    /// TLS cannot be spoken with such a host.
    #[error("cannot speak TLS: {0}")]
    Tls(String),
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
    /// What answers is no Redis server, or wants TLS.
    #[error("what answers there does not speak RESP3; a server that wants TLS is named by `rediss://`")]
    Garbage,
    /// Nothing came back for too long.
    #[error("it does not answer")]
    Silent,
}

impl Trouble {
    /// The words by which failed connections are counted.
    const NAMES: [&'static str; 7] = ["connect", "tls", "broke", "left", "refused", "garbage", "silent"];

    /// Where its word is.
    fn index(&self) -> usize {
        match self {
            Trouble::Connect(_) => 0,
            Trouble::Tls(_) => 1,
            Trouble::Io(_) => 2,
            Trouble::Left => 3,
            Trouble::Refused(_) => 4,
            Trouble::Garbage => 5,
            Trouble::Silent => 6,
        }
    }

    /// A refusal, of a length fit for a log. An old server repeats the command it does not know, so the password is taken out.
    fn refused(reason: &[u8], login: Option<&Login>) -> Trouble {
        let mut text = String::from_utf8_lossy(reason).into_owned();
        if let Some(login) = login.filter(|login| !login.password.is_empty()) {
            text = text.replace(&login.password, "***");
        }
        Trouble::Refused(text.chars().take(MAX_QUOTE).flat_map(char::escape_debug).collect())
    }
}

impl From<Garbage> for Trouble {
    fn from(_: Garbage) -> Self {
        Trouble::Garbage
    }
}

/// What the broker and its task share.
struct Shared {
    settings: RedisSettings,
    channels: Arc<Channels>,
    dialler: Dialler,
    /// What hears of envelopes and outages.
    inbound: Arc<dyn Inbound>,
    /// The queue of the session that carries now; none while the server is away.
    carrying: RwLock<Option<Arc<Queue>>>,
    /// Envelopes that a full queue refused.
    overflows: AtomicU64,
    /// Connections that did not come about, in the order of [`Trouble::NAMES`].
    failed: [AtomicU64; Trouble::NAMES.len()],
    /// How far the broker has come to its end.
    life: Life,
}

/// A node's way to a Redis server, and the engine of `redis://`. It stops when it is dropped.
pub struct RedisBroker(Arc<Shared>);

impl RedisBroker {
    /// Connects and subscribes. `inbound` hears of envelopes from now on, from a task of the runtime this is called in.
    ///
    /// # Errors
    /// When the settings are wrong, or the server is not there or refuses this node, at the latest after
    /// [`RedisSettings::connect`].
    pub async fn start(
        settings: RedisSettings,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<RedisBroker, RedisError> {
        if settings.cluster.is_empty() || settings.cluster.len() > MAX_CLUSTER {
            return Err(RedisError::Cluster);
        }
        let dialler = Dialler::new(settings.address.clone(), format!("tieline-{}", node.name))?;
        let shared = Arc::new(Shared {
            channels: Arc::new(Channels::new(&settings.cluster, node.incarnation)),
            dialler,
            inbound,
            carrying: RwLock::default(),
            overflows: AtomicU64::new(0),
            failed: Default::default(),
            life: Life::new(),
            settings,
        });
        let connection = shared.dial().await.map_err(|trouble| {
            let server = shared.settings.address.server();
            RedisError::Server { server, trouble }
        })?;
        let queue = shared.carry();
        tokio::spawn(Arc::clone(&shared).run(connection, queue));
        Ok(RedisBroker(shared))
    }

    /// How many envelopes a full queue refused.
    pub fn overflows(&self) -> u64 {
        self.0.overflows.load(Ordering::Relaxed)
    }

    /// Waits until everything has stopped after [`close`](Broker::close): about a second at most.
    pub async fn closed(&self) {
        self.0.life.stopped().await;
    }
}

impl Shared {
    /// One attempt.
    async fn dial(&self) -> Result<Connection, Trouble> {
        let dial = self.dialler.dial(&self.channels, &*self.inbound);
        timeout(self.settings.connect, dial).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Takes envelopes from now on.
    fn carry(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(self.settings.queue));
        let mut carrying = self.carrying.write().unwrap_or_else(PoisonError::into_inner);
        // A broker that stops meanwhile takes nothing.
        if self.life.is_running() {
            *carrying = Some(Arc::clone(&queue));
        } else {
            queue.finish();
        }
        queue
    }

    /// Takes nothing from now on, and gives the queue that took.
    fn stop_carrying(&self) -> Option<Arc<Queue>> {
        self.carrying.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Lives from the first connection to the last.
    async fn run(self: Arc<Self>, connection: Connection, queue: Arc<Queue>) {
        let stopping = self.life.stopping();
        tokio::pin!(stopping);
        let mut session = (connection, queue);
        loop {
            let (connection, queue) = session;
            let run = session::run(&self.settings, &self.channels, &*self.inbound, connection, &queue);
            tokio::pin!(run);
            let trouble = tokio::select! {
                trouble = &mut run => trouble,
                () = &mut stopping => {
                    // The server closes when it has read everything.
                    drop(timeout(FLUSH, run).await);
                    break;
                }
            };
            drop(self.stop_carrying());
            if !self.life.is_running() {
                break;
            }
            self.inbound.away();
            let server = self.settings.address.server();
            tracing::warn!(server, %trouble, "The Redis server is away.");
            let connection = tokio::select! {
                connection = self.dial_again(trouble) => connection,
                () = &mut stopping => break,
            };
            session = (connection, self.carry());
            tracing::info!(server, "The Redis server is back.");
            self.inbound.back();
        }
        self.life.end();
    }

    /// Tries until it works.
    async fn dial_again(&self, mut trouble: Trouble) -> Connection {
        let mut failures = 0;
        loop {
            sleep(pause(self.settings.retry_min, self.settings.retry_max, failures)).await;
            failures += 1;
            match self.dial().await {
                Ok(connection) => return connection,
                Err(error) => {
                    self.failed[error.index()].fetch_add(1, Ordering::Relaxed);
                    // Once for each reason: attempts go on every second.
                    if error.to_string() != trouble.to_string() {
                        tracing::warn!(server = self.settings.address.server(), %error, "The Redis server is still away.");
                    }
                    trouble = error;
                }
            }
        }
    }
}

impl Broker for RedisBroker {
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let carrying = self.0.carrying.read().unwrap_or_else(PoisonError::into_inner);
        let queue = carrying.as_ref().ok_or(NotTaken::Unreachable)?;
        let pushed = if envelope.len() > MAX_ENVELOPE {
            Err(NotTaken::Full)
        } else {
            queue.push(envelope.len(), (to, Arc::clone(envelope)))
        };
        if pushed == Err(NotTaken::Full) {
            self.0.overflows.fetch_add(1, Ordering::Relaxed);
        }
        pushed
    }

    fn reports_peers(&self) -> bool {
        false
    }

    /// One node publishes by one connection, another hears both channels by one, and the server carries out one command after the
    /// other.
    fn orders_channels(&self) -> bool {
        true
    }

    fn stats(&self) -> BrokerStats {
        let carrying = self.0.carrying.read().unwrap_or_else(PoisonError::into_inner);
        let queued_bytes = carrying.as_ref().map_or(0, |queue| queue.bytes() as u64);
        let failed = self.0.failed.iter().map(|count| count.load(Ordering::Relaxed));
        BrokerStats { queued_bytes, refused: Trouble::NAMES.into_iter().zip(failed).collect() }
    }

    fn close(&self) {
        // This first: a session that begins meanwhile looks at it under the lock that is taken next.
        self.0.life.stop();
        if let Some(queue) = self.0.stop_carrying() {
            queue.finish();
        }
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.close();
    }
}
