//! [`ClusterTimes`]: how long anything takes between nodes at most.

use std::time::Duration;

/// Times of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterTimes {
    /// Time between two signs of life.
    pub beat: Duration,
    /// How long a node that cannot be reached is still believed to hold what it held.
    pub lease: Duration,
    /// How long a join or a login waits for the other nodes to have read of it.
    pub read: Duration,
    /// How long an ask waits for the answers of the other nodes.
    pub ask: Duration,
    /// How long a send waits for the receipts of the other nodes, and one that is kept for those of this node too.
    pub receipt: Duration,
}

impl Default for ClusterTimes {
    fn default() -> Self {
        ClusterTimes {
            beat: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            read: Duration::from_secs(1),
            ask: Duration::from_secs(3),
            receipt: Duration::from_secs(1),
        }
    }
}
