//! Several nodes in one process, joined by the memory broker: whom a message reaches, and what its sender is told.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tieline_core::ask::sending::{Sending, Wants};
use tieline_core::ask::{Answer, Ask, Who};
use tieline_core::broker::{Inbound, MemoryExchange};
use tieline_core::delivery::{Outcome, Target};
use tieline_core::{ClusterTimes, Limits, Subprotocol};
use tieline_proto::{GroupName, HubName, Incarnation, Payload, UserId};
use tieline_switchboard::Settings;

use crate::house::{Guest, Heard, House, Peer, eventually, patient};

fn houses(count: usize) -> (Vec<House>, MemoryExchange) {
    let exchange = MemoryExchange::default();
    let mut houses: Vec<House> = (0..count).map(|_| House::named(2)).collect();
    for house in &mut houses {
        let lease = Duration::from_millis(300);
        house.join(&exchange, ClusterTimes { lease, ..patient() });
    }
    for house in &houses {
        house.wait_for_peers(count - 1);
    }
    (houses, exchange)
}

fn tieline(house: &House, shard: u16, user: &str) -> Peer {
    house.user(shard, Subprotocol::Tieline, user)
}

#[test]
fn a_message_sent_after_the_ack_of_a_join_arrives_from_every_node() {
    let (houses, _exchange) = houses(3);
    let mut sender = tieline(&houses[0], 0, "sender");
    for round in 0..20 {
        let group = format!("room {round}");
        let mut members: Vec<Peer> =
            (0..6).map(|n| tieline(&houses[n % 3], n as u16 / 3, &format!("u{round}-{n}"))).collect();
        for member in &mut members {
            member.join(&group, 1);
        }
        sender.send(json!({"type": "sendToGroup", "group": group, "data": round, "ackId": round}));
        assert_eq!(sender.receive()["delivered"], 6);
        for member in &mut members {
            let heard = member.receive();
            assert_eq!((&heard["data"], &heard["fromUserId"]), (&json!(round), &json!("sender")));
        }
    }
    assert_eq!(unread(&houses), 0, "no join was answered before all nodes had read of it");
}

fn unread(houses: &[House]) -> u64 {
    let unread = |house: &House| {
        house.node.cluster().unwrap().counters().unread.load(std::sync::atomic::Ordering::Relaxed)
    };
    houses.iter().map(unread).sum()
}

#[test]
fn users_everybody_and_connections_are_reached_wherever_they_are() {
    let (houses, _exchange) = houses(3);
    let mut alice = tieline(&houses[0], 0, "alice");
    let (mut bob, connected) = houses[1].connect(1, Guest::new(Subprotocol::Azure, "bob"));
    let mut bob_too = houses[2].user(0, Subprotocol::Plain, "bob");
    // A plain client is not greeted: it is there once its node counts it, and then the others have read of it.
    let hub = HubName::new("hub").unwrap();
    eventually(|| houses[2].node.hubs().get(&hub).is_some_and(|hub| hub.user_connections("bob") == 1));

    alice.send(json!({"type": "sendToUser", "user": "bob", "data": 1, "ackId": 1}));
    let ack = alice.receive();
    assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(2), &json!(0)));
    assert_eq!(bob.receive()["data"], 1);
    assert_eq!(bob_too.receive()["msg"], 1);

    alice.send(json!({"type": "sendToAll", "data": 2, "noEcho": true, "ackId": 2}));
    assert_eq!(alice.receive()["delivered"], 2);
    assert_eq!(bob.receive()["data"], 2);
    assert_eq!(bob_too.receive()["msg"], 2);

    let to = json!({"users": ["bob", "nobody"], "connections": [connected["connectionId"]]});
    alice.send(json!({"type": "send", "to": to, "data": 3, "ackId": 3}));
    let ack = alice.receive();
    assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(2), &json!(1)));
    assert_eq!(bob.receive()["data"], 3);
    assert_eq!(bob_too.receive()["msg"], 3);

    // Back the other way, from a protocol that is told no numbers.
    bob.send(json!({"type": "joinGroup", "group": "g", "ackId": 1}));
    assert_eq!(bob.receive()["success"], true);
    alice.join("g", 4);
    bob.send(json!({"type": "sendToGroup", "group": "g", "noEcho": true, "dataType": "text", "data": "back", "ackId": 2}));
    assert_eq!(bob.receive(), json!({"type": "ack", "ackId": 2, "success": true}));
    assert_eq!(alice.receive()["data"], "back");
    bob.expect_nothing();
}

#[test]
fn the_order_of_a_sender_is_kept_across_nodes() {
    let (houses, _exchange) = houses(2);
    let mut sender = tieline(&houses[0], 0, "sender");
    let mut receiver = tieline(&houses[1], 1, "receiver");
    receiver.join("room", 1);
    for n in 0..2_000 {
        let frame = match n % 2 {
            0 => json!({"type": "sendToGroup", "group": "room", "data": n}),
            _ => json!({"type": "sendToUser", "user": "receiver", "data": n}),
        };
        sender.send(frame);
    }
    for n in 0..2_000 {
        assert_eq!(receiver.receive()["data"], n);
    }
    receiver.expect_nothing();
}

#[test]
fn who_left_is_reached_no_more() {
    let (houses, _exchange) = houses(2);
    let mut sender = tieline(&houses[0], 0, "sender");
    let mut member = tieline(&houses[1], 0, "member");
    member.join("room", 1);
    member.send(json!({"type": "leaveGroup", "group": "room", "ackId": 2}));
    assert_eq!(member.receive()["success"], true);
    sender.send(json!({"type": "sendToGroup", "group": "room", "data": 1, "ackId": 1}));
    assert_eq!(sender.receive()["delivered"], 0);
    member.send_frame(tieline_websocket::Opcode::Close, &[]);
    assert!(matches!(member.hear(), Heard::Close(..)));
    let mut ack_id = 1;
    eventually(|| {
        ack_id += 1;
        sender.send(json!({"type": "sendToUser", "user": "member", "data": 1, "ackId": ack_id}));
        let ack = sender.receive();
        assert_eq!(ack["delivered"], 0);
        ack["unknown"] == 1
    });
}

#[test]
fn a_dead_nodes_users_are_gone_within_a_lease_and_a_join_does_not_wait_for_it() {
    let (houses, exchange) = houses(3);
    let mut alice = tieline(&houses[0], 0, "alice");
    let mut bob = tieline(&houses[1], 0, "bob");
    let _gone = tieline(&houses[2], 0, "gone");
    exchange.cut(houses[2].node.id().incarnation);
    let mut ack_id = 0;
    eventually(|| {
        ack_id += 1;
        alice.send(json!({"type": "sendToUser", "user": "gone", "data": 1, "ackId": ack_id}));
        alice.receive()["unknown"] == 1
    });
    eventually(|| houses[0].node.cluster().unwrap().peers().len() == 1);
    bob.join("room", 1);
    alice.send(json!({"type": "sendToGroup", "group": "room", "data": 1, "ackId": 1_000_000}));
    let ack = alice.receive();
    assert_eq!(ack["delivered"], 1, "{ack}");
    assert_eq!(bob.receive()["data"], 1);
    assert_eq!(unread(&houses[..2]), 0);
}

#[test]
fn a_node_that_comes_late_learns_who_is_where() {
    let (mut houses, exchange) = houses(1);
    let mut early = tieline(&houses[0], 0, "early");
    for n in 0..50 {
        early.join(&format!("g{n}"), n);
    }
    let mut late = House::named(1);
    late.join(&exchange, patient());
    houses.push(late);
    houses[1].wait_for_peers(1);
    let mut sender = tieline(&houses[1], 0, "late");
    for n in 0..50 {
        sender.send(json!({"type": "sendToGroup", "group": format!("g{n}"), "data": n, "ackId": n}));
        assert_eq!(sender.receive()["delivered"], 1);
        assert_eq!(early.receive()["data"], n);
    }
}

#[test]
fn the_application_asks_one_node_about_connections_of_all() {
    let (houses, _exchange) = houses(3);
    let hub = HubName::new("hub").unwrap();
    let (mut bob, connected) = houses[2].connect(1, Guest::new(Subprotocol::Azure, "bob"));
    let id = connected["connectionId"].as_str().unwrap().parse().unwrap();
    let group = GroupName::new("room").unwrap();
    let who = || Who::User(UserId::new("bob").unwrap());
    let ask = |ask| houses[0].block_on(houses[0].node.answer_everywhere(&hub, ask)).unwrap();
    assert_eq!(ask(Ask::Exists(who())), Answer::Found(true));
    assert_eq!(ask(Ask::Exists(Who::Connection(id))), Answer::Found(true));
    assert_eq!(ask(Ask::Exists(Who::User(UserId::new("carol").unwrap()))), Answer::Found(false));
    assert_eq!(ask(Ask::Join { who: who(), groups: vec![group.clone()] }), Answer::Reached(1));

    // Once that is answered, a message from any node reaches the new member.
    for (n, house) in houses.iter().enumerate() {
        let payload = Payload::from_text(&n.to_string());
        let to = vec![Target::Group(group.clone())];
        let sending = Sending { to, except: Vec::new(), filter: None, payload, key: None };
        let outcome = house.block_on(house.node.send(&hub, sending, Wants::Outcome)).unwrap();
        assert_eq!(outcome, Some(Outcome::delivered(1)));
        assert_eq!(bob.receive()["data"], n.to_string());
    }
    let close = Ask::Close { who: who(), excluded: Vec::new(), reason: "enough".into() };
    assert_eq!(ask(close), Answer::Reached(1));
    assert_eq!(bob.receive()["message"], "enough");
    assert!(matches!(bob.hear(), Heard::Close(4403, _)));
}

#[test]
fn a_node_that_does_not_answer_makes_an_ask_fail_not_lie() {
    let exchange = MemoryExchange::default();
    let mut house = House::named(1);
    let soon = Duration::from_millis(50);
    let times = ClusterTimes { ask: soon, read: soon, receipt: soon, ..ClusterTimes::default() };
    house.join(&exchange, times);
    let _mute = exchange.join(Incarnation(1), Arc::new(Mute));
    eventually(|| house.node.cluster().unwrap().peers().len() == 1);
    let hub = HubName::new("hub").unwrap();
    let ask = Ask::Exists(Who::User(UserId::new("bob").unwrap()));
    assert!(house.block_on(house.node.answer_everywhere(&hub, ask)).is_err());
    // A send that asks for numbers is told that they are not known.
    let mut alice = tieline(&house, 0, "alice");
    alice.send(json!({"type": "sendToUser", "user": "bob", "data": 1, "ackId": 1}));
    let ack = alice.receive();
    assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(null)));
    assert!(
        unread(std::slice::from_ref(&house)) > 0,
        "the login went on without the mute node, which is counted"
    );
}

/// A node that hears and never speaks.
struct Mute;

impl Inbound for Mute {
    fn envelope(&self, _bytes: &[u8]) {}
    fn reachable(&self, _node: Incarnation) {}
    fn unreachable(&self, _node: Incarnation) {}
    fn away(&self) {}
    fn back(&self) {}
}

#[test]
fn a_roster_of_many_parts_is_learned_whole() {
    const GROUPS: usize = 6_000;
    let exchange = MemoryExchange::default();
    let limits = Limits { messages_per_second: 0, groups_per_connection: GROUPS, ..Limits::default() };
    let mut first = House::with(1, limits, Settings::default());
    first.join(&exchange, patient());
    let mut member = tieline(&first, 0, "member");
    for n in 0..GROUPS {
        member.send(json!({"type": "joinGroup", "group": format!("g{n}")}));
        // A busy machine takes its time for all of them.
        if n % 500 == 499 {
            member.expect_nothing();
        }
    }
    let mut late = House::named(1);
    late.join(&exchange, patient());
    late.wait_for_peers(1);
    let mut sender = tieline(&late, 0, "sender");
    for n in [0, 4_999, 5_000, GROUPS - 1] {
        sender.send(json!({"type": "sendToGroup", "group": format!("g{n}"), "data": n, "ackId": n}));
        assert_eq!(sender.receive()["delivered"], 1, "group {n}");
        assert_eq!(member.receive()["data"], n);
    }
}

#[test]
fn a_member_that_stopped_is_freed() {
    let (mut houses, _exchange) = houses(2);
    let house = houses.pop().unwrap();
    let node = Arc::downgrade(&house.node);
    let cluster = Arc::downgrade(house.node.cluster().unwrap());
    let _bob = tieline(&house, 0, "bob");
    drop(house);
    eventually(|| node.strong_count() == 0 && cluster.strong_count() == 0);
}
