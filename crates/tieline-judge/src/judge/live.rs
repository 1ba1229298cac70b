//! Live groups: [`Streams`] is what one connection heard of each sender, [`Memberships`] when a receiver was in which group.

use std::collections::{HashMap, HashSet};

use super::{Case, Place};
use crate::history::{Kind, Message, Outcome, Send};
use crate::verdict::Rule;

/// How long in milliseconds a message may be on its way while nothing is broken, on a busy machine.
const ON_ITS_WAY: u32 = 2000;

/// Messages of one sender's connection to one target, as one connection of a receiver heard them.
struct Stream {
    counter: u32,
    at: Place,
}

/// Acknowledged messages that are missing between two that were heard.
struct Hole {
    first: Message,
    count: usize,
    /// Where the message before it and the one behind it came.
    from: Place,
    to: Place,
}

/// What one connection heard.
#[derive(Default)]
pub(super) struct Streams {
    /// By target, sender, and the sender's connection.
    last: HashMap<(u16, u16, u32), Stream>,
    heard: HashSet<Message>,
    holes: Vec<Hole>,
    notices: Vec<Place>,
}

impl Streams {
    /// The connection has left a group, or joins it: what it does not hear meanwhile it does not miss.
    pub(super) fn forget(&mut self, target: u16) {
        self.last.retain(|(of, ..), _| *of != target);
    }

    pub(super) fn notice(&mut self, place: Place) {
        self.notices.push(place);
    }

    pub(super) fn heard(&mut self, case: &mut Case<'_>, place: Place, message: Message, send: &Send) {
        let Message { sender, target, counter } = message;
        if !self.heard.insert(message) {
            let what = format!("got {} twice", case.history.words(message));
            return case.find(Rule::Duplicate, place, Some(message), what);
        }
        let now = Stream { counter, at: place };
        let Some(last) = self.last.get_mut(&(target, sender, send.connection)) else {
            self.last.insert((target, sender, send.connection), now);
            return;
        };
        if counter < last.counter {
            let what = format!("got {} behind #{}", case.history.words(message), last.counter);
            return case.find(Rule::Reordered, place, Some(message), what);
        }
        let between = (last.counter + 1..counter).map(|counter| Message { counter, ..message });
        let is_missing = |message: &Message| {
            let missing = case.sends.get(message);
            missing.is_some_and(|one| one.outcome == Outcome::Acked && one.connection == send.connection)
        };
        let missing: Vec<_> = between.filter(is_missing).collect();
        if let Some(first) = missing.first() {
            self.holes.push(Hole { first: *first, count: missing.len(), from: last.at, to: place });
        }
        *last = now;
    }

    /// The connection has ended: every hole was told of, unless there was no time for that.
    pub(super) fn find_untold(self, case: &mut Case<'_>, receiver: usize, end: u32) {
        for hole in self.holes {
            case.verdict.counts.holes[0] += 1;
            let until = hole.to.at + case.history.notice_within;
            let is_told = |notice: &Place| notice.event > hole.from.event && notice.at <= until;
            if self.notices.iter().any(is_told) {
                continue;
            }
            if end < until {
                case.verdict.counts.holes[1] += 1;
                continue;
            }
            let what = format!(
                "missed {} messages from {} on, and was told of no gap within {} ms",
                hole.count,
                case.history.words(hole.first),
                case.history.notice_within
            );
            let place = Place { receiver, ..hole.to };
            case.find(Rule::Untold, place, Some(hole.first), what);
        }
    }
}

/// A time in a group, on one connection.
struct Membership {
    target: u16,
    from: u32,
    /// None while it lasts.
    until: Option<u32>,
}

/// When a receiver was in live groups, and what it heard there.
#[derive(Default)]
pub(super) struct Memberships {
    all: Vec<Membership>,
    heard: HashSet<Message>,
}

impl Memberships {
    pub(super) fn begin(&mut self, target: u16, from: u32) {
        self.all.push(Membership { target, from, until: None });
    }

    pub(super) fn end(&mut self, target: u16, at: u32) {
        let lasting = self.all.iter_mut().filter(|one| one.target == target && one.until.is_none());
        lasting.for_each(|one| one.until = Some(at));
    }

    pub(super) fn end_all(&mut self, at: u32) {
        self.all.iter_mut().filter(|one| one.until.is_none()).for_each(|one| one.until = Some(at));
    }

    pub(super) fn heard(&mut self, message: Message) {
        self.heard.insert(message);
    }
}

/// Finds live messages that a member missed although nothing was broken.
pub(super) fn find_missed(case: &mut Case<'_>, receiver: usize, memberships: &Memberships) {
    let history = case.history;
    for (sender, of) in history.senders.iter().enumerate() {
        for send in &of.sends {
            let arrives = send.at + ON_ITS_WAY;
            let is_calm = history.calm.iter().any(|calm| calm.start <= send.at && arrives <= calm.end);
            let target = &history.targets[usize::from(send.target)];
            if !is_calm || target.kind != Kind::Live || send.outcome != Outcome::Acked {
                continue;
            }
            let message = Message { sender: sender as u16, target: send.target, counter: send.counter };
            let was_there = memberships.all.iter().any(|one| {
                one.target == send.target
                    && one.from < send.at
                    && one.until.is_some_and(|until| until >= arrives)
            });
            if was_there && !memberships.heard.contains(&message) {
                let what = format!("was in the group and did not get {}", history.words(message));
                let place = Place { receiver, event: None, at: send.at };
                case.find(Rule::MissedInCalm, place, Some(message), what);
            }
        }
    }
}
