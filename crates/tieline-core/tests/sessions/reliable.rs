//! The reliable protocol: numbers, acknowledgement, and recovery on the node that holds the connection.

use serde_json::{Value, json};
use tieline_core::{Arrival, Subprotocol};
use tieline_proto::HubName;

use crate::house::{Guest, Heard, House, Peer};

pub(crate) fn recovery(connected: &Value) -> Arrival {
    Arrival::Recovery {
        hub: HubName::new("hub").unwrap(),
        id: connected["connectionId"].as_str().unwrap().parse().unwrap(),
        token: connected["reconnectionToken"].as_str().unwrap().to_owned(),
    }
}

fn messages(peer: &mut Peer, count: usize) -> Vec<(u64, Value)> {
    let numbered = |message: Value| (message["sequenceId"].as_u64().unwrap(), message["data"].clone());
    (0..count).map(|_| numbered(peer.receive())).collect()
}

#[test]
fn messages_are_numbered_from_one_and_replayed_until_acknowledged() {
    let house = House::new(2);
    let (mut peer, connected) = house.connect(1, Guest::new(Subprotocol::AzureReliable, "u"));
    let mut sender = house.user(0, Subprotocol::Tieline, "s");
    peer.join("room", 1);
    for n in 1..=3 {
        sender.send(json!({"type": "sendToGroup", "group": "room", "data": n, "ackId": n}));
        assert_eq!(sender.receive()["delivered"], 1);
    }
    assert_eq!(messages(&mut peer, 3), [(1, json!(1)), (2, json!(2)), (3, json!(3))]);
    peer.send(json!({"type": "sequenceAck", "sequenceId": 2}));
    peer.expect_nothing();
    peer.cut();
    // While nobody is there the connection still is, and holds what it is sent.
    for n in 4..=5 {
        sender.send(json!({"type": "sendToUser", "user": "u", "data": n, "ackId": n}));
        assert_eq!(sender.receive()["delivered"], 1);
    }
    let mut peer = house.adopt(1, recovery(&connected), Subprotocol::AzureReliable);
    let again = peer.receive();
    assert_eq!((&again["event"], &again["connectionId"]), (&json!("connected"), &connected["connectionId"]));
    assert_eq!(messages(&mut peer, 3), [(3, json!(3)), (4, json!(4)), (5, json!(5))]);
    // An ackId from before the cut is still known, and so are the groups.
    peer.send(json!({"type": "joinGroup", "group": "room", "ackId": 1}));
    assert_eq!(peer.receive()["error"]["name"], "Duplicate");
    sender.send(json!({"type": "sendToGroup", "group": "room", "data": 6}));
    assert_eq!(messages(&mut peer, 1), [(6, json!(6))]);
}

#[test]
fn of_two_sockets_the_newer_wins() {
    let house = House::new(1);
    let (mut old, connected) = house.connect(0, Guest::new(Subprotocol::AzureReliable, "u"));
    let mut new = house.adopt(0, recovery(&connected), Subprotocol::AzureReliable);
    assert_eq!(new.receive()["event"], "connected");
    assert_eq!(old.hear(), Heard::End);
    new.expect_nothing();
    assert_eq!(house.node.hubs().all()[0].user_connections("u"), 1);
}

#[test]
fn what_cannot_be_recovered_is_accepted_and_closed_with_1008() {
    let house = House::new(1);
    let (mut peer, connected) = house.connect(0, Guest::new(Subprotocol::AzureReliable, "u"));
    let (mut plain, other) = house.connect(0, Guest::new(Subprotocol::Azure, "v"));
    let id = |value: &Value| value["connectionId"].as_str().unwrap().parse().unwrap();
    let token = connected["reconnectionToken"].as_str().unwrap();
    let hub = || HubName::new("hub").unwrap();
    let forged = [
        Arrival::Recovery { hub: hub(), id: id(&connected), token: "forged".into() },
        Arrival::Recovery { hub: hub(), id: id(&connected), token: String::new() },
        Arrival::Recovery { hub: hub(), id: id(&other), token: token.into() },
        Arrival::Recovery {
            hub: hub(),
            id: "AAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap(),
            token: token.into(),
        },
        Arrival::Recovery { hub: HubName::new("other").unwrap(), id: id(&connected), token: token.into() },
    ];
    for arrival in forged {
        let mut refused = house.adopt(0, arrival, Subprotocol::AzureReliable);
        assert!(matches!(refused.hear(), Heard::Close(1008, _)));
    }
    // A clean close ends a connection at once.
    peer.send_frame(tieline_websocket::Opcode::Close, &[]);
    assert!(matches!(peer.hear(), Heard::Close(1005, _)));
    assert_eq!(peer.hear(), Heard::End);
    let mut late = house.adopt(0, recovery(&connected), Subprotocol::AzureReliable);
    assert!(matches!(late.hear(), Heard::Close(1008, _)));
    plain.expect_nothing();
}
