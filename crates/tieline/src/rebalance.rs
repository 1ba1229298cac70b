//! [`Rebalancer`]: the task that sends connections to where the ring has them, when nodes come or change their weight.
//!
//! It follows what the registry shows. When the ring has changed and then stayed the same for a while, so that gateways know of it
//! too, it makes a [`Plan`] and carries it out at a pace; a change meanwhile stops that, and what is left is planned anew. How a
//! connection is sent away, and what is held for its user meanwhile, is in `tieline-core`. `rebalance/pace.rs` is the pace.
//! Tested with real processes and a gateway, in `tests/cluster/rebalancing.rs`.

mod pace;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tieline_core::Node;
use tieline_core::registry::{Registry, SharedView};
use tieline_core::ring::{Plan, Ring, RingHash};
use tieline_core::session::Session;
use tieline_switchboard::Address;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::membership::differing;
use pace::Pace;

/// For so long a ring stays the same before anybody is sent anywhere: gateways look at a registry once a second, and several nodes
/// often come one after the other.
const SETTLED: Duration = Duration::from_secs(3);

/// Up to so much longer each node waits, by chance: not all of them begin at once.
const JITTER: Duration = Duration::from_secs(1);

/// How often connections are sent away.
const STEP: Duration = Duration::from_millis(100);

/// How long after the last connection was sent away it is looked whether any is there again, or still: all that were told to go
/// have gone by then, or were closed.
const LOOK_AGAIN: Duration = Duration::from_secs(12);

/// How often a plan looks for connections. Who comes back here each time is sent by a gateway that knows another ring, or by nobody,
/// and is left alone.
const LOOKS: usize = 3;

/// What was planned, and what came of it.
#[derive(Debug, Default)]
pub struct RebalanceTally {
    /// Plans that were made.
    pub plans: AtomicU64,
    /// Connections that belonged elsewhere by them.
    pub planned: AtomicU64,
    /// Those that were sent there. Others ended by themselves, or another plan came.
    pub moved: AtomicU64,
}

/// How a node rebalances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebalanceSettings {
    /// Of the cluster's ring.
    pub hash: RingHash,
    /// How many shares of the clients the node is to have.
    pub weight: u32,
    /// How many of a hundred of the node's connections are sent away in a second.
    pub rate: u32,
}

/// The task.
pub struct Rebalancer(JoinHandle<()>);

impl Rebalancer {
    /// Starts it for a node that is registered.
    pub fn start(
        node: &Arc<Node>,
        registry: &Arc<dyn Registry>,
        settings: RebalanceSettings,
        tally: &Arc<RebalanceTally>,
    ) -> Self {
        let rebalancing = Rebalancing {
            node: Arc::clone(node),
            views: registry.view(),
            settings,
            tally: Arc::clone(tally),
            chance: RandomState::new(),
        };
        Rebalancer(tokio::spawn(rebalancing.run()))
    }

    /// Ends it, whatever it is about.
    pub async fn stop(self) {
        self.0.abort();
        // It ends by being aborted, which is what its handle says.
        let _ = self.0.await;
    }
}

/// The task's own memory.
struct Rebalancing {
    node: Arc<Node>,
    views: watch::Receiver<SharedView>,
    settings: RebalanceSettings,
    tally: Arc<RebalanceTally>,
    /// Differs at each start of each node.
    chance: RandomState,
}

impl Rebalancing {
    async fn run(self) {
        let mut settled = self.settled().await;
        loop {
            self.change_from(&settled).await;
            let ring = self.settled().await;
            if ring == settled {
                continue;
            }
            let mut plan = Arc::new(Plan::new(self.node.id().name.as_str(), settled, ring));
            loop {
                let has_changed = tokio::select! {
                    biased;
                    () = self.change_from(plan.target()) => true,
                    () = self.carry_out(&plan) => false,
                };
                if !has_changed {
                    break;
                }
                let ring = self.settled().await;
                plan = Arc::new(Plan::clone(&plan).followed_by(ring));
            }
            settled = plan.target().clone();
        }
    }

    /// This node's place among those that take clients.
    fn own(&self) -> Option<(&str, u32)> {
        let takes_clients = !self.node.is_draining();
        takes_clients.then(|| (self.node.id().name.as_str(), self.settings.weight))
    }

    fn ring(&self) -> Ring {
        self.views.borrow().ring(self.settings.hash, self.own())
    }

    /// Waits until the ring is another one.
    async fn change_from(&self, ring: &Ring) {
        let mut views = self.views.clone();
        while views.borrow_and_update().is_on(ring, self.own()) {
            if views.changed().await.is_err() {
                // Nobody tells any more, so the last word stands.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The ring, once it has been the same for a while.
    async fn settled(&self) -> Ring {
        loop {
            let ring = self.ring();
            let pause = SETTLED + JITTER.mul_f64(self.chance(&Instant::now()));
            tokio::select! {
                biased;
                () = self.change_from(&ring) => {}
                () = sleep(pause) => {
                    tracing::info!(nodes = ring.nodes().len(), "The ring is settled.");
                    return ring;
                }
            }
        }
    }

    /// Between 0 and 1.
    fn chance(&self, seed: &impl std::hash::Hash) -> f64 {
        self.chance.hash_one(seed) as f64 / u64::MAX as f64
    }

    /// Sends away whom a plan names, until none is left.
    async fn carry_out(&self, plan: &Arc<Plan>) {
        self.tally.plans.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let (mut moved, mut looks) = (0, 0);
        loop {
            let these = self.find(plan).await;
            if these.is_empty() {
                break;
            }
            if looks == LOOKS {
                tracing::warn!(
                    connections = these.len(),
                    "Clients whose owner is another node come back here; they are left. Do all gateways follow this cluster's registry, with its ring?"
                );
                break;
            }
            looks += 1;
            moved += self.send(these).await;
            sleep(LOOK_AGAIN).await;
        }
        if moved > 0 {
            tracing::info!(moved, took = ?began.elapsed(), "The clients whose owner is another node now have been sent there.");
        }
    }

    /// The connections that are to go, in no order.
    async fn find(&self, plan: &Arc<Plan>) -> Vec<Address> {
        let goes = {
            let plan = Arc::clone(plan);
            move |session: &Session| session.user().is_some_and(|user| plan.destination(user).is_some())
        };
        loop {
            if let Ok(mut these) = self.node.to_be_sent_away(goes.clone()).await {
                these.sort_by_cached_key(|address| self.chance.hash_one(address));
                return these;
            }
            // A shard is too busy for it.
            sleep(STEP).await;
        }
    }

    /// Sends connections away at the pace that is set. Returns how many were still there.
    async fn send(&self, mut these: Vec<Address>) -> usize {
        let all = self.node.counters().connections;
        self.tally.planned.fetch_add(these.len() as u64, Ordering::Relaxed);
        tracing::info!(
            connections = these.len(),
            all,
            "The ring has changed: clients are sent to the nodes that own them now."
        );
        let mut pace = Pace::new(all, self.settings.rate);
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut moved, mut last) = (0, Instant::now());
        while !these.is_empty() {
            let now = steps.tick().await;
            if !self.may_send() {
                last = now;
                continue;
            }
            let due = pace.due(now - last, self.chance(&now));
            last = now;
            let next = these.split_off(these.len().saturating_sub(due));
            match self.node.send_these_away(&next).await {
                Ok(sent) => {
                    moved += sent;
                    self.tally.moved.fetch_add(sent as u64, Ordering::Relaxed);
                }
                // A shard is too busy for it; the next look finds them.
                Err(_) => sleep(STEP).await,
            }
        }
        moved
    }

    /// Whether anybody is sent anywhere now: not from a node that is being emptied, which sends all, and not while a member of the
    /// cluster wants them elsewhere.
    fn may_send(&self) -> bool {
        let own = self.node.registration().placement;
        !self.node.is_draining() && differing(&own, &self.views.borrow().members).next().is_none()
    }
}
