//! The broker against real servers: the conformance suite, outages, and whatever a server, a network or a URL can have wrong.
//!
//! Servers are private ones, kept by xtask, and few, because each takes seconds to start. `TIELINE_TEST_RABBITMQ` names another one
//! for the suite; what kills or alarms a server, or asks it questions, is left out then, and says so.

use std::sync::Arc;
use std::time::Duration;

use tieline_core::broker::{Broker, Inbound, To};
use tieline_proto::NodeId;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use xtask::Engine;
use xtask::engine::rabbitmq::control;

use super::{RabbitMqAddress, RabbitMqBroker, RabbitMqSettings};
use crate::conformance::private::{self, fresh_cluster};
use crate::conformance::{self, Fabric, Joining, PATIENCE, Recorder, fresh_node, outage};
use crate::medium::Pace;

mod beginnings;
mod limits;

/// Whose turn it is: one server at a time, for each is heavy, and how soon things happen is part of what is tested.
static TURN: Mutex<()> = Mutex::const_new(());

/// The settings of the tests: a cluster of its own, and quick canaries.
fn settings(url: &str) -> RabbitMqSettings {
    let settings = RabbitMqSettings::new(&fresh_cluster(), RabbitMqAddress::parse(url).unwrap());
    RabbitMqSettings { pace: Pace { canary: Duration::from_millis(300), ..Pace::default() }, ..settings }
}

/// A server that is ours to hurt; if there is none, that is said.
fn private(test: &str) -> Option<Engine> {
    let is_private = private::is_private("TIELINE_TEST_RABBITMQ", "the RabbitMQ broker", test);
    is_private.then(|| Engine::rabbitmq().start().unwrap())
}

async fn start_with(settings: RabbitMqSettings) -> (RabbitMqBroker, Arc<Recorder>, NodeId) {
    let (recorder, node) = (Recorder::new(), fresh_node("n"));
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    (RabbitMqBroker::start(settings, &node, inbound).await.unwrap(), recorder, node)
}

/// The queues of the server whose names begin so.
fn queues(engine: &Engine, beginning: &str) -> Vec<String> {
    let listed = control(engine, &["list_queues", "--no-table-headers", "name"]).unwrap();
    listed.lines().filter(|name| name.starts_with(beginning)).map(str::to_owned).collect()
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Nodes of one cluster on one server.
struct Cluster(RabbitMqSettings);

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = RabbitMqBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_and_leaves_nothing_behind() {
    let _turn = TURN.lock().await;
    let engine = Engine::rabbitmq().start().unwrap();
    // With the canaries that nodes have: a busy machine's server is behind for a while.
    let new = || Cluster(RabbitMqSettings { pace: Pace::default(), ..settings(engine.url()) });
    conformance::broker(new).await;
    conformance::heartbeat::suite(new).await;
    conformance::directory::suite(new).await;
    names_keep_clusters_apart(engine.url()).await;
    if std::env::var_os("TIELINE_TEST_RABBITMQ").is_none() {
        // What has closed is gone as soon as the server has heard of it.
        until("nothing is left", || queues(&engine, "tieline.").is_empty()).await;
        let exchanges = control(&engine, &["list_exchanges", "--no-table-headers", "name"]).unwrap();
        assert!(!exchanges.contains("tieline"), "{exchanges}");
    }
}

/// Whatever a cluster is called, it is a world of its own.
async fn names_keep_clusters_apart(url: &str) {
    let run = fresh_cluster();
    let endings = ["", ".all", ".one", "*", "#", "%2Eall", "~", "\u{0}", "ä"].map(str::to_owned);
    let long = ["1", "2"].map(|ending| "long".repeat(50) + ending);
    let mut nodes = Vec::new();
    for ending in endings.iter().chain(&long) {
        let named = RabbitMqSettings { cluster: format!("{run}{ending}"), ..settings(url) };
        let [one, other] = [start_with(named.clone()).await, start_with(named).await];
        nodes.push((ending, one, other));
    }
    for (ending, (one, ..), (_, _, other)) in &nodes {
        for to in [To::All, To::One(other.incarnation)] {
            assert_eq!(one.send(to, &Arc::from(ending.as_bytes())), Ok(()));
        }
    }
    for (ending, (_, one, _), (_, other, _)) in &nodes {
        assert_eq!(other.until_envelopes(2).await, [ending.as_bytes(); 2]);
        assert_eq!(one.envelopes().len(), 0);
    }
    for (_, (one, ..), (other, ..)) in nodes {
        for broker in [one, other] {
            broker.close();
            broker.closed().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_server_that_is_killed_and_one_that_stands_still() {
    let _turn = TURN.lock().await;
    if let Some(mut server) = private("a server that is killed or stands still") {
        let cluster = Cluster(settings(server.url()));
        outage::server_killed_and_back(&cluster, &mut server).await;
        let cluster = Cluster(settings(server.url()));
        outage::server_stands_still(&cluster, &mut server).await;
    }
}
