//! [`StoreId`] and epochs: the random numbers that tell stores, and lives of logs, apart. Tested here.

use std::fmt;

use tieline_proto::id::MAX_EXACT;

/// Which store this is: drawn once, when it was made, and kept in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(
    /// All 128 bits are random.
    pub u128,
);

impl StoreId {
    /// The id of a store that is being made.
    ///
    /// # Panics
    /// When the system has no random bits to give.
    #[must_use]
    pub fn fresh() -> Self {
        StoreId((u128::from(random()) << 64) | u128::from(random()))
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The epoch of a log that begins: never 0, and exact in JavaScript.
///
/// # Panics
/// When the system has no random bits to give.
#[must_use]
pub fn fresh_epoch() -> u64 {
    1 + random() % MAX_EXACT
}

pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the system gives random bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_exact_and_differ() {
        let mut epochs: Vec<u64> = (0..1000).map(|_| fresh_epoch()).collect();
        assert!(epochs.iter().all(|epoch| (1..=MAX_EXACT).contains(epoch)));
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(epochs.len(), 1000);
        assert_eq!(StoreId::fresh().to_string().len(), 32);
    }
}
