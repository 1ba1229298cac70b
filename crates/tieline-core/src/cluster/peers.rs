//! [`Peers`]: the other nodes as everybody sees them, made anew by the cluster's task at each change.

use std::time::Instant;

use tieline_proto::{Incarnation, NodeId};

use crate::registry::{Neighbour, Standing};

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: NodeId,
    /// Where its clients reach it.
    pub client_url: String,
    /// Its connections, as of its last sign of life.
    pub connections: u64,
    /// Where it says that connections belong; empty where it does not say.
    pub placement: String,
    /// Since when the broker has no way to it; none where it has one.
    pub lost: Option<Instant>,
    /// Whether a third node reaches it, where this one does not: then it is believed to live as long as that lasts.
    pub is_vouched: bool,
    /// Whether all that it holds is known here.
    pub complete: bool,
    /// Whether it has another directory: its users are not in this node's.
    pub is_apart: bool,
    /// Whether that is of another kind, which somebody has to mend.
    pub has_other_directory: bool,
}

impl Peer {
    pub(crate) fn new(
        member: &Neighbour,
        complete: bool,
        [is_apart, has_other_directory]: [bool; 2],
    ) -> Self {
        let lost = match member.standing {
            Standing::Reached => None,
            Standing::Lost(since) | Standing::Vouched(since) => Some(since),
        };
        Peer {
            id: member.id.clone(),
            client_url: member.registration.client_url.clone(),
            connections: member.registration.connections,
            placement: member.registration.placement.clone(),
            lost,
            is_vouched: matches!(member.standing, Standing::Vouched(_)),
            complete,
            is_apart,
            has_other_directory,
        }
    }

    /// Whether the broker has a way to it now.
    pub fn is_reached(&self) -> bool {
        self.lost.is_none()
    }
}

/// The nodes whose lease runs, this one not among them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    all: Vec<Peer>,
    has_apart: bool,
}

impl Peers {
    pub(crate) fn new(peers: Vec<Peer>) -> Self {
        Peers { has_apart: peers.iter().any(|peer| peer.is_apart), all: peers }
    }

    pub(crate) fn all(&self) -> &[Peer] {
        &self.all
    }

    /// Whether nobody else is there.
    pub(crate) fn is_alone(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether all that the others hold is known.
    pub(crate) fn complete(&self) -> bool {
        self.all.iter().all(|peer| peer.complete)
    }

    /// Those of which it is not.
    pub(crate) fn incomplete(&self) -> impl Iterator<Item = Incarnation> {
        self.all.iter().filter(|peer| !peer.complete).map(|peer| peer.id.incarnation)
    }

    /// Those that have another directory.
    pub(crate) fn apart(&self) -> impl Iterator<Item = Incarnation> {
        let some: &[Peer] = if self.has_apart { &self.all } else { &[] };
        some.iter().filter(|peer| peer.is_apart).map(|peer| peer.id.incarnation)
    }

    /// The node of this incarnation.
    pub(crate) fn get(&self, node: Incarnation) -> Option<&Peer> {
        self.all.iter().find(|peer| peer.id.incarnation == node)
    }

    pub(crate) fn is_reached(&self, node: Incarnation) -> bool {
        self.get(node).is_some_and(Peer::is_reached)
    }
}
