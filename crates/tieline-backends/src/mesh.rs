//! The mesh: nodes that are WebSocket clients of each other, with nothing beside them.
//!
//! A node listens for peers, and dials its seeds. Peers prove to each other that they know the cluster's secret, then tell
//! each other of the members they know, and dial those. Between two nodes there is **one link**, whoever dialled it
//! (`peers.rs` says why, and how two become one). An envelope is a binary frame; it goes over one link and no further, so
//! nothing can circulate.
//!
//! ```text
//! listener ─┐                       ┌─ reader → Inbound
//!           ├→ handshake → peers → link
//! dial ─────┘                       └─ queue → writer
//! ```
//!
//! A slow or dead peer fills its own queue and delays nobody. Tested by the conformance suite of brokers, and by
//! `tests/` with real sockets, good peers and strangers.

mod dial;
mod handshake;
mod link;
mod listener;
mod peers;
mod proof;
mod refusal;
mod settings;
mod tasks;
mod upgrade;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tieline_core::broker::{Broker, BrokerStats, Inbound, NotTaken, To};
use tieline_proto::{Incarnation, NodeId};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{interval, timeout};

pub use refusal::Refusal;
pub use settings::{MAX_ENVELOPE, MeshSettings, Secret, parse_seeds};

use crate::life::Life;
use dial::{Targets, Wish, want};
use link::Link;
use peers::Peers;
use proof::Prover;
use refusal::Refusals;
use tasks::Tasks;
use words::{Hello, Member, Nonce, VERSION, Word};

/// How long what was taken may take to reach the network when the mesh stops.
const FLUSH: Duration = Duration::from_secs(1);

/// The most members that one peer is believed to know.
const MAX_MEMBERS: usize = 1024;

/// Why a mesh does not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The URL has another scheme.
    #[error("the address of a mesh begins with `mesh://`")]
    Url,
    /// A seed, or the advertised address, is not an address.
    #[error("`{0}` is not `host:port`")]
    Address(String),
    /// The secret is empty.
    #[error("the cluster secret must not be empty")]
    EmptySecret,
    /// The cluster's name is empty, or too long for a first word.
    #[error("a cluster's name has 1 to 256 bytes")]
    Cluster,
    /// There is no runtime of tokio here to run the mesh.
    #[error("a mesh must be started within a tokio runtime")]
    Runtime,
    /// The address cannot be listened on.
    #[error("cannot listen for peers on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
}

/// What all tasks of a mesh share.
struct Mesh {
    settings: MeshSettings,
    /// This node.
    node: NodeId,
    /// What hears of envelopes and peers.
    inbound: Arc<dyn Inbound>,
    /// `host:port` for the others' first words.
    address: String,
    /// Makes and checks proofs.
    prover: Prover,
    /// The links.
    peers: Peers,
    /// The addresses that are dialled.
    targets: Targets,
    /// All tasks.
    tasks: Tasks,
    /// Refusals by reason.
    refusals: Refusals,
    /// Envelopes that a full queue refused, once per peer.
    overflows: AtomicU64,
    /// The last number this node gave to a link; the first is one.
    numbers: AtomicU64,
    /// How far the mesh has come to its end.
    life: Life,
}

impl Mesh {
    /// This node's first word.
    fn hello(&self) -> io::Result<Hello> {
        let mut nonce: Nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        Ok(Hello {
            version: VERSION,
            cluster: self.settings.cluster.clone(),
            node: self.node.clone(),
            address: self.address.clone(),
            nonce,
        })
    }

    /// A number for a link that this node chooses.
    fn next_link_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a link that did not come about.
    fn refused(&self, refusal: Refusal, address: &str) {
        if self.refusals.count(refusal) {
            tracing::warn!(address, reason = refusal.name(), "no link with a peer: {}", refusal.text());
        }
    }

    /// A link begins: exchange members, and come back to this one should the link break.
    fn met(self: &Arc<Self>, link: &Link) {
        self.share(link);
        want(self, &link.address, Wish::Learned(link.node.incarnation));
    }

    /// Tells a peer of all others.
    fn share(&self, link: &Link) {
        let mut members = Vec::new();
        self.peers.each(|other| {
            if other.node != link.node && members.len() < MAX_MEMBERS {
                members.push(Member { node: other.node.clone(), address: other.address.clone() });
            }
        });
        if !members.is_empty() {
            let text = Word::Members { members }.to_text();
            link.queue.say(|signs| signs.members = Some(text));
        }
    }

    /// Dials the members that a peer knows and this node does not.
    fn learn(self: &Arc<Self>, members: Vec<Member>) {
        for Member { node, address } in members.into_iter().take(MAX_MEMBERS) {
            let is_known = node.incarnation == self.node.incarnation
                || address == self.address
                || self.peers.get(node.incarnation).is_some();
            if !is_known && settings::check_address(&address).is_ok() {
                want(self, &address, Wish::Learned(node.incarnation));
            }
        }
    }

    /// Tells all peers of all others, again and again: a member that was out of reach for too long is learned anew.
    async fn share_often(self: Arc<Self>) {
        let mut due = interval(self.settings.share);
        loop {
            due.tick().await;
            let mut links = Vec::new();
            self.peers.each(|link| links.push(Arc::clone(link)));
            links.iter().for_each(|link| self.share(link));
        }
    }

    /// Waits for the end to begin, and brings it about.
    async fn end(self: Arc<Self>) {
        self.life.stopping().await;
        self.tasks.stop_seeking().await;
        if timeout(FLUSH, self.peers.all_gone()).await.is_err() {
            self.peers.each(|link| link.stop());
            // They only have to tell their end now.
            drop(timeout(FLUSH, self.peers.all_gone()).await);
        }
        self.tasks.stop_links().await;
        self.life.end();
    }
}

/// One peer as it is seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPeer {
    /// Who it is.
    pub node: NodeId,
    /// `host:port` where it is dialled.
    pub address: String,
    /// Bytes that wait to be written to it, with what each envelope costs beside its own.
    pub queued: usize,
    /// Envelopes that came over the present link.
    pub received: u64,
}

/// A node's part in a mesh, and the engine of `mesh://`. It stops when it is dropped.
pub struct MeshBroker(Arc<Mesh>);

impl MeshBroker {
    /// Listens, dials the seeds, and says where it listens. `inbound` hears of peers from now on, from tasks of the runtime
    /// this is called in.
    ///
    /// # Errors
    /// When the address is taken, the settings are wrong, or there is no runtime.
    pub fn start(
        settings: MeshSettings,
        node: NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<(MeshBroker, SocketAddr), MeshError> {
        let runtime = Handle::try_current().map_err(|_| MeshError::Runtime)?;
        if settings.cluster.is_empty() || settings.cluster.len() > 256 {
            return Err(MeshError::Cluster);
        }
        settings
            .seeds
            .iter()
            .chain(&settings.advertise)
            .try_for_each(|address| settings::check_address(address))?;
        let listen = |address| {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let bound = listener.local_addr()?;
            io::Result::Ok((TcpListener::from_std(listener)?, bound))
        };
        let (listener, bound) =
            listen(settings.listen).map_err(|error| MeshError::Listen(settings.listen, error))?;
        let address = settings.advertise.clone().unwrap_or_else(|| bound.to_string());
        let mesh = Arc::new(Mesh {
            prover: Prover::new(settings.secret.as_ref()),
            settings,
            node,
            inbound,
            address,
            peers: Peers::new(),
            targets: Targets::default(),
            tasks: Tasks::new(runtime.clone()),
            refusals: Refusals::new(),
            overflows: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            life: Life::new(),
        });
        mesh.tasks.seek(listener::listen(Arc::clone(&mesh), listener));
        mesh.tasks.seek(Arc::clone(&mesh).share_often());
        for seed in mesh.settings.seeds.iter().filter(|seed| **seed != mesh.address) {
            want(&mesh, seed, Wish::Seed);
        }
        runtime.spawn(Arc::clone(&mesh).end());
        Ok((MeshBroker(mesh), bound))
    }

    /// Dials a node that a registry names, unless there is a link to it, or its address is dialled already: until it was out of
    /// reach for a while; for ever where nobody knows which start of it lives there.
    ///
    /// # Errors
    /// [`MeshError::Address`], when that is no address.
    pub fn meet(&self, address: &str, node: Option<Incarnation>) -> Result<(), MeshError> {
        settings::check_address(address)?;
        let mesh = &self.0;
        let is_linked = node.is_some_and(|node| mesh.peers.get(node).is_some());
        if address != mesh.address && !is_linked && mesh.life.is_running() {
            want(mesh, address, node.map_or(Wish::Seed, Wish::Learned));
        }
        Ok(())
    }

    /// The peers that there is a link with.
    pub fn peers(&self) -> Vec<MeshPeer> {
        let mut peers = Vec::new();
        self.0.peers.each(|link| {
            peers.push(MeshPeer {
                node: link.node.clone(),
                address: link.address.clone(),
                queued: link.queue.bytes(),
                received: link.received.load(Ordering::Relaxed),
            });
        });
        peers
    }

    /// How often a link was refused for this reason, by this node or by the other.
    pub fn refusals(&self, refusal: Refusal) -> u64 {
        self.0.refusals.get(refusal)
    }

    /// How many envelopes a full queue refused, counted once per peer.
    pub fn overflows(&self) -> u64 {
        self.0.overflows.load(Ordering::Relaxed)
    }

    /// Waits until everything has stopped after [`close`](Broker::close): at most about two seconds.
    pub async fn closed(&self) {
        self.0.life.stopped().await;
    }

    /// Gives an envelope to one link.
    fn push(&self, link: &Link, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let pushed = if envelope.len() > MAX_ENVELOPE {
            Err(NotTaken::Full)
        } else {
            link.queue.push(envelope.len(), Arc::clone(envelope))
        };
        if pushed == Err(NotTaken::Full) {
            self.0.overflows.fetch_add(1, Ordering::Relaxed);
        }
        pushed
    }
}

impl Broker for MeshBroker {
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        if !self.0.life.is_running() {
            return Err(NotTaken::Unreachable);
        }
        match to {
            To::One(peer) => self.send_one(peer, envelope),
            To::All => {
                let mut outcome = Ok(());
                self.0.peers.each(|link| {
                    if let Err(error) = self.push(link, envelope) {
                        outcome = Err(error);
                    }
                });
                outcome
            }
        }
    }

    fn stats(&self) -> BrokerStats {
        let mut queued_bytes = 0;
        self.0.peers.each(|link| queued_bytes += link.queue.bytes() as u64);
        let refused = Refusal::ALL.map(|refusal| (refusal.name(), self.refusals(refusal)));
        BrokerStats { queued_bytes, refused: refused.into(), strays: Vec::new() }
    }

    fn reports_peers(&self) -> bool {
        true
    }

    fn orders_channels(&self) -> bool {
        true
    }

    fn close(&self) {
        self.0.peers.close();
        self.0.life.stop();
        self.0.peers.each(|link| link.queue.finish());
    }
}

impl MeshBroker {
    /// Gives an envelope to one peer.
    fn send_one(&self, peer: Incarnation, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let link = self.0.peers.get(peer).ok_or(NotTaken::Unreachable)?;
        self.push(&link, envelope)
    }
}

impl Drop for MeshBroker {
    fn drop(&mut self) {
        self.close();
    }
}
