//! The account of deliveries: each message reaches each of its receivers once and in order, or the run is worthless.
//!
//! A message's number leads to its entry while it is outstanding. For each pair of a stream and a receiver the ledger
//! keeps the position that comes next, so a lost, doubled or overtaken message is found at the very next delivery of
//! that pair; what is lost with nothing behind it is found when the run stands still. Tested here with planted faults.

use crate::error::BenchError;
use crate::plan::{Plan, Sending};
use std::collections::VecDeque;

/// Most messages outstanding at once. Only an open loop against a server that does not keep up comes here; it ends the run.
pub(crate) const MOST_OUTSTANDING: usize = 1 << 16;

/// A message that has not reached all its receivers, or waits behind such a one.
struct Entry {
    /// What was sent.
    sending: Sending,
    /// Its position in its stream, from 1.
    position: u32,
    /// Deliveries still to come.
    missing: usize,
}

/// The account of one fleet's deliveries, from its opening on.
pub(crate) struct Ledger {
    /// Messages from number `first` on.
    entries: VecDeque<Entry>,
    /// Number of the first entry.
    first: u64,
    /// Entries that are not complete.
    outstanding: usize,
    /// By stream, how many messages were sent.
    sent: Vec<u32>,
    /// By pair, the position of the last message that arrived.
    arrived: Vec<u32>,
    /// Deliveries that were right.
    pub(crate) deliveries: u64,
}

impl Ledger {
    /// An account for `plan` with nothing in it.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            outstanding: 0,
            sent: vec![0; plan.streams()],
            arrived: vec![0; plan.pairs()],
            deliveries: 0,
        }
    }

    /// Messages that have not reached all their receivers.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Enters a message that is about to be sent and gives its number.
    pub(crate) fn send(&mut self, plan: &Plan, sending: Sending) -> Result<u64, BenchError> {
        if self.entries.len() >= MOST_OUTSTANDING {
            return Err(BenchError::Delivery(format!(
                "the server does not keep up: {MOST_OUTSTANDING} messages are under way, {} of them incomplete",
                self.outstanding
            )));
        }
        let stream = plan.stream(&sending);
        self.sent[stream] += 1;
        self.entries.push_back(Entry { sending, position: self.sent[stream], missing: sending.recipients });
        self.outstanding += 1;
        Ok(self.first + self.entries.len() as u64 - 1)
    }

    /// Enters the arrival of message `number` at `receiver`.
    pub(crate) fn deliver(&mut self, plan: &Plan, number: u64, receiver: usize) -> Result<(), BenchError> {
        let wrong = |what: &str| {
            Err(BenchError::Delivery(format!("message {number} at connection {receiver} {what}")))
        };
        let Some(index) = number.checked_sub(self.first) else {
            return wrong("came again after it had reached everybody");
        };
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return wrong("was never sent");
        };
        let Some(pair) = plan.pair(&entry.sending, receiver) else {
            return wrong("was meant for others");
        };
        let last = &mut self.arrived[pair];
        match entry.position.cmp(&(*last + 1)) {
            std::cmp::Ordering::Less => return wrong("came a second time, or after a later one"),
            std::cmp::Ordering::Greater => {
                let skipped = entry.position - *last - 1;
                return wrong(&format!("came while {skipped} before it from the same sender had not"));
            }
            std::cmp::Ordering::Equal => *last += 1,
        }
        self.deliveries += 1;
        // A right position at a right pair comes once for each receiver, so this cannot pass below zero.
        entry.missing -= 1;
        if entry.missing == 0 {
            self.outstanding -= 1;
            while self.entries.front().is_some_and(|entry| entry.missing == 0) {
                self.entries.pop_front();
                self.first += 1;
            }
        }
        Ok(())
    }

    /// What is missing, in words.
    pub(crate) fn missing(&self) -> String {
        let deliveries: usize = self.entries.iter().map(|entry| entry.missing).sum();
        format!("{deliveries} deliveries of {} messages did not arrive", self.outstanding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Dice;
    use proptest::prelude::*;

    /// A fan-out to three with `messages` sent.
    fn sent(messages: usize) -> (Plan, Ledger) {
        let plan = Plan::Fanout { subscribers: 3 };
        let mut ledger = Ledger::new(&plan);
        for number in 0..messages {
            let sending = plan.next(&mut Dice::new(), 0);
            assert_eq!(ledger.send(&plan, sending).unwrap(), number as u64);
        }
        (plan, ledger)
    }

    /// The words of an error.
    fn words(result: Result<(), BenchError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn messages_are_complete_when_all_have_them() {
        let (plan, mut ledger) = sent(2);
        for (number, receiver) in [(0, 1), (1, 1), (0, 2), (0, 3), (1, 3)] {
            ledger.deliver(&plan, number, receiver).unwrap();
        }
        assert_eq!((ledger.outstanding(), ledger.deliveries), (1, 5));
        assert_eq!(ledger.missing(), "1 deliveries of 1 messages did not arrive");
        ledger.deliver(&plan, 1, 2).unwrap();
        assert_eq!(ledger.outstanding(), 0);
        assert!(ledger.entries.is_empty());
    }

    #[test]
    fn a_doubled_delivery_is_found_before_and_after_completion() {
        let (plan, mut ledger) = sent(1);
        ledger.deliver(&plan, 0, 1).unwrap();
        assert!(words(ledger.deliver(&plan, 0, 1)).contains("a second time"));
        ledger.deliver(&plan, 0, 2).unwrap();
        ledger.deliver(&plan, 0, 3).unwrap();
        assert!(words(ledger.deliver(&plan, 0, 3)).contains("again after"));
    }

    #[test]
    fn a_lost_or_overtaken_delivery_is_found_at_the_next() {
        let (plan, mut ledger) = sent(3);
        assert!(words(ledger.deliver(&plan, 2, 1)).contains("2 before it"));
    }

    #[test]
    fn a_delivery_to_the_publisher_or_of_nothing_is_found() {
        let (plan, mut ledger) = sent(1);
        assert!(words(ledger.deliver(&plan, 0, 0)).contains("meant for others"));
        assert!(words(ledger.deliver(&plan, 9, 1)).contains("never sent"));
    }

    #[test]
    fn too_many_outstanding_end_the_run() {
        let (plan, mut ledger) = sent(MOST_OUTSTANDING);
        let sending = plan.next(&mut Dice::new(), 0);
        assert!(ledger.send(&plan, sending).unwrap_err().to_string().contains("does not keep up"));
    }

    proptest! {
        /// Any interleaving that keeps each pair's order is right; one swapped or doubled delivery in it is found.
        #[test]
        fn right_orders_pass_and_planted_faults_do_not(seed: u64, messages in 2usize..20, fault in 0usize..3) {
            let (plan, mut ledger) = sent(messages);
            let mut next = [0u64; 4];
            let mut order = Vec::new();
            let mut state = seed;
            while order.len() < messages * 3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let receiver = 1 + (state >> 33) as usize % 3;
                if next[receiver] < messages as u64 {
                    order.push((next[receiver], receiver));
                    next[receiver] += 1;
                }
            }
            let place = seed as usize % order.len();
            let faulty = match fault {
                0 => false,
                1 => { order.insert(place, order[place]); true }
                _ => {
                    let (number, receiver) = order[place];
                    match order.iter().position(|other| *other == (number + 1, receiver)) {
                        Some(later) => { order.swap(place, later); true }
                        None => false,
                    }
                }
            };
            let result = order.iter().try_for_each(|(number, receiver)| ledger.deliver(&plan, *number, *receiver));
            prop_assert_eq!(result.is_err(), faulty);
            if !faulty {
                prop_assert_eq!(ledger.outstanding(), 0);
            }
        }
    }
}
