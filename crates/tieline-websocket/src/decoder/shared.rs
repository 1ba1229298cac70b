//! What the decoders of one thread have in common, so that an idle connection needs none of it.

use crate::deflate::Inflater;

/// Space of this size or less is kept for the next message; more is given back before the next decode.
const KEPT: usize = 64 * 1024;

/// How much a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload in one frame, as on the wire. Checked as soon as the header is there.
    pub max_frame: usize,
    /// Bytes of payload in one message: as on the wire, and again after inflating.
    pub max_message: usize,
    /// Frames in one message.
    pub max_fragments: u32,
}

impl Default for Limits {
    /// One mebibyte for a frame and for a message, and 1,024 fragments.
    fn default() -> Self {
        Self { max_frame: 1 << 20, max_message: 1 << 20, max_fragments: 1024 }
    }
}

/// What all decoders of one thread share: the limits, an inflater for peers without context takeover, and the
/// space where the last message lies that was not whole in its input.
#[derive(Debug)]
pub struct Shared {
    /// The limits for every connection that is decoded with this; a change holds from the next frame on.
    pub limits: Limits,
    /// For messages compressed each by itself; made when the first one arrives.
    pub(super) inflater: Option<Inflater>,
    /// The last message or control frame that arrived in pieces, until the next decode.
    pub(super) assembled: Vec<u8>,
    /// The last message that was compressed, until the next decode.
    pub(super) inflated: Vec<u8>,
}

impl Shared {
    /// Without memory until something arrives that needs it.
    pub fn new(limits: Limits) -> Self {
        Self { limits, inflater: None, assembled: Vec::new(), inflated: Vec::new() }
    }

    /// Gives back the space of a large message, now that nobody reads it any more.
    pub(super) fn release(&mut self) {
        for space in [&mut self.assembled, &mut self.inflated] {
            if space.capacity() > KEPT {
                *space = Vec::new();
            }
        }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}
