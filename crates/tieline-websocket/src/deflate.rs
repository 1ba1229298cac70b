//! permessage-deflate (RFC 7692), the compression itself: whole messages in, whole messages out.
//! The negotiation is in `handshake`, and `decoder` calls the [`Inflater`] by itself.
//!
//! Tested here by the examples of RFC 7692 (7.2.3), by every window size with and without context takeover,
//! and by a property that joins stored heads with compressed bodies.

mod inflater;

use flate2::{Compress, Compression, FlushCompress, Status};

pub use inflater::Inflater;

/// What a sync flush ends with; it is not sent, and the receiver puts it back (RFC 7692, 7.2.1 and 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The most that one stored block can hold.
const MAX_STORED: usize = 65_535;

/// The effort unless said otherwise. A message of 132 bytes takes 2.9 µs and becomes 68 bytes at level 1, at all others
/// 7 µs for as many bytes; one of 16 KiB takes 22 µs for 3.3 kB, and 39 µs for 2.1 kB at level 2, 90 µs for 2.0 kB at level 6.
const LEVEL: Compression = Compression::new(1);

/// The least free space the compressor is given: with six bytes or fewer it could repeat its flush marker.
const MIN_SPACE: usize = 64;

/// Compresses the messages of one direction.
///
/// Without context takeover one per thread and window size serves any number of connections, and its result may
/// be sent to all that agreed to a window of that size or a larger one. It holds 250 to 380 kB, by the window.
pub struct Deflater {
    /// The compressor, flushed to a byte boundary between messages.
    stream: Compress,
    /// Whether messages may refer to those before; then this belongs to one connection.
    context_takeover: bool,
    /// Whether the stream has seen a message since it was new or reset.
    used: bool,
}

impl Deflater {
    /// Compresses each message by itself.
    ///
    /// # Panics
    /// Unless `window_bits` is 9 to 15: zlib cannot make a raw stream with a window of 2^8.
    pub fn new(window_bits: u8) -> Self {
        Self::build(window_bits, false)
    }

    /// Compresses the messages of one connection, each with the help of those before it. Every message compressed
    /// must then be sent, and in that order.
    ///
    /// # Panics
    /// Unless `window_bits` is 9 to 15.
    pub fn with_context_takeover(window_bits: u8) -> Self {
        Self::build(window_bits, true)
    }

    fn build(window_bits: u8, context_takeover: bool) -> Self {
        assert!((9..=15).contains(&window_bits), "a window of 2^{window_bits} bytes is not 2^9 to 2^15");
        let stream = Compress::new_with_window_bits(LEVEL, false, window_bits);
        Self { stream, context_takeover, used: false }
    }

    /// Sets the effort, from 1 (the default) to 9, before the first message. Small messages gain nothing by more than 1; large
    /// ones that go to many recipients may be worth 2, and hardly ever more.
    #[must_use]
    pub fn level(mut self, level: u32) -> Self {
        let level = Compression::new(level.clamp(1, 9));
        self.stream.set_level(level).expect("nothing is waiting to be flushed in a new stream");
        self
    }

    /// Appends the compressed form of `payload` to `out`, ready to be the payload of a message with RSV1 set.
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if payload.is_empty() {
            // An empty stored block without its tail (RFC 7692, 7.2.3.6). zlib would refuse to flush twice in a row.
            out.push(0x00);
            return;
        }
        if self.used && !self.context_takeover {
            self.stream.reset();
        }
        self.used = true;
        let start = self.stream.total_in();
        out.reserve(payload.len() / 2 + MIN_SPACE);
        loop {
            let consumed = (self.stream.total_in() - start) as usize;
            let status = self
                .stream
                .compress_vec(&payload[consumed..], out, FlushCompress::Sync)
                .expect("the stream was never finished, so it takes input");
            // Room left over says that the flush is complete; no progress says that it was complete before.
            if out.len() < out.capacity() || status == Status::BufError {
                break;
            }
            out.reserve(payload.len() / 2 + MIN_SPACE);
        }
        debug_assert!(out.ends_with(&TAIL), "a sync flush ends with an empty stored block");
        out.truncate(out.len() - TAIL.len());
    }
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deflater").field("context_takeover", &self.context_takeover).finish_non_exhaustive()
    }
}

/// Appends `head` as stored (uncompressed) DEFLATE blocks: five bytes more for each 65,535.
///
/// What [`Deflater::compress`] made without context takeover may follow directly. So a prefix of one recipient
/// joins a body that was compressed once for all of them:
///
/// ```
/// use tieline_websocket::{Deflater, Inflater, stored_block};
///
/// let mut body = Vec::new();
/// Deflater::new(15).compress(b"the same for everybody", &mut body);
/// for name in ["ann", "bob"] {
///     let mut message = Vec::new();
///     stored_block(format!("to {name}: ").as_bytes(), &mut message);
///     message.extend_from_slice(&body);
///
///     let mut plain = Vec::new();
///     Inflater::new().inflate(&message, 1024, &mut plain).unwrap();
///     assert_eq!(plain, format!("to {name}: the same for everybody").as_bytes());
/// }
/// ```
pub fn stored_block(head: &[u8], out: &mut Vec<u8>) {
    for block in head.chunks(MAX_STORED) {
        let len = block.len() as u16;
        out.reserve(5 + block.len());
        out.push(0x00);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
}

#[cfg(test)]
mod tests;
