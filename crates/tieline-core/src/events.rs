//! [`Events`]: what an application is told of connections and asked by their clients; and the place that is kept for a
//! connection while the application decides on it.
//!
//! The trait is called on shards' threads, so none of its calls waits: what goes to the application is handed on, and answers come
//! back as commands, through [`Node::reply`]. How the application is reached is not known here. Tested by the sessions' tests,
//! with an application in the same process, and over HTTP where that is implemented.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use tieline_proto::presence::Event;
use tieline_proto::{ConnectionId, ErrorCode, GroupName, HubName, MessageId, Payload, Position, UserId};
use tieline_switchboard::Address;

use crate::Subprotocol;
use crate::node::Node;
use crate::stamp::unix_ms;

/// The connection that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSource {
    /// Its hub.
    pub hub: HubName,
    /// Its id.
    pub connection: ConnectionId,
    /// Its user, if it is anybody.
    pub user: Option<UserId>,
    /// What it speaks.
    pub subprotocol: Subprotocol,
    /// What the application last said that it wants to be reminded of.
    pub state: Option<Arc<String>>,
}

/// A message that was stored for a user who was offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The hub.
    pub hub: HubName,
    /// For whom.
    pub user: UserId,
    /// The group, of a message to one that the user is a stored member of; none of a message to the user.
    pub group: Option<GroupName>,
    /// The message's id.
    pub message: MessageId,
    /// Its place in the group's log, or in the user's inbox.
    pub position: Position,
    /// Who sent it, when the sender has a user.
    pub from: Option<UserId>,
}

/// A user that has come or gone where it is told who is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appearance {
    /// The hub.
    pub hub: HubName,
    /// The group; none for the whole hub.
    pub group: Option<GroupName>,
    /// What happened.
    pub event: Event,
    /// Which visit of the user that begins or ends: when it began, in Unix milliseconds.
    pub visit: u64,
}

impl Appearance {
    /// What it is known by: the same whichever node tells it.
    #[must_use]
    pub fn id(&self) -> MessageId {
        let group = self.group.as_deref().unwrap_or_default();
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [self.hub.as_str(), group, &self.event.user, self.event.turn.name()] {
            context.update(part.as_bytes());
            // No text has such a byte.
            context.update(&[0xff]);
        }
        let hash = context.finish();
        let half = hash.as_ref().first_chunk().expect("SHA-256 has more than 16 bytes");
        MessageId::new(self.visit, u128::from_le_bytes(*half))
    }
}

/// How a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// By an `event` frame.
    Event {
        /// The ack that it wants.
        ack_id: Option<u64>,
    },
    /// By an `invoke` frame.
    Invoke {
        /// The client's number for the call.
        id: Box<str>,
    },
}

/// Where the answer to a user event goes: given back with it to [`Node::reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The connection.
    pub(crate) address: Address,
    /// How it asked.
    pub(crate) call: Call,
}

/// What a client has for the application. Its connection is not read on until it is answered, so each connection has one of
/// these at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// The connection.
    pub source: EventSource,
    /// The event's name, as the client wrote it.
    pub name: Box<str>,
    /// What it carries.
    pub data: Payload,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
}

/// What the application answers to a user event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAnswer {
    /// What it wants to be reminded of with later events of the connection; none to leave it as it is.
    pub state: Option<Arc<String>>,
    /// What goes back to the client, if anything, or why there is no answer.
    pub outcome: Result<Option<Payload>, EventFailure>,
}

/// Why a user event has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFailure {
    /// The row of the table of errors.
    pub code: ErrorCode,
    /// The sentence for the client.
    pub message: Box<str>,
}

/// The id of an event that happens now.
///
/// # Panics
/// When the system has no random bits to give.
#[must_use]
pub fn fresh_id() -> MessageId {
    let random = u128::from(crate::store::random()) << 64 | u128::from(crate::store::random());
    MessageId::new(unix_ms(), random)
}

/// No more events can be under way now; the event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many events are under way as may be")]
pub struct TooManyEvents;

/// Tells an application of events.
///
/// *Guarantee*: what [`Events::user`] takes is answered once, in success or failure. The other calls hand over what may be lost as
/// the implementation documents. *Ordering*: events of one connection reach the application in the order of the calls. No call
/// waits.
pub trait Events: Send + Sync + 'static {
    /// Whether anybody wants the user events of this name.
    fn hears(&self, hub: &HubName, event: &str) -> bool;

    /// Takes a user event.
    ///
    /// # Errors
    /// When there is no room for it.
    fn user(&self, event: UserEvent) -> Result<(), TooManyEvents>;

    /// A connection was greeted.
    fn connected(&self, source: EventSource);

    /// A connection has ended that was greeted, or that the application had approved of.
    fn disconnected(&self, source: EventSource, reason: &str);

    /// A message was stored for a user who is offline. Told once for each user, by the node that had it stored; not when that
    /// node dies in this moment, nor when the message is said again.
    fn queued(&self, message: Queued);

    /// Whether anybody wants to hear who comes and goes in a hub.
    fn hears_presence(&self, hub: &HubName) -> bool;

    /// A user has come or gone. Told by one node, where the nodes see the same; by another one too when that dies soon after, under
    /// the same id.
    fn appeared(&self, appearance: Appearance);

    /// A cluster begins anew, and what was told of presence before, by nodes that nobody has seen die, holds no more: this node
    /// began at `since`, in Unix milliseconds, and no other that is known was there before. Told by one node, where the nodes see the same.
    fn began(&self, since: u64);
}

/// A place on a shard that is kept for a connection. When it is dropped before a connection took it, it is given back, and an
/// application that had approved of the connection is told that it has ended.
pub struct Reservation {
    node: Arc<Node>,
    id: ConnectionId,
    /// There once the application approved.
    source: Option<EventSource>,
    taken: bool,
}

impl Reservation {
    pub(crate) fn new(node: Arc<Node>, id: ConnectionId) -> Self {
        Reservation { node, id, source: None, taken: false }
    }

    /// The id that the connection will have.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Notes that the application approved of the connection.
    pub fn approve(&mut self, source: EventSource) {
        self.source = Some(source);
    }

    /// The connection is made. Returns its id, and the state that the application gave it.
    pub(crate) fn take(mut self) -> (ConnectionId, Option<Arc<String>>) {
        self.taken = true;
        (self.id, self.source.take().and_then(|source| source.state))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        self.node.give_back(self.id);
        if let (Some(source), Some(events)) = (self.source.take(), self.node.events()) {
            events.disconnected(source, "The connection was not made.");
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({})", self.id)
    }
}
