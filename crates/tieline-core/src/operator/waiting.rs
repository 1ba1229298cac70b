//! Waiting for the other nodes: a login and a join are answered when all of them know of it, so that whatever is
//! sent after the answer arrives. The connection is not read on meanwhile: its requests keep their order.

use std::sync::Arc;

use tieline_proto::reply::{Extra, Recovered};
use tieline_proto::{GroupName, HubName, UserId};
use tieline_switchboard::{Address, Shard, Slot};

use super::Operator;
use crate::cluster::Known;
use crate::command::Then;
use crate::logs::{Admission, Membership};

/// What a connection does after it went on, about groups that its user is a stored member of.
enum Next {
    /// Nothing.
    Nothing,
    /// It was greeted, and its token names these groups.
    Begin(Vec<GroupName>, Admission),
    /// They were listed.
    Listed(Admission),
    /// It enters these.
    Attend(Vec<Membership>),
    /// It enters the next one.
    Group,
}

impl Operator {
    /// States what a new connection holds. Returns when the others know all of it, and the claim to its user.
    pub(super) fn hold_all(
        &self,
        hub: &HubName,
        user: Option<&UserId>,
        groups: &[GroupName],
    ) -> (Known, u64) {
        let Some(cluster) = self.node.cluster() else { return (Known::Yes, 0) };
        let (known, claim) = user.map_or((Known::Yes, 0), |user| cluster.hold_user(hub, user));
        let groups = groups.iter().map(|group| cluster.hold_group(hub, group.clone()));
        (groups.fold(known, Known::and), claim)
    }

    /// States that one more connection of this node is in a group.
    pub(super) fn hold(&self, hub: &HubName, group: &GroupName) -> Known {
        self.node.cluster().map_or(Known::Yes, |cluster| cluster.hold_group(hub, group.clone()))
    }

    /// Takes that back.
    pub(super) fn release(&self, hub: &HubName, group: &GroupName) {
        if let Some(cluster) = self.node.cluster() {
            cluster.release_group(hub, group.clone());
        }
    }

    /// Takes a claim to a user back.
    pub(super) fn release_user(&self, hub: &HubName, user: &UserId, claim: u64) {
        if let Some(cluster) = self.node.cluster() {
            cluster.release_user(hub, user, claim);
        }
    }

    /// Does something at once, or when the other nodes know what they have to.
    pub(super) fn when_known(&mut self, shard: &mut Shard<Self>, slot: Slot, known: Known, then: Then) {
        let address = shard.address(slot);
        let then = match (known, self.node.cluster()) {
            (Known::At(until), Some(cluster)) => {
                if self.holds(shard, slot, &then) {
                    shard.park(slot);
                }
                match cluster.when_read(until, address, then) {
                    Ok(()) => return,
                    Err(then) => then,
                }
            }
            _ => then,
        };
        self.go_on(shard, address, then, None);
    }

    /// What was waited for is there: the other nodes know, or, with an admission, the connection is let into its logs.
    pub(super) fn go_on(
        &mut self,
        shard: &mut Shard<Self>,
        address: Address,
        then: Then,
        mut admission: Option<Admission>,
    ) {
        // Kept until the connection is counted.
        let pass = admission.as_mut().and_then(|admission| admission.pass.take());
        let Some(slot) = shard.find(address) else { return self.take_back(then) };
        let then = match admission {
            Some(_) => then,
            None => match self.enter_logs(shard, slot, then) {
                Some(then) => then,
                None => return,
            },
        };
        let holds = self.holds(shard, slot, &then);
        // What is done when it is read again, which it may stop at once.
        let mut next = Next::Nothing;
        match then {
            Then::Greet { user, claim, login, groups, joins, device, replaces, .. } => {
                let Some(session) = shard.session_mut(slot) else { return };
                session.greeted = true;
                session.claim = claim;
                session.login = login;
                let hub = Arc::clone(&session.hub);
                if let Some(user) = &user {
                    hub.add_user(user, address);
                }
                hub.everyone().enter(self.shard);
                shard.join(slot, hub.everyone().id());
                if let Some(session) = shard.session(slot) {
                    self.appear(session, None);
                }
                self.greet(shard, slot);
                self.tell_connected(shard, slot);
                if let Some(user) = &user {
                    self.arrive_from_transit(shard, address, &hub, user);
                    if let Some(replaced) = replaces {
                        self.node.replace(hub.name(), *replaced, user);
                    }
                }
                for group in groups {
                    self.admit(shard, slot, &group);
                }
                self.begin_progress(shard, slot);
                if let Some(admission) = admission {
                    self.greeted(shard, slot, &admission, device);
                    if self.listing(hub.name(), user.as_ref(), &[]).is_some() {
                        next = Next::Begin(joins, admission);
                    }
                }
                self.take_place(shard, slot);
            }
            Then::Join { hub, group, ack_id, since } => {
                if let Some(error) = admission.as_ref().and_then(|admission| admission.error.as_ref()) {
                    self.release(&hub, &group);
                    self.refuse_kept(shard, slot, ack_id, error);
                } else if let Some(later) = self.joins_later(shard, slot, &group, admission.as_mut()) {
                    self.release(&hub, &group);
                    self.ack(shard, slot, ack_id, Self::entered(since, admission));
                    next = Next::Attend(later);
                } else {
                    let position = admission.as_ref().and_then(|admission| admission.position);
                    if self.admit(shard, slot, &group) {
                        self.begins_at(shard, slot, &group, position);
                    }
                    self.is_at(shard, slot, &group, position);
                    let is_whole = admission.as_ref().and_then(|admission| admission.recovered)
                        == Some(Recovered::Whole);
                    if let Some(since) = since.filter(|_| is_whole) {
                        self.has_read_before(shard, slot, &group, since);
                    }
                    self.ack(shard, slot, ack_id, Self::entered(since, admission));
                }
            }
            Then::List => next = admission.map_or(Next::Nothing, Next::Listed),
            Then::Attend(group) => {
                if let Some((group, admission)) = group.zip(admission)
                    && self.attended(shard, slot, &group, &admission)
                {
                    next = Next::Group;
                }
            }
            Then::Leave { ack_id } => match admission.and_then(|admission| admission.error) {
                Some(error) => self.refuse_kept(shard, slot, ack_id, &error),
                None => self.ack(shard, slot, ack_id, Extra::None),
            },
            Then::Return { hub, group, done } => {
                let Some(admission) = admission else { return };
                let entered = match &admission.error {
                    Some(error) => Err(error.clone()),
                    None => Ok(admission.recovered),
                };
                match group {
                    Some(group) if entered.is_ok() => {
                        self.admit(shard, slot, &group);
                        self.is_at(shard, slot, &group, admission.position);
                    }
                    Some(group) => self.release(&hub, &group),
                    None => self.hear(shard, slot, None, true, Some(admission)),
                }
                // Whoever takes the connection over may have given up.
                let _ = done.send(entered);
            }
            Then::Hear { ack_id, by_itself } => self.hear(shard, slot, ack_id, by_itself, admission),
        }
        drop(pass);
        if holds {
            shard.unpark(slot);
        }
        match next {
            Next::Nothing => {}
            Next::Begin(joins, admission) => self.begin_attending(shard, slot, joins, Some(admission)),
            Next::Listed(admission) => self.listed(shard, slot, admission),
            Next::Attend(groups) => self.attend(shard, slot, groups),
            Next::Group => self.go_on(shard, address, Then::Attend(None), None),
        }
    }

    /// The connection ended while it waited.
    fn take_back(&self, then: Then) {
        match then {
            // What it was to attend was given back with its session.
            Then::List | Then::Attend(_) | Then::Leave { .. } => {}
            Then::Greet { hub, user, claim, login, groups, .. } => {
                self.log_out(&hub, login.as_deref());
                if let Some(user) = &user {
                    self.release_user(&hub, user, claim);
                    self.did_not_arrive(&hub, user);
                }
                groups.into_iter().for_each(|group| self.release(&hub, &group));
            }
            Then::Join { hub, group, .. } => self.release(&hub, &group),
            Then::Return { hub, group, .. } => group.iter().for_each(|group| self.release(&hub, group)),
            Then::Hear { .. } => {}
        }
    }
}
