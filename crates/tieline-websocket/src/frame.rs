//! Frames as bytes: opcodes, the header in both directions, and whole frames for a server and for a client.
//! Not the rules between frames (fragments, UTF-8, limits): those are the decoder's.
//!
//! Tested by the byte vectors of RFC 6455 (5.7) and by properties in `tests/`.

use std::ops::Deref;

use crate::decoder::DecodeError;
use crate::mask::apply_mask;

/// The longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// The longest payload of a control frame (RFC 6455, 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_OR_3: u8 = 0x30;
const MASKED: u8 = 0x80;

/// What a frame is (RFC 6455, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation,
    /// The first fragment, or the whole, of a text message.
    Text,
    /// The first fragment, or the whole, of a binary message.
    Binary,
    /// The end of the connection.
    Close,
    /// A question whether the peer is there.
    Ping,
    /// The answer to a ping, or a sign of life by itself.
    Pong,
}

impl Opcode {
    /// The four bits of the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// The opcode of the lower four bits of `byte`; `None` for those that are reserved.
    pub const fn from_bits(byte: u8) -> Option<Self> {
        Some(match byte & 0x0f {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a control frame: never fragmented, at most 125 bytes, allowed between fragments.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What a message is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// The header of one frame, parsed or to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// RSV1: the message that starts with this frame is compressed (RFC 7692, 6).
    pub compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key; a client's frames have one, a server's have none.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload, below 2^63.
    pub len: u64,
}

impl FrameHeader {
    /// Parses the header at the start of `bytes`, and says how many bytes it took; `None` while it is incomplete.
    ///
    /// # Errors
    /// For what no frame may be, as soon as the byte that shows it is there: reserved bits and opcodes, long or
    /// fragmented control frames, lengths that are not minimal or above 2^63. Whether a mask, RSV1 or a
    /// continuation is in order here is for the decoder to say.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & RSV2_OR_3 != 0 {
            return Err(DecodeError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first).ok_or(DecodeError::ReservedOpcode(first & 0x0f))?;
        let fin = first & FIN != 0;
        let compressed = first & RSV1 != 0;
        if opcode.is_control() && !fin {
            return Err(DecodeError::FragmentedControl);
        }
        if opcode.is_control() && compressed {
            return Err(DecodeError::ReservedBits);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let short = second & !MASKED;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL_PAYLOAD {
            return Err(DecodeError::LongControl);
        }
        let (len, at) = match short {
            126 => {
                let Some(field) = bytes[2..].first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*field)), 4)
            }
            127 => {
                let Some(field) = bytes[2..].first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*field), 10)
            }
            len => (u64::from(len), 2),
        };
        if short == 126 && len < 126 || short == 127 && len <= u64::from(u16::MAX) {
            return Err(DecodeError::LengthNotMinimal);
        }
        if len >> 63 != 0 {
            return Err(DecodeError::LengthTopBit);
        }
        if second & MASKED == 0 {
            return Ok(Some((Self { fin, compressed, opcode, mask: None, len }, at)));
        }
        let Some(mask) = bytes[at..].first_chunk() else { return Ok(None) };
        Ok(Some((Self { fin, compressed, opcode, mask: Some(*mask), len }, at + 4)))
    }

    /// The header's bytes, with the shortest form of the length.
    #[inline]
    pub fn encode(&self) -> HeaderBytes {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] =
            self.opcode.bits() | if self.fin { FIN } else { 0 } | if self.compressed { RSV1 } else { 0 };
        let mut used = if self.len < 126 {
            bytes[1] = self.len as u8;
            2
        } else if let Ok(len) = u16::try_from(self.len) {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            4
        } else {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&self.len.to_be_bytes());
            10
        };
        if let Some(mask) = self.mask {
            bytes[1] |= MASKED;
            bytes[used..used + 4].copy_from_slice(&mask);
            used += 4;
        }
        HeaderBytes { bytes, len: used as u8 }
    }
}

/// An encoded header, on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeaderBytes {
    /// The header, then zeros.
    bytes: [u8; MAX_HEADER],
    /// How many of the bytes are the header: 2 to 14.
    len: u8,
}

impl Deref for HeaderBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for HeaderBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HeaderBytes").field(&&**self).finish()
    }
}

/// The header of an unmasked final frame, as a server sends it: 2, 4 or 10 bytes.
///
/// With it a payload that is shared by many recipients is framed without being copied.
#[inline]
pub fn server_header(opcode: Opcode, compressed: bool, len: usize) -> HeaderBytes {
    FrameHeader { fin: true, compressed, opcode, mask: None, len: len as u64 }.encode()
}

/// The header of a masked final frame, as a client sends it: 6, 8 or 14 bytes. The payload that follows must
/// be masked with the same `mask`, see [`apply_mask`].
#[inline]
pub fn client_header(opcode: Opcode, compressed: bool, len: usize, mask: [u8; 4]) -> HeaderBytes {
    FrameHeader { fin: true, compressed, opcode, mask: Some(mask), len: len as u64 }.encode()
}

/// Appends a whole unmasked frame, as a server sends it. A control frame's payload is at most
/// [`MAX_CONTROL_PAYLOAD`] bytes: the caller sees to that, as a peer refuses more.
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    encode_frame(out, FrameHeader { fin: true, compressed: false, opcode, mask: None, len: 0 }, payload);
}

/// Appends a whole masked frame, as a client sends it. The same bound of control frames as in [`encode`].
pub fn encode_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    encode_frame(
        out,
        FrameHeader { fin: true, compressed: false, opcode, mask: Some(mask), len: 0 },
        payload,
    );
}

/// Appends a frame with any header: fragments, compressed messages, either side. The length is the payload's,
/// whatever the header says, and the payload is masked when the header has a mask.
pub fn encode_frame(out: &mut Vec<u8>, header: FrameHeader, payload: &[u8]) {
    let head = FrameHeader { len: payload.len() as u64, ..header }.encode();
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(&head);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = header.mask {
        apply_mask(&mut out[start..], mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_survives_its_bits() {
        for bits in 0..=15 {
            match Opcode::from_bits(bits) {
                Some(opcode) => assert_eq!(opcode.bits(), bits),
                None => assert!(matches!(bits, 3..=7 | 11..=15), "{bits} is not reserved"),
            }
        }
    }

    #[test]
    fn lengths_take_their_shortest_form() {
        for (len, size) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (1 << 40, 10)] {
            assert_eq!(server_header(Opcode::Binary, false, len).len(), size, "{len}");
            assert_eq!(client_header(Opcode::Binary, false, len, [1, 2, 3, 4]).len(), size + 4, "{len}");
        }
    }

    #[test]
    fn a_header_parses_back_from_every_prefix_that_is_whole() {
        for len in [0, 1, 125, 126, 127, 65535, 65536, (1 << 63) - 1] {
            for mask in [None, Some([9, 8, 7, 6])] {
                let header = FrameHeader { fin: false, compressed: true, opcode: Opcode::Text, mask, len };
                let bytes = header.encode();
                for cut in 0..bytes.len() {
                    assert_eq!(FrameHeader::parse(&bytes[..cut]), Ok(None), "{header:?} cut at {cut}");
                }
                assert_eq!(FrameHeader::parse(&bytes), Ok(Some((header, bytes.len()))));
            }
        }
    }

    #[test]
    fn what_no_frame_may_be_is_refused_at_its_first_sign() {
        use DecodeError::*;
        let cases: [(&[u8], DecodeError); 12] = [
            (&[0xa1], ReservedBits),
            (&[0x91], ReservedBits),
            (&[0xc9], ReservedBits),
            (&[0x83], ReservedOpcode(3)),
            (&[0x8f], ReservedOpcode(15)),
            (&[0x09], FragmentedControl),
            (&[0x89, 0x7e], LongControl),
            (&[0x88, 0xff], LongControl),
            (&[0x82, 0x7e, 0x00, 0x7d], LengthNotMinimal),
            (&[0x82, 0xfe, 0x00, 0x00], LengthNotMinimal),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], LengthNotMinimal),
            (&[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], LengthTopBit),
        ];
        for (bytes, error) in cases {
            assert_eq!(FrameHeader::parse(bytes), Err(error), "{bytes:02x?}");
        }
    }
}
