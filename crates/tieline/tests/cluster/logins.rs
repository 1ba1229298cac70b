//! One connection per user: a thousand users log in twice at the same time, at different nodes, while one of those is cut from the
//! others and comes back. Of each user one connection is left, the same for all nodes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};
use xtask::proxy::Proxy;
use xtask::{Engine, left_out};

use crate::client::{Client, assert_ack, to_user};
use crate::processes::{Process, TestCluster, eventually};
use crate::support::program::tieline;

const USERS: usize = 1000;

/// Users that log in at once.
const AT_ONCE: usize = 4;

/// Node 2 is cut from the others while these users log in.
const APART: std::ops::Range<usize> = 400..600;

/// A configuration for hubs where a user has one connection, removed at the end.
struct Single(PathBuf);

impl Single {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tieline-{test}-{}.toml", std::process::id()));
        fs::write(&path, "[[hub]]\nmatch = \"single\"\nconnections_per_user = \"one\"\n").unwrap();
        Single(path)
    }

    fn variable(&self) -> (&str, &str) {
        ("TIELINE_CONFIG", self.0.to_str().unwrap())
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        // What is left in the temporary folder harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

fn connect(node: SocketAddr, user: &str) -> Client {
    Client::connect(node, "single", user)
}

/// Has all users log in, and looks who is left. `part` cuts node 2 from the others, `heal` brings it back.
fn race(nodes: &[Process], part: impl Fn(), heal: impl Fn()) {
    let mut watchers: Vec<Client> =
        (0..3).map(|at| connect(nodes[at].address, &format!("watcher-{at}"))).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let mut open: Vec<(usize, Client)> = Vec::new();
    for first in (0..USERS).step_by(AT_ONCE) {
        if first == APART.start {
            part();
        }
        if first == APART.end {
            heal();
        }
        let log_in = |user: usize, again: usize| {
            // At two nodes, and one time in four at two shards of one.
            let at = if user.is_multiple_of(4) { user } else { user + again };
            (user, connect(addresses[at % 3], &format!("u{user}")))
        };
        thread::scope(|scope| {
            let logins: Vec<_> = (first..first + AT_ONCE)
                .flat_map(|user| [(user, 0), (user, 1)])
                .map(|(user, again)| {
                    let log_in = &log_in;
                    scope.spawn(move || log_in(user, again))
                })
                .collect();
            open.extend(logins.into_iter().map(|login| login.join().unwrap()));
        });
    }
    let connections = || nodes.iter().map(|node| node.metric("tieline_connections")).collect::<Vec<_>>();
    eventually("one connection of each user is left", || {
        connections().iter().sum::<u64>() == USERS as u64 + 3
    });

    for user in 0..USERS {
        for (at, watcher) in watchers.iter_mut().enumerate() {
            assert_ack(&watcher.ask(to_user(&format!("u{user}"), json!([user, at]))), 1, 0);
        }
    }
    let mut left = vec![0; USERS];
    for (user, mut client) in open {
        let first = client.next();
        if first["type"] == "message" {
            left[user] += 1;
            assert_eq!(first["data"], json!([user, 0]));
            let rest: Vec<Value> = (1..3).map(|_| client.next_data()).collect();
            assert_eq!(rest, [json!([user, 1]), json!([user, 2])]);
        } else {
            assert_eq!(first["event"], "displaced", "{first}");
            assert_eq!(client.next()["event"], "disconnected");
            assert_eq!(client.next(), json!({"type": "close", "code": 4409}));
        }
    }
    assert!(left.iter().all(|left| *left == 1));
    let displaced: u64 = nodes.iter().map(|node| node.metric("tieline_connections_displaced_total")).sum();
    assert_eq!(displaced, USERS as u64);
}

#[test]
fn of_two_logins_one_is_left_over_mesh() {
    let single = Single::new("logins-mesh");
    let cluster = TestCluster::start_behind_proxies(3, &[single.variable()]);
    let links = [cluster.link(0, 2), cluster.link(1, 2)];
    let part = || {
        links.iter().for_each(|link| link.sever());
        eventually("node 2 is alone", || cluster.nodes[2].reaches() == ["n2"]);
    };
    let heal = || {
        links.iter().for_each(|link| link.heal());
        cluster.wait_for_all();
    };
    race(&cluster.nodes, part, heal);
}

#[test]
fn of_two_logins_one_is_left_over_redis() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        return left_out(
            "logins at nodes joined by Redis",
            "TIELINE_TEST_REDIS names a server that was not started here",
        );
    }
    let server = Engine::redis().start().unwrap();
    let address: SocketAddr = server.url().trim_start_matches("redis://").parse().unwrap();
    let proxy = Proxy::before(address);
    let single = Single::new("logins-redis");
    let (name, value) = single.variable();
    let through = |name: &str| if name == "n2" { proxy.address } else { address };
    let nodes: Vec<Process> = ["n0", "n1", "n2"]
        .map(|node| {
            let mut command = tieline(&["serve", "--node", node, "--shards", "2", "--listen", "127.0.0.1:0"]);
            command.env("TIELINE_BROKER", format!("redis://{}", through(node))).env(name, value);
            command.args(["--cluster", &format!("logins-{}", std::process::id())]);
            Process::spawn(node, command)
        })
        .into();
    let all_reach_all = || nodes.iter().all(|node| node.reaches() == ["n0", "n1", "n2"]);
    eventually("all reach all", all_reach_all);
    let part = || {
        proxy.sever();
        let answer = || crate::support::http::call(nodes[2].address, "GET", "/readyz", "", "").body;
        eventually("node 2 is without its broker", || answer().contains("degraded"));
    };
    let heal = || {
        proxy.heal();
        eventually("all reach all again", all_reach_all);
    };
    race(&nodes, part, heal);
}
