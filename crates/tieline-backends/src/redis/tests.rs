//! The broker against real servers: the conformance suite, outages, and whatever a server, a network or a URL can have wrong.
//!
//! Servers are private ones, kept by xtask. `TIELINE_TEST_REDIS` names another one for the suite; what kills a server, or needs
//! one with passwords or TLS, is left out then, and says so.

use std::sync::Arc;
use std::time::Duration;

use tieline_core::broker::{Broker, Inbound};
use tieline_proto::NodeId;
use xtask::Engine;

use super::{RedisAddress, RedisBroker, RedisSettings};
use crate::conformance::private::{self, fresh_cluster};
use crate::conformance::{self, Fabric, Joining, outage};
use crate::medium::Pace;

mod beginnings;

/// The settings of the tests: a cluster of its own, and quick canaries.
fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        pace: Pace { canary: Duration::from_millis(300), ..Pace::default() },
        ..RedisSettings::new(&fresh_cluster(), RedisAddress::parse(url).unwrap())
    }
}

/// Whether the server is ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    private::is_private("TIELINE_TEST_REDIS", "the Redis broker", test)
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
