//! The mesh over real sockets on this machine: the conformance suite, and what only a mesh can get wrong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tieline_core::broker::{Broker, Inbound, NotTaken, To};
use tieline_proto::NodeId;

use super::{MeshBroker, MeshSettings, Refusal, Secret};
use crate::conformance::{self, Fabric, Heard, Joining, PATIENCE, Recorder, check_turns, fresh_node};

mod pairs;
mod strangers;

/// Any free port of this machine.
fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The settings of the tests: a secret, and quick pauses.
fn settings(seeds: &[SocketAddr]) -> MeshSettings {
    MeshSettings {
        seeds: seeds.iter().map(ToString::to_string).collect(),
        secret: Some(Secret::new("the secret of the tests").unwrap()),
        redial_min: Duration::from_millis(5),
        redial_max: Duration::from_millis(50),
        ..MeshSettings::new("tests", anywhere())
    }
}

/// A started node.
struct Peer {
    node: NodeId,
    broker: MeshBroker,
    recorder: Arc<Recorder>,
    address: SocketAddr,
}

fn start(name: &str, settings: MeshSettings) -> Peer {
    start_as(fresh_node(name), settings)
}

fn start_as(node: NodeId, settings: MeshSettings) -> Peer {
    let recorder = Recorder::new();
    let (broker, address) =
        MeshBroker::start(settings, node.clone(), Arc::clone(&recorder) as Arc<dyn Inbound>).unwrap();
    Peer { node, broker, recorder, address }
}

impl Peer {
    /// Waits until this and the other reach each other.
    async fn meets(&self, other: &Peer) {
        self.recorder.until_reachable(other.node.incarnation).await;
        other.recorder.until_reachable(self.node.incarnation).await;
    }

    fn send(&self, to: &Peer, bytes: &[u8]) -> Result<(), NotTaken> {
        self.broker.send(To::One(to.node.incarnation), &bytes.into())
    }
}

/// Nodes that know the ones before them as seeds.
#[derive(Default)]
struct Line(Mutex<Vec<SocketAddr>>);

impl Fabric for Line {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let mut addresses = self.0.lock().unwrap();
            let (broker, address) = MeshBroker::start(settings(&addresses), node, inbound).unwrap();
            addresses.push(address);
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::broker(Line::default).await;
}

#[tokio::test]
async fn the_registry_over_it_passes_its_suite() {
    conformance::heartbeat::suite(Line::default).await;
}

#[tokio::test]
async fn the_directory_over_it_passes_its_suite() {
    conformance::directory::suite(Line::default).await;
}
