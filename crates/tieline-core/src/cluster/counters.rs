//! [`ClusterCounters`]: what a node has counted of its dealings with others, read by `/metrics`.

use std::sync::atomic::AtomicU64;

use crate::latency::Latency;

/// What the cluster has counted since its start.
#[derive(Debug, Default)]
pub struct ClusterCounters {
    /// Envelopes handed to the broker.
    pub sent: AtomicU64,
    /// Envelopes that the broker did not take.
    pub not_taken: AtomicU64,
    /// Envelopes that arrived.
    pub received: AtomicU64,
    /// Envelopes that could not be read.
    pub malformed: AtomicU64,
    /// Envelopes that had been seen before.
    pub again: AtomicU64,
    /// Numbers that were missing.
    pub missing: AtomicU64,
    /// Messages of other nodes that a full shard did not take.
    pub dropped: AtomicU64,
    /// Words of other nodes that were dropped because the task was too far behind.
    pub words_dropped: AtomicU64,
    /// Envelopes that were taken in although what should be before them had not come within a beat.
    pub out_of_order: AtomicU64,
    /// Signs of life of nodes that are taken for dead because a younger one has their name.
    pub outnamed: AtomicU64,
    /// Joins and logins that were answered although not every node had read of them.
    pub unread: AtomicU64,
    /// Messages that were handed on to where their user had come.
    pub handed_on: AtomicU64,
    /// Messages that were held for users who did not come in time.
    pub held_in_vain: AtomicU64,
    /// Gaps that clients were told of.
    pub gaps: AtomicU64,
    /// How long connections waited for the other nodes to have read of their joins and logins, and calls of a back end for those
    /// that they made.
    pub read_wait: Latency,
}
