//! The broker against real servers: the conformance suite, outages, and whatever a server, a network or a URL can have wrong.
//!
//! Servers are private ones, kept by xtask. `TIELINE_TEST_NATS` names another one for the suite; what kills a server, or needs one
//! that is configured in its own way, is left out then, and says so.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_core::broker::{Broker, Inbound, To};
use tieline_proto::NodeId;
use xtask::Engine;
use xtask::engine::nats::Nats;

use super::{NatsAddress, NatsBroker, NatsError, NatsSettings, Trouble};
use crate::conformance::private::{self, fresh_cluster, refused};
use crate::conformance::{self, Fabric, Heard, Joining, Recorder, fresh_node, outage};
use crate::medium::Pace;

mod beginnings;
mod proofs;
mod servers;

/// The settings of the tests: quick canaries.
fn settings(cluster: &str, url: &str) -> NatsSettings {
    let pace = Pace { canary: Duration::from_millis(300), ..Pace::default() };
    NatsSettings { pace, ..NatsSettings::new(cluster, NatsAddress::parse(url).unwrap()) }
}

/// Whether servers are ours to configure and to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    private::is_private("TIELINE_TEST_NATS", "the NATS broker", test)
}

/// A server whose configuration has these lines.
fn configured(lines: impl Into<String>) -> Engine {
    Engine::of(Nats::with(lines.into())).start().unwrap()
}

/// Nodes of one cluster on one server.
struct Cluster(NatsSettings);

impl Cluster {
    fn on(engine: &Engine) -> Cluster {
        Cluster(settings(&fresh_cluster(), engine.url()))
    }
}

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = NatsBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

async fn start(url: &str) -> Result<(NatsBroker, Arc<Recorder>), NatsError> {
    start_with(settings(&fresh_cluster(), url)).await
}

async fn start_with(settings: NatsSettings) -> Result<(NatsBroker, Arc<Recorder>), NatsError> {
    let recorder = Recorder::new();
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    Ok((NatsBroker::start(settings, &fresh_node("n"), inbound).await?, recorder))
}

/// What is wrong with a server, found in time.
async fn trouble(url: &str) -> Trouble {
    let error = refused(async || start(url).await).await;
    let NatsError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

/// Publishes as somebody who is no node, and returns when the server has taken it.
fn publish(url: &str, subject: &str, payload: &[u8]) -> io::Result<()> {
    let stream = TcpStream::connect(url.strip_prefix("nats://").unwrap())?;
    let mut commands =
        format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n", payload.len()).into_bytes();
    commands.extend_from_slice(payload);
    commands.extend_from_slice(b"\r\nPING\r\n");
    (&stream).write_all(&commands)?;
    for line in BufReader::new(stream).lines() {
        match line? {
            line if line == "PONG" => return Ok(()),
            line if line.starts_with("INFO") => {}
            line => return Err(io::Error::other(line)),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::nats().start().unwrap();
    conformance::broker(|| Cluster::on(&engine)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_over_it_passes_its_suite() {
    let engine = Engine::nats().start().unwrap();
    conformance::heartbeat::suite(|| Cluster::on(&engine)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_over_it_passes_its_suite() {
    let engine = Engine::nats().start().unwrap();
    conformance::directory::suite(|| Cluster::on(&engine)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_server_that_is_killed() {
    if is_private("a killed server") {
        let mut server = Engine::nats().start().unwrap();
        let cluster = Cluster::on(&server);
        outage::server_killed_and_back(&cluster, &mut server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_a_server_that_stands_still() {
    if is_private("a server that stands still") {
        let mut server = Engine::nats().start().unwrap();
        let cluster = Cluster::on(&server);
        outage::server_stands_still(&cluster, &mut server).await;
    }
}

#[tokio::test]
async fn names_of_clusters_do_not_reach_into_each_other() {
    let engine = Engine::nats().start().unwrap();
    let own = fresh_cluster();
    let on = |cluster: String| Cluster(settings(&cluster, engine.url()));
    for other in [">", "*", ".all", " x", "\r\nPING"] {
        conformance::clusters_do_not_meet(&on(own.clone()), &on(format!("{own}{other}"))).await;
    }
    conformance::clusters_do_not_meet(&on(format!("{own}.one")), &on(format!("{own}.*"))).await;
}
