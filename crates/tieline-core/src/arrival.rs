//! What a handshake learned about a client: the edge says it, the shard acts on it.

use std::sync::Arc;

use tieline_proto::presence::Details;
use tieline_proto::role::Roles;
use tieline_proto::{CloseCode, ConnectionId, GroupName, HubName, UserId};

use crate::Subprotocol;
use crate::events::Reservation;

/// A client whose handshake is done.
#[derive(Debug)]
pub enum Arrival {
    /// A new connection.
    Client(Box<Client>),
    /// A client of the reliable protocol that wants its cut connection back. Only its reconnection token counts:
    /// the access token in its URL may have expired.
    Recovery {
        /// The hub it asks for, which must be the connection's.
        hub: HubName,
        /// The connection it had.
        id: ConnectionId,
        /// What it was told when it connected.
        token: String,
    },
    /// A client whose connection cannot be had, at least now; the code tells it which.
    Refused(CloseCode),
}

/// Who a new connection is and what it may do, as its token says, or the application.
#[derive(Debug)]
pub struct Client {
    /// The namespace it asked for.
    pub hub: HubName,
    /// The user, if it is anybody.
    pub user: Option<UserId>,
    /// What it may do.
    pub roles: Arc<Roles>,
    /// Groups that it joins at once.
    pub groups: Vec<GroupName>,
    /// What it speaks.
    pub subprotocol: Subprotocol,
    /// When its token expires, in Unix seconds. A connection of `tieline.v1`, which can renew its token, is closed
    /// then; on the other protocols the token only opens the door.
    pub expires: Option<u64>,
    /// The place that was kept for it while the application decided on it. Its shard must get the connection.
    pub place: Option<Reservation>,
    /// Which of its user's devices it is, where each has its own place in the inbox. Of 1 to 256 bytes.
    pub device: Option<Box<str>>,
    /// What others see of it where it is told who is present.
    pub details: Option<Details>,
    /// The connection that its client had before and that this one replaces: one of the same user, which is closed when this one
    /// is connected.
    pub replaces: Option<ConnectionId>,
}
