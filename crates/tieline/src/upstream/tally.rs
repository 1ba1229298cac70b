//! [`UpstreamTally`]: what is counted of events, for the metrics. Tested here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tieline_core::latency::Latency;

/// What an event is, as a metric's label says it; names of user events are the clients'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// Before a connection is made.
    Connect,
    /// After it was.
    Connected,
    /// After it has ended.
    Disconnected,
    /// A message waits for a user.
    Queued,
    /// A user has come or gone.
    Presence,
    /// From a client.
    User,
}

/// The labels of kinds, in the order of the variants.
const KINDS: [&str; 6] = ["connect", "connected", "disconnected", "queued", "presence", "user"];

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The endpoint took it.
    Answered,
    /// The endpoint said no.
    Refused,
    /// There was no answer, and will be none.
    Failed,
    /// There was no answer, and it is sent again.
    Retried,
    /// It was not sent for want of room, or because the node stopped.
    Dropped,
}

/// The labels of outcomes, in the order of the variants.
const OUTCOMES: [&str; 5] = ["answered", "refused", "failed", "retried", "dropped"];

/// Totals since the start.
#[derive(Debug, Default)]
pub struct UpstreamTally {
    counts: [[AtomicU64; OUTCOMES.len()]; KINDS.len()],
    latencies: [Latency; KINDS.len()],
    /// Events that wait to be sent, or to be sent again.
    waiting: AtomicU64,
}

impl UpstreamTally {
    /// Counts what became of an event.
    pub(super) fn count(&self, kind: EventKind, outcome: Outcome) {
        self.counts[kind as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long an endpoint took for one request.
    pub(super) fn record(&self, kind: EventKind, took: Duration) {
        self.latencies[kind as usize].record(took);
    }

    /// One event more waits.
    pub(super) fn enter(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// One event waits no more.
    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Each kind and outcome that there was, with its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        KINDS.iter().zip(&self.counts).flat_map(|(kind, counts)| {
            let counts = OUTCOMES.iter().zip(counts);
            let counts = counts.map(|(outcome, count)| (*kind, *outcome, count.load(Ordering::Relaxed)));
            counts.filter(|(_, _, count)| *count > 0)
        })
    }

    /// How long endpoints took, for each kind that there was.
    pub fn latencies(&self) -> impl Iterator<Item = (&'static str, &Latency)> {
        let latencies = KINDS.iter().zip(&self.latencies).map(|(kind, latency)| (*kind, latency));
        latencies.filter(|(_, latency)| latency.read().count > 0)
    }

    /// Events that wait now.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_was_is_counted_by_kind_and_outcome() {
        let tally = UpstreamTally::default();
        assert_eq!((tally.counts().count(), tally.latencies().count()), (0, 0));
        tally.count(EventKind::User, Outcome::Dropped);
        tally.count(EventKind::Connect, Outcome::Answered);
        tally.record(EventKind::Queued, Duration::ZERO);
        let counts: Vec<_> = tally.counts().collect();
        assert_eq!(counts, [("connect", "answered", 1), ("user", "dropped", 1)]);
        assert_eq!(tally.latencies().map(|(kind, _)| kind).collect::<Vec<_>>(), ["queued"]);
    }
}
