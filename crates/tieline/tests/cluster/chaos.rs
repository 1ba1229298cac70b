//! Links that break at random and nodes that are killed while clients come, go, join and leave: afterwards all nodes agree on
//! who is where, as the model does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, to_group, to_user};
use crate::processes::TestCluster;
use tieline_judge::Dice;
use xtask::proxy::{Cut, Way};

/// The variable that chooses another course of events.
const SEED: &str = "TIELINE_TEST_SEED";

const NODES: usize = 3;
const USERS: usize = 12;
const GROUPS: usize = 6;

/// How long everything is broken again and again.
const CHAOS: Duration = Duration::from_secs(8);

/// Within a beat after the last fault, and what a busy machine may add to that, everybody knows everything.
const BEAT: Duration = Duration::from_secs(5 + 3);

/// A connection and what the model knows of it.
struct Member {
    node: usize,
    groups: BTreeSet<usize>,
    client: Client,
}

/// Who is connected, by user.
type Members = BTreeMap<usize, Member>;

/// Something that a client does. It is over when it is acknowledged.
fn act(cluster: &TestCluster, dice: &mut Dice, members: &mut Members) {
    let user = dice.below(USERS);
    let Some(member) = members.get_mut(&user) else {
        let node = dice.below(NODES);
        let client = cluster.nodes[node].connect("h", &format!("u{user}"));
        members.insert(user, Member { node, groups: BTreeSet::new(), client });
        return;
    };
    if dice.below(5) == 0 {
        members.remove(&user);
        return;
    }
    let group = dice.below(GROUPS);
    let kind = if member.groups.remove(&group) {
        "leaveGroup"
    } else {
        member.groups.insert(group);
        "joinGroup"
    };
    let ack = member.client.ask(json!({"type": kind, "group": format!("g{group}")}));
    assert_eq!(ack["success"], true, "{ack}");
}

/// Something that breaks, or comes back.
fn strike(cluster: &mut TestCluster, dice: &mut Dice, members: &mut Members) {
    let (one, other) = [(0, 1), (0, 2), (1, 2)][dice.below(3)];
    let link = cluster.link(one, other);
    match dice.below(8) {
        0 => link.cut(Cut::Reset),
        1 => link.cut(Cut::End),
        2 => link.sever(),
        3 => cluster.set_way(one, other, Way::Lost),
        4 => link.set_both(Way::Late(Duration::from_millis(dice.below(200) as u64))),
        5 => {
            cluster.kill(one);
            members.retain(|_, member| member.node != one);
            cluster.restart(one);
        }
        _ => link.heal(),
    }
}

/// To whom a probe goes, and who must get it.
fn probes(members: &Members) -> Vec<(Value, Vec<usize>)> {
    let to_users = (0..USERS).map(|user| {
        let there = members.contains_key(&user).then_some(user).into_iter().collect();
        (to_user(&format!("u{user}"), Value::Null), there)
    });
    let to_groups = (0..GROUPS).map(|group| {
        let in_group = members.iter().filter(|(_, member)| member.groups.contains(&group));
        (to_group(&format!("g{group}"), Value::Null), in_group.map(|(user, _)| *user).collect())
    });
    to_users.chain(to_groups).collect()
}

/// Sends every probe, each with a number of its own, and returns those of which the acks say something else than the model.
fn differences(prober: &mut Client, probes: &[(Value, Vec<usize>)], numbers: &mut u64) -> Vec<String> {
    let asked: Vec<_> = probes
        .iter()
        .map(|(frame, there)| {
            let mut frame = frame.clone();
            frame["data"] = json!(*numbers);
            *numbers += 1;
            let unknown = u64::from(there.is_empty() && frame["type"] == "sendToUser");
            (prober.send_acked(frame.clone()), frame, (Some(there.len() as u64), Some(unknown)))
        })
        .collect();
    let mut acks = BTreeMap::new();
    while acks.len() < asked.len() {
        let ack = prober.next();
        assert_eq!((&ack["type"], &ack["success"]), (&json!("ack"), &json!(true)), "{ack}");
        acks.insert(ack["ackId"].as_u64().unwrap(), ack);
    }
    let differs = |(number, frame, expected): &(u64, Value, _)| {
        let ack = &acks[number];
        let said = (ack["delivered"].as_u64(), ack["unknown"].as_u64());
        (said != *expected).then(|| format!("{ack} for {frame}, expected {expected:?}"))
    };
    asked.iter().filter_map(differs).collect()
}

fn assert_nodes_agree_after_chaos(seed: u64) {
    let mut cluster = TestCluster::start_with_proxies(NODES);
    let mut dice = Dice::new(seed);
    let mut members = Members::new();
    let begun = Instant::now();
    while begun.elapsed() < CHAOS {
        for _ in 0..dice.below(6) {
            act(&cluster, &mut dice, &mut members);
        }
        strike(&mut cluster, &mut dice, &mut members);
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        cluster.link(one, other).heal();
    }
    cluster.wait_for_all();
    let probes = probes(&members);
    let mut numbers = 0;
    let mut last = Vec::new();
    for node in &cluster.nodes {
        let mut prober = node.connect("h", "prober");
        // The last round is the one that is counted.
        let deadline = Instant::now() + BEAT;
        let first = loop {
            let first = numbers;
            let differences = differences(&mut prober, &probes, &mut numbers);
            if differences.is_empty() {
                break first;
            }
            assert!(Instant::now() < deadline, "at {}, {:?}: {differences:#?}", node.name, node.nodes());
            assert_eq!(prober.next_within(Duration::from_millis(100)), None);
        };
        last.push(first);
        prober.expect_nothing();
    }
    for (user, Member { mut client, .. }) in members {
        let mut got = Vec::new();
        client.send(&json!({"type": "ping"}));
        loop {
            let frame = client.next();
            match frame["type"].as_str() {
                Some("message") => got.push(frame["data"].as_u64().unwrap()),
                Some("pong") => break,
                _ => panic!("{frame}"),
            }
        }
        let numbers = 0..probes.len() as u64;
        let due: Vec<_> = last
            .iter()
            .flat_map(|first| numbers.clone().map(move |number| (first + number, number)))
            .filter(|(_, number)| probes[*number as usize].1.contains(&user))
            .map(|(number, _)| number)
            .collect();
        let is_counted =
            |number: &&u64| last.iter().any(|first| (*first..first + numbers.end).contains(number));
        let counted: Vec<_> = got.iter().filter(is_counted).copied().collect();
        assert_eq!(counted, due, "what u{user} has got");
    }
}

#[test]
fn nodes_agree_on_who_is_where_after_anything_was_broken() {
    // What happens is drawn from the seed; when it happens is not, so a failure may need several runs to come again.
    let seed = std::env::var(SEED).map_or(1, |seed| seed.parse().expect("the seed is a number"));
    println!("{SEED}={seed}");
    assert_nodes_agree_after_chaos(seed);
}
