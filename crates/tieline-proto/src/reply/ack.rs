//! Acks, errors without an ack, and the pong.

use crate::{error::ErrorCode, id::Position, json_text};

use super::{push_count, push_error, push_known, push_member};

/// What became of a message, in the ack of a `tieline.v1` send and in REST answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    /// How many connections it was handed to, cluster-wide; `None` (`null`) when not all nodes answered in
    /// time.
    pub delivered: Option<u64>,
    /// How many users it will reach when they come back: nobody holds a connection of theirs, and a log keeps it for
    /// them.
    pub queued: u64,
    /// How many of the named users and connections nobody holds; `None` (`null`) when not all nodes answered
    /// in time.
    pub unknown: Option<u64>,
    /// How many other nodes may hold recipients and could not be given it; `None` (`null`) as above.
    pub unreachable: Option<u64>,
}

/// What an ack says beyond success (`tieline.v1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    None,
    /// To a send.
    Receipt(Receipt),
    /// To a join, or a hello.
    Log {
        /// Whether everything since what the client saw last came before this ack; `None` when it named nothing.
        recovered: Option<Recovered>,
        /// The end of the log as the client has it now, so that it can name it the next time; `None` where there is
        /// no log.
        position: Option<Position>,
    },
}

/// What became of a client's wish for what it missed (`tieline.v1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// It has all of it.
    Whole,
    /// A part of it is kept no longer, so it got none.
    Trimmed,
    /// The log is not the one that its position is of.
    Epoch,
    /// It is more than a client is given at once.
    Limit,
    /// Nothing is kept for this target.
    NoHistory,
}

impl Recovered {
    /// Why it was not recovered, as the ack says it.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Recovered::Whole => None,
            Recovered::Trimmed => Some("trimmed"),
            Recovered::Epoch => Some("epoch"),
            Recovered::Limit => Some("limit"),
            Recovered::NoHistory => Some("no-history"),
        }
    }
}

/// Appends the ack of success.
pub fn ack(out: &mut Vec<u8>, ack_id: u64) {
    ack_with(out, ack_id, Extra::None);
}

/// Appends the ack of success and what it says beyond.
pub fn ack_with(out: &mut Vec<u8>, ack_id: u64, extra: Extra) {
    push_count(out, "{\"type\":\"ack\",\"ackId\":", ack_id);
    out.extend_from_slice(b",\"success\":true");
    match extra {
        Extra::None => {}
        Extra::Receipt(receipt) => {
            push_known(out, ",\"delivered\":", receipt.delivered);
            push_count(out, ",\"queued\":", receipt.queued);
            push_known(out, ",\"unknown\":", receipt.unknown);
            push_known(out, ",\"unreachable\":", receipt.unreachable);
        }
        Extra::Log { recovered, position } => {
            if let Some(recovered) = recovered {
                out.extend_from_slice(b",\"recovered\":");
                json_text::push_bool(out, recovered == Recovered::Whole);
                if let Some(reason) = recovered.reason() {
                    push_member(out, ",\"reason\":", reason);
                }
            }
            if let Some(Position { epoch, offset }) = position {
                push_count(out, ",\"position\":{\"epoch\":", epoch);
                push_count(out, ",\"offset\":", offset);
                out.push(b'}');
            }
        }
    }
    out.push(b'}');
}

/// Appends the ack of failure. With [`ErrorCode::Duplicate`] the official clients take it for success.
pub fn ack_error(out: &mut Vec<u8>, ack_id: u64, code: ErrorCode, message: &str) {
    push_count(out, "{\"type\":\"ack\",\"ackId\":", ack_id);
    out.extend_from_slice(b",\"success\":false");
    push_error(out, code.name(), message);
    out.push(b'}');
}

/// Appends the error of a frame that had no ackId. The official clients ignore the type; people see it in
/// their tools.
pub fn error(out: &mut Vec<u8>, code: ErrorCode, field: Option<&str>, message: &str) {
    out.extend_from_slice(b"{\"type\":\"error\"");
    push_error(out, code.name(), message);
    if let Some(field) = field {
        push_member(out, ",\"field\":", field);
    }
    out.push(b'}');
}

/// Appends the answer to a ping. It is obligatory: the official clients close without it.
pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"pong\"}");
}
