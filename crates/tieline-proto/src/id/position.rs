//! [`Position`]: a place in a log.

use serde::{Deserialize, Serialize};

/// The largest whole number that JavaScript holds exactly (2^53 − 1): the bound of epochs and offsets on the
/// wire.
pub const MAX_EXACT: u64 = (1 << 53) - 1;

/// The place of one durable message in its log: offsets of different epochs cannot be compared.
///
/// Ordered by epoch first, so that "later" holds within one log's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Which life of the log: a new one begins when a store comes back without messages it had acknowledged.
    pub epoch: u64,
    /// The number within the epoch.
    pub offset: u64,
}

impl<'de> Deserialize<'de> for Position {
    /// Refuses numbers above [`MAX_EXACT`]: a client that sends one has already lost bits.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The raw form, before the bound is checked.
        #[derive(Deserialize)]
        struct Raw {
            epoch: u64,
            offset: u64,
        }
        let Raw { epoch, offset } = Raw::deserialize(deserializer)?;
        if epoch > MAX_EXACT || offset > MAX_EXACT {
            return Err(serde::de::Error::custom("a position's numbers are below 2^53"));
        }
        Ok(Position { epoch, offset })
    }
}
