//! Which of a connection's requests were carried out, by the client's own ackIds: a client that was cut sends again
//! what it got no ack for, and must not be heard twice.
//!
//! Clients count upwards, so the ids are kept as intervals, of which most connections have one. At most
//! [`MAX_INTERVALS`] are kept; where a client jumps about, the lowest is forgotten first.

use smallvec::SmallVec;

/// Intervals kept for one connection: 1 KiB. Ids below all of them count as new.
const MAX_INTERVALS: usize = 64;

/// The ackIds that were carried out.
#[derive(Clone, Debug, Default)]
pub(crate) struct AckWindow {
    /// Disjoint closed intervals, not adjacent, in rising order.
    intervals: SmallVec<[(u64, u64); 1]>,
}

impl AckWindow {
    /// Whether the request of this id was carried out.
    pub(crate) fn contains(&self, id: u64) -> bool {
        // Nearly always the last interval decides.
        self.intervals.iter().rev().find(|(from, _)| *from <= id).is_some_and(|(_, to)| id <= *to)
    }

    /// The ids as disjoint closed intervals, in rising order.
    pub(crate) fn intervals(&self) -> &[(u64, u64)] {
        &self.intervals
    }

    /// A window of these intervals; of too many, or some that are not in order, the highest.
    pub(crate) fn of(intervals: &[(u64, u64)]) -> Self {
        let mut kept: SmallVec<[(u64, u64); 1]> = SmallVec::new();
        for (from, to) in intervals.iter().rev().take(MAX_INTERVALS) {
            let is_next = kept.last().is_none_or(|above: &(u64, u64)| to.saturating_add(1) < above.0);
            if from <= to && is_next {
                kept.push((*from, *to));
            }
        }
        kept.reverse();
        AckWindow { intervals: kept }
    }

    /// Notes that it was.
    pub(crate) fn insert(&mut self, id: u64) {
        let at = self.intervals.partition_point(|(from, _)| *from <= id);
        if at > 0 && id <= self.intervals[at - 1].1 {
            return;
        }
        let joins_before = at > 0 && self.intervals[at - 1].1.checked_add(1) == Some(id);
        let joins_behind = self.intervals.get(at).is_some_and(|(from, _)| id.checked_add(1) == Some(*from));
        match (joins_before, joins_behind) {
            (true, true) => {
                self.intervals[at - 1].1 = self.intervals[at].1;
                self.intervals.remove(at);
            }
            (true, false) => self.intervals[at - 1].1 = id,
            (false, true) => self.intervals[at].0 = id,
            (false, false) => {
                self.intervals.insert(at, (id, id));
                if self.intervals.len() > MAX_INTERVALS {
                    self.intervals.remove(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(ids in proptest::collection::vec(0u64..60, 0..200)) {
            let (mut window, mut model) = (AckWindow::default(), BTreeSet::new());
            for id in ids {
                prop_assert_eq!(window.contains(id), model.contains(&id));
                window.insert(id);
                model.insert(id);
                let copy = AckWindow::of(window.intervals());
                prop_assert_eq!(copy.intervals(), window.intervals());
                prop_assert!(window.intervals.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }
    }

    #[test]
    fn counting_upwards_takes_one_interval() {
        let mut window = AckWindow::default();
        (1..=100_000).for_each(|id| window.insert(id));
        assert_eq!(window.intervals.as_slice(), [(1, 100_000)]);
        assert!(!window.intervals.spilled());
    }

    #[test]
    fn jumping_about_is_bounded() {
        let mut window = AckWindow::default();
        (0..1_000).for_each(|id| window.insert(id * 2));
        assert_eq!(window.intervals.len(), MAX_INTERVALS);
        assert!(window.contains(1_998) && !window.contains(0));
        window.insert(u64::MAX);
        assert!(window.contains(u64::MAX));
    }
}
