//! The close frame: which codes may be on the wire, and its payload in both directions (RFC 6455, 5.5.1 and 7.4).
//! When to send one is the application's decision.
//!
//! Tested here by cutting reasons at every length, and by all 65,536 codes.

use crate::decoder::DecodeError;
use crate::frame::{FrameHeader, MAX_CONTROL_PAYLOAD, Opcode, encode_frame};

/// The longest reason that fits beside its code.
pub const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// Why the peer closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// A code that [`is_valid_close_code`] accepts.
    pub code: u16,
    /// Text for people, at most 123 bytes, possibly empty.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Parses the payload of a close frame; an empty one gives no code, and is in order.
    ///
    /// # Errors
    /// For half a code, a code that must not be on the wire, and a reason that is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return if payload.is_empty() { Ok(None) } else { Err(DecodeError::HalfCloseCode) };
        };
        let code = u16::from_be_bytes(*code);
        if !is_valid_close_code(code) {
            return Err(DecodeError::CloseCode(code));
        }
        let reason = std::str::from_utf8(reason).map_err(|_| DecodeError::Utf8)?;
        Ok(Some(Self { code, reason }))
    }
}

/// Whether `code` may be in a close frame: those of the registry, 1005, 1006 and 1015 excepted as they only
/// stand for frames that never came, and 3000 to 4999, which belong to libraries and applications.
pub const fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a server's close frame. Without a code the frame is empty and the reason left out; a reason above
/// [`MAX_REASON`] bytes is cut where a character ends.
pub fn encode_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    close_frame(out, code, reason, None);
}

/// Appends a client's close frame, with the same rules as [`encode_close`].
pub fn encode_close_masked(out: &mut Vec<u8>, code: Option<u16>, reason: &str, mask: [u8; 4]) {
    close_frame(out, code, reason, Some(mask));
}

fn close_frame(out: &mut Vec<u8>, code: Option<u16>, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = [0; MAX_CONTROL_PAYLOAD];
    let len = match code {
        None => 0,
        Some(code) => {
            let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
            payload[..2].copy_from_slice(&code.to_be_bytes());
            payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
            2 + reason.len()
        }
    };
    let header = FrameHeader { fin: true, compressed: false, opcode: Opcode::Close, mask, len: 0 };
    encode_frame(out, header, &payload[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_codes_of_the_wire_are_valid() {
        let valid: Vec<u16> = (0..=u16::MAX).filter(|&code| is_valid_close_code(code)).collect();
        let mut expected = vec![1000, 1001, 1002, 1003];
        expected.extend(1007..=1014);
        expected.extend(3000..=4999);
        assert_eq!(valid, expected);
    }

    #[test]
    fn a_reason_is_cut_between_characters_and_the_frame_fits() {
        for letter in ["a", "ä", "漢", "𝄞"] {
            for count in 0..200 {
                let reason = letter.repeat(count);
                let mut out = Vec::new();
                encode_close(&mut out, Some(4000), &reason);
                assert!(out.len() <= 2 + MAX_CONTROL_PAYLOAD);
                let frame = CloseFrame::parse(&out[2..]).unwrap().unwrap();
                assert_eq!(frame.code, 4000);
                assert!(reason.starts_with(frame.reason));
                let full = reason.len() <= MAX_REASON;
                assert!(if full { frame.reason == reason } else { frame.reason.len() > MAX_REASON - 4 });
            }
        }
    }

    #[test]
    fn without_a_code_there_is_no_payload() {
        let mut out = Vec::new();
        encode_close(&mut out, None, "never seen");
        assert_eq!(out, [0x88, 0x00]);
        out.clear();
        encode_close_masked(&mut out, None, "", [1, 2, 3, 4]);
        assert_eq!(out, [0x88, 0x80, 1, 2, 3, 4]);
    }

    #[test]
    fn bad_payloads_are_told_apart() {
        assert_eq!(CloseFrame::parse(&[]), Ok(None));
        assert_eq!(CloseFrame::parse(&[3]), Err(DecodeError::HalfCloseCode));
        assert_eq!(CloseFrame::parse(&[0x03, 0xed]), Err(DecodeError::CloseCode(1005)));
        assert_eq!(CloseFrame::parse(&[0x03, 0xe8, 0xff]), Err(DecodeError::Utf8));
    }
}
