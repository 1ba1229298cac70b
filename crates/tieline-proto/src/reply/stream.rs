//! Answers to invocations and streams.

use crate::{error::ErrorCode, payload::Data};

use super::{push_count, push_error, push_member};

/// Appends the answer of an event handler to a call.
pub fn invoke_response(out: &mut Vec<u8>, invocation_id: &str, data: Option<Data<'_>>) {
    push_member(out, "{\"type\":\"invokeResponse\",\"invocationId\":", invocation_id);
    out.extend_from_slice(b",\"success\":true");
    if let Some(data) = data {
        out.extend_from_slice(b",\"dataType\":\"");
        out.extend_from_slice(data.data_type().as_str().as_bytes());
        out.extend_from_slice(b"\",\"data\":");
        out.extend_from_slice(data.json().as_bytes());
    }
    out.push(b'}');
}

/// Appends the failure of a call. A caller without an answer waits for ever, so there is always one.
pub fn invoke_error(out: &mut Vec<u8>, invocation_id: &str, code: ErrorCode, message: &str) {
    push_member(out, "{\"type\":\"invokeResponse\",\"invocationId\":", invocation_id);
    out.extend_from_slice(b",\"success\":false");
    push_error(out, code.name(), message);
    out.push(b'}');
}

/// Appends the ack of a stream: all parts before `expected` have arrived.
pub fn stream_ack(out: &mut Vec<u8>, stream_id: &str, expected: u64) {
    push_member(out, "{\"type\":\"streamAck\",\"streamId\":", stream_id);
    push_count(out, ",\"expectedSequenceId\":", expected);
    out.push(b'}');
}

/// Appends the request to send a stream's parts again from `expected` on.
pub fn stream_nack(
    out: &mut Vec<u8>,
    stream_id: &str,
    code: ErrorCode,
    message: Option<&str>,
    expected: u64,
) {
    push_member(out, "{\"type\":\"streamNack\",\"streamId\":", stream_id);
    push_member(out, ",\"name\":", code.name());
    if let Some(message) = message {
        push_member(out, ",\"message\":", message);
    }
    push_count(out, ",\"expectedSequenceId\":", expected);
    out.push(b'}');
}

/// Appends the end of a stream, as its sender is told.
pub fn stream_closed(out: &mut Vec<u8>, stream_id: &str, error: Option<(ErrorCode, &str)>) {
    push_member(out, "{\"type\":\"streamClosed\",\"streamId\":", stream_id);
    if let Some((code, message)) = error {
        push_error(out, code.name(), message);
    }
    out.push(b'}');
}
