//! Joining the cluster: the broker that the configuration names, and this node above it.

use std::net::SocketAddr;
use std::sync::Arc;

use tieline_backends::mesh::{MeshBroker, MeshError, MeshSettings, Secret};
use tieline_core::broker::Inbound;
use tieline_core::{Cluster, ClusterTask, ClusterTimes, Node, broker};

use crate::config::{Broker, Server};

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
    /// Where the other nodes connect.
    pub peers: SocketAddr,
}

impl Membership {
    /// Joins the cluster, if the configuration names a broker. `clients` is where this node's clients connect.
    ///
    /// # Errors
    /// When the configuration is not enough for the broker, or its address cannot be bound.
    pub async fn begin(
        server: &Server,
        node: &Arc<Node>,
        clients: SocketAddr,
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
        let client_url = server.client_url.clone().unwrap_or_else(|| format!("ws://{clients}"));
        let mut bound = listen;
        let connect = |inbound: Arc<dyn Inbound>| {
            let started = MeshBroker::start(settings, node.id().clone(), inbound);
            std::future::ready(started.map(|(mesh, address)| {
                bound = address;
                let mesh: Arc<dyn broker::Broker> = Arc::new(mesh);
                mesh
            }))
        };
        let (_, task) =
            Cluster::start(Arc::clone(node), ClusterTimes::default(), client_url, connect).await?;
        tracing::info!(peers = %bound, "The node is a member of the cluster.");
        Ok(Some(Membership { task, peers: bound }))
    }

    /// Says goodbye to the others.
    pub async fn end(self) {
        self.task.stop().await;
    }
}
