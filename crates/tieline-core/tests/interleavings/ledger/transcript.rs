//! [`Transcript`]: what is said to groups and heard of them, for the judge that real clusters are held against too.
//!
//! The ledger knows more, and asks for more. The judge asks the same of everybody: here for the clients of `tieline.v1`, and
//! for what they ask with an ack, which is when they know where they stand.

use std::collections::{HashMap, HashSet};

use tieline_judge::{Event, History, Kind, Message, Outcome, Receiver, Send, Sender, Target, What, judge};

use super::Guest;
use crate::wire::{GROUPS, HUBS, USERS, Who};

/// What was said and heard up to now.
pub(super) struct Transcript {
    history: History,
    /// What the judge calls a message, by its number.
    names: HashMap<usize, Message>,
    counters: HashMap<(Who, u16), u32>,
    inside: HashSet<(Who, u16)>,
    /// Whoever asked without an ack does not know where it stands.
    vague: HashSet<(Who, u16)>,
}

fn target(guest: &Guest, group: usize) -> u16 {
    (guest.hub * GROUPS.len() + group) as u16
}

impl Transcript {
    pub(super) fn new() -> Transcript {
        let groups = HUBS.iter().flat_map(|hub| GROUPS.iter().map(move |group| format!("{hub}/{group}")));
        let targets = groups.map(|name| Target { name, kind: Kind::Live }).collect();
        // Links between nodes lose nothing here, so no hole is excused. A client hears more after the server has let it go, so
        // nothing is the end of its connection.
        let (end, notice_within) = (u32::MAX, u32::MAX / 2);
        Transcript {
            history: History { targets, end, notice_within, ..History::default() },
            names: HashMap::new(),
            counters: HashMap::new(),
            inside: HashSet::new(),
            vague: HashSet::new(),
        }
    }

    fn note(&mut self, who: Who, at: u64, what: What) {
        self.history.receivers[who].events.push(Event { at: at as u32, connection: 1, what });
    }

    pub(super) fn arrived(&mut self, who: Who, guest: &Guest, at: u64) {
        let user = guest.user.map_or("", |user| USERS[user]).to_owned();
        self.history.senders.push(Sender { name: format!("{who}"), sends: Vec::new() });
        self.history.receivers.push(Receiver { name: format!("{who}"), user, events: Vec::new() });
        self.note(who, at, What::Opened);
    }

    /// A message to a group was taken; `is_for_all` of its members.
    pub(super) fn sent(
        &mut self,
        who: Who,
        guest: &Guest,
        number: usize,
        group: usize,
        is_for_all: bool,
        at: u64,
    ) {
        let target = target(guest, group);
        let next = self.counters.entry((who, target)).or_default();
        let message = Message { sender: who as u16, target, counter: *next };
        *next += 1;
        // What some members must not get is no hole for them.
        let outcome = if is_for_all { Outcome::Acked } else { Outcome::Unknown };
        let Message { counter, .. } = message;
        let send = Send { target, counter, at: at as u32, connection: 1, outcome };
        self.history.senders[who].sends.push(send);
        self.names.insert(number, message);
    }

    /// Asked without an ack.
    pub(super) fn asked_vaguely(&mut self, who: Who, guest: &Guest, group: usize) {
        self.vague.insert((who, target(guest, group)));
    }

    /// Heard the ack of a join, or what stands for it.
    pub(super) fn joined(&mut self, who: Who, guest: &Guest, group: usize, at: u64) {
        let target = target(guest, group);
        if self.inside.insert((who, target)) {
            self.note(who, at, What::Asked { target, since: None });
            self.note(who, at, What::Joined { target, recovered: None, position: None });
        }
    }

    /// Heard the ack of a leave.
    pub(super) fn left(&mut self, who: Who, guest: &Guest, group: usize, at: u64) {
        let target = target(guest, group);
        self.inside.remove(&(who, target));
        self.note(who, at, What::Left(target));
    }

    /// Heard a message of a group.
    pub(super) fn heard(&mut self, who: Who, guest: &Guest, number: usize, group: usize, at: u64) {
        let by = target(guest, group);
        let Some(message) = self.names.get(&number).copied() else { return };
        if !self.vague.contains(&(who, by)) {
            self.note(who, at, What::Heard { by, message, position: None });
        }
    }

    /// Brings it before the judge.
    ///
    /// # Panics
    /// When a promise was broken.
    pub(super) fn check(&self) {
        let verdict = judge(&self.history);
        assert!(verdict.is_kept(), "the judge finds:\n{}", verdict.report(&self.history));
    }
}
