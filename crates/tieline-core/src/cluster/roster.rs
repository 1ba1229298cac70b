//! [`Roster`]: what one node holds (users and groups), as that node states it and as the others know it.
//!
//! Each node is the only writer of its own roster. Every change raises its version by one, and the digest is equal
//! exactly when the contents are, but for one chance in 2^64: so a reader that missed something finds out from
//! the next sign of life and asks for the whole. Without I/O.

use std::collections::HashMap;

use tieline_proto::HubName;
use tieline_proto::envelope::{Change, Held};
use tieline_proto::presence::{self, Present};

/// The name of an entry of a roster.
pub(crate) type Entry = (HubName, Held);

/// An entry as it is told: its name, and the number of its claim, which is 0 for a group.
pub(crate) type Stated = (HubName, Held, u64);

/// What is known of an entry.
#[derive(Clone, Copy, Debug)]
struct Details {
    /// Connections of this node that it stands for; 1 for a user, and in the copy of another's roster.
    holders: u32,
    /// The version that it came with.
    version: u64,
    /// The number of the newest claim to a user or a place; 0 for a group.
    claim: u64,
}

/// What one node holds.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    entries: HashMap<Entry, Details>,
    version: u64,
    digest: u64,
}

impl Roster {
    /// How many changes were made.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Equal for equal contents, whatever the way to them.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Every entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Stated> {
        self.entries.iter().map(|((hub, what), details)| (hub.clone(), what.clone(), details.claim))
    }

    /// How many users are held.
    pub(crate) fn users(&self) -> usize {
        self.entries.keys().filter(|(_, what)| matches!(what, Held::User(_))).count()
    }

    /// Whether the entry is held.
    pub(crate) fn holds(&self, hub: &HubName, what: &Held) -> bool {
        self.entries.contains_key(&(hub.clone(), what.clone()))
    }

    /// One more connection of this node is in a group. Returns the version that states it, and the change to be told
    /// when it is the first.
    pub(crate) fn hold(&mut self, hub: &HubName, what: Held) -> (u64, Option<Change>) {
        let entry = (hub.clone(), what);
        if let Some(details) = self.entries.get_mut(&entry) {
            details.holders += 1;
            return (details.version, None);
        }
        let change = self.enter(entry, 0);
        (self.version, Some(change))
    }

    /// The newest claim of this node to a user or a place. Returns the version by which it is known that the node has one, and
    /// the change to be told.
    pub(crate) fn claim(&mut self, hub: &HubName, what: Held, number: u64) -> (u64, Option<Change>) {
        let entry = (hub.clone(), what);
        match self.entries.get(&entry) {
            Some(details) if details.claim == number => (details.version, None),
            Some(details) => {
                let version = details.version;
                self.digest ^= digest(&entry, details.claim);
                let change = self.enter(entry.clone(), number);
                if let Some(details) = self.entries.get_mut(&entry) {
                    details.version = version;
                }
                (version, Some(change))
            }
            None => {
                let change = self.enter(entry, number);
                (self.version, Some(change))
            }
        }
    }

    fn enter(&mut self, entry: Entry, claim: u64) -> Change {
        self.version += 1;
        self.digest ^= digest(&entry, claim);
        let change = Change { hub: entry.0.clone(), what: entry.1.clone(), held: true, claim };
        self.entries.insert(entry, Details { holders: 1, version: self.version, claim });
        change
    }

    /// One connection less, or a user's last. Returns the change to be told when it was the last.
    pub(crate) fn release(&mut self, hub: &HubName, what: Held) -> Option<Change> {
        let entry = (hub.clone(), what);
        let details = self.entries.get_mut(&entry)?;
        details.holders -= 1;
        if details.holders > 0 {
            return None;
        }
        let claim = details.claim;
        self.entries.remove(&entry);
        self.version += 1;
        self.digest ^= digest(&entry, claim);
        Some(Change { hub: entry.0, what: entry.1, held: false, claim: 0 })
    }

    /// Takes changes of another's roster that lead to `version`. False when some before them are missing: then
    /// nothing was taken, and the whole is needed.
    pub(crate) fn follow(&mut self, version: u64, changes: &[Change]) -> bool {
        if self.version.checked_add(changes.len() as u64) != Some(version) {
            return false;
        }
        for change in changes {
            let entry = (change.hub.clone(), change.what.clone());
            if let Some(before) = self.entries.remove(&entry) {
                self.digest ^= digest(&entry, before.claim);
            }
            if change.held {
                self.digest ^= digest(&entry, change.claim);
                self.entries.insert(entry, Details { holders: 1, version, claim: change.claim });
            }
        }
        self.version = version;
        true
    }

    /// The copy of a whole roster.
    pub(crate) fn copy(version: u64, stated: Vec<Stated>) -> Self {
        let mut roster = Roster { version, ..Roster::default() };
        for (hub, what, claim) in stated {
            let entry = (hub, what);
            roster.digest ^= digest(&entry, claim);
            roster.entries.insert(entry, Details { holders: 1, version, claim });
        }
        roster
    }
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo), then mixed (the finaliser of MurmurHash3, Appleby): the same on every
/// node, whatever its version. Summed by exclusive or, so that the order does not matter.
fn digest((hub, what): &Entry, claim: u64) -> u64 {
    let (kind, name, device) = match what {
        Held::User(user) => (1u8, user.as_bytes(), None),
        Held::Group(group) => (2u8, group.as_bytes(), None),
        Held::Connection(id) => (3u8, &id.to_bytes()[..], None),
        Held::Login(user, device) => (4u8, user.as_bytes(), Some(device)),
        Held::Present(Present { user, .. }) => (5u8, user.as_deref().unwrap_or_default().as_bytes(), None),
    };
    // No text has such bytes.
    let present = match what {
        Held::Present(Present { group, details, .. }) => {
            [(0xff, group.as_deref()), (0xfe, details.as_ref().map(presence::Details::members))]
        }
        _ => [(0xff, None), (0xfe, None)],
    };
    let present = present
        .into_iter()
        .filter_map(|(mark, text)| Some([mark].into_iter().chain(text?.bytes())))
        .flatten();
    let device = device.into_iter().flat_map(|device| [0].into_iter().chain(device.bytes()));
    let bytes = hub
        .as_str()
        .bytes()
        .chain([0, kind])
        .chain(name.iter().copied())
        .chain(device)
        .chain(present)
        .chain([0])
        .chain(claim.to_le_bytes());
    let mut hash = bytes
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tieline_proto::{GroupName, UserId};

    use super::*;

    fn held(n: u8) -> Held {
        let name = format!("{}", n / 3);
        match n % 4 {
            0 => Held::User(UserId::new(&name).unwrap()),
            1 => Held::Group(GroupName::new(&name).unwrap()),
            2 => Held::Login(UserId::new(&name).unwrap(), "phone".into()),
            _ => Held::Present(Present { user: Some(UserId::new(&name).unwrap()), ..nobody() }),
        }
    }

    fn nobody() -> Present {
        Present { group: None, user: None, details: None }
    }

    proptest! {
        #[test]
        fn a_copy_follows_or_knows_that_it_does_not(
            steps in proptest::collection::vec((any::<bool>(), 0u8..16, 0u8..10), 0..200),
        ) {
            let hub = HubName::new("hub").unwrap();
            let (mut own, mut copy) = (Roster::default(), Roster::default());
            let mut counts = [0u32; 16];
            for (hold, n, luck) in steps {
                let change = match held(n) {
                    what @ (Held::User(_) | Held::Login(..) | Held::Present(_)) if hold => {
                        counts[usize::from(n)] = 1;
                        own.claim(&hub, what, u64::from(luck % 3) + 1).1
                    }
                    what if hold => {
                        counts[usize::from(n)] += 1;
                        own.hold(&hub, what).1
                    }
                    what if counts[usize::from(n)] > 0 => {
                        counts[usize::from(n)] -= 1;
                        own.release(&hub, what)
                    }
                    _ => None,
                };
                let Some(change) = change else { continue };
                // One in ten changes is lost on the way.
                if luck > 0 && !copy.follow(own.version(), &[change]) {
                    prop_assert!(copy.version() + 1 < own.version());
                    copy = Roster::copy(own.version(), own.entries().collect());
                }
                if copy.version() == own.version() {
                    prop_assert_eq!(copy.digest(), own.digest());
                    let all = |roster: &Roster| roster.entries().collect::<std::collections::BTreeSet<_>>();
                    prop_assert_eq!(all(&copy), all(&own));
                }
            }
            let holding = counts.iter().filter(|count| **count > 0).count();
            prop_assert_eq!(own.entries.len(), holding);
        }
    }

    #[test]
    fn hubs_kinds_names_and_claims_have_digests_of_their_own() {
        let hub = |name| HubName::new(name).unwrap();
        let group = |name| Held::Group(GroupName::new(name).unwrap());
        let user = |name| Held::User(UserId::new(name).unwrap());
        let login = |name, device: &str| Held::Login(UserId::new(name).unwrap(), device.into());
        let details = |device| presence::Details::new(Some(device), None).unwrap();
        let entries = [
            (hub("a"), group("b")),
            (hub("a"), user("b")),
            (hub("ab"), group("c")),
            (hub("a"), group("bc")),
            (hub("a"), login("b", "")),
            (hub("a"), login("b", "c")),
            (hub("a"), login("bc", "")),
            (hub("a"), Held::Present(nobody())),
            (hub("a"), Held::Present(Present { user: UserId::new("b").ok(), ..nobody() })),
            (hub("a"), Held::Present(Present { group: GroupName::new("b").ok(), ..nobody() })),
            (hub("a"), Held::Present(Present { details: details("b"), ..nobody() })),
            (hub("a"), Held::Present(Present { details: details("bc"), ..nobody() })),
        ];
        let digests: std::collections::HashSet<u64> =
            entries.iter().flat_map(|entry| [digest(entry, 0), digest(entry, 1)]).collect();
        assert_eq!(digests.len(), entries.len() * 2);
    }
}
