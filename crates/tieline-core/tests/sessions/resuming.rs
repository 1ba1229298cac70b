//! The reliable protocol when a node is dead: another one resumes its connections from the store, where everything that they get
//! is kept there. The store is in memory; a node is killed by taking its tasks and its links away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_core::ask::{Ask, Who};
use tieline_core::broker::MemoryExchange;
use tieline_core::records::{RecordKey, Records};
use tieline_core::store::{Cut, LogKey, Store};
use tieline_core::{Arrival, ClusterTimes, Subprotocol};
use tieline_proto::{CloseCode, ConnectionId, GroupName, HubName, Position};
use tieline_websocket::Opcode;

use crate::house::{Guest, Heard, House, PATIENCE, Peer, eventually, patient};
use crate::logs::{Door, futures_block, rules};

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn id(connected: &Value) -> ConnectionId {
    connected["connectionId"].as_str().unwrap().parse().unwrap()
}

/// Some houses with one store, which forget each other soon.
fn houses(count: usize, door: &Door) -> (Vec<House>, MemoryExchange) {
    let exchange = MemoryExchange::links();
    let lease = Duration::from_millis(300);
    let times = ClusterTimes { beat: Duration::from_millis(100), lease, ..patient() };
    let mut houses: Vec<House> = (0..count).map(|_| crate::logs::house(door)).collect();
    houses.iter_mut().for_each(|house| house.join(&exchange, times));
    houses.iter().for_each(|house| house.wait_for_peers(count - 1));
    (houses, exchange)
}

fn reliable(house: &House, user: &str) -> (Peer, Value) {
    house.connect(0, Guest::new(Subprotocol::AzureReliable, user))
}

/// What the store has of a connection.
fn record(door: &Door, connected: &Value) -> Option<Value> {
    let key = RecordKey::new(&format!("connection/{}", connected["connectionId"].as_str().unwrap())).unwrap();
    let record = futures_block(door.records.get(key)).unwrap()?;
    Some(serde_json::from_slice(&record.value).unwrap())
}

/// Waits until the store knows that a client has so much of its group's log.
fn wait_for_record(door: &Door, connected: &Value, offset: u64) {
    eventually(|| {
        record(door, connected).is_some_and(|record| record["groups"][0]["at"]["offset"] == offset)
    });
}

fn bring(house: &House, connected: &Value) -> (Option<u16>, Arrival) {
    let token = connected["reconnectionToken"].as_str().unwrap().to_owned();
    house.block_on(house.node.bring(hub(), id(connected), token))
}

/// Comes again until the house has decided: with what it says, or the code that it closes with.
fn recover(house: &House, connected: &Value) -> Result<(Peer, Value), u16> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (shard, arrival) = bring(house, connected);
        let mut peer = house.adopt(shard.unwrap_or(0), arrival, Subprotocol::AzureReliable);
        match peer.hear() {
            Heard::Text(text) => return Ok((peer, serde_json::from_str(&text).unwrap())),
            Heard::Close(1013, _) if Instant::now() < deadline => thread::yield_now(),
            Heard::Close(code, _) => return Err(code),
            other => panic!("{other:?}"),
        }
    }
}

fn send(sender: &mut Peer, group: &str, number: u64) {
    sender.send(json!({"type": "sendToGroup", "group": group, "data": number, "ackId": number}));
    let ack = sender.receive();
    assert_eq!(ack["success"], true, "{ack}");
}

fn next(peer: &mut Peer) -> (u64, u64) {
    loop {
        let frame = peer.receive();
        if frame["type"] == "message" {
            return (frame["sequenceId"].as_u64().unwrap(), frame["data"].as_u64().unwrap());
        }
    }
}

fn acknowledge(peer: &mut Peer, number: u64) {
    peer.send(json!({"type": "sequenceAck", "sequenceId": number}));
}

#[test]
fn a_client_of_dead_nodes_misses_nothing_while_a_sender_goes_on() {
    let door = Door::new();
    let (mut houses, exchange) = houses(4, &door);
    let last = houses.pop().unwrap();
    let (mut peer, mut connected) = reliable(&houses[0], "u");
    peer.join("kept", 1);
    let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut sender = last.user(0, Subprotocol::Tieline, "s");
    let sending = {
        let (stop, read) = (Arc::clone(&stop), Arc::clone(&read));
        thread::spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                if number > read.load(Ordering::Relaxed) + 200 {
                    thread::yield_now();
                    continue;
                }
                number += 1;
                if number % 3 == 0 {
                    sender.send(json!({"type": "sendToUser", "user": "u", "data": number, "ackId": number}));
                    assert_eq!(sender.receive()["success"], true);
                } else {
                    send(&mut sender, "kept", number);
                }
            }
            number
        })
    };
    let mut got: BTreeSet<u64> = BTreeSet::new();
    for generation in 1..=3 {
        let mut highest = [0; 2];
        for _ in 0..150 {
            let (sequence, number) = next(&mut peer);
            assert_eq!(sequence >> 32, generation - 1, "{sequence}");
            let of_log = &mut highest[usize::from(number % 3 == 0)];
            assert!(*of_log < number, "{number} came behind {of_log}");
            *of_log = number;
            got.insert(number);
            read.fetch_max(number, Ordering::Relaxed);
            if number % 7 == 0 {
                acknowledge(&mut peer, sequence);
            }
        }
        eventually(|| {
            record(&door, &connected).is_some_and(|record| {
                let generation = generation - 1;
                record["generation"] == generation && record["is_settled"] == true
            })
        });
        houses.remove(0).kill(&exchange);
        let house = houses.first().unwrap_or(&last);
        let (again, said) = recover(house, &connected).unwrap();
        assert_eq!(
            (&said["event"], &said["connectionId"]),
            (&json!("connected"), &connected["connectionId"])
        );
        (peer, connected) = (again, said);
        // What it says of its last life means nothing now.
        acknowledge(&mut peer, (generation - 1) << 32 | 1000);
    }
    stop.store(true, Ordering::Relaxed);
    let sent = sending.join().unwrap();
    while got.len() < sent as usize {
        got.insert(next(&mut peer).1);
    }
    assert_eq!(got, (1..=sent).collect::<BTreeSet<u64>>());
    let counters = last.node.checkpoint_counters().unwrap();
    assert_eq!(counters.resumed.load(Ordering::Relaxed), 1);
}

#[test]
fn a_second_death_before_anything_is_written_loses_nothing() {
    let door = Door::new();
    let (mut houses, exchange) = houses(3, &door);
    let mut sender = houses[2].user(0, Subprotocol::Tieline, "s");
    let (mut peer, connected) = reliable(&houses[0], "u");
    peer.join("kept", 1);
    (1..=3).for_each(|number| send(&mut sender, "kept", number));
    assert_eq!((1..=3).map(|_| next(&mut peer)).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3)]);
    acknowledge(&mut peer, 2);
    send(&mut sender, "kept", 4);
    acknowledge(&mut peer, 3);
    // At a mark, or at what was outstanding at none: never more than was acknowledged.
    eventually(|| record(&door, &connected).is_some_and(|record| !record["groups"][0]["at"].is_null()));
    houses.remove(0).kill(&exchange);
    let (mut peer, connected) = recover(&houses[0], &connected).unwrap();
    let (sequence, _) = next(&mut peer);
    assert_eq!(sequence, (1 << 32) + 1);
    // From here on nothing is written down of it.
    door.is_forgetful.store(true, Ordering::SeqCst);
    while next(&mut peer).1 != 4 {}
    acknowledge(&mut peer, (1 << 32) + 1000);
    houses.remove(0).kill(&exchange);
    send(&mut sender, "kept", 5);
    door.is_forgetful.store(false, Ordering::SeqCst);
    let (mut peer, _) = recover(&houses[0], &connected).unwrap();
    let mut got = vec![next(&mut peer)];
    assert_eq!(got[0].0, (2 << 32) + 1);
    while got.last().unwrap().1 != 5 {
        got.push(next(&mut peer));
    }
    let numbers: Vec<u64> = got.iter().map(|(_, number)| *number).collect();
    let first = numbers[0];
    assert!(first <= 4, "{numbers:?}");
    assert_eq!(numbers, (first..=5).collect::<Vec<_>>());
    // It has what it had: its groups, its ackIds, and its user.
    peer.send(json!({"type": "joinGroup", "group": "kept", "ackId": 1}));
    assert_eq!(peer.receive()["error"]["name"], "Duplicate");
    sender.send(json!({"type": "sendToUser", "user": "u", "data": 6, "ackId": 6}));
    assert_eq!(sender.receive()["success"], true);
    assert_eq!(next(&mut peer).1, 6);
}

#[test]
fn of_two_nodes_that_resume_one_connection_one_has_it() {
    let door = Door::new();
    let (mut houses, exchange) = houses(3, &door);
    let clients: Vec<Value> = (0..10)
        .map(|round| {
            let (mut peer, connected) = reliable(&houses[0], &format!("u{round}"));
            peer.join("kept", 1);
            connected
        })
        .collect();
    clients.iter().for_each(|connected| wait_for_record(&door, connected, 0));
    houses.remove(0).kill(&exchange);
    eventually(|| houses.iter().all(|house| house.node.cluster().unwrap().peers().len() == 1));
    for (round, connected) in clients.iter().enumerate() {
        let user = format!("u{round}");
        let won = |house: &House| match bring(house, connected).1 {
            Arrival::Recovery { .. } => true,
            Arrival::Refused(CloseCode::TryAgainLater) => false,
            other => panic!("{user}: {other:?}, and the record is {:?}", record(&door, connected)),
        };
        // Two that do not know of each other for a moment, on a busy machine, may both have it come again.
        eventually(|| {
            thread::scope(|scope| {
                let (one, two) = (scope.spawn(|| won(&houses[0])), scope.spawn(|| won(&houses[1])));
                one.join().unwrap() | two.join().unwrap()
            })
        });
        let held = |house: &House| house.node.hubs().get(&hub()).map_or(0, |hub| hub.user_connections(&user));
        eventually(|| houses.iter().map(held).sum::<usize>() == 1);
        // The one that was beaten may have had it from the other, who lives.
        eventually(|| record(&door, connected).is_some_and(|record| record["is_settled"] == true));
    }
}

#[test]
fn what_is_not_all_kept_is_closed_with_1008() {
    let door = Door::new();
    let (mut houses, exchange) = houses(2, &door);
    let mut sender = houses[1].user(0, Subprotocol::Tieline, "s");
    // In a live group besides, which it joined when there was a record.
    let (mut live, live_connected) = reliable(&houses[0], "live");
    live.join("kept", 1);
    wait_for_record(&door, &live_connected, 0);
    live.join("live", 2);
    assert_eq!(record(&door, &live_connected), None, "the record is gone before the join is answered");
    // Of a log that is trimmed behind what it acknowledged.
    let (mut trimmed, trimmed_connected) = reliable(&houses[0], "trimmed");
    trimmed.join("kept trimmed", 1);
    send(&mut sender, "kept trimmed", 1);
    let (sequence, _) = next(&mut trimmed);
    acknowledge(&mut trimmed, sequence);
    wait_for_record(&door, &trimmed_connected, 1);
    (2..=4).for_each(|number| send(&mut sender, "kept trimmed", number));
    let log = LogKey::Group(hub(), GroupName::new("kept trimmed").unwrap());
    let head = futures_block(door.store.heads(vec![log.clone()])).unwrap()[0].unwrap();
    let through = Position { epoch: head.epoch, offset: 2 };
    futures_block(door.store.trim(log, Cut::Through(through))).unwrap();
    // Without a group or a user there is nothing to be kept.
    let nobody = Guest { user: None, ..Guest::new(Subprotocol::AzureReliable, "") };
    let (_nobody, nobody_connected) = houses[0].connect(0, nobody);
    houses.remove(0).kill(&exchange);
    for connected in [&live_connected, &trimmed_connected, &nobody_connected] {
        assert_eq!(recover(&houses[0], connected).err(), Some(1008));
        assert_eq!(record(&door, connected), None, "nobody else could do more");
    }
}

#[test]
fn whoever_has_no_proof_gets_nothing_from_the_store() {
    let door = Door::new();
    let (mut houses, exchange) = houses(2, &door);
    let (mut peer, connected) = reliable(&houses[0], "u");
    peer.join("kept", 1);
    let (_other, other) = reliable(&houses[0], "v");
    wait_for_record(&door, &connected, 0);
    houses.remove(0).kill(&exchange);
    let house = &houses[0];
    eventually(|| house.node.cluster().unwrap().peers().is_empty());
    let before = record(&door, &connected);
    let token = |of: &Value| of["reconnectionToken"].as_str().unwrap().to_owned();
    let refused = |hub: HubName, id, token: String| {
        let arrival = house.block_on(house.node.bring(hub, id, token)).1;
        assert!(matches!(arrival, Arrival::Refused(CloseCode::PolicyViolation)), "{arrival:?}");
    };
    let own = token(&connected);
    for forged in ["", "forged", "ü", &own[1..], &own.to_lowercase(), &token(&other)] {
        refused(hub(), id(&connected), forged.to_owned());
    }
    refused(HubName::new("other").unwrap(), id(&connected), own.clone());
    refused(hub(), "AAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap(), own);
    assert_eq!(record(&door, &connected), before);
    assert!(recover(house, &connected).is_ok());
}

#[test]
fn a_store_that_does_not_answer_holds_nobody_up_for_long() {
    let door = Door::new();
    let (mut houses, exchange) = houses(2, &door);
    let (mut peer, connected) = reliable(&houses[0], "u");
    peer.join("kept", 1);
    wait_for_record(&door, &connected, 0);
    let (mut stays, staying) = reliable(&houses[1], "v");
    stays.join("kept", 1);
    wait_for_record(&door, &staying, 0);
    door.is_forgetful.store(true, Ordering::SeqCst);
    // Where its node lives a connection goes on, and comes to another node, but its memberships stay as they are.
    stays.send(json!({"type": "joinGroup", "group": "live", "ackId": 2}));
    assert_eq!(stays.receive()["error"]["name"], "StoreUnavailable");
    stays.send(json!({"type": "leaveGroup", "group": "kept", "ackId": 3}));
    assert_eq!(stays.receive()["error"]["name"], "StoreUnavailable");
    stays.sever();
    let (stays, staying) = recover(&houses[1], &staying).unwrap();
    stays.cut();
    let (mut stays, _) = recover(&houses[0], &staying).unwrap();
    stays.expect_nothing();
    houses.remove(0).kill(&exchange);
    eventually(|| houses[0].node.cluster().unwrap().peers().is_empty());
    let since = Instant::now();
    assert!(matches!(bring(&houses[0], &connected).1, Arrival::Refused(CloseCode::TryAgainLater)));
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    door.is_forgetful.store(false, Ordering::SeqCst);
    assert!(recover(&houses[0], &connected).is_ok());
}

#[test]
fn a_node_that_was_taken_for_dead_lets_go_of_what_others_have() {
    let door = Door::new();
    let (houses, exchange) = houses(2, &door);
    let (mut old, connected) = reliable(&houses[0], "u");
    old.join("kept", 1);
    wait_for_record(&door, &connected, 0);
    let (mut other, other_connected) = reliable(&houses[0], "v");
    other.join("kept", 1);
    wait_for_record(&door, &other_connected, 0);
    // It lives, and reaches the store, but no other node.
    exchange.cut(houses[0].node.id().incarnation);
    let (mut new, connected) = recover(&houses[1], &connected).unwrap();
    let mut sender = houses[1].user(0, Subprotocol::Tieline, "s");
    send(&mut sender, "kept", 1);
    assert_eq!(next(&mut new), ((1 << 32) + 1, 1));
    // The old socket has it by the store; as soon as its client acknowledges that, the record tells who has the connection.
    assert_eq!(next(&mut old).1, 1);
    acknowledge(&mut old, 1);
    assert!(matches!(old.hear(), Heard::Close(1008, _)));
    assert_eq!(houses[0].node.checkpoint_counters().unwrap().fenced.load(Ordering::Relaxed), 1);
    // The end of the old one is not the end of the connection.
    send(&mut sender, "kept", 2);
    assert_eq!(next(&mut new).1, 2);
    // Of another one the client comes back to the node that stood still: it does not go on with what that thinks it has.
    let (newer, _) = recover(&houses[1], &other_connected).unwrap();
    newer.cut();
    let (mut back, _) = recover(&houses[0], &other_connected).unwrap();
    let (sequence, _) = next(&mut back);
    assert_eq!(sequence >> 32, 2, "{sequence}");
    drop(connected);
}

/// A connection of the first house that the second one began to take, and then could not.
fn half_taken(houses: &[House], door: &Door) -> Value {
    let (mut old, connected) = reliable(&houses[0], "u");
    old.join("kept", 1);
    wait_for_record(door, &connected, 0);
    door.is_shut.store(true, Ordering::SeqCst);
    assert!(matches!(bring(&houses[1], &connected).1, Arrival::Refused(CloseCode::TryAgainLater)));
    assert_eq!(old.hear(), Heard::End, "its client had gone to the other node");
    door.is_shut.store(false, Ordering::SeqCst);
    connected
}

#[test]
fn what_a_node_gave_half_and_another_resumed_since_is_not_gone_on_with() {
    let door = Door::new();
    let (houses, exchange) = houses(2, &door);
    let connected = half_taken(&houses, &door);
    exchange.cut(houses[0].node.id().incarnation);
    let (newer, _) = recover(&houses[1], &connected).unwrap();
    newer.cut();
    let (mut back, _) = recover(&houses[0], &connected).unwrap();
    let mut sender = houses[0].user(0, Subprotocol::Tieline, "s");
    send(&mut sender, "kept", 1);
    let (sequence, _) = next(&mut back);
    assert_eq!(sequence >> 32, 2, "{sequence}");
}

#[test]
fn a_node_lets_go_of_what_it_gave_half_and_another_resumed_since() {
    let door = Door::new();
    let (houses, exchange) = houses(2, &door);
    let connected = half_taken(&houses, &door);
    let [one, other] = [0, 1].map(|at: usize| houses[at].node.id().incarnation);
    exchange.part(one, other);
    let (_newer, _) = recover(&houses[1], &connected).unwrap();
    exchange.mend(one, other);
    let held = || houses[0].node.hubs().get(&hub()).map_or(0, |hub| hub.user_connections("u"));
    eventually(|| held() == 0);
    assert_eq!(houses[0].node.checkpoint_counters().unwrap().fenced.load(Ordering::Relaxed), 1);
}

#[test]
fn a_record_ends_with_its_connection_and_goes_where_it_goes() {
    let door = Door::new();
    let (houses, exchange) = houses(3, &door);
    let begin = |user: &str| {
        let (mut peer, connected) = reliable(&houses[0], user);
        peer.join("kept", 1);
        wait_for_record(&door, &connected, 0);
        (peer, connected)
    };
    // It says goodbye.
    let (mut peer, connected) = begin("a");
    peer.send_frame(Opcode::Close, &[]);
    eventually(|| record(&door, &connected).is_none());
    // It is closed from outside.
    let (_peer, connected) = begin("b");
    let close = Ask::Close { who: Who::Connection(id(&connected)), excluded: Vec::new(), reason: "x".into() };
    houses[1].block_on(houses[1].node.answer_everywhere(&hub(), close)).unwrap();
    eventually(|| record(&door, &connected).is_none());
    // It leaves its group, or is put into a live one from outside.
    let (mut peer, connected) = begin("c");
    peer.send(json!({"type": "leaveGroup", "group": "kept", "ackId": 2}));
    assert_eq!(peer.receive()["success"], true);
    let groups = |record: &Value| record["groups"].as_array().unwrap().len();
    assert!(record(&door, &connected).is_none_or(|record| groups(&record) == 0));
    eventually(|| record(&door, &connected).is_some_and(|record| groups(&record) == 0));
    let live = GroupName::new("live").unwrap();
    let join = Ask::Join { who: Who::Connection(id(&connected)), groups: vec![live] };
    houses[1].block_on(houses[1].node.answer_everywhere(&hub(), join)).unwrap();
    eventually(|| record(&door, &connected).is_none());
    // It moves while its node lives: from then on the record is the other node's.
    let (peer, connected) = begin("d");
    peer.cut();
    let (peer, connected) = recover(&houses[1], &connected).unwrap();
    let holder = |at: usize| json!(houses[at].node.id().incarnation.to_string());
    let moved = record(&door, &connected).unwrap();
    assert_eq!((&moved["incarnation"], &moved["generation"]), (&holder(1), &json!(1)));
    peer.cut();
    let mut houses = houses;
    houses.remove(1).kill(&exchange);
    let (mut peer, _) = recover(&houses[1], &connected).unwrap();
    let mut sender = houses[0].user(0, Subprotocol::Tieline, "s");
    send(&mut sender, "kept", 1);
    assert_eq!(next(&mut peer), ((2 << 32) + 1, 1));
}

#[test]
fn a_node_alone_resumes_what_it_had_before_it_was_started_again() {
    let door = Door::new();
    let start = |name: &str| {
        let mut house = House::called(name, 2);
        house.keep(rules(), door.engine());
        house
    };
    let exchange = MemoryExchange::links();
    let house = start("alone");
    let (mut peer, connected) = reliable(&house, "u");
    peer.join("kept", 1);
    wait_for_record(&door, &connected, 0);
    let mut sender = house.user(1, Subprotocol::Tieline, "s");
    send(&mut sender, "kept", 1);
    house.kill(&exchange);
    assert_eq!(recover(&start("another"), &connected).err(), Some(1008), "it may live");
    let house = start("alone");
    let (mut peer, _) = recover(&house, &connected).unwrap();
    assert_eq!(next(&mut peer), ((1 << 32) + 1, 1));
}

#[test]
fn a_node_that_stops_leaves_its_connections_to_the_others() {
    let door = Door::new();
    let (mut houses, _exchange) = houses(2, &door);
    let (mut peer, connected) = reliable(&houses[0], "u");
    peer.join("kept", 1);
    let mut sender = houses[1].user(0, Subprotocol::Tieline, "s");
    send(&mut sender, "kept", 1);
    assert_eq!(next(&mut peer).1, 1);
    acknowledge(&mut peer, 1);
    peer.expect_nothing();
    drop(houses.remove(0));
    let (mut peer, _) = recover(&houses[0], &connected).unwrap();
    send(&mut sender, "kept", 2);
    assert_eq!(next(&mut peer), ((1 << 32) + 1, 2), "what was acknowledged was written down");
}
