//! Quartiles of paired ratios and a histogram for latencies.
//! No confidence intervals: seven pairs and their quartiles are what the targets are written in.
//! Tested here against sorted lists.

use serde::Serialize;

/// Median and quartiles of a handful of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quartiles {
    /// A quarter of the values lie below it.
    pub lower: f64,
    /// Half of the values lie below it.
    pub median: f64,
    /// Three quarters of the values lie below it.
    pub upper: f64,
}

impl Quartiles {
    /// Linear interpolation between the nearest two values; `None` for no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (sorted.len().checked_sub(1)?) as f64;
            let below = *sorted.get(place.floor() as usize)?;
            let above = *sorted.get(place.ceil() as usize)?;
            Some(below + (above - below) * place.fract())
        };
        Some(Self { lower: at(0.25)?, median: at(0.5)?, upper: at(0.75)? })
    }
}

/// Buckets per power of two: values are kept to within 1/128, that is 0.8 %.
const STEPS: usize = 128;
/// Powers of two above the exact range; with [`STEPS`] they reach 2^39 ns, nine minutes, and the last bucket has the rest.
const OCTAVES: usize = 33;

/// Counts of durations in nanoseconds, in memory that does not depend on how many there were.
#[derive(Clone)]
pub struct Histogram {
    /// How many values fell into each bucket: exact below [`STEPS`], then [`STEPS`] to the octave.
    counts: Vec<u64>,
    /// How many values there were.
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * OCTAVES], total: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, nanoseconds: u64) {
        let last = self.counts.len() - 1;
        self.counts[bucket(nanoseconds).min(last)] += 1;
        self.total += 1;
    }

    /// Counts what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, others)| *count += others);
        self.total += other.total;
    }

    /// The value that `part` of all values do not exceed (0.5 is the median), in nanoseconds; 0 when there are none.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = ((part * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(index);
            }
        }
        0
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    // The topmost eight bits, their leading one replaced by the octave's number.
    let shift = 63 - value.leading_zeros() as usize - STEPS.trailing_zeros() as usize;
    (shift + 1) * STEPS + (value >> shift) as usize - STEPS
}

/// The middle of a bucket's values.
fn middle(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let lowest = ((bucket % STEPS + STEPS) as u64) << shift;
    lowest + ((1u64 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quartiles_of_seven_are_the_second_fourth_and_sixth_and_a_half() {
        let found = Quartiles::of([7.0, 1.0, 3.0, 2.0, 6.0, 5.0, 4.0]).unwrap();
        assert_eq!(found, Quartiles { lower: 2.5, median: 4.0, upper: 5.5 });
        assert_eq!(Quartiles::of([2.0]).unwrap(), Quartiles { lower: 2.0, median: 2.0, upper: 2.0 });
        assert_eq!(Quartiles::of([]), None);
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::default().quantile(0.99), 0);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_hundredth_of_the_sorted_list(mut values in prop::collection::vec(0u64..1 << 38, 1..300),
                                                               part in 0.01f64..1.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value));
            values.sort_unstable();
            let exact = values[((part * values.len() as f64).ceil() as usize).max(1) - 1] as f64;
            let found = histogram.quantile(part) as f64;
            prop_assert!((found - exact).abs() <= exact / 100.0, "{} is not near {}", found, exact);
        }
    }

    #[test]
    fn what_is_off_the_scale_is_counted_in_the_last_bucket() {
        let mut histogram = Histogram::default();
        histogram.add(u64::MAX);
        assert!(histogram.quantile(0.5) > 1 << 38);
    }
}
