//! What a connection keeps while a frame or a message is incomplete: a header's first bytes, the frame whose payload
//! is arriving, and the message so far. It exists only then.

use super::DecodeError;
use super::shared::Limits;
use crate::frame::{FrameHeader, Kind};

/// The state between two inputs, boxed by the decoder.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The bytes of a header that is incomplete; empty between headers. At most 13 bytes.
    pub(super) head: Vec<u8>,
    /// The frame whose payload is incomplete.
    pub(super) frame: Option<Incoming>,
    /// The message whose last fragment has not been completed.
    pub(super) message: Option<Assembly>,
    /// The payload so far of an incomplete control frame, at most 125 bytes.
    pub(super) control: Vec<u8>,
}

impl Partial {
    /// Whether nothing is incomplete.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    /// Bytes of memory held, this included.
    pub(super) fn memory(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.bytes.capacity());
        size_of::<Self>() + self.head.capacity() + self.control.capacity() + message
    }
}

/// A frame whose header is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    /// The header, its mask rotated to the next byte that is to arrive.
    pub(super) header: FrameHeader,
    /// Bytes of payload that have not arrived. Bounded by the limits, so it fits.
    pub(super) remaining: usize,
}

/// A data message that is being put together, still compressed if it is.
#[derive(Debug)]
pub(super) struct Assembly {
    /// Of the first frame.
    pub(super) kind: Kind,
    /// RSV1 of the first frame.
    pub(super) compressed: bool,
    /// Frames seen, the first included.
    fragments: u32,
    /// The unmasked payload so far.
    pub(super) bytes: Vec<u8>,
    /// How much of an uncompressed text is known to be UTF-8; a character's first bytes may follow.
    valid: usize,
}

impl Assembly {
    /// A message whose first frame is beginning.
    pub(super) fn new(kind: Kind, compressed: bool) -> Self {
        Self { kind, compressed, fragments: 1, bytes: Vec::new(), valid: 0 }
    }

    /// Counts a further frame of `len` bytes, before its payload is taken.
    pub(super) fn continues(&mut self, len: u64, limits: &Limits) -> Result<(), DecodeError> {
        if self.fragments >= limits.max_fragments {
            return Err(DecodeError::TooManyFragments);
        }
        if self.bytes.len() as u64 + len > limits.max_message as u64 {
            return Err(DecodeError::MessageTooLarge);
        }
        self.fragments += 1;
        Ok(())
    }

    /// Appends what arrived of a frame, `remaining` bytes of which are still to come; `last` says that no frame
    /// follows. Text is checked at once, so that a bad byte is found without waiting for the end.
    pub(super) fn append(&mut self, piece: &[u8], remaining: usize, last: bool) -> Result<(), DecodeError> {
        if last && self.bytes.capacity() - self.bytes.len() < piece.len() {
            // Doubling, but not beyond the message's end. What has not arrived is never reserved ahead of what has.
            let double = self.bytes.len().max(piece.len());
            self.bytes.reserve_exact(double.min(piece.len() + remaining));
        }
        self.bytes.extend_from_slice(piece);
        if self.kind == Kind::Text && !self.compressed {
            self.valid += utf8_prefix(&self.bytes[self.valid..])?;
        }
        Ok(())
    }

    /// Whether a text ends where a character ends.
    pub(super) fn ends_well(&self) -> bool {
        self.kind == Kind::Binary || self.compressed || self.valid == self.bytes.len()
    }
}

/// The length of the longest valid prefix, if what follows it (at most three bytes) may yet become a character.
fn utf8_prefix(bytes: &[u8]) -> Result<usize, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(DecodeError::Utf8),
    }
}
