//! [`Peers`]: the other nodes as everybody sees them, made anew by the cluster's task at each change.

use std::time::Instant;

use tieline_proto::{Incarnation, NodeId};

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: NodeId,
    /// Where its clients reach it.
    pub client_url: String,
    /// Its connections, as of its last sign of life.
    pub connections: u64,
    /// Since when the broker has no way to it; none where it has one.
    pub lost: Option<Instant>,
    /// Whether all that it holds is known here.
    pub complete: bool,
}

impl Peer {
    /// Whether the broker has a way to it now.
    pub fn is_reached(&self) -> bool {
        self.lost.is_none()
    }
}

/// The nodes whose lease runs, this one not among them.
#[derive(Debug, Default)]
pub(crate) struct Peers(Vec<Peer>);

impl Peers {
    pub(crate) fn new(peers: Vec<Peer>) -> Self {
        Peers(peers)
    }

    pub(crate) fn all(&self) -> &[Peer] {
        &self.0
    }

    /// Whether nobody else is there.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all that the others hold is known.
    pub(crate) fn complete(&self) -> bool {
        self.0.iter().all(|peer| peer.complete)
    }

    /// Those of which it is not.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = Incarnation> {
        self.0.iter().filter(|peer| !peer.complete).map(|peer| peer.id.incarnation)
    }

    pub(crate) fn is_reached(&self, node: Incarnation) -> bool {
        self.0.iter().any(|peer| peer.id.incarnation == node && peer.is_reached())
    }
}
