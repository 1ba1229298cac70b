//! [`Follower`]: the task that tells the registry of this node and follows what it shows: where nodes are that a mesh has no
//! link to, origins of the members' pages, and who has this node's name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_backends::MeshBroker;
use tieline_core::registry::{Registry, View};
use tieline_core::{Cluster, Node};
use tieline_proto::{Incarnation, NodeName};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Membership;
use super::addresses::{is_elsewhere, is_local};
use super::agreement::{Expelled, PlacementDiffers, differing};
use crate::admission::MemberOrigins;

/// How often the other nodes are looked at, and the registry is told of this one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For so long after its start a node gives way to one that has had its name before, where only beats tell of it. Behind that the
/// younger one stays.
const PROBATION: Duration = Duration::from_secs(2);

/// After so long the entry of a node that is dead is gone: its lease, and the time that a server is given after an outage.
const FORGOTTEN: Duration = Duration::from_secs(35);

/// For so long after its start a node ends if a registry alone shows one that was there before it and has another placement. Later
/// on only what nodes say over their broker ends a node: whoever may write to a registry's server may write anything.
const AGREEMENT: Duration = Duration::from_secs(15);

/// Why a node may not go on under its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameLost {
    /// It has just been started, and another one that lives has the name.
    #[error("another node is called `{name}` and answers{}: names must differ, give another one by `--node`", at(.url))]
    InUse {
        /// The name.
        name: NodeName,
        /// Where the other one's clients connect.
        url: String,
    },
    /// It has been away, and another one was started under the name.
    #[error(
        "a node that was started later is called `{name}`, too, and has taken this one's place{}: names must differ", at(.url)
    )]
    Replaced {
        /// The name.
        name: NodeName,
        /// Where the other one's clients connect.
        url: String,
    },
}

fn at(url: &str) -> String {
    if url.is_empty() { String::new() } else { format!(" at {url}") }
}

/// The task.
pub(super) struct Follower {
    task: JoinHandle<()>,
    lost: watch::Receiver<Option<Expelled>>,
}

impl Follower {
    /// Starts it for a membership.
    pub(super) fn start(membership: &Membership) -> Self {
        let (lost, receiver) = watch::channel(None);
        let following = Following {
            node: Arc::clone(&membership.node),
            cluster: membership.cluster.as_ref().map(|(cluster, _)| Arc::clone(cluster)),
            mesh: membership.mesh.clone(),
            registry: Arc::clone(&membership.registry),
            is_apart: membership.is_apart,
            members: Arc::clone(&membership.members),
            former: membership.former,
            since: Instant::now(),
            lost,
            has_warned_of_address: false,
            has_warned_of_placement: false,
            strange: 0,
        };
        Follower { task: tokio::spawn(following.run()), lost: receiver }
    }

    /// Waits until the node may not go on.
    pub(super) async fn expelled(&self) -> Expelled {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await.map(|lost| lost.clone()) {
            Ok(Some(lost)) => lost,
            // It has been stopped, and looks for nothing any more.
            _ => std::future::pending().await,
        }
    }

    /// Ends it. What it told the registry stays.
    pub(super) async fn stop(self) {
        self.task.abort();
        // It ends by being aborted, which is what its handle says.
        let _ = self.task.await;
    }
}

/// The task's own memory.
struct Following {
    node: Arc<Node>,
    cluster: Option<Arc<Cluster>>,
    mesh: Option<Arc<MeshBroker>>,
    registry: Arc<dyn Registry>,
    is_apart: bool,
    members: Arc<MemberOrigins>,
    /// A start of a node of this name that did not answer. Where the machine's clock was set back it counts as the younger.
    former: Option<Incarnation>,
    since: Instant,
    lost: watch::Sender<Option<Expelled>>,
    has_warned_of_address: bool,
    has_warned_of_placement: bool,
    /// How many strange entries were told of.
    strange: usize,
}

impl Following {
    async fn run(mut self) {
        let mut views = self.registry.view();
        let mut due = interval(LOOK_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = due.tick() => {
                    if self.is_apart {
                        self.registry.register(self.node.registration());
                    }
                    if let Some(cluster) = &self.cluster {
                        let peers = cluster.peers();
                        self.members.note(peers.iter().map(|peer| &*peer.client_url), Instant::now());
                    }
                }
                Ok(()) = views.changed() => {}
            }
            let view = Arc::clone(&views.borrow_and_update());
            self.look_at_name(&view);
            self.look_at_placement(&view);
            if self.is_apart {
                self.meet(&view);
                self.warn(&view);
            }
        }
    }

    /// Has the mesh dial who is registered. One that was out of reach for too long is dialled no more until this is asked again.
    fn meet(&self, view: &View) {
        let Some(mesh) = &self.mesh else { return };
        for member in &view.members {
            let Some(address) = member.registration.peer_url.strip_prefix("mesh://") else { continue };
            // Of a node that was written down nobody knows which start of it lives.
            let start = Some(member.id.incarnation).filter(|incarnation| *incarnation != Incarnation(0));
            if let Err(error) = mesh.meet(address, start) {
                tracing::debug!(node = %member.id, %error, "A node is registered with an address that cannot be dialled.");
            }
        }
    }

    fn look_at_name(&self, view: &View) {
        let Some(other) = &view.namesake else { return };
        if self.former == Some(other.id.incarnation) && self.since.elapsed() < FORGOTTEN {
            return;
        }
        let (name, url) = (other.id.name.clone(), other.registration.client_url.clone());
        let lost = if other.id.incarnation > self.node.id().incarnation {
            NameLost::Replaced { name, url }
        } else if !self.is_apart && self.since.elapsed() < PROBATION {
            NameLost::InUse { name, url }
        } else {
            // The other one finds this one, and gives way.
            return;
        };
        self.expel(lost.into());
    }

    /// Of two nodes with different placements the one that was started later ends.
    fn look_at_placement(&mut self, view: &View) {
        let own = self.node.registration().placement;
        let peers = self.cluster.as_ref().map(|cluster| cluster.peers()).unwrap_or_default();
        let is_new = self.since.elapsed() < AGREEMENT;
        let registered = differing(&own, &view.members).map(|differs| (differs, is_new));
        let all = differing(&own, &peers).map(|differs| (differs, true)).chain(registered);
        for (differs, counts) in all.collect::<Vec<(PlacementDiffers, bool)>>() {
            if counts && differs.other.incarnation < self.node.id().incarnation {
                self.expel(differs.into());
            } else if !std::mem::replace(&mut self.has_warned_of_placement, true) {
                tracing::warn!("Nobody is sent elsewhere meanwhile: {differs}.");
            }
        }
    }

    fn expel(&self, why: Expelled) {
        self.lost.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                *told = Some(why);
            }
            is_first
        });
    }

    /// Tells operators of what only they can mend.
    fn warn(&mut self, view: &View) {
        if view.strange > self.strange {
            tracing::warn!(
                entries = view.strange,
                "There are entries in the registry that no node of this cluster wrote; they are passed over."
            );
        }
        self.strange = view.strange;
        let own = self.node.registration().client_url;
        let elsewhere = view.members.iter().find(|member| is_elsewhere(member));
        if let Some(other) = elsewhere.filter(|_| is_local(&own))
            && !std::mem::replace(&mut self.has_warned_of_address, true)
        {
            tracing::warn!(
                own,
                other = other.registration.client_url,
                "Clients elsewhere cannot reach this node under the address that they are told: give the right one by `--client-url`."
            );
        }
    }
}
