//! Groups whose members are stored: who is offline is counted, gets on return what was missed and nothing else, and is a member
//! until it leaves, whatever becomes of connections and nodes. On real sockets, with the store in memory behind a door.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_core::Subprotocol;
use tieline_core::ask::{Ask, Who};
use tieline_core::broker::MemoryExchange;
use tieline_core::store::{Cut, LogKey, Store};
use tieline_proto::{GroupName, HubName, Position, UserId};
use tieline_websocket::Opcode;

use crate::house::{Guest, House, Peer, eventually, patient};
use crate::logs::{Door, data, futures_block, house, join, pair, publish, tieline, until_ack};
use crate::moving::{houses, recover};

const ALL: [Subprotocol; 4] =
    [Subprotocol::Tieline, Subprotocol::Azure, Subprotocol::AzureReliable, Subprotocol::Plain];

fn number(frame: &Value) -> u64 {
    frame.get("data").or(frame.get("msg")).and_then(Value::as_u64).unwrap_or_else(|| panic!("{frame}"))
}

fn numbers(peer: &mut Peer, count: usize) -> Vec<u64> {
    (0..count).map(|_| number(&peer.receive())).collect()
}

/// Sends the next one to a group, and gives delivered and queued.
fn tell(alice: &mut Peer, group: &str, number: u64) -> (u64, u64) {
    static ACKS: AtomicU64 = AtomicU64::new(1);
    let ack = publish(alice, group, number, ACKS.fetch_add(1, Ordering::Relaxed));
    assert_eq!(ack["success"], true, "{ack}");
    (ack["delivered"].as_u64().unwrap(), ack["queued"].as_u64().unwrap())
}

/// Joins a group and waits until that is acknowledged. Plain clients are told nothing, so what they say next is answered.
fn enter(peer: &mut Peer, subprotocol: Subprotocol, group: &str) {
    if subprotocol == Subprotocol::Plain {
        peer.send(json!({"join": group}));
        fence(peer, subprotocol);
    } else {
        let ack = join(peer, group, None).1;
        assert_eq!(ack["success"], true, "{ack}");
    }
}

fn exit(peer: &mut Peer, subprotocol: Subprotocol, group: &str) {
    if subprotocol == Subprotocol::Plain {
        peer.send(json!({"leave": group}));
        fence(peer, subprotocol);
    } else {
        peer.send(json!({"type": "leaveGroup", "group": group, "ackId": 700}));
        let ack = until_ack(peer, 700).1;
        assert_eq!(ack["success"], true, "{ack}");
    }
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

/// A client that has read nothing until the test says so.
fn mute(house: &House, subprotocol: Subprotocol, user: &str) -> Peer {
    let mut peer = house.user(1, subprotocol, user);
    peer.is_mute = true;
    peer
}

/// Has the last message of a group, at this offset and with this number, read in the way of the dialect.
fn read_up_to(peer: &mut Peer, subprotocol: Subprotocol, group: &str, offset: u64, sequence: u64) {
    match subprotocol {
        Subprotocol::Tieline => peer.send(json!({"type": "groupAck", "group": group, "offset": offset})),
        Subprotocol::AzureReliable => peer.send(json!({"type": "sequenceAck", "sequenceId": sequence})),
        Subprotocol::Azure | Subprotocol::Plain => {
            let named = peer.ping();
            peer.send_frame(Opcode::Pong, &named);
        }
    }
    fence(peer, subprotocol);
}

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn rest_join(house: &House, name: &str, of: &str) {
    let logs = house.node.logs().unwrap();
    futures_timed(logs.join_user(&hub(), &user(name), &[group(of)])).unwrap();
    let ask = Ask::Join { who: Who::User(user(name)), groups: vec![group(of)] };
    futures_timed(house.node.answer(&hub(), ask)).unwrap();
}

fn rest_leave(house: &House, name: &str, of: Option<&str>) {
    let logs = house.node.logs().unwrap();
    futures_timed(logs.leave_user(&hub(), &user(name), of.map(group).as_ref())).unwrap();
    let who = Who::User(user(name));
    let ask = of.map(group).map_or(Ask::LeaveAll(who.clone()), |of| Ask::Leave { who, groups: vec![of] });
    futures_timed(house.node.answer(&hub(), ask)).unwrap();
}

fn futures_timed<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn who_is_offline_is_queued_for_and_gets_exactly_what_was_missed() {
    for subprotocol in ALL {
        let (one, two) = pair(&Door::new());
        let mut alice = tieline(&one, 0, "alice");
        assert_eq!(tell(&mut alice, "club", 1), (0, 0), "there are no members yet");
        let mut bob = mute(&one, subprotocol, "bob");
        enter(&mut bob, subprotocol, "club");
        assert_eq!(tell(&mut alice, "club", 2), (1, 0), "{subprotocol:?}");
        assert_eq!(numbers(&mut bob, 1), [2]);
        read_up_to(&mut bob, subprotocol, "club", 2, 1);
        bob.cut();
        if subprotocol == Subprotocol::AzureReliable {
            // It could come back to its connection, and so is not offline.
            assert_eq!(tell(&mut alice, "club", 3).1, 0);
        } else {
            eventually(|| one.node.hubs().get(&hub()).is_none_or(|hub| hub.user_connections("bob") == 0));
            assert_eq!(tell(&mut alice, "club", 3), (0, 1), "{subprotocol:?}");
        }
        tell(&mut alice, "club", 4);
        // At the other node, when it is written how far it had read.
        eventually(|| number(&mute(&two, subprotocol, "bob").receive()) == 3);
        let mut bob = mute(&two, subprotocol, "bob");
        assert_eq!(numbers(&mut bob, 2), [3, 4], "{subprotocol:?}");
        fence(&mut bob, subprotocol);
        eventually(|| two.node.hubs().get(&hub()).is_some_and(|hub| hub.group("club").is_some()));
        tell(&mut alice, "club", 5);
        assert_eq!(numbers(&mut bob, 1), [5]);
        // Nothing of it was read, so all of it comes again, to this node too.
        let mut again = mute(&two, subprotocol, "bob");
        assert_eq!(numbers(&mut again, 3), [3, 4, 5], "{subprotocol:?}");
    }
}

#[test]
fn a_member_at_another_node_is_not_offline_and_one_at_none_is_counted_once() {
    let (one, two) = pair(&Door::new());
    let mut alice = tieline(&one, 0, "alice");
    let (mut bob, mut twin) = (tieline(&two, 0, "bob"), tieline(&two, 1, "bob"));
    let mut carol = tieline(&one, 1, "carol");
    for peer in [&mut bob, &mut twin, &mut carol] {
        enter(peer, Subprotocol::Tieline, "club");
    }
    rest_join(&one, "dora", "club");
    rest_join(&two, "dora", "club");
    assert_eq!(tell(&mut alice, "club", 1), (3, 1));
    carol.cut();
    eventually(|| queued(&mut alice, "club") == 2);
}

/// Sends one with a number that was not used.
fn fresh(alice: &mut Peer, of: &str) -> (u64, u64) {
    static NUMBERS: AtomicU64 = AtomicU64::new(10_000_000);
    tell(alice, of, NUMBERS.fetch_add(1, Ordering::Relaxed))
}

fn queued(alice: &mut Peer, of: &str) -> u64 {
    fresh(alice, of).1
}

#[test]
fn who_leaves_is_a_member_no_longer_and_gets_nothing_on_return() {
    for subprotocol in ALL {
        let house = house(&Door::new());
        let mut alice = tieline(&house, 0, "alice");
        let mut bob = house.user(1, subprotocol, "bob");
        for of in ["club-1", "club-2", "club-3", "club-4"] {
            enter(&mut bob, subprotocol, of);
        }
        exit(&mut bob, subprotocol, "club-1");
        tell(&mut alice, "club-1", 1);
        rest_leave(&house, "bob", Some("club-2"));
        tell(&mut alice, "club-2", 2);
        fence(&mut bob, subprotocol);
        bob.send_frame(Opcode::Close, &1000u16.to_be_bytes());
        drop(bob);
        eventually(|| queued(&mut alice, "club-3") == 1);
        assert_eq!(["club-1", "club-2"].map(|of| queued(&mut alice, of)), [0, 0], "{subprotocol:?}");
        tell(&mut alice, "club-3", 3);
        // All of them, while nobody is there.
        rest_leave(&house, "bob", None);
        assert_eq!(["club-3", "club-4"].map(|of| queued(&mut alice, of)), [0, 0], "{subprotocol:?}");
        let mut bob = house.user(1, subprotocol, "bob");
        fence(&mut bob, subprotocol);
        tell(&mut alice, "club-4", 4);
        fence(&mut bob, subprotocol);
        // Whoever joins again begins at the end.
        enter(&mut bob, subprotocol, "club-4");
        tell(&mut alice, "club-4", 5);
        assert_eq!(numbers(&mut bob, 1), [5], "{subprotocol:?}");
    }
}

#[test]
fn a_user_who_was_never_here_is_made_a_member_and_keeps_the_place() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    tell(&mut alice, "club", 1);
    rest_join(&house, "bob", "club");
    assert_eq!(tell(&mut alice, "club", 2), (0, 1));
    rest_join(&house, "bob", "club");
    assert_eq!(tell(&mut alice, "club", 3), (0, 1));
    // A group whose members are connections takes no notice.
    rest_join(&house, "bob", "kept");
    assert_eq!(tell(&mut alice, "kept", 4), (0, 0));
    let mut bob = tieline(&house, 1, "bob");
    let ack = join(&mut bob, "club", None);
    assert_eq!(data(&ack.0), [2, 3]);
    assert_eq!(ack.1["position"]["offset"], 3, "{}", ack.1);
    assert_eq!(tell(&mut alice, "club", 5), (1, 0));
    assert_eq!(bob.receive()["data"], 5);
    // To some members, of whom one is there.
    rest_join(&house, "carol", "club");
    let frame =
        |users: Value| json!({"type": "sendToGroup", "group": "club", "users": users, "data": 6, "ackId": 6});
    alice.send(frame(json!(["bob"])));
    let ack = until_ack(&mut alice, 6).1;
    assert_eq!((&ack["delivered"], &ack["queued"]), (&json!(1), &json!(0)), "{ack}");
}

#[test]
fn groups_of_the_token_make_members_that_stay() {
    for subprotocol in ALL {
        let house = house(&Door::new());
        let mut alice = tieline(&house, 0, "alice");
        let guest = || Guest { groups: vec!["club", "kept", "live"], ..Guest::new(subprotocol, "bob") };
        let (mut bob, _) = house.connect(1, guest());
        fence(&mut bob, subprotocol);
        // What is sent from now on comes, whether it was given at once or is caught up with.
        for (number, of) in [(1, "club"), (2, "kept"), (3, "live")] {
            tell(&mut alice, of, number);
        }
        let mut got = numbers(&mut bob, 3);
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3], "{subprotocol:?}");
        bob.send_frame(Opcode::Close, &1000u16.to_be_bytes());
        drop(bob);
        eventually(|| queued(&mut alice, "club") == 1);
        // Without the token's word, too.
        let mut bob = house.user(1, subprotocol, "bob");
        let first = number(&bob.receive());
        assert!(first == 1 || first >= 10_000_000, "{subprotocol:?} {first}");
    }
}

#[test]
fn who_is_nobody_is_a_member_for_as_long_as_the_connection_lives() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    let guest = || Guest { user: None, groups: vec!["club"], ..Guest::new(Subprotocol::Tieline, "") };
    let (mut nobody, _) = house.connect(1, guest());
    assert_eq!(tell(&mut alice, "club", 1), (1, 0));
    assert_eq!(nobody.receive()["data"], 1);
    let ack = join(&mut nobody, "club-2", None).1;
    assert_eq!((&ack["success"], &ack["position"]["offset"]), (&json!(true), &json!(0)));
    nobody.send(json!({"type": "groupAck", "group": "club", "offset": 1}));
    assert_eq!(nobody.receive()["error"]["name"], "InvalidRequest");
    nobody.cut();
    eventually(|| fresh(&mut alice, "club") == (0, 0));
}

#[test]
fn places_and_memberships_outlive_the_node() {
    let door = Door::new();
    for subprotocol in ALL {
        let of = format!("club-{subprotocol:?}");
        {
            let house = house(&door);
            let mut alice = tieline(&house, 0, "alice");
            let mut bob = mute(&house, subprotocol, "bob");
            enter(&mut bob, subprotocol, &of);
            tell(&mut alice, &of, 1);
            assert_eq!(numbers(&mut bob, 1), [1]);
            read_up_to(&mut bob, subprotocol, &of, 1, 1);
            tell(&mut alice, &of, 2);
            tell(&mut alice, &of, 3);
            assert_eq!(numbers(&mut bob, 2), [2, 3]);
            bob.send_frame(Opcode::Close, &1000u16.to_be_bytes());
            drop(bob);
            eventually(|| queued(&mut alice, &of) == 1);
            tell(&mut alice, &of, 4);
        }
        let house = house(&door);
        let mut alice = tieline(&house, 0, "alice");
        assert_eq!(tell(&mut alice, &of, 5), (0, 1), "{subprotocol:?}");
        let mut bob = mute(&house, subprotocol, "bob");
        let mut got = Vec::new();
        while got.last() != Some(&5) {
            got.push(number(&bob.receive()));
        }
        got.retain(|number| *number < 10);
        assert_eq!(got, [2, 3, 4, 5], "{subprotocol:?}");
        rest_leave(&house, "bob", None);
    }
}

#[test]
fn many_groups_and_pages_come_in_the_order_of_each_log() {
    for subprotocol in ALL {
        let house = house(&Door::new());
        let mut alice = tieline(&house, 0, "alice");
        let groups: Vec<String> = (0..20).map(|number| format!("club-{number}")).collect();
        groups.iter().for_each(|of| rest_join(&house, "bob", of));
        for number in 1..=700 {
            tell(&mut alice, "club-7", number);
        }
        for (index, of) in groups.iter().enumerate() {
            tell(&mut alice, of, 1000 + index as u64);
        }
        let mut bob = house.user(1, subprotocol, "bob");
        bob.is_acknowledging = true;
        let got = numbers(&mut bob, 720);
        let (long, others): (Vec<u64>, Vec<u64>) = got.iter().partition(|number| **number <= 700);
        assert_eq!(long, (1..=700).collect::<Vec<_>>(), "{subprotocol:?}");
        assert_eq!(others.len(), 20, "{subprotocol:?}");
        fence(&mut bob, subprotocol);
        tell(&mut alice, "club-19", 5000);
        assert_eq!(numbers(&mut bob, 1), [5000], "{subprotocol:?}");
    }
}

#[test]
fn a_client_that_joins_and_leaves_as_it_comes_back_misses_nothing_and_gets_nothing_after_that() {
    for subprotocol in ALL {
        let house = house(&Door::new());
        let mut alice = tieline(&house, 0, "alice");
        for of in ["club-1", "club-2"] {
            rest_join(&house, "bob", of);
            for number in 1..=300 {
                tell(&mut alice, of, number);
            }
        }
        let mut bob = house.user(1, subprotocol, "bob");
        bob.is_acknowledging = true;
        let plain = subprotocol == Subprotocol::Plain;
        let frame = |what: &str, of: &str, ack_id: u64| {
            if plain {
                json!({what: of})
            } else {
                json!({"type": format!("{what}Group"), "group": of, "ackId": ack_id})
            }
        };
        for of in ["club-1", "club-2"] {
            bob.send(frame("join", of, 1 + u64::from(of == "club-2")));
        }
        let mut heard: Vec<Value> = Vec::new();
        let count = |heard: &[Value], of: &str| heard.iter().filter(|frame| frame["group"] == of).count();
        while count(&heard, "club-1") + count(&heard, "club-2") < 600 {
            heard.push(bob.receive());
        }
        for of in ["club-1", "club-2"] {
            let of_it = heard.iter().filter(|frame| frame["group"] == of).map(number);
            assert!(of_it.eq(1..=300), "{subprotocol:?}");
        }
        bob.send_frame(Opcode::Close, &1000u16.to_be_bytes());
        drop(bob);
        // Leaving while it is still given what it missed: nothing comes behind the ack.
        rest_join(&house, "carol", "club-1");
        for number in 1..=2000 {
            tell(&mut alice, "club-1", number);
        }
        let mut carol = house.user(0, subprotocol, "carol");
        carol.is_acknowledging = true;
        exit_and_expect_nothing(&mut carol, subprotocol, &mut alice);
    }
}

fn exit_and_expect_nothing(carol: &mut Peer, subprotocol: Subprotocol, alice: &mut Peer) {
    if subprotocol == Subprotocol::Plain {
        // It has no acks: what it says next is answered behind that.
        carol.send(json!({"leave": "club-1"}));
        carol.send_text("no JSON");
        while carol.receive().get("error").is_none() {}
    } else {
        carol.send(json!({"type": "leaveGroup", "group": "club-1", "ackId": 9}));
        until_ack(carol, 9);
    }
    tell(alice, "club-1", 9_000_000);
    fence(carol, subprotocol);
    assert_eq!(queued(alice, "club-1"), 1, "bob alone is a member");
}

#[test]
fn a_position_that_the_client_names_moves_its_place_and_bad_acks_do_nothing() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    let mut bob = tieline(&house, 1, "bob");
    enter(&mut bob, Subprotocol::Tieline, "club");
    for number in 1..=4 {
        tell(&mut alice, "club", number);
    }
    assert_eq!(numbers(&mut bob, 3), [1, 2, 3]);
    let fourth = bob.receive();
    bob.send(json!({"type": "groupAck", "group": "club", "offset": 2}));
    bob.expect_nothing();
    let back = |house: &House| {
        let mut bob = tieline(house, 0, "bob");
        let (got, ack) = join(&mut bob, "club", None);
        assert_eq!(ack["success"], true);
        data(&got)
    };
    assert_eq!(back(&house), [3, 4]);
    // Back, or beyond what there is.
    for frame in [
        json!({"type": "groupAck", "group": "club", "offset": 1}),
        json!({"type": "groupAck", "group": "club", "offset": 0}),
    ] {
        bob.send(frame);
        bob.expect_nothing();
        assert_eq!(back(&house), [3, 4]);
    }
    for frame in [
        json!({"type": "groupAck", "group": "club"}),
        json!({"type": "groupAck", "offset": 3}),
        json!({"type": "groupAck", "group": "club-2", "offset": 3}),
        json!({"type": "groupAck", "group": "kept", "offset": 3}),
        json!({"type": "groupAck", "group": "club", "offset": -1}),
    ] {
        bob.send(frame.clone());
        assert_eq!(bob.receive()["type"], "error", "{frame}");
    }
    assert_eq!(back(&house), [3, 4]);
    let mut other = tieline(&house, 0, "bob");
    assert_eq!(numbers(&mut other, 2), [3, 4]);
    let third = json!({"epoch": fourth["position"]["epoch"], "offset": 3});
    let (got, ack) = join(&mut other, "club", Some(&third));
    assert_eq!((data(&got), &ack["recovered"]), (vec![4], &json!(true)));
    assert_eq!(back(&house), [4]);
    bob.send(json!({"type": "groupAck", "group": "club", "offset": 900}));
    bob.expect_nothing();
    assert_eq!(back(&house), [0_u64; 0]);
    assert_eq!(tell(&mut alice, "club", 5).1, 0);
}

#[test]
fn what_is_trimmed_is_passed_over_and_told_to_who_can_hear_it() {
    for subprotocol in ALL {
        let door = Door::new();
        let house = house(&door);
        let mut alice = tieline(&house, 0, "alice");
        let mut bob = mute(&house, subprotocol, "bob");
        enter(&mut bob, subprotocol, "club");
        tell(&mut alice, "club", 1);
        bob.receive();
        read_up_to(&mut bob, subprotocol, "club", 1, 1);
        bob.send_frame(Opcode::Close, &1000u16.to_be_bytes());
        drop(bob);
        for number in 2..=600 {
            tell(&mut alice, "club", number);
        }
        let log = LogKey::Group(hub(), group("club"));
        let head = futures_block(door.store.heads(vec![log.clone()])).unwrap()[0].unwrap();
        let cut = Position { epoch: head.epoch, offset: head.last - 5 };
        futures_block(door.store.trim(log, Cut::Through(cut))).unwrap();
        // Another node, which remembers nothing of what was trimmed.
        drop(alice);
        let other = crate::logs::house(&door);
        let mut bob = other.user(1, subprotocol, "bob");
        let mut got: Vec<Value> = vec![bob.receive()];
        while got.last().is_none_or(|frame| frame.get("data").or(frame.get("msg")) != Some(&json!(600))) {
            got.push(bob.receive());
        }
        let (gaps, messages): (Vec<_>, Vec<_>) = got.into_iter().partition(|frame| frame["event"] == "gap");
        assert!(messages.iter().map(number).eq(596..=600), "{subprotocol:?} {messages:?}");
        if subprotocol == Subprotocol::Tieline {
            let gap = gaps.first().cloned().unwrap_or_else(|| bob.receive());
            assert_eq!((&gap["event"], &gap["group"]), (&json!("gap"), &json!("club")), "{gap}");
        } else {
            assert!(gaps.is_empty());
        }
    }
}

#[test]
fn a_store_that_refuses_or_says_nothing_is_told_in_time_and_heard_when_it_is_back() {
    for is_silent in [false, true] {
        let door = Door::new();
        let house = house(&door);
        let mut alice = tieline(&house, 0, "alice");
        let mut bob = tieline(&house, 1, "bob");
        enter(&mut bob, Subprotocol::Tieline, "club-1");
        rest_join(&house, "carol", "club-1");
        tell(&mut alice, "club-1", 1);
        assert_eq!(bob.receive()["data"], 1);
        let shut = if is_silent { &door.is_silent } else { &door.is_shut };
        shut.store(true, Ordering::SeqCst);
        let began = Instant::now();
        let name = if is_silent { "StoreUnknown" } else { "StoreUnavailable" };
        let ack = join(&mut bob, "club-2", None).1;
        assert_eq!(ack["error"]["name"], name, "{ack}");
        bob.send(json!({"type": "leaveGroup", "group": "club-1", "ackId": 7}));
        let ack = until_ack(&mut bob, 7).1;
        assert_eq!(ack["error"]["name"], name, "{ack}");
        let logs = house.node.logs().unwrap();
        let (hub, dora, club) = (hub(), user("dora"), [group("club-1")]);
        let refused = futures_timed(logs.join_user(&hub, &dora, &club)).unwrap_err();
        assert_eq!(refused.code().name(), name, "{refused}");
        let refused = futures_timed(logs.leave_user(&hub, &dora, None)).unwrap_err();
        assert_eq!(refused.code().name(), name, "{refused}");
        // Who comes meanwhile is let in, and into its groups when the store answers.
        let mut quiet: Vec<Peer> = ALL.map(|subprotocol| house.user(0, subprotocol, "carol")).into();
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        shut.store(false, Ordering::SeqCst);
        for (peer, subprotocol) in quiet.iter_mut().zip(ALL) {
            // That the store was away is told.
            let frame = peer.receive_but_gaps();
            assert_eq!(number(&frame), 1, "{subprotocol:?}");
        }
        bob.send(json!({"type": "leaveGroup", "group": "club-1", "ackId": 8}));
        let ack = until_ack(&mut bob, 8).1;
        assert_eq!(ack["success"], true, "{ack}");
        // Another one: what a silent store was asked about the first it never answers.
        let ack = join(&mut bob, "club-3", None).1;
        assert_eq!(ack["success"], true, "{ack}");
        bob.cut();
        eventually(|| queued(&mut alice, "club-3") == 1);
        assert_eq!(queued(&mut alice, "club-1"), 0);
    }
}

#[test]
fn a_node_without_a_store_or_with_another_one_has_no_members() {
    let exchange = MemoryExchange::links();
    let (mut one, mut two) = (house(&Door::new()), house(&Door::new()));
    one.join(&exchange, patient());
    two.join(&exchange, patient());
    one.wait_for_peers(1);
    two.wait_for_peers(1);
    let mut bob = tieline(&one, 0, "bob");
    eventually(|| join(&mut bob, "club", None).1["error"]["name"] == "StoreMissing");
    bob.send(json!({"type": "leaveGroup", "group": "club", "ackId": 1}));
    assert_eq!(until_ack(&mut bob, 1).1["error"]["name"], "StoreMissing");
    let mut alone = House::named(1);
    alone.keep(crate::logs::rules(), None);
    let mut bob = tieline(&alone, 0, "bob");
    assert_eq!(join(&mut bob, "club", None).1["error"]["name"], "StoreMissing");
    let refused = futures_timed(alone.node.logs().unwrap().join_user(&hub(), &user("bob"), &[group("club")]));
    assert_eq!(refused.unwrap_err().code().name(), "StoreMissing");
}

#[test]
fn what_a_connection_reads_after_it_moved_to_another_node_moves_the_place() {
    let houses = houses(Some(&Door::new()));
    let mut alice = tieline(&houses[2], 0, "alice");
    let (mut bob, connected) = houses[0].connect(1, Guest::new(Subprotocol::AzureReliable, "bob"));
    enter(&mut bob, Subprotocol::AzureReliable, "club");
    tell(&mut alice, "club", 1);
    assert_eq!(numbers(&mut bob, 1), [1]);
    bob.cut();
    tell(&mut alice, "club", 2);
    let mut bob = recover(&houses[1], &connected);
    assert_eq!(bob.receive()["event"], "connected");
    assert_eq!(numbers(&mut bob, 2), [1, 2]);
    bob.send(json!({"type": "sequenceAck", "sequenceId": 2}));
    bob.expect_nothing();
    tell(&mut alice, "club", 3);
    assert_eq!(numbers(&mut bob, 1), [3]);
    for subprotocol in ALL {
        eventually(|| number(&mute(&houses[2], subprotocol, "bob").receive()) == 3);
    }
    bob.expect_nothing();
}

#[test]
fn names_are_whatever_they_are() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    let long = "ü".repeat(1000);
    let names = ["%2F", "a/b", "*", "\u{1}", "..", "\"}", "club", "\u{202e}x", &*long];
    for name in names {
        rest_join(&house, name, &format!("club{name}"));
    }
    for (index, name) in names.into_iter().enumerate() {
        let of = format!("club{name}");
        assert_eq!(tell(&mut alice, &of, index as u64 + 1), (0, 1), "{name}");
    }
    for (index, name) in names.into_iter().enumerate() {
        let mut peer = tieline(&house, 1, name);
        let frame = peer.receive();
        assert_eq!((number(&frame), &frame["group"]), (index as u64 + 1, &json!(format!("club{name}"))));
        peer.expect_nothing();
    }
}
