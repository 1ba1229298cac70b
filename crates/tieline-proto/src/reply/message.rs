//! Messages, in each wire's form, with the part that many recipients share kept apart.
//!
//! The plain Azure frame is `{` and the tail; the reliable one is `{"sequenceId":N,` and the same tail. So
//! the tail is encoded once and only the head differs from recipient to recipient.

use crate::{
    civil,
    error::ErrorCode,
    id::{MessageId, Position},
    payload::Data,
    plain,
};

use super::{push_count, push_error, push_member};

/// A form a message can take on the way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// `json.webpubsub.azure.v1`, and the shared tail of `json.reliable.webpubsub.azure.v1`.
    Azure,
    /// `tieline.v1`.
    Tieline,
    /// Plain JSON, no subprotocol.
    Plain,
}

/// By what way a message reached its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From<'a> {
    /// Through a group.
    Group {
        /// The group's name.
        name: &'a str,
    },
    /// From the application, or to everybody.
    Server,
    /// To a user, from another.
    User {
        /// The recipient, who may be on several connections.
        to: &'a str,
    },
}

/// A message, borrowed from wherever its parts lie.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// By what way it came.
    pub from: From<'a>,
    /// The sender, where there is one and it has a user.
    pub from_user_id: Option<&'a str>,
    /// The server's id.
    pub id: MessageId,
    /// The server's time, in Unix milliseconds.
    pub time_ms: u64,
    /// The payload.
    pub data: Data<'a>,
    /// The place in its log, if it is durable.
    pub position: Option<Position>,
    /// The part of a stream it is, if it is one.
    pub stream: Option<StreamPart<'a>>,
}

/// What a message says of the stream it is part of.
#[derive(Debug, Clone, Copy)]
pub struct StreamPart<'a> {
    /// The sender's name for the stream.
    pub stream_id: &'a str,
    /// The part's number, from 1.
    pub sequence_id: u64,
    /// Whether it is the last part. It then needs data all the same: `text` and `""` when there is none.
    pub end: bool,
    /// The error the stream ended with.
    pub error: Option<StreamPartError<'a>>,
}

/// The error a stream ended with, as its receivers see it.
#[derive(Debug, Clone, Copy)]
pub struct StreamPartError<'a> {
    /// [`ErrorCode::UserError`] if the sender ended it, [`ErrorCode::IdleTimeout`] if it fell silent.
    pub code: ErrorCode,
    /// A sentence.
    pub message: &'a str,
    /// The sender's own code, a JSON string or number as the sender wrote it.
    pub user_error_code: Option<&'a str>,
}

/// Appends a whole message.
pub fn message(out: &mut Vec<u8>, wire: Wire, message: &Message<'_>) {
    match wire {
        Wire::Plain => plain::message(out, message),
        Wire::Azure | Wire::Tieline => {
            out.push(b'{');
            message_tail(out, wire, message);
        }
    }
}

/// Appends the head of a frame of the reliable protocol, before the shared tail. Sequence ids begin at 1:
/// clients drop 0.
pub fn sequence_head(out: &mut Vec<u8>, sequence_id: u64) {
    push_count(out, "{\"sequenceId\":", sequence_id);
    out.push(b',');
}

/// Appends a message without its opening brace, to stand behind `{` or [`sequence_head`]. Plain JSON has no
/// such tail and is written as `tieline.v1`.
pub fn message_tail(out: &mut Vec<u8>, wire: Wire, message: &Message<'_>) {
    let ours = wire != Wire::Azure;
    out.reserve(message.data.json().len() + 192);
    match message.from {
        From::Group { name } => push_member(out, "\"type\":\"message\",\"from\":\"group\",\"group\":", name),
        From::Server => out.extend_from_slice(b"\"type\":\"message\",\"from\":\"server\""),
        // The official clients drop a message of any other origin than group and server.
        From::User { .. } if !ours => out.extend_from_slice(b"\"type\":\"message\",\"from\":\"server\""),
        From::User { to } => push_member(out, "\"type\":\"message\",\"from\":\"user\",\"toUserId\":", to),
    }
    if let Some(user) = message.from_user_id {
        push_member(out, ",\"fromUserId\":", user);
    }
    if ours {
        out.extend_from_slice(b",\"id\":\"");
        out.extend_from_slice(&message.id.to_text());
        out.extend_from_slice(b"\",\"time\":\"");
        civil::push_rfc3339(out, message.time_ms);
        out.push(b'"');
        if let Some(Position { epoch, offset }) = message.position {
            push_count(out, ",\"position\":{\"epoch\":", epoch);
            push_count(out, ",\"offset\":", offset);
            out.push(b'}');
        }
    }
    if let Some(part) = &message.stream {
        push_part(out, part);
    }
    out.extend_from_slice(b",\"dataType\":\"");
    out.extend_from_slice(message.data.data_type().as_str().as_bytes());
    out.extend_from_slice(b"\",\"data\":");
    out.extend_from_slice(message.data.json().as_bytes());
    out.push(b'}');
}

/// Appends what a message says of its stream.
fn push_part(out: &mut Vec<u8>, part: &StreamPart<'_>) {
    push_member(out, ",\"stream\":{\"streamId\":", part.stream_id);
    push_count(out, ",\"streamSequenceId\":", part.sequence_id);
    if part.end {
        out.extend_from_slice(b",\"endOfStream\":true");
    }
    if let Some(error) = &part.error {
        push_error(out, error.code.name(), error.message);
        if let Some(code) = error.user_error_code {
            // Back inside the error's object, which `push_error` has closed.
            out.pop();
            out.extend_from_slice(b",\"userErrorCode\":");
            out.extend_from_slice(code.as_bytes());
            out.push(b'}');
        }
    }
    out.push(b'}');
}
