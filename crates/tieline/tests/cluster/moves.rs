//! Clients of the reliable protocol that come to another node after each cut, while senders on all nodes go on.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::dialects::{Dialect, Heard, Speaker};
use crate::processes::{TestCluster, eventually, eventually_within};

/// What each sender sends.
const EACH: usize = 300;

/// Sends its numbers to a group, each when the one before is acknowledged.
fn send_all(mut sender: Client, from: usize) {
    for number in (from..3 * EACH).step_by(3) {
        let ack =
            sender.ask(json!({"type": "sendToGroup", "group": "room", "dataType": "json", "data": number}));
        assert_eq!(ack["success"], true, "{ack}");
    }
}

#[test]
fn a_client_that_goes_from_node_to_node_gets_every_number_once_and_in_order() {
    let cluster = TestCluster::start(3);
    let mut reader = Speaker::connect(cluster.nodes[0].address, Dialect::Reliable, "h", "reader");
    reader.join("room");
    let mut got: Vec<usize> = Vec::new();
    thread::scope(|scope| {
        for (from, node) in cluster.nodes.iter().enumerate() {
            let sender = node.connect("h", &format!("s{from}"));
            scope.spawn(move || send_all(sender, from));
        }
        while got.len() < 3 * EACH {
            match reader.next() {
                Heard::Message(number) => got.push(number),
                other => panic!("{other:?}"),
            }
            if got.len().is_multiple_of(60) {
                let at = got.len() / 60;
                if at.is_multiple_of(2) {
                    reader.acknowledge();
                }
                // Its old socket is still there, or is not any more, as the new one comes.
                reader.recover(cluster.nodes[at % 3].address, "h").unwrap();
            }
        }
    });
    for from in 0..3 {
        let of_one: Vec<usize> = got.iter().copied().filter(|number| number % 3 == from).collect();
        assert_eq!(of_one, (from..3 * EACH).step_by(3).collect::<Vec<_>>(), "from n{from}");
    }
}

#[test]
fn of_a_connection_that_moved_every_node_knows_and_once_closed_it_is_gone() {
    let cluster = TestCluster::start(3);
    let mut reader = Speaker::connect(cluster.nodes[0].address, Dialect::Reliable, "h", "reader");
    reader.recover(cluster.nodes[1].address, "h").unwrap();
    let path = format!("/connections/{}", reader.id.clone().unwrap());
    for node in &cluster.nodes {
        eventually("it exists", || node.call("HEAD", &path).status == 200);
        eventually("its user exists", || node.call("HEAD", "/users/reader").status == 200);
    }
    assert_eq!(cluster.nodes[2].post(&format!("{path}/:send"), &json!(7)).status, 202);
    assert_eq!(reader.next(), Heard::Message(7));
    reader.acknowledge();
    // At another hub it is nobody's.
    assert_eq!(reader.recover(cluster.nodes[2].address, "other"), Err(1008));
    assert_eq!(cluster.nodes[0].call("DELETE", &path).status, 204);
    for node in &cluster.nodes {
        eventually("it is gone", || node.call("HEAD", &path).status == 404);
        assert_eq!(reader.recover(node.address, "h"), Err(1008));
    }
}

#[test]
fn while_its_node_is_believed_to_live_a_client_is_told_to_come_again() {
    let mut cluster = TestCluster::start(2);
    let mut reader = Speaker::connect(cluster.nodes[0].address, Dialect::Reliable, "h", "reader");
    cluster.kill(0);
    assert_eq!(reader.recover(cluster.nodes[1].address, "h"), Err(1013));
    let mut last = Ok(());
    eventually_within(Duration::from_secs(40), "it is told to start afresh", || {
        last = reader.recover(cluster.nodes[1].address, "h");
        last == Err(1008)
    });
}
