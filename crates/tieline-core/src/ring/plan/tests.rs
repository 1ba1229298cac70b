//! Plans of all nodes together, held against what a change of the ring may and must move.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::super::RingHash;
use super::*;

type Nodes = Vec<(String, u32)>;

fn hashes() -> impl Strategy<Value = RingHash> {
    proptest::sample::select(&RingHash::ALL[..])
}

/// One to eight nodes of weights 1 to 3.
fn nodes() -> impl Strategy<Value = Nodes> {
    let names: Vec<u32> = (0..10).collect();
    (subsequence(names, 1..9), proptest::collection::vec(1..4_u32, 8)).prop_map(|(names, weights)| {
        names.into_iter().map(|number| format!("n{number}")).zip(weights).collect()
    })
}

fn users() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[a-z0-9ü]{1,12}", 1..60)
}

fn ring(hash: RingHash, nodes: &Nodes) -> Ring {
    Ring::new(hash, nodes.iter().map(|(name, weight)| (&**name, *weight)))
}

/// The plans of all nodes that were on the ring.
fn plans(from: &Ring, to: &Ring) -> Vec<(String, Plan)> {
    let plan = |(name, _): (&str, u32)| (name.to_owned(), Plan::new(name, from.clone(), to.clone()));
    from.nodes().map(plan).collect()
}

proptest! {
    #[test]
    fn who_goes_are_those_whose_owner_has_changed_each_from_its_old_owner_to_its_new_one(
        hash in hashes(), before in nodes(), after in nodes(), users in users(),
    ) {
        let (from, to) = (ring(hash, &before), ring(hash, &after));
        for user in &users {
            let (old, new) = (from.owner(user).unwrap(), to.owner(user).unwrap());
            for (name, plan) in plans(&from, &to) {
                let expected = (name == old && old != new).then_some(new);
                prop_assert_eq!(plan.destination(user), expected, "{} at {}", user, name);
            }
        }
    }

    #[test]
    fn nobody_goes_from_one_old_node_to_another_when_a_node_comes(
        hash in hashes(), nodes in nodes(), weight in 1..4_u32, users in users(),
    ) {
        let mut more = nodes.clone();
        more.push(("new".to_owned(), weight));
        let (from, to) = (ring(hash, &nodes), ring(hash, &more));
        for (name, plan) in plans(&from, &to) {
            for user in &users {
                let goes = plan.destination(user);
                prop_assert!(goes.is_none_or(|goes| goes == "new"), "{} goes from {} to {:?}", user, name, goes);
            }
        }
        // The new one holds nobody yet whom it would have to send away.
        let own = Plan::new("new", from, to);
        prop_assert!(users.iter().all(|user| own.destination(user).is_none()));
    }

    #[test]
    fn nobody_goes_from_one_that_stays_when_a_node_leaves(
        hash in hashes(), nodes in nodes(), gone in any::<Index>(), users in users(),
    ) {
        let mut rest = nodes.clone();
        let (gone, _) = rest.remove(gone.index(nodes.len()));
        let (from, to) = (ring(hash, &nodes), ring(hash, &rest));
        for (name, plan) in plans(&from, &to).into_iter().filter(|(name, _)| *name != gone) {
            for user in &users {
                prop_assert_eq!(plan.destination(user), None, "from {}", name);
            }
        }
    }

    /// Some have gone by the first plan when the second change comes. Whoever is still where it was then ends where the last ring
    /// has it, and nobody is sent away who is there.
    #[test]
    fn a_plan_that_another_change_follows_leads_from_where_it_began_to_the_last_ring(
        hash in hashes(), first in nodes(), second in nodes(), third in nodes(),
        users in proptest::collection::vec(("[a-z0-9ü]{1,12}", any::<bool>()), 1..60),
    ) {
        let (from, between, to) = (ring(hash, &first), ring(hash, &second), ring(hash, &third));
        let plans: HashMap<String, Plan> = plans(&from, &between).into_iter().collect();
        for (user, has_gone) in &users {
            let home = from.owner(user).unwrap();
            let plan = plans[home].clone();
            let has_gone = *has_gone && plan.destination(user).is_some();
            let plan = plan.followed_by(to.clone());
            prop_assert_eq!(&plan, &Plan::new(home, from.clone(), to.clone()));
            if !has_gone {
                let ends = plan.destination(user).unwrap_or(home);
                prop_assert_eq!(ends, to.owner(user).unwrap());
            }
        }
        // What was undone in time moves nobody who has not gone.
        for (_, plan) in plans {
            let plan = plan.followed_by(from.clone());
            prop_assert!(users.iter().all(|(user, _)| plan.destination(user).is_none()));
            prop_assert_eq!(plan.target(), &from);
        }
    }

    #[test]
    fn who_is_elsewhere_stays_as_long_as_its_owner_is_the_same(
        hash in hashes(), before in nodes(), after in nodes(), users in users(), holder in 0..10_u32,
    ) {
        let (from, to) = (ring(hash, &before), ring(hash, &after));
        let holder = format!("n{holder}");
        let plan = Plan::new(&holder, from.clone(), to.clone());
        for user in &users {
            if from.owner(user) == to.owner(user) || from.owner(user) != Some(&*holder) {
                prop_assert_eq!(plan.destination(user), None);
            }
        }
    }
}

/// Of 20,000 users a new node gets its share, within what `docs/placement.md` says of how even the ring is.
#[test]
fn a_new_node_gets_its_share_and_no_more() {
    let users: Vec<String> = (0..20_000).map(|number| format!("user-{number}")).collect();
    for count in [1, 2, 3, 5, 9_u32] {
        let named = |count: u32| (0..count).map(|number| (format!("n{number}"), 1)).collect();
        let (from, to) = (ring(RingHash::Tieline, &named(count)), ring(RingHash::Tieline, &named(count + 1)));
        let plans = plans(&from, &to);
        let moved: usize = plans
            .iter()
            .map(|(_, plan)| users.iter().filter(|user| plan.destination(user).is_some()).count())
            .sum();
        let share = moved as f64 / users.len() as f64 * f64::from(count + 1);
        assert!((0.8..1.2).contains(&share), "to the node of number {count}: {share} of its share");
    }
}

#[test]
fn nobody_goes_where_there_is_nobody_to_go_to() {
    let one = ring(RingHash::Tieline, &vec![("a".to_owned(), 1)]);
    let plan = Plan::new("a", one.clone(), Ring::new(RingHash::Tieline, []));
    assert_eq!(plan.destination("u"), None);
    // Its own place on the ring it may lose: then others own its users.
    let plan = plan.followed_by(ring(RingHash::Tieline, &vec![("b".to_owned(), 1)]));
    assert_eq!(plan.destination("u"), Some("b"));
}
