//! [`Pace`]: how many connections are due in each step, so that it comes to a rate. Without a clock. Tested here.

use std::time::Duration;

/// However long a step took, it counts as no more: who stood still does not send all at once afterwards.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// A rate, of which each step may be up to a half more, or less.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    /// What is left of the steps before: less than one.
    owed: f64,
}

impl Pace {
    /// So many of a hundred connections in a second, and one at least.
    pub(super) fn new(connections: u64, percent: u32) -> Self {
        let per_second = connections as f64 * f64::from(percent) / 100.0;
        Pace { per_second: per_second.max(1.0), owed: 0.0 }
    }

    /// How many are due after a step; `chance` is between 0 and 1.
    pub(super) fn due(&mut self, step: Duration, chance: f64) -> usize {
        let step = step.min(LONGEST_STEP).as_secs_f64();
        self.owed += self.per_second * step * (0.5 + chance);
        let due = self.owed.floor();
        self.owed -= due;
        due as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(connections: u64, percent: u32, steps: &[(u64, f64)]) -> usize {
        let mut pace = Pace::new(connections, percent);
        steps.iter().map(|(ms, chance)| pace.due(Duration::from_millis(*ms), *chance)).sum()
    }

    proptest! {
        #[test]
        fn no_jitter_makes_it_more_than_half_as_much_again_or_less_than_half(
            connections in 0..100_000_u64, percent in 1..=100_u32,
            steps in proptest::collection::vec((0..1_000_u64, 0.0..1.0_f64), 1..100),
        ) {
            let seconds = steps.iter().map(|(ms, _)| *ms).sum::<u64>() as f64 / 1000.0;
            let mean = (connections as f64 * f64::from(percent) / 100.0).max(1.0) * seconds;
            let sent = sent(connections, percent, &steps) as f64;
            prop_assert!(sent <= mean * 1.5 + 1e-6 && sent + 1.0 >= mean * 0.5 - 1e-6, "{} of {}", sent, mean);
        }
    }

    #[test]
    fn five_of_a_hundred_a_second_and_one_at_least() {
        let second = vec![(100, 0.5); 10];
        assert!((49..=50).contains(&sent(1000, 5, &second)));
        assert!((0..=1).contains(&sent(3, 5, &second)));
        assert!(sent(3, 5, &[(100, 0.5); 30]) >= 2, "a few connections go, too");
        assert_eq!(sent(0, 5, &[]), 0);
    }

    #[test]
    fn a_standstill_is_not_made_good() {
        assert!(sent(1000, 5, &[(3_600_000, 0.5)]) <= 50);
    }
}
