//! Ids and times of messages: the server's word.

use std::time::{SystemTime, UNIX_EPOCH};

use tieline_proto::{Incarnation, MessageId};

/// Makes message ids for one thread. Their random part comes from a fast generator (xoshiro256++, Blackman and
/// Vigna 2019), seeded by the system: ids must be distinct, they need not be secret.
#[derive(Debug)]
pub(crate) struct Stamper([u64; 4]);

impl Stamper {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Ok(Stamper(state))
    }

    /// A new message's time in Unix milliseconds, and its id.
    pub(crate) fn stamp(&mut self) -> (u64, MessageId) {
        let now = unix_ms();
        (now, MessageId::new(now, u128::from(self.next()) << 64 | u128::from(self.next())))
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

/// Bits of an incarnation that are left to chance.
const CHANCE_BITS: u32 = 20;

/// The number of a start that happens now, of time and chance: distinct from every other start, and growing with each restart of a
/// node.
pub(crate) fn incarnation(stamper: &mut Stamper) -> Incarnation {
    Incarnation(unix_ms() << CHANCE_BITS | (stamper.next() & ((1 << CHANCE_BITS) - 1)))
}

/// When a start was, in Unix milliseconds, by the clock of its machine.
pub(crate) fn started(incarnation: Incarnation) -> u64 {
    incarnation.0 >> CHANCE_BITS
}

/// The wall clock in Unix milliseconds; 0 where it stands before 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_and_tell_their_time() {
        let mut stamper = Stamper::new().unwrap();
        let stamps: Vec<_> = (0..100_000).map(|_| stamper.stamp()).collect();
        assert!(stamps.iter().all(|(time, id)| id.unix_ms() == *time));
        let ids: HashSet<_> = stamps.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), stamps.len());
    }
}
