//! Inboxes on the dialects whose clients do not ask for them, places of devices, and bad input: on real sockets, with the store
//! in memory behind a door.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tieline_core::store::{Cut, LogKey, Store};
use tieline_core::{Arrival, Subprotocol};
use tieline_proto::{HubName, Position, UserId};
use tieline_websocket::Opcode;

use crate::house::{Guest, Heard, House, Peer, eventually};
use crate::logs::{Door, data, futures_block, hello, house, pair, tieline, until_ack};

/// Those whose clients do not ask.
const QUIET: [Subprotocol; 3] = [Subprotocol::Azure, Subprotocol::AzureReliable, Subprotocol::Plain];

/// Has a message kept for a user.
fn tell(alice: &mut Peer, user: &str, number: u64) {
    alice.send(json!({"type": "sendToUser", "user": user, "data": number, "ackId": number}));
    let ack = until_ack(alice, number).1;
    assert_eq!(ack["success"], true, "{ack}");
}

fn number(frame: &Value) -> u64 {
    frame.get("data").or(frame.get("msg")).and_then(Value::as_u64).unwrap_or_else(|| panic!("{frame}"))
}

fn numbers(peer: &mut Peer, count: usize) -> Vec<u64> {
    (0..count).map(|_| number(&peer.receive())).collect()
}

/// Everything up to this message.
fn until(peer: &mut Peer, last: u64) -> Vec<u64> {
    let mut got = Vec::new();
    while got.last() != Some(&last) {
        got.push(number(&peer.receive()));
    }
    got
}

/// A client whose pongs are the test's.
fn mute(house: &House, subprotocol: Subprotocol) -> Peer {
    let mut peer = house.user(1, subprotocol, "bob");
    peer.is_mute = true;
    peer
}

fn on_device(house: &House, subprotocol: Subprotocol, device: &'static str) -> Peer {
    let mut peer = house.connect(1, Guest { device: Some(device), ..Guest::new(subprotocol, "bob") }).0;
    peer.is_mute = true;
    peer
}

/// Waits until the server has read everything that the client has sent.
fn fence(peer: &mut Peer, subprotocol: Subprotocol) {
    if subprotocol == Subprotocol::Plain {
        peer.send_text("no JSON");
        assert_eq!(peer.receive()["error"], "InvalidRequest");
    } else {
        peer.expect_nothing();
    }
}

/// Makes what it has the last that it gets: in the way of its dialect.
fn read_all(peer: &mut Peer, subprotocol: Subprotocol, sequence: u64) {
    if subprotocol == Subprotocol::AzureReliable {
        peer.send(json!({"type": "sequenceAck", "sequenceId": sequence}));
    } else {
        let named = peer.ping();
        peer.send_frame(Opcode::Pong, &named);
    }
    fence(peer, subprotocol);
}

#[test]
fn the_inbox_comes_by_itself_oldest_first_and_then_what_follows() {
    for subprotocol in QUIET {
        let house = house(&Door::new());
        let mut alice = tieline(&house, 0, "alice");
        // More than one page.
        (1..=600).for_each(|number| tell(&mut alice, "bob", number));
        let mut bob = house.user(1, subprotocol, "bob");
        assert_eq!(numbers(&mut bob, 1), [1], "{subprotocol:?}");
        tell(&mut alice, "bob", 601);
        assert_eq!(until(&mut bob, 601), (2..=601).collect::<Vec<_>>(), "{subprotocol:?}");
    }
}

#[test]
fn a_reliable_client_is_given_more_only_as_it_acknowledges_and_is_read_meanwhile() {
    let settings = tieline_switchboard::Settings { max_lag: 64 << 10, ..Default::default() };
    let mut house = House::with(
        2,
        tieline_core::Limits {
            messages_per_second: 0,
            hello: std::time::Duration::from_secs(2),
            ..Default::default()
        },
        settings,
    );
    house.keep(crate::logs::rules(), Door::new().engine());
    let mut alice = tieline(&house, 0, "alice");
    let text = "x".repeat(4000);
    for number in 1..=40u64 {
        let data = format!("{number} {text}");
        alice.send(
            json!({"type": "sendToUser", "user": "bob", "dataType": "text", "data": data, "ackId": number}),
        );
        assert_eq!(until_ack(&mut alice, number).1["success"], true);
    }
    let mut bob = house.user(1, Subprotocol::AzureReliable, "bob");
    for expected in 1..=40u64 {
        let frame = bob.receive();
        assert_eq!(frame["sequenceId"], expected);
        assert!(frame["data"].as_str().unwrap().starts_with(&format!("{expected} ")));
        bob.send(json!({"type": "sequenceAck", "sequenceId": expected}));
    }
}

#[test]
fn what_was_read_does_not_come_again_and_what_was_not_does() {
    for subprotocol in QUIET {
        let (one, two) = pair(&Door::new());
        let mut alice = tieline(&one, 0, "alice");
        (1..=5).for_each(|number| tell(&mut alice, "bob", number));
        let mut bob = mute(&one, subprotocol);
        assert_eq!(numbers(&mut bob, 5), [1, 2, 3, 4, 5]);
        let mut again = mute(&one, subprotocol);
        assert_eq!(numbers(&mut again, 5), [1, 2, 3, 4, 5], "{subprotocol:?}");
        read_all(&mut again, subprotocol, 5);
        // On the same node at once.
        let mut later = mute(&one, subprotocol);
        tell(&mut alice, "bob", 6);
        assert_eq!([&mut bob, &mut again, &mut later].map(|peer| number(&peer.receive())), [6; 3]);
        // On the others when it is written, which is once a second.
        eventually(|| number(&mute(&two, subprotocol).receive()) == 6);
    }
}

#[test]
fn a_sequence_ack_counts_as_far_as_it_goes_and_no_further_than_was_sent() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    (1..=3).for_each(|number| tell(&mut alice, "bob", number));
    let mut bob = house.user(1, Subprotocol::AzureReliable, "bob");
    assert_eq!(numbers(&mut bob, 3), [1, 2, 3]);
    bob.join("room", 1);
    alice.send(json!({"type": "sendToGroup", "group": "room", "data": 100, "ackId": 100}));
    assert_eq!(until_ack(&mut alice, 100).1["delivered"], 1);
    tell(&mut alice, "bob", 4);
    tell(&mut alice, "bob", 5);
    assert_eq!(numbers(&mut bob, 3), [100, 4, 5]);
    let mut begins_with = |sequence: u64, first: u64| {
        bob.send(json!({"type": "sequenceAck", "sequenceId": sequence}));
        bob.expect_nothing();
        let mut other = house.user(0, Subprotocol::AzureReliable, "bob");
        assert_eq!(number(&other.receive()), first, "after {sequence}");
    };
    for (sequence, first) in [(0, 1), (7, 1), (u64::MAX >> 11, 1), (2, 3), (4, 4), (5, 5), (3, 5)] {
        begins_with(sequence, first);
    }
}

#[test]
fn after_a_resume_an_ack_still_moves_the_place() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    (1..=3).for_each(|number| tell(&mut alice, "bob", number));
    let (mut bob, connected) = house.connect(1, Guest::new(Subprotocol::AzureReliable, "bob"));
    assert_eq!(numbers(&mut bob, 3), [1, 2, 3]);
    bob.send(json!({"type": "sequenceAck", "sequenceId": 1}));
    bob.expect_nothing();
    bob.cut();
    tell(&mut alice, "bob", 4);
    let recovery = Arrival::Recovery {
        hub: tieline_proto::HubName::new("hub").unwrap(),
        id: connected["connectionId"].as_str().unwrap().parse().unwrap(),
        token: connected["reconnectionToken"].as_str().unwrap().to_owned(),
    };
    let mut bob = house.adopt(1, recovery, Subprotocol::AzureReliable);
    assert_eq!(bob.receive()["event"], "connected");
    // By their old numbers, once.
    let frames: Vec<Value> = (0..3).map(|_| bob.receive()).collect();
    let had: Vec<_> =
        frames.iter().map(|frame| (frame["sequenceId"].as_u64().unwrap(), number(frame))).collect();
    assert_eq!(had, [(2, 2), (3, 3), (4, 4)]);
    bob.send(json!({"type": "sequenceAck", "sequenceId": 3}));
    bob.expect_nothing();
    let mut other = house.user(0, Subprotocol::AzureReliable, "bob");
    assert_eq!(numbers(&mut other, 1), [4]);
}

#[test]
fn pongs_that_name_nothing_that_was_asked_for_do_nothing() {
    for subprotocol in [Subprotocol::Azure, Subprotocol::Plain] {
        let house = house(&Door::new());
        let mut alice = tieline(&house, 0, "alice");
        (1..=5).for_each(|number| tell(&mut alice, "bob", number));
        let mut bob = mute(&house, subprotocol);
        assert_eq!(numbers(&mut bob, 5), [1, 2, 3, 4, 5]);
        let named = bob.ping();
        let mut other = named.clone();
        other[15] += 1;
        for payload in [vec![], vec![0; 16], vec![255; 16], vec![0; 125], other, named[..8].to_vec()] {
            bob.send_frame(Opcode::Pong, &payload);
        }
        fence(&mut bob, subprotocol);
        assert_eq!(numbers(&mut mute(&house, subprotocol), 5), [1, 2, 3, 4, 5], "{subprotocol:?}");
        bob.send_frame(Opcode::Pong, &named);
        fence(&mut bob, subprotocol);
        tell(&mut alice, "bob", 6);
        assert_eq!(numbers(&mut mute(&house, subprotocol), 1), [6], "{subprotocol:?}");
    }
}

#[test]
fn each_device_has_its_own_place_on_every_dialect() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    (1..=3).for_each(|number| tell(&mut alice, "bob", number));
    for subprotocol in QUIET {
        let device = match subprotocol {
            Subprotocol::Azure => "azure",
            Subprotocol::AzureReliable => "reliable",
            _ => "plain",
        };
        let mut bob = on_device(&house, subprotocol, device);
        assert_eq!(numbers(&mut bob, 3), [1, 2, 3], "{subprotocol:?}");
        read_all(&mut bob, subprotocol, 3);
    }
    // Nor has any of them moved that of the user, who is on no device.
    let mut bob = tieline(&house, 0, "bob");
    assert_eq!(data(&hello(&mut bob, None).0), [1, 2, 3]);
    bob.send(json!({"type": "inboxAck", "offset": 2}));
    bob.expect_nothing();
    tell(&mut alice, "bob", 4);
    assert_eq!(numbers(&mut on_device(&house, Subprotocol::Azure, "plain"), 1), [4]);
    assert_eq!(numbers(&mut on_device(&house, Subprotocol::Azure, "new"), 4), [1, 2, 3, 4]);
    assert_eq!(numbers(&mut mute(&house, Subprotocol::Azure), 2), [3, 4]);
}

#[test]
fn the_tokens_device_counts_and_not_what_hello_says() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    (1..=3).for_each(|number| tell(&mut alice, "bob", number));
    let mut bob = on_device(&house, Subprotocol::Tieline, "phone");
    bob.send(json!({"type": "hello", "device": "tablet", "ackId": 1}));
    assert_eq!(until_ack(&mut bob, 1).1["error"]["name"], "Forbidden");
    bob.send(json!({"type": "hello", "device": "phone", "ackId": 2}));
    assert_eq!(data(&until_ack(&mut bob, 2).0), [1, 2, 3]);
    bob.send(json!({"type": "inboxAck", "offset": 2}));
    bob.expect_nothing();
    let mut again = on_device(&house, Subprotocol::Tieline, "phone");
    assert_eq!(data(&hello(&mut again, None).0), [3]);
    let mut tablet = tieline(&house, 1, "bob");
    tablet.send(json!({"type": "hello", "device": "tablet", "ackId": 1}));
    assert_eq!(data(&until_ack(&mut tablet, 1).0), [1, 2, 3]);
}

#[test]
fn what_was_trimmed_or_made_anew_while_the_user_was_away_costs_nothing_of_the_rest() {
    let door = Door::new();
    let house = house(&door);
    let mut alice = tieline(&house, 0, "alice");
    (1..=10).for_each(|number| tell(&mut alice, "bob", number));
    let mut bob = tieline(&house, 1, "bob");
    let (got, ack) = hello(&mut bob, None);
    assert_eq!((got.len(), &ack["recovered"]), (10, &json!(true)));
    bob.send(json!({"type": "inboxAck", "offset": 2}));
    bob.expect_nothing();
    bob.cut();
    // Another node remembers nothing of the log, and has to ask the store. There the place is once a second.
    let fresh = || crate::logs::house(&door);
    eventually(|| number(&mute(&fresh(), Subprotocol::Azure).receive()) == 3);
    let log = || LogKey::Inbox(HubName::new("hub").unwrap(), UserId::new("bob").unwrap());
    let epoch = ack["position"]["epoch"].as_u64().unwrap();
    (11..=300).for_each(|number| tell(&mut alice, "bob", number));
    futures_block(door.store.trim(log(), Cut::Through(Position { epoch, offset: 5 }))).unwrap();
    let other = fresh();
    for subprotocol in QUIET {
        assert_eq!(
            until(&mut mute(&other, subprotocol), 300),
            (6..=300).collect::<Vec<_>>(),
            "{subprotocol:?}"
        );
    }
    let (got, ack) = hello(&mut tieline(&other, 1, "bob"), None);
    assert_eq!((got.len(), &ack["recovered"], &ack["reason"]), (295, &json!(false), &json!("trimmed")));
    // Its place is that of a log that is no more.
    futures_block(door.store.renew(log(), epoch)).unwrap();
    tell(&mut alice, "bob", 301);
    eventually(|| {
        let (got, ack) = hello(&mut tieline(&other, 1, "bob"), None);
        (got.len(), &ack["reason"]) == (296, &json!("epoch"))
    });
}

#[test]
fn a_store_that_is_away_delays_the_inbox_and_gives_nothing_twice() {
    for subprotocol in QUIET {
        let door = Door::new();
        let house = house(&door);
        let mut alice = tieline(&house, 0, "alice");
        (1..=300).for_each(|number| tell(&mut alice, "bob", number));
        door.is_shut.store(true, Ordering::SeqCst);
        let mut bob = house.user(1, subprotocol, "bob");
        // It is greeted and served all the same.
        fence(&mut bob, subprotocol);
        door.is_shut.store(false, Ordering::SeqCst);
        assert_eq!(until(&mut bob, 300), (1..=300).collect::<Vec<_>>(), "{subprotocol:?}");
        tell(&mut alice, "bob", 301);
        assert_eq!(numbers(&mut bob, 1), [301]);
    }
}

#[test]
fn bad_input_gets_an_error_and_the_inbox_goes_on() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    (1..=3).for_each(|number| tell(&mut alice, "bob", number));
    let mut bob = tieline(&house, 1, "bob");
    // A place that nobody can have been at.
    let (_, ack) = crate::logs::join(&mut bob, "kept", None);
    assert_eq!(crate::logs::publish(&mut alice, "kept", 1, 500)["success"], true);
    let epoch = bob.receive()["position"]["epoch"].clone();
    let far = json!({"epoch": epoch, "offset": 900});
    let (missed, ahead) = crate::logs::join(&mut bob, "kept", Some(&far));
    assert_eq!(
        (missed.len(), &ahead["reason"], &ahead["position"]["offset"]),
        (0, &json!("epoch"), &json!(1)),
        "{ack}"
    );
    // Before `hello` there is nothing that could be read.
    bob.send(json!({"type": "inboxAck", "offset": 9_007_199_254_740_992_u64}));
    assert_eq!(bob.receive()["error"]["name"], "InvalidRequest");
    for (frame, field) in [
        (json!({"type": "hello", "inbox": "all", "ackId": 1}), "inbox"),
        (json!({"type": "hello", "inbox": {"epoch": 1}, "ackId": 2}), "inbox"),
        (json!({"type": "hello", "inbox": {"epoch": 1, "offset": -1}, "ackId": 3}), "inbox"),
        (json!({"type": "hello", "inbox": {"epoch": 1.5, "offset": 1}, "ackId": 4}), "inbox"),
        (json!({"type": "hello", "device": 7, "ackId": 5}), "device"),
        (json!({"type": "hello", "device": "", "ackId": 6}), "device"),
        (json!({"type": "hello", "device": "x".repeat(257), "ackId": 7}), "device"),
        (json!({"type": "joinGroup", "group": "kept", "since": [1, 2], "ackId": 8}), "since"),
        (
            json!({"type": "joinGroup", "group": "kept", "since": {"epoch": 1, "offset": 1e30}, "ackId": 9}),
            "since",
        ),
    ] {
        bob.send(frame.clone());
        let ack = bob.receive();
        assert_eq!((&ack["ackId"], &ack["success"]), (&frame["ackId"], &json!(false)), "{frame}");
        assert!(ack["error"]["message"].as_str().unwrap().contains(field), "{ack}");
        bob.expect_nothing();
    }
    for frame in [
        json!({"type": "inboxAck"}),
        json!({"type": "inboxAck", "offset": "1"}),
        json!({"type": "inboxAck", "offset": -1}),
    ] {
        bob.send(frame.clone());
        assert_eq!(bob.receive()["type"], "error", "{frame}");
        bob.expect_nothing();
    }
    // A place beyond everything, of a log that there never was, is nobody's; a number that no client can count to is none.
    const MOST: u64 = (1 << 53) - 1;
    for (number, (epoch, offset)) in
        [(MOST, MOST), (1, MOST), (0, 7), (MOST, 0), (1, 1 << 60)].into_iter().enumerate()
    {
        let ack_id = 20 + number as u64;
        let since = json!({"epoch": epoch, "offset": offset});
        bob.send(json!({"type": "joinGroup", "group": "kept", "since": since, "ackId": ack_id}));
        let (missed, ack) = until_ack(&mut bob, ack_id);
        assert!(missed.is_empty());
        match offset > MOST {
            true => assert_eq!(ack["error"]["name"], "InvalidRequest", "{ack}"),
            false => assert_eq!(ack["recovered"], false, "{since} {ack}"),
        }
    }
    let (got, _) = hello(&mut bob, None);
    assert_eq!(data(&got), [1, 2, 3]);
    for ack_id in [31, 32] {
        bob.send(json!({"type": "hello", "ackId": ack_id}));
        assert_eq!(until_ack(&mut bob, ack_id).1["error"]["name"], "InvalidRequest");
    }
    // On the other dialects these frames are unknown.
    let mut azure = house.user(0, Subprotocol::Azure, "carol");
    for frame in [json!({"type": "hello", "ackId": 1}), json!({"type": "inboxAck", "offset": 1})] {
        azure.send(frame);
        let answer = azure.receive();
        assert_eq!(answer["error"]["name"], "UnknownType", "{answer}");
    }
    tell(&mut alice, "bob", 4);
    assert_eq!(numbers(&mut bob, 1), [4]);
}

#[test]
fn long_names_and_large_messages_cut_no_reader() {
    let settings = tieline_switchboard::Settings { max_lag: 2 << 20, ..Default::default() };
    let limits = tieline_core::Limits {
        messages_per_second: 0,
        hello: std::time::Duration::from_secs(2),
        ..Default::default()
    };
    let largest = settings.inbound.max_message;
    let mut house = House::with(2, limits, settings);
    house.keep(crate::logs::rules(), Door::new().engine());
    let (sender, receiver) = ("a".repeat(1024), "ü".repeat(1024));
    let mut alice = tieline(&house, 0, &sender);
    for number in 1..=1000 {
        tell(&mut alice, &receiver, number);
    }
    for subprotocol in [Subprotocol::Azure, Subprotocol::AzureReliable, Subprotocol::Plain] {
        let device = Some(if subprotocol == Subprotocol::Plain { "plain" } else { "azure" });
        let device = device.filter(|_| subprotocol != Subprotocol::AzureReliable);
        let mut bob = house.connect(1, Guest { device, ..Guest::new(subprotocol, &receiver) }).0;
        bob.is_acknowledging = subprotocol == Subprotocol::AzureReliable;
        assert_eq!(until(&mut bob, 1000), (1..=1000).collect::<Vec<_>>());
    }
    let mut bob =
        house.connect(1, Guest { device: Some("ours"), ..Guest::new(Subprotocol::Tieline, &receiver) }).0;
    assert_eq!(hello(&mut bob, None).0.len(), 1000);
    // A frame of exactly the largest size.
    for number in 1..=5 {
        let frame = |data: &str| {
            json!({"type": "sendToUser", "user": "carol", "dataType": "text", "data": data, "ackId": 2000 + number}).to_string()
        };
        let data = "x".repeat(largest - frame("").len());
        let text = frame(&data);
        assert_eq!(text.len(), largest);
        alice.send_text(&text);
        assert_eq!(until_ack(&mut alice, 2000 + number).1["success"], true);
    }
    for (subprotocol, device) in QUIET.into_iter().zip(["one", "two", "three"]) {
        let guest = Guest { device: Some(device), ..Guest::new(subprotocol, "carol") };
        let mut carol = house.connect(1, guest).0;
        carol.is_acknowledging = subprotocol == Subprotocol::AzureReliable;
        for _ in 0..5 {
            let frame = carol.receive();
            let data = frame.get("data").or(frame.get("msg")).and_then(Value::as_str).unwrap();
            assert!(data.len() > largest - 200, "{subprotocol:?}");
        }
    }
}

#[test]
fn who_reads_nothing_is_no_reader_of_the_inbox() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    (1..=3).for_each(|number| tell(&mut alice, "bob", number));
    // A connection without a user has no inbox, and no ping but those of the switchboard.
    let guest = Guest { user: None, ..Guest::new(Subprotocol::Azure, "") };
    let (mut nobody, _) = house.connect(0, guest);
    nobody.send_frame(Opcode::Pong, &[1; 16]);
    nobody.expect_nothing();
    // One that goes at once takes nothing away.
    mute(&house, Subprotocol::Azure).cut();
    let mut bob = mute(&house, Subprotocol::Azure);
    assert_eq!(numbers(&mut bob, 3), [1, 2, 3]);
    assert!(matches!(bob.hear(), Heard::Ping(payload) if payload.len() == 16));
}
