//! [`Receipts`]: sends that wait to hear from other nodes how many connections they reached.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_proto::Incarnation;

use super::Nodes;
use crate::delivery::{Outcome, Receipt, Settled};
use crate::latency::Latency;

/// Receipts that may be outstanding. Beyond it the oldest is given up, and its sender is told `null`.
const MAX_OUTSTANDING: usize = 65_536;

#[derive(Default)]
struct Table {
    last: u64,
    /// By their numbers.
    waiting: HashMap<u64, Owed>,
    /// In the order they were asked for.
    asked: VecDeque<(u64, Instant)>,
}

/// A receipt that is not complete.
struct Owed {
    receipt: Arc<Receipt>,
    /// The nodes that have not answered.
    missing: Nodes,
    /// When they were asked.
    since: Instant,
}

/// The receipts that other nodes owe this one.
#[derive(Default)]
pub(crate) struct Receipts {
    table: Mutex<Table>,
    /// How long they took, those that were given up among them.
    waited: Latency,
}

impl Receipts {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are outstanding.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How long they took, those that were given up among them.
    pub(crate) fn waited(&self) -> &Latency {
        &self.waited
    }

    /// Nobody waits for it any more.
    fn done<'a>(&self, owed: &'a Owed) -> &'a Arc<Receipt> {
        self.waited.record(owed.since.elapsed());
        &owed.receipt
    }

    /// Waits for these nodes, and returns the number to ask them under, and what the sender is to be told whose
    /// receipt was given up for it.
    pub(crate) fn expect(&self, receipt: &Arc<Receipt>, nodes: &Nodes) -> (u64, Option<Settled>) {
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        let since = Instant::now();
        table.waiting.insert(number, Owed { receipt: Arc::clone(receipt), missing: nodes.clone(), since });
        table.asked.push_back((number, since));
        let oldest = (table.asked.len() > MAX_OUTSTANDING).then(|| table.asked.pop_front()).flatten();
        let given_up = oldest.and_then(|(oldest, _)| table.waiting.remove(&oldest));
        drop(table);
        (number, given_up.and_then(|owed| self.done(&owed).give_up()))
    }

    /// A node has answered. One that was not asked, or has answered before, does not count.
    pub(crate) fn arrived(&self, number: u64, node: Incarnation, outcome: Outcome) -> Option<Settled> {
        let mut table = self.lock();
        let owed = table.waiting.get_mut(&number)?;
        let place = owed.missing.iter().position(|missing| *missing == node)?;
        owed.missing.swap_remove(place);
        let receipt = Arc::clone(&owed.receipt);
        if owed.missing.is_empty() {
            self.done(owed);
            table.waiting.remove(&number);
        }
        drop(table);
        receipt.add(outcome)
    }

    /// Gives up what has waited for longer than `limit`. Returns what those senders are to be told.
    pub(crate) fn give_up(&self, limit: Duration) -> Vec<Settled> {
        let mut given_up = Vec::new();
        let mut table = self.lock();
        while let Some((number, asked)) = table.asked.front().copied()
            && asked.elapsed() >= limit
        {
            table.asked.pop_front();
            given_up.extend(table.waiting.remove(&number).map(|owed| Arc::clone(self.done(&owed))));
        }
        drop(table);
        given_up.iter().filter_map(|receipt| receipt.give_up()).collect()
    }
}

#[cfg(test)]
mod tests {
    use tieline_switchboard::Address;

    use super::*;

    #[test]
    fn the_oldest_gives_way_at_once() {
        let receipts = Receipts::default();
        let node = Incarnation(7);
        let asked = Nodes::from_iter([node]);
        let address = Address { shard: 0, slot: 0, generation: 0 };
        let expect = |ack_id| {
            receipts.expect(&Receipt::for_connection(1, Outcome::default(), address, ack_id), &asked)
        };
        for ack_id in 0..MAX_OUTSTANDING as u64 {
            assert_eq!(expect(ack_id).1, None);
        }
        let (last, given_up) = expect(MAX_OUTSTANDING as u64);
        assert_eq!(given_up, Some(Settled::Connection(address, 0, None)));
        let outcome = Outcome::delivered(1);
        assert_eq!(receipts.arrived(1, node, outcome), None, "who was given up is told nothing more");
        assert_eq!(receipts.arrived(last, Incarnation(8), outcome), None, "nobody asked it");
        let settled = receipts.arrived(last, node, outcome);
        assert_eq!(settled, Some(Settled::Connection(address, MAX_OUTSTANDING as u64, Some(outcome))));
        assert_eq!(receipts.waiting(), MAX_OUTSTANDING - 1);
        assert_eq!(receipts.waited().read().count, 2);
    }
}
