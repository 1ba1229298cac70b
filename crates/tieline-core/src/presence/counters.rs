//! [`PresenceCounters`]: what is counted of presence.

use std::sync::atomic::AtomicU64;

/// Totals since the start of the node.
#[derive(Debug, Default)]
pub struct PresenceCounters {
    /// Users that have come.
    pub joins: AtomicU64,
    /// Users that have gone.
    pub leaves: AtomicU64,
    /// Frames of these that were handed to shards with subscribers.
    pub frames: AtomicU64,
    /// Frames that a shard had no room for; its clients were told of a gap.
    pub dropped: AtomicU64,
}
