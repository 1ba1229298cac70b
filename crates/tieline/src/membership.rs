//! Joining the cluster: the broker that the configuration names, and this node above it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_backends::mesh::{MeshBroker, MeshError, MeshSettings, Secret};
use tieline_core::broker::Inbound;
use tieline_core::{Cluster, ClusterTask, ClusterTimes, Node, broker};
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
}

/// A node's membership, to be ended before its shards are.
pub struct Membership {
    task: ClusterTask,
    /// Keeps the origins of the members up to date.
    origins: JoinHandle<()>,
    /// Where the other nodes connect.
    pub peers: SocketAddr,
}

impl Membership {
    /// Joins the cluster, if the configuration names a broker. `client_url` is where this node's clients
    /// connect, and `members` learns where those of the other nodes do.
    ///
    /// # Errors
    /// When the configuration is not enough for the broker, or its address cannot be bound.
    pub async fn begin(
        server: &Server,
        node: &Arc<Node>,
        client_url: Option<String>,
        members: &Arc<MemberOrigins>,
    ) -> Result<Option<Membership>, MembershipError> {
        let Broker::Mesh(seeds) = &server.broker else { return Ok(None) };
        let listen = server.peer_listen.ok_or(MembershipError::NoPeerAddress)?;
        let secret = server.cluster_secret.as_ref().map(|secret| Secret::new(&secret.0)).transpose()?;
        let settings = MeshSettings {
            seeds: seeds.clone(),
            advertise: server.peer_advertise.clone(),
            secret,
            ..MeshSettings::new(&server.cluster, listen)
        };
        let mut bound = listen;
        let connect = |inbound: Arc<dyn Inbound>| {
            let started = MeshBroker::start(settings, node.id().clone(), inbound);
            std::future::ready(started.map(|(mesh, address)| {
                bound = address;
                let mesh: Arc<dyn broker::Broker> = Arc::new(mesh);
                mesh
            }))
        };
        // An empty address stands for none between nodes.
        let client_url = client_url.unwrap_or_default();
        let (cluster, task) =
            Cluster::start(Arc::clone(node), ClusterTimes::default(), client_url, connect).await?;
        let origins = tokio::spawn(note_origins(cluster, Arc::clone(members)));
        tracing::info!(peers = %bound, "The node is a member of the cluster.");
        Ok(Some(Membership { task, origins, peers: bound }))
    }

    /// Says goodbye to the others.
    pub async fn end(self) {
        self.origins.abort();
        // It ends by being aborted, which is what its handle says.
        let _ = self.origins.await;
        self.task.stop().await;
    }
}

/// Where clients reach a node that listens for them on `clients`: as configured, or there. Nobody knows where that is when it
/// listens on all addresses of its machine.
pub fn client_url(server: &Server, clients: SocketAddr) -> Option<String> {
    let own = || (!clients.ip().is_unspecified()).then(|| format!("ws://{clients}"));
    server.client_url.clone().or_else(own)
}

async fn note_origins(cluster: Arc<Cluster>, members: Arc<MemberOrigins>) {
    let mut due = tokio::time::interval(LOOK_EVERY);
    loop {
        due.tick().await;
        let peers = cluster.peers();
        members.note(peers.iter().map(|peer| &*peer.client_url), Instant::now());
    }
}
