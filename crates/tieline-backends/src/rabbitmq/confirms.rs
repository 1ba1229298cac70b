//! [`Confirms`]: what was published and not confirmed yet. The server confirms by number, one or all up to one, in any order.
//! No I/O. Tested here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
struct State {
    /// What each cost, from `first` on; none where it was confirmed before an older one.
    waiting: VecDeque<Option<usize>>,
    /// How many came before those.
    confirmed: u64,
}

/// The costs of what the server has not taken charge of. It is bounded by the queue that gets its room back from here.
#[derive(Default)]
pub(super) struct Confirms(Mutex<State>);

impl Confirms {
    /// Something of this cost is published next. The first one has the number 1.
    pub(super) fn published(&self, cost: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_back(Some(cost));
    }

    /// The server has answered for a number, or for everything up to it: how many that are, and what they cost. A number that was never
    /// published is answered for by nothing.
    pub(super) fn confirmed(&self, tag: u64, and_before: bool) -> (u64, usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { waiting, confirmed } = &mut *state;
        let Some(index) = tag.checked_sub(*confirmed + 1) else { return (0, 0) };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index >= waiting.len() {
            return (0, 0);
        }
        let first = if and_before { 0 } else { index };
        let answered = waiting.range_mut(first..=index).filter_map(Option::take);
        let answered = answered.fold((0, 0), |(count, sum), cost| (count + 1, sum + cost));
        while waiting.front().is_some_and(Option::is_none) {
            waiting.pop_front();
            *confirmed += 1;
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_answered_for_once_in_any_order() {
        let confirms = Confirms::default();
        for cost in [1, 20, 300, 4000, 50_000] {
            confirms.published(cost);
        }
        assert_eq!(confirms.confirmed(2, false), (1, 20));
        assert_eq!(confirms.confirmed(2, false), (0, 0), "once");
        assert_eq!(confirms.confirmed(3, true), (2, 301), "all that is left up to it");
        assert_eq!(confirms.confirmed(3, true), (0, 0));
        assert_eq!([0, 6, u64::MAX].map(|tag| confirms.confirmed(tag, true)), [(0, 0); 3]);
        confirms.published(600_000);
        assert_eq!(confirms.confirmed(5, false), (1, 50_000));
        assert_eq!(confirms.confirmed(6, true), (2, 604_000));
        assert_eq!(confirms.0.lock().unwrap().waiting.len(), 0);
    }
}
