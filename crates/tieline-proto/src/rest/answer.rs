//! What the REST API answers.

use serde::{Deserialize, Serialize};

use crate::{
    error::ErrorCode,
    id::{ConnectionId, Incarnation, NodeName},
};

/// An error. `code` stands in the header `x-ms-error-code` as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The name from the table.
    pub code: String,
    /// A sentence; the official libraries show it to the application.
    pub message: String,
    /// The parameter or member at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Several errors at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<ErrorBody>,
    /// A more exact code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<InnerError>,
}

/// A more exact code of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerError {
    /// The code.
    pub code: String,
    /// A still more exact one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<InnerError>>,
}

impl ErrorBody {
    /// An error with a sentence of its own.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
        ErrorBody {
            code: code.name().into(),
            message: message.into(),
            target: None,
            details: Vec::new(),
            inner: None,
        }
    }

    /// Says which parameter or member is at fault.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<String>) -> ErrorBody {
        self.target = Some(target.into());
        self
    }
}

/// An error with the table's own sentence.
impl From<ErrorCode> for ErrorBody {
    fn from(code: ErrorCode) -> ErrorBody {
        ErrorBody::new(code, code.text())
    }
}

/// One page of a group's connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionsPage {
    /// The connections.
    pub value: Vec<ConnectionItem>,
    /// Where the next page is: an absolute URL, which clients request exactly as it stands. None on the last
    /// page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_link: Option<String>,
}

/// One connection of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionItem {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// The answer of `:generateToken`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token.
    pub token: String,
}

/// The nodes of the cluster, as the answering node sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesPage {
    /// The nodes, by name.
    pub nodes: Vec<NodeItem>,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeItem {
    /// Its stable name.
    pub name: NodeName,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// How it is.
    pub state: NodeState,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// The program's version; absent while not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where clients reach it; absent while not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_url: Option<String>,
    /// How many connections it holds, as it last said; absent while not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// How many shares of the clients it is to have; absent while not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// How many connections it may hold; absent where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Whether the operators of the registry let it have new clients; absent where nobody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long ago it was last heard of, in milliseconds; 0 for the node that answers.
    pub silent_ms: u64,
}

/// How a node is, as another sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    /// It serves.
    Alive,
    /// It serves, but moves its connections elsewhere and takes no new ones.
    Draining,
    /// The node that answers cannot reach it, and still believes it to hold what it held.
    Unreachable,
}
