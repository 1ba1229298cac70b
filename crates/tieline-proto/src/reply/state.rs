//! Group state: what the members of a group tell about themselves.

use crate::id::ConnectionId;

use super::{push_count, push_member};

/// One connection's state.
#[derive(Debug, Clone, Copy)]
pub struct StateItem<'a> {
    /// Whose.
    pub connection_id: ConnectionId,
    /// Its user.
    pub user_id: Option<&'a str>,
    /// The JSON object of strings as its owner wrote it; none when it was taken back.
    pub state: Option<&'a str>,
    /// When it changed, in Unix milliseconds.
    pub updated_at_ms: u64,
}

/// Appends the states of all members, as a subscriber is told first.
pub fn group_state_snapshot<'a>(
    out: &mut Vec<u8>,
    group: &str,
    items: impl IntoIterator<Item = StateItem<'a>>,
) {
    push_member(out, "{\"type\":\"groupStateSnapshot\",\"group\":", group);
    push_items(out, items);
}

/// Appends the states that changed.
pub fn group_state_update<'a>(
    out: &mut Vec<u8>,
    group: &str,
    items: impl IntoIterator<Item = StateItem<'a>>,
) {
    push_member(out, "{\"type\":\"groupStateUpdate\",\"group\":", group);
    push_items(out, items);
}

/// Appends the list and the end of the frame.
fn push_items<'a>(out: &mut Vec<u8>, items: impl IntoIterator<Item = StateItem<'a>>) {
    out.extend_from_slice(b",\"items\":[");
    for (index, item) in items.into_iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"connectionId\":\"" } else { b",{\"connectionId\":\"" });
        out.extend_from_slice(&item.connection_id.to_text());
        out.push(b'"');
        if let Some(user) = item.user_id {
            push_member(out, ",\"userId\":", user);
        }
        if let Some(state) = item.state {
            out.extend_from_slice(b",\"state\":");
            out.extend_from_slice(state.as_bytes());
        }
        push_count(out, ",\"updatedAt\":", item.updated_at_ms);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}
