//! The local hub: which connections of this node belong to which user and group, in each namespace.
//!
//! To the switchboard users and groups are numbers; the names are here. The tables are written by the shards as
//! connections come and go and read by every thread that routes. A group's number is used again only when
//! nobody holds the group any more, so a publication on its way never reaches another group's members.

use std::collections::BTreeSet;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use rustc_hash::FxHasher;
use smallvec::SmallVec;
use tieline_proto::{GroupName, HubName, UserId};
use tieline_switchboard::{Address, GroupId};

/// Names come from clients, so the map's own keyed hasher guards against collisions made on purpose.
type Names<K, V> = DashMap<K, V>;
/// Hub names come from verified tokens or the operator's own paths.
type Hubs = DashMap<HubName, Arc<Hub>, BuildHasherDefault<FxHasher>>;

/// All hubs of this node.
pub struct LocalHubs {
    hubs: Hubs,
    numbers: Arc<Numbers>,
    shards: usize,
}

impl LocalHubs {
    /// Without hubs, for a node with so many shards.
    pub fn new(shards: usize) -> Self {
        LocalHubs { hubs: DashMap::default(), numbers: Arc::default(), shards }
    }

    /// The hub of this name, made now if nobody used it before. Hubs are few and stay.
    pub fn get_or_make(&self, name: &HubName) -> Arc<Hub> {
        if let Some(hub) = self.get(name) {
            return hub;
        }
        let make = || Arc::new(Hub::new(name.clone(), self.shards, Arc::clone(&self.numbers)));
        Arc::clone(&self.hubs.entry(name.clone()).or_insert_with(make))
    }

    /// The hub of this name, if anybody has used it.
    pub fn get(&self, name: &HubName) -> Option<Arc<Hub>> {
        self.hubs.get(name).map(|hub| Arc::clone(&hub))
    }

    /// Every hub.
    pub fn all(&self) -> Vec<Arc<Hub>> {
        self.hubs.iter().map(|hub| Arc::clone(&hub)).collect()
    }
}

/// The users and groups of one namespace that this node holds. Nothing crosses hubs.
pub struct Hub {
    name: HubName,
    everyone: Arc<Group>,
    users: Names<UserId, SmallVec<[Address; 1]>>,
    groups: Names<GroupName, Arc<Group>>,
    numbers: Arc<Numbers>,
    shards: usize,
}

impl Hub {
    fn new(name: HubName, shards: usize, numbers: Arc<Numbers>) -> Self {
        let everyone = Arc::new(Group::new(None, shards, &numbers));
        Hub { name, everyone, users: DashMap::new(), groups: DashMap::new(), numbers, shards }
    }

    /// The hub's name.
    pub fn name(&self) -> &HubName {
        &self.name
    }

    /// The group of all connections of the hub.
    pub fn everyone(&self) -> &Arc<Group> {
        &self.everyone
    }

    /// A group without a name and without members: for connections that are told of something, whoever keeps it knows of what.
    pub(crate) fn audience(&self) -> Arc<Group> {
        Arc::new(Group::new(None, self.shards, &self.numbers))
    }

    /// Number of connections of this hub on this node.
    pub fn connections(&self) -> usize {
        self.everyone.members()
    }

    /// Number of users with a connection on this node.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Number of groups with a member on this node.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    // ---- users ----

    /// Notes that a user has a connection.
    pub fn add_user(&self, user: &UserId, address: Address) {
        self.users.entry(user.clone()).or_default().push(address);
    }

    /// Notes that a user's connection is gone. Only this connection's entry goes, never that of a newer one.
    /// Returns whether it was the user's last on this node.
    pub fn remove_user(&self, user: &UserId, address: Address) -> bool {
        let Some(mut addresses) = self.users.get_mut(user) else { return false };
        addresses.retain(|known| *known != address);
        if !addresses.is_empty() {
            return false;
        }
        drop(addresses);
        self.users.remove_if(user, |_, addresses| addresses.is_empty()).is_some()
    }

    /// Where a user's connections are on this node; empty when it has none here.
    pub fn user(&self, user: &str) -> SmallVec<[Address; 2]> {
        self.users.get(user).map(|addresses| addresses.iter().copied().collect()).unwrap_or_default()
    }

    /// Number of connections that a user has on this node.
    pub fn user_connections(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |addresses| addresses.len())
    }

    // ---- groups ----

    /// A group that has members on this node.
    pub fn group(&self, name: &str) -> Option<Arc<Group>> {
        self.groups.get(name).map(|group| Arc::clone(&group))
    }

    /// Counts one more member of a group on a shard, and gives the group to that member to hold.
    pub fn enter(&self, name: &GroupName, shard: u16) -> Arc<Group> {
        let make = || Arc::new(Group::new(Some(name.clone()), self.shards, &self.numbers));
        // Counted under the table's lock, so that the group is not forgotten meanwhile.
        let group = self.groups.entry(name.clone()).or_insert_with(make);
        group.enter(shard);
        Arc::clone(&group)
    }

    /// Counts one member less. A group without members is forgotten.
    pub fn exit(&self, group: &Group, shard: u16) {
        group.exit(shard);
        if let Some(name) = &group.name
            && group.members() == 0
        {
            // Asked again under the table's lock: somebody may have entered meanwhile.
            self.groups.remove_if(name, |_, group| group.members() == 0);
        }
    }
}

/// A group with members on this node.
#[derive(Debug)]
pub struct Group {
    name: Option<GroupName>,
    id: GroupId,
    /// Members on each shard.
    counts: Box<[AtomicU32]>,
    numbers: Arc<Numbers>,
}

impl Group {
    fn new(name: Option<GroupName>, shards: usize, numbers: &Arc<Numbers>) -> Self {
        let counts = (0..shards).map(|_| AtomicU32::new(0)).collect();
        Group { name, id: numbers.take(), counts, numbers: Arc::clone(numbers) }
    }

    /// Its name; the group of everybody in a hub has none.
    pub fn name(&self) -> Option<&GroupName> {
        self.name.as_ref()
    }

    /// Its number on the switchboard.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Number of members on this node.
    pub fn members(&self) -> usize {
        self.counts.iter().map(|count| count.load(Ordering::Acquire) as usize).sum()
    }

    /// The shards that hold members.
    pub fn shards(&self) -> impl Iterator<Item = u16> {
        let held = self.counts.iter().enumerate().filter(|(_, count)| count.load(Ordering::Acquire) > 0);
        held.map(|(shard, _)| shard as u16)
    }

    /// Whether a shard other than this one holds members.
    pub fn is_elsewhere(&self, shard: u16) -> bool {
        self.counts.len() > 1 && self.shards().any(|holder| holder != shard)
    }

    /// Counts one more member on a shard. Groups that have a name are entered through their hub.
    pub(crate) fn enter(&self, shard: u16) {
        self.counts[usize::from(shard)].fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one member less.
    pub(crate) fn exit(&self, shard: u16) {
        self.counts[usize::from(shard)].fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.numbers.give_back(self.id);
    }
}

/// The numbers of groups: small ones are used again, because every shard keeps a table by number.
#[derive(Debug, Default)]
struct Numbers(Mutex<(BTreeSet<u32>, u32)>);

impl Numbers {
    fn take(&self) -> GroupId {
        let (free, next) = &mut *self.lock();
        let number = free.pop_first().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        });
        GroupId(number)
    }

    fn give_back(&self, id: GroupId) {
        self.lock().0.insert(id.0);
    }

    fn lock(&self) -> MutexGuard<'_, (BTreeSet<u32>, u32)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(slot: u32, generation: u32) -> Address {
        Address { shard: 0, slot, generation }
    }

    #[test]
    fn a_release_never_removes_another_connection() {
        let hub = LocalHubs::new(1).get_or_make(&HubName::new("h").unwrap());
        let user = UserId::new("a/b ?#%ü").unwrap();
        hub.add_user(&user, address(1, 0));
        hub.add_user(&user, address(1, 1));
        assert!(!hub.remove_user(&user, address(1, 0)), "a newer connection is left");
        assert_eq!(hub.user(&user).as_slice(), [address(1, 1)]);
        assert!(!hub.remove_user(&user, address(1, 0)), "a second release of the same changes nothing");
        assert!(hub.remove_user(&user, address(1, 1)));
        assert_eq!(hub.users(), 0);
    }

    #[test]
    fn a_number_is_used_again_only_when_nobody_holds_the_group() {
        let hub = LocalHubs::new(2).get_or_make(&HubName::new("h").unwrap());
        let (a, b) = (GroupName::new("a").unwrap(), GroupName::new("b").unwrap());
        let first = hub.enter(&a, 0);
        let on_its_way = Arc::clone(&first);
        assert!(!first.is_elsewhere(0));
        hub.enter(&a, 1);
        assert!(first.is_elsewhere(0));
        hub.exit(&first, 0);
        hub.exit(&first, 1);
        drop(first);
        assert!(hub.group("a").is_none());
        assert_ne!(hub.enter(&b, 0).id(), on_its_way.id());
        let id = on_its_way.id();
        drop(on_its_way);
        assert_eq!(hub.enter(&a, 0).id(), id);
    }
}
