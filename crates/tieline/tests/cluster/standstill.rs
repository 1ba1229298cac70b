//! A node that stands still for a while with its sockets open, as under a debugger or in a paused virtual machine.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{assert_ack, to_group, to_user};
use crate::processes::{TestCluster, eventually, eventually_within};

/// Well below the time after which a silent link is dead.
const STANDSTILL: Duration = Duration::from_secs(3);

/// What nine of ten sends between two nodes that run may take, with an ack: far less than the second after which one is given up.
const PROMPT: Duration = Duration::from_millis(700);

/// What an ack or a join may take that waits for a node in vain: a second, and what a busy machine adds.
const GIVEN_UP: Duration = Duration::from_secs(5);

#[test]
fn a_stopped_node_delays_nobody_and_gets_what_was_sent_meanwhile() {
    let cluster = TestCluster::start(3);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut ben = cluster.nodes[1].connect("h", "ben");
    let mut still = cluster.nodes[2].connect("h", "still");
    ben.join("room");
    still.join("room");
    cluster.stop(2);
    let stopped = Instant::now();
    let (mut sent, mut slow) = (0, 0);
    while stopped.elapsed() < STANDSTILL {
        // Nobody waits for these: their acks would.
        anna.send(&to_user("still", json!([0, sent])));
        anna.send(&to_group("room", json!([1, sent])));
        ben.send(&to_user("still", json!([2, sent])));
        sent += 1;
        let asked = Instant::now();
        assert_ack(&anna.ask(to_user("ben", "a")), 1, 0);
        assert_eq!((ben.next_data(), ben.next_data()), (json!([1, sent - 1]), json!("a")));
        assert_ack(&ben.ask(to_user("anna", "b")), 1, 0);
        assert_eq!(anna.next_data(), "b");
        slow += u64::from(asked.elapsed() > PROMPT);
        // Nothing else comes; looking for it is the pause between two rounds.
        assert_eq!(anna.next_within(Duration::from_millis(5)), None);
    }
    assert!(slow * 10 < sent, "{slow} of {sent} sends took more than {PROMPT:?}");
    // Whoever waits for the node that stands still is told in time that nothing is known.
    let asked = Instant::now();
    let ack = anna.ask(to_user("still", json!([0, sent])));
    assert!(asked.elapsed() < GIVEN_UP, "the ack took {:?}", asked.elapsed());
    assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(null)), "{ack}");
    let asked = Instant::now();
    anna.join("late");
    assert!(asked.elapsed() < GIVEN_UP, "the join took {:?}", asked.elapsed());

    cluster.cont(2);
    let mut next = [0; 3];
    let due = [sent + 1, sent, sent];
    while next != due {
        let data = still.next_data();
        let series = data[0].as_u64().unwrap() as usize;
        assert_eq!(data[1], next[series], "series {series}");
        next[series] += 1;
    }
    still.expect_nothing();
    // It is one of them again: nothing has to be forgotten or found anew.
    assert_ack(&anna.ask(to_user("still", "c")), 1, 0);
    assert_eq!(still.next_data(), "c");
    // The join was answered before this node could read of it, so it may still have to.
    eventually("it has read of the group", || still.ask(to_group("late", "d"))["delivered"] == 1);
    assert_eq!(anna.next_data(), "d");
}

/// After so long the link was silent for too long, and the lease after that is over.
const FORGOTTEN: Duration = Duration::from_secs(31);

#[test]
fn a_node_that_was_forgotten_while_it_stood_still_is_reached_both_ways_again() {
    let cluster = TestCluster::start(2);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut still = cluster.nodes[1].connect("h", "still");
    // Numbers of the channels are well beyond those of a new acquaintance.
    for number in 0..100 {
        assert_ack(&anna.ask(to_user("still", number)), 1, 0);
        assert_eq!(still.next_data(), number);
        assert_ack(&still.ask(to_user("anna", number)), 1, 0);
        assert_eq!(anna.next_data(), number);
    }
    cluster.stop(1);
    eventually_within(2 * FORGOTTEN, "the node that stands still is forgotten", || {
        cluster.nodes[0].nodes().len() == 1
    });
    assert_ack(&anna.ask(to_user("still", 0)), 0, 1);
    // What went to all in between is lost to it, and its clients are told.
    still.gaps = 0;
    anna.gaps = 0;
    cluster.cont(1);
    cluster.wait_for_all();
    for number in 0..10 {
        assert_ack(&anna.ask(to_user("still", number)), 1, 0);
        assert_eq!(still.next_data(), number);
        assert_ack(&still.ask(to_user("anna", number)), 1, 0);
        assert_eq!(anna.next_data(), number);
    }
    let unread = || cluster.nodes[1].metric("tieline_cluster_unread_total");
    let before = unread();
    still.join("room");
    assert_eq!(unread(), before, "the join waited in vain");
}
