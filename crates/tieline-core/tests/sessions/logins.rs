//! Hubs where a user has one place: whoever logs in takes it from who had it, on whatever shard, node and protocol.

use std::thread;

use serde_json::{Value, json};
use tieline_core::Subprotocol;
use tieline_core::broker::MemoryExchange;
use tieline_proto::{ConnectionId, HubName};

use crate::house::{Guest, Heard, House, Peer, eventually, patient};

fn guest(hub: &'static str, subprotocol: Subprotocol, user: &str) -> Guest {
    Guest { hub, ..Guest::new(subprotocol, user) }
}

/// A member of the hub where a user has one place.
fn log_in(house: &House, shard: u16, user: &str) -> Peer {
    house.connect(shard, guest("single", Subprotocol::Tieline, user)).0
}

fn on_device(house: &House, shard: u16, device: Option<&'static str>) -> Peer {
    let guest = Guest { device, ..guest("devices", Subprotocol::Tieline, "u") };
    house.connect(shard, guest).0
}

/// What a connection hears until its close frame, and the code in that.
fn last_words(peer: &mut Peer) -> (Vec<Value>, u16) {
    let mut heard = Vec::new();
    loop {
        match peer.hear() {
            Heard::Text(text) => heard.push(serde_json::from_str(&text).unwrap()),
            Heard::Close(code, _) => return (heard, code),
            Heard::Ping(_) => {}
            Heard::End => panic!("the connection ended without a close frame"),
        }
    }
}

/// How many connections a message to a user reaches, as its sender is told.
fn reached(sender: &mut Peer, user: &str) -> Value {
    sender.send(json!({"type": "sendToUser", "user": user, "data": "x", "noEcho": true, "ackId": 1}));
    let ack = sender.receive();
    json!([ack["delivered"], ack["unknown"]])
}

fn houses(count: usize) -> Vec<House> {
    let exchange = MemoryExchange::links();
    let mut houses: Vec<House> = (0..count).map(|_| House::named(2)).collect();
    houses.iter_mut().for_each(|house| house.join(&exchange, patient()));
    houses.iter().for_each(|house| house.wait_for_peers(count - 1));
    houses
}

#[test]
fn a_newer_connection_takes_the_place_of_the_older_on_any_shard() {
    let house = House::named(2);
    let mut older = log_in(&house, 0, "u");
    for shard in [0, 1, 0, 1, 1] {
        let mut newer = log_in(&house, shard, "u");
        let (heard, code) = last_words(&mut older);
        assert_eq!(code, 4409);
        assert_eq!(heard[0], json!({"type": "system", "event": "displaced"}));
        assert_eq!((heard.len(), &heard[1]["event"]), (2, &json!("disconnected")));
        // The end of the older one is over here too, and took nothing from the newer.
        eventually(|| house.node.hubs().get(&HubName::new("single").unwrap()).unwrap().connections() == 1);
        newer.expect_nothing();
        let mut other = log_in(&house, 0, "other");
        assert_eq!(reached(&mut other, "u"), json!([1, 0]));
        assert_eq!(newer.receive()["data"], "x");
        older = newer;
    }
}

#[test]
fn each_protocol_is_told_in_its_own_words() {
    let house = House::named(1);
    for (subprotocol, code, words) in [
        (Subprotocol::Tieline, 4409, vec!["displaced", "disconnected"]),
        (Subprotocol::Azure, 4409, vec!["disconnected"]),
        (Subprotocol::AzureReliable, 1008, vec!["disconnected"]),
        (Subprotocol::Plain, 4409, vec![]),
    ] {
        let (mut older, _) = house.connect(0, guest("single", subprotocol, "u"));
        let mut newer = log_in(&house, 0, "u");
        let (heard, closed) = last_words(&mut older);
        let heard: Vec<&str> = heard.iter().map(|frame| frame["event"].as_str().unwrap()).collect();
        assert_eq!((heard, closed), (words, code), "{subprotocol:?}");
        newer.expect_nothing();
    }
}

#[test]
fn a_device_has_one_place_and_those_without_a_name_have_one_together() {
    let houses = houses(2);
    let mut phone = on_device(&houses[0], 0, Some("phone"));
    let mut laptop = on_device(&houses[1], 0, Some("laptop"));
    let mut nameless = on_device(&houses[1], 1, None);
    let mut newer = on_device(&houses[1], 0, Some("phone"));
    assert_eq!(last_words(&mut phone).1, 4409);
    let mut nameless_too = on_device(&houses[0], 1, None);
    assert_eq!(last_words(&mut nameless).1, 4409);
    for left in [&mut laptop, &mut newer, &mut nameless_too] {
        left.expect_nothing();
    }
    assert_eq!(reached(&mut laptop, "u"), json!([2, 0]), "all but the sender");
}

#[test]
fn other_hubs_and_users_are_left_alone() {
    let house = House::named(2);
    let mut many: Vec<Peer> = (0..4).map(|n| house.user(n % 2, Subprotocol::Tieline, "u")).collect();
    let mut others: Vec<Peer> = (0..4).map(|n| log_in(&house, n % 2, &format!("u{n}"))).collect();
    many.iter_mut().chain(&mut others).for_each(Peer::expect_nothing);
    // Nobody is anybody's older connection who is nobody.
    let nobody =
        |shard| house.connect(shard, Guest { user: None, ..guest("single", Subprotocol::Tieline, "") }).0;
    let (mut one, mut two) = (nobody(0), nobody(1));
    one.expect_nothing();
    two.expect_nothing();
}

#[test]
fn of_logins_that_race_over_three_nodes_one_is_left() {
    let houses = houses(3);
    let mut watchers: Vec<Peer> =
        houses.iter().enumerate().map(|(at, house)| log_in(house, 0, &format!("watcher-{at}"))).collect();
    for round in 0..40 {
        let user = format!("u{round}");
        let mut peers: Vec<Peer> = thread::scope(|scope| {
            let logins: Vec<_> = (0..6)
                .map(|n| {
                    let (house, user) = (&houses[n % 3], &user);
                    scope.spawn(move || log_in(house, (n / 3) as u16, user))
                })
                .collect();
            logins.into_iter().map(|login| login.join().unwrap()).collect()
        });
        let hub = HubName::new("single").unwrap();
        let here = |house: &House| house.node.hubs().get(&hub).map_or(0, |hub| hub.user_connections(&user));
        eventually(|| houses.iter().map(here).sum::<usize>() == 1);
        let left: Vec<usize> = houses.iter().map(here).collect();
        for (watcher, ack_id) in watchers.iter_mut().zip([round + 10; 3]) {
            watcher.send(json!({"type": "sendToUser", "user": user, "data": round, "ackId": ack_id}));
            let ack = watcher.receive();
            assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(1), &json!(0)), "{left:?} {ack}");
        }
        let closed = peers.iter_mut().filter_map(|peer| {
            loop {
                match peer.hear() {
                    Heard::Text(text) if text.contains("\"data\"") => return None,
                    Heard::Close(code, _) => return Some(code),
                    Heard::Text(_) | Heard::Ping(_) => {}
                    Heard::End => panic!("the connection ended without a close frame"),
                }
            }
        });
        assert_eq!(closed.collect::<Vec<_>>(), [4409; 5]);
    }
}

#[test]
fn a_connection_without_a_socket_has_its_place_until_it_is_taken() {
    let houses = houses(2);
    let reliable = |house: &House| house.connect(0, guest("single", Subprotocol::AzureReliable, "u"));
    let recover = |house: &House, connected: &Value| {
        let id: ConnectionId = connected["connectionId"].as_str().unwrap().parse().unwrap();
        let token = connected["reconnectionToken"].as_str().unwrap().to_owned();
        let hub = HubName::new("single").unwrap();
        let (shard, arrival) = house.block_on(house.node.bring(hub, id, token));
        house.adopt(shard.unwrap_or(0), arrival, Subprotocol::AzureReliable)
    };
    let (peer, connected) = reliable(&houses[0]);
    peer.cut();
    // It comes to the other node as itself, and displaces nobody: not even what is left of it at the first.
    let mut moved = recover(&houses[1], &connected);
    assert_eq!(moved.receive()["event"], "connected");
    moved.expect_nothing();
    moved.cut();
    // A newer login takes the place, wherever it is.
    let mut newer = log_in(&houses[0], 1, "u");
    eventually(|| houses[1].node.hubs().get(&HubName::new("single").unwrap()).unwrap().connections() == 0);
    assert_eq!(last_words(&mut recover(&houses[1], &connected)).1, 1008);
    newer.expect_nothing();
}
