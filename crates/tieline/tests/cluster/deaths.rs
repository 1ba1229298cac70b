//! Nodes that die without a word, and nodes that come again under the same name.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, assert_ack, to_group, to_user};
use crate::processes::{TestCluster, eventually};
use crate::support::PATIENCE;
use crate::talkers::{Heard, Silence, Talker};

/// How long a node that cannot be reached is believed to hold what it held.
const LEASE: Duration = Duration::from_secs(15);

/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(5);

/// How long a join may wait for others, and the way there and back.
const JOIN: Duration = Duration::from_secs(4);

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
fn a_node_that_is_killed_amid_traffic_costs_the_living_nothing() {
    let mut cluster = TestCluster::start(3);
    let connect = |node: usize, user: &str| cluster.nodes[node].connect_to_room(user);
    let mut anna = Talker::new(connect(0, "anna"), "ben");
    let mut ben = Talker::new(connect(1, "ben"), "anna");
    let mut killed = connect(2, "killed");
    let (said, stop) = ([AtomicUsize::new(0), AtomicUsize::new(0)], AtomicBool::new(false));
    let mut heard = Heard::default();
    thread::scope(|scope| {
        for (talker, said) in [&mut anna, &mut ben].into_iter().zip(&said) {
            let stop = &stop;
            scope.spawn(move || {
                talker.talk(said, stop);
                talker.end();
            });
        }
        scope.spawn(|| {
            while let Some(frame) = killed.next_within(PATIENCE) {
                heard.take(&frame);
            }
        });
        let _silence = Silence(&stop);
        let both_said = |count: usize| said.iter().all(|said| said.load(Ordering::Relaxed) > count);
        eventually("both talk", || both_said(500));
        cluster.kill(2);
        let before = said.iter().map(|said| said.load(Ordering::Relaxed)).max().expect("there are two");
        eventually("both go on", || both_said(before + 500));
    });
    let mut reached = [0, 0];
    for (by, name, talker, other) in [(0, "anna", &anna, &ben), (1, "ben", &ben, &anna)] {
        other.heard.assert_order();
        for (number, told) in talker.told.iter().enumerate() {
            // Between the living nothing is lost, and of what goes to them alone everything is known.
            assert!(other.heard.has(name, number), "{number} of {name} is lost");
            let there = u64::from(heard.has(name, number));
            if number.is_multiple_of(2) {
                assert_eq!((*told, there), (Some(1), 0), "{number} of {name}");
            } else {
                // Handed to the killed node's client, a message may have died with the node.
                assert!(
                    told.is_none_or(|told| told == 2 || told == 1 + there),
                    "{number} of {name}: {told:?}"
                );
                reached[by] += there;
            }
        }
        let last = talker.told.last().copied().flatten();
        assert!(last == Some(1), "the last of {name} went to the living alone: {last:?}");
        assert_eq!(talker.client.gaps, 0, "{name} has missed nothing");
    }
    assert!(reached.iter().all(|reached| *reached > 100), "{reached:?}");
    heard.assert_order();
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
        // A node that is reached may still have to say that it holds nobody.
        eventually("its user is unknown", || {
            let ack = anna.ask(to_user("comes-again", 0));
            assert_eq!((&ack["success"], &ack["delivered"]), (&true.into(), &0.into()), "{ack}");
            ack["unknown"] == 1
        });
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
