//! Joining and leaving groups.

use std::sync::Arc;

use tieline_proto::reply::Extra;
use tieline_proto::{ErrorCode, GroupName, Position};
use tieline_switchboard::{Shard, Slot};

use super::Operator;
use super::answer::Refusal;

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
        self.tally.joins += 1;
        self.enter(shard, slot, &name);
        // Groups without history have nothing to recover: who asks is told so, never given a part in silence.
        let extra = match since {
            Some(_) => Extra::Recovered { recovered: false, position: None },
            None => Extra::None,
        };
        self.ack(shard, slot, ack_id, extra);
    }

    pub(super) fn leave(&mut self, shard: &mut Shard<Self>, slot: Slot, group: &str, ack_id: Option<u64>) {
        let Some(session) = shard.session(slot) else { return };
        if !session.roles.may_join(group) {
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::Forbidden));
        }
        self.tally.leaves += 1;
        self.exit(shard, slot, group);
        self.ack(shard, slot, ack_id, Extra::None);
    }

    /// Makes a connection a member, without asking whether it may. Returns false when it was one already.
    pub fn enter(&mut self, shard: &mut Shard<Self>, slot: Slot, name: &GroupName) -> bool {
        let index = self.shard;
        let Some(session) = shard.session_mut(slot) else { return false };
        if session.group(name).is_some() {
            return false;
        }
        let group = session.hub.enter(name, index);
        let id = group.id();
        session.groups.push(group);
        shard.join(slot, id)
    }

    /// Ends a membership. Returns false when there was none.
    pub fn exit(&mut self, shard: &mut Shard<Self>, slot: Slot, name: &str) -> bool {
        let index = self.shard;
        let Some(session) = shard.session_mut(slot) else { return false };
        let Some(group) = session.group(name).map(Arc::clone) else { return false };
        session.groups.retain(|of| !Arc::ptr_eq(of, &group));
        session.hub.exit(&group, index);
        shard.leave(slot, group.id())
    }
}
