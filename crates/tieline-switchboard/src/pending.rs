//! What one connection has coming: a short list of references to bytes, in the order they must be sent.
//!
//! The list holds two entries inline and frees its memory when it is empty, so an idle connection costs nothing
//! here. It owns no bytes of the log; whoever adds or removes a `Log` entry keeps the log's counts right.
//! Tested through the properties of the shard.

use smallvec::SmallVec;
use std::sync::Arc;

use crate::log::{Extent, Log};

/// Entries that one list may hold before what it refers to in the log is copied together: many tiny frames that
/// are not neighbours would otherwise cost more memory here than the bytes that limits count.
pub(crate) const MAX_ENTRIES: usize = 1024;

/// One entry: 16 bytes, which is why the extent of `Log` is spelled out.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Whole frames in the shard's log (the first may have been sent in part, then `start` has moved on).
    Log { start: u64, len: u32 },
    /// The next so many frames of the connection's numbered window that were not sent yet; never none.
    Numbered(u32),
    /// A large frame, shared with all its recipients, of which `sent` bytes are gone; or the body of a numbered
    /// one, whose head was sent, and which the window counts.
    Shared { frame: Arc<Box<[u8]>>, sent: u32, numbered: bool },
    /// Bytes of the connection's own: what a partial write left of a numbered frame, or what a retired chunk of
    /// the log held.
    Owned(Box<Owned>),
}

/// Bytes that were copied for one connection.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub(crate) bytes: Vec<u8>,
    /// How many of `bytes` are gone.
    pub(crate) sent: usize,
    /// They are of a numbered frame, which the window counts.
    pub(crate) numbered: bool,
}

impl Owned {
    /// What is still to be sent.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

/// The entries in order, with a cursor in place of removal at the front.
#[derive(Debug, Default)]
pub(crate) struct PendingList {
    items: SmallVec<[Pending; 2]>,
    head: u32,
}

impl PendingList {
    pub(crate) fn is_empty(&self) -> bool {
        self.head as usize == self.items.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len() - self.head as usize
    }

    /// Adds frames that stand in the log. Returns whether a new entry was needed, which then is one more
    /// reference to the log.
    #[inline]
    pub(crate) fn push_log(&mut self, extent: Extent) -> bool {
        if let Some(Pending::Log { start, len }) = self.items.last_mut()
            && Log::adjacent(Extent { start: *start, len: *len }, extent)
        {
            *len += extent.len;
            return false;
        }
        self.items.push(Pending::Log { start: extent.start, len: extent.len });
        true
    }

    /// Adds `count` frames of the numbered window.
    pub(crate) fn push_numbered(&mut self, count: u32) {
        if let Some(Pending::Numbered(last)) = self.items.last_mut() {
            *last += count;
        } else if count > 0 {
            self.items.push(Pending::Numbered(count));
        }
    }

    pub(crate) fn push_shared(&mut self, frame: Arc<Box<[u8]>>) {
        self.items.push(Pending::Shared { frame, sent: 0, numbered: false });
    }

    /// Puts an entry before everything else: what a partial write left over.
    pub(crate) fn push_front(&mut self, item: Pending) {
        if self.head > 0 {
            self.head -= 1;
            self.items[self.head as usize] = item;
        } else {
            self.items.insert(0, item);
        }
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut Pending> {
        self.items.get_mut(self.head as usize)
    }

    pub(crate) fn as_slice(&self) -> &[Pending] {
        &self.items[self.head as usize..]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Pending] {
        &mut self.items[self.head as usize..]
    }

    /// How many numbered frames are queued.
    pub(crate) fn numbered(&self) -> u32 {
        self.as_slice().iter().map(|item| if let Pending::Numbered(count) = item { *count } else { 0 }).sum()
    }

    /// Takes the first `count` numbered frames off the list: they were acknowledged.
    pub(crate) fn forget_numbered(&mut self, mut count: u32) {
        self.items.drain(..self.head as usize);
        self.head = 0;
        self.items.retain(|item| {
            let Pending::Numbered(queued) = item else { return true };
            let taken = count.min(*queued);
            count -= taken;
            *queued -= taken;
            *queued > 0
        });
        if self.is_empty() {
            self.clear();
        }
    }

    /// Removes the first entry. The log reference of a `Log` entry is the caller's to release.
    #[inline]
    pub(crate) fn drop_front(&mut self) {
        if self.len() == 1 {
            return self.clear();
        }
        // The entry behind the cursor must not keep a shared frame alive.
        self.items[self.head as usize] = Pending::Numbered(0);
        self.skip(1);
    }

    /// Moves the cursor behind `count` entries, which stand for nothing any more.
    #[inline]
    pub(crate) fn skip(&mut self, count: usize) {
        self.head += count as u32;
        if self.is_empty() {
            self.clear();
        } else if self.head >= 64 && self.head as usize * 2 >= self.items.len() {
            // A laggard's list: move what is left to the front once half of it is gone, which is constant
            // work per entry over the list's life.
            self.items.drain(..self.head as usize);
            self.head = 0;
        }
    }

    /// Forgets all entries but the first `keep`.
    pub(crate) fn truncate(&mut self, keep: usize) {
        self.items.truncate(self.head as usize + keep);
        if self.is_empty() {
            self.clear();
        }
    }

    #[inline]
    fn clear(&mut self) {
        self.head = 0;
        if self.items.spilled() {
            self.items = SmallVec::new();
        } else {
            self.items.clear();
        }
    }
}
