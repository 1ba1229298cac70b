//! [`Beginning`]: whether a cluster begins anew, so that what the application was told of presence by former nodes holds no more.
//! Each node works it out by itself, without I/O or a clock.
//!
//! When all nodes died nobody is left to tell who was there. So of the nodes of a new cluster the oldest tells that, one lease after its
//! start: by then it has met whoever was there before. A node that meets one that has lived for a lease has nothing to tell: that one
//! told, or had no reason to. Should the oldest die within its lease, the next one tells. Who reaches nobody of its
//! cluster for a lease takes itself for a new one, so it may be told once too often, but not once too little. Tested here.

use std::time::{Duration, Instant};

use tieline_proto::NodeId;

use crate::stamp::started;

/// What follows from what a node sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet: it is asked again.
    Wait,
    /// Another node tells, has told, or was there before.
    Elsewhere,
    /// This node tells that everything begins with its start.
    Here,
}

/// A node that does not know yet whether others were there before it.
pub(super) struct Beginning {
    me: NodeId,
    /// How long a node may be silent that lives.
    lease: Duration,
    /// Since when it could have heard of the others.
    listening: Instant,
}

impl Beginning {
    /// At the start of a node. One that is no member of a cluster waits for nobody: its lease is zero.
    pub(super) fn new(me: NodeId, lease: Duration, now: Instant) -> Self {
        Beginning { me, lease, listening: now }
    }

    /// These other nodes live, as far as the broker could carry their words; `unix_ms` is the time.
    pub(super) fn see(
        &mut self,
        others: &[NodeId],
        is_broker_up: bool,
        now: Instant,
        unix_ms: u64,
    ) -> Verdict {
        if !is_broker_up {
            self.listening = now;
            return Verdict::Wait;
        }
        let mut elders = others.iter().filter(|other| self.is_older(other)).peekable();
        let has_elders = elders.peek().is_some();
        let lease = self.lease.as_millis() as u64;
        if elders.any(|elder| unix_ms.saturating_sub(started(elder.incarnation)) >= lease) {
            Verdict::Elsewhere
        } else if has_elders || now < self.listening + self.lease {
            Verdict::Wait
        } else {
            Verdict::Here
        }
    }

    fn is_older(&self, other: &NodeId) -> bool {
        (other.incarnation, &other.name) < (self.me.incarnation, &self.me.name)
    }
}

#[cfg(test)]
mod tests {
    use tieline_proto::{Incarnation, NodeName};

    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    /// A node that was started so many seconds after the first.
    fn node(second: u64) -> NodeId {
        NodeId {
            name: NodeName::new(&format!("n{second}")).unwrap(),
            incarnation: Incarnation((second * 1000) << 20),
        }
    }

    /// What a node says at each second of its first minute, given who lives then, until it says something.
    fn said(second: u64, alive: impl Fn(u64) -> Vec<u64>) -> (u64, Verdict) {
        let begin = Instant::now();
        let mut beginning = Beginning::new(node(second), LEASE, begin);
        let verdicts = (second..second + 60).map(|time| {
            let others: Vec<NodeId> = alive(time).into_iter().map(node).collect();
            let now = begin + Duration::from_secs(time - second);
            (time, beginning.see(&others, true, now, time * 1000))
        });
        verdicts.into_iter().find(|(_, verdict)| *verdict != Verdict::Wait).unwrap_or((0, Verdict::Wait))
    }

    #[test]
    fn the_oldest_of_a_new_cluster_tells_a_lease_after_its_start_and_nobody_else() {
        assert_eq!(said(0, |_| vec![]), (15, Verdict::Here));
        assert_eq!(said(0, |_| vec![3, 7]), (15, Verdict::Here));
        // They know as soon as the oldest has had its time.
        assert_eq!(said(3, |_| vec![0, 7]), (15, Verdict::Elsewhere));
        assert_eq!(said(7, |_| vec![0, 3]), (15, Verdict::Elsewhere));
        // Where somebody was there before, it is clear at once.
        assert_eq!(said(40, |_| vec![0]), (40, Verdict::Elsewhere));
        // Also where that one dies soon, and where it is met late.
        assert_eq!(said(40, |time| if time < 42 { vec![0] } else { vec![] }), (40, Verdict::Elsewhere));
        assert_eq!(said(40, |time| if time < 52 { vec![] } else { vec![0] }), (52, Verdict::Elsewhere));
    }

    #[test]
    fn where_the_oldest_dies_before_it_tells_the_next_one_does() {
        let alive = |time| if time < 10 { vec![0] } else { vec![] };
        assert_eq!(said(3, alive), (18, Verdict::Here));
        // It lives until it has told.
        let alive = |time| if time < 16 { vec![0] } else { vec![] };
        assert_eq!(said(3, alive), (15, Verdict::Elsewhere));
    }

    #[test]
    fn while_the_broker_is_away_nobody_can_be_heard_and_nothing_is_concluded() {
        let begin = Instant::now();
        let mut beginning = Beginning::new(node(0), LEASE, begin);
        let mut at =
            |second: u64, up| beginning.see(&[], up, begin + Duration::from_secs(second), second * 1000);
        assert!((0..100).all(|second| at(second, false) == Verdict::Wait));
        assert!((100..114).all(|second| at(second, true) == Verdict::Wait));
        assert_eq!(at(114, true), Verdict::Here);
    }

    #[test]
    fn who_is_no_member_waits_for_nobody() {
        let now = Instant::now();
        assert_eq!(Beginning::new(node(0), Duration::ZERO, now).see(&[], true, now, 0), Verdict::Here);
    }
}
