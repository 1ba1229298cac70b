//! [`Audience`]: stored membership, which outlives connections: who is in a group whether connected or not, and how far each of
//! them has read its log. Two records for each membership, because it is asked both ways:
//!
//! - `of/USER/GROUP`: that this user is in this group, and its place there. It is the truth, and what a user is given on return.
//! - `in/GROUP/USER`: that this group has this user. It serves to count those who are offline: it may lack somebody for a
//!   moment, who then is not counted and still gets everything on return.
//!
//! Names are hashed in keys, which are shorter than names may be, and stand in the values. Who calls this, and how long it may
//! take, is in `logs/enrolling.rs`. Tested here, on memory.

use std::sync::Arc;

use tieline_proto::{GroupName, HubName, Position, UserId};

use super::{Engine, KeepError, NOTHING_YET};
use crate::records::{Change, Expect, MAX_LIST, Outcome, RecordKey, Value};
use crate::store::{AppendKey, LogKey, StoreError};

/// Users that a group has at most; a join past it is refused. Nodes count with lists that are a minute old, so there may be a
/// few more.
pub(super) const MOST_MEMBERS: usize = 100_000;

/// Groups that a user is in at most; a join past it is refused.
pub(super) const MOST_GROUPS: usize = 1000;

/// How often a join is begun anew because the user left meanwhile.
const ATTEMPTS: usize = 4;

/// A group that a user is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub(crate) group: GroupName,
    /// What the user has read of its log, or need not read.
    pub(crate) place: Position,
}

/// The stored memberships of all groups.
#[derive(Clone)]
pub(super) struct Audience(Engine);

impl Audience {
    pub(super) fn new(engine: &Engine) -> Self {
        Audience(engine.clone())
    }

    /// Makes a user a member, from the end of the group's log on; one that is a member already keeps its place. Returns the
    /// membership, and whether it is new. `count` is how many members the group has, where that is known.
    pub(super) async fn join(
        &self,
        hub: &HubName,
        user: &UserId,
        group: &GroupName,
        count: Option<usize>,
    ) -> Result<(Membership, bool), KeepError> {
        for _ in 0..ATTEMPTS {
            let (membership, is_new) = match self.find(hub, user, group).await? {
                Some(membership) => (membership, false),
                None => match self.begin(hub, user, group, count).await? {
                    Some(membership) => (membership, true),
                    None => continue,
                },
            };
            let counted = Some(Value { bytes: user.as_str().as_bytes().into(), lives: None });
            self.set(within(hub, group, Some(user)), Expect::Anything, counted).await?;
            // Who left meanwhile must not be counted.
            if self.find(hub, user, group).await?.is_some() {
                return Ok((membership, is_new));
            }
            self.set(within(hub, group, Some(user)), Expect::Anything, None).await?;
        }
        Err(StoreError::Unknown("the user joins and leaves at once".into()).into())
    }

    /// Makes the record of a new membership; none when somebody else did.
    async fn begin(
        &self,
        hub: &HubName,
        user: &UserId,
        group: &GroupName,
        count: Option<usize>,
    ) -> Result<Option<Membership>, KeepError> {
        if self.of(hub, user).await?.len() >= MOST_GROUPS {
            return Err(KeepError::TooManyGroups);
        }
        let count = match count {
            Some(count) => count,
            None => self.members(hub, group).await?.len(),
        };
        if count >= MOST_MEMBERS {
            return Err(KeepError::TooManyMembers);
        }
        let heads = self.0.store.heads(vec![LogKey::Group(hub.clone(), group.clone())]).await?;
        let end = heads.into_iter().next().flatten();
        let place = end.map_or(NOTHING_YET, |head| Position { epoch: head.epoch, offset: head.last });
        let membership = Membership { group: group.clone(), place };
        let outcome =
            self.set(of(hub, user, Some(group)), Expect::Nothing, Some(written(&membership))).await?;
        Ok(matches!(outcome, Outcome::Done(_)).then_some(membership))
    }

    /// Ends a membership, if there is one.
    pub(super) async fn leave(
        &self,
        hub: &HubName,
        user: &UserId,
        group: &GroupName,
    ) -> Result<(), KeepError> {
        // Counted no longer, also where somebody else made it a member between the first two.
        for key in
            [within(hub, group, Some(user)), of(hub, user, Some(group)), within(hub, group, Some(user))]
        {
            self.set(key, Expect::Anything, None).await?;
        }
        Ok(())
    }

    /// Notes how far a member has read the group's log. Not where it is a member no more, nor back within an epoch.
    pub(super) async fn note(
        &self,
        hub: &HubName,
        user: &UserId,
        membership: &Membership,
    ) -> Result<(), StoreError> {
        let key = of(hub, user, Some(&membership.group));
        let Some(record) = self.0.records.get(key.clone()).await? else { return Ok(()) };
        let is_back = read(&record.value).is_some_and(|known| {
            known.place.epoch == membership.place.epoch && known.place.offset >= membership.place.offset
        });
        if !is_back {
            // Whoever changed it meanwhile knows better, or the next note says it again.
            let to = Some(written(membership));
            let change = Change { key, expect: Expect::Version(record.version), to };
            self.0.records.compare_and_set(change).await?;
        }
        Ok(())
    }

    /// One membership, if there is one.
    async fn find(
        &self,
        hub: &HubName,
        user: &UserId,
        group: &GroupName,
    ) -> Result<Option<Membership>, StoreError> {
        let record = self.0.records.get(of(hub, user, Some(group))).await?;
        Ok(record.and_then(|record| read(&record.value)))
    }

    /// The groups that a user is in.
    pub(super) async fn of(&self, hub: &HubName, user: &UserId) -> Result<Vec<Membership>, StoreError> {
        let values = self.list(of(hub, user, None), MOST_GROUPS).await?;
        Ok(values.iter().filter_map(|value| read(value)).collect())
    }

    /// The users that are in a group: one list for each thousand.
    pub(super) async fn members(&self, hub: &HubName, group: &GroupName) -> Result<Vec<UserId>, StoreError> {
        let values = self.list(within(hub, group, None), MOST_MEMBERS).await?;
        let user = |value: &Arc<[u8]>| UserId::new(std::str::from_utf8(value).ok()?).ok();
        Ok(values.iter().filter_map(user).collect())
    }

    async fn list(&self, prefix: RecordKey, most: usize) -> Result<Vec<Arc<[u8]>>, StoreError> {
        let (mut values, mut after) = (Vec::new(), None);
        while values.len() < most {
            let count = MAX_LIST.min(most - values.len());
            let page = self.0.records.list(prefix.as_str().to_owned(), after, count).await?;
            let is_last = page.len() < count;
            after = page.last().map(|(key, _)| key.clone());
            values.extend(page.into_iter().map(|(_, record)| record.value));
            if is_last {
                break;
            }
        }
        Ok(values)
    }

    async fn set(&self, key: RecordKey, expect: Expect, to: Option<Value>) -> Result<Outcome, StoreError> {
        self.0.records.compare_and_set(Change { key, expect, to }).await
    }
}

/// The record of a user's membership, or what all of the user's begin with.
fn of(hub: &HubName, user: &UserId, group: Option<&GroupName>) -> RecordKey {
    key("of", hub, user, group.map(|group| group.as_str()))
}

/// The record of a group's member, or what all of the group's begin with.
fn within(hub: &HubName, group: &GroupName, user: Option<&UserId>) -> RecordKey {
    key("in", hub, group, user.map(|user| user.as_str()))
}

fn key(way: &str, hub: &HubName, first: &str, second: Option<&str>) -> RecordKey {
    let AppendKey(one) = AppendKey::of(&[hub, first]);
    let other = second.map(|second| AppendKey::of(&[second]).0);
    let other = other.map(|hash| format!("{hash:032x}")).unwrap_or_default();
    RecordKey::new(&format!("member/{way}/{one:032x}/{other}")).expect("words and digits are a key")
}

fn written(membership: &Membership) -> Value {
    let Position { epoch, offset } = membership.place;
    let mut bytes = Vec::with_capacity(16 + membership.group.len());
    bytes.extend_from_slice(&epoch.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(membership.group.as_bytes());
    Value { bytes: bytes.into(), lives: None }
}

fn read(value: &[u8]) -> Option<Membership> {
    let (epoch, rest) = value.split_first_chunk()?;
    let (offset, name) = rest.split_first_chunk()?;
    let place = Position { epoch: u64::from_le_bytes(*epoch), offset: u64::from_le_bytes(*offset) };
    Some(Membership { group: GroupName::new(std::str::from_utf8(name).ok()?).ok()?, place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::MemoryRecords;
    use crate::store::{Append, MemoryStore, Retention, Store};
    use tieline_proto::MessageId;

    fn hub(name: &str) -> HubName {
        HubName::new(name).unwrap()
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    fn at(name: &str, epoch: u64, offset: u64) -> Membership {
        Membership { group: group(name), place: Position { epoch, offset } }
    }

    fn audience() -> (Audience, MemoryStore) {
        let store = MemoryStore::new();
        let engine = Engine { store: Arc::new(store.clone()), records: Arc::new(MemoryRecords::new()) };
        (Audience::new(&engine), store)
    }

    fn names(memberships: &[Membership]) -> Vec<&str> {
        let mut names: Vec<&str> = memberships.iter().map(|membership| &*membership.group).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn memberships_are_found_both_ways_and_by_no_other_name() {
        let (audience, _) = audience();
        let h = hub("h");
        let long = "ü/".repeat(512);
        let hostile = ["%", "*", "in/", "\u{1}\u{7f}", "\0", "a/", "../a"];
        for (name, of) in [("a", "g/b"), ("a", "g"), ("a/g", "b"), ("b", "g"), (&*long, &*long)] {
            assert!(audience.join(&h, &user(name), &group(of), None).await.unwrap().1);
        }
        for name in hostile {
            audience.join(&h, &user(name), &group("h"), None).await.unwrap();
            audience.join(&h, &user("a/"), &group(name), None).await.unwrap();
        }
        audience.join(&hub("i"), &user("c"), &group("g"), None).await.unwrap();
        assert_eq!(names(&audience.of(&h, &user("a")).await.unwrap()), ["g", "g/b"]);
        let mut members = audience.members(&h, &group("g")).await.unwrap();
        members.sort();
        assert_eq!(members, [user("a"), user("b")]);
        assert_eq!(audience.members(&h, &group("h")).await.unwrap().len(), hostile.len());
        assert_eq!(audience.of(&h, &user("a/")).await.unwrap().len(), hostile.len() + 1);
        assert_eq!(audience.of(&h, &user(&long)).await.unwrap(), [at(&long, 0, 0)]);
        audience.leave(&h, &user("a"), &group("g")).await.unwrap();
        assert_eq!(names(&audience.of(&h, &user("a")).await.unwrap()), ["g/b"]);
        assert_eq!(audience.members(&h, &group("g")).await.unwrap(), [user("b")]);
    }

    #[tokio::test]
    async fn a_membership_begins_at_the_logs_end_and_is_begun_once() {
        let (audience, store) = audience();
        let (h, u, g) = (hub("h"), user("u"), group("g"));
        let append = |id: u128| Append {
            log: LogKey::Group(hub("h"), group("g")),
            key: MessageId(id).into(),
            id: MessageId(id),
            body: b"m"[..].into(),
            retention: Retention { age: std::time::Duration::MAX, ..Retention::default() },
        };
        store.append(append(1)).await.unwrap();
        let end = store.append(append(2)).await.unwrap().position;
        let (joined, is_new) = audience.join(&h, &u, &g, None).await.unwrap();
        assert_eq!((joined.place, is_new), (end, true));
        store.append(append(3)).await.unwrap();
        assert_eq!(audience.join(&h, &u, &g, None).await.unwrap(), (joined, false));
    }

    #[tokio::test]
    async fn a_place_goes_on_and_comes_back_to_nobody_who_left() {
        let (audience, _) = audience();
        let (h, u) = (hub("h"), user("u"));
        audience.join(&h, &u, &group("g"), None).await.unwrap();
        for (said, known) in [((7, 9), (7, 9)), ((7, 6), (7, 9)), ((8, 1), (8, 1))] {
            audience.note(&h, &u, &at("g", said.0, said.1)).await.unwrap();
            assert_eq!(audience.of(&h, &u).await.unwrap(), [at("g", known.0, known.1)]);
        }
        let again = audience.join(&h, &u, &group("g"), None).await.unwrap();
        assert_eq!(again, (at("g", 8, 1), false), "it has its place already");
        audience.leave(&h, &u, &group("g")).await.unwrap();
        audience.note(&h, &u, &at("g", 8, 50)).await.unwrap();
        assert_eq!(audience.of(&h, &u).await.unwrap(), []);
    }

    #[tokio::test]
    async fn there_are_bounds_that_do_not_hold_members_back() {
        let (audience, _) = audience();
        let (h, u) = (hub("h"), user("u"));
        for number in 0..MOST_GROUPS {
            audience.join(&h, &u, &group(&format!("g{number}")), None).await.unwrap();
        }
        let refused = audience.join(&h, &u, &group("more"), None).await;
        assert_eq!(refused, Err(KeepError::TooManyGroups));
        let again = audience.join(&h, &u, &group("g0"), Some(MOST_MEMBERS)).await;
        assert_eq!(again, Ok((at("g0", 0, 0), false)));
        let refused = audience.join(&h, &user("v"), &group("g0"), Some(MOST_MEMBERS)).await;
        assert_eq!(refused, Err(KeepError::TooManyMembers));
        audience.leave(&h, &u, &group("g5")).await.unwrap();
        assert!(audience.join(&h, &u, &group("more"), None).await.is_ok());
    }

    #[tokio::test]
    async fn many_members_are_listed_page_by_page() {
        let (audience, _) = audience();
        let h = hub("h");
        for number in 0..2500 {
            audience.join(&h, &user(&format!("u{number}")), &group("g"), Some(0)).await.unwrap();
        }
        let members = audience.members(&h, &group("g")).await.unwrap();
        assert_eq!(members.iter().collect::<std::collections::BTreeSet<_>>().len(), 2500);
    }
}
