//! The pause before something that failed is tried again. Tested here.

use std::time::Duration;

/// The pause after so many failures: evenly between nothing and a bound that doubles, so that those who failed at the same
/// moment do not try again at the same moment.
pub fn pause(min: Duration, max: Duration, failures: u32) -> Duration {
    // Should the system have no random number, pauses are at their longest, which is harmless.
    spread(min, max, failures, getrandom::u32().unwrap_or(u32::MAX))
}

fn spread(min: Duration, max: Duration, failures: u32, random: u32) -> Duration {
    let bound = min.saturating_mul(1 << failures.min(16)).min(max);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_are_spread_evenly() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let longest = |failures| spread(min, max, failures, u32::MAX).as_millis();
        assert_eq!([0, 1, 2, 5, 6, 40].map(longest), [100, 200, 400, 3200, 5000, 5000]);
        assert_eq!(spread(min, max, 9, 0), Duration::ZERO);
        assert_eq!(spread(min, max, 9, u32::MAX / 2).as_millis(), 2499);
    }
}
