//! [`Request`]: what a client asks for in one text frame, borrowed from the frame.
//!
//! [`parse`] goes in two steps. One pass cuts the frame into its members, kept as raw JSON in one flat record
//! (`request/frame.rs`, on the scanner of `request/scan.rs`): no tree is built, nothing recurses, and an
//! internally tagged enum, which would buffer everything, is avoided. Then the members that the frame's
//! `type` needs are read and checked (`request/check.rs`, `request/read.rs`), each with an error that names
//! it (`request/fault.rs`). Members that no dialect knows are ignored; a member given twice is an error,
//! because readers differ on which one counts. `null` counts as absent, except for `data`, where it is a
//! value.
//!
//! Tested in `request/tests.rs`: frames as the official clients send them, a table of bad input, and
//! properties.

mod check;
pub(crate) mod fault;
pub(crate) mod frame;
mod read;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use fault::{FrameError, Problem};

use crate::{
    id::{ConnectionId, Position},
    payload::Data,
};

/// The most users, groups and connections that one request may name together. More is refused, never cut
/// short.
pub const MAX_TARGETS: usize = 10_000;
/// The longest `messageId`, `streamId`, `invocationId` or `device` a client may choose, in bytes.
pub const MAX_CLIENT_ID_BYTES: usize = 256;
/// The longest name of an event, in bytes.
pub const MAX_EVENT_BYTES: usize = 1024;
/// The most entries a connection may publish in one group state.
pub const MAX_STATE_ENTRIES: usize = 64;

/// Whether a text may be the name of a device, wherever it stands: in a token, in a URL, in `hello`.
#[must_use]
pub fn is_device(text: &str) -> bool {
    (1..=MAX_CLIENT_ID_BYTES).contains(&text.len())
}

/// Which subprotocol a frame is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `json.webpubsub.azure.v1`.
    Azure,
    /// `json.reliable.webpubsub.azure.v1`.
    AzureReliable,
    /// `tieline.v1`.
    Tieline,
}

impl Dialect {
    /// Every dialect, in the order the server prefers them.
    pub const ALL: [Dialect; 3] = [Dialect::Tieline, Dialect::AzureReliable, Dialect::Azure];

    /// The name of the WebSocket subprotocol.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Dialect::Azure => "json.webpubsub.azure.v1",
            Dialect::AzureReliable => "json.reliable.webpubsub.azure.v1",
            Dialect::Tieline => "tieline.v1",
        }
    }

    /// Finds the dialect by the name of its subprotocol.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.subprotocol() == name)
    }
}

/// One request. `ack_id` is always the client's own number, wanted back in the ack; without one nothing is
/// answered on success.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// To join a group.
    JoinGroup {
        /// Which.
        group: Cow<'a, str>,
        /// The number of the ack.
        ack_id: Option<u64>,
        /// What the client saw last of the group's log, to be given what it missed (`tieline.v1`).
        since: Option<Position>,
    },
    /// To leave a group.
    LeaveGroup {
        /// Which.
        group: Cow<'a, str>,
        /// The number of the ack.
        ack_id: Option<u64>,
    },
    /// To send to the members of a group.
    SendToGroup {
        /// Which.
        group: Cow<'a, str>,
        /// If not empty, only these users' connections in the group (`tieline.v1`).
        users: Vec<Cow<'a, str>>,
        /// The number of the ack.
        ack_id: Option<u64>,
        /// The client's own id of the message, the key of deduplication (`tieline.v1`).
        message_id: Option<Cow<'a, str>>,
        /// Not to the sending connection.
        no_echo: bool,
        /// What.
        data: Data<'a>,
    },
    /// To send to all connections of a user (`tieline.v1`).
    SendToUser {
        /// Whom.
        user: Cow<'a, str>,
        /// The number of the ack.
        ack_id: Option<u64>,
        /// The client's own id of the message.
        message_id: Option<Cow<'a, str>>,
        /// Not to the sending connection, should it be the same user's.
        no_echo: bool,
        /// What.
        data: Data<'a>,
    },
    /// To send to everybody in the hub (`tieline.v1`).
    SendToAll {
        /// The number of the ack.
        ack_id: Option<u64>,
        /// The client's own id of the message.
        message_id: Option<Cow<'a, str>>,
        /// Not to the sending connection.
        no_echo: bool,
        /// What.
        data: Data<'a>,
    },
    /// To send to many targets at once (`tieline.v1`).
    Send {
        /// Whom.
        to: Targets<'a>,
        /// The number of the ack.
        ack_id: Option<u64>,
        /// The client's own id of the message.
        message_id: Option<Cow<'a, str>>,
        /// Not to the sending connection.
        no_echo: bool,
        /// What.
        data: Data<'a>,
    },
    /// An event for the application's handler.
    Event {
        /// The event's name.
        event: Cow<'a, str>,
        /// The number of the ack.
        ack_id: Option<u64>,
        /// What.
        data: Data<'a>,
    },
    /// To be answered with a pong.
    Ping,
    /// All messages up to this one have arrived (reliable protocol).
    SequenceAck {
        /// The highest sequence id seen.
        sequence_id: u64,
    },
    /// The client's first words: asks for its user's inbox (`tieline.v1`).
    Hello {
        /// The last position of the inbox the client saw; none if it asks for all that is kept for it.
        inbox: Option<Position>,
        /// Which of the user's devices this is, where each has its own position.
        device: Option<Cow<'a, str>>,
        /// The number of the ack.
        ack_id: Option<u64>,
    },
    /// The inbox was read up to here (`tieline.v1`).
    InboxAck {
        /// The last offset read, in the inbox's current epoch.
        offset: u64,
    },
    /// The log of a group whose members are stored was read up to here (`tieline.v1`).
    GroupAck {
        /// The group's name.
        group: Cow<'a, str>,
        /// The last offset read, in the log's current epoch.
        offset: u64,
    },
    /// Who is here: asks for one page of a snapshot, and to be told of who comes and goes (`tieline.v1`).
    Presence {
        /// Of which group; of the whole hub without one.
        group: Option<Cow<'a, str>>,
        /// To be told from now on, or no longer; none to leave that as it is.
        subscribe: Option<bool>,
        /// Where the page before ended.
        after: Option<Cow<'a, str>>,
        /// How many at most; the server has a bound of its own.
        limit: Option<u64>,
        /// The number of the ack.
        ack_id: Option<u64>,
    },
    /// A new token in place of one that is about to expire (`tieline.v1`).
    Token {
        /// The token.
        token: Cow<'a, str>,
        /// The number of the ack.
        ack_id: Option<u64>,
    },
    /// To call the application's handler and wait for its answer.
    Invoke {
        /// The client's number for the call.
        invocation_id: Cow<'a, str>,
        /// The event's name.
        event: Cow<'a, str>,
        /// What.
        data: Data<'a>,
    },
    /// No longer to wait for a call.
    CancelInvocation {
        /// Which call.
        invocation_id: Cow<'a, str>,
    },
    /// To begin a stream to a group. On the wire a `sendToGroup` with `stream` in place of data.
    StreamStart {
        /// Which group.
        group: Cow<'a, str>,
        /// The client's name for the stream.
        stream_id: Cow<'a, str>,
        /// How long it may be silent, in milliseconds.
        idle_timeout_ms: Option<u64>,
        /// Not to the sending connection.
        no_echo: bool,
    },
    /// A part of a stream, or a sign of life without data.
    StreamData {
        /// Which stream.
        stream_id: Cow<'a, str>,
        /// The part's number, from 1. A sign of life may lack it.
        sequence_id: Option<u64>,
        /// What; none for a sign of life.
        data: Option<Data<'a>>,
    },
    /// The end of a stream.
    StreamEnd {
        /// Which stream.
        stream_id: Cow<'a, str>,
        /// The error the sender ends it with.
        error: Option<StreamFault<'a>>,
    },
    /// What this connection tells the group about itself; replaces what it told before.
    SetGroupState {
        /// Which group.
        group: Cow<'a, str>,
        /// The JSON object of strings, checked, as it was written; none to take it back.
        state: Option<&'a str>,
        /// The number of the ack.
        ack_id: Option<u64>,
    },
    /// To be told the state of a group's members, now and whenever it changes.
    SubscribeGroupState {
        /// Which group.
        group: Cow<'a, str>,
        /// The number of the ack.
        ack_id: Option<u64>,
    },
    /// No longer to be told.
    UnsubscribeGroupState {
        /// Which group.
        group: Cow<'a, str>,
        /// The number of the ack.
        ack_id: Option<u64>,
    },
}

impl Request<'_> {
    /// The number of the ack that the client wants, if it wants one.
    #[must_use]
    pub fn ack_id(&self) -> Option<u64> {
        match self {
            Request::JoinGroup { ack_id, .. }
            | Request::LeaveGroup { ack_id, .. }
            | Request::SendToGroup { ack_id, .. }
            | Request::SendToUser { ack_id, .. }
            | Request::SendToAll { ack_id, .. }
            | Request::Send { ack_id, .. }
            | Request::Event { ack_id, .. }
            | Request::Hello { ack_id, .. }
            | Request::Presence { ack_id, .. }
            | Request::Token { ack_id, .. }
            | Request::SetGroupState { ack_id, .. }
            | Request::SubscribeGroupState { ack_id, .. }
            | Request::UnsubscribeGroupState { ack_id, .. } => *ack_id,
            Request::Ping
            | Request::SequenceAck { .. }
            | Request::InboxAck { .. }
            | Request::GroupAck { .. }
            | Request::Invoke { .. }
            | Request::CancelInvocation { .. }
            | Request::StreamStart { .. }
            | Request::StreamData { .. }
            | Request::StreamEnd { .. } => None,
        }
    }
}

/// Many targets at once: the union of users, groups and connections, less the excluded. A
/// connection matched twice receives once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets<'a> {
    /// All connections of these users.
    pub users: Vec<Cow<'a, str>>,
    /// All members of these groups.
    pub groups: Vec<Cow<'a, str>>,
    /// These connections.
    pub connections: Vec<ConnectionId>,
    /// Never these connections.
    pub excluded: Vec<ConnectionId>,
}

impl Targets<'_> {
    /// Whether nobody at all is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty() && self.connections.is_empty()
    }
}

/// The error a sender ends its stream with; it is the receivers' to understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFault<'a> {
    /// A sentence for people.
    pub message: Cow<'a, str>,
    /// The application's own code: a JSON string or number, as it was written.
    pub user_error_code: Option<&'a str>,
}

/// Reads one text frame of a client.
///
/// # Errors
/// When the text is no JSON object, lacks what its `type` needs, or is of a type that the dialect does not have.
/// The error carries the ackId wherever one could be read.
pub fn parse(text: &str, dialect: Dialect) -> Result<Request<'_>, FrameError> {
    check::request(text, dialect)
}
