//! The broker against real servers: the conformance suite, outages, and whatever a server, its users or a URL can have wrong.
//!
//! Servers are private ones, kept by xtask, and few, because they take long to start. `TIELINE_TEST_ROCKETMQ` names another one for the
//! suite; what kills a server is left out then, and says so.

use std::sync::Arc;
use std::time::Duration;

use tieline_core::broker::{Broker, Inbound};
use tieline_proto::NodeId;
use xtask::Engine;

use super::{RocketMqAddress, RocketMqBroker, RocketMqSettings};
use crate::conformance::private::{self, fresh_cluster};
use crate::conformance::{self, Fabric, Joining, outage};
use crate::medium::{Pace, limits};

mod beginnings;
mod ways;

/// The settings of the tests: a cluster of its own, quick canaries, and patience at the start. A server that has just been started takes
/// seconds for its first topic on a busy machine.
fn settings(url: &str) -> RocketMqSettings {
    let settings = RocketMqSettings::new(&fresh_cluster(), RocketMqAddress::parse(url).unwrap());
    let pace = Pace { canary: Duration::from_millis(300), connect: Duration::from_secs(9), ..settings.pace };
    RocketMqSettings { pace, ..settings }
}

/// Whether the server is ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    private::is_private("TIELINE_TEST_ROCKETMQ", "the RocketMQ broker", test)
}

/// Nodes of one cluster on one server.
struct Cluster(RocketMqSettings);

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = RocketMqBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_and_so_do_registry_and_directory_over_it() {
    let engine = Engine::rocketmq().start().unwrap();
    conformance::broker(|| Cluster(settings(engine.url()))).await;
    conformance::heartbeat::suite(|| Cluster(settings(engine.url()))).await;
    conformance::directory::suite(|| Cluster(settings(engine.url()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_server_that_stands_still_and_one_that_is_killed() {
    if is_private("a server that stands still or is killed") {
        let mut server = Engine::rocketmq().start().unwrap();
        let url = server.url().to_owned();
        outage::server_stands_still(&Cluster(settings(&url)), &mut server).await;
        outage::server_killed_and_back(&Cluster(settings(&url)), &mut server).await;
        let settings = settings(&url);
        let begin = async || beginnings::start(settings.clone()).await.unwrap();
        limits::a_queue_is_bounded_and_forgotten(&mut server, begin, limits::QUEUE_AND_SOCKETS).await;
        limits::it_stops_while_its_server_is_away(&mut server, begin).await;
    }
}
