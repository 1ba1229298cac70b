//! A member of a cluster over any broker, without clients: what the suites of registries and directories look at.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_core::broker::Broker;
use tieline_core::directory::{Choice, Directory};
use tieline_core::registry::{Member, Registration, Registry, SharedView};
use tieline_core::token::Keys;
use tieline_core::{
    Cluster, ClusterSettings, ClusterTask, ClusterTimes, Limits, Node, NodeSettings, Operator,
};
use tieline_proto::{Incarnation, NodeId, NodeName};
use tieline_switchboard::{Settings, Switchboard};
use tokio::time::timeout;

use super::{Fabric, PATIENCE};

/// A lease that ends within a test, and beats that keep it.
pub(super) const SHORT: Duration = Duration::from_millis(1_500);

/// A lease that no test outlives.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// Time between two beats.
pub(super) const BEAT: Duration = Duration::from_millis(100);

/// A member.
pub(super) struct Seat {
    pub(super) id: NodeId,
    cluster: Arc<Cluster>,
    broker: Arc<dyn Broker>,
    task: ClusterTask,
    switchboard: Switchboard<Operator>,
    /// What serves its directory.
    engine: Option<Box<dyn DirectoryEngine>>,
}

/// The directory of a node, and what serves it.
pub struct Opened {
    /// The directory.
    pub choice: Choice,
    /// What serves it, if anything has to.
    pub engine: Option<Box<dyn DirectoryEngine>>,
}

/// What serves the directory of one node. Dropped, it says nothing more.
pub trait DirectoryEngine: Send {
    /// Says goodbye and ends.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Something that opens directories of one kind for the nodes of one cluster.
pub trait Directories: Send + Sync {
    /// Opens that of a node, whose lease is this long.
    fn open(&self, me: NodeId, lease: Duration) -> Pin<Box<dyn Future<Output = Opened> + Send + '_>>;
}

/// The directory that nodes have if nothing else is chosen.
pub struct Replicated;

impl Directories for Replicated {
    fn open(&self, _: NodeId, _: Duration) -> Pin<Box<dyn Future<Output = Opened> + Send + '_>> {
        Box::pin(std::future::ready(Opened { choice: Choice::Replicated, engine: None }))
    }
}

/// The directory by the ring.
pub struct Ringed;

impl Directories for Ringed {
    fn open(&self, _: NodeId, _: Duration) -> Pin<Box<dyn Future<Output = Opened> + Send + '_>> {
        let choice = Choice::Ringed(tieline_core::ring::RingHash::default());
        Box::pin(std::future::ready(Opened { choice, engine: None }))
    }
}

/// Takes a seat at a fabric, under a name.
pub(super) async fn sit(fabric: &dyn Fabric, name: &str, lease: Duration) -> Seat {
    sit_with(fabric, &Replicated, name, lease).await
}

/// The same, with another directory.
pub(super) async fn sit_with(
    fabric: &dyn Fabric,
    directories: &dyn Directories,
    name: &str,
    lease: Duration,
) -> Seat {
    sit_at(fabric, directories, name, (BEAT, lease)).await
}

/// The same, with another time between two beats.
pub(super) async fn sit_at(
    fabric: &dyn Fabric,
    directories: &dyn Directories,
    name: &str,
    (beat, lease): (Duration, Duration),
) -> Seat {
    let settings = NodeSettings {
        name: NodeName::new(name).expect("names of tests keep the rule"),
        shards: 1,
        limits: Limits::default(),
        switchboard: Settings::default(),
        keys: Arc::new(Keys::new(["a key of the suite"])),
        hubs: Vec::new(),
        presence: tieline_core::presence::PresenceRules::default(),
    };
    let (node, switchboard) = Node::start(settings).expect("a node starts");
    let id = node.id().clone();
    let times = ClusterTimes { beat, lease, ..ClusterTimes::default() };
    node.describe(Registration { client_url: url(name), ..Registration::default() });
    let Opened { choice, engine } = directories.open(id.clone(), lease).await;
    let settings = ClusterSettings { times, directory: choice, ..ClusterSettings::default() };
    let mut joined = None;
    let connect = async |inbound| {
        let broker = fabric.join(id.clone(), inbound).await;
        joined = Some(Arc::clone(&broker));
        Ok::<_, Infallible>(broker)
    };
    let Ok((cluster, task)) = Cluster::start(node, settings, connect).await;
    let broker = joined.expect("a cluster that started has its broker");
    Seat { id, cluster, broker, task, switchboard, engine }
}

/// Takes seats under these names, each of which sees all others.
pub(super) async fn sit_together(fabric: &dyn Fabric, names: &[&str], lease: Duration) -> Vec<Seat> {
    sit_together_with(fabric, &Replicated, names, lease).await
}

/// The same, with other directories.
pub(super) async fn sit_together_with(
    fabric: &dyn Fabric,
    directories: &dyn Directories,
    names: &[&str],
    lease: Duration,
) -> Vec<Seat> {
    let mut seats: Vec<Seat> = Vec::new();
    for name in names {
        seats.push(sit_with(fabric, directories, name, lease).await);
    }
    let refs: Vec<&Seat> = seats.iter().collect();
    all_see_each_other(&refs).await;
    // Views of the registry are ahead of where messages go.
    let others = |seat: &Seat| seat.cluster.peers().len() == names.len() - 1;
    eventually("all to send to each other", || seats.iter().all(others)).await;
    seats
}

/// Waits until each sees exactly the others.
pub(super) async fn all_see_each_other(seats: &[&Seat]) {
    for seat in seats {
        let others: Vec<&NodeId> = seats.iter().map(|other| &other.id).filter(|id| **id != seat.id).collect();
        seat.until_members(&others).await;
    }
}

/// Where clients of the node of this name connect.
pub(super) fn url(name: &str) -> String {
    format!("ws://{name}.example")
}

impl Seat {
    pub(super) fn registry(&self) -> &Arc<dyn Registry> {
        self.cluster.registry()
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(super) fn directory(&self) -> &Arc<dyn Directory> {
        self.cluster.directory()
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.id.incarnation
    }

    /// Waits until the members are as wished, and gives them.
    pub(super) async fn until(&self, wish: &str, is_met: impl Fn(&[Member]) -> bool) -> SharedView {
        let mut view = self.registry().view();
        let waiting = async {
            let found = view.wait_for(|view| is_met(&view.members)).await;
            Arc::clone(&found.expect("the registry outlives its seat"))
        };
        if let Ok(found) = timeout(PATIENCE, waiting).await {
            return found;
        }
        panic!("{} waited in vain: {wish}; it sees {:?}", self.id, self.registry().view().borrow());
    }

    /// Waits until exactly these are members.
    pub(super) async fn until_members(&self, wanted: &[&NodeId]) -> SharedView {
        let is_met = |members: &[Member]| {
            members.len() == wanted.len() && members.iter().all(|member| wanted.contains(&&member.id))
        };
        self.until(&format!("{wanted:?} to be the members"), is_met).await
    }

    /// Says goodbye and stops.
    pub(super) async fn leave(self) {
        if let Some(engine) = &self.engine {
            engine.close().await;
        }
        self.end().await;
    }

    async fn end(self) {
        self.task.stop().await;
        self.switchboard.stop(1001, "The suite is over.").expect("no shard failed");
    }

    /// Is gone without a word.
    pub(super) async fn die(mut self) {
        self.engine = None;
        self.broker.close();
        self.end().await;
    }
}

/// Looks again and again until something is so.
///
/// # Panics
/// When it is not within [`PATIENCE`].
pub(super) async fn eventually(wish: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "it never came to be so: {wish}");
        tokio::task::yield_now().await;
    }
}

/// All leave.
pub(super) async fn leave_all(seats: Vec<Seat>) {
    for seat in seats {
        seat.leave().await;
    }
}
