//! [`Ends`]: how far a shard has delivered the logs of groups that it holds members of.
//!
//! A shard gets the messages of a log in their order, so this is where each of those members is in it. It is
//! noted with each message, so a group that had none since its first member came is not there; then the log's end is that place.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tieline_proto::Position;
use tieline_switchboard::GroupId;

use crate::hub::Group;

/// The last message of each log that the shard has delivered.
#[derive(Default)]
pub(super) struct Ends {
    /// By the number of the group. A number is used again when its group is gone, so the group stands beside it.
    of: HashMap<GroupId, (Weak<Group>, Position)>,
}

impl Ends {
    /// A message of this place was delivered.
    pub(super) fn note(&mut self, group: &Arc<Group>, position: Position) {
        let end = self.of.entry(group.id()).or_insert_with(|| (Arc::downgrade(group), position));
        if end.0.as_ptr() != Arc::as_ptr(group) {
            end.0 = Arc::downgrade(group);
        }
        end.1 = position;
    }

    /// The last message of a group that was delivered, if any was.
    pub(super) fn of(&self, group: &Arc<Group>) -> Option<Position> {
        let (of, position) = self.of.get(&group.id())?;
        (of.as_ptr() == Arc::as_ptr(group)).then_some(*position)
    }

    /// The shard has no members of a group: what comes of its log is not delivered.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.of.remove(&group);
    }

    /// Forgets groups that nobody holds.
    pub(super) fn tidy(&mut self) {
        self.of.retain(|_, (group, _)| group.strong_count() > 0);
    }
}
