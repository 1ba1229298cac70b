//! Whole frames in a buffer, for a load generator and for the floor: where each begins and ends.
//!
//! The product's codec reads the headers. Its decoder, which also checks UTF-8, masks and fragments, is left out on
//! purpose: on the measuring path whatever the generator spends on a frame is taken from the load it can make, and the
//! codec has tests of its own. A frame that claims more than [`LONGEST`] ends the connection. Tested here.

use tieline_websocket::{FrameHeader, Opcode};

/// Longest payload that is read: nothing here asks for so much.
pub(crate) const LONGEST: usize = 192 * 1024;

/// Where one frame lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// What it is.
    pub(crate) opcode: Opcode,
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

/// Finds the frame at the beginning of `bytes`. `None`: it has not wholly arrived. The error is for people.
pub(crate) fn skim(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some((frame, header)) = FrameHeader::parse(bytes).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    match usize::try_from(frame.len) {
        Ok(payload) if payload <= LONGEST => {
            let head = Head { opcode: frame.opcode, header, payload };
            Ok((bytes.len() >= head.total()).then_some(head))
        }
        _ => Err(format!("a frame of {} bytes", frame.len)),
    }
}

/// Bytes of payload in a server's frame of `total` bytes, header included, or the nearest that exists.
pub(crate) fn payload_within(total: usize) -> usize {
    match total {
        0..=127 => total.saturating_sub(2),
        128..=65_539 => (total - 4).max(126),
        _ => total - 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tieline_websocket::{encode, encode_masked};

    proptest! {
        #[test]
        fn a_frame_is_found_when_it_is_whole(length in prop_oneof![0usize..300, 65_500usize..65_600], key: [u8; 4]) {
            let mut bytes = Vec::new();
            encode_masked(&mut bytes, Opcode::Binary, &vec![7; length], key);
            let head = skim(&bytes).unwrap().unwrap();
            prop_assert_eq!((head.opcode, head.payload, head.total()), (Opcode::Binary, length, bytes.len()));
            for cut in [0, 1, 2, 5, bytes.len() - 1] {
                prop_assert_eq!(skim(&bytes[..cut.min(bytes.len() - 1)]).unwrap(), None);
            }
        }

        #[test]
        fn a_frame_of_a_given_size_has_that_size(
            total in prop_oneof![2usize..=127, 130usize..=65_539, 65_546usize..70_000],
        ) {
            let mut bytes = Vec::new();
            encode(&mut bytes, Opcode::Text, &vec![b'x'; payload_within(total)]);
            prop_assert_eq!(bytes.len(), total);
        }
    }

    #[test]
    fn a_frame_too_long_is_an_error_before_it_arrives() {
        let claim = [0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(skim(&claim).unwrap_err().contains("4294967296 bytes"));
        assert!(skim(&[0xf1, 0]).is_err());
    }
}
