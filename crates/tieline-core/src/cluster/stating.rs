//! Stating: what connections of this node hold, and who waits for the other nodes to have read of it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tieline_proto::HubName;
use tieline_proto::envelope::{Change, Held};
use tieline_switchboard::Address;

use super::attendant::Word;
use super::roster::Roster;
use super::{Cluster, lock};
use crate::command::Then;

/// What this node states, and what of it was not told yet.
#[derive(Default)]
pub(super) struct OwnRoster {
    pub(super) roster: Roster,
    pub(super) untold: Vec<Change>,
    /// The version that every live node has read.
    pub(super) read: u64,
}

/// Whether the others know already what a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// They do, or there are none.
    Yes,
    /// They will when they have read this version.
    At(u64),
}

impl Cluster {
    /// A connection of this node holds a user or a group from now on.
    pub(crate) fn hold(&self, hub: &HubName, what: Held) -> Known {
        let mut own = lock(&self.own);
        let (version, change) = own.roster.hold(hub, what);
        if let Some(change) = change {
            own.untold.push(change);
            self.changed.notify_one();
        }
        if version <= own.read || self.peer_view().is_alone() { Known::Yes } else { Known::At(version) }
    }

    /// A connection holds it no longer.
    pub(crate) fn release(&self, hub: &HubName, what: Held) {
        let mut own = lock(&self.own);
        if let Some(change) = own.roster.release(hub, what) {
            own.untold.push(change);
            self.changed.notify_one();
        }
    }

    /// Tells the connection's shard to go on when the others have read a version, or the time is up.
    ///
    /// # Errors
    /// What is to be done, when the task is too far behind to wait: then it is done without the promise, and
    /// counted.
    pub(crate) fn when_read(&self, version: u64, address: Address, then: Then) -> Result<(), Then> {
        match self.words.try_send(Word::Wait(version, address, then)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.counters.unread.fetch_add(1, Ordering::Relaxed);
                match error.into_inner() {
                    Word::Wait(_, _, then) => Err(then),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Waits until the nodes that are reached have read all that this one has stated so far, or the time is up, which
    /// is counted.
    pub(crate) async fn all_read(&self) {
        let version = lock(&self.own).roster.version();
        if self.is_alone() {
            return;
        }
        let since = Instant::now();
        let mut read = self.read.subscribe();
        let all = read.wait_for(|read| *read >= version);
        if tokio::time::timeout(self.times.read, all).await.is_err() {
            self.counters.unread.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.read_wait.record(since.elapsed());
    }
}
