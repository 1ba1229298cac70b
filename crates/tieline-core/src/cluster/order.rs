//! [`Order`]: the order of two channels, on brokers that do not keep it.
//!
//! A message that went by another channel than the one before it names the number that has to arrive first. Its receiver holds
//! it, and whatever its origin says on the same channel behind it, until that number was seen, at most one beat. Then that number is
//! passed over as missing, and dropped should it come: what is late would be out of order. Without I/O and without a clock. Tested below, with channels that cross and lose.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use tieline_proto::Incarnation;

use super::sequence::{Channel, Seen};

/// Bytes that are held at most; beyond it the oldest of an origin is let go, as if its time were up.
const HELD_BYTES: usize = 16 << 20;

/// An envelope that waits.
struct Held {
    /// The number on the other channel that it waits for.
    after: Option<u64>,
    bytes: Vec<u8>,
    since: Instant,
}

/// The envelopes of one origin that wait, by channel.
#[derive(Default)]
struct Queues {
    to_all: VecDeque<Held>,
    to_one: VecDeque<Held>,
}

impl Queues {
    fn of(&mut self, channel: Channel) -> &mut VecDeque<Held> {
        match channel {
            Channel::All => &mut self.to_all,
            Channel::One => &mut self.to_one,
        }
    }

    /// The channel whose first envelope has waited longest, and since when.
    fn oldest(&self) -> Option<(Channel, Instant)> {
        let first = |channel, queue: &VecDeque<Held>| queue.front().map(|held| (channel, held.since));
        let fronts = [first(Channel::All, &self.to_all), first(Channel::One, &self.to_one)];
        fronts.into_iter().flatten().min_by_key(|(_, since)| *since)
    }
}

/// The envelopes that wait.
#[derive(Default)]
pub(super) struct Order {
    held: HashMap<Incarnation, Queues>,
    bytes: usize,
}

fn has_come(after: Option<u64>, origin: Incarnation, channel: Channel, seen: &Seen) -> bool {
    after.is_none_or(|number| seen.last(origin, channel.other()) >= number)
}

impl Order {
    /// Whether an envelope that arrives has to wait.
    pub(super) fn must_wait(
        &mut self,
        origin: Incarnation,
        channel: Channel,
        after: Option<u64>,
        seen: &Seen,
    ) -> bool {
        let is_behind = self.held.get_mut(&origin).is_some_and(|queues| !queues.of(channel).is_empty());
        is_behind || !has_come(after, origin, channel, seen)
    }

    /// Holds an envelope that has to.
    pub(super) fn hold(
        &mut self,
        origin: Incarnation,
        channel: Channel,
        after: Option<u64>,
        bytes: &[u8],
        now: Instant,
    ) {
        self.bytes += bytes.len();
        let held = Held { after, bytes: bytes.to_vec(), since: now };
        self.held.entry(origin).or_default().of(channel).push_back(held);
    }

    /// The next envelope of an origin that need not wait any longer.
    pub(super) fn ready(&mut self, origin: Incarnation, seen: &Seen) -> Option<Vec<u8>> {
        let queues = self.held.get_mut(&origin)?;
        for channel in [Channel::All, Channel::One] {
            let is_over = |held: &Held| has_come(held.after, origin, channel, seen);
            if queues.of(channel).front().is_some_and(is_over) {
                return self.take(origin, channel);
            }
        }
        None
    }

    /// An envelope that has waited since `before` or longer, or that there is no room for, and its origin.
    pub(super) fn late(&mut self, before: Instant) -> Option<(Incarnation, Vec<u8>)> {
        let is_full = self.bytes > HELD_BYTES;
        let is_late = |since: Instant| is_full || since <= before;
        let mut oldest = self.held.iter().filter_map(|(origin, queues)| Some((*origin, queues.oldest()?)));
        let (origin, (channel, _)) = oldest.find(|(_, (_, since))| is_late(*since))?;
        self.take(origin, channel).map(|bytes| (origin, bytes))
    }

    fn take(&mut self, origin: Incarnation, channel: Channel) -> Option<Vec<u8>> {
        let queues = self.held.get_mut(&origin)?;
        let held = queues.of(channel).pop_front()?;
        if queues.to_all.is_empty() && queues.to_one.is_empty() {
            self.held.remove(&origin);
        }
        self.bytes -= held.bytes.len();
        Some(held.bytes)
    }

    /// The next envelope of a node that is gone, whatever it waits for.
    pub(super) fn give_up(&mut self, origin: Incarnation) -> Option<Vec<u8>> {
        let (channel, _) = self.held.get(&origin)?.oldest()?;
        self.take(origin, channel)
    }
}

#[cfg(test)]
mod tests;
