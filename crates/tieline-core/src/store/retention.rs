//! [`Retention`]: how much of a log is kept, and how long.

use std::time::Duration;

/// Bounds of a log; the first one that is reached counts. Each append brings the bounds of its log, so that a change of
/// configuration reaches a log with its next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Messages that are kept. The newest one is, whatever this says.
    pub count: u64,
    /// Bytes of bodies that are kept. The newest message is, whatever its size.
    pub bytes: u64,
    /// How long a message is kept, counted from the time in its id. A log without messages is forgotten itself when
    /// nothing was appended for twice as long.
    pub age: Duration,
}

impl Default for Retention {
    /// A thousand messages, 16 MiB, a day.
    fn default() -> Self {
        Retention { count: 1000, bytes: 16 << 20, age: Duration::from_secs(24 * 3600) }
    }
}

impl Retention {
    /// The age in milliseconds, as engines keep it: at most 2^53, which is for ever.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX).min(tieline_proto::id::MAX_EXACT)
    }
}
