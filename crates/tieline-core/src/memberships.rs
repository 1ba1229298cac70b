//! [`Memberships`]: a connection's share in what its user is a stored member of: which groups it has still to enter, and how far
//! its client has read the logs of those that it is in. Without I/O; `operator/attending.rs` acts on it.

use std::collections::{HashMap, VecDeque};

use tieline_proto::{GroupName, Position};

use crate::logs::Membership;
use crate::reading::Reading;

/// What a connection has of its user's stored memberships.
#[derive(Debug, Default)]
pub(crate) struct Memberships {
    /// Groups of its token, of which its user is to be a member, until the memberships were listed; none afterwards.
    pub(crate) unlisted: Option<Vec<GroupName>>,
    /// Groups that it is to enter, in this order, each behind its place. It holds them in the cluster already.
    pub(crate) coming: VecDeque<Membership>,
    /// Whether it is entering the first of them, or waits until the other nodes know of all.
    pub(crate) is_entering: bool,
    /// How far its client has read the logs of those that it is in, and of the one that it is entering.
    readings: HashMap<GroupName, Reading>,
}

impl Memberships {
    /// Whether it is to enter this group.
    pub(crate) fn is_coming(&self, group: &str) -> bool {
        self.coming.iter().any(|membership| &*membership.group == group)
    }

    /// It is not to enter this group any more. Returns whether it was, and whether it is entering it already.
    pub(crate) fn forget(&mut self, group: &str) -> Option<bool> {
        let index = self.coming.iter().position(|membership| &*membership.group == group)?;
        self.coming.remove(index);
        self.readings.remove(group);
        Some(index == 0 && self.is_entering)
    }

    /// The connection is in a group, or about to be given what it missed there: what it reads is noted from now on.
    pub(crate) fn begin(&mut self, group: &GroupName, reading: impl FnOnce() -> Reading) {
        self.readings.entry(group.clone()).or_insert_with(reading);
    }

    /// The connection has everything of a group's log up to here.
    pub(crate) fn is_at(&mut self, group: &str, position: Position) {
        if let Some(reading) = self.readings.get_mut(group) {
            reading.at = position;
        }
    }

    /// The connection is in a group no longer.
    pub(crate) fn end(&mut self, group: &str) {
        self.readings.remove(group);
    }

    /// How far its client has read a group's log.
    pub(crate) fn reading(&mut self, group: &str) -> Option<&mut Reading> {
        self.readings.get_mut(group)
    }

    /// The same, of all.
    pub(crate) fn readings(&mut self) -> impl Iterator<Item = &mut Reading> {
        self.readings.values_mut()
    }
}
