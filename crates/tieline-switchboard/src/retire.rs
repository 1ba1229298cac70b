//! Retiring the log: when it has grown past its limit, the oldest chunk goes, and what laggards still want of
//! it is copied for each of them. So one frame that is never read does not pin a chunk, and the memory of a
//! shard is bounded: the log by `max_log`, the copies by `max_lag` and a chunk a connection (of the copy of a run, the
//! part that is acknowledged goes with the rest) and by `max_copied` together.
//! A connection whose copy would pass `max_copied` is ended instead of copied for.
//! Tested through the properties of the shard, with logs of two chunks.

use crate::Slot;
use crate::application::{Application, Cause};
use crate::connection::Connection;
use crate::log::Extent;
use crate::pending::{Owned, Pending};
use crate::shard::Shard;

impl<A: Application> Shard<A> {
    /// Brings the log back under its limit.
    #[inline]
    pub(crate) fn retire(&mut self) {
        while self.log.memory() > self.settings.max_log
            && let Some(chunk) = self.log.oldest()
        {
            self.copy_out(chunk);
            if self.log.oldest() == Some(chunk) {
                debug_assert!(false, "somebody still refers to a retired chunk");
                return;
            }
        }
    }

    /// Copies what is still wanted of all chunks up to `chunk`.
    #[cold]
    fn copy_out(&mut self, chunk: u64) {
        let mut holders = std::mem::take(&mut self.holders);
        holders.retain(|&slot| {
            self.copy_for(slot, chunk);
            let connection = &mut self.connections[slot as usize];
            let window_is_empty = connection.window.as_ref().is_none_or(|window| window.is_empty());
            connection.holding = connection.blocked || !connection.pending.is_empty() || !window_is_empty;
            connection.holding
        });
        self.holders = holders;
        // Connections whose turn to be flushed has not come since the frames were published.
        for at in 0..self.dirty.len() {
            self.copy_for(self.dirty[at], chunk);
        }
    }

    /// Copies what one connection wants of all chunks up to `chunk`, and joins it as far as its order allows.
    pub(crate) fn copy_for(&mut self, slot: Slot, chunk: u64) {
        let connection = &mut self.connections[slot as usize];
        let Some(wanted) = wanted(connection, chunk) else { return };
        if self.copied + wanted > self.settings.max_copied {
            return self.end_for_memory(slot);
        }
        connection.copied += wanted;
        self.copied += wanted;

        let items = connection.pending.as_mut_slice();
        let is_log = |item: &Pending| matches!(item, Pending::Log { start, .. } if old(*start, chunk));
        let end = items.iter().rposition(is_log).map_or(0, |last| last + 1);
        // Entries that stay move to the front of the part that is looked at, then to its end, and the cursor
        // behind what was freed: so the rest of a long list stays where it is.
        let mut kept = 0;
        for at in 0..end {
            if let Pending::Log { start, len } = items[at] {
                let extent = Extent { start, len };
                let bytes = self.log.bytes(extent);
                match items[..kept].last_mut() {
                    Some(Pending::Owned(owned)) if !owned.numbered => owned.bytes.extend_from_slice(bytes),
                    _ => {
                        let owned = Owned { bytes: bytes.to_vec(), sent: 0, numbered: false };
                        items[kept] = Pending::Owned(Box::new(owned));
                        kept += 1;
                    }
                }
                self.log.release(extent);
            } else {
                items.swap(kept, at);
                kept += 1;
            }
        }
        items[..end].rotate_right(end - kept);
        items[..end - kept].fill_with(|| Pending::Numbered(0));
        connection.pending.skip(end - kept);

        if let Some(window) = &mut connection.window {
            window.copy_out(&mut self.log, chunk);
        }
    }

    /// There is no memory for a copy of what the connection has coming, so all of that goes, and the connection too.
    #[cold]
    pub(crate) fn end_for_memory(&mut self, slot: Slot) {
        self.keep_pending(slot, 0);
        self.forget_window(slot);
        let alive = self.connections[slot as usize].phase.is_alive();
        self.end(slot, if alive { Cause::Memory } else { Cause::Cut });
    }
}

/// Bytes that must be copied before the log can lose all chunks up to `chunk`; `None` when the connection refers to
/// none of them. (Empty bodies are nothing to copy, but refer to their chunk all the same.)
fn wanted<S>(connection: &Connection<S>, chunk: u64) -> Option<usize> {
    let in_list = connection.pending.as_slice().iter().filter_map(|item| match item {
        Pending::Log { start, len } if old(*start, chunk) => Some(*len as usize),
        _ => None,
    });
    let in_window = connection.window.iter().filter_map(|window| window.wanted(chunk));
    in_list.chain(in_window).reduce(|sum, len| sum + len)
}

fn old(start: u64, chunk: u64) -> bool {
    Extent { start, len: 0 }.chunk() <= chunk
}
