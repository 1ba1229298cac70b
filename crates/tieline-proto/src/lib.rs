//! The wire: what clients, REST callers and operators read and write, and the words for it.
//!
//! What it is: identifiers, client requests and replies, REST bodies, filters, roles, claims, and the one
//! table of error and close codes. What it is not: it opens no socket, reads no clock and draws no random
//! number; callers bring bytes and time. Signatures of tokens are checked elsewhere.
//!
//! The rule throughout: **the payload is never decoded on its way**. A frame's `data` member stays the JSON
//! text it arrived as ([`payload`]), a request borrows from its frame ([`request`]), and a reply is appended
//! to the caller's buffer ([`reply`]). Tested by frames written out as bytes, tables of bad input, and
//! properties.

pub mod civil;
mod json_text;

pub mod claims;
pub mod envelope;
pub mod error;
pub mod filter;
pub mod id;
pub mod payload;
pub mod plain;
pub mod presence;
pub mod reply;
pub mod request;
pub mod rest;
pub mod role;

pub use error::{CloseCode, ErrorCode, Reconnect};
pub use filter::{Filter, FilterError};
pub use id::{
    ConnectionId, GroupName, HubName, Incarnation, MessageId, NameError, NodeId, NodeName, Position, UserId,
};
pub use payload::{Data, DataType, Payload};
pub use request::{Dialect, FrameError, Request, Targets};
pub use role::{Permission, Roles};
