//! What one connection has coming: a short list of references to bytes, in the order they must be sent.
//!
//! The list holds two entries inline and frees its memory when it is empty, so an idle connection costs nothing
//! here. It owns no bytes of the log; whoever adds or removes a `Log` entry keeps the log's counts right.
//! Tested through the properties of the shard.

use smallvec::SmallVec;
use std::sync::Arc;

use crate::log::{Extent, Log};

/// One entry: 16 bytes, which is why the extent of `Log` is spelled out.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Whole frames in the shard's log (the first may have been sent in part, then `start` has moved on).
    Log { start: u64, len: u32 },
    /// The next so many frames of the connection's numbered window that were not sent yet.
    Numbered(u32),
    /// A large frame, shared with all its recipients, of which `sent` bytes are gone.
    Shared { frame: Arc<Box<[u8]>>, sent: u32 },
    /// Bytes of the connection's own: what a partial write left over, or what a retired chunk of the log held.
    Owned(Box<Owned>),
}

/// Bytes that were copied for one connection.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub(crate) bytes: Vec<u8>,
    /// How many of `bytes` are gone.
    pub(crate) sent: usize,
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
        self.items.push(Pending::Shared { frame, sent: 0 });
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

    pub(crate) fn as_slice(&self) -> &[Pending] {
        &self.items[self.head as usize..]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Pending] {
        &mut self.items[self.head as usize..]
    }

    /// Removes the first `count` entries. The log references of `Log` entries among them must be released by
    /// the caller beforehand.
    pub(crate) fn drop_front(&mut self, count: usize) {
        self.head += count as u32;
        if self.is_empty() {
            self.clear();
        } else if self.head >= 64 && self.head as usize * 2 >= self.items.len() {
            // A laggard's list: move what is left to the front once half of it is gone, which is constant
            // work per entry over the list's life.
            self.items.drain(..self.head as usize);
            self.head = 0;
        } else {
            // Entries behind the cursor must not keep shared frames alive.
            for item in &mut self.items[self.head as usize - count..self.head as usize] {
                *item = Pending::Numbered(0);
            }
        }
    }

    /// Forgets all entries but the first `keep`.
    pub(crate) fn truncate(&mut self, keep: usize) {
        self.items.truncate(self.head as usize + keep);
        if self.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.head = 0;
        if self.items.spilled() {
            self.items = SmallVec::new();
        } else {
            self.items.clear();
        }
    }
}
