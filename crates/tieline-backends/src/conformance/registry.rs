//! What every registry with a server must do: who comes is seen by all with what it says of itself, who leaves is gone at once, who
//! dies is gone after its lease, and clusters never see each other. With a server that is ours to hurt: while it is away the
//! last view stays and says so, and nobody is dropped because it has forgotten everybody.
//!
//! A test gives a [`Ground`] and awaits [`suite`] and, with an [`outage::Server`](super::outage::Server), [`outages`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tieline_core::registry::{Member, NodeState, Registration, Registry, SharedView, View};
use tieline_proto::{Incarnation, NodeId, NodeName};
use tokio::time::{Instant, timeout, timeout_at};

use super::PATIENCE;
use super::outage::Server;

/// How long after its lease a node that died may be seen.
const LATE: Duration = Duration::from_secs(2);

/// How long after an outage begins everybody has to say so: two steps that nobody answers.
const NOTICED: Duration = Duration::from_secs(8);

/// A registry that is being opened.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Arc<dyn Registry>> + Send + 'a>>;

/// A server that keeps registries.
pub trait Ground: Send + Sync {
    /// Opens the registry of a cluster for a node, or for somebody who only looks.
    fn open(&self, cluster: &str, me: Option<NodeId>) -> Opening<'_>;

    /// How long a node is believed to live that says nothing.
    fn lease(&self) -> Duration;

    /// How long nobody is dropped after the server came back.
    fn hold(&self) -> Duration;

    /// How much longer a registry that was dropped while the server was away may be seen when the server is back. None, if what
    /// is dropped says nothing any more, as a process that dies.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
}

/// Everything that needs a server which lives.
pub async fn suite(ground: &dyn Ground) {
    who_comes_is_seen_with_what_it_says(ground).await;
    who_leaves_is_gone_at_once(ground).await;
    who_dies_is_gone_after_its_lease(ground).await;
    who_is_started_again_is_another(ground).await;
    fifty_see_each_other(ground).await;
    clusters_never_see_each_other(ground).await;
}

/// Everything that hurts the server.
pub async fn outages(ground: &dyn Ground, server: &mut dyn Server) {
    a_server_that_is_killed_drops_nobody(ground, server).await;
    a_server_that_stands_still_drops_nobody(ground, server).await;
}

/// A node that is registered.
struct Seat {
    id: NodeId,
    registry: Arc<dyn Registry>,
}

/// The name of a cluster that no other test has.
fn fresh_cluster() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The id of a node's next start.
fn fresh_id(name: &str) -> NodeId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let name = NodeName::new(name).expect("names of tests keep the rule");
    NodeId { name, incarnation: Incarnation(NEXT.fetch_add(1, Ordering::Relaxed)) }
}

/// What the node of a name says of itself.
fn words(name: &str) -> Registration {
    Registration {
        client_url: format!("ws://{name}.example:7800"),
        peer_url: format!("mesh://{name}.example:7900"),
        connections: 7,
        weight: 3,
        capacity: 1000,
        version: "0.1.0".to_owned(),
        placement: "ring:md5".to_owned(),
        state: NodeState::Up,
    }
}

async fn sit(ground: &dyn Ground, cluster: &str, name: &str) -> Seat {
    let id = fresh_id(name);
    let registry = ground.open(cluster, Some(id.clone())).await;
    registry.register(words(name));
    Seat { id, registry }
}

/// Seats under these names, each of which sees the others.
async fn sit_together(ground: &dyn Ground, cluster: &str, names: &[&str]) -> Vec<Seat> {
    let mut seats = Vec::new();
    for name in names {
        seats.push(sit(ground, cluster, name).await);
    }
    all_see_each_other(&seats).await;
    seats
}

async fn all_see_each_other(seats: &[Seat]) {
    for seat in seats {
        let others: Vec<&NodeId> = seats.iter().map(|other| &other.id).filter(|id| **id != seat.id).collect();
        seat.until_members(&others).await;
    }
}

/// Waits until a view is as wished, and gives it.
async fn until(
    registry: &dyn Registry,
    who: &str,
    within: Duration,
    wish: &str,
    is_met: impl Fn(&View) -> bool,
) -> SharedView {
    let mut view = registry.view();
    let waiting = async {
        let found = view.wait_for(|view| is_met(view)).await;
        Arc::clone(&found.expect("a registry outlives those who look"))
    };
    if let Ok(found) = timeout(within, waiting).await {
        return found;
    }
    panic!("{who} waited in vain for {within:?}: {wish}; it sees {:?}", registry.view().borrow());
}

fn has_exactly(members: &[Member], wanted: &[&NodeId]) -> bool {
    members.len() == wanted.len() && members.iter().all(|member| wanted.contains(&&member.id))
}

impl Seat {
    async fn until(&self, within: Duration, wish: &str, is_met: impl Fn(&View) -> bool) -> SharedView {
        until(&*self.registry, &self.id.to_string(), within, wish, is_met).await
    }

    async fn until_members(&self, wanted: &[&NodeId]) -> SharedView {
        let is_met = |view: &View| has_exactly(&view.members, wanted);
        self.until(PATIENCE, &format!("{wanted:?} to be the members"), is_met).await
    }

    async fn leave(self) {
        self.registry.deregister().await;
    }
}

async fn leave_all(seats: Vec<Seat>) {
    for seat in seats {
        seat.leave().await;
    }
}

/// Nodes, and who only looks, see all others with all that they say, and what they say anew.
pub async fn who_comes_is_seen_with_what_it_says(ground: &dyn Ground) {
    let cluster = fresh_cluster();
    let looking = ground.open(&cluster, None).await;
    let mut seats = sit_together(ground, &cluster, &["a", "b"]).await;
    seats.push(sit(ground, &cluster, "late").await);
    all_see_each_other(&seats).await;
    let ids: Vec<&NodeId> = seats.iter().map(|seat| &seat.id).collect();
    let all = |view: &View| has_exactly(&view.members, &ids);
    let view = until(&*looking, "who looks", PATIENCE, "all to be there", all).await;
    assert!(view.members.is_sorted_by(|one, other| one.id.name < other.id.name));
    for member in &view.members {
        assert_eq!(member.registration, words(member.id.name.as_str()));
        assert!(member.takes_clients());
    }
    assert_eq!((view.is_degraded, view.strange, &view.namesake), (false, 0, &None));
    // A change of state is told at once, and so is everything else with it.
    let drained = Registration {
        state: NodeState::Draining,
        connections: 3,
        weight: 1,
        ..words(seats[0].id.name.as_str())
    };
    seats[0].registry.register(drained.clone());
    let is_drained = |view: &View| {
        view.members.iter().any(|member| member.id == seats[0].id && member.registration == drained)
    };
    seats[1].until(LATE * 2, "the other's new words", is_drained).await;
    let view = until(&*looking, "who looks", LATE * 2, "the new words", is_drained).await;
    assert!(!view.members[0].takes_clients());
    // Numbers of connections come with a later sign of life.
    seats[0].registry.register(Registration { connections: 99, ..drained.clone() });
    let is_counted = |view: &View| view.members.iter().any(|member| member.registration.connections == 99);
    seats[1].until(PATIENCE, "the other's new number of connections", is_counted).await;
    leave_all(seats).await;
}

/// Who deregisters is gone long before its lease is over.
pub async fn who_leaves_is_gone_at_once(ground: &dyn Ground) {
    let cluster = fresh_cluster();
    let mut seats = sit_together(ground, &cluster, &["a", "b", "c"]).await;
    let looking = ground.open(&cluster, None).await;
    let leaving = seats.pop().expect("three sat down");
    let gone = leaving.id.clone();
    leaving.leave().await;
    let is_gone = |view: &View| !view.members.iter().any(|member| member.id == gone);
    for seat in &seats {
        seat.until(LATE, "who left to be gone", is_gone).await;
    }
    until(&*looking, "who looks", LATE, "who left to be gone", is_gone).await;
    all_see_each_other(&seats).await;
    leave_all(seats).await;
}

/// Who dies is believed to live for a while, and is gone when its lease is over.
pub async fn who_dies_is_gone_after_its_lease(ground: &dyn Ground) {
    let cluster = fresh_cluster();
    let mut seats = sit_together(ground, &cluster, &["a", "b", "c"]).await;
    let dead = seats.pop().expect("three sat down");
    let id = dead.id.clone();
    let since = Instant::now();
    drop(dead);
    let is_gone = |view: &View| !view.members.iter().any(|member| member.id == id);
    let first = seats[0].until(ground.lease() + LATE, "who died to be gone", is_gone).await;
    assert!(since.elapsed() >= ground.lease() / 3, "its lease was cut short: {:?}", since.elapsed());
    assert_eq!(first.members.len(), 1);
    let left = (since + ground.lease() + LATE).saturating_duration_since(Instant::now());
    seats[1].until(left, "who died to be gone", is_gone).await;
    leave_all(seats).await;
}

/// A node that is started again is another, and the two know of each other while both are there.
pub async fn who_is_started_again_is_another(ground: &dyn Ground) {
    let cluster = fresh_cluster();
    let mut seats = sit_together(ground, &cluster, &["a", "b"]).await;
    let former = seats.pop().expect("two sat down");
    seats.push(sit(ground, &cluster, "b").await);
    all_see_each_other(&seats).await;
    let is_named = |wanted: Option<&NodeId>| {
        let wanted = wanted.cloned();
        move |view: &View| view.namesake.as_ref().map(|member| &member.id) == wanted.as_ref()
    };
    former.until(PATIENCE, "the younger of its name", is_named(Some(&seats[1].id))).await;
    let view = seats[1].until(PATIENCE, "the older of its name", is_named(Some(&former.id))).await;
    let namesake = view.namesake.as_ref().expect("it was waited for");
    assert_eq!(namesake.registration.client_url, words("b").client_url);
    // The older one is not let in again by anything that it says.
    former.registry.register(Registration { weight: 9, ..words("b") });
    former.leave().await;
    seats[1].until(LATE, "the older of its name to be gone", is_named(None)).await;
    all_see_each_other(&seats).await;
    leave_all(seats).await;
}

/// Fifty are a cluster that is still small.
pub async fn fifty_see_each_other(ground: &dyn Ground) {
    let cluster = fresh_cluster();
    let names: Vec<String> = (0..50).map(|number| format!("node-{number}")).collect();
    let mut seats = Vec::new();
    for name in &names {
        seats.push(sit(ground, &cluster, name).await);
    }
    all_see_each_other(&seats).await;
    let gone = seats.split_off(25);
    for seat in gone {
        seat.leave().await;
    }
    all_see_each_other(&seats).await;
    leave_all(seats).await;
}

/// What is said in one cluster is never seen in another, also where one's name is the beginning of the other's.
pub async fn clusters_never_see_each_other(ground: &dyn Ground) {
    let one = fresh_cluster();
    let other = format!("{one}-b");
    let ones = sit_together(ground, &one, &["a", "b"]).await;
    let others = sit_together(ground, &other, &["a", "c", "d"]).await;
    all_see_each_other(&ones).await;
    all_see_each_other(&others).await;
    for seat in ones.iter().chain(&others) {
        let view = seat.registry.view().borrow().clone();
        assert_eq!((&view.namesake, view.strange), (&None, 0));
    }
    leave_all(ones).await;
    all_see_each_other(&others).await;
    leave_all(others).await;
}

/// A server that loses everything and comes back empty: everybody registers again by itself, and nobody was ever missing, but who
/// died meanwhile, and that one is gone when all had time to come back.
pub async fn a_server_that_is_killed_drops_nobody(ground: &dyn Ground, server: &mut dyn Server) {
    let cluster = fresh_cluster();
    let mut seats = sit_together(ground, &cluster, &["a", "b", "c", "d"]).await;
    let looking = ground.open(&cluster, None).await;
    let dead = seats.pop().expect("four sat down");
    let living: Vec<NodeId> = seats.iter().map(|seat| seat.id.clone()).collect();
    let has_living = |me: Option<&NodeId>, view: &View| {
        let others = living.iter().filter(|id| Some(*id) != me);
        others.into_iter().all(|id| view.members.iter().any(|member| member.id == *id))
    };
    until(&*looking, "who looks", PATIENCE, "all to be there", |view| view.members.len() == 4).await;
    server.kill();
    for seat in &seats {
        let view = seat.until(NOTICED, "the outage", |view| view.is_degraded).await;
        assert!(has_living(Some(&seat.id), &view), "{} dropped somebody: {view:?}", seat.id);
    }
    drop(dead);
    server.restart();
    for seat in &seats {
        seat.until(PATIENCE, "the end of the outage", |view| !view.is_degraded).await;
    }
    let back = Instant::now();
    // From here on each view is looked at until it has settled without the one that died.
    let settled = back + ground.hold() + ground.lease() + ground.linger() + LATE;
    for (me, registry) in seats.iter().map(|seat| (Some(&seat.id), &seat.registry)).chain([(None, &looking)])
    {
        let mut view = registry.view();
        loop {
            let now = view.borrow_and_update().clone();
            assert!(has_living(me, &now), "{me:?} dropped who lives: {now:?}");
            let others = living.iter().filter(|id| Some(*id) != me).count();
            if now.members.len() == others && !now.is_degraded {
                break;
            }
            let changed = timeout_at(settled, view.changed()).await;
            assert!(changed.is_ok(), "{me:?} still sees who died: {now:?}");
        }
    }
    // The server is believed again, and who leaves is gone at once.
    let leaving = seats.pop().expect("three live");
    leaving.leave().await;
    for seat in &seats {
        seat.until(LATE, "who left to be gone", |view| view.members.len() == 1).await;
    }
    leave_all(seats).await;
}

/// A server that stands still for longer than a lease, and goes on.
pub async fn a_server_that_stands_still_drops_nobody(ground: &dyn Ground, server: &mut dyn Server) {
    let cluster = fresh_cluster();
    let seats = sit_together(ground, &cluster, &["a", "b", "c"]).await;
    server.stand_still();
    let until = Instant::now() + ground.lease() + LATE;
    for seat in &seats {
        seat.until(NOTICED, "the outage", |view| view.is_degraded).await;
    }
    for seat in &seats {
        let mut view = seat.registry.view();
        // Nobody drops anybody for as long as it lasts.
        while let Ok(changed) = timeout_at(until, view.changed()).await {
            changed.expect("a registry outlives those who look");
            let now = view.borrow().clone();
            assert_eq!((now.members.len(), now.is_degraded), (2, true));
        }
    }
    server.go_on();
    let end = Instant::now() + ground.hold() + LATE;
    for seat in &seats {
        let mut view = seat.registry.view();
        while let Ok(changed) = timeout_at(end, view.changed()).await {
            changed.expect("a registry outlives those who look");
            assert_eq!(view.borrow().members.len(), 2, "{} dropped somebody", seat.id);
        }
        assert!(
            !seat.registry.view().borrow().is_degraded,
            "{} does not know that the server is back",
            seat.id
        );
    }
    leave_all(seats).await;
}
