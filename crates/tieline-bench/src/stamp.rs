//! The stamp inside each payload: which message this is and when it was due.
//! It is fixed-width ASCII, so that a server may carry it in JSON untouched and the floor may copy it as bytes.
//! It says nothing of senders or receivers: the ledger knows those by the message's number.
//! Tested here: what is written is read back from anywhere in a frame.

use memchr::memmem;

/// What a stamp begins with. Two characters that no field name of any protocol spoken here contains side by side.
pub(crate) const MARKER: &[u8; 4] = b"Zq~s";
/// Digits of the message number: 48 bits.
const NUMBER_DIGITS: usize = 12;
/// Digits of the time in nanoseconds since the run's clock started: 48 bits, about 78 hours.
const TIME_DIGITS: usize = 12;
/// Bytes of a whole stamp.
pub(crate) const LENGTH: usize = MARKER.len() + NUMBER_DIGITS + TIME_DIGITS;

/// One message's identity and due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Number of the message within the fleet's life, from 0.
    pub(crate) number: u64,
    /// Nanoseconds between the start of the run's clock and the moment this message was due to be sent.
    pub(crate) due_ns: u64,
}

impl Stamp {
    /// The stamp as bytes.
    pub(crate) fn encode(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(MARKER);
        write_hex(&mut bytes[4..4 + NUMBER_DIGITS], self.number);
        write_hex(&mut bytes[4 + NUMBER_DIGITS..], self.due_ns);
        bytes
    }

    /// Reads the stamp in `payload`. `hint` is where the last one was found, which is where the next one nearly
    /// always is: servers put the same envelope around each message.
    pub(crate) fn find(payload: &[u8], hint: &mut usize) -> Option<Self> {
        if let Some(stamp) = payload.get(*hint..).and_then(Self::decode) {
            return Some(stamp);
        }
        let at = memmem::find(payload, MARKER)?;
        *hint = at;
        Self::decode(&payload[at..])
    }

    /// Reads a stamp at the beginning of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < LENGTH || !bytes.starts_with(MARKER) {
            return None;
        }
        let number = read_hex(&bytes[4..4 + NUMBER_DIGITS])?;
        let due_ns = read_hex(&bytes[4 + NUMBER_DIGITS..LENGTH])?;
        Some(Self { number, due_ns })
    }
}

/// Writes the low digits of `value` in hexadecimal, filling `into`.
pub(crate) fn write_hex(into: &mut [u8], mut value: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// Reads hexadecimal digits in lower case; anything else is `None`.
pub(crate) fn read_hex(from: &[u8]) -> Option<u64> {
    from.iter().try_fold(0u64, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_is_found_wherever_it_stands(number in 0u64..1 << 48, due_ns in 0u64..1 << 48,
                                               before in "[a-z{}\":,]{0,60}", hint in 0usize..100) {
            let stamp = Stamp { number, due_ns };
            let mut payload = before.clone().into_bytes();
            payload.extend_from_slice(&stamp.encode());
            payload.extend_from_slice(b"xxx\"}");
            let mut hint = hint;
            prop_assert_eq!(Stamp::find(&payload, &mut hint), Some(stamp));
            prop_assert_eq!(hint, before.len());
        }
    }

    #[test]
    fn a_damaged_stamp_is_none() {
        let mut bytes = Stamp { number: 7, due_ns: 9 }.encode();
        bytes[6] = b'G';
        assert_eq!(Stamp::find(&bytes, &mut 0), None);
        assert_eq!(Stamp::find(&bytes[..LENGTH - 1], &mut 0), None);
        assert_eq!(Stamp::find(b"{\"type\":\"ack\"}", &mut 0), None);
    }
}
