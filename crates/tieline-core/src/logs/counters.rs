//! [`LogCounters`]: what the durable side of a node has counted.

use std::sync::atomic::AtomicU64;

use crate::latency::Latency;

/// Counted since the node started.
#[derive(Debug, Default)]
pub struct LogCounters {
    /// Messages that the store took.
    pub stored: AtomicU64,
    /// Messages that it had taken before: the same ones, said again.
    pub again: AtomicU64,
    /// Messages that were not accepted, or of which nobody knows.
    pub failed: AtomicU64,
    /// Messages of logs that were handed to shards.
    pub delivered: AtomicU64,
    /// Messages that were given to connections that came back.
    pub caught_up: AtomicU64,
    /// Messages of other nodes that had no room here, and were read from the store later.
    pub not_taken: AtomicU64,
    /// Pages that were read.
    pub pages: AtomicU64,
    /// Losses of messages that were trimmed before this node had delivered them.
    pub losses: AtomicU64,
    /// How long the store took for a message.
    pub append_wait: Latency,
}
