//! The window of a numbered connection: frames that carry a sequence number each, kept until the peer
//! acknowledges them, so that they can be sent again after a cut.
//!
//! The number is not stored: the first frame of the window has number `base`, the next `base + 1`. The bodies
//! stand in the shard's log (or are shared, or were copied out of a retired chunk); frame header, number and
//! body are joined when the frame is sent. Tested through the properties of the shard.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::log::Extent;

/// A numbered frame without its header and number.
#[derive(Debug)]
pub(crate) enum Body {
    /// The plain body in the log, directly followed by `deflated` bytes of its compressed form, if any.
    Log { plain: Extent, deflated: u32 },
    /// A large body, shared by its recipients.
    Shared(LargeBody),
    /// A plain body that was copied out of a retired chunk of the log.
    Owned(Box<[u8]>),
}

impl Body {
    /// It is sent plain from now on.
    pub(crate) fn forget_deflated(&mut self) {
        match self {
            Body::Log { deflated, .. } => *deflated = 0,
            Body::Shared(body) => body.deflated = None,
            Body::Owned(_) => {}
        }
    }

    /// Bytes that count against the connection's limit: those of the plain body.
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::Log { plain, .. } => plain.len as usize,
            Body::Shared(body) => body.plain.len(),
            Body::Owned(plain) => plain.len(),
        }
    }
}

/// A body above the size that is kept in the log.
#[derive(Clone, Debug)]
pub(crate) struct LargeBody {
    pub(crate) plain: Arc<Box<[u8]>>,
    /// Compressed for the window of the format it was made for.
    pub(crate) deflated: Option<Arc<Box<[u8]>>>,
}

/// The frames that are not acknowledged: first those that were sent, then those that were not.
#[derive(Debug)]
pub(crate) struct Window {
    frames: VecDeque<Body>,
    /// Sequence number of the first frame in `frames`.
    base: u64,
    /// How many of `frames` were sent.
    sent: usize,
    /// Sum of the plain bodies' lengths.
    held: usize,
}

impl Window {
    pub(crate) fn new(first_sequence: u64) -> Self {
        Window { frames: VecDeque::new(), base: first_sequence, sent: 0, held: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes of plain bodies held until they are acknowledged.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// How many frames wait to be sent, or to be sent again.
    pub(crate) fn unsent(&self) -> u32 {
        (self.frames.len() - self.sent) as u32
    }

    pub(crate) fn push(&mut self, body: Body) {
        self.held += body.len();
        self.frames.push_back(body);
    }

    /// The unsent frame at `offset` and its number.
    pub(crate) fn peek(&self, offset: usize) -> Option<(u64, &Body)> {
        let index = self.sent + offset;
        self.frames.get(index).map(|body| (self.base + index as u64, body))
    }

    /// Notes that the next `count` frames are on their way.
    pub(crate) fn mark_sent(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.frames.len());
    }

    /// Everything must be sent again: the connection was cut.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The peer has everything up to `sequence`. Numbers it was never sent are ignored, as are old ones. Each
    /// frame that leaves is given to `release`.
    pub(crate) fn acknowledge(&mut self, sequence: u64, mut release: impl FnMut(Body)) {
        let Some(count) = sequence.saturating_add(1).checked_sub(self.base) else { return };
        if count > self.sent as u64 {
            return;
        }
        for body in self.frames.drain(..count as usize) {
            self.held -= body.len();
            release(body);
        }
        self.base += count;
        self.sent -= count as usize;
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        } else if self.frames.capacity() > 1024 && self.frames.len() * 4 < self.frames.capacity() {
            self.frames.shrink_to(self.frames.len() * 2);
        }
    }

    /// Gives every frame to `release`: the connection ends.
    pub(crate) fn clear(&mut self, mut release: impl FnMut(Body)) {
        for body in self.frames.drain(..) {
            release(body);
        }
        self.sent = 0;
        self.held = 0;
    }

    /// All frames, to be moved out of a retired chunk.
    pub(crate) fn bodies_mut(&mut self) -> impl Iterator<Item = &mut Body> {
        self.frames.iter_mut()
    }
}
