//! Three nodes behind a plain TCP balancer: clients know one address and are on any node.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, assert_ack, to_group, to_user};
use crate::dialects::{Dialect, Heard, Speaker};
use crate::messages::assert_every_message;
use crate::processes::{Process, TestCluster, eventually};
use crate::support::PATIENCE;
use crate::support::http::exchange;
use crate::support::proxy_protocol::proxied;
use xtask::proxy::{Cut, Proxy, Way};

fn addresses(cluster: &TestCluster) -> Vec<SocketAddr> {
    cluster.nodes.iter().map(|node| node.address).collect()
}

/// Counts every message between clients of all dialects, which the balancer spreads evenly.
fn assert_every_message_through(balancer: &Proxy, nodes: &[Process]) {
    assert_every_message(&Dialect::ALL, |index, dialect, hub, user| {
        let speaker = Speaker::connect(balancer.address, dialect, hub, user);
        if index + 1 == 6 * Dialect::ALL.len() {
            eventually("every node has as many", || {
                nodes.iter().all(|node| node.metric("tieline_connections") == 8)
            });
        }
        speaker
    });
}

#[test]
fn every_message_of_every_dialect_reaches_exactly_its_audience() {
    let cluster = TestCluster::start(3);
    assert_every_message_through(&Proxy::balancer(addresses(&cluster)), &cluster.nodes);
}

#[test]
fn it_does_so_too_where_the_balancer_tells_for_whom_it_connects() {
    let cluster = TestCluster::start_with(
        3,
        &["--proxy-protocol", "--allow-anonymous", "--admin-listen", "127.0.0.1:0"],
        &[],
    );
    let balancer = Proxy::balancer_with(addresses(&cluster), proxied("203.0.113.7:4711".parse().unwrap()));
    assert_every_message_through(&balancer, &cluster.nodes);
    for node in &cluster.nodes {
        // Past the balancer there is no way in.
        let answer = exchange(node.address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(answer, b"");
        node.await_metric("tieline_proxy_headers_refused_total{reason=\"absent\"}", 1);
    }
}

#[test]
fn a_cut_client_recovers_on_every_node() {
    const MESSAGES: usize = 300;
    let cluster = TestCluster::start(3);
    let balancer = Proxy::balancer(addresses(&cluster));
    let mut anna = cluster.nodes[0].connect("h", "anna");
    for own in 0..3 {
        assert_eq!(balancer.next_target(3), own);
        let mut client = Speaker::connect(balancer.address, Dialect::Reliable, "h", "client");
        client.join("room");
        let mut send = |numbers: std::ops::Range<usize>| {
            let asked: BTreeSet<_> = numbers.map(|n| anna.send_acked(to_group("room", n))).collect();
            // Each shard and node answers in its own time, so acks come in any order.
            let acked: BTreeSet<_> = asked.iter().map(|_| anna.next()["ackId"].as_u64().unwrap()).collect();
            assert_eq!(acked, asked);
        };
        send(0..100);
        for number in 0..50 {
            assert_eq!(client.next(), Heard::Message(number));
        }
        client.acknowledge();
        // The rest of the first hundred may have arrived or not when the connection is cut.
        balancer.cut(Cut::Reset);
        send(100..200);
        for _ in 0..2 {
            assert_ne!(balancer.next_target(3), own);
            assert_eq!(client.recover(balancer.address, "h"), Ok(()), "on another node");
        }
        assert_eq!(balancer.next_target(3), own);
        assert_eq!(client.recover(balancer.address, "h"), Ok(()), "on its own node again");
        send(200..MESSAGES);
        for number in 50..MESSAGES {
            assert_eq!(client.next(), Heard::Message(number));
        }
        client.send_fence();
        assert_eq!(client.next(), Heard::Fence);
    }
}

#[test]
fn clients_of_a_killed_node_go_on_at_another_one() {
    let mut cluster = TestCluster::start(3);
    let balancer = Proxy::balancer(addresses(&cluster));
    let connect = |index: usize| {
        let mut client = Client::connect(balancer.address, "h", &format!("u{index}"));
        client.join("room");
        client
    };
    let mut clients: Vec<_> = (0..9).map(connect).collect();
    cluster.kill(1);
    for (index, client) in clients.iter_mut().enumerate() {
        if index % 3 == 1 {
            assert_eq!(client.next_within(PATIENCE), None, "u{index} is cut off");
            *client = connect(index);
        }
    }
    let connections = |node: usize| cluster.nodes[node].metric("tieline_connections");
    eventually("all are on the living", || connections(0) + connections(2) == 9);
    for from in 0..clients.len() {
        for to in 0..clients.len() {
            if from == to {
                continue;
            }
            let ack = clients[from].ask(to_user(&format!("u{to}"), from));
            assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(1)), "{ack}");
            assert_eq!(clients[to].next_data(), from);
        }
        let mut frame = to_group("room", from);
        frame["noEcho"] = true.into();
        let ack = clients[from].ask(frame);
        assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(8)), "{ack}");
        for to in (0..clients.len()).filter(|to| *to != from) {
            assert_eq!(clients[to].next_data(), from);
        }
    }
    clients.iter_mut().for_each(|client| client.expect_nothing());
}

#[test]
fn a_client_whose_network_keeps_silent_is_gone_for_every_node() {
    let cluster = TestCluster::start_with(2, &[], &[("TIELINE_TIMES_PING_INTERVAL", "1s")]);
    let proxy = Proxy::before(cluster.nodes[0].address);
    let mut silent = Client::connect(proxy.address, "h", "silent");
    let mut anna = cluster.nodes[1].connect("h", "anna");
    // Whoever says something again and again stays, well beyond the time after which a silent one is gone.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        silent.expect_nothing();
        assert_ack(&anna.ask(to_user("silent", 1)), 1, 0);
        assert_eq!(silent.next_data(), 1);
        assert_eq!(anna.next_within(Duration::from_millis(100)), None);
    }
    proxy.set_both(Way::Lost);
    // Nobody can know yet: it counts as handed to.
    assert_ack(&anna.ask(to_user("silent", 2)), 1, 0);
    for node in &cluster.nodes {
        eventually("it is gone", || {
            anna.expect_nothing();
            node.call("HEAD", "/users/silent").status == 404
        });
    }
    assert_ack(&anna.ask(to_user("silent", 3)), 0, 1);
    cluster.nodes[0].await_metric("tieline_connections_ended_total{reason=\"silent\"}", 1);
    // What was lost stays lost, and the client finds its connection closed when its network is back.
    proxy.heal();
    assert_eq!(silent.next_within(PATIENCE), None);
}
