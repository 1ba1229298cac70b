//! [`Pulse`]: whether the servers carry, by the canaries that a node sends itself and that come back or do not. Without I/O or a clock.
//!
//! The library says when no server can be reached, and never when one is back. So its word is only a suspicion, which a canary has a
//! moment to prove wrong, and what ends an outage is a canary alone.
//!
//! Tested here.

use std::time::{Duration, Instant};

/// How long a canary that was sent on a suspicion has to come back.
const SUSPICION: Duration = Duration::from_secs(1);

/// What a node knows of its canaries.
pub(super) struct Pulse {
    /// The time between two.
    every: Duration,
    /// So many that did not come back are an outage.
    misses: u32,
    /// How many did not come back in a row.
    missing: u32,
    /// When the next is sent.
    next: Instant,
    /// The number of the last that was sent.
    number: u64,
    /// Those below prove nothing: they were on their way back already.
    least: u64,
    is_away: bool,
}

/// What has to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Send a canary of this number.
    pub(super) canary: u64,
    /// Say that the servers carry nothing.
    pub(super) is_gone: bool,
}

impl Pulse {
    /// One that has just seen its first canary, or has to send it at once.
    pub(super) fn new(every: Duration, misses: u32, now: Instant) -> Self {
        Pulse { every, misses, missing: 0, next: now, number: 0, least: 0, is_away: false }
    }

    /// When [`Pulse::turn`] has something to do.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Whether the servers carry nothing.
    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }

    /// What is due. A node that stood still has not missed what it did not look for: the next turn counts from now.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Turn> {
        if now < self.next {
            return None;
        }
        let is_gone = self.missing >= self.misses && !self.is_away;
        self.is_away |= is_gone;
        self.missing = self.missing.saturating_add(1);
        self.number += 1;
        self.next = now + self.every;
        Some(Turn { canary: self.number, is_gone })
    }

    /// Somebody says that no server can be reached. The canary to send now, unless that is known or suspected already.
    pub(super) fn suspect(&mut self, now: Instant) -> Option<u64> {
        if self.is_away || self.missing >= self.misses {
            return None;
        }
        self.missing = self.misses;
        self.number += 1;
        self.least = self.number;
        self.next = now + SUSPICION;
        Some(self.number)
    }

    /// A canary came back. Says whether the servers are back by that.
    pub(super) fn came(&mut self, number: u64) -> bool {
        if number < self.least || number > self.number {
            return false;
        }
        self.missing = 0;
        std::mem::take(&mut self.is_away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(2);

    fn pulse() -> (Pulse, Instant) {
        let now = Instant::now();
        (Pulse::new(EVERY, 3, now), now)
    }

    #[test]
    fn three_that_do_not_come_back_are_an_outage_and_one_that_does_is_its_end() {
        let (mut pulse, start) = pulse();
        let mut went = Vec::new();
        for second in 0..20 {
            let now = start + Duration::from_secs(second);
            if pulse.turn(now).is_some_and(|turn| turn.is_gone) {
                went.push(second);
            }
        }
        assert_eq!(went, [6], "once");
        assert!(pulse.is_away());
        assert!(!pulse.came(99), "nobody has sent it");
        assert!(pulse.came(2), "what is old has waited, and flows");
        assert!(!pulse.came(3) && !pulse.is_away());
    }

    #[test]
    fn a_node_that_stood_still_has_missed_nothing() {
        let (mut pulse, start) = pulse();
        for minute in 0..10 {
            let now = start + Duration::from_secs(60 * minute);
            let turn = pulse.turn(now).unwrap();
            assert!(!turn.is_gone && pulse.turn(now).is_none());
            assert!(!pulse.came(turn.canary));
        }
    }

    #[test]
    fn a_suspicion_is_proved_by_a_canary_that_was_sent_after_it() {
        let (mut pulse, start) = pulse();
        let before = pulse.turn(start).unwrap().canary;
        let after = pulse.suspect(start).unwrap();
        pulse.came(before);
        assert_eq!(pulse.suspect(start + SUSPICION / 2), None, "it is said again and again");
        assert!(pulse.turn(start + SUSPICION - Duration::from_millis(1)).is_none());
        assert!(pulse.turn(start + SUSPICION).unwrap().is_gone);
        assert_eq!(pulse.suspect(start + SUSPICION), None, "it is known");
        assert!(pulse.came(after));

        let after = pulse.suspect(start + EVERY).unwrap();
        assert!(!pulse.came(after));
        assert!(!pulse.turn(start + EVERY + SUSPICION).unwrap().is_gone);
    }
}
