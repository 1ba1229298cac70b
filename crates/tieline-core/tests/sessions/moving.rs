//! The reliable protocol across nodes: a client that was cut comes to another node and gets its connection there, with every
//! message once and in order, while senders on all nodes go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};
use tieline_core::ask::{Answer, Ask, Right, Who};
use tieline_core::broker::MemoryExchange;
use tieline_core::{Arrival, Subprotocol};
use tieline_proto::{CloseCode, ConnectionId, HubName, Permission};

use crate::house::{Guest, Heard, House, Peer, eventually, patient};
use crate::logs::Door;

/// How many messages a sender may be ahead of their reader.
const AHEAD: u64 = 60;

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn id(connected: &Value) -> ConnectionId {
    connected["connectionId"].as_str().unwrap().parse().unwrap()
}

/// Three houses; with a door, they keep groups `kept*` and inboxes.
pub(crate) fn houses(door: Option<&Door>) -> Vec<House> {
    let exchange = MemoryExchange::links();
    let mut houses: Vec<House> = (0..3)
        .map(|_| match door {
            Some(door) => crate::logs::house(door),
            None => House::named(2),
        })
        .collect();
    for house in &mut houses {
        house.join(&exchange, patient());
    }
    for house in &houses {
        house.wait_for_peers(2);
    }
    houses
}

/// What `tieline serve` does with a client that wants its connection back.
pub(crate) fn recover(house: &House, connected: &Value) -> Peer {
    let token = connected["reconnectionToken"].as_str().unwrap().to_owned();
    let (shard, arrival) = house.block_on(house.node.bring(hub(), id(connected), token));
    house.adopt(shard.unwrap_or(0), arrival, Subprotocol::AzureReliable)
}

fn reliable(house: &House, shard: u16, user: &str) -> (Peer, Value) {
    house.connect(shard, Guest::new(Subprotocol::AzureReliable, user))
}

/// Everything up to a fence, by sequence number: a number that comes again must bring the same.
fn read_until(peer: &mut Peer, seen: &mut Vec<(u64, Value)>, done: impl Fn(&Value) -> bool) {
    loop {
        let message = peer.receive();
        if message["type"] != "message" {
            continue;
        }
        let number = message["sequenceId"].as_u64().unwrap();
        match seen.binary_search_by_key(&number, |(of, _)| *of) {
            Ok(at) => assert_eq!(seen[at].1, message, "a number came again with something else"),
            Err(_) => {
                assert!(seen.last().is_none_or(|(last, _)| *last < number), "{number} came late");
                seen.push((number, message.clone()));
            }
        }
        if done(&message) {
            return;
        }
    }
}

/// One client goes from node to node while every node has a sender that goes on; `acks` says whether it acknowledges.
fn wander(houses: &[House], group: &str, to: fn(&str, u64) -> Value) {
    let (mut peer, mut connected) = reliable(&houses[0], 0, "u");
    peer.send(json!({"type": "joinGroup", "group": group, "ackId": 1}));
    assert_eq!(peer.receive()["success"], true);
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut seen: Vec<(u64, Value)> = Vec::new();
    let sent: Vec<u64> = thread::scope(|scope| {
        let senders: Vec<_> = houses
            .iter()
            .enumerate()
            .map(|(at, house)| {
                let mut sender = house.user(1, Subprotocol::Tieline, &format!("s{at}"));
                let (stop, read) = (&stop, &read);
                scope.spawn(move || {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        if n > read.load(Ordering::Relaxed) / 3 + AHEAD {
                            thread::yield_now();
                            continue;
                        }
                        n += 1;
                        let mut frame = to(group, n);
                        frame["ackId"] = n.into();
                        sender.send(frame);
                        let ack = sender.receive();
                        assert_eq!(ack["success"], true, "{ack}");
                    }
                    // Behind everything else, and to be seen by all.
                    let mut frame = to(group, n + 1);
                    frame["data"] = json!("end");
                    sender.send(frame);
                    n
                })
            })
            .collect();
        for round in 0..12 {
            let target = seen.len() + 30;
            let mut count = seen.len();
            while count < target {
                read_until(&mut peer, &mut seen, |_| true);
                count += 1;
                read.store(seen.len() as u64, Ordering::Relaxed);
            }
            if round % 3 != 0 {
                let last = seen.last().unwrap().0;
                peer.send(json!({"type": "sequenceAck", "sequenceId": last}));
            }
            if round % 4 == 3 {
                // The old socket is there when the new one comes.
                let next = recover(&houses[(round + 1) % houses.len()], &connected);
                drop(std::mem::replace(&mut peer, next));
            } else {
                peer.sever();
                peer = recover(&houses[(round + 1) % houses.len()], &connected);
            }
            let again = peer.receive();
            assert_eq!(
                (&again["event"], &again["connectionId"]),
                (&json!("connected"), &connected["connectionId"])
            );
            connected = again;
        }
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let ends = |seen: &Vec<(u64, Value)>| seen.iter().filter(|(_, message)| message["data"] == "end").count();
    while ends(&seen) < houses.len() {
        read_until(&mut peer, &mut seen, |_| true);
    }
    for (at, count) in sent.iter().enumerate() {
        let user = format!("s{at}");
        let got: Vec<u64> = seen
            .iter()
            .filter(|(_, message)| message["fromUserId"] == user)
            .filter_map(|(_, message)| message["data"].as_u64())
            .collect();
        assert_eq!(got, (1..=*count).collect::<Vec<u64>>(), "what {user} sent, once each and in order");
    }
}

#[test]
fn a_wandering_client_gets_every_live_message_once() {
    wander(&houses(None), "room", |group, n| json!({"type": "sendToGroup", "group": group, "data": n}));
}

#[test]
fn a_wandering_client_gets_every_live_message_to_its_user_once() {
    wander(&houses(None), "room", |_, n| json!({"type": "sendToUser", "user": "u", "data": n}));
}

#[test]
fn a_wandering_client_gets_every_durable_message_once() {
    let door = Door::new();
    wander(
        &houses(Some(&door)),
        "kept",
        |group, n| json!({"type": "sendToGroup", "group": group, "data": n}),
    );
}

#[test]
fn a_wandering_client_gets_its_inbox_once() {
    let door = Door::new();
    wander(&houses(Some(&door)), "kept", |_, n| json!({"type": "sendToUser", "user": "u", "data": n}));
}

#[test]
fn a_connection_that_moved_is_found_by_its_id_and_keeps_what_it_was_given() {
    let houses = houses(None);
    let (mut peer, connected) = reliable(&houses[0], 0, "u");
    peer.join("room", 1);
    peer.cut();
    let mut peer = recover(&houses[1], &connected);
    let connected = peer.receive();
    assert_eq!(connected["event"], "connected");
    let id = id(&connected);
    for house in &houses {
        eventually(|| {
            house.block_on(house.node.answer_everywhere(&hub(), Ask::Exists(Who::Connection(id)))).unwrap()
                == Answer::Found(true)
        });
        let mut sender = house.user(0, Subprotocol::Tieline, "s");
        sender.send(json!({"type": "send", "to": {"connections": [id]}, "data": 1, "ackId": 1}));
        let ack = sender.receive();
        assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(1), &json!(0)), "{ack}");
        assert_eq!(peer.receive()["data"], 1);
        // Excluded by its id, wherever that is said.
        sender.send(
            json!({"type": "send", "to": {"groups": ["room"], "excluded": [id]}, "data": 2, "ackId": 2}),
        );
        assert_eq!(sender.receive()["delivered"], 0);
    }
    // A request that was carried out before is known.
    peer.send(json!({"type": "joinGroup", "group": "room", "ackId": 1}));
    assert_eq!(peer.receive()["error"]["name"], "Duplicate");
    let right = Right { connection: id, permission: Permission::SendToAll, target: None };
    let ask = |house: &House, ask: Ask| house.block_on(house.node.answer_everywhere(&hub(), ask)).unwrap();
    assert_eq!(ask(&houses[2], Ask::Revoke(right.clone())), Answer::Reached(1));
    assert_eq!(ask(&houses[0], Ask::Holds(right.clone())), Answer::Found(false));
    // Home again, to the node that its id names.
    peer.cut();
    let mut peer = recover(&houses[0], &connected);
    let connected = peer.receive();
    assert_eq!(connected["event"], "connected");
    assert_eq!(ask(&houses[1], Ask::Holds(right)), Answer::Found(false));
    let close = Ask::Close { who: Who::Connection(id), excluded: Vec::new(), reason: "closed".into() };
    eventually(|| ask(&houses[2], close.clone()) == Answer::Reached(1));
    // What it did not acknowledge comes again before.
    let last = std::iter::repeat_with(|| peer.receive()).find(|frame| frame["type"] != "message").unwrap();
    assert_eq!(last["event"], "disconnected");
    assert!(matches!(peer.hear(), Heard::Close(1008, _)));
    // What was closed from outside is nowhere.
    for house in &houses {
        assert!(matches!(recover(house, &connected).hear(), Heard::Close(1008, _)));
    }
    for house in &houses {
        eventually(|| house.node.hubs().get(&hub()).is_none_or(|hub| hub.user_connections("u") == 0));
    }
}

#[test]
fn who_has_no_proof_disturbs_nobody_and_two_sockets_are_one_connection() {
    let houses = houses(None);
    let (mut peer, connected) = reliable(&houses[0], 0, "u");
    for token in ["", "forged"] {
        let arrival = houses[1].block_on(houses[1].node.bring(hub(), id(&connected), token.into())).1;
        assert!(matches!(arrival, Arrival::Refused(CloseCode::PolicyViolation)));
    }
    let token = connected["reconnectionToken"].as_str().unwrap();
    let other = HubName::new("other").unwrap();
    let arrival = houses[1].block_on(houses[1].node.bring(other, id(&connected), token.into())).1;
    assert!(matches!(arrival, Arrival::Refused(CloseCode::PolicyViolation)));
    peer.expect_nothing();
    peer.cut();
    // Both at once: one of them has it in the end, and one alone.
    for round in 0..10 {
        let user = format!("twice {round}");
        let (peer, connected) = reliable(&houses[0], 0, &user);
        peer.cut();
        let token = connected["reconnectionToken"].as_str().unwrap();
        let (house, id) = (&houses, id(&connected));
        let bring = |at: usize| {
            let (node, token) = (house[at].node.clone(), token.to_owned());
            move || matches!(house[at].block_on(node.bring(hub(), id, token)).1, Arrival::Recovery { .. })
        };
        thread::scope(|scope| {
            let (one, two) = (scope.spawn(bring(1)), scope.spawn(bring(2)));
            assert!(one.join().unwrap() || two.join().unwrap(), "nobody has it");
        });
        let held = |house: &House| house.node.hubs().get(&hub()).map_or(0, |hub| hub.user_connections(&user));
        let holders = || houses.iter().map(held).sum::<usize>();
        eventually(|| holders() == 1);
    }
}

#[test]
fn what_is_read_of_an_inbox_at_another_node_is_read() {
    let door = Door::new();
    let houses = houses(Some(&door));
    let (mut peer, connected) = reliable(&houses[0], 0, "u");
    let mut sender = houses[2].user(0, Subprotocol::Tieline, "s");
    let mut send = |n: u64| {
        sender.send(json!({"type": "sendToUser", "user": "u", "data": n, "ackId": n}));
        assert_eq!(sender.receive()["success"], true);
    };
    (1..=3).for_each(&mut send);
    let mut seen = Vec::new();
    read_until(&mut peer, &mut seen, |message| message["data"] == 3);
    peer.cut();
    send(4);
    let mut peer = recover(&houses[1], &connected);
    let again = peer.receive();
    assert_eq!(again["event"], "connected");
    send(5);
    read_until(&mut peer, &mut seen, |message| message["data"] == 5);
    // The numbers are those of both nodes; the place that the last one stands for is read.
    assert_eq!(seen.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    peer.send(json!({"type": "sequenceAck", "sequenceId": 4}));
    peer.expect_nothing();
    peer.send_frame(tieline_websocket::Opcode::Close, &[]);
    assert!(matches!(peer.hear(), Heard::Close(1005, _)));
    // Places are written once a second; a new connection begins behind what was read.
    eventually(|| {
        let (mut next, _) = reliable(&houses[2], 1, "u");
        let first = next.receive();
        next.send_frame(tieline_websocket::Opcode::Close, &[]);
        first["data"] == 5
    });
}
