//! Nodes on a medium, which tells of nobody and can be away: who is known, and what an outage does and does not do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tieline_core::broker::MemoryExchange;
use tieline_core::cluster::ClusterCounters;
use tieline_core::{Cluster, ClusterTimes, Subprotocol};

use crate::house::{House, Peer, eventually, patient};

/// Beats that are quick, and a lease that a few of them fit into.
fn quick() -> ClusterTimes {
    let (beat, lease) = (Duration::from_millis(100), Duration::from_millis(600));
    ClusterTimes { beat, lease, ..patient() }
}

fn houses(count: usize, times: ClusterTimes) -> (Vec<House>, MemoryExchange) {
    let exchange = MemoryExchange::medium();
    (houses_on(&exchange, count, times), exchange)
}

fn houses_on(exchange: &MemoryExchange, count: usize, times: ClusterTimes) -> Vec<House> {
    let mut houses: Vec<House> = (0..count).map(|_| House::named(1)).collect();
    houses.iter_mut().for_each(|house| house.join(exchange, times));
    houses.iter().for_each(|house| house.wait_for_peers(count - 1));
    houses
}

fn cluster(house: &House) -> &Arc<Cluster> {
    house.node.cluster().unwrap()
}

fn count(house: &House, count: fn(&ClusterCounters) -> &AtomicU64) -> u64 {
    count(cluster(house).counters()).load(Ordering::Relaxed)
}

fn tieline(house: &House, user: &str) -> Peer {
    house.user(0, Subprotocol::Tieline, user)
}

#[test]
fn what_is_lost_just_after_a_notice_is_told_too() {
    let times = ClusterTimes { lease: Duration::from_secs(600), ..quick() };
    let (houses, exchange) = houses(2, times);
    let mut alice = tieline(&houses[0], "alice");
    let mut bob = tieline(&houses[1], "bob");
    bob.join("room", 1);
    let nodes = [0, 1].map(|at: usize| houses[at].node.id().incarnation);
    let mut say = |number: u64| {
        alice.send(json!({"type": "sendToGroup", "group": "room", "noEcho": true, "data": number}));
        // What was sent before this is on its way when it is answered.
        alice.send(json!({"type": "ping"}));
        assert_eq!(alice.receive_but_gaps()["type"], "pong");
    };
    let mut lose = |lost: u64| {
        exchange.part(nodes[0], nodes[1]);
        say(lost);
        exchange.mend(nodes[0], nodes[1]);
        eventually(|| cluster(&houses[0]).peers().iter().all(|peer| peer.is_reached()));
        say(lost + 1);
    };
    lose(1);
    let first = [bob.receive(), bob.receive()];
    assert!(first.iter().any(|frame| frame["data"] == 2), "{first:?}");
    assert!(first.iter().any(|frame| frame["event"] == "gap"), "{first:?}");
    for lost in [3, 5] {
        lose(lost);
        assert_eq!(bob.receive_but_gaps()["data"], lost + 1);
    }
    assert_eq!(bob.receive()["event"], "gap", "the last loss is told behind the last message");
}

#[test]
fn who_joined_before_the_others_knew_is_told_of_a_gap_when_they_do() {
    // Logins are read in far less; what nobody reads is waited for as long.
    let read = Duration::from_secs(2);
    let times = ClusterTimes { lease: Duration::from_secs(600), read, ..quick() };
    let (houses, exchange) = houses(2, times);
    let mut alice = tieline(&houses[0], "alice");
    let mut bob = tieline(&houses[1], "bob");
    let nodes = [0, 1].map(|at: usize| houses[at].node.id().incarnation);
    exchange.mute(nodes[1], nodes[0]);
    bob.join("room", 1);
    eventually(|| count(&houses[1], |c| &c.unread) == 1);
    let mut say = |number: u64| {
        alice.send(json!({"type": "sendToGroup", "group": "room", "data": number, "ackId": number}));
        alice.receive_but_gaps()["delivered"].clone()
    };
    assert_eq!(say(1), 0);
    exchange.mend(nodes[1], nodes[0]);
    // Nothing that was sent to his node is missing there: no number tells of it.
    assert_eq!(bob.receive(), json!({"type": "system", "event": "gap"}));
    assert_eq!(count(&houses[1], |c| &c.missing), 0);
    assert_eq!(say(2), 1);
    assert_eq!(bob.receive()["data"], 2);
}

#[test]
fn who_starts_is_met_at_once_and_learns_who_is_where() {
    // The next beat would come far too late for this test.
    let slow = ClusterTimes { beat: Duration::from_secs(600), ..patient() };
    let (mut houses, exchange) = houses(2, slow);
    let mut member = tieline(&houses[0], "member");
    member.join("room", 1);
    let mut late = House::named(1);
    late.join(&exchange, slow);
    late.wait_for_peers(2);
    houses.push(late);
    houses.iter().for_each(|house| house.wait_for_peers(2));
    let mut sender = tieline(&houses[2], "sender");
    sender.join("room", 1);
    sender.send(json!({"type": "sendToGroup", "group": "room", "noEcho": true, "data": 1, "ackId": 2}));
    assert_eq!(sender.receive()["delivered"], 1);
    assert_eq!(member.receive()["data"], 1);
    let mut back = tieline(&houses[1], "back");
    back.send(json!({"type": "sendToGroup", "group": "room", "data": 2, "ackId": 1}));
    assert_eq!(back.receive()["delivered"], 2);
}

#[test]
fn who_falls_silent_is_forgotten_after_its_lease_and_who_says_goodbye_at_once() {
    let (mut houses, exchange) = houses(3, quick());
    exchange.cut(houses[2].node.id().incarnation);
    let since = Instant::now();
    houses[..2].iter().for_each(|house| house.wait_for_peers(1));
    assert!(since.elapsed() >= Duration::from_millis(400), "a lease is not cut short");
    let long = Duration::from_secs(600);
    let (fresh, _exchange) = self::houses(2, ClusterTimes { lease: long, ..quick() });
    let mut fresh = fresh.into_iter();
    let (stays, goes) = (fresh.next().unwrap(), fresh.next().unwrap());
    drop(goes);
    stays.wait_for_peers(0);
    // One that was cut off alone keeps whom it knew, however long that lasts.
    let cut = houses.pop().unwrap();
    assert!(!cluster(&cut).is_broker_up());
    assert_eq!(cluster(&cut).peers().len(), 2);
}

#[test]
fn an_outage_expires_nobody_and_what_it_lost_is_noticed_at_once() {
    // Beats are so rare that only the one said at the return can tell of the loss in time.
    let times = ClusterTimes { beat: Duration::from_secs(600), ..quick() };
    let lasting = ClusterTimes { lease: Duration::from_secs(600), ..times };
    let (houses, exchange) = houses(2, lasting);
    let mut alice = tieline(&houses[0], "alice");
    let mut bob = tieline(&houses[1], "bob");
    exchange.go_away();
    houses.iter().for_each(|house| eventually(|| !cluster(house).is_broker_up()));
    for house in &houses {
        eventually(|| cluster(house).peers().iter().all(|peer| !peer.is_reached()));
    }
    // Its own clients are served meanwhile, and nobody waits for who cannot answer.
    bob.join("room", 1);
    assert_eq!(count(&houses[1], |c| &c.unread), 0);
    exchange.come_back();
    houses.iter().for_each(|house| eventually(|| cluster(house).is_broker_up()));
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.receive(), json!({"type": "system", "event": "gap"}));
    }
    // Alice's node has read by now, or soon reads, what bob joined in the meantime.
    let mut ack_id = 1;
    eventually(|| {
        ack_id += 1;
        alice.send(json!({"type": "sendToGroup", "group": "room", "data": 2, "ackId": ack_id}));
        alice.receive_but_gaps()["delivered"] == 1
    });
    assert_eq!(bob.receive_but_gaps()["data"], 2);
    assert!(count(&houses[0], |c| &c.missing) > 0, "what was stated in the meantime was missed");
}

#[test]
fn what_a_medium_keeps_through_its_outage_is_late_and_nothing_is_missed() {
    let exchange = MemoryExchange::keeping();
    let houses = houses_on(&exchange, 2, quick());
    let mut alice = tieline(&houses[0], "alice");
    let mut bob = tieline(&houses[1], "bob");
    bob.join("room", 1);
    exchange.go_away();
    let since = Instant::now();
    houses.iter().for_each(|house| eventually(|| !cluster(house).is_broker_up()));
    // Nobody waits for what cannot be answered, nobody is thought lost or dead, and messages are taken.
    let asked = Instant::now();
    alice.join("room", 1);
    assert!(asked.elapsed() < quick().read / 2, "a join waited for {:?}", asked.elapsed());
    for number in 0..3 {
        alice.send(json!({"type": "sendToGroup", "group": "room", "noEcho": true, "data": number}));
    }
    eventually(|| since.elapsed() > quick().lease * 2);
    assert!(houses.iter().all(|house| cluster(house).peers().iter().all(|peer| peer.is_reached())));
    exchange.come_back();
    houses.iter().for_each(|house| eventually(|| cluster(house).is_broker_up()));
    for number in 0..3 {
        assert_eq!(bob.receive()["data"], number, "no gap was told before it, and nothing is missing");
    }
    // What she joined was known to nobody meanwhile: until now it may have been sent past her.
    assert_eq!(alice.receive(), json!({"type": "system", "event": "gap"}));
    bob.send(json!({"type": "sendToGroup", "group": "room", "noEcho": true, "data": "back", "ackId": 9}));
    assert_eq!(bob.receive()["delivered"], 1, "what was joined meanwhile is known");
    assert_eq!(alice.receive()["data"], "back");
    houses.iter().for_each(|house| assert_eq!(count(house, |c| &c.missing), 0));
}

#[test]
fn leases_do_not_run_while_the_medium_is_away() {
    let (houses, exchange) = houses(2, quick());
    let _bob = tieline(&houses[1], "bob");
    exchange.go_away();
    let since = Instant::now();
    eventually(|| since.elapsed() > quick().lease * 2);
    exchange.come_back();
    let gone = || houses.iter().any(|house| cluster(house).peers().len() != 1);
    let back = Instant::now();
    while back.elapsed() < quick().lease / 2 {
        assert!(!gone(), "everybody has a fresh lease");
        std::thread::yield_now();
    }
    let mut alice = tieline(&houses[0], "alice");
    alice.send(json!({"type": "sendToUser", "user": "bob", "data": 1, "ackId": 1}));
    assert_eq!(alice.receive()["delivered"], 1);
}
