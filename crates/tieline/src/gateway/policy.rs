//! [`Policy`]: which node a new connection goes to, and which come next if that one does not answer.
//!
//! Tested below with tables that are made up.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tieline_proto::Incarnation;

use super::nodes::{Node, Table};

/// Which node a new connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The owner of its user on the ring; in turn where it has no user.
    Ring,
    /// The one with the fewest connections for its weight.
    LeastConnections,
    /// Of two at random the one with fewer. Many gateways that know little of each other do not all run to the same node.
    TwoChoices,
    /// Each in turn, as often as its weight says.
    RoundRobin,
    /// The owner of the client's address on the ring.
    SourceIp,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 5] =
        [Policy::Ring, Policy::LeastConnections, Policy::TwoChoices, Policy::RoundRobin, Policy::SourceIp];

    /// As it stands in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Ring => "ring",
            Policy::LeastConnections => "least-connections",
            Policy::TwoChoices => "two-choices",
            Policy::RoundRobin => "round-robin",
            Policy::SourceIp => "source-ip",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a policy is one of ring, least-connections, two-choices, round-robin, source-ip")]
pub struct UnknownPolicy;

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == text).ok_or(UnknownPolicy)
    }
}

/// What is known of a request that is to be placed.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// The user that it is of.
    pub(super) user: Option<String>,
    /// Where it comes from.
    pub(super) source: IpAddr,
    /// The node that holds the connection that it wants back.
    pub(super) holder: Option<Incarnation>,
}

/// Chooses nodes.
#[derive(Debug)]
pub(super) struct Chooser {
    policy: Policy,
    /// No node is to have more than so many times its share, on the ring.
    bound: Option<f64>,
    /// Nodes that are tried for one connection.
    tries: usize,
    /// Only those are chosen that want a token of everybody.
    is_guarded: bool,
    /// Whose turn it is, and the seed of what is left to chance.
    turn: AtomicU64,
}

impl Chooser {
    /// `seed` should differ between gateways, which would otherwise begin with the same node.
    pub(super) fn new(policy: Policy, bound: Option<f64>, tries: usize, seed: u64) -> Self {
        Chooser { policy, bound, tries, is_guarded: false, turn: AtomicU64::new(seed) }
    }

    /// The same, which chooses only nodes that want a token of everybody, where that is so.
    pub(super) fn guarded(self, is_guarded: bool) -> Self {
        Chooser { is_guarded, ..self }
    }

    /// Whether a node is given clients at all.
    pub(super) fn admits(&self, node: &Node) -> bool {
        !self.is_guarded || node.wants_tokens()
    }

    /// Whether only those are that want a token of everybody.
    pub(super) fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// The nodes to try, in order. Those that are not well come last, where they are all there is.
    pub(super) fn choose(&self, table: &Table, wish: &Wish, now: Instant) -> Vec<Arc<Node>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order = match (self.policy, &wish.user) {
            (Policy::Ring, Some(user)) => self.on_ring(table, user),
            (Policy::SourceIp, _) => self.on_ring(table, &wish.source.to_canonical().to_string()),
            (Policy::LeastConnections, _) => by_load(table, turn),
            (Policy::TwoChoices, _) => two_choices(table, turn),
            (Policy::Ring | Policy::RoundRobin, _) => in_turn(table, turn),
        };
        let has_owner = self.policy == Policy::Ring && wish.user.is_some();
        // On the ring a connection that comes back goes to its owner, who has it handed over: that is how it moves.
        let holder = wish.holder.filter(|_| !has_owner);
        if let Some(holder) = holder.and_then(|incarnation| table.incarnation(incarnation))
            && let Some(at) = order.iter().position(|node| Arc::ptr_eq(node, holder))
        {
            order[..=at].rotate_right(1);
        }
        order.retain(|node| self.admits(node));
        order.sort_by_key(|node| !node.is_well(now));
        order.truncate(self.tries);
        order
    }

    fn on_ring(&self, table: &Table, key: &str) -> Vec<Arc<Node>> {
        let load = |name: &str| table.taker(name).map_or(0, |node| node.load());
        let first = self.bound.and_then(|bound| table.ring.place(key, bound, load));
        let others = table.ring.walk(key).filter(|name| Some(*name) != first);
        first.into_iter().chain(others).filter_map(|name| table.taker(name)).map(Arc::clone).collect()
    }
}

/// All takers, begun with the one whose turn it is: each has as many turns in a row as its weight.
fn in_turn(table: &Table, turn: u64) -> Vec<Arc<Node>> {
    let weights: u64 = table.takers.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut left = turn.checked_rem(weights).unwrap_or(0);
    let is_reached = |(_, weight): &(Arc<Node>, u32)| match left.checked_sub(u64::from(*weight)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    };
    let start = table.takers.iter().position(is_reached).unwrap_or(0);
    let (before, after) = table.takers.split_at(start);
    let with_weight = after.iter().chain(before).filter(|(_, weight)| *weight > 0);
    with_weight.map(|(node, _)| Arc::clone(node)).collect()
}

/// All takers, those with the fewest connections for their weight first; equals in turn.
fn by_load(table: &Table, turn: u64) -> Vec<Arc<Node>> {
    let mut order = in_turn(table, turn);
    let weight = |node: &Node| table.ring.weight(node.name()).max(1);
    order.sort_by(|one, other| {
        // What each would have with one more, as fractions of their weights.
        let (of_one, of_other) = (u128::from(one.load()) + 1, u128::from(other.load()) + 1);
        (of_one * u128::from(weight(other))).cmp(&(of_other * u128::from(weight(one))))
    });
    order
}

/// Two at random, the one with fewer connections first, and then all others in turn.
fn two_choices(table: &Table, turn: u64) -> Vec<Arc<Node>> {
    let mut order = in_turn(table, scatter(turn));
    if let [first, rest @ ..] = &mut order[..]
        && !rest.is_empty()
    {
        let second = scatter(turn ^ u64::MAX) as usize % rest.len();
        rest.swap(0, second);
        let weight = |node: &Node| u128::from(table.ring.weight(node.name()).max(1));
        let of = |one: &Node, other: &Node| (u128::from(one.load()) + 1) * weight(other);
        if of(&rest[0], first) < of(first, &rest[0]) {
            std::mem::swap(first, &mut rest[0]);
        }
    }
    order
}

/// A number that looks like chance and differs for each turn.
fn scatter(turn: u64) -> u64 {
    let mut bits = turn.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample;
    use tieline_core::registry::View;
    use tieline_core::ring::{Plan, RingHash};

    use super::super::nodes::{Found, Lease, Nodes, view};
    use super::*;
    use crate::admission::Access;

    fn table(nodes: &[(&str, u32)]) -> Arc<Table> {
        let named: Vec<_> =
            nodes.iter().map(|(name, weight)| (*name, "ws://127.0.0.1:1", *weight, true)).collect();
        let nodes = Nodes::new(RingHash::Tieline);
        nodes.follow(&view(&named));
        nodes.table()
    }

    fn wish(user: Option<&str>) -> Wish {
        Wish { user: user.map(str::to_owned), source: "192.0.2.1".parse().unwrap(), holder: None }
    }

    fn chooser(policy: Policy) -> Chooser {
        Chooser::new(policy, None, usize::MAX, 0)
    }

    fn names(chosen: &[Arc<Node>]) -> Vec<&str> {
        chosen.iter().map(|node| node.name()).collect()
    }

    #[test]
    fn a_user_goes_to_its_owner_and_then_along_the_ring() {
        let table = table(&[("a", 1), ("b", 1), ("c", 1)]);
        let chooser = chooser(Policy::Ring);
        for user in ["alice", "bob", "carol", "dave"] {
            let chosen = chooser.choose(&table, &wish(Some(user)), Instant::now());
            assert_eq!(names(&chosen), table.ring.walk(user).collect::<Vec<_>>());
        }
        // Without a user each has its turn.
        let firsts: Vec<_> = (0..3)
            .map(|_| chooser.choose(&table, &wish(None), Instant::now())[0].name().to_owned())
            .collect();
        assert_eq!(firsts.len(), 3);
        assert!(["a", "b", "c"].iter().all(|name| firsts.iter().any(|first| first == name)));
    }

    #[test]
    fn an_address_stays_however_it_is_written() {
        let table = table(&[("a", 1), ("b", 1), ("c", 1)]);
        let chooser = chooser(Policy::SourceIp);
        let of = |source: &str| {
            let wish = Wish { source: source.parse().unwrap(), ..wish(Some("x")) };
            names(&chooser.choose(&table, &wish, Instant::now())).join(",")
        };
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        let different: Vec<_> = (1..20).map(|last| of(&format!("192.0.2.{last}"))).collect();
        assert!(different.iter().any(|other| *other != different[0]));
    }

    #[test]
    fn who_is_not_well_comes_last_and_is_not_forgotten() {
        let table = table(&[("a", 1), ("b", 1), ("c", 1)]);
        let now = Instant::now();
        let owner = Arc::clone(table.taker(table.ring.owner("alice").unwrap()).unwrap());
        owner.failed(now);
        let chosen = chooser(Policy::Ring).choose(&table, &wish(Some("alice")), now);
        assert_eq!(chosen.len(), 3);
        assert!(Arc::ptr_eq(&chosen[2], &owner));
        let two = Chooser::new(Policy::Ring, None, 2, 0);
        assert_eq!(two.choose(&table, &wish(Some("alice")), now).len(), 2);
    }

    #[test]
    fn where_strangers_come_only_nodes_are_chosen_that_want_tokens() {
        let table = table(&[("a", 1), ("b", 1), ("c", 1)]);
        let say = |name: &str, access| {
            table.taker(name).unwrap().checked(Some(Found { is_ready: true, access }));
        };
        for policy in Policy::ALL {
            let all = |chooser: Chooser| {
                let chosen = chooser.choose(&table, &wish(Some("alice")), Instant::now());
                let mut names = names(&chosen).join("");
                // Which of them comes first is the policy's business.
                if names == "cb" {
                    names = "bc".to_owned();
                }
                names
            };
            let guarded = || Chooser::new(policy, None, 2, 0).guarded(true);
            for name in ["a", "b", "c"] {
                say(name, None);
            }
            assert_eq!(all(guarded()), "", "{policy}");
            say("b", Some(Access::Token));
            say("a", Some(Access::Anyone));
            assert_eq!(all(guarded()), "b", "{policy}");
            say("c", Some(Access::Token));
            say("a", Some(Access::Local));
            assert_eq!(all(guarded()), "bc", "{policy}: as many as are tried are none of the others");
            assert_eq!(all(chooser(policy)).len(), 3, "{policy}");
        }
    }

    #[test]
    fn turns_follow_the_weights() {
        let table = table(&[("a", 1), ("b", 3), ("none", 0)]);
        let chooser = chooser(Policy::RoundRobin);
        let mut counts: HashMap<String, u32> = HashMap::new();
        for _ in 0..40 {
            let chosen = chooser.choose(&table, &wish(None), Instant::now());
            assert_eq!(chosen.len(), 2, "a node without weight is sent nobody");
            *counts.entry(chosen[0].name().to_owned()).or_default() += 1;
        }
        assert_eq!((counts["a"], counts["b"]), (10, 30));
    }

    #[test]
    fn loads_even_out_by_weight() {
        for policy in [Policy::LeastConnections, Policy::TwoChoices] {
            let table = table(&[("a", 1), ("b", 1), ("c", 2)]);
            let chooser = chooser(policy);
            let leases: Vec<_> = (0..400)
                .map(|_| Lease::of(&chooser.choose(&table, &wish(None), Instant::now())[0]))
                .collect();
            for (name, expected) in [("a", 100), ("b", 100), ("c", 200)] {
                let open = table.taker(name).unwrap().open();
                assert!(open.abs_diff(expected) <= 40, "{policy} {name}: {open}");
            }
            drop(leases);
        }
    }

    #[test]
    fn a_bound_sends_new_ones_on_when_an_owner_is_full() {
        let table = table(&[("a", 1), ("b", 1)]);
        let chooser = Chooser::new(Policy::Ring, Some(1.25), usize::MAX, 0);
        let leases: Vec<_> = (0..100)
            .map(|_| Lease::of(&chooser.choose(&table, &wish(Some("alice")), Instant::now())[0]))
            .collect();
        let owner = table.taker(table.ring.owner("alice").unwrap()).unwrap();
        assert!(owner.open() >= 50 && owner.open() <= 63, "{}", owner.open());
        drop(leases);
    }

    #[test]
    fn a_connection_that_comes_back_without_a_user_goes_to_its_holder_first() {
        let table = table(&[("a", 1), ("b", 1), ("c", 1)]);
        let wish = Wish { holder: Some(Incarnation(1)), ..wish(None) };
        // Of these made-up nodes all have the same incarnation, so the first one is found.
        for policy in Policy::ALL {
            for _ in 0..3 {
                assert_eq!(chooser(policy).choose(&table, &wish, Instant::now())[0].name(), "a", "{policy}");
            }
        }
        let (chooser, wish) = (chooser(Policy::RoundRobin), Wish { holder: Some(Incarnation(9)), ..wish });
        let firsts = [0; 3].map(|_| chooser.choose(&table, &wish, Instant::now())[0].name().to_owned());
        assert!(firsts.contains(&"b".to_owned()), "nobody has it, and all have their turns");
    }

    #[test]
    fn on_the_ring_its_owner_comes_first_which_has_it_handed_over() {
        let table = table(&[("a", 1), ("b", 1), ("c", 1)]);
        for user in ["alice", "bob", "carol", "dave"] {
            let wish = Wish { holder: Some(Incarnation(1)), ..wish(Some(user)) };
            let first = chooser(Policy::Ring).choose(&table, &wish, Instant::now()).remove(0);
            assert_eq!(Some(first.name()), table.ring.owner(user));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whom a node sends away by its plan the gateway sends to where the plan has it, and nobody else's way changes.
        #[test]
        fn a_gateway_sends_users_where_the_plans_of_the_nodes_have_them(
            before in lists(), after in lists(), hash in sample::select(&RingHash::ALL[..]),
            users in vec("[a-z0-9ü]{1,12}", 1..50),
        ) {
            let list = |nodes: &[(String, u32, bool)]| {
                view(&nodes.iter().map(|(name, weight, takes)| (&**name, "ws://127.0.0.1:1", *weight, *takes)).collect::<Vec<_>>())
            };
            let (before, after) = (list(&before), list(&after));
            let nodes = Nodes::new(hash);
            let choices = |view: &View| {
                nodes.follow(view);
                let table = nodes.table();
                let first = |user: &String| {
                    let chosen = chooser(Policy::Ring).choose(&table, &wish(Some(user)), Instant::now());
                    chosen.first().map(|node| node.name().to_owned())
                };
                users.iter().map(first).collect::<Vec<_>>()
            };
            let (was, is) = (choices(&before), choices(&after));
            for me in &before.members {
                // A node's registry shows it the others, and it knows itself.
                let seen = |view: &View| {
                    let (own, others): (Vec<_>, Vec<_>) =
                        view.members.iter().cloned().partition(|member| member.id.name == me.id.name);
                    let own = own.first().filter(|own| own.takes_clients());
                    let own = own.map(|own| (own.id.name.as_str(), own.registration.weight));
                    View { members: others, ..View::default() }.ring(hash, own)
                };
                let name = me.id.name.as_str();
                let plan = Plan::new(name, seen(&before), seen(&after));
                for ((user, was), is) in users.iter().zip(&was).zip(&is) {
                    let goes = was.as_deref() == Some(name) && is.is_some() && was != is;
                    prop_assert_eq!(plan.destination(user), is.as_deref().filter(|_| goes));
                }
            }
        }
    }

    /// Nodes with weights, and whether they take clients.
    fn lists() -> impl Strategy<Value = Vec<(String, u32, bool)>> {
        let node = (0..8_u32, 1..4_u32, proptest::bool::weighted(0.8));
        vec(node, 1..7).prop_map(|mut nodes| {
            nodes.sort_by_key(|(number, ..)| *number);
            nodes.dedup_by_key(|(number, ..)| *number);
            nodes.into_iter().map(|(number, weight, takes)| (format!("n{number}"), weight, takes)).collect()
        })
    }

    #[test]
    fn nobody_is_chosen_where_nobody_is_there() {
        for policy in Policy::ALL {
            assert!(chooser(policy).choose(&table(&[]), &wish(Some("x")), Instant::now()).is_empty());
            assert!(chooser(policy).choose(&table(&[("a", 0)]), &wish(Some("x")), Instant::now()).is_empty());
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("random".parse::<Policy>().is_err());
    }
}
