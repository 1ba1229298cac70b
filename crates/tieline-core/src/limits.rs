//! What a client may ask for, and how often.

use std::time::Duration;

/// Limits of sessions. The switchboard's own (frame and message sizes, lag, pings) stand in its settings.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Groups that one connection may be in.
    pub groups_per_connection: usize,
    /// Connections that one user may have on this node; 0 for any number.
    pub connections_per_user: usize,
    /// Messages a second that one connection may send on the average; 0 for any number.
    pub messages_per_second: u32,
    /// Messages that it may send at once.
    pub message_burst: u32,
    /// Malformed or refused-for-rate frames in a row after which the connection is closed.
    pub faults: u8,
    /// How long a client of `tieline.v1` may take to ask for its inbox, before what comes is given to it anyway.
    pub hello: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            groups_per_connection: 1_000,
            connections_per_user: 100,
            messages_per_second: 1_000,
            message_burst: 2_000,
            faults: 20,
            hello: Duration::from_secs(10),
        }
    }
}

/// A token bucket of 16 bytes: `messages_per_second` fill it, `message_burst` is its size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// Thousandths of a message that were spent and not refilled.
    spent: u64,
    /// When it was last refilled, in milliseconds of the shard's clock.
    at_ms: u64,
}

impl Bucket {
    /// Takes one message out, if there is one.
    pub(crate) fn take(&mut self, limits: &Limits, now_ms: u64) -> bool {
        if limits.messages_per_second == 0 {
            return true;
        }
        let refill = now_ms.saturating_sub(self.at_ms).saturating_mul(u64::from(limits.messages_per_second));
        self.spent = self.spent.saturating_sub(refill);
        self.at_ms = now_ms;
        let size = u64::from(limits.message_burst.max(1)) * 1000;
        if self.spent + 1000 > size {
            return false;
        }
        self.spent += 1000;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_average() {
        let limits = Limits { messages_per_second: 10, message_burst: 5, ..Limits::default() };
        let mut bucket = Bucket::default();
        let taken = (0..10).filter(|_| bucket.take(&limits, 1_000_000)).count();
        assert_eq!(taken, 5);
        let taken = (0..10_000).filter(|ms| bucket.take(&limits, 1_000_000 + ms)).count();
        assert_eq!(taken, 99, "ten a second for 9.999 seconds");
    }
}
