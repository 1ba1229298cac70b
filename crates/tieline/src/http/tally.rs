//! What the edge counts, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use tieline_proto::ErrorCode;

/// Totals since the start. Shared by all sockets; each count is an addition without order.
#[derive(Debug)]
pub struct HttpTally {
    /// Sockets accepted.
    pub accepted: AtomicU64,
    /// Sockets that became connections.
    pub upgraded: AtomicU64,
    /// Requests that were not HTTP, too large, or not complete in time.
    pub malformed: AtomicU64,
    /// Requests refused, by row of the table of errors.
    refused: Vec<AtomicU64>,
}

impl Default for HttpTally {
    fn default() -> Self {
        HttpTally {
            accepted: AtomicU64::default(),
            upgraded: AtomicU64::default(),
            malformed: AtomicU64::default(),
            refused: ErrorCode::ALL.iter().map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl HttpTally {
    /// Counts one refusal.
    pub fn count_refused(&self, code: ErrorCode) {
        self.refused[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each row that was refused by, with its count.
    pub fn refused(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        let counts = ErrorCode::ALL.iter().zip(&self.refused);
        counts.map(|(code, count)| (*code, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }
}
