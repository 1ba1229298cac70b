//! Sessions on real sockets: what clients of each protocol send, and every frame that they get back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acks;
mod asks;
mod cluster;
mod crowds;
mod drains;
mod events;
mod house;
mod inboxes;
mod logins;
mod logs;
mod medium;
mod members;
mod moving;
mod presence;
mod reliable;
mod resuming;
mod routing;
mod unreachable;

use house::{Guest, Heard, House, PATIENCE, eventually};
use serde_json::{Value, json};
use tieline_core::{Limits, Subprotocol};
use tieline_proto::role::Roles;
use tieline_switchboard::Settings;
use tieline_websocket::Opcode;

#[test]
fn a_group_message_reaches_the_members_on_every_shard_and_nobody_else() {
    let house = House::new(2);
    let (mut alice, connected) = house.connect(0, Guest::new(Subprotocol::Azure, "alice"));
    assert_eq!(connected["event"], "connected");
    assert_eq!(connected["userId"], "alice");
    assert_eq!(connected["connectionId"].as_str().map(str::len), Some(27));
    assert_eq!(connected.get("reconnectionToken"), None);
    let mut bob = house.user(1, Subprotocol::Tieline, "bob");
    let mut carol = house.user(1, Subprotocol::Azure, "carol");
    alice.join("room", 1);
    bob.join("room", 1);

    alice.send(
        json!({"type": "sendToGroup", "group": "room", "dataType": "json", "data": {"n": 1}, "ackId": 2}),
    );
    let message = json!({"type": "message", "from": "group", "group": "room", "fromUserId": "alice",
        "dataType": "json", "data": {"n": 1}});
    let (first, second) = (alice.receive(), alice.receive());
    let ack = json!({"type": "ack", "ackId": 2, "success": true});
    assert!([&first, &second].contains(&&ack) && [&first, &second].contains(&&message), "{first} {second}");

    let mut heard = bob.receive();
    assert_eq!(heard["id"].as_str().map(str::len), Some(26));
    assert!(heard["time"].as_str().unwrap().ends_with('Z'));
    heard.as_object_mut().unwrap().retain(|key, _| key != "id" && key != "time");
    assert_eq!(heard, message);
    carol.expect_nothing();
}

#[test]
fn no_echo_users_and_leave_are_honoured() {
    let house = House::new(2);
    let mut alice = house.user(0, Subprotocol::Tieline, "alice");
    let mut bob = house.user(0, Subprotocol::Tieline, "bob");
    let mut carol = house.user(1, Subprotocol::Tieline, "carol");
    for peer in [&mut alice, &mut bob, &mut carol] {
        peer.join("room", 1);
    }
    alice.send(
        json!({"type": "sendToGroup", "group": "room", "noEcho": true, "dataType": "text", "data": "a"}),
    );
    assert_eq!(bob.receive()["data"], "a");
    assert_eq!(carol.receive()["data"], "a");
    alice.send(json!({"type": "sendToGroup", "group": "room", "users": ["carol"], "data": "b", "ackId": 2}));
    assert_eq!(alice.receive()["delivered"], 1);
    assert_eq!(carol.receive()["data"], "b");
    carol.send(json!({"type": "leaveGroup", "group": "room", "ackId": 2}));
    assert_eq!(carol.receive()["success"], true);
    alice.send(json!({"type": "sendToGroup", "group": "room", "data": "c", "ackId": 3}));
    assert_eq!(bob.receive()["data"], "c");
    carol.expect_nothing();
    bob.expect_nothing();
}

#[test]
fn sends_to_user_all_and_many_tell_what_became_of_them() {
    let house = House::new(2);
    let mut alice = house.user(0, Subprotocol::Tieline, "alice");
    let (mut bob, connected) = house.connect(1, Guest::new(Subprotocol::Tieline, "a/b ?#%ü"));
    let mut bob_too = house.user(0, Subprotocol::Azure, "a/b ?#%ü");
    bob.join("room", 1);

    alice.send(json!({"type": "sendToUser", "user": "a/b ?#%ü", "data": 1, "ackId": 1}));
    assert_eq!(
        alice.receive(),
        json!({"type": "ack", "ackId": 1, "success": true, "delivered": 2, "queued": 0, "unknown": 0, "unreachable": 0})
    );
    let heard = bob.receive();
    assert_eq!((&heard["from"], &heard["toUserId"]), (&json!("user"), &json!("a/b ?#%ü")));
    assert_eq!(bob_too.receive()["from"], "server");

    alice.send(json!({"type": "sendToUser", "user": "nobody", "data": 1, "ackId": 2}));
    let ack = alice.receive();
    assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(0), &json!(1)));

    alice.send(json!({"type": "sendToAll", "data": "all", "noEcho": true, "ackId": 3}));
    assert_eq!(alice.receive()["delivered"], 2);
    assert_eq!((&bob.receive()["data"], &bob_too.receive()["data"]), (&json!("all"), &json!("all")));

    // By group, user and connection: it still arrives once.
    let to = json!({"users": ["a/b ?#%ü", "nobody"], "groups": ["room", "empty"],
        "connections": [connected["connectionId"], "AAAAAAAAAAAAAAAAAAAAAAAAAAA"]});
    alice.send(json!({"type": "send", "to": to, "data": "many", "ackId": 4}));
    let ack = alice.receive();
    assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(2), &json!(2)));
    assert_eq!(bob.receive()["data"], "many");
    bob.expect_nothing();
}

#[test]
fn hubs_do_not_touch() {
    let house = House::new(1);
    let mut here = house.user(0, Subprotocol::Tieline, "u");
    let there = Guest { hub: "other", ..Guest::new(Subprotocol::Tieline, "u") };
    let (mut there, connected) = house.connect(0, there);
    here.join("room", 1);
    there.join("room", 1);
    let to = json!({"connections": [connected["connectionId"]]});
    for (frame, unknown) in [
        (json!({"type": "sendToGroup", "group": "room", "data": 1, "noEcho": true, "ackId": 2}), 0),
        (json!({"type": "sendToUser", "user": "u", "data": 1, "noEcho": true, "ackId": 3}), 0),
        (json!({"type": "sendToAll", "data": 1, "noEcho": true, "ackId": 4}), 0),
        (json!({"type": "send", "to": to, "data": 1, "ackId": 5}), 1),
    ] {
        here.send(frame);
        let ack = here.receive();
        assert_eq!((&ack["delivered"], &ack["unknown"]), (&json!(0), &json!(unknown)), "{ack}");
    }
    there.expect_nothing();
}

#[test]
fn roles_decide() {
    let house = House::new(1);
    let roles =
        Roles::parse(["webpubsub.joinLeaveGroup.a", "webpubsub.sendToGroup.b", "tieline.sendToUser.u"]);
    let guest = Guest { roles, groups: vec!["token-group"], ..Guest::new(Subprotocol::Tieline, "u") };
    let (mut peer, _) = house.connect(0, guest);
    let forbidden = [
        json!({"type": "joinGroup", "group": "b", "ackId": 1}),
        json!({"type": "sendToGroup", "group": "a", "data": 1, "ackId": 1}),
        json!({"type": "sendToUser", "user": "v", "data": 1, "ackId": 1}),
        json!({"type": "sendToAll", "data": 1, "ackId": 1}),
        json!({"type": "send", "to": {"users": ["u"], "groups": ["a"]}, "data": 1, "ackId": 1}),
        json!({"type": "send", "to": {"connections": ["AAAAAAAAAAAAAAAAAAAAAAAAAAA"]}, "data": 1, "ackId": 1}),
    ];
    for frame in forbidden {
        peer.send(frame.clone());
        let ack = peer.receive();
        assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("Forbidden")), "{frame}");
    }
    // A refused request was not carried out, so its ackId is not a duplicate.
    peer.send(json!({"type": "joinGroup", "group": "a", "ackId": 1}));
    assert_eq!(peer.receive()["success"], true);
    let mut other = house.user(0, Subprotocol::Azure, "v");
    other.send(json!({"type": "sendToGroup", "group": "token-group", "data": "hi"}));
    assert_eq!(peer.receive()["data"], "hi");
}

#[test]
fn a_request_is_carried_out_once() {
    let house = House::new(1);
    let mut alice = house.user(0, Subprotocol::Azure, "alice");
    let mut bob = house.user(0, Subprotocol::Azure, "bob");
    bob.join("room", 1);
    for _ in 0..2 {
        alice.send(json!({"type": "sendToGroup", "group": "room", "data": 1, "ackId": 7}));
    }
    assert_eq!(alice.receive()["success"], true);
    let ack = alice.receive();
    assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("Duplicate")));
    assert_eq!(bob.receive()["data"], 1);
    bob.expect_nothing();
}

#[test]
fn a_request_whose_ack_waits_for_another_shard_is_carried_out_once_too() {
    let house = House::new(2);
    let mut alice = house.user(0, Subprotocol::Tieline, "alice");
    let mut bob = house.user(1, Subprotocol::Tieline, "bob");
    for n in 1..=50 {
        let frame = json!({"type": "sendToUser", "user": "bob", "data": n, "ackId": n});
        alice.send(frame.clone());
        alice.send(frame);
        let (first, second) = (alice.receive(), alice.receive());
        let duplicates = [&first, &second].iter().filter(|ack| ack["error"]["name"] == "Duplicate").count();
        assert_eq!(duplicates, 1, "{first} {second}");
        assert_eq!(bob.receive()["data"], n);
    }
    bob.expect_nothing();
}

#[test]
fn bad_frames_are_answered_and_many_of_them_close() {
    let limits = Limits { faults: 10, ..Limits::default() };
    let house = House::with(1, limits, Settings::default());
    let mut peer = house.user(0, Subprotocol::Tieline, "u");
    let deep = format!(r#"{{"type":"sendToAll","data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long_name = format!(r#"{{"type":"joinGroup","group":"{}"}}"#, "x".repeat(1 << 19));
    let bad = [
        ("nonsense", "InvalidRequest"),
        ("[]", "InvalidRequest"),
        (r#"{"type":"fly"}"#, "UnknownType"),
        (r#"{"type":"joinGroup"}"#, "InvalidRequest"),
        (r#"{"type":"joinGroup","group":" "}"#, "InvalidGroup"),
        (r#"{"type":"sendToAll","dataType":"text","data":1}"#, "InvalidData"),
        (r#"{"type":"sendToAll","data":1,"ackId":18446744073709551616}"#, "InvalidRequest"),
        (&deep, "InvalidData"),
        (&long_name, "InvalidGroup"),
    ];
    for (frame, name) in bad {
        peer.send_text(frame);
        let error = peer.receive();
        assert_eq!((&error["type"], &error["error"]["name"]), (&json!("error"), &json!(name)), "{error}");
        // A good frame in between, so that they are not in a row.
        peer.expect_nothing();
    }
    for _ in 0..9 {
        peer.send_text("nonsense");
        assert_eq!(peer.receive()["error"]["name"], "InvalidRequest");
    }
    peer.send_frame(Opcode::Binary, b"bytes");
    assert_eq!(peer.receive()["error"]["name"], "InvalidRequest");
    assert_eq!(peer.receive()["event"], "disconnected");
    assert_eq!(peer.hear(), Heard::Close(1003, tieline_proto::CloseCode::UnsupportedData.text().into()));
}

#[test]
fn a_message_rate_is_a_limit() {
    let limits = Limits { messages_per_second: 1, message_burst: 5, faults: 5, ..Limits::default() };
    let house = House::with(1, limits, Settings::default());
    let mut peer = house.user(0, Subprotocol::Tieline, "u");
    for ack_id in 0..20 {
        peer.send(json!({"type": "sendToAll", "data": 1, "noEcho": true, "ackId": ack_id}));
    }
    let heard: Vec<Heard> = std::iter::from_fn(|| match peer.hear() {
        Heard::End => None,
        other => Some(other),
    })
    .take_while(|heard| !matches!(heard, Heard::Close(..)))
    .collect();
    let acked = heard
        .iter()
        .filter(|heard| matches!(heard, Heard::Text(t) if t.contains("\"success\":true")))
        .count();
    let refused =
        heard.iter().filter(|heard| matches!(heard, Heard::Text(t) if t.contains("RateLimited"))).count();
    assert!((5..=6).contains(&acked), "{acked} were carried out");
    assert_eq!(refused, 5);
}

#[test]
fn limits_of_groups_and_of_connections_per_user_hold() {
    let limits = Limits { groups_per_connection: 2, connections_per_user: 1, ..Limits::default() };
    let house = House::with(1, limits, Settings::default());
    let mut peer = house.user(0, Subprotocol::Azure, "u");
    peer.join("a", 1);
    peer.join("b", 2);
    peer.join("b", 3);
    peer.send(json!({"type": "joinGroup", "group": "c", "ackId": 4}));
    assert_eq!(peer.receive()["error"]["name"], "TooManyGroups");
    let mut second = house.adopt(0, Guest::new(Subprotocol::Azure, "u").into(), Subprotocol::Azure);
    assert!(matches!(second.hear(), Heard::Close(1013, _)));
    // The refused one never was there, so its end takes nothing from the first.
    assert_eq!(house.node.hubs().all()[0].user_connections("u"), 1);
    peer.expect_nothing();
}

#[test]
fn plain_json_names_the_sender_and_says_who_is_not_there() {
    let house = House::new(2);
    let mut alice = house.user(0, Subprotocol::Plain, "alice");
    let mut bob = house.user(1, Subprotocol::Plain, "bob");
    bob.send(json!({"join": "room"}));
    // Plain clients are told neither that they are connected nor that they joined: their node's tables show it.
    house::eventually(|| {
        let hub = house.node.hubs().all();
        hub.first().is_some_and(|hub| hub.users() == 2 && hub.group("room").is_some())
    });
    alice.send_text(" \n ");
    alice.send(json!({"receiver": "nobody", "msg": "hi"}));
    assert_eq!(alice.receive()["error"], "NotFound");
    alice.send(json!({"receiver": "bob", "msg": "hi", "sender": "mallory"}));
    let heard = bob.receive();
    assert_eq!(
        (&heard["sender"], &heard["receiver"], &heard["msg"]),
        (&json!("alice"), &json!("bob"), &json!("hi"))
    );
    assert_eq!(heard["createTime"].as_str().map(str::len), Some(19));
    alice.send(json!({"group": "room", "msg": "all"}));
    assert_eq!(bob.receive()["group"], "room");
    alice.send_text("{");
    assert_eq!(alice.receive()["error"], "InvalidRequest");
}

#[test]
fn frames_without_a_handler_are_answered() {
    let house = House::new(1);
    let mut peer = house.user(0, Subprotocol::Azure, "u");
    peer.send(json!({"type": "event", "event": "e", "dataType": "text", "data": "x", "ackId": 1}));
    assert_eq!(peer.receive(), json!({"type": "ack", "ackId": 1, "success": true}));
    peer.send(json!({"type": "invoke", "invocationId": "1", "target": "event", "event": "e", "dataType": "text", "data": ""}));
    let answer = peer.receive();
    assert_eq!((&answer["type"], &answer["success"]), (&json!("invokeResponse"), &json!(false)));
    peer.send(json!({"type": "sendToGroup", "group": "g", "noEcho": false, "stream": {"streamId": "s"}}));
    assert_eq!(peer.receive()["type"], "streamClosed");
    peer.send(json!({"type": "setGroupState", "group": "g", "ackId": 2, "state": {"a": "b"}}));
    assert_eq!(peer.receive()["error"]["name"], "NotImplemented");
}

#[test]
fn a_reader_that_never_reads_is_cut_and_the_others_go_on() {
    // However long a busy machine takes, the sleeper is told why it was cut when it wakes.
    let switchboard = Settings { max_lag: 256 << 10, close_timeout: PATIENCE, ..Settings::default() };
    let house = House::with(1, Limits::default(), switchboard);
    let mut publisher = house.user(0, Subprotocol::Tieline, "p");
    let mut reader = house.user(0, Subprotocol::Azure, "r");
    let mut sleeper = house.user(0, Subprotocol::Azure, "s");
    reader.join("room", 1);
    sleeper.join("room", 1);
    let data: Value = "x".repeat(100_000).into();
    let mut ack_id = 0;
    // Until only one is left: the sockets' own buffers hold a few megabytes.
    loop {
        ack_id += 1;
        assert!(ack_id < 1_000, "a reader that never reads is never cut");
        publisher.send(json!({"type": "sendToGroup", "group": "room", "data": data, "ackId": ack_id}));
        let ack = publisher.receive();
        assert_eq!(reader.receive()["data"], data);
        if ack["delivered"] == 1 {
            break;
        }
    }
    eventually(|| house.node.hubs().all()[0].user_connections("s") == 0);
    let last = std::iter::from_fn(|| Some(sleeper.hear())).find(|heard| !matches!(heard, Heard::Text(_)));
    assert!(matches!(last, Some(Heard::Close(4507, _))), "{last:?}");
}
