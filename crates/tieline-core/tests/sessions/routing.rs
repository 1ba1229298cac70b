//! Both ways of routing, on every kind of broker: the same clients get the same messages in order, and acks say the same.

use std::time::Duration;

use serde_json::{Value, json};
use tieline_core::broker::MemoryExchange;
use tieline_core::{ClusterTimes, Routing, Subprotocol};

use crate::house::{House, Peer, patient};

const WAYS: [Routing; 2] = [Routing::Directed, Routing::Broadcast];

fn houses(count: usize, exchange: &MemoryExchange, routing: Routing) -> Vec<House> {
    let mut houses: Vec<House> = (0..count).map(|_| House::named(1)).collect();
    // What is waited for on the other channel would be given up after a beat, and be out of order then.
    let times = ClusterTimes { beat: Duration::from_secs(20), lease: Duration::from_secs(60), ..patient() };
    houses.iter_mut().for_each(|house| house.join_by(exchange, times, routing));
    houses.iter().for_each(|house| house.wait_for_peers(count - 1));
    houses
}

fn tieline(house: &House, user: &str) -> Peer {
    house.user(0, Subprotocol::Tieline, user)
}

#[test]
fn acks_and_audiences_are_the_same_by_every_way() {
    for exchange in [MemoryExchange::links, MemoryExchange::medium, MemoryExchange::crossing] {
        for routing in WAYS {
            let houses = houses(3, &exchange(), routing);
            let mut alice = tieline(&houses[0], "alice");
            let mut bob = tieline(&houses[1], "bob");
            let mut carol = tieline(&houses[2], "carol");
            alice.join("room", 1);
            bob.join("room", 1);
            let sends = [
                (json!({"type": "sendToUser", "user": "bob", "data": 1, "ackId": 2}), 1, 0),
                (json!({"type": "sendToUser", "user": "nobody", "data": 2, "ackId": 3}), 0, 1),
                (
                    json!({"type": "sendToGroup", "group": "room", "noEcho": true, "data": 3, "ackId": 4}),
                    1,
                    0,
                ),
                (json!({"type": "sendToGroup", "group": "empty", "data": 4, "ackId": 5}), 0, 0),
                (json!({"type": "sendToAll", "noEcho": true, "data": 5, "ackId": 6}), 2, 0),
                (
                    json!({"type": "send", "to": {"users": ["carol", "nobody"], "groups": ["room"], "excluded": []}, "data": 6, "ackId": 7}),
                    3,
                    1,
                ),
            ];
            for (frame, delivered, unknown) in sends {
                alice.send(frame.clone());
                let ack = ack(&mut alice);
                let counts = ["delivered", "unknown", "unreachable"].map(|key| ack[key].clone());
                assert_eq!(counts, [json!(delivered), json!(unknown), json!(0)], "{routing:?} {frame}");
            }
            let data = |client: &mut Peer, count| {
                (0..count).map(|_| client.receive()["data"].clone()).collect::<Vec<Value>>()
            };
            assert_eq!(data(&mut bob, 4), [1, 3, 5, 6]);
            assert_eq!(data(&mut carol, 2), [5, 6]);
            bob.expect_nothing();
            carol.expect_nothing();
        }
    }
}

/// The next ack; messages to oneself may stand before it.
fn ack(client: &mut Peer) -> Value {
    std::iter::from_fn(|| Some(client.receive())).find(|heard| heard["type"] == "ack").unwrap()
}

#[test]
fn a_target_that_changes_its_channel_keeps_its_order() {
    const MESSAGES: u64 = 1_500;
    for exchange in [MemoryExchange::crossing, MemoryExchange::links] {
        let houses = houses(4, &exchange(), Routing::Directed);
        let mut sender = tieline(&houses[0], "sender");
        let mut member = tieline(&houses[1], "member");
        let mut others: Vec<Peer> = houses[2..].iter().map(|house| tieline(house, "other")).collect();
        member.join("room", 1);
        let mut ack_id = 1;
        for n in 0..MESSAGES {
            // Whether most nodes hold members decides the channel.
            if n % 30 == 0 {
                ack_id += 1;
                let what = if n % 60 == 0 { "joinGroup" } else { "leaveGroup" };
                for other in &mut others {
                    other.send(json!({"type": what, "group": "room", "ackId": ack_id}));
                    ack(other);
                }
            }
            sender.send(json!({"type": "sendToGroup", "group": "room", "data": n}));
        }
        for n in 0..MESSAGES {
            assert_eq!(member.receive()["data"], n);
        }
        member.expect_nothing();
    }
}
