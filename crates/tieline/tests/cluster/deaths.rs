//! Nodes that die without a word, and nodes that come again under the same name.

use std::time::{Duration, Instant};

use crate::client::{Client, assert_ack, to_group, to_user};
use crate::processes::{TestCluster, eventually};

/// How long a node that cannot be reached is believed to hold what it held.
const LEASE: Duration = Duration::from_secs(15);

/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(2);

/// How long a join may wait for others, and the way there and back.
const JOIN: Duration = Duration::from_millis(1500);

#[test]
fn a_killed_nodes_users_are_gone_within_a_lease_and_nobody_waits_for_them() {
    let mut cluster = TestCluster::start(3);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut ben = cluster.nodes[1].connect("h", "ben");
    let mut lost = cluster.nodes[2].connect("h", "lost");
    for client in [&mut anna, &mut ben, &mut lost] {
        client.join("room");
    }
    assert_ack(&anna.ask(to_user("lost", 0)), 1, 0);
    assert_eq!(lost.next_data(), 0);
    cluster.kill(2);
    let killed = Instant::now();
    cluster.expect_closed(2);
    let mut gone = false;
    for round in 0_u64.. {
        let asked = Instant::now();
        anna.join(&format!("g{round}"));
        ben.join(&format!("g{round}"));
        assert!(asked.elapsed() < 2 * JOIN, "two joins took {:?}", asked.elapsed());
        // Between the living nothing has changed, in both directions.
        exchange(&mut anna, &mut ben, "ben", round);
        exchange(&mut ben, &mut anna, "anna", round);
        let mut from_anna = to_group(&format!("g{round}"), round);
        from_anna["noEcho"] = true.into();
        assert_ack(&anna.ask(from_anna), 1, 0);
        assert_eq!(ben.next_data(), round);
        gone = true;
        for client in [&mut anna, &mut ben] {
            let ack = client.ask(to_user("lost", round));
            assert_eq!(ack["success"], true, "{ack}");
            // In the first moments the dead node is thought to be there, and does not answer.
            assert!(ack["delivered"].is_null() || ack["delivered"] == 0, "{ack}");
            gone &= ack["delivered"] == 0 && ack["unknown"] == 1;
        }
        let listed = |node: usize| cluster.nodes[node].nodes().iter().any(|(name, ..)| name == "n2");
        gone &= !listed(0) && !listed(1);
        if gone || killed.elapsed() > LEASE + SLACK {
            break;
        }
        // Nothing else comes to anybody; looking for it is the pause between two rounds.
        assert_eq!(anna.next_within(Duration::from_millis(100)), None);
    }
    assert!(gone, "the dead node's user is known after {:?}", killed.elapsed());
    for node in &cluster.nodes[..2] {
        assert_eq!(node.call("HEAD", "/users/lost").status, 404);
    }
    ben.expect_nothing();
}

#[test]
fn a_restarted_node_is_a_new_one_and_is_reached_both_ways() {
    let mut cluster = TestCluster::start(3);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut ben = cluster.nodes[1].connect("h", "ben");
    for index in [2, 0] {
        let before = incarnations(&cluster, 1, &format!("n{index}"));
        let mut former = cluster.nodes[index].connect("h", "comes-again");
        former.join("room");
        cluster.kill(index);
        cluster.restart(index);
        cluster.wait_for_all();
        // Its former self is forgotten as soon as the new one has said its name.
        for reader in [0, 1, 2] {
            let after = incarnations(&cluster, reader, &format!("n{index}"));
            assert_eq!((after.len(), after == before), (1, false), "{before:?}, {after:?}");
        }
        // The first round kills the node of nobody here, the second one anna's.
        if index == 0 {
            anna = cluster.nodes[0].connect("h", "anna");
        }
        assert_ack(&anna.ask(to_user("comes-again", 0)), 0, 1);
        let mut back = cluster.nodes[index].connect("h", "comes-again");
        back.join("room");
        for (number, sender) in [(1, &mut anna), (2, &mut ben)] {
            assert_ack(&sender.ask(to_user("comes-again", number)), 1, 0);
            assert_eq!(back.next_data(), number);
            assert_ack(&sender.ask(to_group("room", number)), 1, 0);
            assert_eq!(back.next_data(), number);
        }
        for (name, receiver) in [("anna", &mut anna), ("ben", &mut ben)] {
            assert_ack(&back.ask(to_user(name, 3)), 1, 0);
            assert_eq!(receiver.next_data(), 3);
            receiver.expect_nothing();
        }
        back.expect_nothing();
        drop(back);
        let user = "/users/comes-again";
        eventually("who left is gone", || cluster.nodes[1].call("HEAD", user).status == 404);
    }
}

/// Sends a number to a user on another node, which must be as prompt as ever.
fn exchange(from: &mut Client, to: &mut Client, name: &str, number: u64) {
    let asked = Instant::now();
    assert_ack(&from.ask(to_user(name, number)), 1, 0);
    assert_eq!(to.next_data(), number);
    assert!(asked.elapsed() < JOIN, "a send took {:?}", asked.elapsed());
}

/// Those that a node lists under a name.
fn incarnations(cluster: &TestCluster, reader: usize, name: &str) -> Vec<String> {
    let of_name = |(found, _, incarnation): (String, String, String)| (found == name).then_some(incarnation);
    cluster.nodes[reader].nodes().into_iter().filter_map(of_name).collect()
}
