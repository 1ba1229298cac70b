//! Nodes that cannot be reached and live: what senders are told, who is kept, and what is told when there is a way again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_core::broker::MemoryExchange;
use tieline_core::{ClusterTimes, Subprotocol};

use crate::house::{Guest, House, Peer, eventually, patient};

const LEASE: Duration = Duration::from_millis(600);

fn houses(count: usize, lease: Duration) -> (Vec<House>, MemoryExchange) {
    let exchange = MemoryExchange::links();
    let times = ClusterTimes { beat: Duration::from_millis(100), lease, ..patient() };
    let mut houses: Vec<House> = (0..count).map(|_| House::named(1)).collect();
    houses.iter_mut().for_each(|house| house.join(&exchange, times));
    houses.iter().for_each(|house| house.wait_for_peers(count - 1));
    (houses, exchange)
}

fn tieline(house: &House, user: &str) -> Peer {
    house.user(0, Subprotocol::Tieline, user)
}

/// Parts the first two houses, and waits until both know.
fn part(houses: &[House], exchange: &MemoryExchange) {
    let [a, b] = [&houses[0].node, &houses[1].node];
    exchange.part(a.id().incarnation, b.id().incarnation);
    for node in [a, b] {
        eventually(|| node.cluster().unwrap().peers().iter().filter(|peer| !peer.is_reached()).count() == 1);
    }
}

/// The next ack, whatever gap is told before it.
fn ack(client: &mut Peer) -> Value {
    std::iter::from_fn(|| Some(client.receive())).find(|heard| heard["type"] == "ack").unwrap()
}

fn counts(ack: &Value) -> [&Value; 4] {
    ["success", "delivered", "unknown", "unreachable"].map(|key| &ack[key])
}

fn told(delivered: u64, unknown: u64, unreachable: u64) -> [Value; 4] {
    [json!(true), json!(delivered), json!(unknown), json!(unreachable)]
}

#[test]
fn every_kind_of_send_tells_of_a_node_that_cannot_be_reached() {
    let (houses, exchange) = houses(3, Duration::from_secs(600));
    let mut alice = tieline(&houses[0], "alice");
    let (mut bob, connected) = houses[1].connect(0, Guest::new(Subprotocol::Tieline, "bob"));
    let mut carol = tieline(&houses[2], "carol");
    alice.join("room", 1);
    bob.join("room", 1);
    carol.join("room", 1);
    part(&houses, &exchange);
    let id = &connected["connectionId"];
    let sends = [
        (json!({"type": "sendToUser", "user": "bob", "data": 1, "ackId": 2}), told(0, 0, 1)),
        (json!({"type": "sendToUser", "user": "nobody", "data": 1, "ackId": 3}), told(0, 1, 0)),
        (
            json!({"type": "sendToGroup", "group": "room", "noEcho": true, "data": 1, "ackId": 4}),
            told(1, 0, 1),
        ),
        (json!({"type": "sendToGroup", "group": "empty", "data": 1, "ackId": 5}), told(0, 0, 0)),
        (json!({"type": "sendToAll", "noEcho": true, "data": 1, "ackId": 6}), told(1, 0, 1)),
        (
            json!({"type": "send", "to": {"users": ["bob", "carol", "nobody"], "connections": [id]}, "data": 1, "ackId": 7}),
            told(1, 1, 1),
        ),
    ];
    for (frame, expected) in sends {
        alice.send(frame.clone());
        let ack = alice.receive();
        assert_eq!(counts(&ack), expected.each_ref(), "{frame}");
    }
    for _ in 0..3 {
        assert_eq!(carol.receive()["data"], 1);
    }
    bob.expect_nothing();
    // Those who were not reached are told that they may have missed something, as soon as there is a way.
    exchange.mend(houses[0].node.id().incarnation, houses[1].node.id().incarnation);
    assert_eq!(bob.receive(), json!({"type": "system", "event": "gap"}));
    houses[0].wait_for_peers(2);
    eventually(|| houses[0].node.cluster().unwrap().peers().iter().all(|peer| peer.is_reached()));
    alice.send(json!({"type": "sendToUser", "user": "bob", "data": 2, "ackId": 8}));
    assert_eq!(counts(&ack(&mut alice)), told(1, 0, 0).each_ref());
    assert_eq!(bob.receive_but_gaps()["data"], 2, "a gap may be told once more");
}

#[test]
fn who_is_vouched_for_is_kept_and_forgotten_when_its_voucher_loses_it_too() {
    let (houses, exchange) = houses(3, LEASE);
    let mut alice = tieline(&houses[0], "alice");
    let mut bob = tieline(&houses[1], "bob");
    bob.join("room", 1);
    part(&houses, &exchange);
    let since = Instant::now();
    let cluster = houses[0].node.cluster().unwrap();
    eventually(|| cluster.peers().iter().any(|peer| peer.is_vouched));
    while since.elapsed() < LEASE * 3 {
        assert_eq!(cluster.peers().len(), 2, "it is kept beyond its lease");
        std::thread::yield_now();
    }
    for (ack_id, to) in [(1, "sendToUser"), (2, "sendToGroup")] {
        alice.send(json!({"type": to, "user": "bob", "group": "room", "data": 1, "ackId": ack_id}));
        assert_eq!(counts(&ack(&mut alice)), told(0, 0, 1).each_ref());
    }
    exchange.cut(houses[1].node.id().incarnation);
    eventually(|| cluster.peers().len() == 1);
    alice.send(json!({"type": "sendToUser", "user": "bob", "data": 1, "ackId": 3}));
    assert_eq!(counts(&ack(&mut alice)), told(0, 1, 0).each_ref());
}

#[test]
fn a_link_that_is_mended_brings_what_changed_meanwhile() {
    let (houses, exchange) = houses(3, LEASE);
    let mut alice = tieline(&houses[0], "alice");
    let mut bob = tieline(&houses[1], "bob");
    part(&houses, &exchange);
    // Nobody waits for who cannot be reached.
    bob.join("room", 1);
    exchange.mend(houses[0].node.id().incarnation, houses[1].node.id().incarnation);
    let mut ack_id = 0;
    eventually(|| {
        ack_id += 1;
        alice.send(json!({"type": "sendToGroup", "group": "room", "data": 1, "ackId": ack_id}));
        ack(&mut alice)["delivered"] == 1
    });
}
