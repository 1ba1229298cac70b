//! What a client is promised once its join or its login is answered: from then on everything arrives, from everywhere.

use serde_json::json;

use crate::client::{assert_ack, to_group, to_user};
use crate::processes::TestCluster;

#[test]
fn what_is_sent_after_a_joins_ack_arrives_from_every_node() {
    let cluster = TestCluster::start(3);
    let mut senders: Vec<_> = cluster.nodes.iter().map(|node| node.connect("h", "sender")).collect();
    for round in 0..100 {
        let group = format!("g{round}");
        let mut joiner = cluster.nodes[round % 3].connect("h", "joiner");
        // On their way while it joins: each may arrive or not.
        let racing: Vec<_> =
            (0..3).map(|from| senders[from].send_acked(to_group(&group, json!([from, 0])))).collect();
        let joined = joiner.send_acked(json!({"type": "joinGroup", "group": group}));
        let mut early = Vec::new();
        loop {
            let frame = joiner.next();
            if frame["type"] == "ack" {
                assert_eq!((&frame["ackId"], &frame["success"]), (&json!(joined), &json!(true)), "{frame}");
                break;
            }
            early.push(frame["data"].clone());
        }
        let after: Vec<_> =
            (0..3).map(|from| senders[from].send_acked(to_group(&group, json!([from, 1])))).collect();
        let mut told = 0;
        for (from, sender) in senders.iter_mut().enumerate() {
            for (number, sure) in [(racing[from], false), (after[from], true)] {
                let ack = sender.next();
                assert_eq!(ack["ackId"], number, "{ack}");
                assert_eq!(ack["success"], true, "{ack}");
                assert!(!sure || ack["delivered"] == 1, "{ack}");
                told += ack["delivered"].as_u64().expect("all nodes answer in time");
            }
        }
        let mut heard = early;
        while heard.len() < told as usize {
            heard.push(joiner.next_data());
        }
        joiner.expect_nothing();
        for from in 0..3 {
            let of: Vec<_> =
                heard.iter().filter(|data| data[0] == from).map(|data| data[1].clone()).collect();
            assert!(of == [1] || of == [0, 1], "round {round}, from {from}: {of:?}");
        }
    }
    senders.iter_mut().for_each(|sender| sender.expect_nothing());
}

#[test]
fn a_user_is_known_everywhere_once_connected() {
    let cluster = TestCluster::start(3);
    let mut senders: Vec<_> = cluster.nodes.iter().map(|node| node.connect("h", "sender")).collect();
    for round in 0..60 {
        let user = format!("u{round}");
        let mut client = cluster.nodes[round % 3].connect("h", &user);
        for (from, sender) in senders.iter_mut().enumerate() {
            assert_ack(&sender.ask(to_user(&user, from)), 1, 0);
            assert_eq!(client.next_data(), from);
        }
        client.expect_nothing();
    }
}
