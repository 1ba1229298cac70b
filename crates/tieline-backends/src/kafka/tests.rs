//! The broker against real servers: the conformance suite, outages, and whatever servers, a network or a URL can have wrong.
//!
//! Servers are private ones, kept by xtask. `TIELINE_TEST_KAFKA` names another one for the suite; what kills a server, or needs its second and third port,
//! is left out then, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tieline_core::broker::{Broker, Inbound};
use tieline_proto::NodeId;
use tokio::sync::Mutex;
use xtask::{Engine, left_out};

use super::{KafkaAddress, KafkaBroker, KafkaError, KafkaSettings};
use crate::conformance::{self, Fabric, Joining, Recorder, fresh_node, outage};

mod beginnings;
mod topics;

/// Whose turn it is: one server at a time, for each is heavy, and how soon things happen is part of what is tested.
static TURN: Mutex<()> = Mutex::const_new(());

/// A cluster's name that no other test, and no other run on the same server, has.
fn fresh_cluster() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("tests {}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The settings of the tests: a cluster of its own, quick canaries, and patience with a busy machine.
fn settings(url: &str) -> KafkaSettings {
    KafkaSettings {
        canary: Duration::from_millis(500),
        connect: Duration::from_secs(20),
        keep: Duration::from_secs(120),
        ..KafkaSettings::new(&fresh_cluster(), KafkaAddress::parse(url).unwrap())
    }
}

/// Whether the server is ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    let is_named = std::env::var_os("TIELINE_TEST_KAFKA").is_some();
    if is_named {
        let why = "TIELINE_TEST_KAFKA names a server that was not started here";
        left_out(&format!("the Kafka broker: {test}"), why);
    }
    !is_named
}

/// Nodes of one cluster on one server.
struct Cluster(KafkaSettings);

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = KafkaBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

async fn start_with(settings: KafkaSettings) -> Result<(KafkaBroker, Arc<Recorder>), KafkaError> {
    let recorder = Recorder::new();
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    Ok((KafkaBroker::start(settings, &fresh_node("n"), inbound).await?, recorder))
}

/// A client that is no node.
fn stranger(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url.strip_prefix("kafka://").unwrap());
    config
}

/// What is on a server: its topics with the number of their partitions, and its groups.
fn inventory(url: &str) -> (Vec<(String, usize)>, Vec<String>) {
    let consumer: BaseConsumer = stranger(url).create().unwrap();
    let limit = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(None, limit).unwrap();
    let topics = metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len()));
    let groups = consumer.fetch_group_list(None, limit).unwrap();
    (topics.collect(), groups.groups().iter().map(|group| group.name().to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_and_leaves_nothing_of_its_nodes() {
    let _turn = TURN.lock().await;
    let engine = Engine::kafka().start().unwrap();
    conformance::broker(|| Cluster(settings(engine.url()))).await;
    conformance::heartbeat::suite(|| Cluster(settings(engine.url()))).await;
    conformance::directory::suite(|| Cluster(settings(engine.url()))).await;
    let (topics, groups) = inventory(engine.url());
    assert!(topics.len() > 10 && groups.is_empty(), "{topics:?}, {groups:?}");
    for (topic, partitions) in topics.into_iter().filter(|(topic, _)| topic.starts_with("tieline-")) {
        assert_eq!(partitions, if topic.ends_with("-all") { 1 } else { 64 }, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_leaves_no_gap() {
    let _turn = TURN.lock().await;
    if is_private("a killed server") {
        let mut server = Engine::kafka().start().unwrap();
        let cluster = Cluster(settings(server.url()));
        outage::server_killed_and_back(&cluster, &mut server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_leaves_no_gap() {
    let _turn = TURN.lock().await;
    if is_private("a server that stands still") {
        let mut server = Engine::kafka().start().unwrap();
        let cluster = Cluster(settings(server.url()));
        outage::server_stands_still(&cluster, &mut server).await;
    }
}
