//! Nodes that find each other by a registry: a mesh without a seed, with a Redis server or a list that somebody has written down,
//! that server gone and back, and what is refused at the start.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::engine::redis::ask;
use xtask::{Engine, left_out};

use crate::client::{assert_ack, to_user};
use crate::processes::{Process, eventually, eventually_within, refusal};
use crate::support::http::call;
use crate::support::program::tieline;

/// How long a node that died is registered, and how much later others may still see it.
pub(crate) const LEASE: Duration = Duration::from_secs(15 + 5);

pub(crate) fn command(name: &str, registry: &str) -> Command {
    let mut command = tieline(&["serve", "--node", name, "--shards", "1", "--listen", "127.0.0.1:0"]);
    command.args(["--broker", "mesh:", "--peer-listen", "127.0.0.1:0", "--weight", "2"]);
    command.env("TIELINE_REGISTRY", registry);
    command.args(["--cluster", &format!("test-{}", std::process::id())]);
    command
}

pub(crate) fn readiness(node: &Process) -> Value {
    let answer = call(node.address, "GET", "/readyz", "", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// What a node says of another, by its name.
pub(crate) fn item(node: &Process, name: &str) -> Option<Value> {
    let answer = call(node.address, "GET", "/api/v1/nodes", "", "").json();
    answer["nodes"].as_array().unwrap().iter().find(|item| item["name"] == name).cloned()
}

/// How many nodes a node finds in the registry.
pub(crate) fn registered(node: &Process) -> u64 {
    node.metric("tieline_registry_members{state=\"taking\"}")
}

pub(crate) fn message(from: &Process, to: &Process, data: &str) {
    let mut ben = to.connect("h", "ben");
    let mut anna = from.connect("h", "anna");
    assert_ack(&anna.ask(to_user("ben", data)), 1, 0);
    assert_eq!(ben.next_data(), data);
}

#[test]
fn a_mesh_without_a_seed_finds_its_nodes_by_a_redis_server_and_outlives_it() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        return left_out(
            "nodes registered with Redis",
            "TIELINE_TEST_REDIS names a server that was not started here",
        );
    }
    let mut server = Engine::redis().start().unwrap();
    let url = server.url().to_owned();
    let start = |name: &str| Process::spawn(name, command(name, &url));
    let mut nodes: Vec<Process> = ["a", "b", "c"].map(start).into();
    for node in &nodes {
        eventually(&format!("{} reaches all", node.name), || node.reaches() == ["a", "b", "c"]);
        eventually(&format!("{} finds all", node.name), || registered(node) == 2);
    }
    message(&nodes[0], &nodes[2], "before");
    let seen = item(&nodes[0], "b").unwrap();
    assert_eq!((&seen["weight"], &seen["version"]), (&2.into(), &env!("CARGO_PKG_VERSION").into()), "{seen}");
    assert_eq!((&seen["enabled"], &seen["state"]), (&true.into(), &"alive".into()), "{seen}");
    assert_eq!(seen["clientUrl"], format!("ws://{}", nodes[1].address));

    // One that dies without a word is registered until its lease is over.
    nodes.pop().unwrap().kill();
    let died = Instant::now();
    for node in &nodes {
        let left = LEASE.saturating_sub(died.elapsed());
        eventually_within(left, "the dead node is registered no more", || registered(node) == 1);
    }
    assert!(died.elapsed() > Duration::from_secs(5), "its lease was cut short");

    // Without the server everything goes on, with the nodes that are known.
    server.kill().unwrap();
    for node in &nodes {
        eventually("the outage is noticed", || {
            let readiness = readiness(node);
            readiness["status"] == "degraded" && readiness["registry_up"] == false
        });
        assert_eq!((registered(node), node.metric("tieline_registry_up")), (1, 0));
    }
    message(&nodes[0], &nodes[1], "meanwhile");
    server.restart().unwrap();
    for node in &nodes {
        eventually("the server is found again", || readiness(node)["status"] == "ok");
    }
    nodes.push(start("d"));
    for node in &nodes {
        eventually(&format!("{} reaches who came last", node.name), || node.reaches() == ["a", "b", "d"]);
    }
    message(&nodes[2], &nodes[0], "after");

    // What somebody else writes there is passed over.
    let key = format!("tieline:test-{}:nodes", std::process::id());
    ask(&url, &format!("HSET {key} x/0000000000000001 9999999999999")).unwrap();
    ask(&url, &format!("HINCRBY {key} version 1")).unwrap();
    for node in &mut nodes {
        eventually("the strange entry is counted", || node.metric("tieline_registry_strange_entries") == 1);
        node.wait_for_log("no node of this cluster wrote");
        assert_eq!(node.reaches(), ["a", "b", "d"]);
    }
}

#[test]
fn a_mesh_finds_the_nodes_of_a_list() {
    // Somebody who writes a list knows the ports.
    let first = xtask::engine::free_port(&[1, 2, 3]).unwrap();
    let at = |index: u16| format!("127.0.0.1:{}", first + index);
    let list = format!("static://a=ws://{};peer={},b=ws://{};peer={}", at(0), at(1), at(2), at(3));
    let nodes = [("a", 0), ("b", 2)].map(|(name, index)| {
        let mut command = tieline(&["serve", "--node", name, "--shards", "1", "--broker", "mesh:"]);
        command.args(["--registry", &list, "--listen", &at(index), "--peer-listen", &at(index + 1)]);
        Process::spawn(name, command)
    });
    for node in &nodes {
        eventually(&format!("{} reaches both", node.name), || node.reaches() == ["a", "b"]);
        assert_eq!(registered(node), 1);
    }
    message(&nodes[0], &nodes[1], "hello");
}

#[test]
fn a_node_alone_registers_for_those_who_look() {
    let server = Engine::redis().start().unwrap();
    let start = |name: &str| {
        let mut command = tieline(&["serve", "--node", name, "--shards", "1", "--listen", "127.0.0.1:0"]);
        command.args(["--registry", server.url(), "--cluster", &format!("alone-{}", std::process::id())]);
        Process::spawn(name, command)
    };
    let (one, other) = (start("one"), start("other"));
    eventually("each is registered", || registered(&one) == 1 && registered(&other) == 1);
    // They are no cluster: no message goes from one to the other.
    assert_eq!(item(&one, "other").unwrap()["state"], "unreachable");
    assert_eq!(readiness(&one)["status"], "ok");
}

/// A start that must fail soon, with these words and without the secret.
#[track_caller]
fn expect_refused(mut command: Command, words: &[&str]) {
    let (status, told) = refusal(&mut command);
    assert!(status.code().is_some_and(|code| code > 0), "{status}, {told}");
    for word in words {
        assert!(told.contains(word), "{word} is not in {told}");
    }
    assert!(!told.contains("hush"), "{told}");
}

#[test]
fn what_cannot_work_is_told_at_the_start() {
    let server = Engine::redis().start().unwrap();
    let url = server.url();
    expect_refused(
        command("n", "etcd://:hush@h"),
        &["`registry` takes", "heartbeat", "static://", "redis://"],
    );
    expect_refused(command("n", "static://n=ws://a;weight=0"), &["`registry` takes", "weight"]);
    expect_refused(command("n", "redis://:hush@127.0.0.1:1"), &["the registry", "127.0.0.1:1"]);
    // Addresses that lead nowhere.
    let with = |flags: &[&str]| {
        let mut command = tieline(&["serve", "--shards", "1", "--registry", url]);
        command.args(["--cluster", &format!("bad-{}", std::process::id())]).args(flags);
        command
    };
    expect_refused(with(&["--listen", "0.0.0.0:0"]), &["--client-url"]);
    expect_refused(
        with(&["--listen", "127.0.0.1:0", "--client-url", "ws://0.0.0.0:1"]),
        &["nobody can connect to `ws://0.0.0.0:1`"],
    );
    expect_refused(
        with(&["--listen", "127.0.0.1:0", "--broker", "mesh:", "--peer-listen", "0.0.0.0:0"]),
        &["--peer-advertise"],
    );
    // A member on another machine was there before.
    let far = ["--node", "there", "--listen", "127.0.0.1:0", "--client-url", "ws://10.255.0.9:7800"];
    let _there = Process::spawn("there", with(&far));
    let key = format!("tieline:bad-{}:nodes", std::process::id());
    eventually("it is registered", || ask(url, &format!("EXISTS {key}")).unwrap() == ":1");
    expect_refused(with(&["--listen", "127.0.0.1:0"]), &["node `there`", "--client-url"]);
}
