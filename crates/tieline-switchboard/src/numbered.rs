//! The window of a numbered connection: frames that carry a sequence number each, kept until the peer
//! acknowledges them, so that they can be sent again after a cut.
//!
//! The number is not stored: the first frame of the window has number `base`, the next `base + 1`. The bodies
//! stand in the shard's log (or are shared, or were copied out of a retired chunk); frame header, number and
//! body are joined when the frame is sent. Tested through the properties of the shard.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::log::Extent;

/// What a numbered frame counts beside its plain body: its header, its number, and its place in the window. So a
/// window of empty bodies is bounded too.
pub(crate) const NUMBERED_FRAME: usize = 32;

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

    /// What counts against the connection's limit.
    pub(crate) fn weight(&self) -> usize {
        NUMBERED_FRAME
            + match self {
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
    /// How many of `frames` were sent on the present socket.
    sent: usize,
    /// Number behind the last frame that was sent on any socket: what the peer may acknowledge ends before it.
    ever_sent: u64,
    /// Sum of the bodies' weights.
    held: usize,
}

impl Window {
    pub(crate) fn new(first_sequence: u64) -> Self {
        Window { frames: VecDeque::new(), base: first_sequence, sent: 0, ever_sent: first_sequence, held: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The weight of what is held until it is acknowledged.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// How many frames wait to be sent, or to be sent again.
    pub(crate) fn unsent(&self) -> u32 {
        (self.frames.len() - self.sent) as u32
    }

    pub(crate) fn push(&mut self, body: Body) {
        self.held += body.weight();
        self.frames.push_back(body);
    }

    /// The unsent frame at `offset` and its number.
    pub(crate) fn peek(&self, offset: usize) -> Option<(u64, &Body)> {
        let index = self.sent + offset;
        self.frames.get(index).map(|body| (self.base + index as u64, body))
    }

    /// Notes that the next frame is on its way.
    pub(crate) fn mark_sent(&mut self) {
        self.sent += 1;
        self.ever_sent = self.ever_sent.max(self.base + self.sent as u64);
        debug_assert!(self.sent <= self.frames.len());
    }

    /// The number of the last frame that was sent on the present socket, or acknowledged.
    pub(crate) fn last_sent(&self) -> Option<u64> {
        (self.base + self.sent as u64).checked_sub(1)
    }

    /// Everything must be sent again: the connection was cut.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The peer has everything up to `sequence`. Numbers it was never sent are ignored, as are old ones. Each
    /// frame that leaves is given to `release`. Returns how many of them were about to be sent again.
    pub(crate) fn acknowledge(&mut self, sequence: u64, mut release: impl FnMut(Body)) -> u32 {
        let end = sequence.saturating_add(1);
        if end <= self.base || end > self.ever_sent {
            return 0;
        }
        let count = (end - self.base) as usize;
        for body in self.frames.drain(..count) {
            self.held -= body.weight();
            release(body);
        }
        self.base = end;
        let sent = count.min(self.sent);
        self.sent -= sent;
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        } else if self.frames.capacity() > 1024 && self.frames.len() * 4 < self.frames.capacity() {
            self.frames.shrink_to(self.frames.len() * 2);
        }
        (count - sent) as u32
    }

    /// Gives every frame to `release`: the connection ends.
    pub(crate) fn clear(&mut self, mut release: impl FnMut(Body)) {
        for body in self.frames.drain(..) {
            release(body);
        }
        self.sent = 0;
        self.held = 0;
    }

    /// All frames, oldest first.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.frames.iter()
    }

    /// All frames, to be moved out of a retired chunk.
    pub(crate) fn bodies_mut(&mut self) -> impl Iterator<Item = &mut Body> {
        self.frames.iter_mut()
    }
}
