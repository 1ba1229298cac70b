//! Groups of connections of one shard: who gets a publication, partitioned by the format they read.
//!
//! A group is a number given by the application; the same number means the same group on every shard.
//! Members stand in one vector per format, so that a publication is encoded once per format and then walks a
//! plain list. Tested through the properties of the shard.

use smallvec::SmallVec;

use crate::{Format, Slot};

/// The number of a group, chosen by the application; small numbers keep the table small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// One membership, kept with the connection: which group, and where in its partition the connection stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership {
    pub(crate) group: GroupId,
    pub(crate) index: u32,
}

/// The groups that a connection is in. One membership is kept inline.
pub(crate) type Memberships = SmallVec<[Membership; 2]>;

/// Members that read the same format.
pub(crate) struct Partition {
    pub(crate) format: Format,
    pub(crate) members: Vec<Slot>,
}

/// The members of one group on this shard.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) partitions: SmallVec<[Partition; 1]>,
}

/// All groups, by number.
#[derive(Default)]
pub(crate) struct Groups {
    groups: Vec<Group>,
}

impl Groups {
    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0 as usize)
    }

    /// One partition of a group that has it.
    pub(crate) fn partition_mut(&mut self, id: GroupId, at: usize) -> &mut Partition {
        &mut self.groups[id.0 as usize].partitions[at]
    }

    /// Number of members of a group on this shard.
    pub(crate) fn len(&self, id: GroupId) -> usize {
        self.get(id).map_or(0, |group| group.partitions.iter().map(|p| p.members.len()).sum())
    }

    /// Adds a member, which must not be one yet, and returns where it stands.
    pub(crate) fn add(&mut self, id: GroupId, format: Format, slot: Slot) -> Membership {
        let index = id.0 as usize;
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, Group::default);
        }
        let partitions = &mut self.groups[index].partitions;
        let at = partitions.iter().position(|p| p.format == format).unwrap_or_else(|| {
            partitions.push(Partition { format, members: Vec::new() });
            partitions.len() - 1
        });
        let members = &mut partitions[at].members;
        members.push(slot);
        Membership { group: id, index: members.len() as u32 - 1 }
    }

    /// Removes a member. Returns the member that took its place, whose membership now has the removed index.
    pub(crate) fn remove(&mut self, format: Format, membership: Membership) -> Option<Slot> {
        let group = &mut self.groups[membership.group.0 as usize];
        let at = group.partitions.iter().position(|p| p.format == format)?;
        let members = &mut group.partitions[at].members;
        members.swap_remove(membership.index as usize);
        let moved = members.get(membership.index as usize).copied();
        if members.is_empty() {
            group.partitions.swap_remove(at);
        } else if members.capacity() > 64 && members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
        moved
    }
}
