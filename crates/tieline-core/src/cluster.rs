//! [`Cluster`]: this node among the others.
//!
//! Shards and brokers call it from their own threads, and none of its calls waits: envelopes are numbered and
//! handed to the broker (`cluster/sending.rs`), messages that arrive are handed to the shards (`cluster/receiving.rs`).
//! What takes memory of who is there (rosters, waits, leases) belongs to one task, in `cluster/attendant.rs`, which
//! hears of it through a bounded queue.
//!
//! Rules: a message is never forwarded again; a node drops its own echo and what it saw before; a number that is
//! missing is reported as a gap, at once or a second after the last one.

mod asks;
mod attendant;
mod copies;
mod counters;
mod interest;
mod numbers;
mod order;
mod peers;
mod receipts;
mod receiving;
mod roster;
mod sending;
mod sequence;
mod stating;
mod times;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tieline_proto::NodeId;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::broker::{Broker, BrokerStats, Inbound};
use crate::directory::{Asked, Choice, Directory, Replicated, Ringed};
use crate::latency::Latency;
use crate::node::Node;
use crate::registry::{Heartbeat, Registry};
use asks::Asks;
use attendant::{Attendant, Word};
pub use counters::ClusterCounters;
use interest::Interest;
pub(crate) use interest::Nodes;
use numbers::Numbers;
use order::Order;
pub use peers::Peer;
use peers::Peers;
use receipts::Receipts;
use receiving::Ears;
use sequence::Seen;
pub(crate) use stating::{Known, Statements};
pub use times::ClusterTimes;

/// Words of other nodes, and waits, that the task has not come to. When it is full a word is dropped and counted:
/// the digest in the next beat finds what that lost.
const WORDS: usize = 65_536;

/// This node's place in the cluster.
pub struct Cluster {
    /// The node keeps its cluster, not the other way round.
    node: Weak<Node>,
    id: NodeId,
    times: ClusterTimes,
    started: Instant,
    engines: OnceLock<Engines>,
    directory: Arc<dyn Directory>,
    /// Whether it does by the members.
    goes_by_members: bool,
    /// The same, where it asks.
    asked: Option<Arc<Asked>>,
    /// Held while an envelope is handed to the broker, so that numbers leave in order.
    numbers: Mutex<Numbers>,
    seen: Mutex<Seen>,
    /// Taken before `seen`, and only where the broker does not keep the order of channels.
    order: Mutex<Order>,
    routing: Routing,
    statements: Arc<Statements>,
    peers: RwLock<Arc<Peers>>,
    interest: Interest,
    receipts: Receipts,
    asks: Asks,
    words: mpsc::Sender<Word>,
    /// Whether the broker carries nothing now. Kept apart from the words, so that it is never lost among them.
    is_away: AtomicBool,
    /// Whether something was found to be missing that clients were not told of.
    has_gap: AtomicBool,
    /// Whether another node with this one's name was heard within a lease.
    has_namesake: AtomicBool,
    counters: ClusterCounters,
}

/// How messages go to the nodes that hold recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// To each of these, or to all where most of them do.
    #[default]
    Directed,
    /// To all nodes, which sort out: for small clusters.
    Broadcast,
}

/// How a node is a member.
#[derive(Clone, Default)]
pub struct ClusterSettings {
    /// How long anything takes at most.
    pub times: ClusterTimes,
    /// What placement goes by; none where the beats are that too. Whoever made it registers the node with it.
    pub registry: Option<Arc<dyn Registry>>,
    /// How messages go to the others.
    pub routing: Routing,
    /// Which nodes hold a user. The same for all members.
    pub directory: Choice,
}

/// What the cluster stands on, once it is there.
struct Engines {
    broker: Arc<dyn Broker>,
    orders_channels: bool,
    registry: Arc<dyn Registry>,
}

/// The cluster's task. Whoever started the cluster stops and joins it.
pub struct ClusterTask {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl ClusterTask {
    /// Says goodbye to the others and ends the task.
    pub async fn stop(self) {
        self.stop.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The cluster's task failed.");
        }
    }
}

impl Cluster {
    /// Makes a node a member of a cluster. `connect` starts the broker, given whom it tells what it hears.
    ///
    /// # Errors
    /// What `connect` gives.
    pub async fn start<E, F: Future<Output = Result<Arc<dyn Broker>, E>>>(
        node: Arc<Node>,
        settings: ClusterSettings,
        connect: impl FnOnce(Arc<dyn Inbound>) -> F,
    ) -> Result<(Arc<Cluster>, ClusterTask), E> {
        let ClusterSettings { times, registry, routing, directory } = settings;
        let (words, heard) = mpsc::channel(WORDS);
        let statements = Arc::<Statements>::default();
        let (directory, asked): (Arc<dyn Directory>, _) = match directory {
            Choice::Replicated => {
                (Arc::new(Replicated::new(node.id().incarnation, Arc::clone(&statements))), None)
            }
            Choice::Asked(asked) => {
                asked.state_by(Arc::clone(&statements));
                (Arc::clone(&asked) as Arc<dyn Directory>, Some(asked))
            }
            Choice::Ringed(hash) => {
                (Arc::new(Ringed::new(node.id().clone(), hash, Arc::clone(&statements))), None)
            }
        };
        node.logins().state_by(Arc::clone(&statements));
        node.presence().state_by(Arc::clone(&statements));
        let cluster = Arc::new(Cluster {
            node: Arc::downgrade(&node),
            id: node.id().clone(),
            times,
            started: Instant::now(),
            engines: OnceLock::new(),
            goes_by_members: directory.goes_by_members(),
            directory,
            asked,
            numbers: Mutex::default(),
            seen: Mutex::default(),
            order: Mutex::default(),
            routing,
            statements,
            peers: RwLock::default(),
            interest: Interest::default(),
            receipts: Receipts::default(),
            asks: Asks::default(),
            words,
            is_away: AtomicBool::new(false),
            has_gap: AtomicBool::new(false),
            has_namesake: AtomicBool::new(false),
            counters: ClusterCounters::default(),
        });
        let broker = connect(Arc::new(Ears(Arc::downgrade(&cluster)))).await?;
        let over_links = broker.reports_peers();
        let id = node.id().clone();
        let heartbeat = Arc::new(Heartbeat::new(id, times.beat, times.lease, over_links, Instant::now()));
        let orders_channels = broker.orders_channels();
        let registry = registry.unwrap_or_else(|| Arc::clone(&heartbeat) as Arc<dyn Registry>);
        let engines = Engines { broker, orders_channels, registry };
        cluster.engines.set(engines).ok().expect("a cluster is started once");
        node.set_cluster(Arc::clone(&cluster));
        let stop = Arc::new(Notify::new());
        let attendant = Attendant::new(Arc::clone(&cluster), Arc::clone(&node), heartbeat);
        let task = tokio::spawn(attendant.run(heard, Arc::clone(&stop)));
        Ok((cluster, ClusterTask { task, stop }))
    }

    /// What was counted.
    pub fn counters(&self) -> &ClusterCounters {
        &self.counters
    }

    /// The nodes that are reached, as they were a moment ago.
    pub fn peers(&self) -> Vec<Peer> {
        self.peer_view().all().to_vec()
    }

    /// Whether all that the other nodes hold is known here, as far as those are believed to live.
    pub(crate) fn is_view_complete(&self) -> bool {
        self.peer_view().all().iter().all(|peer| peer.complete && peer.is_reached())
    }

    /// Whether the broker carries envelopes, as it said last.
    pub fn is_broker_up(&self) -> bool {
        !self.is_away.load(Ordering::Acquire)
    }

    /// How long a node that cannot be reached is still believed to live.
    pub(crate) fn lease(&self) -> Duration {
        self.times.lease
    }

    /// Whether others may live that it has not met yet: it knows nobody, and has not been there for a lease.
    pub(crate) fn is_new_here(&self) -> bool {
        self.is_alone() && self.started.elapsed() < self.times.lease
    }

    /// How long a send waits for its numbers.
    pub(crate) fn receipt_limit(&self) -> Duration {
        self.times.receipt
    }

    /// Whether the broker keeps what it takes while it is away.
    fn keeps(&self) -> bool {
        self.broker().keeps()
    }

    /// How its broker is doing.
    pub fn broker_stats(&self) -> BrokerStats {
        self.broker().stats()
    }

    /// Words of other nodes, and waits, that the task has not come to.
    pub fn words_waiting(&self) -> usize {
        self.words.max_capacity() - self.words.capacity()
    }

    /// Sends that wait for the receipts of other nodes.
    pub fn receipts_waiting(&self) -> usize {
        self.receipts.waiting()
    }

    /// How long sends waited for them, those that were given up among them.
    pub fn receipt_wait(&self) -> &Latency {
        self.receipts.waited()
    }

    /// Whether another node that lives has this one's name: one of the two is taken for dead by the others.
    pub fn has_namesake(&self) -> bool {
        self.has_namesake.load(Ordering::Relaxed)
    }

    /// Which nodes live, for whoever places connections. Deliveries go by [`peers`](Cluster::peers).
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.engines().registry
    }

    /// Which nodes hold a user.
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.directory
    }

    /// The directory, where it asks a table on a server.
    pub fn asked(&self) -> Option<&Arc<Asked>> {
        self.asked.as_ref()
    }

    /// Users that this node states to all others.
    pub fn stated_users(&self) -> usize {
        self.statements.users()
    }

    /// Whether another member has a directory of another kind, so that neither finds the other's users by its own: messages to users
    /// go to it all the same.
    pub fn has_other_directories(&self) -> bool {
        self.peer_view().all().iter().any(|peer| peer.has_other_directory)
    }

    fn broker(&self) -> &Arc<dyn Broker> {
        &self.engines().broker
    }

    /// Whether the broker does. What arrives while it is still being started is taken as if it did not.
    fn orders_channels(&self) -> bool {
        self.engines.get().is_some_and(|engines| engines.orders_channels)
    }

    fn engines(&self) -> &Engines {
        self.engines.get().expect("nothing is asked before the engines are there")
    }

    fn peer_view(&self) -> Arc<Peers> {
        Arc::clone(&self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
