//! What a shard keeps for one connection. Not the socket: that is the reactor's, beside it.

use tieline_websocket::{Decoder, InflateMode, Role};

use crate::Slot;
use crate::group::Memberships;
use crate::numbered::Window;
use crate::pending::PendingList;

/// What the frames to a connection look like. Connections of equal format share encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// The application's number for the encoding; handed to [`Encode`](crate::Encode).
    pub wire: u8,
    /// Published frames carry a sequence number and are held until they are acknowledged.
    pub numbered: bool,
    /// permessage-deflate window of frames to the peer in bits (9 to 15), 0 without compression.
    pub deflate: u8,
}

impl Format {
    /// An uncompressed, unnumbered format.
    pub const fn plain(wire: u8) -> Self {
        Format { wire, numbered: false, deflate: 0 }
    }
}

/// Where a connection stands on this node. The generation tells two users of one slot apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Number of the shard.
    pub shard: u16,
    /// Slot within the shard.
    pub slot: Slot,
    /// Counts the connections that this slot has held.
    pub generation: u32,
}

/// The life of a slot.
///
/// ```text
/// Free → Reserved → Open or Free                   (a place that is kept while somebody decides on its client)
/// Free → Open ⇄ Detached
///        Open → Ending → Closing, Failing or Detached     (a limit, a cut, the protocol; settled after the step)
///        Open → Closing → Finishing → Free                (a close frame of ours, then the peer's)
///        Open → Finishing → Free                          (the peer's close frame, answered)
///        Ending → Failing → Lingering → Free              (a broken protocol)
///        Detached → Gone → Free
/// ```
///
/// A failing socket leads to Free from everywhere, and so does the time limit of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody is here.
    Free,
    /// Nobody is here yet, and nobody else may have the slot.
    Reserved,
    /// Open both ways.
    Open,
    /// Cut, kept for the peer to come back; there is no socket.
    Detached,
    /// Was open and has ended; what follows is decided when the step is over.
    Ending,
    /// Was detached and has ended; the application is told when the step is over.
    Gone,
    /// A close frame is among the pending bytes or was sent; the application is done with the connection. The
    /// peer's close frame, its end of file, or the time limit frees the slot.
    Closing,
    /// A close frame is pending, and nothing that the peer sends counts any more.
    Failing,
    /// Our half of the stream has ended after a failure; the peer's bytes are thrown away until it ends too.
    Lingering,
    /// Both close frames are exchanged; what is pending is flushed, then the slot is freed.
    Finishing,
}

impl Phase {
    /// Whether the connection may be sent to, now or when it is resumed.
    #[inline]
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Phase::Open | Phase::Detached)
    }

    /// Whether pending bytes go to the socket.
    #[inline]
    pub(crate) fn is_flushed(self) -> bool {
        matches!(self, Phase::Open | Phase::Closing | Phase::Failing | Phase::Finishing)
    }
}

/// One slot. Times are in ticks of a second of the shard's own clock.
pub(crate) struct Connection<S> {
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) format: Format,
    /// Waits in the dirty list for its turn to be flushed.
    pub(crate) dirty: bool,
    /// The kernel took no more; a writable event must come before the next attempt.
    pub(crate) blocked: bool,
    /// Listed among those that may refer to old chunks of the log.
    pub(crate) holding: bool,
    /// Its reading stands still, for the application, while it is open; also on the next socket of one that was cut.
    pub(crate) parked: bool,
    /// Its reading stands still because another shard's mailbox is full.
    pub(crate) held_up: bool,
    /// A ping is out and nothing was heard since: how many in a row.
    pub(crate) unanswered: u8,
    /// Tick at which the last whole message arrived, for the idle limit; of a detached one, of its cut.
    pub(crate) last_message: u32,
    /// Mark of the publication that excludes it or has reached it already.
    pub(crate) stamp: u64,
    /// Bytes of unsent frames, those of the numbered window not counted.
    pub(crate) unsent: usize,
    /// Bytes copied for it alone, a part of what it has coming.
    pub(crate) copied: usize,
    /// Bytes that must still be sent to end the frame that was sent in part, or the answer to the handshake.
    pub(crate) open_frame: usize,
    pub(crate) pending: PendingList,
    pub(crate) memberships: Memberships,
    pub(crate) window: Option<Box<Window>>,
    pub(crate) decoder: Decoder,
    /// Inbound bytes that arrived while it was parked.
    pub(crate) unread: Option<Box<[u8]>>,
    pub(crate) session: Option<S>,
}

impl<S> Connection<S> {
    /// An empty slot.
    pub(crate) fn free() -> Self {
        Connection {
            generation: 0,
            phase: Phase::Free,
            format: Format::plain(0),
            dirty: false,
            blocked: false,
            holding: false,
            parked: false,
            held_up: false,
            unanswered: 0,
            last_message: 0,
            stamp: 0,
            unsent: 0,
            copied: 0,
            open_frame: 0,
            pending: PendingList::default(),
            memberships: Memberships::new(),
            window: None,
            decoder: fresh_decoder(None),
            unread: None,
            session: None,
        }
    }

    /// Bytes that count against the limit of what one connection may have coming.
    #[inline]
    pub(crate) fn lag(&self) -> usize {
        self.unsent + self.window.as_ref().map_or(0, |window| window.held())
    }

    /// Whether its reading stands still. Who is not open any more is read on: the peer's close frame may be next.
    pub(crate) fn is_parked(&self) -> bool {
        self.phase == Phase::Open && (self.parked || self.held_up)
    }
}

/// A decoder of frames from clients.
pub(crate) fn fresh_decoder(inflate: Option<InflateMode>) -> Decoder {
    Decoder::new(Role::Server, inflate)
}
