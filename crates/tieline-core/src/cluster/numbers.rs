//! [`Numbers`]: how this node numbers what it says, on the channel to all and on each channel to one. Without I/O; its
//! counterpart, what others have numbered, is in `cluster/sequence.rs`.

use std::collections::HashMap;

use smallvec::SmallVec;
use tieline_proto::Incarnation;
use tieline_proto::envelope::After;

use crate::broker::To;

/// Who has to wait for what, as an envelope says it: nobody, or one receiver, where nothing goes to all.
pub(super) type Afters = SmallVec<[After; 1]>;

/// What was numbered last.
#[derive(Default)]
pub(super) struct Numbers {
    to_all: u64,
    /// The last number to all that was a message's.
    message_to_all: u64,
    to_one: HashMap<Incarnation, One>,
    /// Nodes that messages went to alone since the last message to all.
    told_alone: Vec<Incarnation>,
    /// Where a new channel to one node begins: not below the last number of any that was forgotten. A node that was
    /// forgotten here may remember what it has seen, and would take lower numbers for envelopes that come again.
    one_begins: u64,
}

/// The channel to one node.
struct One {
    last: u64,
    /// The last number that was a message's.
    message: u64,
    /// The last message to all that the node was told to wait for.
    waits_for: u64,
}

impl Numbers {
    /// The next number on a channel.
    pub(super) fn next(&mut self, to: To) -> u64 {
        let last = match to {
            To::All => &mut self.to_all,
            To::One(node) => &mut self.one(node).last,
        };
        *last += 1;
        *last
    }

    fn one(&mut self, node: Incarnation) -> &mut One {
        let begins = self.one_begins;
        self.to_one.entry(node).or_insert(One { last: begins, message: 0, waits_for: 0 })
    }

    /// The next number on a channel, for a message, and who has to wait for what on the other channel: whoever was told
    /// something there since it was last told to wait.
    pub(super) fn next_message(&mut self, to: To) -> (u64, Afters) {
        let number = self.next(to);
        let mut after = Afters::new();
        match to {
            To::All => {
                self.message_to_all = number;
                for node in std::mem::take(&mut self.told_alone) {
                    after.extend(self.to_one.get(&node).map(|one| (node, one.message)));
                }
            }
            To::One(node) => {
                let to_all = self.message_to_all;
                let one = self.one(node);
                one.message = number;
                if to_all > one.waits_for {
                    one.waits_for = to_all;
                    after.push((node, to_all));
                }
                if !self.told_alone.contains(&node) {
                    self.told_alone.push(node);
                }
            }
        }
        (number, after)
    }

    /// The last number on a channel; 0 when nothing went there.
    pub(super) fn last(&self, to: To) -> u64 {
        match to {
            To::All => self.to_all,
            To::One(node) => self.to_one.get(&node).map_or(0, |one| one.last),
        }
    }

    /// Forgets a node that is gone.
    pub(super) fn forget(&mut self, node: Incarnation) {
        let last = self.to_one.remove(&node).map_or(0, |one| one.last);
        self.one_begins = self.one_begins.max(last);
        self.told_alone.retain(|told| *told != node);
    }
}
