//! Joining the cluster: the broker and the registry that the configuration names, and this node above them.
//!
//! The order matters. First the registry is looked at: a node whose name is in use does not begin to be a member. Then the
//! broker, whose address for other nodes is known when it is bound. The node registers last, by [`Membership::announce`], when
//! it can be connected to.

use std::net::SocketAddr;
use std::sync::Arc;

use tieline_backends::{MeshBroker, TableDirectory};
use tieline_core::directory::Choice;
use tieline_core::registry::{Registration, Registry};
use tieline_core::ring::Placement;
use tieline_core::{Cluster, ClusterSettings, ClusterTask, Node};
use tieline_proto::Incarnation;

use crate::admission::MemberOrigins;
use crate::broker::{BrokerStartError, BrokerUrl, Started};
use crate::config::{Rebalance, Settings};
use crate::directory::{DirectoryOpenError, DirectoryUrl};
use crate::rebalance::{RebalanceSettings, RebalanceTally, Rebalancer};
use crate::registry::RegistryOpenError;
use addresses::Surroundings;
use follower::Follower;

mod addresses;
mod agreement;
mod challenge;
mod follower;

pub use addresses::{AddressError, authority, client_url};
pub(crate) use agreement::differing;
pub use agreement::{Expelled, PlacementDiffers};
pub use follower::NameLost;

/// Why a node could not become a member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The broker does not start.
    #[error(transparent)]
    Broker(#[from] BrokerStartError),
    /// The registry cannot be used.
    #[error("the registry: {0}")]
    Registry(#[from] RegistryOpenError),
    /// The directory cannot be used.
    #[error("the directory: {0}")]
    Directory(#[from] DirectoryOpenError),
    /// A node alone has no use for it.
    #[error(
        "`--directory {0}` says where the users of a cluster are, and this node is in none: name a `--broker` too, or leave it out"
    )]
    DirectoryAlone(DirectoryUrl),
    /// What others would be told of this node leads nowhere.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Another node has the name.
    #[error(transparent)]
    Name(#[from] NameLost),
    /// The nodes of the cluster agree on another placement.
    #[error(transparent)]
    Placement(#[from] PlacementDiffers),
}

/// A node's membership, to be ended before its shards are.
pub struct Membership {
    node: Arc<Node>,
    /// None where the node is alone, and only registered.
    cluster: Option<(Arc<Cluster>, ClusterTask)>,
    mesh: Option<Arc<MeshBroker>>,
    /// What serves the directory, where it is on a server.
    directory: Option<TableDirectory>,
    /// What places connections; the beats themselves where no other registry is named.
    registry: Arc<dyn Registry>,
    /// Whether that is a registry of its own, which somebody has to tell of this node.
    is_apart: bool,
    members: Arc<MemberOrigins>,
    /// A start of a node of this name that was registered and did not answer.
    former: Option<Incarnation>,
    follower: Option<Follower>,
    /// How connections are sent to where they belong; none where they stay.
    rebalance: Option<RebalanceSettings>,
    rebalancer: Option<Rebalancer>,
    /// Where the other nodes connect, if they do.
    pub peers: Option<SocketAddr>,
}

impl Membership {
    /// Joins the cluster, if the configuration names a broker or a registry. `client_url` is where this node's clients
    /// connect, and `members` learns where those of the other nodes do.
    ///
    /// # Errors
    /// When the configuration is not enough for the broker or the registry, an address cannot be bound, a server cannot be used,
    /// or another node has this one's name and answers.
    pub async fn begin(
        settings: &Settings,
        node: &Arc<Node>,
        client_url: Option<String>,
        members: &Arc<MemberOrigins>,
    ) -> Result<Option<Membership>, MembershipError> {
        let server = &settings.server;
        let registry = server.registry.open(&server.cluster, Some(node.id())).await?;
        let mut registration = Registration {
            // An empty address stands for none between nodes.
            client_url: client_url.clone().unwrap_or_default(),
            weight: server.registry.weight(&node.id().name).unwrap_or(server.weight),
            capacity: settings.limits.connections as u64,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            placement: server.placement.to_string(),
            ..Registration::default()
        };
        let mut former = None;
        let surroundings = Surroundings::of(&server.registry, registry.as_ref());
        if let Some(registry) = &registry {
            surroundings.check_clients(client_url.as_deref(), server.listen)?;
            let namesake = registry.view().borrow().namesake.clone();
            if let Some(holder) = namesake {
                former = Some(holder.id.incarnation);
                challenge::challenge(holder).await?;
            }
            agreement::check(server.placement.name(), &registry.view().borrow())?;
        }
        node.describe(registration.clone());
        if server.broker == BrokerUrl::Memory && server.directory != DirectoryUrl::Replicated {
            return Err(MembershipError::DirectoryAlone(server.directory.clone()));
        }
        let opening = server.directory.open(&server.cluster, node.id().incarnation);
        let (choice, directory) = opening.await?;
        let (cluster, started) = match &server.broker {
            BrokerUrl::Memory if registry.is_none() => return Ok(None),
            BrokerUrl::Memory => (None, None),
            broker => join(broker, settings, node, registry.clone(), choice).await?,
        };
        let (mesh, peers) = started.map_or((None, None), |started| (started.mesh, started.peers));
        if let Some(bound) = peers {
            let address = server.peer_advertise.clone().unwrap_or_else(|| bound.to_string());
            let is_apart = registry.is_some();
            let peer_url =
                if is_apart { surroundings.peer_url(&address) } else { Ok(addresses::peer_url(&address)) };
            match peer_url {
                Ok(peer_url) => registration.peer_url = peer_url,
                Err(error) => {
                    if let Some((_, task)) = cluster {
                        task.stop().await;
                    }
                    return Err(error.into());
                }
            }
            node.describe(registration);
        }
        let is_apart = registry.is_some();
        let own = |(cluster, _): &(Arc<Cluster>, ClusterTask)| Arc::clone(cluster.registry());
        let registry = registry.or_else(|| cluster.as_ref().map(own));
        let registry = registry.expect("a node without a broker and a registry is alone");
        tracing::info!(
            broker = server.broker.name(),
            registry = server.registry.name(),
            peers = peers.map(tracing::field::display),
            "The node is a member of the cluster."
        );
        let (node, members) = (Arc::clone(node), Arc::clone(members));
        let rebalance = match (server.placement, server.rebalance) {
            (Placement::Ring(hash), Rebalance::Gradually) => {
                let weight = node.registration().weight;
                Some(RebalanceSettings { hash, weight, rate: server.rebalance_rate })
            }
            (Placement::None, _) | (_, Rebalance::Never) => None,
        };
        Ok(Some(Membership {
            node,
            cluster,
            mesh,
            directory,
            registry,
            is_apart,
            members,
            former,
            follower: None,
            rebalance,
            rebalancer: None,
            peers,
        }))
    }

    /// Registers the node, which can be connected to from now on, and follows what the registry shows.
    pub fn announce(&mut self, tally: &Arc<RebalanceTally>) {
        self.follower = Some(Follower::start(self));
        let start = |settings| Rebalancer::start(&self.node, &self.registry, settings, tally);
        self.rebalancer = self.rebalance.map(start);
    }

    /// What places connections.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.registry
    }

    /// Waits until this node has to give way to another.
    pub async fn expelled(&self) -> Expelled {
        match &self.follower {
            Some(follower) => follower.expelled().await,
            None => std::future::pending().await,
        }
    }

    /// Says goodbye to the others.
    pub async fn end(self) {
        if let Some(rebalancer) = self.rebalancer {
            rebalancer.stop().await;
        }
        if let Some(follower) = self.follower {
            follower.stop().await;
        }
        if self.is_apart {
            self.registry.deregister().await;
        }
        if let Some((_, task)) = self.cluster {
            task.stop().await;
        }
        if let Some(directory) = self.directory {
            directory.close().await;
        }
    }
}

/// A cluster that was joined, and by what.
type Joined = (Option<(Arc<Cluster>, ClusterTask)>, Option<Started>);

/// Starts the broker, and makes a member of the node.
async fn join(
    broker: &BrokerUrl,
    settings: &Settings,
    node: &Arc<Node>,
    registry: Option<Arc<dyn Registry>>,
    directory: Choice,
) -> Result<Joined, MembershipError> {
    let mut kept = None;
    let place = &mut kept;
    let connect = async move |inbound| {
        let started = broker.start(&settings.server, node.id(), inbound).await?;
        let started = place.insert(started.expect("a node that joins has a broker"));
        Ok::<_, MembershipError>(Arc::clone(&started.broker))
    };
    let routing = settings.server.routing.into();
    let cluster_settings = ClusterSettings { routing, registry, directory, ..ClusterSettings::default() };
    let cluster = Cluster::start(Arc::clone(node), cluster_settings, connect).await?;
    Ok((Some(cluster), kept))
}
