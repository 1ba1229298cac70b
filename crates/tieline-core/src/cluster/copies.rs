//! [`Copy`]: what another node states, as it is known here, and the tables that the shards read, made of all copies.

use std::time::{Duration, Instant};

use tieline_proto::envelope::{Change, Held};
use tieline_proto::{HubName, Incarnation};

use super::interest::Interest;
use super::roster::{Roster, Stated};
use crate::directory::Directory;
use crate::logins::Logins;
use crate::presence::Presence;

/// Least time between two requests for the same roster.
const AGAIN: Duration = Duration::from_millis(200);

/// What a change made of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was known already.
    Old,
    /// The copy is as its owner stated it then.
    Followed,
    /// Something before it is missing: the whole is needed.
    Lacking,
}

/// What is known of another node's statements.
#[derive(Default)]
pub(super) struct Copy {
    roster: Roster,
    /// Whether it is all that the other states, as far as is known.
    pub(super) is_complete: bool,
    /// The version of this node's statements that the other has read; none before it has said so since it is reached. Who says so
    /// knows this node, and sends to it.
    pub(super) read: Option<u64>,
    /// Parts of its whole roster that have arrived, all of one version.
    parts: (u64, Vec<Stated>),
    /// When it was last asked for its whole roster.
    wanted: Option<Instant>,
    /// The id of its store, if it has one; nothing before its first beat.
    pub(super) store: Option<Option<String>>,
    /// What it calls its directory, and the version of its roster when it said so.
    pub(super) announced: Option<(u64, Box<str>)>,
}

/// The tables that follow from all copies.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) interest: &'a Interest,
    pub(super) users: &'a dyn Directory,
    pub(super) logins: &'a Logins,
    pub(super) presence: &'a Presence,
}

impl Tables<'_> {
    fn hold(&self, hub: &HubName, what: &Held, node: Incarnation, claim: u64) {
        match what {
            Held::User(user) => self.users.stated(hub, user, node, Some(claim)),
            Held::Group(group) => self.interest.add(hub, group, node),
            Held::Connection(id) => self.interest.add_connection(*id, node),
            Held::Login(user, device) => self.logins.stated(hub, user, device, node, Some(claim)),
            Held::Present(present) => self.presence.stated(hub, present, node, Some(claim)),
        }
    }

    fn release(&self, hub: &HubName, what: &Held, node: Incarnation) {
        match what {
            Held::User(user) => self.users.stated(hub, user, node, None),
            Held::Group(group) => self.interest.remove(hub, group, node),
            Held::Connection(id) => self.interest.remove_connection(*id, node),
            Held::Login(user, device) => self.logins.stated(hub, user, device, node, None),
            Held::Present(present) => self.presence.stated(hub, present, node, None),
        }
    }
}

impl Copy {
    /// The version that was read.
    pub(super) fn version(&self) -> u64 {
        self.roster.version()
    }

    /// Its owner says what it should be. One that is ahead was read after that was written.
    pub(super) fn compare(&mut self, version: u64, digest: u64) -> Taken {
        if self.roster.version() > version {
            return Taken::Old;
        }
        self.is_complete = self.roster.version() == version && self.roster.digest() == digest;
        if self.is_complete { Taken::Followed } else { Taken::Lacking }
    }

    /// What it calls its directory, where all is known that it had stated when it said so.
    pub(super) fn directory(&self) -> Option<&str> {
        let (version, name) = self.announced.as_ref()?;
        (self.is_complete && self.roster.version() >= *version).then_some(name)
    }

    /// Whether it is time to ask for the whole; taken as asked.
    pub(super) fn is_to_be_asked_for(&mut self) -> bool {
        self.is_complete = false;
        let is_due = self.wanted.is_none_or(|wanted| wanted.elapsed() >= AGAIN);
        if is_due {
            self.wanted = Some(Instant::now());
        }
        is_due
    }

    /// Its owner states changes that lead to a version.
    pub(super) fn follow(
        &mut self,
        node: Incarnation,
        version: u64,
        changes: &[Change],
        tables: Tables<'_>,
    ) -> Taken {
        if self.roster.version() >= version {
            return Taken::Old;
        }
        if !self.roster.follow(version, changes) {
            return Taken::Lacking;
        }
        for change in changes {
            if change.held {
                tables.hold(&change.hub, &change.what, node, change.claim);
            } else {
                tables.release(&change.hub, &change.what, node);
            }
        }
        Taken::Followed
    }

    /// A part of the whole arrived, which so many follow. Parts come in order; of a roster that was begun anew only the new
    /// parts count. One with a part missing has another digest than the next beat, and is asked for again.
    pub(super) fn take_part(
        &mut self,
        node: Incarnation,
        (version, left): (u64, u32),
        part: Vec<Stated>,
        tables: Tables<'_>,
    ) -> Taken {
        let (of, entries) = &mut self.parts;
        if *of != version {
            *of = version;
            entries.clear();
        }
        entries.extend(part);
        if left > 0 {
            return Taken::Old;
        }
        let (_, entries) = std::mem::take(&mut self.parts);
        self.wanted = None;
        let fresh = Roster::copy(version, entries);
        let before = std::mem::replace(&mut self.roster, fresh);
        self.is_complete = true;
        // Added before the others are removed: what stays is never missing.
        for (hub, what, claim) in self.roster.entries() {
            tables.hold(&hub, &what, node, claim);
        }
        for (hub, what, _) in before.entries() {
            if !self.roster.holds(&hub, &what) {
                tables.release(&hub, &what, node);
            }
        }
        Taken::Followed
    }

    /// Its owner is dead: its interest ends, and whoever was present there alone is waited for. Its claims are forgotten where
    /// they are kept.
    pub(super) fn forget(&self, node: Incarnation, interest: &Interest, presence: &Presence) {
        for (hub, what, _) in self.roster.entries() {
            match what {
                Held::Group(group) => interest.remove(&hub, &group, node),
                Held::Connection(id) => interest.remove_connection(id, node),
                Held::Present(present) => presence.stated(&hub, &present, node, None),
                Held::User(_) | Held::Login(..) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
