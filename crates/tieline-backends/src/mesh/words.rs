//! What nodes say to each other besides envelopes: JSON in text frames, where envelopes are binary frames.
//!
//! Members that a later version adds are ignored by an earlier one. Tested by the handshake's tests.

use serde::{Deserialize, Serialize};
use tieline_proto::NodeId;

/// The version of the peer protocol.
pub(super) const VERSION: u16 = 1;

/// The oldest version that is still spoken: the one before, once there is one.
pub(super) const OLDEST: u16 = 1;

/// Random bytes that a proof must contain, so that none can be used twice.
pub(super) type Nonce = [u8; 32];

/// A text frame between nodes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(super) enum Word {
    /// The first word of each side.
    Hello(Hello),
    /// The second word of each side.
    Proof {
        /// That the sender knows the secret, see [`super::proof`].
        proof: [u8; 32],
        /// The number of the last link between the two that is over for the sender; zero for none.
        lost: u64,
    },
    /// From the node that chooses: this link is the one between the two, and envelopes follow.
    Link {
        /// The chooser's number for it, rising.
        number: u64,
    },
    /// Whom the sender has a link with.
    Members {
        /// All of them but the receiver.
        members: Vec<Member>,
    },
}

impl Word {
    /// As the payload of a text frame.
    pub(super) fn to_text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("words have string keys alone")
    }

    /// From the payload of a frame; `None` for what this version does not understand.
    pub(super) fn from_text(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// Who a node says it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// See [`VERSION`].
    pub(super) version: u16,
    /// The cluster it belongs to.
    pub(super) cluster: String,
    /// Its name and incarnation.
    pub(super) node: NodeId,
    /// `host:port` where it is dialled. With an unspecified host it is the host that the receiver sees.
    pub(super) address: String,
    /// Fresh for this link.
    pub(super) nonce: Nonce,
}

/// A node that somebody knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Its name and incarnation.
    pub(super) node: NodeId,
    /// `host:port` where it is dialled.
    pub(super) address: String,
}
