//! [`Nodes`]: the nodes of the cluster as the gateway sees them: what the registry says, and what it learned itself.
//!
//! The registry decides who is on the ring, so that it is the same on every gateway. What this gateway alone learned (a node
//! that did not answer, a check that failed) takes nobody off the ring: it only puts a node behind all others until it is
//! well again. One exception is made: where strangers reach the gateway, nodes that want no token of them are given nobody.
//! Tested below.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tieline_core::registry::{Member, View};
use tieline_core::ring::{Ring, RingHash};
use tieline_proto::{Incarnation, NodeId};

use crate::admission::Access;

/// How long a node that did not answer is put behind the others, at first. Each further failure doubles it.
const FIRST_REST: Duration = Duration::from_secs(1);

/// How often that doubles: up to 32 s.
const MOST_DOUBLINGS: u32 = 5;

/// Checks in a row that fail before a node is put behind the others. One may fail by accident.
const FAILURES: u32 = 2;

/// A node that clients can be sent to.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// Host and port.
    pub(super) authority: String,
    /// Connections of it that go through this gateway.
    open: AtomicU64,
    /// How many it has beside those, by what it said last. Negative where it said so before some of ours were there.
    others: AtomicI64,
    /// How many it may hold; 0 where it does not say.
    capacity: AtomicU64,
    trouble: Mutex<Trouble>,
    /// Checks that failed since the last that did not.
    failed_checks: AtomicU32,
    /// It answers checks by saying that it is not ready.
    is_unready: AtomicBool,
    /// What it said last that it asks of strangers.
    access: Mutex<Said>,
}

/// What is known of whom a node lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It has answered no check yet.
    Unasked,
    /// It does not say, as other programs do not.
    Nothing,
    /// This.
    Access(Access),
}

/// What a node answered to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether it is ready.
    pub(super) is_ready: bool,
    /// What it asks of strangers, where it says so.
    pub(super) access: Option<Access>,
}

/// What became of attempts to reach a node.
#[derive(Debug, Default)]
struct Trouble {
    /// In a row.
    failures: u32,
    /// Until then it is tried last.
    until: Option<Instant>,
}

impl Node {
    fn new(id: NodeId, authority: String) -> Self {
        Node {
            id,
            authority,
            open: AtomicU64::default(),
            others: AtomicI64::default(),
            capacity: AtomicU64::default(),
            trouble: Mutex::default(),
            failed_checks: AtomicU32::default(),
            is_unready: AtomicBool::default(),
            access: Mutex::new(Said::Unasked),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.id.name.as_str()
    }

    /// Its connections: what it said last, and what has changed here since.
    pub(super) fn load(&self) -> u64 {
        let open = self.open();
        let all = self.others.load(Ordering::Relaxed).saturating_add_unsigned(open);
        u64::try_from(all).unwrap_or(0).max(open)
    }

    /// Its connections through this gateway.
    pub(super) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// The node said how many it has and may have.
    fn note(&self, connections: u64, capacity: u64) {
        let connections = i64::try_from(connections).unwrap_or(i64::MAX);
        self.others.store(connections.saturating_sub_unsigned(self.open()), Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Whether it should be tried before others: it answered last, its checks are good, and it has room.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        let resting = self.lock().until.is_some_and(|until| now < until);
        let capacity = self.capacity.load(Ordering::Relaxed);
        !resting && self.answers_checks() && (capacity == 0 || self.load() < capacity)
    }

    fn answers_checks(&self) -> bool {
        self.failed_checks.load(Ordering::Relaxed) < FAILURES && !self.is_unready.load(Ordering::Relaxed)
    }

    /// It did not answer: others are tried before it for a while, longer each time.
    pub(super) fn failed(&self, now: Instant) {
        let mut trouble = self.lock();
        let rest = FIRST_REST * 2_u32.pow(trouble.failures.min(MOST_DOUBLINGS));
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.until = Some(now + rest);
    }

    /// It answered.
    pub(super) fn answered(&self) {
        let mut trouble = self.lock();
        if trouble.failures > 0 {
            *trouble = Trouble::default();
        }
    }

    /// What it asks of strangers.
    pub(super) fn access(&self) -> Said {
        *self.said()
    }

    /// Whether it said last that it wants a token of everybody.
    pub(super) fn wants_tokens(&self) -> bool {
        self.access() == Said::Access(Access::Token)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A check found it ready, not ready, or found nobody. Returns whether it says something else of strangers than before.
    pub(super) fn checked(&self, found: Option<Found>) -> bool {
        let was_well = self.answers_checks();
        self.is_unready.store(found.is_some_and(|found| !found.is_ready), Ordering::Relaxed);
        match found {
            Some(_) => self.failed_checks.store(0, Ordering::Relaxed),
            None => drop(self.failed_checks.fetch_add(1, Ordering::Relaxed)),
        }
        let is_well = self.answers_checks();
        if is_well && !was_well {
            // It is back, and nobody has to find that out by trying.
            self.answered();
        }
        if is_well != was_well {
            tracing::info!(node = %self.name(), is_well, "A node has changed, as its checks say.");
        }
        let Some(Found { access, .. }) = found else { return false };
        let said = access.map_or(Said::Nothing, Said::Access);
        std::mem::replace(&mut *self.said(), said) != said
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of a node, counted as long as this is there.
#[derive(Debug)]
pub(super) struct Lease(Arc<Node>);

impl Lease {
    pub(super) fn of(node: &Arc<Node>) -> Self {
        node.open.fetch_add(1, Ordering::Relaxed);
        Lease(Arc::clone(node))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All nodes at one moment.
#[derive(Debug)]
pub(super) struct Table {
    /// Those that take clients, by name, with their weights.
    pub(super) takers: Vec<(Arc<Node>, u32)>,
    /// Those that take none: they drain, or were taken out in the registry.
    pub(super) others: Vec<Arc<Node>>,
    /// Of the takers.
    pub(super) ring: Ring,
    /// Nodes whose clients' address is none that a gateway can connect to.
    pub(super) unreachable: usize,
    /// The registry is away, and this is what it said last.
    pub(super) is_degraded: bool,
}

impl Table {
    /// The taker of a name.
    pub(super) fn taker(&self, name: &str) -> Option<&Arc<Node>> {
        let found = self.takers.binary_search_by(|(node, _)| node.name().cmp(name));
        found.ok().map(|index| &self.takers[index].0)
    }

    /// The taker that is this start of a node.
    pub(super) fn incarnation(&self, incarnation: Incarnation) -> Option<&Arc<Node>> {
        self.takers.iter().map(|(node, _)| node).find(|node| node.id.incarnation == incarnation)
    }
}

/// The nodes, as they change.
#[derive(Debug)]
pub(super) struct Nodes {
    hash: RingHash,
    /// Replaced as a whole.
    table: RwLock<Arc<Table>>,
}

impl Nodes {
    /// None yet.
    pub(super) fn new(hash: RingHash) -> Self {
        let table = Table {
            takers: Vec::new(),
            others: Vec::new(),
            ring: Ring::new(hash, []),
            unreachable: 0,
            is_degraded: false,
        };
        Nodes { hash, table: RwLock::new(Arc::new(table)) }
    }

    /// Now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what the registry shows. A node that is the same as before keeps what was learned of it. Returns whether
    /// there is one that was not there before.
    pub(super) fn follow(&self, view: &View) -> bool {
        let before = self.table();
        let known: HashMap<(&NodeId, &str), &Arc<Node>> = before
            .takers
            .iter()
            .map(|(node, _)| node)
            .chain(&before.others)
            .map(|node| ((&node.id, &*node.authority), node))
            .collect();
        let (mut takers, mut others, mut unreachable, mut has_new) = (Vec::new(), Vec::new(), 0, false);
        for member in &view.members {
            let Member { id, registration, .. } = member;
            let Some(authority) = authority(&registration.client_url) else {
                unreachable += 1;
                continue;
            };
            let node = match known.get(&(id, authority)) {
                Some(node) => Arc::clone(node),
                None => {
                    has_new = true;
                    Arc::new(Node::new(id.clone(), authority.to_owned()))
                }
            };
            node.note(registration.connections, registration.capacity);
            if member.takes_clients() {
                takers.push((node, registration.weight));
            } else {
                others.push(node);
            }
        }
        takers.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
        if unreachable > 0 && before.unreachable == 0 {
            tracing::warn!(
                "A node says no address ws://HOST:PORT where clients reach it: it gets none from here."
            );
        }
        let ring = Ring::new(self.hash, takers.iter().map(|(node, weight)| (node.name(), *weight)));
        let table = Table { takers, others, ring, unreachable, is_degraded: view.is_degraded };
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        has_new
    }
}

/// Host and port of a node's address. There is no TLS between gateway and nodes.
fn authority(client_url: &str) -> Option<&str> {
    let (scheme, authority) = client_url.split_once("://")?;
    let is_plain = ["ws", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    (is_plain && has_port && crate::admission::is_client_url(client_url)).then_some(authority)
}

/// A view as a test needs it: names with their addresses, weights, and whether they take clients.
#[cfg(test)]
pub(super) fn view(nodes: &[(&str, &str, u32, bool)]) -> View {
    use tieline_core::registry::{NodeState, Registration};
    use tieline_proto::NodeName;

    let member = |(name, url, weight, takes): &(&str, &str, u32, bool)| Member {
        id: NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(1) },
        registration: Registration {
            client_url: (*url).to_owned(),
            weight: *weight,
            state: if *takes { NodeState::Up } else { NodeState::Draining },
            ..Registration::default()
        },
        is_enabled: true,
    };
    View { members: nodes.iter().map(member).collect(), ..View::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Option<Found> = Some(Found { is_ready: true, access: None });
    const UNREADY: Option<Found> = Some(Found { is_ready: false, access: None });

    fn nodes(view: &View) -> Nodes {
        let nodes = Nodes::new(RingHash::Tieline);
        nodes.follow(view);
        nodes
    }

    #[test]
    fn those_who_drain_leave_the_ring_and_keep_what_is_known_of_them() {
        let nodes = nodes(&view(&[("b", "ws://127.0.0.1:2", 1, true), ("a", "ws://127.0.0.1:1", 2, true)]));
        let table = nodes.table();
        let lease = Lease::of(table.taker("b").unwrap());
        assert_eq!(table.ring.nodes().collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
        nodes.follow(&view(&[("b", "ws://127.0.0.1:2", 1, false), ("a", "ws://127.0.0.1:1", 2, true)]));
        let table = nodes.table();
        assert_eq!(table.ring.nodes().collect::<Vec<_>>(), [("a", 2)]);
        assert!(table.taker("b").is_none());
        assert_eq!(table.others[0].open(), 1);
        drop(lease);
        assert_eq!(table.others[0].open(), 0);
        // At another address it is another node.
        let lease = Lease::of(table.taker("a").unwrap());
        nodes.follow(&view(&[("a", "ws://127.0.0.1:3", 2, true)]));
        assert_eq!(nodes.table().taker("a").unwrap().open(), 0);
        drop(lease);
    }

    #[test]
    fn addresses_that_cannot_be_connected_to_are_counted() {
        let bad = ["", "wss://a:443", "ws://a", "ws://a:1/b", "ws://a:99999", "nonsense", "ws://a b:1"];
        let list: Vec<_> = bad.iter().map(|url| ("a", *url, 1, true)).collect();
        let table = nodes(&view(&list)).table();
        assert_eq!((table.unreachable, table.takers.len()), (bad.len(), 0));
        assert_eq!(authority("ws://[::1]:80"), Some("[::1]:80"));
        assert_eq!(authority("WS://host:1"), Some("host:1"));
    }

    #[test]
    fn a_load_is_what_was_said_and_what_changed_since() {
        let table = nodes(&view(&[("a", "ws://127.0.0.1:1", 1, true)])).table();
        let node = table.taker("a").unwrap();
        let leases: Vec<_> = (0..10).map(|_| Lease::of(node)).collect();
        assert_eq!(node.load(), 10, "it said none, and has those at least");
        node.note(25, 0);
        assert_eq!(node.load(), 25);
        let more = Lease::of(node);
        assert_eq!(node.load(), 26);
        drop((leases, more));
        assert_eq!(node.load(), 15);
    }

    #[test]
    fn who_fails_rests_longer_each_time_and_an_answer_ends_it() {
        let table = nodes(&view(&[("a", "ws://127.0.0.1:1", 1, true)])).table();
        let (node, now) = (table.taker("a").unwrap(), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 32] {
            assert!(node.is_well(now));
            node.failed(now);
            assert!(!node.is_well(now + Duration::from_millis(seconds * 1000 - 1)), "{seconds}");
            assert!(node.is_well(now + Duration::from_secs(seconds)), "{seconds}");
            node.lock().until = None;
        }
        node.answered();
        node.failed(now);
        assert!(node.is_well(now + Duration::from_secs(1)));
    }

    #[test]
    fn two_failed_checks_or_one_no_put_a_node_behind_until_a_good_one() {
        let table = nodes(&view(&[("a", "ws://127.0.0.1:1", 1, true)])).table();
        let (node, now) = (table.taker("a").unwrap(), Instant::now());
        node.checked(None);
        assert!(node.is_well(now));
        node.checked(None);
        node.failed(now);
        assert!(!node.is_well(now));
        node.checked(READY);
        assert!(node.is_well(now), "a good check after bad ones ends its rest");
        node.checked(UNREADY);
        assert!(!node.is_well(now));
        node.checked(READY);
        // A good check among good ones does not: whoever tries knows better.
        node.failed(now);
        node.checked(READY);
        assert!(!node.is_well(now));
        node.answered();
        node.note(5, 5);
        assert!(!node.is_well(now), "it is full");
        node.note(4, 5);
        assert!(node.is_well(now));
    }

    #[test]
    fn what_a_node_asks_of_strangers_is_what_it_said_last() {
        let table = nodes(&view(&[("a", "ws://127.0.0.1:1", 1, true)])).table();
        let node = table.taker("a").unwrap();
        assert_eq!((node.access(), node.wants_tokens()), (Said::Unasked, false));
        let says = |access| node.checked(Some(Found { is_ready: true, access }));
        assert!(says(Some(Access::Token)) && node.wants_tokens());
        assert!(!says(Some(Access::Token)), "nothing has changed");
        assert!(!node.checked(None) && node.wants_tokens(), "silence says nothing");
        for access in [Some(Access::Local), Some(Access::Anyone), None] {
            assert!(says(access) && !node.wants_tokens(), "{access:?}");
        }
        // Started again, it is asked anew.
        let nodes = nodes(&view(&[("a", "ws://127.0.0.1:2", 1, true)]));
        assert_eq!(nodes.table().taker("a").unwrap().access(), Said::Unasked);
    }
}
