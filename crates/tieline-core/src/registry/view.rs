//! [`Keeping`]: what is believed of the lists that a registry's server shows.
//!
//! A server that was away, or that has just been started, shows fewer nodes than live: theirs are the next signs of life. So
//! nobody is dropped for missing from a list within [`HOLD`] of such a moment. A server that was there all the time is
//! believed at once, for its leases are what says who died. Without I/O and without a clock. Tested in `view/tests.rs`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tieline_proto::NodeId;

use super::words::Strange;
use super::{Member, View};

/// How long nobody is dropped after a server came back: three times what a node takes to say that it lives.
pub const HOLD: Duration = Duration::from_secs(15);

/// The most nodes that are believed in. Entries beyond are counted as strange.
pub const MAX_MEMBERS: usize = 1024;

/// What is believed of what a server showed.
pub struct Keeping {
    /// The node that looks, where it is one.
    me: Option<NodeId>,
    /// How long nobody is dropped after the server came back.
    hold: Duration,
    /// The entries of others, also of this one's name.
    entries: BTreeMap<NodeId, Entry>,
    strange: usize,
    is_away: bool,
    /// Whether the last list had this node in it.
    was_listed: bool,
    /// Nobody is dropped before then.
    held_until: Option<Instant>,
}

struct Entry {
    member: Member,
    /// Whether the last list lacked it.
    is_missing: bool,
}

impl Keeping {
    /// Believes nothing yet. `me` is the node that looks, whose own entry is nobody else's; none where it is no node. `hold` is
    /// [`HOLD`], or less in tests.
    pub fn new(me: Option<NodeId>, hold: Duration) -> Self {
        Keeping {
            me,
            hold,
            entries: BTreeMap::new(),
            strange: 0,
            is_away: false,
            was_listed: false,
            held_until: None,
        }
    }

    /// The server shows this list, whole. It is there, whatever was believed before.
    pub fn listed(&mut self, list: impl IntoIterator<Item = Result<Member, Strange>>, now: Instant) {
        self.strange = 0;
        let mut found = BTreeMap::new();
        let mut has_me = false;
        for entry in list {
            match entry {
                Ok(member) if Some(&member.id) == self.me.as_ref() => has_me = true,
                Ok(member) if found.len() < MAX_MEMBERS => {
                    found.insert(member.id.clone(), member);
                }
                Ok(_) | Err(_) => self.strange += 1,
            }
        }
        let was_away = std::mem::take(&mut self.is_away);
        let was_listed = std::mem::replace(&mut self.was_listed, has_me);
        if was_away || was_listed && !has_me {
            self.forgotten(now);
        }
        // Who has no entry of its own to look for goes by how many are missing at once.
        let present = self.entries.values().filter(|entry| !entry.is_missing).count();
        let missing = self.entries.iter().filter(|(id, entry)| !entry.is_missing && !found.contains_key(*id));
        if !has_me && missing.count() * 2 > present {
            self.forgotten(now);
        }
        let is_held = self.is_held(now);
        self.entries.retain(|id, entry| {
            entry.is_missing = !found.contains_key(id);
            is_held || !entry.is_missing
        });
        let found = found.into_iter().map(|(id, member)| (id, Entry { member, is_missing: false }));
        self.entries.extend(found);
    }

    /// The server has lost what it knew: it was started again, or did not have this node any more. Nobody is dropped for a
    /// while.
    pub fn forgotten(&mut self, now: Instant) {
        self.held_until = Some(now + self.hold);
    }

    /// The server is out of reach from now on.
    pub fn away(&mut self) {
        self.is_away = true;
    }

    /// Time has passed: who is still missing is dropped.
    pub fn tick(&mut self, now: Instant) {
        if !self.is_away && self.held_until.is_some() && !self.is_held(now) {
            self.held_until = None;
            self.entries.retain(|_, entry| !entry.is_missing);
        }
    }

    fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// What is believed now. Of several entries of one name the one that started last counts.
    pub fn view(&self) -> View {
        let mut view = View { is_degraded: self.is_away, strange: self.strange, ..View::default() };
        for entry in self.entries.values() {
            let member = entry.member.clone();
            if self.me.as_ref().is_some_and(|me| me.name == member.id.name) {
                view.namesake = Some(member);
                continue;
            }
            // Entries are in the order of names, and then of starts.
            if view.members.last().is_some_and(|last| last.id.name == member.id.name) {
                view.members.pop();
            }
            view.members.push(member);
        }
        view
    }
}

#[cfg(test)]
mod tests;
