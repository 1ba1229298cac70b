//! What must hold between any two calls of a shard, for tests: every count is the sum of what it counts.

use std::collections::HashMap;

use crate::application::Application;
use crate::connection::Phase;
use crate::log::{CHUNK, Extent};
use crate::pending::{MAX_ENTRIES, Pending};
use crate::shard::Shard;
use crate::{GroupId, Slot};

impl<A: Application> Shard<A> {
    /// Panics where the books do not balance. To be called when everything is settled.
    pub(crate) fn check_invariants(&self) {
        assert!(self.ended.is_empty(), "not settled");
        let mut references: HashMap<u64, u32> = HashMap::new();
        let (mut copied, mut detached) = (0, 0);
        for (slot, connection) in self.connections.iter().enumerate() {
            let slot = slot as Slot;
            let (mut unsent, mut own, mut numbered) = (0, 0, 0);
            for item in connection.pending.as_slice() {
                match item {
                    Pending::Log { start, len } => {
                        assert!(*len > 0);
                        *references.entry(Extent { start: *start, len: *len }.chunk()).or_default() += 1;
                        unsent += *len as usize;
                    }
                    Pending::Numbered(count) => {
                        assert!(*count > 0);
                        numbered += count;
                    }
                    Pending::Shared { frame, sent, numbered } => {
                        assert!((*sent as usize) < frame.len());
                        unsent += if *numbered { 0 } else { frame.len() - *sent as usize };
                    }
                    Pending::Owned(owned) => {
                        assert!(!owned.rest().is_empty());
                        unsent += if owned.numbered { 0 } else { owned.rest().len() };
                        own += owned.bytes.len();
                    }
                }
            }
            let mut held = 0;
            if let Some(window) = &connection.window {
                let chunks = window.check(&self.log);
                assert!(chunks.is_empty() || connection.holding, "{slot}: a window in the log is not listed");
                chunks.into_iter().for_each(|chunk| *references.entry(chunk).or_default() += 1);
                held = window.held();
                own += window.copied();
            }
            assert_eq!(connection.unsent, unsent, "{slot}: unsent");
            assert_eq!(connection.copied, own, "{slot}: copied");
            assert_eq!(connection.lag(), unsent + held, "{slot}: lag");
            assert!(connection.pending.len() <= MAX_ENTRIES * 3, "{slot}: {}", connection.pending.len());
            copied += own;
            if let Some(window) = &connection.window
                && connection.phase.is_flushed()
            {
                // Behind a close frame nothing is queued any more, and what was not stays in the window.
                let all = connection.phase == Phase::Open;
                assert!(numbered <= window.unsent(), "{slot}: more numbered frames than there are");
                assert!(!all || numbered == window.unsent(), "{slot}: a numbered frame is not queued");
            }
            let listed = self.dirty.iter().filter(|of| **of == slot).count();
            assert_eq!(listed, usize::from(connection.dirty), "{slot}: dirty");
            let listed = self.holders.iter().filter(|of| **of == slot).count();
            assert_eq!(listed, usize::from(connection.holding), "{slot}: holding");
            assert!(!connection.blocked || connection.holding, "{slot}: blocked but not listed");
            if !connection.pending.is_empty() {
                assert!(connection.dirty || connection.blocked, "{slot}: nobody will flush it");
                assert!(connection.phase.is_flushed(), "{slot}: pending in {:?}", connection.phase);
            }
            assert!(connection.open_frame == 0 || !connection.pending.is_empty(), "{slot}: open frame");
            assert_eq!(connection.session.is_some(), connection.phase.is_alive(), "{slot}: session");
            assert!(connection.phase == Phase::Open || !connection.is_parked(), "{slot}: parked");
            detached += u64::from(connection.phase == Phase::Detached);
            for membership in &connection.memberships {
                let group = self.groups.get(membership.group).expect("a group with a member is there");
                let partition = group.partitions.iter().find(|p| p.format == connection.format);
                let members = &partition.expect("a partition of its format").members;
                assert_eq!(members[membership.index as usize], slot);
            }
            if matches!(connection.phase, Phase::Free | Phase::Reserved) {
                assert!(connection.window.is_none() && connection.memberships.is_empty());
                let free = self.free.iter().filter(|of| **of == slot).count();
                assert_eq!(free, usize::from(connection.phase == Phase::Free), "{slot}: free");
            }
        }
        let memberships: usize = self.connections.iter().map(|c| c.memberships.len()).sum();
        let members: usize = (0..64).map(|group| self.groups.len(GroupId(group))).sum();
        assert_eq!(members, memberships, "members and memberships");
        assert_eq!(self.copied, copied, "copied");
        assert_eq!(self.counters.detached, detached, "detached");
        assert!(self.copied <= self.settings.max_copied, "{} copied", self.copied);
        assert!(self.log.memory() <= self.settings.max_log.max(CHUNK), "log of {}", self.log.memory());
        self.log.check_references(&references);
    }
}
