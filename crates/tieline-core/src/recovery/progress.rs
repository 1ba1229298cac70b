//! [`Progress`]: up to where in its logs the client of a connection has everything, as its acknowledgements of numbers tell.
//!
//! Numbers are given to what comes from all logs together, and a message's number is not written down. So the places of all logs
//! are looked at together with the last number that was given (a *mark*), one mark at a time; when a client acknowledges
//! that number it has everything up to these places. Nothing is done for a message. Without I/O; tested below.

use serde::{Deserialize, Serialize};
use tieline_proto::{GroupName, Position};

/// Where a connection is in its logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Places {
    /// In those of groups.
    pub(crate) groups: Vec<(GroupName, Position)>,
    /// In its user's inbox.
    pub(crate) inbox: Option<Position>,
}

impl Places {
    pub(crate) fn group(&self, name: &str) -> Option<Position> {
        self.groups.iter().find(|(group, _)| group.as_str() == name).map(|(_, at)| *at)
    }

    fn set(&mut self, name: &GroupName, at: Position) {
        match self.groups.iter_mut().find(|(group, _)| group == name) {
            Some(place) => place.1 = at,
            None => self.groups.push((name.clone(), at)),
        }
    }

    fn forget(&mut self, name: &str) {
        self.groups.retain(|(group, _)| group.as_str() != name);
    }

    /// Takes over what another says, and keeps what it does not speak of. Returns whether that is news.
    fn follow(&mut self, other: Places) -> bool {
        let before = self.clone();
        for (group, at) in &other.groups {
            self.set(group, *at);
        }
        self.inbox = other.inbox.or(self.inbox);
        *self != before
    }
}

/// What is known of a connection's client, wherever the connection goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// How often it was taken over by another node, whether it came from a node or from the store.
    pub(crate) generation: u32,
    /// The last number that was acknowledged; the one before the first that was given where none was.
    pub(crate) acknowledged: u64,
    /// The client has everything up to here.
    pub(crate) covered: Places,
    /// It has everything up to these places when it has acknowledged this number.
    pub(crate) mark: Option<(u64, Places)>,
}

/// What is known of it at the node that holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) known: Known,
    /// Whether it stands in its shard's list of those to be looked at.
    pub(crate) is_listed: bool,
    /// Whether all that it gets is kept, as it was when that was last looked at: else its acknowledgements tell nothing.
    pub(crate) is_kept: bool,
    /// Whether its record is to be written although the places are those that it has.
    pub(crate) is_changed: bool,
    /// Whether the store has a record of it, or may have.
    pub(crate) is_stored: bool,
    /// Changes that wait for its record to be gone.
    pub(crate) changes: u32,
}

impl Progress {
    /// That of a connection of which there is no record.
    pub(crate) fn new() -> Self {
        Progress { is_kept: true, is_changed: true, ..Progress::default() }
    }

    /// That of one which comes from elsewhere, where there may be one.
    pub(crate) fn of(known: Known) -> Self {
        Progress { known, is_stored: true, ..Progress::new() }
    }

    /// All numbers up to this one are acknowledged. Returns whether the connection is to be looked at because of that.
    pub(crate) fn acknowledge(&mut self, number: u64) -> bool {
        let is_news = number > self.known.acknowledged;
        if is_news {
            self.known.acknowledged = number;
        }
        is_news && self.is_kept && !self.is_listed
    }

    /// It is in a group from now on, behind this place.
    pub(crate) fn begin(&mut self, group: &GroupName, at: Position) {
        self.known.covered.set(group, at);
    }

    /// It is in a group no longer.
    pub(crate) fn end(&mut self, group: &str) {
        self.known.covered.forget(group);
        if let Some((_, places)) = &mut self.known.mark {
            places.forget(group);
        }
    }

    /// It was given everything up to these places, and the last of that was this number.
    pub(crate) fn advance(&mut self, last: u64, places: Places) {
        let Known { acknowledged, covered, mark, .. } = &mut self.known;
        if let Some((_, marked)) = mark.take_if(|(number, _)| *number <= *acknowledged) {
            self.is_changed |= covered.follow(marked);
        }
        if mark.is_none() {
            if last <= *acknowledged {
                self.is_changed |= covered.follow(places);
            } else {
                *mark = Some((last, places));
            }
        }
    }

    /// Whether it is known for all of these groups, and for the inbox where there is one, up to where the client has everything.
    pub(crate) fn covers<'a>(
        &self,
        mut groups: impl Iterator<Item = &'a GroupName>,
        has_inbox: bool,
    ) -> bool {
        let covered = &self.known.covered;
        groups.all(|group| covered.group(group).is_some()) && (!has_inbox || covered.inbox.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> GroupName {
        GroupName::new(text).unwrap()
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    fn places(group: u64, inbox: u64) -> Places {
        Places { groups: vec![(name("g"), at(group))], inbox: Some(at(inbox)) }
    }

    #[test]
    fn a_place_counts_when_the_number_beside_it_is_acknowledged() {
        let mut progress = Progress::new();
        progress.advance(5, places(3, 2));
        assert!(!progress.covers([&name("g")].into_iter(), true));
        assert!(progress.acknowledge(4));
        // Later places do not count for earlier numbers.
        progress.advance(9, places(6, 3));
        assert!(!progress.covers([&name("g")].into_iter(), false));
        progress.acknowledge(5);
        progress.advance(9, places(6, 3));
        assert_eq!(progress.known.covered, places(3, 2));
        assert!(!progress.acknowledge(5), "nothing new is acknowledged");
        progress.acknowledge(9);
        progress.advance(9, places(6, 3));
        assert_eq!(progress.known.covered, places(6, 3));
        // Nothing is outstanding: what came meanwhile of the logs was not for this connection.
        progress.is_changed = false;
        progress.advance(9, places(8, 3));
        assert_eq!((progress.known.covered.clone(), progress.is_changed), (places(8, 3), true));
        progress.is_changed = false;
        progress.advance(9, places(8, 3));
        assert!(!progress.is_changed);
    }

    #[test]
    fn who_leaves_a_group_and_comes_again_begins_where_it_came() {
        let mut progress = Progress::new();
        progress.advance(5, places(3, 2));
        progress.end("g");
        progress.begin(&name("g"), at(10));
        progress.acknowledge(5);
        progress.advance(5, Places { groups: vec![(name("g"), at(11))], inbox: Some(at(2)) });
        assert_eq!(progress.known.covered, places(11, 2));
        let mut progress = Progress::new();
        progress.advance(5, places(3, 2));
        progress.end("g");
        progress.begin(&name("g"), at(10));
        progress.acknowledge(5);
        progress.advance(8, places(12, 2));
        assert_eq!(progress.known.covered.group("g"), Some(at(10)), "not where it was before it left");
    }

    proptest! {
        /// A connection is given messages of two logs, some of which are for others, and its client acknowledges what it likes. It
        /// never counts as having what it has not acknowledged.
        #[test]
        fn nothing_counts_that_was_not_acknowledged(steps in proptest::collection::vec((0u8..5, 0u64..4), 0..200)) {
            let mut progress = Progress::new();
            let (mut numbers, mut ends) = (Vec::new(), [0u64; 2]);
            let mut acknowledged = 0;
            for (what, how) in steps {
                match what {
                    0 | 1 => {
                        let log = usize::from(what);
                        ends[log] += 1;
                        if how > 0 {
                            numbers.push((log, ends[log]));
                        }
                    }
                    2 => {
                        acknowledged = (acknowledged + how as usize).min(numbers.len());
                        progress.acknowledge(acknowledged as u64);
                    }
                    _ => progress.advance(numbers.len() as u64, places(ends[0], ends[1])),
                }
                let covered = &progress.known.covered;
                let covered = [covered.group("g"), covered.inbox].map(|at| at.map_or(0, |at| at.offset));
                for (log, offset) in &numbers[acknowledged..] {
                    prop_assert!(covered[*log] < *offset, "{offset} of log {log} counts as had");
                }
            }
            // When all is acknowledged, two looks find that.
            progress.acknowledge(numbers.len() as u64);
            progress.advance(numbers.len() as u64, places(ends[0], ends[1]));
            prop_assert_eq!(&progress.known.covered, &places(ends[0], ends[1]));
        }
    }
}
