//! [`RestTally`]: what the REST API counts, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use tieline_core::latency::Latency;

use super::call::{Call, HubCall};

/// What a request asked for, as a metric's label says it: a path and a method without the names in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// It was no call, or not allowed to be one.
    None,
    Send,
    SendToMany,
    Close,
    Exists,
    Join,
    Leave,
    Members,
    History,
    Presence,
    Permission,
    Token,
    Nodes,
    Drain,
}

impl CallKind {
    /// Every kind with its label, in the order of the variants.
    const ALL: [(CallKind, &'static str); 14] = [
        (CallKind::None, "none"),
        (CallKind::Send, "send"),
        (CallKind::SendToMany, "send_to_many"),
        (CallKind::Close, "close"),
        (CallKind::Exists, "exists"),
        (CallKind::Join, "join"),
        (CallKind::Leave, "leave"),
        (CallKind::Members, "members"),
        (CallKind::History, "history"),
        (CallKind::Presence, "presence"),
        (CallKind::Permission, "permission"),
        (CallKind::Token, "token"),
        (CallKind::Nodes, "nodes"),
        (CallKind::Drain, "drain"),
    ];

    /// The kind of a call.
    pub(super) fn of(call: &Call) -> Self {
        let call = match call {
            Call::Hub(_, call) => call,
            Call::Nodes => return CallKind::Nodes,
            Call::Drain(_) => return CallKind::Drain,
        };
        match call {
            HubCall::Send(_) => CallKind::Send,
            HubCall::SendToMany => CallKind::SendToMany,
            HubCall::Close(_) => CallKind::Close,
            HubCall::Exists(_) => CallKind::Exists,
            HubCall::Join(..) | HubCall::JoinByFilter => CallKind::Join,
            HubCall::Leave(..) | HubCall::LeaveAll(_) | HubCall::LeaveByFilter => CallKind::Leave,
            HubCall::Members(_) => CallKind::Members,
            HubCall::History(_) | HubCall::Forget(_) => CallKind::History,
            HubCall::Presence(_) => CallKind::Presence,
            HubCall::Grant(..) | HubCall::Revoke(..) | HubCall::Holds(..) => CallKind::Permission,
            HubCall::GenerateToken => CallKind::Token,
        }
    }
}

/// What became of it, in the order of [`OUTCOMES`].
fn outcome(status: StatusCode) -> usize {
    match status.as_u16() {
        ..400 => 0,
        404 => 1,
        401 | 403 => 2,
        429 => 4,
        400..500 => 3,
        500.. => 5,
    }
}

/// The labels of outcomes.
const OUTCOMES: [&str; 6] = ["done", "absent", "denied", "refused", "overloaded", "failed"];

/// Calls since the start, by kind and outcome.
#[derive(Debug, Default)]
pub struct RestTally {
    counts: [[AtomicU64; OUTCOMES.len()]; CallKind::ALL.len()],
    latencies: [Latency; CallKind::ALL.len()],
}

impl RestTally {
    /// Counts a call that is answered.
    pub(super) fn record(&self, kind: CallKind, status: StatusCode, took: Duration) {
        self.counts[kind as usize][outcome(status)].fetch_add(1, Ordering::Relaxed);
        self.latencies[kind as usize].record(took);
    }

    /// Each kind and outcome that there was, with its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        CallKind::ALL.iter().zip(&self.counts).flat_map(|((_, call), counts)| {
            let counts = OUTCOMES.iter().zip(counts);
            let counts = counts.map(|(outcome, count)| (*call, *outcome, count.load(Ordering::Relaxed)));
            counts.filter(|(_, _, count)| *count > 0)
        })
    }

    /// How long calls took, for each kind that there was.
    pub fn latencies(&self) -> impl Iterator<Item = (&'static str, &Latency)> {
        let latencies = CallKind::ALL.iter().zip(&self.latencies);
        latencies.map(|((_, call), latency)| (*call, latency)).filter(|(_, latency)| latency.read().count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_one_outcome() {
        for (status, expected) in [
            (200, "done"),
            (202, "done"),
            (204, "done"),
            (404, "absent"),
            (401, "denied"),
            (403, "denied"),
            (400, "refused"),
            (405, "refused"),
            (413, "refused"),
            (429, "overloaded"),
            (500, "failed"),
            (503, "failed"),
        ] {
            assert_eq!(OUTCOMES[outcome(StatusCode::from_u16(status).unwrap())], expected, "{status}");
        }
    }

    #[test]
    fn kinds_stand_in_their_order() {
        for (place, (kind, _)) in CallKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
        }
    }

    #[test]
    fn what_there_was_is_counted_by_kind_and_outcome() {
        let tally = RestTally::default();
        assert_eq!((tally.counts().count(), tally.latencies().count()), (0, 0));
        for (kind, status) in [(CallKind::Send, 202), (CallKind::Send, 202), (CallKind::Send, 429)] {
            tally.record(kind, StatusCode::from_u16(status).unwrap(), Duration::from_millis(1));
        }
        tally.record(CallKind::None, StatusCode::NOT_FOUND, Duration::ZERO);
        let counts: Vec<_> = tally.counts().collect();
        assert_eq!(counts, [("none", "absent", 1), ("send", "done", 2), ("send", "overloaded", 1)]);
        let counted: Vec<_> = tally.latencies().map(|(call, latency)| (call, latency.read().count)).collect();
        assert_eq!(counted, [("none", 1), ("send", 3)]);
    }
}
