//! Recovery at another node: a client of the reliable protocol that was cut comes to a node which does not hold its connection,
//! and the connection comes there too.
//!
//! The new node *takes* it (`recovery/taking.rs`), the old one *gives* it (`recovery/giving.rs`), in three steps, so that
//! messages are neither lost nor doubled while both live. First the old node takes the socket away and tells what the
//! connection is; it goes on holding it. Then the new node puts a connection in place without a socket, says to all nodes that it
//! holds its user and groups, and enters their logs where the connection was; from now on both get what is sent to it. At last
//! the old node gives the frames that were not acknowledged and lets go, and the new one drops what it has twice. After that the client is
//! resumed as if it had been cut at the new node. Whatever fails before the last step leaves the connection with the old node.
//!
//! When the old node is dead, the connection comes from the store (`recovery/resuming.rs`), where everything that it gets is kept there: each
//! node writes down what its connections are and how far their clients have acknowledged (`recovery/writer.rs` the task,
//! `recovery/checkpoint.rs` the record, `recovery/progress.rs` how far that is). Whoever takes a connection raises the generation in its
//! record by compare-and-set; who finds a higher one there than its own has lost the connection.
//!
//! A connection keeps its id, which names its first node, so the others are told who holds it (`Held::Connection`), and the
//! holder finds it in a table of its own, [`Settlers`]. Tested in `tests/sessions/moving.rs`, and with real processes.

mod checkpoint;
mod checkpoints;
mod counters;
mod giving;
mod progress;
mod resuming;
mod taking;
mod words;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tieline_proto::ConnectionId;
use tieline_switchboard::Address;

pub(crate) use checkpoint::Checkpoint;
pub(crate) use checkpoints::Checkpoints;
pub use counters::CheckpointCounters;
pub(crate) use progress::{Places, Progress};
pub(crate) use resuming::Underway;
pub(crate) use taking::MOVES;
pub(crate) use words::{Frame, Given, Group, Head, Page, Place, Rest, roles};
pub(crate) use writer::CheckpointsTask;

/// Bytes of frames that one answer carries at most, unless a single frame is larger.
pub(crate) const PAGE: usize = 512 << 10;

/// Connections of this node whose ids name another place.
#[derive(Default)]
pub(crate) struct Settlers {
    of: DashMap<ConnectionId, Address>,
    /// How many they are, so that nobody looks where there is none.
    count: AtomicUsize,
}

impl Settlers {
    /// Where such a connection stands.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<Address> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.of.get(&id).map(|address| *address)
    }

    /// One has come. It takes the place of one of the same id.
    pub(crate) fn add(&self, id: ConnectionId, address: Address) {
        self.of.insert(id, address);
        self.count.store(self.of.len(), Ordering::Release);
    }

    /// One has ended.
    pub(crate) fn remove(&self, id: ConnectionId, address: Address) {
        self.of.remove_if(&id, |_, known| *known == address);
        self.count.store(self.of.len(), Ordering::Release);
    }
}
