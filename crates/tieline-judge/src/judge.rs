//! [`judge`]: walks through each receiver's events once, and then asks what never came.
//!
//! `judge/connection.rs` is what a receiver's connection may hear, `judge/logs.rs` holds durable messages against their logs,
//! `judge/live.rs` live ones against their senders.

mod connection;
mod live;
mod logs;

use std::collections::HashMap;

use crate::history::{History, Kind, Message, Outcome, Send};
use crate::verdict::{Finding, Rule, Verdict};

use connection::Walk;
use logs::Logs;

/// What has been found so far, and what is looked up all the time.
struct Case<'a> {
    history: &'a History,
    sends: HashMap<Message, &'a Send>,
    verdict: Verdict,
}

/// Where a breach was seen.
#[derive(Clone, Copy)]
struct Place {
    receiver: usize,
    /// In the receiver's events; none for what never came.
    event: Option<usize>,
    at: u32,
}

impl Case<'_> {
    fn find(&mut self, rule: Rule, place: Place, message: Option<Message>, what: String) {
        let Place { receiver, event, at } = place;
        self.verdict.find(Finding { rule, receiver, message, event, at, what });
    }

    /// Whether a target has a log; one that there is not has none.
    fn is_durable(&self, target: u16) -> bool {
        let target = self.history.targets.get(usize::from(target));
        target.is_some_and(|target| target.kind != Kind::Live)
    }
}

/// Judges a history.
pub fn judge(history: &History) -> Verdict {
    let mut case = Case { history, sends: HashMap::new(), verdict: Verdict::default() };
    for (number, sender) in history.senders.iter().enumerate() {
        for send in &sender.sends {
            let message = Message { sender: number as u16, target: send.target, counter: send.counter };
            let outcome = match send.outcome {
                Outcome::Acked => 0,
                Outcome::Refused => 1,
                Outcome::Unknown => 2,
            };
            let is_durable = case.is_durable(send.target);
            let counts = &mut case.verdict.counts;
            (if is_durable { &mut counts.durable } else { &mut counts.live })[outcome] += 1;
            case.sends.insert(message, send);
        }
    }
    let logs = Logs::of(&mut case);
    for receiver in 0..history.receivers.len() {
        let walk = Walk::through(&mut case, receiver);
        logs.find_losses(&mut case, receiver, &walk.held);
        live::find_missed(&mut case, receiver, &walk.memberships);
    }
    case.verdict
}
