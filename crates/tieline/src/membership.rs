//! Joining the cluster: the broker that the configuration names, and this node above it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_backends::{
    MeshBroker, MeshError, MeshSettings, RedisAddress, RedisBroker, RedisError, RedisSettings, Secret,
};
use tieline_core::broker::Inbound;
use tieline_core::registry::Registration;
use tieline_core::{Cluster, ClusterSettings, ClusterTask, Node, broker};
use tieline_proto::NodeId;
use tokio::task::JoinHandle;

use crate::admission::MemberOrigins;
use crate::config::{Broker, Server};

/// How often the addresses of the other nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a node could not become a member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The others must be able to reach it.
    #[error("`--broker mesh://…` needs `--peer-listen ADDR`, where the other nodes connect")]
    NoPeerAddress,
    /// The mesh did not start.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The Redis server cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// A broker that carries, and where it listens for other nodes, if it does.
type Started = Result<(Arc<dyn broker::Broker>, Option<SocketAddr>), MembershipError>;

/// A node's membership, to be ended before its shards are.
pub struct Membership {
    task: ClusterTask,
    /// Keeps the origins of the members up to date.
    origins: JoinHandle<()>,
    /// Where the other nodes connect, if they do.
    pub peers: Option<SocketAddr>,
}

impl Membership {
    /// Joins the cluster, if the configuration names a broker. `client_url` is where this node's clients
    /// connect, and `members` learns where those of the other nodes do.
    ///
    /// # Errors
    /// When the configuration is not enough for the broker, its address cannot be bound, or its server cannot be used.
    pub async fn begin(
        server: &Server,
        node: &Arc<Node>,
        client_url: Option<String>,
        members: &Arc<MemberOrigins>,
    ) -> Result<Option<Membership>, MembershipError> {
        // An empty address stands for none between nodes.
        let settings = ClusterSettings {
            registration: Registration {
                client_url: client_url.unwrap_or_default(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Registration::default()
            },
            routing: server.routing.into(),
            ..ClusterSettings::default()
        };
        match &server.broker {
            Broker::Memory => Ok(None),
            Broker::Mesh(seeds) => {
                let start = |inbound| std::future::ready(mesh(server, seeds, node.id(), inbound));
                Self::join(node, settings, members, start).await.map(Some)
            }
            Broker::Redis(address) => {
                let start = |inbound| redis(server, address, node.id(), inbound);
                Self::join(node, settings, members, start).await.map(Some)
            }
        }
    }

    async fn join<F: Future<Output = Started>>(
        node: &Arc<Node>,
        settings: ClusterSettings,
        members: &Arc<MemberOrigins>,
        start: impl FnOnce(Arc<dyn Inbound>) -> F,
    ) -> Result<Membership, MembershipError> {
        let mut peers = None;
        let bound = &mut peers;
        let connect = move |inbound| {
            let starting = start(inbound);
            async move {
                let broker;
                (broker, *bound) = starting.await?;
                Ok::<_, MembershipError>(broker)
            }
        };
        let (cluster, task) = Cluster::start(Arc::clone(node), settings, connect).await?;
        let origins = tokio::spawn(note_origins(cluster, Arc::clone(members)));
        tracing::info!(peers = peers.map(tracing::field::display), "The node is a member of the cluster.");
        Ok(Membership { task, origins, peers })
    }

    /// Says goodbye to the others.
    pub async fn end(self) {
        self.origins.abort();
        // It ends by being aborted, which is what its handle says.
        let _ = self.origins.await;
        self.task.stop().await;
    }
}

fn mesh(server: &Server, seeds: &[String], node: &NodeId, inbound: Arc<dyn Inbound>) -> Started {
    let listen = server.peer_listen.ok_or(MembershipError::NoPeerAddress)?;
    let secret = server.cluster_secret.as_ref().map(|secret| Secret::new(&secret.0)).transpose()?;
    let settings = MeshSettings {
        seeds: seeds.to_vec(),
        advertise: server.peer_advertise.clone(),
        secret,
        ..MeshSettings::new(&server.cluster, listen)
    };
    let (mesh, bound) = MeshBroker::start(settings, node.clone(), inbound)?;
    Ok((Arc::new(mesh), Some(bound)))
}

async fn redis(server: &Server, address: &RedisAddress, node: &NodeId, inbound: Arc<dyn Inbound>) -> Started {
    let settings = RedisSettings::new(&server.cluster, address.clone());
    let redis = RedisBroker::start(settings, node, inbound).await?;
    Ok((Arc::new(redis), None))
}

/// Where clients reach a node that listens for them on `clients`: as configured, or there. Nobody knows where that is when it
/// listens on all addresses of its machine.
pub fn client_url(server: &Server, clients: SocketAddr) -> Option<String> {
    let own = || (!clients.ip().is_unspecified()).then(|| format!("ws://{clients}"));
    server.client_url.clone().or_else(own)
}

/// Host and port by which this node is known to others than its clients.
pub fn authority(client_url: Option<&str>, clients: SocketAddr) -> String {
    let host = client_url.and_then(|url| url.split_once("://")).map(|(_, host)| host.to_owned());
    host.unwrap_or_else(|| clients.to_string())
}

async fn note_origins(cluster: Arc<Cluster>, members: Arc<MemberOrigins>) {
    let mut due = tokio::time::interval(LOOK_EVERY);
    loop {
        due.tick().await;
        let peers = cluster.peers();
        members.note(peers.iter().map(|peer| &*peer.client_url), Instant::now());
    }
}
