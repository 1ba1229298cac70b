//! The broker against real servers: the conformance suite, outages, and whatever a server, a network or a URL can have wrong.
//!
//! Servers are private ones, kept by xtask. `TIELINE_TEST_REDIS` names another one for the suite; what kills a server, or needs
//! one with passwords or TLS, is left out then, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tieline_core::broker::{Broker, Inbound};
use tieline_proto::NodeId;
use xtask::{Engine, left_out};

use super::{RedisAddress, RedisBroker, RedisSettings};
use crate::conformance::{self, Fabric, Joining, outage};
use crate::medium::Pace;

mod beginnings;

/// The settings of the tests: a cluster of its own, and quick canaries.
fn settings(url: &str) -> RedisSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another run may use the same server at the same time.
    let cluster = format!("tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    RedisSettings {
        pace: Pace { canary: Duration::from_millis(300), ..Pace::default() },
        ..RedisSettings::new(&cluster, RedisAddress::parse(url).unwrap())
    }
}

/// Whether the server is ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    let is_named = std::env::var_os("TIELINE_TEST_REDIS").is_some();
    if is_named {
        left_out(
            &format!("the Redis broker: {test}"),
            "TIELINE_TEST_REDIS names a server that was not started here",
        );
    }
    !is_named
}

/// Nodes of one cluster on one server.
struct Cluster(RedisSettings);

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = RedisBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::redis().start().unwrap();
    conformance::broker(|| Cluster(settings(engine.url()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_over_it_passes_its_suite() {
    let engine = Engine::redis().start().unwrap();
    conformance::heartbeat::suite(|| Cluster(settings(engine.url()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_over_it_passes_its_suite() {
    let engine = Engine::redis().start().unwrap();
    conformance::directory::suite(|| Cluster(settings(engine.url()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_server_that_is_killed() {
    if is_private("a killed server") {
        let mut server = Engine::redis().start().unwrap();
        let cluster = Cluster(settings(server.url()));
        outage::server_killed_and_back(&cluster, &mut server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_server_that_stands_still() {
    if is_private("a server that stands still") {
        let mut server = Engine::redis().start().unwrap();
        let cluster = Cluster(settings(server.url()));
        outage::server_stands_still(&cluster, &mut server).await;
    }
}
