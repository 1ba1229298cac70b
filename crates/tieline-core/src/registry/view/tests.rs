//! Lists and outages with times of their own making: who is believed to live.

use proptest::prelude::*;
use tieline_proto::{Incarnation, NodeName};

use super::super::Registration;
use super::*;

fn node(name: &str, incarnation: u64) -> NodeId {
    NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(incarnation) }
}

fn entry(name: &str, incarnation: u64) -> Result<Member, Strange> {
    Ok(Member { id: node(name, incarnation), registration: Registration::default(), is_enabled: true })
}

/// A view in the making, and a clock that moves when it is told to.
struct World {
    keeping: Keeping,
    now: Instant,
}

impl World {
    fn new(me: Option<NodeId>) -> Self {
        World { keeping: Keeping::new(me, HOLD), now: Instant::now() }
    }

    fn list(&mut self, names: &[&str]) {
        self.keeping.listed(names.iter().map(|name| entry(name, 1)), self.now);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.keeping.tick(self.now);
    }

    fn names(&self) -> String {
        let view = self.keeping.view();
        view.members.iter().map(|member| member.id.name.as_str()).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_server_that_was_there_all_the_time_is_believed_at_once() {
    let mut world = World::new(Some(node("me", 1)));
    world.list(&["me", "a", "b", "c"]);
    assert_eq!(world.names(), "a b c");
    world.list(&["me", "a"]);
    assert_eq!(world.names(), "a", "it has not forgotten this node, so it has forgotten nobody");
    world.list(&["me"]);
    assert_eq!(world.names(), "");
}

#[test]
fn nobody_is_dropped_until_all_had_time_to_register_again() {
    let mut world = World::new(Some(node("me", 1)));
    world.list(&["me", "a", "b", "c"]);
    world.keeping.away();
    world.pass(3600);
    assert_eq!((world.names().as_str(), world.keeping.view().is_degraded), ("a b c", true));
    world.list(&[]);
    assert_eq!((world.names().as_str(), world.keeping.view().is_degraded), ("a b c", false));
    world.pass(5);
    world.list(&["me", "b"]);
    world.pass(9);
    assert_eq!(world.names(), "a b c");
    world.pass(1);
    assert_eq!(world.names(), "b");
    // From here on it is believed again.
    world.list(&["me"]);
    assert_eq!(world.names(), "");
}

#[test]
fn a_restart_that_nobody_noticed_is_seen_by_what_is_missing() {
    let mut world = World::new(Some(node("me", 1)));
    world.list(&["me", "a", "b", "c"]);
    world.list(&["a", "b"]);
    assert_eq!(world.names(), "a b c", "it has forgotten this node");
    world.list(&["me", "a", "b", "c"]);
    world.pass(15);
    world.keeping.forgotten(world.now);
    world.list(&["me", "a"]);
    assert_eq!(world.names(), "a b c", "it was told that it has");
    // Somebody who is no node has no entry to look for.
    let mut world = World::new(None);
    world.list(&["a", "b", "c"]);
    world.list(&["a", "b"]);
    assert_eq!(world.names(), "a b");
    world.list(&[]);
    world.pass(14);
    world.list(&["a"]);
    assert_eq!(world.names(), "a b");
    world.pass(1);
    assert_eq!(world.names(), "a");
}

#[test]
fn time_does_not_pass_while_the_server_is_away() {
    let mut world = World::new(None);
    world.list(&["a", "b"]);
    world.list(&[]);
    world.keeping.away();
    world.pass(3600);
    assert_eq!(world.names(), "a b");
    world.list(&["a"]);
    world.pass(14);
    assert_eq!(world.names(), "a b");
    world.pass(1);
    assert_eq!(world.names(), "a");
}

#[test]
fn of_one_name_the_last_start_counts_and_this_nodes_own_name_is_told_apart() {
    let mut keeping = Keeping::new(Some(node("me", 5)), HOLD);
    let now = Instant::now();
    let list = [entry("a", 9), entry("a", 10), entry("me", 4), entry("me", 5), entry("b", 1), entry("a", 8)];
    keeping.listed(list, now);
    let view = keeping.view();
    let ids: Vec<NodeId> = view.members.into_iter().map(|member| member.id).collect();
    assert_eq!(ids, [node("a", 10), node("b", 1)]);
    assert_eq!(view.namesake.map(|member| member.id), Some(node("me", 4)));
    keeping.listed([entry("me", 5), entry("me", 6)], now);
    assert_eq!(keeping.view().namesake.map(|member| member.id), Some(node("me", 6)));
}

#[test]
fn what_cannot_be_read_or_is_too_much_is_counted_and_passed_over() {
    let mut keeping = Keeping::new(None, HOLD);
    let now = Instant::now();
    keeping.listed([Err(Strange::Malformed), entry("a", 1), Err(Strange::Cluster)], now);
    assert_eq!((keeping.view().members.len(), keeping.view().strange), (1, 2));
    keeping.listed((0..MAX_MEMBERS as u64 + 3).map(|n| entry("n", n + 1)), now);
    assert_eq!(
        (keeping.entries.len(), keeping.view().strange),
        (MAX_MEMBERS + 1, 3),
        "a is missing and held"
    );
    keeping.listed([entry("a", 1)], now);
    assert_eq!(keeping.view().strange, 0);
}

#[derive(Clone, Debug)]
enum Step {
    List(Vec<(usize, u64)>),
    Away,
    Forgotten,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let list = proptest::collection::vec((0..5usize, 1..4u64), 0..8);
    prop_oneof![
        4 => list.prop_map(Step::List),
        1 => Just(Step::Away),
        1 => Just(Step::Forgotten),
        3 => (0..20u64).prop_map(Step::Pass),
    ]
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "me"];

proptest! {
    #[test]
    fn who_was_listed_stays_while_held_and_a_list_that_stays_is_the_view(
        steps in proptest::collection::vec(step(), 1..40), is_node: bool, last in proptest::collection::vec((0..5usize, 1..4u64), 0..8)
    ) {
        let me = is_node.then(|| node("me", 2));
        let mut world = World::new(me.clone());
        let listed = |list: &[(usize, u64)]| list.iter().map(|(name, n)| entry(NAMES[*name], *n)).collect::<Vec<_>>();
        for step in steps {
            let before = world.names();
            match step {
                Step::List(list) => {
                    let was_away = world.keeping.is_away;
                    world.keeping.listed(listed(&list), world.now);
                    for name in before.split_whitespace() {
                        prop_assert!(!was_away || world.names().contains(name), "{} was dropped at once", name);
                    }
                }
                Step::Away => world.keeping.away(),
                Step::Forgotten => world.keeping.forgotten(world.now),
                Step::Pass(seconds) => world.pass(seconds),
            }
            let view = world.keeping.view();
            prop_assert!(view.members.is_sorted_by(|one, other| one.id.name < other.id.name), "{:?}", view);
            prop_assert!(me.is_none() || view.members.iter().all(|member| member.id.name.as_str() != "me"));
            prop_assert!(view.namesake.is_none_or(|member| Some(member.id) != me));
        }
        // In the end the server stays, and shows the same again and again.
        for _ in 0..3 {
            world.keeping.listed(listed(&last), world.now);
            world.pass(10);
        }
        let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, n) in &last {
            let newest = wanted.entry(NAMES[*name]).or_default();
            *newest = (*newest).max(*n);
        }
        if is_node {
            wanted.remove("me");
        }
        let members = world.keeping.view().members;
        let found: BTreeMap<&str, u64> =
            members.iter().map(|member| (member.id.name.as_str(), member.id.incarnation.0)).collect();
        prop_assert_eq!(found, wanted);
    }
}
