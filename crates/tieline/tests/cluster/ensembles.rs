//! Nodes that find each other by ZooKeeper or Nacos: a mesh without a seed, nodes that die or stand still, and the server gone and
//! back. Where these are not built in, how to get them is told.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use xtask::{Engine, left_out};

use crate::processes::{Process, eventually, eventually_within};
use crate::registries::{LEASE, command, message, readiness, registered};

/// How soon Nacos says that a node has died: its connection breaks.
const BROKEN: Duration = Duration::from_secs(10);

/// How soon it says that a node stands still.
const SILENT: Duration = Duration::from_secs(30);

/// Three nodes that know the registry alone.
fn start(registry: &str) -> Vec<Process> {
    let nodes: Vec<Process> =
        ["a", "b", "c"].map(|name| Process::spawn(name, command(name, registry))).into();
    for node in &nodes {
        eventually(&format!("{} reaches all", node.name), || node.reaches() == ["a", "b", "c"]);
        eventually(&format!("{} finds all", node.name), || registered(node) == 2);
    }
    nodes
}

/// The server is killed, with everything going on, and started again.
fn outlive(nodes: &[Process], server: &mut Engine) {
    let members = nodes.len() as u64 - 1;
    server.kill().unwrap();
    for node in nodes {
        eventually("the outage is noticed", || {
            let readiness = readiness(node);
            readiness["status"] == "degraded" && readiness["registry_up"] == false
        });
        assert_eq!(registered(node), members, "nobody is dropped");
    }
    message(&nodes[0], &nodes[1], "meanwhile");
    server.restart().unwrap();
    for node in nodes {
        eventually_within(SILENT, "the server is found again", || readiness(node)["status"] == "ok");
        assert_eq!(registered(node), members, "nobody was dropped");
    }
}

#[test]
fn a_mesh_without_a_seed_finds_its_nodes_by_zookeeper_and_outlives_it() {
    if !cfg!(feature = "zookeeper") {
        return left_out("nodes registered with ZooKeeper", "this program has no feature `zookeeper`");
    }
    if std::env::var_os("TIELINE_TEST_ZOOKEEPER").is_some() {
        return left_out(
            "nodes registered with ZooKeeper",
            "TIELINE_TEST_ZOOKEEPER names a server that was not started here",
        );
    }
    let mut server = Engine::zookeeper().start().unwrap();
    let mut nodes = start(&format!("{}/some/where", server.url()));
    message(&nodes[0], &nodes[2], "before");
    nodes.pop().unwrap().kill();
    let died = Instant::now();
    for node in &nodes {
        let left = LEASE.saturating_sub(died.elapsed());
        eventually_within(left, "the dead node is registered no more", || registered(node) == 1);
    }
    assert!(died.elapsed() > Duration::from_secs(5), "its lease was cut short");
    outlive(&nodes, &mut server);
    // A session that is over, because its node stood still: it registers again as itself.
    nodes[1].signal(Signal::SIGSTOP);
    eventually_within(LEASE, "who stands still is registered no more", || registered(&nodes[0]) == 0);
    nodes[1].signal(Signal::SIGCONT);
    eventually("it is registered again", || registered(&nodes[0]) == 1 && registered(&nodes[1]) == 1);
    eventually("it is reached again", || nodes[0].reaches() == ["a", "b"]);
    message(&nodes[0], &nodes[1], "after");
}

#[test]
fn a_mesh_without_a_seed_finds_its_nodes_by_nacos_and_outlives_it() {
    if !cfg!(feature = "nacos") {
        return left_out("nodes registered with Nacos", "this program has no feature `nacos`");
    }
    if std::env::var_os("TIELINE_TEST_NACOS").is_some() {
        return left_out(
            "nodes registered with Nacos",
            "TIELINE_TEST_NACOS names a server that was not started here",
        );
    }
    let mut server = Engine::nacos().start().unwrap();
    let mut nodes = start(server.url());
    message(&nodes[0], &nodes[2], "before");
    nodes.pop().unwrap().kill();
    let died = Instant::now();
    for node in &nodes {
        let left = BROKEN.saturating_sub(died.elapsed());
        eventually_within(left, "the dead node is registered no more", || registered(node) == 1);
    }
    nodes[1].signal(Signal::SIGSTOP);
    eventually_within(SILENT, "who stands still is registered no more", || registered(&nodes[0]) == 0);
    nodes[1].signal(Signal::SIGCONT);
    eventually_within(SILENT, "it is registered again", || {
        registered(&nodes[0]) == 1 && registered(&nodes[1]) == 1
    });
    eventually("it is reached again", || nodes[0].reaches() == ["a", "b"]);
    outlive(&nodes, &mut server);
    message(&nodes[0], &nodes[1], "after");
}
