//! Links between nodes that are cut, keep silent, or are slow, by a proxy between each two nodes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, assert_ack, to_group, to_user};
use crate::processes::{TestCluster, eventually};
use crate::talkers::{Heard, Silence, Talker};
use xtask::proxy::{Cut, Way};

/// Time between two signs of life of a node.
const BEAT: Duration = Duration::from_secs(5);

/// What a busy machine, and finding each other again, may add to it.
const SLACK: Duration = Duration::from_secs(4);

/// After so long without a byte a link is dead.
const SILENCE: Duration = Duration::from_secs(15);

/// How long a node is believed to live that nobody reaches.
const LEASE: Duration = Duration::from_secs(15);

/// How often peers are pinged: the last byte may be so old when the silence begins.
const PING: Duration = Duration::from_secs(3);

/// What nine of ten rounds of sends between nodes that reach each other may take, with acks: far less than the second after which one is
/// given up.
const PROMPT: Duration = Duration::from_millis(700);

/// What an ack or a join may take that waits for a node in vain: a second, and what a busy machine adds.
const GIVEN_UP: Duration = Duration::from_secs(5);

#[test]
fn what_a_cut_link_loses_is_told_and_the_rest_arrives_once_and_in_order() {
    let cluster = TestCluster::start_with_proxies(3);
    let connect = |node: usize, user: &str| cluster.nodes[node].connect_to_room(user);
    let mut anna = Talker::new(connect(0, "anna"), "ben");
    let mut ben = Talker::new(connect(1, "ben"), "anna");
    let mut cleo = connect(2, "cleo");
    let (said, stop) = ([AtomicUsize::new(0), AtomicUsize::new(0)], AtomicBool::new(false));
    let link = cluster.link(0, 1);
    let mut heard = Heard::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            anna.talk(&said[0], &stop);
            anna.end();
        });
        scope.spawn(|| {
            ben.talk(&said[1], &stop);
            ben.end();
        });
        scope.spawn(|| {
            while heard.ended.len() < 2 {
                heard.take(&cleo.next());
            }
        });
        let _silence = Silence(&stop);
        let talked = || said.each_ref().map(|said| said.load(Ordering::Relaxed));
        for round in 0..8 {
            let before = talked();
            eventually("both go on talking", || (0..2).all(|by| talked()[by] > before[by] + 200));
            match round % 4 {
                0 => link.cut(Cut::Reset),
                1 => link.cut(Cut::End),
                2 => {
                    // What is said now is lost on the way.
                    let direction = TestCluster::direction(round / 4, 1 - round / 4);
                    let lost = link.lost(direction);
                    cluster.set_way(round / 4, 1 - round / 4, Way::Lost);
                    eventually("something is lost", || link.lost(direction) > lost + 1000);
                    link.heal();
                }
                _ => {
                    link.sever();
                    let is_apart = |node: usize| cluster.nodes[node].reaches().len() == 2;
                    eventually("they have lost each other", || is_apart(0) && is_apart(1));
                    link.heal();
                }
            }
            cluster.wait_for_all();
        }
    });

    for heard in [&anna.heard, &ben.heard, &heard] {
        heard.assert_order();
    }
    let mut lost = [0, 0];
    for (by, name, talker, other) in [(0, "anna", &anna, &ben), (1, "ben", &ben, &anna)] {
        for (number, told) in talker.told.iter().enumerate() {
            let is_direct = number.is_multiple_of(2);
            let there = other.heard.has(name, number);
            // The way to the third node never breaks.
            assert_eq!(heard.has(name, number), !is_direct, "message {number} of {name} at cleo");
            let arrived = u64::from(there) + u64::from(!is_direct);
            assert!(
                told.is_none_or(|told| told == arrived),
                "{number} of {name}: {told:?}, {arrived} got it"
            );
            lost[by] += u64::from(told.is_none() && !there);
        }
    }
    for (node, client, lost) in [(1, &mut ben.client, lost[0]), (0, &mut anna.client, lost[1])] {
        assert!(lost > 0, "nothing was lost on the way to node {node}");
        let missing = cluster.nodes[node].metric("tieline_envelopes_missing_total");
        assert!(missing >= lost, "{lost} messages were lost, {missing} envelopes are missed");
        assert!(client.gaps > 0, "node {node} tells nothing of {missing} that are missing");
    }
    assert_eq!(cleo.gaps, 0, "the third node has missed nothing");
    assert_eq!(cluster.nodes[2].metric("tieline_envelopes_missing_total"), 0);
    // Nothing of all that is left.
    for number in 0..50 {
        exchange(&mut anna.client, &mut ben.client, "ben", number);
        exchange(&mut ben.client, &mut anna.client, "anna", number);
    }
}

#[test]
fn what_changes_on_one_side_of_a_cut_is_known_on_the_other_when_it_is_healed() {
    let cluster = TestCluster::start_with_proxies(3);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut ben = cluster.nodes[1].connect("h", "ben");
    let gone = cluster.nodes[1].connect("h", "gone");
    ben.join("left");
    let nobodies = |group: &str| cluster.nodes[0].call("HEAD", &format!("/groups/{group}")).status == 404;
    assert!(!nobodies("left"));
    for client in [&mut anna, &mut ben] {
        client.gaps = 0;
    }
    let link = cluster.link(0, 1);
    link.sever();
    let is_apart = |node: usize| cluster.nodes[node].reaches().len() == 2;
    eventually("they have lost each other", || is_apart(0) && is_apart(1));
    let unread = || cluster.nodes[1].metric("tieline_cluster_unread_total");
    let before = unread();
    ben.join("joined");
    assert_eq!(ben.ask(json!({"type": "leaveGroup", "group": "left"}))["success"], true);
    let mut dora = cluster.nodes[1].connect("h", "dora");
    assert_eq!(unread(), before, "who cannot be reached is not waited for");
    drop(gone);
    // The third node reaches both, and has heard of everything.
    let mut cleo = cluster.nodes[2].connect("h", "cleo");
    assert_ack(&cleo.ask(to_group("joined", "c")), 1, 0);
    assert_eq!(ben.next_data(), "c");
    link.heal();
    cluster.wait_for_all();
    // Even before the roster is read again nobody is forgotten who has come meanwhile.
    assert_ack(&anna.ask(to_group("joined", "a")), 1, 0);
    assert_eq!(ben.next_data(), "a");
    exchange(&mut anna, &mut dora, "dora", 1);
    eventually("who has gone meanwhile is unknown", || {
        let ack = anna.ask(to_user("gone", 0));
        ack["delivered"] == 0 && ack["unknown"] == 1
    });
    eventually("the group that was left is no more", || nobodies("left"));
    for client in [&mut anna, &mut ben, &mut cleo, &mut dora] {
        client.gaps = 0;
        client.expect_nothing();
    }
}

/// A message that must arrive at once.
fn exchange(from: &mut Client, to: &mut Client, name: &str, number: u64) {
    assert_ack(&from.ask(to_user(name, number)), 1, 0);
    assert_eq!(to.next_data(), number);
}

#[test]
fn a_lost_tail_is_noticed_within_a_beat() {
    let cluster = TestCluster::start_with_proxies(2);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut ben = cluster.nodes[1].connect("h", "ben");
    let (link, way) = (cluster.link(0, 1), TestCluster::direction(0, 1));
    for round in 0..3 {
        let missing = || cluster.nodes[1].metric("tieline_envelopes_missing_total");
        let (known, lost) = (missing(), link.lost(way));
        assert_ack(&anna.ask(to_user("ben", "before")), 1, 0);
        assert_eq!(ben.next_data(), "before");
        cluster.set_way(0, 1, Way::Lost);
        let acks: Vec<_> = (0..3).map(|number| anna.send_acked(to_user("ben", number))).collect();
        for number in acks {
            let ack = anna.next();
            assert_eq!((&ack["ackId"], &ack["delivered"]), (&json!(number), &json!(null)), "{ack}");
        }
        assert!(link.lost(way) > lost, "nothing was lost");
        assert_eq!(missing(), known, "nobody can know yet");
        // The link comes back, and nobody says anything more.
        match round {
            0 => link.heal(),
            1 => {
                link.cut(Cut::End);
                link.heal();
            }
            _ => {
                link.sever();
                eventually("they have lost each other", || cluster.nodes[1].reaches().len() == 1);
                link.heal();
                cluster.wait_for_all();
            }
        }
        ben.next_gap(BEAT + SLACK);
        assert!(missing() >= known + 3, "{} are missing, of {known} before", missing());
        cluster.wait_for_all();
    }
    assert_ack(&anna.ask(to_user("ben", "after")), 1, 0);
    assert_eq!(ben.next_data(), "after");
}

#[test]
fn a_silent_link_is_dead_after_its_time_and_delays_nobody_else() {
    let cluster = TestCluster::start_with_proxies(3);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut ben = cluster.nodes[1].connect("h", "ben");
    let mut cleo = cluster.nodes[2].connect("h", "cleo");
    for client in [&mut ben, &mut cleo] {
        client.join("room");
    }
    // Ben's node is silent for anna's alone; each of them reaches cleo's.
    for client in [&mut anna, &mut ben, &mut cleo] {
        client.gaps = 0;
    }
    cluster.link(0, 1).set_both(Way::Lost);
    let silent = Instant::now();
    let reaches = |node: usize, other: &str| cluster.nodes[node].reaches().iter().any(|name| name == other);
    let mut bystander = cluster.nodes[0].connect("h", "bystander");
    let (mut rounds, mut slow) = (0, 0);
    for number in 0_u64.. {
        // Nobody waits for these: their acks would.
        anna.send(&to_user("ben", "nobody hears this"));
        anna.send(&to_group("room", number));
        let asked = Instant::now();
        assert_ack(&anna.ask(to_user("cleo", "a")), 1, 0);
        assert_eq!((cleo.next_data(), cleo.next_data()), (json!(number), json!("a")));
        assert_ack(&cleo.ask(to_user("anna", "c")), 1, 0);
        assert_eq!(anna.next_data(), "c");
        assert_ack(&cleo.ask(to_user("ben", "b")), 1, 0);
        assert_eq!(ben.next_data(), "b");
        rounds += 1;
        slow += u64::from(asked.elapsed() > PROMPT);
        if number == 0 {
            // Whoever does wait is told in time that nothing is known.
            let asked = Instant::now();
            let ack = bystander.ask(to_user("ben", 0));
            assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(null)), "{ack}");
            assert!(asked.elapsed() < GIVEN_UP, "the ack took {:?}", asked.elapsed());
            let asked = Instant::now();
            bystander.join("late");
            assert!(asked.elapsed() < GIVEN_UP, "the join took {:?}", asked.elapsed());
        }
        if !reaches(0, "n1") && !reaches(1, "n0") {
            break;
        }
        assert!(silent.elapsed() < SILENCE + SLACK, "the link still counts as alive");
        assert_eq!(anna.next_within(Duration::from_millis(50)), None);
    }
    let found = silent.elapsed();
    assert!(slow * 10 < rounds, "{slow} of {rounds} rounds took more than {PROMPT:?}");
    assert!(found > SILENCE - PING - SLACK, "the link was given up after {found:?}");
    assert!(reaches(2, "n0") && reaches(2, "n1"), "the others have lost nobody");
    // From now on nobody waits.
    let ack = anna.ask(to_user("ben", 0));
    assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(0)), "{ack}");

    cluster.link(0, 1).heal();
    cluster.wait_for_all();
    for number in 0..10 {
        exchange(&mut anna, &mut ben, "ben", number);
        exchange(&mut ben, &mut anna, "anna", number);
    }
    anna.join("room");
    let mut to_all = to_group("room", "all");
    to_all["noEcho"] = true.into();
    assert_ack(&ben.ask(to_all), 2, 0);
    assert_eq!((anna.next_data(), cleo.next_data(), cleo.gaps), (json!("all"), json!("all"), 0));
}

#[test]
fn who_is_reached_by_a_third_node_outlives_its_lease() {
    let cluster = TestCluster::start_with_proxies(3);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut ben = cluster.nodes[1].connect("h", "ben");
    let mut cleo = cluster.nodes[2].connect("h", "cleo");
    for client in [&mut anna, &mut ben, &mut cleo] {
        client.join("room");
    }
    let link = cluster.link(0, 1);
    link.sever();
    let cut = Instant::now();
    let states = |node: usize| cluster.nodes[node].nodes().into_iter().map(|(_, state, _)| state);
    eventually("they have lost each other", || (0..2).all(|node| states(node).any(|s| s == "unreachable")));
    // Well beyond the lease.
    while cut.elapsed() < LEASE + SLACK {
        for (from, to) in [(&mut anna, "ben"), (&mut ben, "anna")] {
            let ack = from.ask(to_user(to, 0));
            let said = ["delivered", "unknown", "unreachable"].map(|key| &ack[key]);
            assert_eq!(said, [&json!(0), &json!(0), &json!(1)], "{ack} after {:?}", cut.elapsed());
            let mut to_others = to_group("room", 1);
            to_others["noEcho"] = true.into();
            let ack = from.ask(to_others);
            assert_eq!((&ack["delivered"], &ack["unreachable"]), (&json!(1), &json!(1)), "{ack}");
            assert_eq!(cleo.next_data(), 1);
        }
        assert_eq!(anna.next_within(Duration::from_millis(100)), None);
    }
    for node in 0..2 {
        assert_eq!(states(node).count(), 3, "nobody is forgotten");
    }
    assert_eq!(cluster.nodes[2].reaches().len(), 3);
    link.heal();
    cluster.wait_for_all();
    exchange(&mut anna, &mut ben, "ben", 2);
    exchange(&mut ben, &mut anna, "anna", 3);
}

#[test]
fn a_slow_link_changes_neither_order_nor_what_acks_mean() {
    let cluster = TestCluster::start_with_proxies(3);
    let mut anna = cluster.nodes[0].connect("h", "anna");
    let mut cleo = cluster.nodes[2].connect("h", "cleo");
    for (round, delay) in [100, 300, 200, 150, 250].map(Duration::from_millis).into_iter().enumerate() {
        cluster.link(0, 1).set_both(Way::Late(delay));
        let group = format!("g{round}");
        let user = format!("ben{round}");
        // Whoever is connected is known on the other side, however slow the way there is.
        let asked = Instant::now();
        let mut ben = cluster.nodes[1].connect("h", &user);
        assert!(asked.elapsed() > 2 * delay, "the login did not wait: {:?}", asked.elapsed());
        assert_ack(&anna.ask(to_user(&user, "known")), 1, 0);
        assert_eq!(ben.next_data(), "known");
        // The same for who has joined, whatever is on its way meanwhile.
        let racing = anna.send_acked(to_group(&group, json!(["early", 0])));
        ben.join(&group);
        let count = 40;
        let acks: Vec<_> =
            (0..count).map(|n| anna.send_acked(to_group(&group, json!(["late", n])))).collect();
        assert_eq!(anna.next()["ackId"], racing);
        for number in acks {
            let ack = anna.next();
            assert_eq!(ack["ackId"], number, "{ack}");
            assert_ack(&ack, 1, 0);
        }
        for number in 0..count {
            assert_eq!(ben.next_data(), json!(["late", number]));
        }
        ben.expect_nothing();
        // Others do not wait for that link.
        let mut times: Vec<_> = (0..5)
            .map(|number| {
                let asked = Instant::now();
                anna.send(&to_user(&user, number));
                assert_ack(&anna.ask(to_user("cleo", number)), 1, 0);
                assert_eq!(cleo.next_data(), number);
                asked.elapsed()
            })
            .collect();
        times.sort_unstable();
        assert!(times[0] < delay, "sends past the slow link took {times:?}");
        for number in 0..5 {
            assert_eq!(ben.next_data(), number);
        }
        // On a way that becomes faster nothing is overtaken either.
        for number in 0..100 {
            anna.send(&to_user(&user, number));
            if number == 50 {
                cluster.link(0, 1).heal();
            }
        }
        for number in 0..100 {
            assert_eq!(ben.next_data(), number);
        }
        ben.expect_nothing();
        anna.expect_nothing();
    }
    for node in &cluster.nodes {
        assert_eq!(node.metric("tieline_envelopes_missing_total"), 0, "{}", node.name);
    }
}
