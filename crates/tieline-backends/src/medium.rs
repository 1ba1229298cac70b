//! [`Medium`]: a broker whose envelopes go through a server. It holds what is the same whatever the server is: the queue of
//! the session that carries, attempts to connect, outages and the end. What is spoken with a server is an [`Engine`]'s.
//!
//! ```text
//! send → queue ─→ ┌──────────────────┐
//!                 │ Engine::run      │ ⇄ server
//! Inbound ←────── └──────────────────┘
//! ```
//!
//! **Outages.** A node is *away* from the end of a session until [`Engine::dial`] has succeeded, which is when a canary, a message
//! to itself, has come back through a new connection. Meanwhile nothing is taken, and what waited in the queue of the session
//! that ended is lost: an old envelope behind an outage would help nobody, and its number tells that it is missing. Attempts are
//! at most [`Pace::retry_max`] apart for ever, so that a server that is back is found soon after.
//!
//! **At its start** a node makes one attempt alone: whatever is wrong then, the address or the password, is likely to stay so,
//! and whoever starts nodes also starts them again.
//!
//! Not here: what a message on the medium looks like (`medium/parts.rs`, or the engine's own way). Tested by the conformance suite and `medium/limits.rs`, over every
//! engine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tieline_core::broker::{Broker, BrokerStats, Inbound, NotTaken, To};
use tokio::time::{sleep, timeout};

use crate::life::Life;
use crate::pause::pause;
use crate::queue::{self, Words};

#[cfg(test)]
pub(crate) mod limits;
#[cfg(any(test, feature = "nats", feature = "rocketmq", feature = "rabbitmq", feature = "kafka"))]
pub(crate) mod parts;
#[cfg(any(feature = "redis", feature = "nats"))]
pub(crate) mod stream;

/// The most bytes of one envelope. A longer one is not taken.
pub const MAX_ENVELOPE: usize = 16 << 20;

/// How long what was taken may take to reach the server when the broker stops.
const FLUSH: Duration = Duration::from_secs(1);

/// What waits to be said to a server: envelopes, and an engine's words beside them.
pub(crate) type Queue<W> = queue::Queue<(To, Arc<[u8]>), W>;

/// How patient a node is with its server, and how much it keeps for it.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How often the node sends itself a canary through the server.
    pub canary: Duration,
    /// So many canaries in a row that did not come back mean that the server carries nothing.
    pub misses: u32,
    /// How long connecting may take, from the name's resolution to the first canary. At its start a node gives up after it.
    pub connect: Duration,
    /// The most bytes queued towards the server. Past it an envelope is refused.
    pub queue: usize,
    /// The bound of the first pause before connecting again; it doubles with each failure.
    pub retry_min: Duration,
    /// The bound that the pauses grow to.
    pub retry_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            canary: Duration::from_secs(2),
            misses: 3,
            connect: Duration::from_secs(3),
            queue: 16 << 20,
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(1),
        }
    }
}

/// Why there is no connection to a server, or no longer, in an engine's words, which never have a password in them.
pub trait Fault: std::error::Error + Send + Sync + 'static {
    /// The words by which failed connections are counted.
    const NAMES: &'static [&'static str];

    /// Where its word is.
    fn index(&self) -> usize;

    /// Nothing came back for too long.
    fn silent() -> Self;
}

/// The most characters of a server's words that are repeated.
const MAX_QUOTE: usize = 200;

/// What a server says, for instance when it refuses something, of a length and in characters fit for a log. Secrets that it may repeat are taken
/// out before.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTE).flat_map(char::escape_debug).collect()
}

/// What is spoken with one kind of server.
pub trait Engine: Send + Sync + Sized + 'static {
    /// A connection that carries: authenticated, subscribed, and a canary has come back through it.
    type Connection: Send;

    /// What the engine says beside envelopes.
    type Words: Words + Send;

    /// What goes wrong.
    type Fault: Fault;

    /// What the server is called in logs, as in "the … is away".
    const SERVER: &'static str;

    /// What [`Broker::orders_channels`] says.
    const ORDERS_CHANNELS: bool;

    /// Where the server is, without a password.
    fn server(&self) -> String;

    /// Messages that came to nothing, as [`BrokerStats::strays`] counts them.
    fn strays(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// One attempt. What others send meanwhile goes to `inbound`. *Cancellation*: dropped after [`Pace::connect`].
    fn dial(
        &self,
        inbound: &dyn Inbound,
    ) -> impl Future<Output = Result<Self::Connection, Self::Fault>> + Send;

    /// A session: hands up what arrives and writes what waits in `queue`, until the connection is over; what ended it. After the
    /// queue's last batch it ends when the server has taken everything. *Cancellation*: it may be dropped when the broker stops.
    fn run(
        &self,
        connection: Self::Connection,
        queue: &Arc<Queue<Self::Words>>,
        inbound: &dyn Inbound,
    ) -> impl Future<Output = Self::Fault> + Send;
}

/// What a broker and its task share.
struct Shared<E: Engine> {
    engine: E,
    pace: Pace,
    /// What hears of envelopes and outages.
    inbound: Arc<dyn Inbound>,
    /// The queue of the session that carries now; none while the server is away.
    carrying: RwLock<Option<Arc<Queue<E::Words>>>>,
    /// Envelopes that a full queue refused.
    overflows: AtomicU64,
    /// Connections that did not come about, in the order of [`Fault::NAMES`].
    failed: Box<[AtomicU64]>,
    /// How far the broker has come to its end.
    life: Life,
}

/// A node's way to a server that carries envelopes. It stops when it is dropped.
pub struct Medium<E: Engine>(Arc<Shared<E>>);

impl<E: Engine> Medium<E> {
    /// Connects. `inbound` hears of envelopes from now on, from a task of the runtime this is called in.
    ///
    /// # Errors
    /// When the server is not there or refuses this node, at the latest after [`Pace::connect`].
    pub(crate) async fn begin(engine: E, pace: Pace, inbound: Arc<dyn Inbound>) -> Result<Self, E::Fault> {
        let shared = Arc::new(Shared {
            engine,
            pace,
            inbound,
            carrying: RwLock::default(),
            overflows: AtomicU64::new(0),
            failed: E::Fault::NAMES.iter().map(|_| AtomicU64::new(0)).collect(),
            life: Life::new(),
        });
        let connection = shared.dial().await?;
        let queue = shared.carry();
        tokio::spawn(Arc::clone(&shared).run(connection, queue));
        Ok(Medium(shared))
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

impl<E: Engine> Shared<E> {
    /// One attempt.
    async fn dial(&self) -> Result<E::Connection, E::Fault> {
        let dial = self.engine.dial(&*self.inbound);
        timeout(self.pace.connect, dial).await.unwrap_or_else(|_| Err(E::Fault::silent()))
    }

    /// Takes envelopes from now on.
    fn carry(&self) -> Arc<Queue<E::Words>> {
        let queue = Arc::new(Queue::new(self.pace.queue));
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
    fn stop_carrying(&self) -> Option<Arc<Queue<E::Words>>> {
        self.carrying.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Lives from the first connection to the last.
    async fn run(self: Arc<Self>, connection: E::Connection, queue: Arc<Queue<E::Words>>) {
        let stopping = self.life.stopping();
        tokio::pin!(stopping);
        let mut session = (connection, queue);
        loop {
            let (connection, queue) = session;
            let run = self.engine.run(connection, &queue, &*self.inbound);
            tokio::pin!(run);
            let fault = tokio::select! {
                fault = &mut run => fault,
                () = &mut stopping => {
                    // The session ends when the server has taken everything.
                    drop(timeout(FLUSH, run).await);
                    break;
                }
            };
            drop(self.stop_carrying());
            if !self.life.is_running() {
                break;
            }
            self.inbound.away();
            let (what, server) = (E::SERVER, self.engine.server());
            tracing::warn!(server, %fault, "The {what} is away.");
            let connection = tokio::select! {
                connection = self.dial_again(fault) => connection,
                () = &mut stopping => break,
            };
            session = (connection, self.carry());
            tracing::info!(server, "The {what} is back.");
            self.inbound.back();
        }
        self.life.end();
    }

    /// Tries until it works.
    async fn dial_again(&self, mut fault: E::Fault) -> E::Connection {
        let mut failures = 0;
        loop {
            sleep(pause(self.pace.retry_min, self.pace.retry_max, failures)).await;
            failures += 1;
            match self.dial().await {
                Ok(connection) => return connection,
                Err(error) => {
                    self.failed[error.index()].fetch_add(1, Ordering::Relaxed);
                    // Once for each reason: attempts go on every second.
                    if error.to_string() != fault.to_string() {
                        let what = E::SERVER;
                        tracing::warn!(server = self.engine.server(), %error, "The {what} is still away.");
                    }
                    fault = error;
                }
            }
        }
    }
}

impl<E: Engine> Broker for Medium<E> {
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

    fn orders_channels(&self) -> bool {
        E::ORDERS_CHANNELS
    }

    fn stats(&self) -> BrokerStats {
        let carrying = self.0.carrying.read().unwrap_or_else(PoisonError::into_inner);
        let queued_bytes = carrying.as_ref().map_or(0, |queue| queue.bytes() as u64);
        let failed = self.0.failed.iter().map(|count| count.load(Ordering::Relaxed));
        BrokerStats {
            queued_bytes,
            refused: E::Fault::NAMES.iter().copied().zip(failed).collect(),
            strays: self.0.engine.strays(),
        }
    }

    fn close(&self) {
        // This first: a session that begins meanwhile looks at it under the lock that is taken next.
        self.0.life.stop();
        if let Some(queue) = self.0.stop_carrying() {
            queue.finish();
        }
    }
}

impl<E: Engine> Drop for Medium<E> {
    fn drop(&mut self) {
        self.close();
    }
}
