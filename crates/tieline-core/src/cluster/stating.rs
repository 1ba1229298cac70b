//! Stating: what connections of this node hold, and who waits for the other nodes to have read of it.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tieline_proto::envelope::{Change, Held};
use tieline_proto::{ConnectionId, GroupName, HubName, UserId};
use tieline_switchboard::Address;
use tokio::sync::{Notify, watch};

use super::attendant::Word;
use super::roster::Roster;
use super::{Cluster, lock};
use crate::command::Then;
use crate::directory::{Claimed, Until};

/// What this node states to the others. Entered by the shards, told by the cluster's task.
#[derive(Default)]
pub(crate) struct Statements {
    own: Mutex<Own>,
    /// Wakes the task: there is something to tell, or the broker went or came.
    pub(super) changed: Notify,
    /// The version that every node which is reached has read, for those that wait outside the shards. Touched too when the
    /// directory has settled something.
    read: watch::Sender<Option<u64>>,
}

#[derive(Default)]
struct Own {
    roster: Roster,
    /// Changes that were not told yet; they lead to the roster's version.
    untold: Vec<Change>,
    /// The version that every node which is reached has read; none where one of them may not know this node yet.
    read: Option<u64>,
    /// The last version that somebody outside the task went on without, until the task looks.
    late: Option<u64>,
}

/// Whether the others know already what a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// They do, or there are none.
    Yes,
    /// They will then.
    At(Until),
}

impl Known {
    /// When both are known.
    pub(crate) fn and(self, other: Known) -> Known {
        match (self, other) {
            (Known::At(one), Known::At(other)) => Known::At(one.and(other)),
            (Known::Yes, known) | (known, Known::Yes) => known,
        }
    }
}

impl Statements {
    /// The newest claim of this node to a user, or to a place. Returns the version by which the others know that it has one, 0
    /// where those that are reached know already.
    pub(crate) fn claim(&self, hub: &HubName, what: Held, number: u64) -> u64 {
        self.state(|roster| roster.claim(hub, what, number))
    }

    /// A claim of this node is gone, and this is the newest that is left.
    pub(crate) fn restate(&self, hub: &HubName, what: Held, newest: Option<u64>) {
        match newest {
            Some(newest) => drop(self.claim(hub, what, newest)),
            None => drop(self.state(|roster| (0, roster.release(hub, what)))),
        }
    }

    /// One more connection of this node is in a group. Returns as [`Statements::claim`] does.
    fn hold(&self, hub: &HubName, group: GroupName) -> u64 {
        self.state(|roster| roster.hold(hub, Held::Group(group)))
    }

    /// One connection less is.
    fn release(&self, hub: &HubName, group: GroupName) {
        self.state(|roster| (0, roster.release(hub, Held::Group(group))));
    }

    /// This node holds a connection whose id does not say so. Returns as [`Statements::claim`] does.
    fn hold_connection(&self, hub: &HubName, id: ConnectionId) -> u64 {
        self.state(|roster| roster.hold(hub, Held::Connection(id)))
    }

    /// It does no longer.
    fn release_connection(&self, hub: &HubName, id: ConnectionId) {
        self.state(|roster| (0, roster.release(hub, Held::Connection(id))));
    }

    fn state(&self, change: impl FnOnce(&mut Roster) -> (u64, Option<Change>)) -> u64 {
        let mut own = lock(&self.own);
        let (version, change) = change(&mut own.roster);
        if let Some(change) = change {
            own.untold.push(change);
            self.changed.notify_one();
        }
        if own.read.is_some_and(|read| version <= read) { 0 } else { version }
    }

    /// The present version.
    pub(super) fn version(&self) -> u64 {
        lock(&self.own).roster.version()
    }

    /// The changes that were not told, and the version they lead to.
    pub(crate) fn take_untold(&self) -> (u64, Vec<Change>) {
        let mut own = lock(&self.own);
        (own.roster.version(), std::mem::take(&mut own.untold))
    }

    /// Looks at the roster, if all of it was told.
    pub(crate) fn when_told<T>(&self, look: impl FnOnce(&Roster) -> T) -> Option<T> {
        let own = lock(&self.own);
        own.untold.is_empty().then(|| look(&own.roster))
    }

    /// The nodes that are reached have read these versions; one that has not said so yet, none. Returns the version that nobody
    /// has to wait for any more: with no such nodes the present one, and none while one of them may not know this node. For
    /// that one would send nothing here, whatever its directory knew.
    pub(crate) fn were_read(&self, mut versions: impl Iterator<Item = Option<u64>>) -> Option<u64> {
        let mut own = lock(&self.own);
        let present = own.roster.version();
        own.read = versions.try_fold(present, |least, version| Some(least.min(version?)));
        let read = own.read;
        drop(own);
        self.read.send_replace(read);
        read
    }

    /// Somebody went on though not every node has read this version.
    fn went_on(&self, version: u64) {
        let mut own = lock(&self.own);
        own.late = own.late.max(Some(version));
    }

    /// The last version that somebody went on without, once.
    pub(super) fn take_late(&self) -> Option<u64> {
        lock(&self.own).late.take()
    }

    /// Whether all nodes that are reached have said that they know this one.
    fn is_known_to_all(&self) -> bool {
        lock(&self.own).read.is_some()
    }

    /// Users that are stated.
    pub(super) fn users(&self) -> usize {
        lock(&self.own).roster.users()
    }

    /// Wakes the task.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }
}

impl Cluster {
    /// A connection of this node belongs to a user from now on. Returns when the others know, and the claim's number.
    pub(crate) fn hold_user(&self, hub: &HubName, user: &UserId) -> (Known, u64) {
        let Claimed { number, until } = self.directory.claim(hub, user);
        (self.known_at(until), number)
    }

    /// It does no longer.
    pub(crate) fn release_user(&self, hub: &HubName, user: &UserId, claim: u64) {
        self.directory.release(hub, user, claim);
    }

    /// A connection of this node is in a group from now on. Returns when the others know.
    pub(crate) fn hold_group(&self, hub: &HubName, group: GroupName) -> Known {
        self.known_at(Until { read: self.statements.hold(hub, group), settled: 0 })
    }

    /// It is no longer.
    pub(crate) fn release_group(&self, hub: &HubName, group: GroupName) {
        self.statements.release(hub, group);
    }

    /// This node holds a connection from now on whose id names another place.
    pub(crate) fn hold_connection(&self, hub: &HubName, id: ConnectionId) {
        self.statements.hold_connection(hub, id);
    }

    /// It does no longer.
    pub(crate) fn release_connection(&self, hub: &HubName, id: ConnectionId) {
        self.statements.release_connection(hub, id);
    }

    /// When the others know what this node has claimed or stated.
    pub(crate) fn known_at(&self, until: Until) -> Known {
        let is_known = until == Until::default() && self.statements.is_known_to_all();
        if is_known || self.peer_view().is_alone() { Known::Yes } else { Known::At(until) }
    }

    /// Tells the connection's shard to go on when the others know, or the time is up.
    ///
    /// # Errors
    /// What is to be done, when the task is too far behind to wait: then it is done without the promise, and
    /// counted.
    pub(crate) fn when_read(&self, until: Until, address: Address, then: Then) -> Result<(), Then> {
        match self.words.try_send(Word::Wait(until, address, then)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.counters.unread.fetch_add(1, Ordering::Relaxed);
                self.statements.went_on(until.read);
                match error.into_inner() {
                    Word::Wait(_, _, then) => Err(then),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Waits until the nodes that are reached have read all that this one has stated so far, or the time is up, which
    /// is counted.
    pub async fn all_read(&self) {
        let version = self.statements.version();
        if self.is_alone() {
            return;
        }
        let since = Instant::now();
        let last = self.asked.as_ref().map_or(0, |asked| asked.last_number());
        let mut read = self.statements.read.subscribe();
        let is_settled = |read| self.asked.as_ref().is_none_or(|asked| asked.are_settled(last, read));
        let all = read.wait_for(|read| read.is_some_and(|read| read >= version && is_settled(read)));
        if tokio::time::timeout(self.times.read, all).await.is_err() {
            self.counters.unread.fetch_add(1, Ordering::Relaxed);
            if read.borrow().is_none_or(|read| read < version) {
                self.statements.went_on(version);
            }
        }
        self.counters.read_wait.record(since.elapsed());
    }
}
