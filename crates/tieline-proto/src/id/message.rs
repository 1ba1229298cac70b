//! [`MessageId`]: a ULID (<https://github.com/ulid/spec>), made of time and random bits that the caller
//! brings.

use std::{fmt, str::FromStr};

use super::{IdError, serde_as_text};

/// Crockford's base 32: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The bits below the time.
const RANDOM_BITS: u32 = 80;

/// The id the server gives a message: 48 bits of Unix milliseconds above 80 random bits.
///
/// Ids of different milliseconds sort by time; within one millisecond the order says nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(
    /// The whole 128 bits.
    pub u128,
);

impl MessageId {
    /// Length of the text form, in characters (all ASCII).
    pub const TEXT: usize = 26;

    /// Puts an id together. Bits of `unix_ms` above 48 and of `random` above 80 are dropped: 48 bits last
    /// until the year 10889.
    #[must_use]
    pub const fn new(unix_ms: u64, random: u128) -> Self {
        MessageId(((unix_ms as u128 & ((1 << 48) - 1)) << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1)))
    }

    /// When the id was made, in Unix milliseconds.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        (self.0 >> RANDOM_BITS) as u64
    }

    /// The text form, without an allocation.
    #[must_use]
    pub fn to_text(self) -> [u8; Self::TEXT] {
        let mut text = [0; Self::TEXT];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        text
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    /// 26 letters of the alphabet in capitals, the first at most `7` (26 × 5 bits are two more than there
    /// are).
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fault = IdError("message id");
        let bytes = text.as_bytes();
        if bytes.len() != Self::TEXT || bytes[0] > b'7' {
            return Err(fault);
        }
        let mut value = 0_u128;
        for byte in bytes {
            let digit = ALPHABET.iter().position(|letter| letter == byte).ok_or(fault)?;
            value = (value << 5) | digit as u128;
        }
        Ok(MessageId(value))
    }
}

serde_as_text!(MessageId);
