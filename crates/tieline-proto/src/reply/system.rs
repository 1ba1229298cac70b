//! System events: what the server says about the connection itself.

use crate::id::{ConnectionId, Position};

use super::{push_count, push_member};

/// Appends the first frame of every connection, and of every recovery. `reconnection_token` is for the
/// reliable protocol, which cannot recover again without it.
pub fn connected(
    out: &mut Vec<u8>,
    connection_id: ConnectionId,
    user_id: Option<&str>,
    reconnection_token: Option<&str>,
) {
    out.extend_from_slice(b"{\"type\":\"system\",\"event\":\"connected\"");
    if let Some(user) = user_id {
        push_member(out, ",\"userId\":", user);
    }
    out.extend_from_slice(b",\"connectionId\":\"");
    out.extend_from_slice(&connection_id.to_text());
    out.push(b'"');
    if let Some(token) = reconnection_token {
        push_member(out, ",\"reconnectionToken\":", token);
    }
    out.push(b'}');
}

/// Appends the last frame before the server closes. The official clients show this reason and not the close
/// frame's.
pub fn disconnected(out: &mut Vec<u8>, reason: &str) {
    push_member(out, "{\"type\":\"system\",\"event\":\"disconnected\",\"message\":", reason);
    out.push(b'}');
}

/// Appends the request to connect again soon (`tieline.v1`): after `after_ms`, plus up to `jitter_ms` that
/// the client draws, to `url` if there is one, else to the address it knows.
pub fn reconnect(out: &mut Vec<u8>, after_ms: u64, jitter_ms: u64, url: Option<&str>) {
    push_count(out, "{\"type\":\"system\",\"event\":\"reconnect\",\"afterMs\":", after_ms);
    push_count(out, ",\"jitterMs\":", jitter_ms);
    if let Some(url) = url {
        push_member(out, ",\"url\":", url);
    }
    out.push(b'}');
}

/// Appends the notice that live messages may have been missed (`tieline.v1`): of one group, or of everything
/// this connection receives. It may be spurious, never missing. `position` is where a durable log can be read
/// from.
pub fn gap(out: &mut Vec<u8>, group: Option<&str>, position: Option<Position>) {
    out.extend_from_slice(b"{\"type\":\"system\",\"event\":\"gap\"");
    if let Some(group) = group {
        push_member(out, ",\"group\":", group);
    }
    if let Some(Position { epoch, offset }) = position {
        push_count(out, ",\"position\":{\"epoch\":", epoch);
        push_count(out, ",\"offset\":", offset);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends the notice that a newer connection of the user took this one's place (`tieline.v1`).
pub fn displaced(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"system\",\"event\":\"displaced\"}");
}
