//! Replies: every frame the server sends, appended to the caller's buffer.
//!
//! Written by hand, member by member, because these run once per message and format: no tree, no allocation
//! but the buffer's own growth. Each function appends exactly one JSON object without blanks. One file per
//! kind: acks and errors, messages, presence, system events, streams and invocations, group state. Tested in
//! `reply/tests.rs` by frames written out as text, all read back by a JSON parser.

mod ack;
mod message;
mod presence;
mod state;
mod stream;
mod system;
#[cfg(test)]
mod tests;

pub use ack::{Extra, Receipt, Recovered, ack, ack_error, ack_with, error, pong};
pub use message::{From, Message, StreamPart, StreamPartError, Wire, message, message_tail, sequence_head};
pub use presence::{presence_body, presence_event, presence_events, presence_page};
pub use state::{StateItem, group_state_snapshot, group_state_update};
pub use stream::{invoke_error, invoke_response, stream_ack, stream_closed, stream_nack};
pub use system::{connected, disconnected, displaced, gap, reconnect};

use crate::json_text;

/// Appends `,"name":` and a JSON string.
fn push_member(out: &mut Vec<u8>, head: &str, text: &str) {
    out.extend_from_slice(head.as_bytes());
    json_text::push_string(out, text);
}

/// Appends `,"name":` and a whole number.
fn push_count(out: &mut Vec<u8>, head: &str, number: u64) {
    out.extend_from_slice(head.as_bytes());
    json_text::push_number(out, number);
}

/// Appends `,"name":` and a whole number, or `null` where it is not known.
fn push_known(out: &mut Vec<u8>, head: &str, number: Option<u64>) {
    out.extend_from_slice(head.as_bytes());
    match number {
        Some(number) => json_text::push_number(out, number),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends `,"error":{"name":…,"message":…}`.
fn push_error(out: &mut Vec<u8>, name: &str, message: &str) {
    push_member(out, ",\"error\":{\"name\":", name);
    push_member(out, ",\"message\":", message);
    out.push(b'}');
}
