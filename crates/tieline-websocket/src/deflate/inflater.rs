//! The receiving half of permessage-deflate: one message at a time, never beyond a limit. Not a general inflater:
//! it adds the tail that the sender removed, and takes a message that does not end there for a broken one.
//!
//! Tested in `deflate/tests.rs` and by the fuzz target `inflate`.

use flate2::{Decompress, FlushDecompress, Status};

use crate::decoder::DecodeError;

/// The least output space to start with.
const MIN_SPACE: usize = 1024;

/// The tail, and a final empty block: the stream must end with exactly this, or the message was cut.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// The tail, and an empty block that changes nothing, as a stream with context goes on.
const TAIL_AND_EMPTY: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0xff, 0xff];

/// Inflates the messages of one direction.
///
/// Without context takeover one per thread serves any number of connections. It holds 48 kB.
pub struct Inflater {
    /// The stream, at a byte boundary between blocks while no message is being inflated.
    stream: Decompress,
    /// Whether messages may refer to those before; then this belongs to one connection.
    context_takeover: bool,
    /// Whether the stream must be reset before the next message.
    used: bool,
}

impl Inflater {
    /// For messages that are compressed each by itself, with any window.
    pub fn new() -> Self {
        Self { stream: Decompress::new_with_window_bits(false, 15), context_takeover: false, used: false }
    }

    /// For the messages of one connection in their order, whose sender has a window of 2^`window_bits` bytes
    /// (8 to 15). It holds 48 kB, whatever the window.
    ///
    /// A sender that ends a message with a final DEFLATE block starts anew after it, as zlib does.
    pub fn with_context_takeover(window_bits: u8) -> Self {
        let stream = Decompress::new_with_window_bits(false, window_bits.clamp(9, 15));
        Self { stream, context_takeover: true, used: false }
    }

    /// Replaces the content of `out` by the inflated `payload` of one compressed message, of which there may be
    /// `max` bytes. Space is taken as the output grows, never for more than `max`.
    ///
    /// # Errors
    /// [`DecodeError::MessageTooLarge`] as soon as there is more than `max`; [`DecodeError::Deflate`] when the
    /// payload is corrupt or cut. Without context takeover every cut is found; with it, a cut inside the tables
    /// at the head of a block may only be found by the next message. After an error the inflater is good for the next
    /// message only without context takeover.
    pub fn inflate(&mut self, payload: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        out.clear();
        if self.used && !self.context_takeover {
            self.stream.reset(false);
        }
        self.used = true;
        let mut rest = payload;
        loop {
            let before = (self.stream.total_in(), self.stream.total_out());
            let full = out.len() >= max;
            let status = if full {
                // One byte beyond the limit proves the excess, and needs no allocation.
                self.stream.decompress(rest, &mut [0], FlushDecompress::Sync)
            } else {
                if out.len() == out.capacity() {
                    let space = out.len().max(payload.len()).max(MIN_SPACE);
                    out.reserve_exact(space.min(max - out.len()));
                }
                self.stream.decompress_vec(rest, out, FlushDecompress::Sync)
            };
            let status = status.map_err(|_| DecodeError::Deflate)?;
            let consumed = (self.stream.total_in() - before.0) as usize;
            let produced = self.stream.total_out() > before.1;
            rest = &rest[consumed..];
            if full && produced || out.len() > max {
                return Err(DecodeError::MessageTooLarge);
            }
            if status == Status::StreamEnd {
                self.stream.reset(false);
                if rest.is_empty() {
                    return Ok(());
                }
                continue;
            }
            // With space left over everything there was has come out.
            if rest.is_empty() && (full || out.len() < out.capacity()) {
                return self.finish();
            }
            if consumed == 0 && !produced && (full || out.len() < out.capacity()) {
                return Err(DecodeError::Deflate);
            }
        }
    }

    /// Puts the tail back, and checks that it is what the message ends with.
    fn finish(&mut self) -> Result<(), DecodeError> {
        let end = if self.context_takeover { &TAIL_AND_EMPTY } else { &TAIL_AND_END };
        let before = (self.stream.total_in(), self.stream.total_out());
        let status = self
            .stream
            .decompress(end, &mut [0; 16], FlushDecompress::Sync)
            .map_err(|_| DecodeError::Deflate)?;
        let consumed = (self.stream.total_in() - before.0) as usize;
        if self.stream.total_out() != before.1 {
            return Err(DecodeError::Deflate);
        }
        match status {
            // The sender's last block was marked as the final one: the stream ends with its tail.
            Status::StreamEnd if consumed == 4 => {
                self.stream.reset(false);
                Ok(())
            }
            Status::StreamEnd if !self.context_takeover && consumed == end.len() => Ok(()),
            Status::Ok | Status::BufError if self.context_takeover && consumed == end.len() => Ok(()),
            _ => Err(DecodeError::Deflate),
        }
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("context_takeover", &self.context_takeover).finish_non_exhaustive()
    }
}
