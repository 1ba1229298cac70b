//! [`Crowd`]: what all clients of the demonstration share, and what becomes of each: where it is, where it was, what it has heard.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tieline_proto::Incarnation;
use tokio::sync::watch;

/// Clients.
pub(super) const CLIENTS: usize = 1000;

/// Groups whose messages are kept. Each client is in one.
pub(super) const GROUPS: usize = 100;

/// One client.
#[derive(Default)]
pub(super) struct Person {
    /// The node of its connection; none while it has none.
    pub(super) home: Option<Incarnation>,
    /// The node of the last one that it had.
    last: Option<Incarnation>,
    /// Numbers of the kept messages of its group, and of live ones to it.
    pub(super) kept: BTreeSet<u64>,
    pub(super) live: BTreeSet<u64>,
}

/// A client that came from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) who: usize,
    pub(super) from: Incarnation,
    pub(super) to: Incarnation,
}

/// All of them.
pub(super) struct Crowd {
    people: Vec<Mutex<Person>>,
    moves: Mutex<Vec<Move>>,
    /// Raised at the end.
    pub(super) over: watch::Sender<bool>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    /// Nobody is connected.
    pub(super) fn new() -> Crowd {
        let people = (0..CLIENTS).map(|_| Mutex::default()).collect();
        Crowd { people, moves: Mutex::default(), over: watch::Sender::new(false) }
    }

    /// The user of a client.
    pub(super) fn user(who: usize) -> String {
        format!("user-{who}")
    }

    /// The group whose messages a client gets, and that of a kept message.
    pub(super) fn group(number: u64) -> String {
        format!("kept:{}", number % GROUPS as u64)
    }

    /// Looks at a client.
    pub(super) fn person(&self, who: usize) -> MutexGuard<'_, Person> {
        lock(&self.people[who])
    }

    /// It is connected there from now on.
    pub(super) fn arrived(&self, who: usize, to: Incarnation) {
        let mut person = self.person(who);
        person.home = Some(to);
        if let Some(from) = person.last.replace(to)
            && from != to
        {
            lock(&self.moves).push(Move { who, from, to });
        }
    }

    /// It was cut off.
    pub(super) fn cut(&self, who: usize) {
        self.person(who).home = None;
    }

    /// Where everybody is.
    pub(super) fn homes(&self) -> Vec<Option<Incarnation>> {
        self.people.iter().map(|person| lock(person).home).collect()
    }

    /// Who has moved since this was asked last.
    pub(super) fn take_moves(&self) -> Vec<Move> {
        std::mem::take(&mut lock(&self.moves))
    }
}
