//! What the edge counts, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use tieline_proto::ErrorCode;

use super::proxy_protocol::HeaderError;

/// Totals since the start. Shared by all sockets; each count is an addition without order.
#[derive(Debug)]
pub struct HttpTally {
    /// Sockets accepted.
    pub accepted: AtomicU64,
    /// Sockets that became connections.
    pub upgraded: AtomicU64,
    /// Requests that were not HTTP, too large, or not complete in time.
    pub malformed: AtomicU64,
    /// Connections closed for want of a proper header of the PROXY protocol, by reason.
    header_refused: [AtomicU64; HeaderError::ALL.len()],
    /// Requests refused, by row of the table of errors.
    refused: Vec<AtomicU64>,
}

impl Default for HttpTally {
    fn default() -> Self {
        HttpTally {
            accepted: AtomicU64::default(),
            upgraded: AtomicU64::default(),
            malformed: AtomicU64::default(),
            header_refused: Default::default(),
            refused: ErrorCode::ALL.iter().map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl HttpTally {
    /// Counts one refusal.
    pub fn count_refused(&self, code: ErrorCode) {
        self.refused[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was closed at its first bytes, and says whether it was the first one for this reason.
    pub(super) fn count_header(&self, error: HeaderError) -> bool {
        self.header_refused[error as usize].fetch_add(1, Ordering::Relaxed) == 0
    }

    /// How many connections were closed for each reason.
    pub fn header_refused(&self) -> impl Iterator<Item = (HeaderError, u64)> {
        let counts = HeaderError::ALL.iter().zip(&self.header_refused);
        counts.map(|(error, count)| (*error, count.load(Ordering::Relaxed)))
    }

    /// Each row that was refused by, with its count.
    pub fn refused(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        let counts = ErrorCode::ALL.iter().zip(&self.refused);
        counts.map(|(code, count)| (*code, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }
}
