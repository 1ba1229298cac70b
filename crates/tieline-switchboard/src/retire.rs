//! Retiring the log: when it has grown past its limit, the oldest chunk goes, and what laggards still want of
//! it is copied for each of them. So one frame that is never read does not pin a chunk, and the memory of a
//! shard is bounded: the log by `max_log`, the copies by `max_lag` a connection and `max_copied` together.

use crate::Slot;
use crate::application::{Application, Cause};
use crate::log::Extent;
use crate::numbered::Body;
use crate::pending::{Owned, Pending};
use crate::shard::Shard;

impl<A: Application> Shard<A> {
    /// Brings the log back under its limit.
    pub(crate) fn retire(&mut self) {
        while self.log.memory() > self.settings.max_log {
            let Some(chunk) = self.log.oldest() else { return };
            self.copy_out(chunk);
            debug_assert_ne!(self.log.oldest(), Some(chunk), "somebody still refers to a retired chunk");
        }
    }

    /// Copies what is still wanted of all chunks up to `chunk`.
    fn copy_out(&mut self, chunk: u64) {
        let mut holders = std::mem::take(&mut self.holders);
        holders.retain(|&slot| {
            self.copy_for(slot, chunk);
            let connection = &mut self.connections[slot as usize];
            let window_is_empty = connection.window.as_ref().is_none_or(|window| window.is_empty());
            connection.holding = !(connection.pending.is_empty() && window_is_empty);
            connection.holding
        });
        self.holders = holders;
        // Connections whose turn to be flushed has not come since the frames were published.
        for at in 0..self.dirty.len() {
            self.copy_for(self.dirty[at], chunk);
        }
    }

    fn copy_for(&mut self, slot: Slot, chunk: u64) {
        let connection = &mut self.connections[slot as usize];
        let mut copied = 0;
        let items = connection.pending.as_mut_slice();
        for at in 0..items.len() {
            let (before, rest) = items.split_at_mut(at);
            let Pending::Log { start, len } = rest[0] else { continue };
            let extent = Extent { start, len };
            if extent.chunk() > chunk {
                break;
            }
            let bytes = self.log.bytes(extent);
            copied += bytes.len();
            if let Some(Pending::Owned(owned)) = before.iter_mut().rev().find(|item| !is_empty(item)) {
                owned.bytes.extend_from_slice(bytes);
                rest[0] = Pending::Numbered(0);
            } else {
                rest[0] = Pending::Owned(Box::new(Owned { bytes: bytes.to_vec(), sent: 0 }));
            }
            self.log.release(extent);
        }
        for body in connection.window.iter_mut().flat_map(|window| window.bodies_mut()) {
            let Body::Log { plain, .. } = *body else { continue };
            if plain.chunk() > chunk {
                break;
            }
            copied += plain.len as usize;
            *body = Body::Owned(self.log.bytes(plain).into());
            self.log.release(plain);
        }
        connection.copied += copied;
        self.copied += copied;
        if copied > 0 && self.copied > self.settings.max_copied {
            self.end(slot, Cause::Memory);
        }
    }
}

/// An entry that stands for nothing: what a copied extent leaves behind when it joins the entry before it.
fn is_empty(item: &Pending) -> bool {
    matches!(item, Pending::Numbered(0))
}
