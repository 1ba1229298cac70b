//! Attending groups whose members are stored: a connection enters those that its user is a member of, one after the other, each
//! behind what the user has read; and by joining and leaving it makes and ends memberships. Records are the clerk's matter.
//!
//! A client of `tieline.v1` is not read until its connection is in all of them, so what it joins or leaves comes behind that. Those
//! of the other dialects are read: it is by what they say meanwhile that they get ahead.

use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::reply;
use tieline_proto::{ErrorCode, GroupName, HubName, Position, UserId};
use tieline_switchboard::{Address, Shard, Slot};
use tieline_websocket::Kind;

use super::Operator;
use super::answer::Refusal;
use super::keeping::{AGAIN, MOST_AGAIN};
use crate::cluster::Known;
use crate::command::Then;
use crate::logs::{Admission, Enrolment, Entering, KeepError, Membership, NOTHING_YET, Reader, Since, Wish};
use crate::reading::Reading;
use crate::session::Session;
use crate::store::LogKey;
use crate::subprotocol::Subprotocol;

impl Operator {
    /// The user of a connection, where joining this group makes it a stored member.
    pub(super) fn member(&self, session: &Session, group: &str) -> Option<UserId> {
        let logs = self.node.logs()?;
        session.user.clone().filter(|_| logs.rules().stores_members(group))
    }

    /// Parts the groups of a token: those that the connection joins for itself, and those that its user is to be a member of.
    pub(super) fn part(
        &self,
        user: Option<&UserId>,
        groups: Vec<GroupName>,
    ) -> (Vec<GroupName>, Vec<GroupName>) {
        let rules = self.node.logs().filter(|_| user.is_some()).map(|logs| logs.rules());
        groups.into_iter().partition(|group| !rules.is_some_and(|rules| rules.stores_members(group)))
    }

    /// What has to be done for a user's memberships to be known, where there may be any.
    pub(super) fn listing(
        &self,
        hub: &HubName,
        user: Option<&UserId>,
        joins: &[GroupName],
    ) -> Option<Enrolment> {
        let user = user.filter(|_| self.node.logs().is_some_and(|logs| logs.rules().store_any_members()))?;
        Some(Enrolment { hub: hub.clone(), user: user.clone(), wish: Wish::List(joins.to_vec()) })
    }

    /// A connection was greeted, or has come here: it is to enter what its user is a member of, which is known, or will be
    /// asked for.
    pub(super) fn begin_attending(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        joins: Vec<GroupName>,
        admission: Option<Admission>,
    ) {
        let Some(session) = shard.session_mut(slot) else { return };
        session.memberships.get_or_insert_default().unlisted = Some(joins);
        match admission {
            Some(admission) => self.listed(shard, slot, admission),
            None => self.list(shard, slot),
        }
    }

    /// A connection has come here from another node, where it may not have entered all groups of its user. What it has of those
    /// that it is in is read when the last of its numbers is acknowledged.
    pub(super) fn settle_memberships(&mut self, shard: &mut Shard<Self>, slot: Slot, last: u64) {
        let Some(session) = shard.session_mut(slot) else { return };
        for reading in session.memberships.iter_mut().flat_map(|memberships| memberships.readings()) {
            if reading.at != NOTHING_YET {
                reading.give(reading.at, Some(last));
            }
        }
        let (hub, user) = (session.hub.name().clone(), session.user.clone());
        if self.listing(&hub, user.as_ref(), &[]).is_some() {
            self.begin_attending(shard, slot, Vec::new(), None);
        }
    }

    /// Has the memberships of a connection's user listed.
    fn list(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let Some(session) = shard.session(slot) else { return };
        let unlisted = session.memberships.as_ref().and_then(|memberships| memberships.unlisted.as_ref());
        let hub = session.hub.name().clone();
        let joins = unlisted.map(Vec::as_slice).unwrap_or_default();
        let Some(enrolment) = self.listing(&hub, session.user.as_ref(), joins) else { return };
        let (address, since) = (shard.address(slot), Since::Now);
        let (then, logs) = (Then::List, SmallVec::new());
        let entering = Entering { address, then, logs, since, enrolment: Some(enrolment) };
        self.begin_entering(shard, slot, entering);
    }

    /// A user's memberships are known, or are to be asked for again.
    pub(super) fn listed(&mut self, shard: &mut Shard<Self>, slot: Slot, admission: Admission) {
        let Some(listed) = admission.memberships else {
            // Without a store there are none.
            if admission.error != Some(KeepError::NoStore) {
                self.unattended.push_back((shard.now_ms() + AGAIN, shard.address(slot)));
            }
            return;
        };
        let Some(session) = shard.session_mut(slot) else { return };
        if let Some(memberships) = &mut session.memberships {
            memberships.unlisted = None;
        }
        let is_in = |membership: &Membership| session.group(&membership.group).is_some();
        let listed: Vec<Membership> = listed.into_iter().filter(|membership| !is_in(membership)).collect();
        self.attend(shard, slot, listed);
    }

    /// Has a connection enter these groups.
    pub(super) fn attend(&mut self, shard: &mut Shard<Self>, slot: Slot, groups: Vec<Membership>) {
        let Some(session) = shard.session_mut(slot) else { return };
        let hub = session.hub.name().clone();
        let Some(memberships) = session.memberships.as_mut() else { return };
        let mut known = Known::Yes;
        for membership in groups {
            if !memberships.is_coming(&membership.group) {
                let cluster = self.node.cluster();
                let held = cluster.map(|cluster| cluster.hold_group(&hub, membership.group.clone()));
                known = known.and(held.unwrap_or(Known::Yes));
                memberships.coming.push_back(membership);
            }
        }
        if !memberships.is_entering && !memberships.coming.is_empty() {
            memberships.is_entering = true;
            self.when_known(shard, slot, known, Then::Attend(None));
        }
    }

    /// What the entering of a connection's next group takes; none where there is none to be entered.
    pub(super) fn next_group(&self, shard: &mut Shard<Self>, slot: Slot) -> Option<Entering> {
        let address = shard.address(slot);
        let session = shard.session_mut(slot)?;
        let (hub, user) = (session.hub.name().clone(), session.user.clone()?);
        let memberships = session.memberships.as_mut()?;
        let Some(Membership { group, place }) = memberships.coming.front().cloned() else {
            memberships.is_entering = false;
            return None;
        };
        memberships.is_entering = true;
        let reader = Reader::of_member(hub, group.clone(), user);
        let subprotocol = session.subprotocol;
        memberships.begin(&group, || Reading::new(reader.clone(), place, subprotocol));
        // What it was given before the store failed it does not get again.
        let given = memberships.reading(&group).filter(|reading| reading.has_given);
        let place = given.map_or(place, |reading| reading.at);
        let logs = SmallVec::from_iter([reader.log.clone()]);
        let (then, since) = (Then::Attend(Some(group)), Since::Listed { reader, place });
        Some(Entering { address, then, logs, since, enrolment: None })
    }

    /// A connection has what it missed of a group, or cannot have it now. Returns whether it is to enter the next one.
    pub(super) fn attended(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        group: &GroupName,
        admission: &Admission,
    ) -> bool {
        let (now, address) = (shard.now_ms(), shard.address(slot));
        let Some(session) = shard.session_mut(slot) else { return false };
        let subprotocol = session.subprotocol;
        let Some(memberships) = session.memberships.as_mut() else { return false };
        if memberships.coming.front().is_none_or(|first| first.group != *group) {
            // The user has left it meanwhile.
            return true;
        }
        if admission.error.is_some() {
            memberships.is_entering = false;
            self.unattended.push_back((now + AGAIN, address));
            return false;
        }
        memberships.coming.pop_front();
        self.admit(shard, slot, group);
        self.is_at(shard, slot, group, admission.position);
        let lacks = admission.recovered.is_some_and(|recovered| recovered != reply::Recovered::Whole);
        if lacks && subprotocol == Subprotocol::Tieline {
            shard.send(slot, Kind::Text, |out| reply::gap(out, Some(group), admission.position));
        }
        true
    }

    /// Tries again what the store did not give.
    pub(super) fn attend_again(&mut self, shard: &mut Shard<Self>) {
        let now = shard.now_ms();
        let is_due = |(until, _): &mut (u64, Address)| *until <= now;
        let due: Vec<(u64, Address)> =
            std::iter::from_fn(|| self.unattended.pop_front_if(is_due)).take(MOST_AGAIN).collect();
        for (_, address) in due {
            let Some(slot) = shard.find(address) else { continue };
            let Some(session) = shard.session(slot) else { continue };
            let Some(memberships) = &session.memberships else { continue };
            let (is_listed, is_entering) = (memberships.unlisted.is_none(), memberships.is_entering);
            if session.subprotocol == Subprotocol::Tieline && shard.is_parked(slot) {
                // It waits for something else.
                self.unattended.push_back((now + AGAIN, address));
            } else if !is_listed {
                self.list(shard, slot);
            } else if !is_entering {
                self.go_on(shard, address, Then::Attend(None), None);
            }
        }
    }

    /// Notes what a connection reads of a group that it is in.
    pub(super) fn begin_reading(&self, shard: &mut Shard<Self>, slot: Slot, group: &GroupName) {
        let Some(session) = shard.session_mut(slot) else { return };
        let Some(user) = self.member(session, group) else { return };
        let (hub, subprotocol) = (session.hub.name().clone(), session.subprotocol);
        let reading = || Reading::new(Reader::of_member(hub, group.clone(), user), NOTHING_YET, subprotocol);
        session.memberships.get_or_insert_default().begin(group, reading);
    }

    /// A connection has everything of a group's log up to here, or need not have it.
    pub(super) fn is_at(&self, shard: &mut Shard<Self>, slot: Slot, group: &str, position: Option<Position>) {
        let memberships = shard.session_mut(slot).and_then(|session| session.memberships.as_mut());
        if let (Some(memberships), Some(position)) = (memberships, position) {
            memberships.is_at(group, position);
        }
    }

    /// What has to be entered when a connection of a member joins a group, whose name it holds in the cluster.
    pub(super) fn joining(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        then: Then,
        group: &GroupName,
        user: UserId,
        from: Option<Position>,
    ) -> Option<Entering> {
        let address = shard.address(slot);
        let session = shard.session_mut(slot)?;
        let hub = session.hub.name().clone();
        let waits = session.subprotocol == Subprotocol::Tieline;
        let is_member = session.group(group).is_some();
        let memberships = session.memberships.get_or_insert_default();
        if waits && memberships.forget(group).is_some() {
            // What the store did not give yet is asked for by the join.
            self.release(&hub, group);
        }
        let is_coming = memberships.is_coming(group);
        if is_member && from.is_some() {
            self.exit(shard, slot, group);
        }
        let since = match from {
            Some(from) => Since::After(from),
            None if is_member || is_coming => Since::Now,
            None => Since::Membership { comes_later: !waits },
        };
        let log = (!is_coming).then(|| LogKey::Group(hub.clone(), group.clone()));
        let enrolment = Some(Enrolment { hub, user, wish: Wish::Join(group.clone()) });
        Some(Entering { address, then, logs: log.into_iter().collect(), since, enrolment })
    }

    /// What a connection that joins a group is to enter by itself, behind the ack, because there may be something that it missed;
    /// none where it is in the group already. Nothing is added where it is on its way there.
    pub(super) fn joins_later(
        &self,
        shard: &Shard<Self>,
        slot: Slot,
        group: &GroupName,
        admission: Option<&mut Admission>,
    ) -> Option<Vec<Membership>> {
        let memberships = shard.session(slot).and_then(|session| session.memberships.as_ref());
        let is_coming = memberships.is_some_and(|memberships| memberships.is_coming(group));
        let later = admission.and_then(|admission| admission.memberships.take());
        if is_coming { Some(later.unwrap_or_default()) } else { later }
    }

    /// Ends the membership of a connection's user, and acknowledges that when it is over.
    pub(super) fn end_membership(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        group: GroupName,
        user: UserId,
        ack_id: Option<u64>,
    ) {
        let Some(session) = shard.session(slot) else { return };
        let enrolment = Enrolment { hub: session.hub.name().clone(), user, wish: Wish::Leave(group) };
        let (address, then, logs) = (shard.address(slot), Then::Leave { ack_id }, SmallVec::new());
        let entering = Entering { address, then, logs, since: Since::Now, enrolment: Some(enrolment) };
        self.begin_entering(shard, slot, entering);
    }

    /// A connection is not to enter a group any more. Returns whether it was about to.
    pub(super) fn attend_no_longer(&mut self, shard: &mut Shard<Self>, slot: Slot, group: &str) -> bool {
        let address = shard.address(slot);
        let Some(session) = shard.session_mut(slot) else { return false };
        let hub = session.hub.name().clone();
        let forgotten = session.memberships.as_mut().and_then(|memberships| memberships.forget(group));
        let Some(is_entering) = forgotten else { return false };
        let Ok(group) = GroupName::new(group) else { return true };
        self.release(&hub, &group);
        if let Some(logs) = self.node.logs().filter(|_| is_entering) {
            logs.stop_entering(address, LogKey::Group(hub, group));
        }
        true
    }

    /// A client has read the log of a group up to an offset, as it says.
    pub(super) fn group_read(&mut self, shard: &mut Shard<Self>, slot: Slot, group: &str, offset: u64) {
        let memberships = shard.session_mut(slot).and_then(|session| session.memberships.as_mut());
        let reading = memberships.and_then(|memberships| memberships.reading(group));
        let Some((reading, logs)) = reading.zip(self.node.logs()) else {
            let refusal = Refusal::new(None, ErrorCode::InvalidRequest).because(
                "There is no group of this name that the user is a stored member of, and that could be read.",
            );
            return self.refuse(shard, slot, &refusal);
        };
        // It cannot have read what it was not given.
        let position = Position { offset: offset.min(reading.at.offset), ..reading.at };
        if reading.at != NOTHING_YET {
            logs.read(reading.reader.clone(), position);
        }
    }

    /// A client named a place from which it was given everything, so it has read what is before that.
    pub(super) fn has_read_before(&self, shard: &mut Shard<Self>, slot: Slot, group: &str, since: Position) {
        let memberships = shard.session_mut(slot).and_then(|session| session.memberships.as_mut());
        let reading = memberships.and_then(|memberships| memberships.reading(group));
        if let Some((reading, logs)) = reading.zip(self.node.logs()).filter(|_| since != NOTHING_YET) {
            logs.read(reading.reader.clone(), since);
        }
    }

    /// The members of a group on this shard were given a message of its log.
    pub(super) fn members_given(
        &self,
        shard: &mut Shard<Self>,
        group: &Arc<crate::hub::Group>,
        position: Position,
    ) {
        let Some(name) = group.name() else { return };
        let has_reading =
            |slot: &Slot| shard.session(*slot).is_some_and(|session| session.memberships.is_some());
        let members: Vec<Slot> = shard.members(group.id()).filter(has_reading).collect();
        let log = |hub: &HubName| LogKey::Group(hub.clone(), name.clone());
        let Some(log) =
            members.first().and_then(|slot| shard.session(*slot)).map(|session| log(session.hub.name()))
        else {
            return;
        };
        for slot in members {
            self.given(shard, slot, &log, position);
            self.ask_what_arrived(shard, slot, &log);
        }
    }
}
