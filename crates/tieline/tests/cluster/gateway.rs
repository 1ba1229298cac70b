//! A cluster behind a gateway, all of them processes: users stay where they are, and find another node when theirs is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use xtask::{Engine, left_out};

use crate::client::{Client, assert_ack, to_group, to_user};
use crate::configurations::connect as with_token;
use crate::keepers::Folder;
use crate::processes::{Process, TestCluster, eventually, eventually_within};
use crate::support::http::call;
use crate::support::program::tieline;

/// Flags of nodes that let everybody in: who comes through a gateway is a stranger to them.
pub(crate) const OPEN: [&str; 3] = ["--allow-anonymous", "--admin-listen", "127.0.0.1:0"];

/// How soon a server that was started again is found, and what has changed there meanwhile.
const BACK: Duration = Duration::from_secs(60);

/// A list of the nodes.
fn list(cluster: &TestCluster) -> String {
    let node = |node: &Process| format!("{}=ws://{}", node.name, node.address);
    format!("static://{}", cluster.nodes.iter().map(node).collect::<Vec<_>>().join(","))
}

/// What a gateway is started with.
pub(crate) fn arguments(registry: &str) -> [&str; 9] {
    let usual =
        ["gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--check-every", "100ms"];
    let [command, listen, any, admin, any_too, check, often] = usual;
    [command, listen, any, admin, any_too, check, often, "--registry", registry]
}

/// Which node a connection is on: its id begins with the number of the node's start.
pub(crate) fn home(client: &Client) -> String {
    client.id[..10].to_owned()
}

#[test]
fn users_stay_on_their_nodes_and_only_those_of_a_killed_node_move() {
    const USERS: usize = 24;
    let mut cluster = TestCluster::start_with(3, &OPEN, &[]);
    let list = list(&cluster);
    // Two gateways that know nothing of each other.
    let gateways = ["one", "other"].map(|name| Process::spawn(name, tieline(&arguments(&list))));
    let user = |index: usize| format!("user-{index}");
    let connect = |gateway: &Process, index: usize| {
        let mut client = gateway.connect("h", &user(index));
        client.join("room");
        client
    };
    let nodes: Vec<String> = cluster.nodes.iter().map(|node| home(&node.connect("h", "probe"))).collect();
    let mut clients: Vec<Client> = (0..USERS).map(|index| connect(&gateways[0], index)).collect();
    let homes: Vec<String> = clients.iter().map(home).collect();
    let mut users_of: BTreeMap<&String, usize> = BTreeMap::new();
    homes.iter().for_each(|home| *users_of.entry(home).or_default() += 1);
    assert!(nodes.iter().all(|node| users_of.contains_key(node)), "{users_of:?}");
    for (index, before) in homes.iter().enumerate() {
        let client = gateways[1].connect("h", &user(index));
        assert_eq!(home(&client), *before, "two gateways disagree");
    }
    // Everybody reaches everybody, whoever is where.
    clients[0].send_acked(to_group("room", 1));
    for client in &mut clients {
        assert_eq!(client.next()["data"], 1);
    }
    assert_ack(&clients[0].next(), USERS as u64, 0);
    cluster.kill(0);
    for (index, before) in homes.iter().enumerate() {
        if *before == nodes[0] {
            clients[index] = connect(&gateways[0], index);
            assert_ne!(home(&clients[index]), *before);
        } else {
            let client = gateways[0].connect("h", &user(index));
            assert_eq!(home(&client), *before, "a user of a node that lives has moved");
        }
    }
    let [one, other, ..] = &mut clients[..] else { panic!("there are more") };
    assert_eq!(one.ask(to_user(&user(1), 7))["success"], true);
    assert_eq!(other.next()["data"], 7);
}

#[test]
fn nodes_are_followed_as_they_come_and_go_in_redis() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        return left_out("a gateway by Redis", "TIELINE_TEST_REDIS names a server that was not started here");
    }
    follow(&mut Engine::redis().start().unwrap());
}

#[test]
fn nodes_are_followed_as_they_come_and_go_in_zookeeper() {
    if !cfg!(feature = "zookeeper") {
        return left_out("a gateway by ZooKeeper", "this program has no feature `zookeeper`");
    }
    if std::env::var_os("TIELINE_TEST_ZOOKEEPER").is_some() {
        return left_out(
            "a gateway by ZooKeeper",
            "TIELINE_TEST_ZOOKEEPER names a server that was not started here",
        );
    }
    follow(&mut Engine::zookeeper().start().unwrap());
}

/// Nodes and gateway that know of each other by a server alone, which is killed and started again.
pub(crate) fn follow(server: &mut Engine) {
    let (url, cluster) = (server.url().to_owned(), format!("test-{}-gateway", std::process::id()));
    let node = |name: &str| {
        let mut command = tieline(&["serve", "--node", name, "--shards", "1", "--listen", "127.0.0.1:0"]);
        command.args(["--cluster", &cluster, "--broker", "mesh:", "--peer-listen", "127.0.0.1:0"]).args(OPEN);
        command.env("TIELINE_REGISTRY", &url);
        Process::spawn(name, command)
    };
    let mut nodes = vec![node("a"), node("b")];
    let mut command = tieline(&arguments(&url));
    command.args(["--cluster", &cluster, "--policy", "least-connections"]);
    let gateway = Process::spawn("gateway", command);
    let well = || gateway.metric("tieline_gateway_nodes{state=\"well\"}");
    eventually("both nodes are known", || well() == 2);
    let mut clients: Vec<Client> = (0..6).map(|n| gateway.connect("h", &format!("u{n}"))).collect();
    nodes.iter().for_each(|node| node.await_metric("tieline_connections", 3));
    // Who says goodbye is left out at once, and its clients come back elsewhere.
    let stayed = home(&nodes[1].connect("h", "probe"));
    nodes[0].end();
    eventually("the node is out", || well() == 1);
    let failures = gateway.metric("tieline_gateway_failures_total");
    clients.retain(|client| home(client) == stayed);
    assert_eq!(clients.len(), 3);
    clients.extend((0..3).map(|n| gateway.connect("h", &format!("v{n}"))));
    assert!(clients.iter().all(|client| home(client) == stayed));
    assert_eq!(gateway.metric("tieline_gateway_failures_total"), failures, "it was tried in vain");
    // Without the registry the last word stands.
    server.kill().unwrap();
    eventually("the outage is noticed", || {
        call(gateway.address, "GET", "/readyz", "", "").body.contains("degraded")
    });
    assert_eq!(home(&gateway.connect("h", "w")), stayed);
    server.restart().unwrap();
    nodes.push(node("c"));
    eventually_within(BACK, "the new node is known", || well() == 2);
    // It has the fewest.
    assert_ne!(home(&gateway.connect("h", "x")), stayed);
}

/// Nodes that know of each other by their beats alone, and tell the gateway.
#[test]
fn nodes_are_followed_as_one_of_them_tells() {
    const KEY: &str = "a key of the cluster";
    let keyed = [&OPEN[..], &["--access-key", KEY]].concat();
    let mut cluster = TestCluster::start_with(3, &keyed, &[]);
    let servers = format!("http://{},{}", cluster.nodes[0].address, cluster.nodes[1].address);
    let refused = tieline(&arguments(&servers)).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && error.contains("refused: 401"), "{error}");
    let mut command = tieline(&arguments(&servers));
    command.env("TIELINE_ACCESS_KEY", KEY).args(["--policy", "round-robin"]);
    let mut gateway = Process::spawn("gateway", command);
    let shown = |state: &str| gateway.metric(&format!("tieline_gateway_nodes{{state=\"{state}\"}}"));
    eventually("all nodes are known", || shown("well") == 3);
    let homes: BTreeSet<String> = (0..3).map(|n| home(&gateway.connect("h", &format!("u{n}")))).collect();
    assert_eq!(homes.len(), 3);
    // The one that was asked dies, and another one tells of that.
    cluster.kill(0);
    eventually("the dead node is out", || shown("well") == 2);
    // Nobody is left who could tell: the last word stands.
    cluster.kill(1);
    gateway.wait_for_log("What nodes told last stays");
    let last = home(&cluster.nodes[2].connect("h", "probe"));
    assert_eq!(home(&gateway.connect("h", "w")), last);
}

/// Of nodes with a key, without one, and with one that lets everybody in nevertheless, only the first is shown to strangers.
#[test]
fn clients_from_elsewhere_are_brought_only_to_nodes_that_want_a_token() {
    let folder = Folder::new();
    let file = folder.0.join("open.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("access_key = [\"k\"]\nallow_anonymous = true\n");
    let node = |name: &str, args: &[&str]| {
        let mut command = tieline(&["serve", "--node", name, "--shards", "1", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Process::spawn(name, command)
    };
    let keyed = node("keyed", &["--access-key", "k"]);
    let nodes = [keyed, node("bare", &[]), node("open", &["--config", file.to_str().unwrap()])];
    let list = |nodes: &[&Process]| {
        let node = |node: &&Process| format!("{}=ws://{}", node.name, node.address);
        format!("static://{}", nodes.iter().map(node).collect::<Vec<_>>().join(","))
    };
    let all = list(&nodes.each_ref());
    let start = |name: &str, list: &str, flags: &[&str]| {
        let mut command = tieline(&["gateway", "--admin-listen", "127.0.0.1:0", "--policy", "round-robin"]);
        command.args(["--check-every", "100ms", "--registry", list]).args(flags);
        Process::spawn(name, command)
    };
    let elsewhere = ["--listen", "0.0.0.0:0"];
    let shown = |gateway: &Process, state: &str| {
        gateway.metric(&format!("tieline_gateway_nodes{{state=\"{state}\"}}"))
    };
    let ready = |gateway: &Process| call(gateway.address, "GET", "/readyz", "", "");
    let enter = |gateway: &Process| {
        Client::enter(gateway.address, "h", "user=anybody").map(drop).map_err(|answer| answer.status)
    };

    let mut gateway = start("gateway", &all, &elsewhere);
    let states = |gateway: &Process| ["well", "refused", "unwell"].map(|state| shown(gateway, state));
    eventually("it knows its nodes", || states(&gateway) == [1, 2, 0]);
    gateway.wait_for_log("it has no access key, and takes programs of its own machine alone");
    gateway.wait_for_log("it lets everybody in without a token");
    for _ in 0..6 {
        assert_eq!(enter(&gateway), Err(401), "an open node was asked");
        assert_eq!(call(gateway.address, "GET", "/api/hubs/h/users/u", "", "").status, 401);
    }
    assert!(with_token(&gateway, "k").is_ok());
    let health = ready(&gateway).json();
    assert_eq!(
        (&health["status"], &health["nodes"], &health["refused"]),
        (&json!("degraded"), &json!(1), &json!(2))
    );
    assert!(health["reason"].as_str().unwrap().contains("want a token"), "{health}");

    // A gateway is as strict as it says to the one in front of it.
    let inside = start("inside", &all, &["--listen", "127.0.0.1:0"]);
    eventually("it knows its nodes", || ready(&inside).json()["access"] == "anyone");
    let outer = start("outer", &list(&[&gateway, &inside]), &elsewhere);
    eventually("it knows its nodes", || states(&outer) == [1, 1, 0]);
    assert!(with_token(&outer, "k").is_ok());
    // With nothing but open nodes nobody is taken.
    let nowhere = start("nowhere", &list(&[&nodes[1]]), &elsewhere);
    assert_eq!((ready(&nowhere).status, enter(&nowhere)), (503, Err(503)));
    // In words it is allowed, as at a node.
    let mut open = start("open", &list(&[&nodes[2]]), &[&elsewhere[..], &["--allow-anonymous"]].concat());
    open.wait_for_log("Everybody who can reach this address");
    eventually("it knows its node", || ready(&open).json()["status"] == "ok");
    assert_eq!(enter(&open), Ok(()));

    // A node that was closed meanwhile is found by the next check.
    write("access_key = [\"k\"]\nallow_anonymous = false\n");
    nodes[2].signal(Signal::SIGHUP);
    eventually("the node is one of them", || shown(&gateway, "well") == 2);
    // The turns of the third node are its neighbour's.
    let homes: BTreeSet<String> = (0..3).map(|_| home(&with_token(&gateway, "k").unwrap())).collect();
    assert_eq!(homes.len(), 2);
}

#[test]
fn a_signal_ends_it_well() {
    let cluster = TestCluster::start_with(1, &OPEN, &[]);
    let list = list(&cluster);
    let mut command = tieline(&arguments(&list));
    command.args(["--grace", "1m"]);
    let mut gateway = Process::spawn("gateway", command);
    let mut client = gateway.connect("h", "alice");
    client.join("g");
    assert_eq!(call(gateway.address, "GET", "/readyz", "", "").status, 200);
    gateway.signal(Signal::SIGTERM);
    // It waits for its connections, which go on.
    client.send_acked(to_group("g", 1));
    assert_eq!(client.next()["data"], 1);
    drop(client);
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn what_it_cannot_do_is_told_at_once() {
    let tried = |args: &[&str]| {
        let output = tieline(&[&["gateway", "--listen", "127.0.0.1:0"], args].concat()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let one = ["--registry", "static://a=ws://127.0.0.1:1"];
    for (args, told) in [
        (&[][..], "--registry"),
        (&["--registry", "heartbeat"], "static://NAME=ws://HOST:PORT"),
        (&["--registry", "etcd://h"], "known are"),
        (&["--registry", "http://a:1,b/c"], "http://HOST:PORT,HOST:PORT"),
        (&["--registry", "static://a=ftp://x:1"], "its address is"),
        (&[one[0], one[1], "--policy", "random"], "two-choices"),
        (&[one[0], one[1], "--ring-hash", "sha"], "tieline, md5, fnv"),
        (&[one[0], one[1], "--bound", "0.5"], "from 1 to 100"),
        (&[one[0], one[1], "--trusted-proxy", "10.0.0.0/33"], "10.0.0.0/8"),
        (&[one[0], one[1], "--strip-prefix", "ws"], "a prefix is a path"),
        (&[one[0], one[1], "--idle", "1ms"], "100ms at least"),
    ] {
        // Whatever is let pass here runs nothing.
        let (code, error) = tried(&[args, &["--check"]].concat());
        assert!(code == Some(2) && error.contains(told), "{args:?}: {code:?} {error}");
    }
    let (code, error) = tried(&["--registry", "redis://:hush@127.0.0.1:1"]);
    assert!(code == Some(1) && !error.contains("hush"), "{code:?} {error}");
    let list = "static://a=ws://127.0.0.1:1;weight=2";
    let shown =
        tieline(&["gateway", "--registry", list, "--policy", "two-choices", "--check"]).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success());
    assert!(
        text.contains(&format!("registry = {list}\n")) && text.contains("policy = two-choices\n"),
        "{text}"
    );
}
