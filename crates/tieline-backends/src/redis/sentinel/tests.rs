//! The broker on a real master with a replica and a sentinel: the conformance suite, masters that die and stand still, and sentinels that know
//! nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tieline_core::broker::{Broker, To};
use xtask::{Engine as Server, left_out};

use super::*;
use crate::conformance::private::{nobody, refused};
use crate::conformance::{self, Fabric, Heard, Joined, Joining, Recorder, fresh_node};

/// How soon after a master's death envelopes must flow again.
const REPLACED: Duration = Duration::from_secs(15);

fn settings(url: &str) -> RedisSettings<RedisSeveralAddress> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another run may use the same servers at the same time.
    let cluster = format!("tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let address = RedisSeveralAddress::parse(url).unwrap();
    let pace = Pace { canary: Duration::from_millis(300), ..Pace::default() };
    RedisSettings { pace, ..RedisSettings::new(&cluster, address) }
}

/// Nodes of one cluster.
struct Cluster(RedisSettings<RedisSeveralAddress>);

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = RedisSentinelBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

/// Whether the servers are ours to hurt. If not, that is said.
fn are_private(test: &str) -> bool {
    let is_named = std::env::var_os("TIELINE_TEST_SENTINEL").is_some();
    if is_named {
        let why = "TIELINE_TEST_SENTINEL names servers that were not started here";
        left_out(&format!("the broker on Redis with sentinels: {test}"), why);
    }
    !is_named
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Server::sentinel().start().unwrap();
    conformance::broker(|| Cluster(settings(engine.url()))).await;
    conformance::heartbeat::suite(|| Cluster(settings(engine.url()))).await;
    conformance::directory::suite(|| Cluster(settings(engine.url()))).await;
}

/// Waits until both have come back from so many outages, and each hears the other.
async fn is_replaced(nodes: &[Joined], outages: usize) {
    let count = |heard: &[Heard], what: Heard| heard.iter().filter(|heard| **heard == what).count();
    for node in nodes {
        node.recorder.until("the fail-over", |heard| count(heard, Heard::Back) == outages).await;
    }
    for (from, to) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let text = format!("after {outages}");
        from.broker.send(To::One(to.node.incarnation), &Arc::from(text.as_bytes())).unwrap();
        to.recorder.until("it arrives", |heard| heard.contains(&Heard::Envelope(text.clone().into()))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_is_followed() {
    if !are_private("a killed master") {
        return;
    }
    let mut engine = Server::sentinel().start().unwrap();
    let cluster = Cluster(settings(engine.url()));
    let nodes = conformance::join(&cluster, &["a", "b"]).await;
    engine.kill_member(0).unwrap();
    timeout(REPLACED, is_replaced(&nodes, 1)).await.expect("a killed master is replaced");
    // The former master comes back as a replica, and takes over from the present one, which stands still.
    engine.restart_member(0).unwrap();
    let sentinel = cluster.0.address.hosts[0].clone();
    let asked = format!("redis://{sentinel}");
    let is_there = || {
        xtask::engine::redis::ask(&asked, "SENTINEL CKQUORUM mymaster")
            .is_ok_and(|answer| answer.starts_with("+OK"))
    };
    assert!(is_there());
    let replica = format!("redis://127.0.0.1:{}", sentinel.port - 2);
    let became = Instant::now();
    while !xtask::engine::redis::ask(&replica, "ROLE").is_ok_and(|answer| answer == "*5") {
        // What a replica answers has five parts.
        assert!(became.elapsed() < Duration::from_secs(30), "it does not become a replica");
        tokio::task::yield_now().await;
    }
    let pid = Pid::from_raw(engine.pid_of(1).unwrap() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let replaced = timeout(REPLACED, is_replaced(&nodes, 2)).await;
    kill(pid, Signal::SIGCONT).unwrap();
    replaced.expect("a master that stands still is replaced");
}

/// The port of `HOST:PORT`.
fn port_of(place: &str) -> u16 {
    place.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the keeper's addresses have a port")
}

#[tokio::test]
async fn what_sentinels_do_not_know_is_told() {
    let trouble = async |url: &str| {
        let error = refused(async || {
            RedisSentinelBroker::start(settings(url), &fresh_node("n"), Recorder::new()).await
        })
        .await;
        let RedisError::Server { trouble, .. } = error else { panic!("{error}") };
        trouble
    };
    let nobody = nobody();
    assert!(matches!(trouble(&format!("redis+sentinel://:hush@{nobody}/m")).await, Trouble::Connect(_)));
    if !are_private("sentinels that know nothing") {
        return;
    }
    let engine = Server::sentinel().start().unwrap();
    let server = engine.url().strip_suffix("/mymaster").unwrap().strip_prefix("redis+sentinel://").unwrap();
    assert!(matches!(trouble(&format!("redis+sentinel://{server}/another")).await, Trouble::NoMaster));
    match trouble(&format!("redis+sentinel://nobody:hush@{server}/mymaster")).await {
        Trouble::Refused(text) => assert!(text.contains("WRONGPASS"), "{text}"),
        other => panic!("{other}"),
    }
    // The master's user and the sentinels' are told apart.
    let master = format!("redis://127.0.0.1:{}", port_of(server) - 2);
    let sentinel = format!("redis://{server}");
    for (at, command) in [
        (&master, "ACL SETUSER node on >hush1 &* +@all"),
        (&sentinel, "ACL SETUSER node on >hush2 +@all"),
        (&sentinel, "ACL SETUSER default off"),
    ] {
        assert_eq!(xtask::engine::redis::ask(at, command).unwrap(), "+OK", "{command}");
    }
    for (logins, reason) in [
        ("node:hush1", "NOAUTH"),
        ("node:hush1,node:hush1", "WRONGPASS"),
        ("node:hush2,node:hush2", "WRONGPASS"),
    ] {
        match trouble(&format!("redis+sentinel://{logins}@{server}/mymaster")).await {
            Trouble::Refused(text) => assert!(text.contains(reason), "{logins}: {text}"),
            other => panic!("{logins}: {other}"),
        }
    }
    for logins in ["node:hush1,node:hush2", ",node:hush2"] {
        let cluster = Cluster(settings(&format!("redis+sentinel://{logins}@{server}/mymaster")));
        let nodes = conformance::join(&cluster, &["a", "b"]).await;
        nodes[0].broker.send(To::One(nodes[1].node.incarnation), &Arc::from(logins.as_bytes())).unwrap();
        let came = |heard: &[Heard]| heard.contains(&Heard::Envelope(logins.into()));
        nodes[1].recorder.until("it arrives", came).await;
    }
    let single = Server::redis().start().unwrap();
    let server = single.url().strip_prefix("redis://").unwrap();
    match trouble(&format!("redis+sentinel://{server}/mymaster")).await {
        Trouble::Refused(text) => assert!(text.contains("SENTINEL"), "{text}"),
        other => panic!("{other}"),
    }
}
