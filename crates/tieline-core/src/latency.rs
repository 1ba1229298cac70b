//! [`Latency`]: how long something took, counted in fixed buckets.
//!
//! What is measured are waits and calls, some of which last microseconds and some seconds; never a single message's way
//! through a shard, where reading the clock would cost more than the step. Tested here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds; longer times are counted beyond the last.
pub const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    3_000_000,
];

/// Times since the start, counted by how long they were. Counting is two additions without order, from any thread.
#[derive(Debug, Default)]
pub struct Latency {
    /// Times up to each bound and above the one before, and at the end those beyond the last.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    sum_us: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// How many took at most as long as each bound, those of the bounds below among them.
    pub up_to: [u64; BOUNDS_US.len()],
    /// How many there were.
    pub count: u64,
    /// How long they took together.
    pub sum: Duration,
}

impl Latency {
    /// Counts one time.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far. A time that is counted at this moment may be in the sum and not in the count, or the other way
    /// round.
    pub fn read(&self) -> Latencies {
        let mut count = 0;
        let mut up_to = [0; BOUNDS_US.len()];
        for (bucket, up_to) in self.buckets.iter().zip(&mut up_to) {
            count += bucket.load(Ordering::Relaxed);
            *up_to = count;
        }
        count += self.buckets[BOUNDS_US.len()].load(Ordering::Relaxed);
        Latencies { up_to, count, sum: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_counted_up_to_every_bound_that_it_does_not_exceed() {
        let latency = Latency::default();
        let times = [0, 100, 101, 1_000, 999_999, 3_000_000, 3_000_001, 60_000_000];
        times.iter().for_each(|micros| latency.record(Duration::from_micros(*micros)));
        let read = latency.read();
        for (bound, up_to) in BOUNDS_US.iter().zip(read.up_to) {
            assert_eq!(up_to, times.iter().filter(|time| *time <= bound).count() as u64, "{bound}");
        }
        assert_eq!(read.count, times.len() as u64);
        assert_eq!(read.sum, Duration::from_micros(times.iter().sum()));
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS_US.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
