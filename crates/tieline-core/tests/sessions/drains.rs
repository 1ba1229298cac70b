//! Clients that are sent to other nodes while everybody goes on writing to them: nothing is lost, and what came on one connection
//! comes on no other, but for clients that have two for a moment.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::thread;

use serde_json::{Value, json};
use tieline_core::broker::MemoryExchange;
use tieline_core::session::Session;
use tieline_core::{ClusterTimes, Routing, Subprotocol};

use crate::house::{Guest, Heard, House, Peer, eventually, patient};

/// How often the client is sent on, without a rest.
const ROUNDS: usize = 24;

/// How often with one, until nobody claims what has gone.
const CALM_ROUNDS: usize = 4;

fn houses(routing: Routing) -> Vec<House> {
    houses_with(patient(), routing)
}

fn houses_with(times: ClusterTimes, routing: Routing) -> Vec<House> {
    let exchange = MemoryExchange::links();
    let mut houses: Vec<House> = (0..3).map(|_| House::named(2)).collect();
    houses.iter_mut().for_each(|house| house.join_by(&exchange, times, routing));
    houses.iter().for_each(|house| house.wait_for_peers(2));
    houses
}

fn send_away(house: &House) -> usize {
    house.block_on(house.node.send_away(100)).unwrap()
}

/// Stops the senders also where the test fails: they would go on for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes numbers to `u`, each when the one before is acknowledged; returns how many.
fn write(mut sender: Peer, name: usize, stop: &AtomicBool) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let data = json!([name, number]);
        sender.send(json!({"type": "sendToUser", "user": "u", "data": data, "ackId": number}));
        let ack = sender.receive();
        assert_eq!((&ack["success"], &ack["unknown"]), (&json!(true), &json!(0)), "{ack}");
        assert!(ack["delivered"].as_u64() >= Some(1), "{ack}");
    }
    number
}

/// What a client has read on all its connections.
#[derive(Default)]
struct Read {
    /// Sender and number, in the order of arrival.
    all: Vec<(u64, u64)>,
}

impl Read {
    /// Reads on until a frame that is no message.
    fn until_other(&mut self, peer: &mut Peer) -> Heard {
        loop {
            match peer.hear() {
                Heard::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] != "message" {
                        return Heard::Text(text);
                    }
                    let number = |at: usize| frame["data"][at].as_u64().unwrap();
                    self.all.push((number(0), number(1)));
                }
                Heard::Ping(_) => {}
                other => return other,
            }
        }
    }

    fn set(&self) -> BTreeSet<(u64, u64)> {
        self.all.iter().copied().collect()
    }

    fn some(&mut self, peer: &mut Peer, count: usize) {
        let until = self.all.len() + count;
        while self.all.len() < until {
            let frame = peer.receive();
            if frame["type"] == "message" {
                self.all.push((frame["data"][0].as_u64().unwrap(), frame["data"][1].as_u64().unwrap()));
            }
        }
    }
}

/// Has one client go from node to node while a sender of each node writes to it. `go` reads its last words at the old node, given the next
/// house, and returns the new connection. Returns what was read and how many each sender wrote.
fn wander(
    houses: &[House],
    is_calm: bool,
    first: (Peer, Value),
    go: impl Fn(&mut Read, (Peer, Value), &House) -> (Peer, Value),
) -> (Read, Vec<u64>) {
    let (mut read, stop) = (Read::default(), AtomicBool::new(false));
    let sent = thread::scope(|scope| {
        let senders: Vec<_> = houses
            .iter()
            .enumerate()
            .map(|(at, house)| {
                // Senders are sent nowhere: their hub is another's business.
                let sender = house.user(1, Subprotocol::Tieline, &format!("s{at}"));
                let stop = &stop;
                scope.spawn(move || write(sender, at, stop))
            })
            .collect();
        let stopping = Stop(&stop);
        let mut peer = first;
        for round in 1..=if is_calm { CALM_ROUNDS } else { ROUNDS } {
            read.some(&mut peer.0, 20);
            while is_calm && houses.iter().any(|house| house.node.has_travellers()) {
                read.some(&mut peer.0, 1);
            }
            let from = &houses[(round - 1) % 3];
            let user = peer.1["connectionId"].as_str().map(str::to_owned);
            assert_eq!(send_one_away(from, user.as_deref()), 1);
            peer = go(&mut read, peer, &houses[round % 3]);
        }
        drop(stopping);
        let sent: Vec<u64> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        // All of them are acknowledged, so they are on their way to this connection.
        while read.all.iter().collect::<BTreeSet<_>>().len() < sent.iter().sum::<u64>() as usize {
            read.some(&mut peer.0, 1);
        }
        sent
    });
    (read, sent)
}

/// Sends the client's connection away, and not those of the senders.
fn send_one_away(house: &House, id: Option<&str>) -> usize {
    let id = id.map(|id| id.parse().unwrap());
    let goes = move |session: &Session| {
        id.map_or(session.user().is_some_and(|user| user.as_str() == "u"), |id| session.id() == id)
    };
    let these = house.block_on(house.node.to_be_sent_away(goes)).unwrap();
    let sent = house.block_on(house.node.send_these_away(&these)).unwrap();
    assert_eq!(house.block_on(house.node.send_these_away(&these)).unwrap(), 0, "they are told once");
    sent
}

/// A client without a second connection: it is closed, and comes to the next node.
fn close_and_come(read: &mut Read, mut old: Peer, next: &House) -> (Peer, Value) {
    let Heard::Text(last) = read.until_other(&mut old) else { panic!("it is told why") };
    assert!(last.contains("disconnected"), "{last}");
    assert!(matches!(read.until_other(&mut old), Heard::Close(4503, _)));
    next.connect(0, Guest::new(Subprotocol::Azure, "u"))
}

#[test]
fn a_client_that_is_closed_and_comes_again_elsewhere_gets_everything_once_and_in_order() {
    for routing in [Routing::Directed, Routing::Broadcast] {
        let houses = houses(routing);
        let first = houses[0].connect(0, Guest::new(Subprotocol::Azure, "u"));
        let go = |read: &mut Read, (old, _), next: &House| close_and_come(read, old, next);
        let (read, sent) = wander(&houses, true, first, go);
        for (at, count) in sent.iter().enumerate() {
            let of_one: Vec<u64> =
                read.all.iter().filter(|(from, _)| *from == at as u64).map(|(_, number)| *number).collect();
            assert_eq!(of_one, (1..=*count).collect::<Vec<_>>(), "from s{at}, {routing:?}");
        }
    }
}

/// Who goes on before it has arrived may get some twice.
#[test]
fn a_client_that_is_sent_on_and_on_misses_nothing() {
    for routing in [Routing::Directed, Routing::Broadcast] {
        let houses = houses(routing);
        let first = houses[0].connect(0, Guest::new(Subprotocol::Azure, "u"));
        let go = |read: &mut Read, (old, _), next: &House| close_and_come(read, old, next);
        let (read, sent) = wander(&houses, false, first, go);
        assert_eq!(read.set(), all_of(&sent), "{routing:?}");
    }
}

/// Every message of every sender.
fn all_of(sent: &[u64]) -> BTreeSet<(u64, u64)> {
    sent.iter().enumerate().flat_map(|(at, count)| (1..=*count).map(move |n| (at as u64, n))).collect()
}

#[test]
fn a_client_that_connects_before_it_leaves_misses_nothing() {
    let houses = houses(Routing::Directed);
    let first = houses[0].connect(0, Guest::new(Subprotocol::Tieline, "u"));
    let (read, sent) = wander(&houses, false, first, |read, (mut old, connected), next| {
        let Heard::Text(told) = read.until_other(&mut old) else { panic!("it is told to go") };
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["event"], &told["afterMs"]), (&json!("reconnect"), &json!(0)));
        let id = connected["connectionId"].as_str().unwrap().parse().unwrap();
        let new = next.connect(0, Guest { replaces: Some(id), ..Guest::new(Subprotocol::Tieline, "u") });
        // The old one is closed behind everything that it had coming.
        let Heard::Text(last) = read.until_other(&mut old) else { panic!("it is told why") };
        assert!(last.contains("disconnected"), "{last}");
        assert!(matches!(read.until_other(&mut old), Heard::Close(1000, _)));
        new
    });
    assert_eq!(read.set(), all_of(&sent));
}

/// A client may come back to another shard of its node before the first one has read what was on its way to it.
#[test]
fn who_comes_back_to_another_shard_gets_what_was_on_its_way_to_the_first() {
    let houses = houses(Routing::Directed);
    let node = &houses[0].node;
    let (_old, connected) = houses[0].connect(0, Guest::new(Subprotocol::Azure, "u"));
    let id = connected["connectionId"].as_str().unwrap().parse().unwrap();
    let these = houses[0].block_on(node.to_be_sent_away(move |session| session.id() == id)).unwrap();
    // The first shard stands still where this one is looked at, each time until it is told to go on.
    let _keeper = houses[0].user(0, Subprotocol::Azure, "keeper");
    let (tell_stands, stands) = mpsc::channel();
    let (tell_go_on, go_on) = mpsc::channel();
    let go_on = Arc::new(Mutex::new(go_on));
    let stand_still = move |session: &Session| {
        if session.user().is_some_and(|user| user.as_str() == "keeper") {
            tell_stands.send(()).unwrap();
            go_on.lock().unwrap().recv().unwrap();
        }
        false
    };
    let mut first = pin!(node.to_be_sent_away(stand_still.clone()));
    assert!(begin(first.as_mut()));
    stands.recv().unwrap();
    let mut away = pin!(node.send_these_away(&these));
    let mut second = pin!(node.to_be_sent_away(stand_still));
    assert!(begin(away.as_mut()) && begin(second.as_mut()));
    let mut sender = houses[0].user(1, Subprotocol::Tieline, "s");
    sender.send(json!({"type": "sendToUser", "user": "u", "data": 1, "ackId": 1}));
    // The turn in which that was sent on is over when a later request is acknowledged.
    for ack_id in [2, 3] {
        sender.send(json!({"type": "joinGroup", "group": "g", "ackId": ack_id}));
        assert_eq!(sender.receive()["ackId"], ack_id);
    }
    tell_go_on.send(()).unwrap();
    stands.recv().unwrap();
    let (mut new, _) = houses[0].connect(1, Guest::new(Subprotocol::Azure, "u"));
    tell_go_on.send(()).unwrap();
    assert_eq!(new.receive()["data"], 1);
    let ack = sender.receive();
    assert_eq!((&ack["ackId"], &ack["delivered"]), (&json!(1), &json!(1)), "{ack}");
    assert_eq!(houses[0].block_on(away).unwrap(), 1);
    for waits in [first, second] {
        assert!(houses[0].block_on(waits).unwrap().is_empty());
    }
    new.expect_nothing();
}

/// Has a shard told what is to be done. Returns whether that is not done yet.
fn begin(doing: Pin<&mut impl Future>) -> bool {
    doing.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn a_connection_is_replaced_by_its_own_user_alone() {
    let houses = houses(Routing::Directed);
    let (mut peer, connected) = houses[0].connect(0, Guest::new(Subprotocol::Tieline, "u"));
    let id = connected["connectionId"].as_str().unwrap().parse().unwrap();
    let replacing = |house: &House, hub, user: Option<&str>| {
        let user = user.map(str::to_owned);
        let guest = Guest { replaces: Some(id), hub, user, ..Guest::new(Subprotocol::Tieline, "") };
        house.connect(1, guest).0
    };
    for house in &houses[..2] {
        let others = [
            replacing(house, "hub", Some("other")),
            replacing(house, "else", Some("u")),
            replacing(house, "hub", None),
        ];
        for mut other in others {
            other.expect_nothing();
        }
        peer.expect_nothing();
    }
    let mut new = replacing(&houses[0], "hub", Some("u"));
    assert_eq!(peer.receive()["event"], "disconnected");
    assert!(matches!(peer.hear(), Heard::Close(1000, _)));
    new.expect_nothing();
}

#[test]
fn who_does_not_go_is_closed_and_who_does_not_come_is_unknown_in_the_end() {
    // A receipt is given up before what is held for nobody.
    let houses = houses_with(ClusterTimes::default(), Routing::Directed);
    let (mut deaf, _) = houses[0].connect(0, Guest::new(Subprotocol::Tieline, "deaf"));
    let (mut gone, _) = houses[0].connect(0, Guest::new(Subprotocol::Azure, "gone"));
    assert_eq!(send_away(&houses[0]), 2);
    assert_eq!(gone.receive()["event"], "disconnected");
    assert!(matches!(gone.hear(), Heard::Close(4503, _)));
    eventually(|| houses[0].node.hubs().all()[0].user_connections("gone") == 0);
    let mut sender = houses[1].user(0, Subprotocol::Tieline, "sender");
    sender.send(json!({"type": "sendToUser", "user": "gone", "data": 1, "ackId": 1}));
    assert_eq!(sender.receive()["delivered"], Value::Null, "it was held, and nobody knows for whom");
    eventually(|| !houses[0].node.has_travellers());
    eventually(|| {
        houses[1]
            .node
            .cluster()
            .unwrap()
            .directory()
            .find(houses[0].node.hubs().all()[0].name(), "gone")
            .holders
            .is_empty()
    });
    sender.send(json!({"type": "sendToUser", "user": "gone", "data": 2, "ackId": 2}));
    let ack = sender.receive();
    assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(0), &json!(1)));
    assert_eq!(deaf.receive()["event"], "reconnect");
    assert_eq!(deaf.receive()["event"], "disconnected");
    assert!(matches!(deaf.hear(), Heard::Close(4503, _)));
}
