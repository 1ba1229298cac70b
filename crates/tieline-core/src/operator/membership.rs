//! Joining and leaving groups.

use std::sync::Arc;

use tieline_proto::reply::Extra;
use tieline_proto::{ErrorCode, GroupName, Position};
use tieline_switchboard::{Shard, Slot};

use super::Operator;
use super::answer::Refusal;
use super::checkpoints::Wanted;
use crate::cluster::Known;
use crate::command::Then;

impl Operator {
    pub(super) fn join(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        group: &str,
        ack_id: Option<u64>,
        since: Option<Position>,
    ) {
        let Some(session) = shard.session(slot) else { return };
        if !session.roles.may_join(group) {
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::Forbidden));
        }
        let Ok(name) = GroupName::new(group) else {
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::InvalidGroup));
        };
        if session.group(group).is_none() && session.groups.len() >= self.node.limits().groups_per_connection
        {
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::TooManyGroups));
        }
        let known_here = session.group(group).is_some();
        let name = if known_here {
            name
        } else {
            match self.remove_first(shard, slot, Wanted::Join { group: name, ack_id, since }) {
                Some(Wanted::Join { group, .. }) => group,
                _ => return,
            }
        };
        self.tally.joins += 1;
        let Some(session) = shard.session(slot) else { return };
        let hub = session.hub.name().clone();
        let known = self.hold(&hub, &name);
        let known = if known_here { Known::Yes } else { known };
        let then = Then::Join { hub, group: name, ack_id, since };
        self.when_known(shard, slot, known, then);
    }

    pub(super) fn leave(&mut self, shard: &mut Shard<Self>, slot: Slot, group: &str, ack_id: Option<u64>) {
        let Some(session) = shard.session(slot) else { return };
        if !session.roles.may_join(group) {
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::Forbidden));
        }
        if let Some(group) = session.group(group).and_then(|group| group.name()).cloned()
            && self.remove_first(shard, slot, Wanted::Leave { group, ack_id }).is_none()
        {
            return;
        }
        let Some(session) = shard.session(slot) else { return };
        self.tally.leaves += 1;
        let member = self.member(session, group);
        self.exit(shard, slot, group);
        match member.zip(GroupName::new(group).ok()) {
            Some((user, group)) => self.end_membership(shard, slot, group, user, ack_id),
            None => self.ack(shard, slot, ack_id, Extra::None),
        }
    }

    /// Makes a connection a member, without asking whether it may, and without waiting for the other nodes to know.
    /// Returns false when it was one already.
    pub fn enter(&mut self, shard: &mut Shard<Self>, slot: Slot, name: &GroupName) -> bool {
        let Some(session) = shard.session(slot) else { return false };
        if session.memberships.as_ref().is_some_and(|memberships| memberships.is_coming(name)) {
            return false;
        }
        let hub = session.hub.name().clone();
        self.hold(&hub, name);
        self.admit(shard, slot, name)
    }

    /// Makes a connection a member of a group that it holds in the cluster. One that is a member already holds it
    /// once too often then, which is taken back.
    pub(super) fn admit(&mut self, shard: &mut Shard<Self>, slot: Slot, name: &GroupName) -> bool {
        let index = self.shard;
        let Some(session) = shard.session_mut(slot) else { return false };
        if session.group(name).is_some() {
            let hub = session.hub.name().clone();
            self.release(&hub, name);
            return false;
        }
        let group = session.hub.enter(name, index);
        let id = group.id();
        session.groups.push(group);
        if shard.group_len(id) == 0 {
            self.ends.forget(id);
        }
        if let Some(session) = shard.session(slot) {
            self.appear(session, Some(name));
        }
        let is_new = shard.join(slot, id);
        self.begin_reading(shard, slot, name);
        self.changed(shard, slot);
        is_new
    }

    /// Ends a connection's membership, or what would become one. Returns false when there was neither.
    pub fn exit(&mut self, shard: &mut Shard<Self>, slot: Slot, name: &str) -> bool {
        let index = self.shard;
        if self.attend_no_longer(shard, slot, name) {
            return true;
        }
        let Some(session) = shard.session_mut(slot) else { return false };
        let Some(group) = session.group(name).map(Arc::clone) else { return false };
        session.groups.retain(|of| !Arc::ptr_eq(of, &group));
        if let Some(memberships) = &mut session.memberships {
            memberships.end(name);
        }
        session.progress.iter_mut().for_each(|progress| progress.end(name));
        let hub = Arc::clone(&session.hub);
        hub.exit(&group, index);
        if let Some(name) = group.name() {
            self.release(hub.name(), name);
        }
        if let Some(session) = shard.session(slot) {
            self.disappear(session, group.name());
        }
        self.review_watches(shard, slot);
        let was_in = shard.leave(slot, group.id());
        self.changed(shard, slot);
        was_in
    }
}
