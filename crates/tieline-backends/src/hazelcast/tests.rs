//! The broker against real members: the conformance suite, outages, and whatever a member, a network or a URL can have wrong.
//!
//! Members are private ones, kept by xtask. `TIELINE_TEST_HAZELCAST` names others for the suite; what kills a member is left out
//! then, and says so.

use std::sync::Arc;
use std::time::Duration;

use tieline_core::broker::{Broker, Inbound};
use tieline_proto::NodeId;
use xtask::Engine;

use super::{HazelcastAddress, HazelcastBroker, HazelcastSettings};
use crate::conformance::private::{self, fresh_cluster};
use crate::conformance::{self, Fabric, Joining, outage};
use crate::medium::Pace;

mod beginnings;
mod members;
mod official;

/// The settings of the tests: a cluster of its own, and quick canaries.
fn settings(url: &str) -> HazelcastSettings {
    let settings = HazelcastSettings::new(&fresh_cluster(), HazelcastAddress::parse(url).unwrap());
    let pace = Pace { canary: Duration::from_millis(500), ..settings.pace };
    HazelcastSettings { pace, ..settings }
}

/// Whether the members are ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    private::is_private("TIELINE_TEST_HAZELCAST", "the Hazelcast broker", test)
}

/// Nodes of one cluster on one member.
struct Cluster(HazelcastSettings);

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = HazelcastBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::hazelcast().start().unwrap();
    conformance::broker(|| Cluster(settings(engine.url()))).await;
    conformance::heartbeat::suite(|| Cluster(settings(engine.url()))).await;
    conformance::directory::suite(|| Cluster(settings(engine.url()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_member_that_is_killed() {
    if is_private("a killed member") {
        let mut server = Engine::hazelcast().start().unwrap();
        let cluster = Cluster(settings(server.url()));
        outage::server_killed_and_back(&cluster, &mut server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_member_that_stands_still() {
    if is_private("a member that stands still") {
        let mut server = Engine::hazelcast().start().unwrap();
        let cluster = Cluster(settings(server.url()));
        outage::server_stands_still(&cluster, &mut server).await;
    }
}
