//! [`GatewayTally`]: what a gateway counts beside its edge and its pipes.

use std::sync::atomic::AtomicU64;

/// Totals since the start. Each count is an addition without order.
#[derive(Debug, Default)]
pub(super) struct GatewayTally {
    /// WebSockets that were joined with a node's.
    pub(super) joined: AtomicU64,
    /// Requests for a WebSocket that a node refused.
    pub(super) refused_by_node: AtomicU64,
    /// Other requests that a node answered.
    pub(super) relayed: AtomicU64,
    /// Attempts at a further node.
    pub(super) retries: AtomicU64,
    /// Attempts that got no answer.
    pub(super) failures: AtomicU64,
}
