//! [`CheckpointCounters`]: what a node has counted of connections that the store keeps.

use std::sync::atomic::AtomicU64;

/// Counted since the node started.
#[derive(Debug, Default)]
pub struct CheckpointCounters {
    /// Records of connections that were written.
    pub written: AtomicU64,
    /// Those that the store did not take; they are written again.
    pub unwritten: AtomicU64,
    /// Connections of dead nodes that were resumed from the store.
    pub resumed: AtomicU64,
    /// Those that could not be, although there was a record.
    pub unresumed: AtomicU64,
    /// Connections that were ended here because another node has them.
    pub fenced: AtomicU64,
}
