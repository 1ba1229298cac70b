//! [`Enabled`]: which members are offered to clients. Whoever has registered is offered too, but the two lists of a server that
//! was just started, or of several servers, need not fit together at every moment. Without I/O. Tested here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tieline_proto::NodeId;

/// Since when members are not offered.
pub(super) struct Enabled {
    missing: HashMap<NodeId, Instant>,
    /// So long a member may be missing without having been disabled.
    grace: Duration,
}

impl Enabled {
    pub(super) fn new(grace: Duration) -> Self {
        Enabled { missing: HashMap::new(), grace }
    }

    /// Notes whether a member is offered, and says whether it counts as enabled.
    pub(super) fn note(&mut self, id: &NodeId, is_offered: bool, now: Instant) -> bool {
        if is_offered {
            self.missing.remove(id);
            return true;
        }
        let since = *self.missing.entry(id.clone()).or_insert(now);
        now < since + self.grace
    }

    /// Forgets who is a member no more.
    pub(super) fn forget_all_but(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.missing.retain(|id, _| is_member(id));
    }
}

#[cfg(test)]
mod tests {
    use tieline_proto::{Incarnation, NodeName};

    use super::*;

    #[test]
    fn who_is_missing_for_a_while_is_disabled_until_it_is_back() {
        let id = NodeId { name: NodeName::new("a").unwrap(), incarnation: Incarnation(1) };
        let mut enabled = Enabled::new(Duration::from_secs(5));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(enabled.note(&id, false, at(0)), "it may have come this moment");
        assert!(enabled.note(&id, true, at(4)));
        assert!(enabled.note(&id, false, at(6)), "it was there meanwhile");
        assert!(enabled.note(&id, false, at(10)));
        assert!(!enabled.note(&id, false, at(11)));
        assert!(enabled.note(&id, true, at(12)));
        assert!(enabled.note(&id, false, at(13)));
        enabled.forget_all_but(|_| false);
        assert!(enabled.note(&id, false, at(20)), "it is another's beginning");
    }
}
