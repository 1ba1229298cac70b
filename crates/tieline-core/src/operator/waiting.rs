//! Waiting for the other nodes: a login and a join are answered when all of them know of it, so that whatever is
//! sent after the answer arrives. The connection is not read on meanwhile: its requests keep their order.

use std::sync::Arc;

use tieline_proto::envelope::Held;
use tieline_proto::reply::Extra;
use tieline_proto::{GroupName, HubName, UserId};
use tieline_switchboard::{Address, Shard, Slot};

use super::Operator;
use crate::cluster::Known;
use crate::command::Then;

impl Operator {
    /// States what a new connection holds. Returns when the others know all of it.
    pub(super) fn hold_all(&self, hub: &HubName, user: Option<&UserId>, groups: &[GroupName]) -> Known {
        let user = user.map(|user| self.hold(hub, Held::User(user.clone())));
        let groups = groups.iter().map(|group| self.hold(hub, Held::Group(group.clone())));
        groups.chain(user).fold(Known::Yes, |before, next| match (before, next) {
            (Known::At(before), Known::At(next)) => Known::At(before.max(next)),
            (Known::Yes, known) | (known, Known::Yes) => known,
        })
    }

    /// States that one more connection of this node holds something.
    pub(super) fn hold(&self, hub: &HubName, what: Held) -> Known {
        self.node.cluster().map_or(Known::Yes, |cluster| cluster.hold(hub, what))
    }

    /// Takes that back.
    pub(super) fn release(&self, hub: &HubName, what: Held) {
        if let Some(cluster) = self.node.cluster() {
            cluster.release(hub, what);
        }
    }

    /// Does something at once, or when the other nodes know what they have to.
    pub(super) fn when_known(&mut self, shard: &mut Shard<Self>, slot: Slot, known: Known, then: Then) {
        let address = shard.address(slot);
        let then = match (known, self.node.cluster()) {
            (Known::At(version), Some(cluster)) => {
                shard.park(slot);
                match cluster.when_read(version, address, then) {
                    Ok(()) => return,
                    Err(then) => then,
                }
            }
            _ => then,
        };
        self.go_on(shard, address, then);
    }

    /// What was waited for is there.
    pub(super) fn go_on(&mut self, shard: &mut Shard<Self>, address: Address, then: Then) {
        let Some(slot) = shard.find(address) else { return self.take_back(then) };
        match then {
            Then::Greet { user, groups, .. } => {
                let Some(session) = shard.session_mut(slot) else { return };
                session.greeted = true;
                let hub = Arc::clone(&session.hub);
                if let Some(user) = &user {
                    hub.add_user(user, address);
                }
                hub.everyone().enter(self.shard);
                shard.join(slot, hub.everyone().id());
                self.greet(shard, slot);
                for group in groups {
                    self.admit(shard, slot, &group);
                }
            }
            Then::Join { group, ack_id, recovers, .. } => {
                self.admit(shard, slot, &group);
                // Groups without history have nothing to recover: who asks is told so, never given a part in silence.
                let nothing = Extra::Recovered { recovered: false, position: None };
                self.ack(shard, slot, ack_id, if recovers { nothing } else { Extra::None });
            }
        }
        shard.unpark(slot);
    }

    /// The connection ended while it waited.
    fn take_back(&self, then: Then) {
        match then {
            Then::Greet { hub, user, groups } => {
                user.into_iter().for_each(|user| self.release(&hub, Held::User(user)));
                groups.into_iter().for_each(|group| self.release(&hub, Held::Group(group)));
            }
            Then::Join { hub, group, .. } => self.release(&hub, Held::Group(group)),
        }
    }
}
