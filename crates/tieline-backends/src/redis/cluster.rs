//! A Redis Cluster: sharded pub/sub, so that each master carries the channels whose slots it holds, and no more.
//!
//! ```text
//!            ┌─ lane ⇄ master that holds what goes to all     subscribed
//! queue ─────┼─ lane ⇄ master that holds this node's channel  subscribed
//!            └─ lane ⇄ every other master                     published to
//! ```
//!
//! A *lane* is one connection, which is run like that to a single server (`medium/stream.rs`), with a queue and canaries of its own. A node is
//! *away* while it lacks one of the two lanes that it is subscribed over. Another master's death stops what goes to the
//! nodes whose channels that one holds, and nothing else: its lane is opened again within the session, to whoever holds the slots then.
//! What is sent there meanwhile is lost, and its number tells that it is.
//!
//! A master that is replaced, or slots that move, are found by the map of the cluster, which any node of it tells. It is read whenever
//! a lane ends: connections break, canaries fail, and a server that does not hold a channel any more answers `MOVED` or takes the
//! subscription back.
//!
//! Channels to nodes are spread over all masters by their names. What goes to all is one channel of one master, so that one carries
//! most. Two masters keep no order between them: nor does this broker between what goes to all and to one.
//!
//! Tested by the conformance suite on three masters with replicas, and with masters that are killed.

mod lane;
mod map;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tieline_core::broker::{Inbound, To};
use tieline_proto::NodeId;
use tokio::time::{sleep, timeout};

use super::channels::{Channels, Kind as ChannelKind};
use super::connection::Dialler;
use super::link::Link;
use super::resp::Answer;
use super::several::{Kind, RedisSeveralAddress};
use super::{RedisError, RedisSettings, Trouble, check_cluster};
use crate::hosts::Host;
use crate::medium::stream::{Ended, Signs};
use crate::medium::{Engine, Medium, Pace, Queue};
use crate::pause::pause;
use crate::queue::{Batch, cost};
use lane::{Duty, Lane};
use map::{Map, slot};

/// How long one node may take to tell the map, and one master that this node is not subscribed at to be connected.
const BESIDE: Duration = Duration::from_millis(500);

/// The engine of `redis+cluster://`.
pub struct Shards {
    pace: Pace,
    channels: Arc<Channels>,
    /// The slot of what goes to all.
    all: u16,
    address: RedisSeveralAddress,
    /// For any node of the cluster.
    dialler: Dialler,
    /// The nodes of the last map, who are asked for the next one before those that the URL names.
    known: Mutex<Vec<Host>>,
}

/// A node's way to the other nodes through a Redis Cluster. It stops when it is dropped.
pub type RedisClusterBroker = Medium<Shards>;

impl Medium<Shards> {
    /// Asks for the map, connects to the masters and subscribes. `inbound` hears of envelopes from now on, from a task of the runtime this is
    /// called in.
    ///
    /// # Errors
    /// When the settings are wrong, no node of the cluster is there, or one refuses this node, at the latest after
    /// [`Pace::connect`].
    pub async fn start(
        settings: RedisSettings<RedisSeveralAddress>,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<RedisClusterBroker, RedisError> {
        let RedisSettings { cluster, address, pace } = settings;
        check_cluster(&cluster)?;
        if address.kind != Kind::Cluster {
            return Err(RedisError::Url("there is no cluster in it"));
        }
        let server = address.server();
        let channels = Channels::new(&cluster, node.incarnation, ChannelKind::Sharded);
        let shards = Shards {
            pace: pace.clone(),
            all: slot(&[channels.all().as_bytes()]),
            channels: Arc::new(channels),
            dialler: Dialler::new(address.of(&address.hosts[0]), format!("tieline-{}", node.name))?,
            address,
            known: Mutex::default(),
        };
        Medium::begin(shards, pace, inbound).await.map_err(|trouble| RedisError::Server { server, trouble })
    }
}

/// Lanes to all masters that could be reached, those of this node's channels among them.
pub struct Lanes {
    map: Map,
    lanes: Vec<Lane>,
}

/// What looking for masters without a lane has found.
type Found<'a> = Pin<Box<dyn Future<Output = (Option<Map>, Vec<Lane>)> + Send + 'a>>;

impl Shards {
    /// Asks one node after the other for the map.
    async fn map(&self) -> Result<Map, Trouble> {
        let mut nodes = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        nodes.extend(
            self.address.hosts.iter().filter(|host| !nodes.contains(host)).cloned().collect::<Vec<_>>(),
        );
        let mut trouble = Trouble::Silent;
        for node in nodes {
            match timeout(BESIDE, self.ask(&node)).await {
                Ok(Ok(map)) => {
                    *self.known.lock().unwrap_or_else(PoisonError::into_inner) = map.nodes.clone();
                    return Ok(map);
                }
                // That one is not there is what a list is for; anything else is told.
                Ok(Err(Trouble::Connect(error))) if !matches!(trouble, Trouble::Silent) => drop(error),
                Ok(Err(error)) => trouble = error,
                Err(_) => {}
            }
        }
        Err(trouble)
    }

    async fn ask(&self, node: &Host) -> Result<Map, Trouble> {
        let dialler = Arc::new(self.dialler.to(node)?);
        let (mut link, greetings) = Link::connect(&dialler).await?;
        link.say(&[b"CLUSTER", b"SLOTS"]);
        link.send().await?;
        let map = link.answers(greetings + 1, |answers| {
            match answers.iter().find(|answer| matches!(answer, Answer::Refused(_))) {
                Some(Answer::Refused(reason)) => Err(dialler.refused(reason)),
                _ => answers.last().and_then(|answer| Map::read(answer, node)).ok_or(Trouble::Garbage),
            }
        });
        map.await?
    }

    /// What a lane to this master is for.
    fn duty(&self, map: &Map, host: &Host) -> Duty {
        let holds = |channel: &str| map.master(slot(&[channel.as_bytes()])) == Some(host);
        Duty { all: holds(self.channels.all()), own: holds(self.channels.own()) }
    }

    async fn open(&self, host: &Host, duty: Duty, inbound: &dyn Inbound) -> Result<Lane, Trouble> {
        Lane::open(Arc::new(self.dialler.to(host)?), host.clone(), duty, &self.channels, inbound).await
    }

    /// Opens lanes that are only published over to masters that have none, as far as they can be reached at once.
    async fn open_beside(&self, map: &Map, has: &[Host], inbound: &dyn Inbound) -> Vec<Lane> {
        let mut lanes = Vec::new();
        for host in map.masters().into_iter().filter(|host| !has.contains(host)) {
            if let Ok(Ok(lane)) = timeout(BESIDE, self.open(host, Duty::default(), inbound)).await {
                lanes.push(lane);
            }
        }
        lanes
    }

    /// Looks again, after a pause.
    async fn look(&self, has: Vec<Host>, failures: u32, inbound: &dyn Inbound) -> (Option<Map>, Vec<Lane>) {
        sleep(pause(self.pace.retry_min, self.pace.retry_max, failures)).await;
        let Ok(map) = self.map().await else { return (None, Vec::new()) };
        let lanes = self.open_beside(&map, &has, inbound).await;
        (Some(map), lanes)
    }
}

/// A lane that runs.
struct Running {
    host: Host,
    duty: Duty,
    queue: Arc<Queue<Signs>>,
}

impl Engine for Shards {
    type Connection = Lanes;
    type Words = Signs;
    type Fault = Trouble;

    const SERVER: &'static str = "Redis Cluster";

    const ORDERS_CHANNELS: bool = false;

    fn server(&self) -> String {
        self.address.server()
    }

    fn strays(&self) -> Vec<(&'static str, u64)> {
        self.channels.strays()
    }

    async fn dial(&self, inbound: &dyn Inbound) -> Result<Lanes, Trouble> {
        let map = self.map().await?;
        let mut lanes = Vec::new();
        for channel in [self.channels.all(), self.channels.own()] {
            let host = map.master(slot(&[channel.as_bytes()])).ok_or(Trouble::Unheld)?;
            if !lanes.iter().any(|lane: &Lane| lane.host == *host) {
                lanes.push(self.open(host, self.duty(&map, host), inbound).await?);
            }
        }
        let has: Vec<Host> = lanes.iter().map(|lane| lane.host.clone()).collect();
        let beside = self.open_beside(&map, &has, inbound).await;
        lanes.extend(beside);
        Ok(Lanes { map, lanes })
    }

    async fn run(&self, connection: Lanes, queue: &Arc<Queue<Signs>>, inbound: &dyn Inbound) -> Trouble {
        let Lanes { mut map, lanes } = connection;
        let mut running: Vec<Running> = Vec::new();
        let mut ends = FuturesUnordered::new();
        let begin = |lane: Lane, running: &mut Vec<Running>| {
            let queue = Arc::new(Queue::new(self.pace.queue));
            let (host, duty) = (lane.host.clone(), lane.duty);
            running.push(Running { host: host.clone(), duty, queue: Arc::clone(&queue) });
            let run = async move { (host, lane.run(&self.pace, &queue, &self.channels, inbound).await) };
            Box::pin(run) as Pin<Box<dyn Future<Output = (Host, Trouble)> + Send + '_>>
        };
        for lane in lanes {
            ends.push(begin(lane, &mut running));
        }
        let mut looking: Option<Found<'_>> = None;
        let mut failures = 0;
        // Whether lanes or the map have changed.
        let mut changed = true;
        loop {
            if std::mem::take(&mut changed) && looking.is_none() {
                let has: Vec<Host> = running.iter().map(|lane| lane.host.clone()).collect();
                if map.masters().into_iter().any(|host| !has.contains(host)) {
                    looking = Some(Box::pin(self.look(has, failures, inbound)));
                    failures += 1;
                }
            }
            tokio::select! {
                batch = queue.take(Batch::default()) => {
                    let mut handed_on = 0;
                    for (to, envelope) in batch.envelopes {
                        handed_on += cost(envelope.len());
                        self.hand_on(&map, &running, to, envelope);
                    }
                    queue.written(handed_on);
                    if batch.last {
                        running.iter().for_each(|lane| lane.queue.finish());
                        while ends.next().await.is_some() {}
                        return Ended::Left.into();
                    }
                }
                Some((host, trouble)) = ends.next() => {
                    changed = true;
                    let place = running.iter().position(|lane| lane.host == host);
                    let ended = running.swap_remove(place.expect("what ended was running"));
                    if ended.duty != Duty::default() {
                        return trouble;
                    }
                    tracing::warn!(server = %host, %trouble, "A master of the Redis Cluster is away.");
                }
                (newer, found) = async { match &mut looking { Some(looking) => looking.await, None => std::future::pending().await } } => {
                    (looking, changed) = (None, true);
                    if let Some(newer) = newer {
                        let is_as_before = |lane: &Running| self.duty(&newer, &lane.host) == lane.duty;
                        if !running.iter().all(is_as_before) {
                            return Trouble::Moved;
                        }
                        map = newer;
                    }
                    for lane in found {
                        tracing::info!(server = %lane.host, "A master of the Redis Cluster is there.");
                        failures = 0;
                        // Its duties are known only now.
                        if self.duty(&map, &lane.host) != Duty::default() {
                            return Trouble::Moved;
                        }
                        ends.push(begin(lane, &mut running));
                    }
                }
            }
        }
    }
}

impl Shards {
    /// Puts an envelope into the queue of its master's lane. Without one, or without room, it is lost, and its number tells that.
    fn hand_on(&self, map: &Map, running: &[Running], to: To, envelope: Arc<[u8]>) {
        let slot = match to {
            To::All => self.all,
            To::One(node) => {
                let (prefix, digits) = self.channels.one(node);
                slot(&[prefix.as_bytes(), &digits])
            }
        };
        let lane = map.master(slot).and_then(|host| running.iter().find(|lane| lane.host == *host));
        let taken = lane.map(|lane| lane.queue.push(envelope.len(), (to, envelope)));
        if taken != Some(Ok(())) {
            tracing::debug!(slot, "An envelope has no way to its master.");
        }
    }
}
