//! WebSocket frames as a load generator needs them: client frames are written masked, server frames are skimmed.
//!
//! This is not a WebSocket implementation. The skimmer reads the header, finds the payload and does not check UTF-8,
//! reserved bits or fragments, because on the measuring path whatever the generator spends on a frame is taken from
//! the rate at which it can load a server; the product's codec has tests of its own for all of that. A frame that
//! claims more than [`LONGEST`] ends the run. Tested here against hand-written bytes and by a round trip.

/// Longest payload that a server may send to the generator. Above it the run ends: nothing here asks for so much.
pub(crate) const LONGEST: u64 = 192 << 10;

/// Opcode of a text frame.
pub(crate) const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub(crate) const BINARY: u8 = 2;
/// Opcode of a close frame.
pub(crate) const CLOSE: u8 = 8;
/// Opcode of a ping frame.
pub(crate) const PING: u8 = 9;
/// Opcode of a pong frame.
pub(crate) const PONG: u8 = 10;

/// Where one frame lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The four opcode bits.
    pub(crate) opcode: u8,
    /// Bytes of header, the masking key included.
    pub(crate) header: usize,
    /// Bytes of payload.
    pub(crate) payload: usize,
}

impl Head {
    /// Bytes of the whole frame.
    pub(crate) fn total(self) -> usize {
        self.header + self.payload
    }
}

/// A frame longer than [`LONGEST`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong(pub(crate) u64);

/// Reads the header at the beginning of `bytes`. `None`: the frame, header or payload, has not wholly arrived.
pub(crate) fn skim(bytes: &[u8]) -> Result<Option<Head>, TooLong> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let key = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, extended) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    if length > LONGEST {
        return Err(TooLong(length));
    }
    let head = Head { opcode: first & 15, header: 2 + extended + key, payload: length as usize };
    Ok((bytes.len() >= head.total()).then_some(head))
}

/// Appends the header of a final frame, without masking key.
pub(crate) fn header(out: &mut Vec<u8>, opcode: u8, payload: usize, mask_bit: u8) {
    out.push(0x80 | opcode);
    if payload < 126 {
        out.push(mask_bit | payload as u8);
    } else if payload <= 0xffff {
        out.push(mask_bit | 126);
        out.extend_from_slice(&(payload as u16).to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&(payload as u64).to_be_bytes());
    }
}

/// Appends a whole client frame. `key` is the masking key; zero leaves the payload readable, as the floor wants it.
pub(crate) fn client(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: [u8; 4]) {
    header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    if key != [0; 4] {
        for (byte, key) in out[start..].iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
    }
}

/// Appends a whole server frame.
pub(crate) fn server(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Bytes of payload in a server frame of `total` bytes, header included, or the nearest that exists.
pub(crate) fn payload_within(total: usize) -> usize {
    match total {
        0..=127 => total.saturating_sub(2),
        128..=65_539 => (total - 4).max(126),
        _ => total - 10,
    }
}

/// Code and reason of a close frame's payload. Without any, the code is 1005.
pub(crate) fn close_reason(payload: &[u8]) -> (u16, String) {
    match payload {
        [high, low, reason @ ..] => {
            (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
        }
        _ => (1005, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_skimmed(length in prop_oneof![0usize..300, 65_500usize..65_600], key: [u8; 4]) {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut bytes = Vec::new();
            client(&mut bytes, BINARY, &payload, key);
            let head = skim(&bytes).unwrap().unwrap();
            prop_assert_eq!((head.opcode, head.payload, head.total()), (BINARY, length, bytes.len()));
            let unmasked: Vec<u8> = bytes[head.header..].iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
            prop_assert_eq!(unmasked, payload);
            for cut in [0, 1, 2, 5, bytes.len() - 1] {
                if cut < bytes.len() {
                    prop_assert_eq!(skim(&bytes[..cut]).unwrap(), None);
                }
            }
        }

        #[test]
        fn a_frame_of_a_given_size_has_that_size(total in prop_oneof![2usize..=127, 130usize..=65_539, 65_546usize..70_000]) {
            let mut bytes = Vec::new();
            server(&mut bytes, TEXT, &vec![b'x'; payload_within(total)]);
            prop_assert_eq!(bytes.len(), total);
        }
    }

    #[test]
    fn the_example_of_the_standard_is_understood() {
        let mut bytes = Vec::new();
        client(&mut bytes, TEXT, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(bytes, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(skim(&[0x88, 2, 3, 0xf0]).unwrap(), Some(Head { opcode: CLOSE, header: 2, payload: 2 }));
    }

    #[test]
    fn close_codes_are_read() {
        assert_eq!(close_reason(&[3, 0xf0, b'n', b'o']), (1008, "no".to_owned()));
        assert_eq!(close_reason(&[]), (1005, String::new()));
    }

    #[test]
    fn a_frame_too_long_is_an_error_before_it_arrives() {
        let claim = [0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(skim(&claim), Err(TooLong(1 << 32)));
    }
}
