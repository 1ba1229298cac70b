//! [`Roster`]: what one node holds (users and groups), as that node states it and as the others know it.
//!
//! Each node is the only writer of its own roster. Every change raises its version by one, and the digest is equal
//! exactly when the contents are, but for one chance in 2^64: so a reader that missed something finds out from
//! the next sign of life and asks for the whole. Without I/O.

use std::collections::HashMap;

use tieline_proto::HubName;
use tieline_proto::envelope::{Change, Held};

/// One entry of a roster.
pub(crate) type Entry = (HubName, Held);

/// What is known of an entry.
#[derive(Clone, Copy, Debug)]
struct Stated {
    /// Connections of this node that it stands for; 1 in the copy of another's roster.
    holders: u32,
    /// The version that it came with.
    version: u64,
}

/// What one node holds.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    entries: HashMap<Entry, Stated>,
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
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.keys()
    }

    /// Whether the entry is held.
    pub(crate) fn holds(&self, hub: &HubName, what: &Held) -> bool {
        self.entries.contains_key(&(hub.clone(), what.clone()))
    }

    /// One more connection of this node holds the entry. Returns the version that states it, and the change to
    /// be told when it is the first.
    pub(crate) fn hold(&mut self, hub: &HubName, what: Held) -> (u64, Option<Change>) {
        let entry = (hub.clone(), what);
        if let Some(stated) = self.entries.get_mut(&entry) {
            stated.holders += 1;
            return (stated.version, None);
        }
        let change = Change { hub: entry.0.clone(), what: entry.1.clone(), held: true };
        self.version += 1;
        self.digest ^= digest(&entry);
        self.entries.insert(entry, Stated { holders: 1, version: self.version });
        (self.version, Some(change))
    }

    /// One connection less. Returns the change to be told when it was the last.
    pub(crate) fn release(&mut self, hub: &HubName, what: Held) -> Option<Change> {
        let entry = (hub.clone(), what);
        let stated = self.entries.get_mut(&entry)?;
        stated.holders -= 1;
        if stated.holders > 0 {
            return None;
        }
        self.entries.remove(&entry);
        self.version += 1;
        self.digest ^= digest(&entry);
        Some(Change { hub: entry.0, what: entry.1, held: false })
    }

    /// Takes changes of another's roster that lead to `version`. False when some before them are missing: then
    /// nothing was taken, and the whole is needed.
    pub(crate) fn follow(&mut self, version: u64, changes: &[Change]) -> bool {
        if self.version.checked_add(changes.len() as u64) != Some(version) {
            return false;
        }
        for change in changes {
            let entry = (change.hub.clone(), change.what.clone());
            let known = self.entries.contains_key(&entry);
            if known != change.held {
                self.digest ^= digest(&entry);
            }
            if change.held {
                self.entries.insert(entry, Stated { holders: 1, version });
            } else {
                self.entries.remove(&entry);
            }
        }
        self.version = version;
        true
    }

    /// The copy of a whole roster.
    pub(crate) fn copy(version: u64, entries: Vec<Entry>) -> Self {
        let digest = entries.iter().fold(0, |sum, entry| sum ^ digest(entry));
        let stated = Stated { holders: 1, version };
        let entries = entries.into_iter().map(|entry| (entry, stated)).collect();
        Roster { entries, version, digest }
    }
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo), then mixed (the finaliser of MurmurHash3, Appleby): the same on every
/// node, whatever its version. Summed by exclusive or, so that the order does not matter.
fn digest((hub, what): &Entry) -> u64 {
    let (kind, name) = match what {
        Held::User(user) => (1u8, user.as_str()),
        Held::Group(group) => (2u8, group.as_str()),
    };
    let bytes = hub.as_str().bytes().chain([0, kind]).chain(name.bytes());
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
        let name = format!("{}", n / 2);
        if n.is_multiple_of(2) {
            Held::User(UserId::new(&name).unwrap())
        } else {
            Held::Group(GroupName::new(&name).unwrap())
        }
    }

    proptest! {
        #[test]
        fn a_copy_follows_or_knows_that_it_does_not(
            steps in proptest::collection::vec((any::<bool>(), 0u8..12, 0u8..10), 0..200),
        ) {
            let hub = HubName::new("hub").unwrap();
            let (mut own, mut copy) = (Roster::default(), Roster::default());
            let mut counts = [0u32; 12];
            for (hold, n, luck) in steps {
                let change = if hold {
                    counts[usize::from(n)] += 1;
                    own.hold(&hub, held(n)).1
                } else if counts[usize::from(n)] > 0 {
                    counts[usize::from(n)] -= 1;
                    own.release(&hub, held(n))
                } else {
                    None
                };
                let Some(change) = change else { continue };
                // One in ten changes is lost on the way.
                if luck > 0 && !copy.follow(own.version(), &[change]) {
                    prop_assert!(copy.version() + 1 < own.version());
                    copy = Roster::copy(own.version(), own.entries().cloned().collect());
                }
                if copy.version() == own.version() {
                    prop_assert_eq!(copy.digest(), own.digest());
                    prop_assert_eq!(copy.entries.len(), own.entries.len());
                }
            }
            let holding = counts.iter().filter(|count| **count > 0).count();
            prop_assert_eq!(own.entries.len(), holding);
        }
    }

    #[test]
    fn hubs_kinds_and_names_have_digests_of_their_own() {
        let hub = |name| HubName::new(name).unwrap();
        let group = |name| Held::Group(GroupName::new(name).unwrap());
        let user = |name| Held::User(UserId::new(name).unwrap());
        let entries =
            [(hub("a"), group("b")), (hub("a"), user("b")), (hub("ab"), group("c")), (hub("a"), group("bc"))];
        let digests: std::collections::HashSet<u64> = entries.iter().map(digest).collect();
        assert_eq!(digests.len(), entries.len());
    }
}
