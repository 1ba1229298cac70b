//! The ring as a function of its nodes: vectors that a second program computed, and properties.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::{MAX_WEIGHT, Ring, RingHash};

const USERS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "100", "alice", "müller", "用户"];

fn ring(hash: RingHash, names: &[&str]) -> Ring {
    Ring::new(hash, names.iter().map(|name| (*name, 1)))
}

fn owners<'a>(ring: &'a Ring, users: &[&str]) -> Vec<&'a str> {
    users.iter().map(|user| ring.owner(user).unwrap()).collect()
}

/// Computed by a Python program of its own, written after the definitions in `hash.rs`, with `hashlib`'s MD5.
#[test]
fn hashes_are_what_they_were() {
    for (name, own, md5, fnv) in [
        ("", 0xefd0_1f60_ba99_2926, 3_558_706_393, 1_494_218_850),
        ("a", 0x82a2_a958_a9be_ce5b, 214_005_177, 649_470_159),
        ("alice", 0x3507_d047_a67c_08f4, 1_669_653_170, 1_241_347_326),
        ("node-1#0", 0xf28b_65a6_0490_0cc8, 3_754_757_274, 2_048_888_127),
        ("müller", 0xd051_d2ed_7d40_6e8e, 2_463_380_603, 268_679_817),
        ("用户", 0x39c3_b6c9_3ed6_1209, 533_736_080, 1_720_416_817),
    ] {
        let hashes = RingHash::ALL.map(|hash| hash.user(name));
        assert_eq!(hashes, [own, md5, fnv], "{name}");
    }
}

/// Computed by the same program, with rings of its own.
#[test]
fn users_are_where_they_were() {
    let own = ring(RingHash::Tieline, &["a", "b", "c"]);
    assert_eq!(owners(&own, &USERS), ["c", "b", "b", "a", "a", "a", "c", "b", "c", "a", "b", "b"]);
    let ip = |last: u32| format!("192.168.0.{last}");
    let expect = |lasts: [u32; 12]| lasts.map(ip).to_vec();
    let two = ring(RingHash::Md5, &["192.168.0.0", "192.168.0.1"]);
    assert_eq!(owners(&two, &USERS), expect([0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0]));
    let three = ring(RingHash::Md5, &["192.168.0.0", "192.168.0.1", "192.168.0.2"]);
    assert_eq!(owners(&three, &USERS), expect([0, 0, 2, 1, 1, 0, 2, 0, 2, 0, 2, 0]));
    let ports = ["192.168.0.1:80", "192.168.0.2:80", "192.168.0.3:80"];
    let expect = [1, 1, 2, 1, 3, 2, 1, 2, 3, 1, 3, 2].map(|last: usize| ports[last - 1]);
    assert_eq!(owners(&ring(RingHash::Fnv, &ports), &USERS), expect);
}

/// The vectors that are known of the systems whose hashes these are.
#[test]
fn the_hashes_of_others_are_theirs() {
    assert_eq!(RingHash::Md5.user("100"), 4_170_781_597);
    assert_eq!(RingHash::Fnv.user("user1"), 577_140_694);
    assert_eq!(RingHash::Fnv.user("192.168.0.1:80"), 1_505_403_288);
    assert_eq!(ring(RingHash::Md5, &["1"]).owner("1"), Some("1"));
}

#[test]
fn a_point_at_the_users_hash_is_passed_over_where_lookup_is_strict() {
    // The name of a node is a user whose hash is that of the node's own point.
    let names = ["192.168.0.1:80", "192.168.0.2:80", "192.168.0.3:80"];
    let fnv = ring(RingHash::Fnv, &names);
    for name in names {
        let at = fnv.points.iter().position(|(point, _)| *point == RingHash::Fnv.user(name)).unwrap();
        let (_, next) = fnv.points[(at + 1) % fnv.points.len()];
        assert_eq!(fnv.owner(name), Some(&*fnv.nodes[next as usize].0));
    }
    let own = ring(RingHash::Tieline, &["a", "b"]);
    assert_eq!(own.owner("b#7"), Some("b"), "there a point of b is");
}

#[test]
fn nobody_owns_anything_where_nothing_has_weight() {
    for ring in [Ring::new(RingHash::Tieline, []), Ring::new(RingHash::Fnv, [("a", 0)])] {
        assert_eq!((ring.owner("x"), ring.place("x", 1.2, |_| 0), ring.walk("x").next()), (None, None, None));
    }
    let ring = Ring::new(RingHash::Tieline, [("a", 0), ("b", 1)]);
    assert!(USERS.iter().all(|user| ring.owner(user) == Some("b")));
}

#[test]
fn twice_the_weight_is_twice_the_users_and_there_is_a_most() {
    let ring = Ring::new(RingHash::Tieline, [("a", 1), ("b", 2), ("c", 1)]);
    let users: Vec<String> = (0..20_000).map(|n| format!("user-{n}")).collect();
    let of_b = users.iter().filter(|user| ring.owner(user) == Some("b")).count();
    assert!((9_000..11_000).contains(&of_b), "{of_b}");
    let heavy = Ring::new(RingHash::Tieline, [("a", u32::MAX)]);
    assert_eq!((heavy.weight("a"), heavy.points.len()), (MAX_WEIGHT, 160 * MAX_WEIGHT as usize));
}

#[test]
fn names_of_hashes_are_read_as_they_are_written() {
    for hash in RingHash::ALL {
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }
    assert!("MD5".parse::<RingHash>().is_err());
}

fn hashes() -> impl Strategy<Value = RingHash> {
    proptest::sample::select(&RingHash::ALL[..])
}

/// Two to nine nodes of weights 1 to 3, in any order.
fn nodes() -> impl Strategy<Value = Vec<(String, u32)>> {
    let names: Vec<u32> = (0..12).collect();
    (subsequence(names, 2..10), proptest::collection::vec(1..4_u32, 9))
        .prop_map(|(names, weights)| {
            let name = |number: u32| format!("10.0.0.{number}:7800");
            names.into_iter().map(name).zip(weights).collect::<Vec<_>>()
        })
        .prop_shuffle()
}

fn of(hash: RingHash, nodes: &[(String, u32)]) -> Ring {
    Ring::new(hash, nodes.iter().map(|(name, weight)| (&**name, *weight)))
}

fn users() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[a-z0-9ü]{1,12}", 1..200)
}

proptest! {
    #[test]
    fn order_and_repetition_say_nothing(hash in hashes(), nodes in nodes(), repeated in any::<Index>()) {
        let mut sorted = nodes.clone();
        sorted.sort();
        sorted.push(nodes[repeated.index(nodes.len())].clone());
        prop_assert_eq!(of(hash, &nodes), of(hash, &sorted));
    }

    #[test]
    fn who_leaves_moves_its_own_users_alone_and_who_comes_gets_all_that_move(
        hash in hashes(), nodes in nodes(), gone in any::<Index>(), users in users(),
    ) {
        let with = of(hash, &nodes);
        let mut rest = nodes.clone();
        let (gone, _) = rest.remove(gone.index(nodes.len()));
        let without = of(hash, &rest);
        for user in &users {
            let (before, after) = (with.owner(user).unwrap(), without.owner(user).unwrap());
            prop_assert_ne!(after, &gone);
            if before != gone {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn more_weight_takes_users_from_others_and_gives_none_away(
        hash in hashes(), nodes in nodes(), which in any::<Index>(), users in users(),
    ) {
        let mut heavier = nodes.clone();
        let which = which.index(nodes.len());
        heavier[which].1 += 1;
        let (before, after) = (of(hash, &nodes), of(hash, &heavier));
        for user in &users {
            let (before, after) = (before.owner(user).unwrap(), after.owner(user).unwrap());
            prop_assert!(before == after || after == heavier[which].0);
        }
    }

    #[test]
    fn a_walk_meets_each_node_once_in_the_order_of_those_that_would_own(
        hash in hashes(), nodes in nodes(), user in "[a-z]{1,8}",
    ) {
        let walk: Vec<String> = of(hash, &nodes).walk(&user).map(str::to_owned).collect();
        prop_assert_eq!(walk.iter().collect::<BTreeSet<_>>().len(), nodes.len());
        prop_assert_eq!(walk.len(), nodes.len());
        let mut left = nodes.clone();
        for name in walk {
            let ring = of(hash, &left);
            prop_assert_eq!(ring.owner(&user), Some(&*name));
            left.retain(|(known, _)| *known != name);
        }
    }

    #[test]
    fn no_node_is_given_more_than_its_bound(
        hash in hashes(), nodes in nodes(), users in users(), factor in 1.0..2.0_f64,
    ) {
        let ring = of(hash, &nodes);
        let weights: u32 = nodes.iter().map(|(_, weight)| weight).sum();
        let mut connected: HashMap<String, u64> = HashMap::new();
        for (before, user) in (0_u64..).zip(&users) {
            let count = |name: &str| connected.get(name).copied().unwrap_or(0);
            let node = ring.place(user, factor, count).unwrap().to_owned();
            let share = f64::from(ring.weight(&node)) / f64::from(weights);
            let most = (factor * share * (before + 1) as f64).ceil();
            prop_assert!((count(&node) as f64) < most);
            // It passes nobody over that has room.
            let passed: BTreeMap<_, _> = ring.walk(user).take_while(|name| **name != node).map(|name| (name, count(name))).collect();
            for (name, count) in passed {
                let share = f64::from(ring.weight(name)) / f64::from(weights);
                prop_assert!(count as f64 >= (factor * share * (before + 1) as f64).ceil());
            }
            *connected.entry(node).or_default() += 1;
        }
    }
}
