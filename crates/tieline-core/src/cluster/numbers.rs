//! [`Numbers`]: how this node numbers what it says, on the channel to all and on each channel to one. Without I/O; its
//! counterpart, what others have numbered, is in `cluster/sequence.rs`.

use std::collections::HashMap;

use tieline_proto::Incarnation;

use crate::broker::To;

/// What was numbered last.
#[derive(Default)]
pub(super) struct Numbers {
    to_all: u64,
    to_one: HashMap<Incarnation, u64>,
    /// Where a new channel to one node begins: not below the last number of any that was forgotten. A node that was
    /// forgotten here may remember what it has seen, and would take lower numbers for envelopes that come again.
    one_begins: u64,
}

impl Numbers {
    /// The next number on a channel.
    pub(super) fn next(&mut self, to: To) -> u64 {
        let last = match to {
            To::All => &mut self.to_all,
            To::One(node) => self.to_one.entry(node).or_insert(self.one_begins),
        };
        *last += 1;
        *last
    }

    /// The last number on a channel; 0 when nothing went there.
    pub(super) fn last(&self, to: To) -> u64 {
        match to {
            To::All => self.to_all,
            To::One(node) => self.to_one.get(&node).copied().unwrap_or(0),
        }
    }

    /// Forgets a node that is gone.
    pub(super) fn forget(&mut self, node: Incarnation) {
        let last = self.to_one.remove(&node).unwrap_or(0);
        self.one_begins = self.one_begins.max(last);
    }
}
