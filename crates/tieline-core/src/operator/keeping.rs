//! What is kept in logs: sends that the store has to take first, entering logs, and reading inboxes.

use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::reply::{self, Extra, Recovered};
use tieline_proto::{ErrorCode, Position};
use tieline_switchboard::{Address, Shard, Slot};
use tieline_websocket::Kind;

use super::Operator;
use super::answer::Refusal;
use crate::command::Then;
use crate::delivery::Target;
use crate::hub::Hub;
use crate::inbox::Inbox;
use crate::logs::{Admission, Entering, Entry, KeepError, NOTHING_YET, Reader, Since};
use crate::reading::Reading;
use crate::session::Session;
use crate::store::{LogKey, Refusal as StoreRefusal};
use crate::subprotocol::Subprotocol;

/// When an inbox is opened again that could not be, because the connection stood still or the store did not answer, in
/// milliseconds.
pub(super) const AGAIN: u64 = 1000;

/// So many of them in a second: a store that comes back has other things to do as well. The others wait.
pub(super) const MOST_AGAIN: usize = 1000;

impl Operator {
    /// Lets a connection enter the logs of what it is about to do. Gives it back where there are none.
    pub(super) fn enter_logs(&mut self, shard: &mut Shard<Self>, slot: Slot, then: Then) -> Option<Then> {
        let Some(logs) = self.node.logs().cloned() else { return Some(then) };
        let mut wanted: SmallVec<[LogKey; 1]> = SmallVec::new();
        let (mut since, mut enrolment) = (Since::Now, None);
        match &then {
            Then::Greet { hub, user, groups, joins, .. } => {
                enrolment = self.listing(hub, user.as_ref(), joins);
                let inbox = user.as_ref().filter(|_| logs.rules().inbox.is_some());
                wanted.extend(inbox.map(|user| LogKey::Inbox(hub.clone(), user.clone())));
                let kept = groups.iter().filter(|group| logs.rules().history(group).is_some());
                wanted.extend(kept.map(|group| LogKey::Group(hub.clone(), group.clone())));
            }
            Then::Join { hub, group, since: from, .. } if logs.rules().history(group).is_some() => {
                let member = shard.session(slot).and_then(|session| self.member(session, group));
                if let Some(user) = member {
                    let (group, from) = (group.clone(), *from);
                    let entering = self.joining(shard, slot, then, &group, user, from)?;
                    self.begin_entering(shard, slot, entering);
                    return None;
                }
                let is_member = shard.session(slot).is_some_and(|session| session.group(group).is_some());
                if is_member && from.is_none() {
                    return Some(then);
                }
                if is_member {
                    // It begins anew where it says, so it gets nothing twice.
                    self.exit(shard, slot, group);
                }
                since = from.map_or(Since::Now, Since::After);
                wanted.push(LogKey::Group(hub.clone(), group.clone()));
            }
            Then::Attend(_) => {
                let Some(entering) = self.next_group(shard, slot) else { return Some(then) };
                self.begin_entering(shard, slot, entering);
                return None;
            }
            Then::Join { .. } | Then::Return { .. } | Then::Hear { .. } | Then::List | Then::Leave { .. } => {
            }
        }
        if wanted.is_empty() && enrolment.is_none() {
            return Some(then);
        }
        let address = shard.address(slot);
        self.begin_entering(shard, slot, Entering { address, then, logs: wanted, since, enrolment });
        None
    }

    /// Hands a connection to the clerk. Where its client waits for the answer, it is read no further until it is in.
    pub(crate) fn begin_entering(&mut self, shard: &mut Shard<Self>, slot: Slot, entering: Entering) {
        let Some(logs) = self.node.logs() else { return };
        if self.holds(shard, slot, &entering.then) {
            shard.park(slot);
        }
        let address = entering.address;
        if let Err(then) = logs.enter(entering) {
            let error = KeepError::Store(StoreRefusal::QueueFull.into());
            self.go_on(shard, address, *then, Some(Admission::refused(error)));
        }
    }

    /// Whether a connection is not read until something is done. Those that are given the inbox, or groups of their user, by
    /// themselves are: how far they have read is heard from them, by which they get ahead.
    pub(super) fn holds(&self, shard: &Shard<Self>, slot: Slot, then: &Then) -> bool {
        let says = |session: &Session| session.subprotocol == Subprotocol::Tieline;
        match then {
            Then::Hear { .. } | Then::List | Then::Attend(_) => shard.session(slot).is_some_and(says),
            Then::Greet { .. } | Then::Join { .. } | Then::Leave { .. } | Then::Return { .. } => true,
        }
    }

    /// What the ack of a join says of its group's log.
    pub(super) fn entered(since: Option<Position>, admission: Option<Admission>) -> Extra {
        match admission {
            Some(Admission { recovered, position, .. }) => Extra::Log { recovered, position },
            None if since.is_some() => Extra::Log { recovered: Some(Recovered::NoHistory), position: None },
            None => Extra::None,
        }
    }

    /// A connection was greeted, and its logs are followed; or the store does not tell where they end.
    pub(super) fn greeted(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        admission: &Admission,
        device: Option<Box<str>>,
    ) {
        let keeps_inboxes = self.node.keeps_inboxes();
        let Some(session) = shard.session_mut(slot) else { return };
        let subprotocol = session.subprotocol;
        if let Some(user) = session.user.clone().filter(|_| keeps_inboxes) {
            let at = admission.position.unwrap_or(NOTHING_YET);
            let reader = Reader::of_inbox(session.hub.name().clone(), user, device.map(Arc::from));
            session.inbox = Some(Box::new(Inbox::new(reader, at, subprotocol)));
            if subprotocol == Subprotocol::Tieline {
                let until = shard.now_ms() + self.node.limits().hello.as_millis() as u64;
                self.silent.push_back((until, shard.address(slot)));
            } else {
                self.open_inbox_by_itself(shard, slot);
            }
        }
        if admission.error.is_some() && subprotocol == Subprotocol::Tieline {
            shard.send(slot, Kind::Text, |out| reply::gap(out, None, None));
        }
    }

    /// A client asks for its inbox.
    pub(super) fn hello(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        ack_id: Option<u64>,
        from: Option<Position>,
        device: Option<&str>,
    ) {
        let Some(session) = shard.session_mut(slot) else { return };
        let Some(inbox) = &mut session.inbox else {
            let extra = Extra::Log { recovered: Some(Recovered::NoHistory), position: None };
            return self.ack(shard, slot, ack_id, extra);
        };
        if inbox.is_open {
            let refusal = Refusal::new(ack_id, ErrorCode::InvalidRequest)
                .because("The inbox is asked for once, soon after `connected`: it comes by itself already.");
            return self.refuse(shard, slot, &refusal);
        }
        if inbox.is_bound && device.is_some() && device != inbox.reader.device.as_deref() {
            let refusal =
                Refusal::new(ack_id, ErrorCode::Forbidden).because("The token is for another device.");
            return self.refuse(shard, slot, &refusal);
        }
        if !inbox.is_bound {
            inbox.reader.device = device.map(Arc::from);
        }
        inbox.has_asked = true;
        let kept = || Since::Kept { reader: inbox.reader.clone(), behind: None };
        let since = from.map_or_else(kept, Since::After);
        self.open_inbox(shard, slot, Then::Hear { ack_id, by_itself: false }, since);
    }

    fn open_inbox(&mut self, shard: &mut Shard<Self>, slot: Slot, then: Then, since: Since) {
        let Some(inbox) = shard.session(slot).and_then(|session| session.inbox.as_ref()) else { return };
        let logs = SmallVec::from_iter([inbox.reader.log.clone()]);
        let address = shard.address(slot);
        self.begin_entering(shard, slot, Entering { address, then, logs, since, enrolment: None });
    }

    /// Opens the inbox of a connection that does not ask for it: from the place that is kept, or, where its client could have
    /// named one, from the moment at which it connected.
    pub(super) fn open_inbox_by_itself(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let Some(inbox) = shard.session(slot).and_then(|session| session.inbox.as_ref()) else { return };
        let since = if inbox.is_asked_for() {
            Since::After(inbox.at)
        } else {
            // What it was given before the store failed it does not get again.
            Since::Kept { reader: inbox.reader.clone(), behind: inbox.has_given.then_some(inbox.at) }
        };
        self.open_inbox(shard, slot, Then::Hear { ack_id: None, by_itself: true }, since);
    }

    /// A connection has what it missed of its inbox, and is given what comes.
    pub(super) fn hear(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        ack_id: Option<u64>,
        by_itself: bool,
        admission: Option<Admission>,
    ) {
        let Some(admission) = admission else { return };
        match &admission.error {
            // Without a store there is none to come.
            Some(KeepError::NoStore) if by_itself => return,
            Some(_) if by_itself => {
                return self.unopened.push_back((shard.now_ms() + AGAIN, shard.address(slot)));
            }
            Some(error) => return self.refuse_kept(shard, slot, ack_id, error),
            None => {}
        }
        let Some(inbox) = shard.session_mut(slot).and_then(|session| session.inbox.as_mut()) else { return };
        inbox.is_open = true;
        inbox.at = admission.position.unwrap_or(inbox.at);
        let begins_at = (!inbox.has_given).then_some(inbox.at);
        if let Some(progress) = shard.session_mut(slot).and_then(|session| session.progress.as_mut()) {
            // Who was given nothing of it has nothing to acknowledge.
            progress.known.covered.inbox = progress.known.covered.inbox.or(begins_at);
        }
        self.touched(shard, slot);
        self.ack(shard, slot, ack_id, Self::entered(None, Some(admission)));
    }

    /// Opens the inboxes of clients that did not ask for them, and those that the store did not give.
    pub(super) fn open_silent_inboxes(&mut self, shard: &mut Shard<Self>) {
        let now = shard.now_ms();
        let is_due = |(until, _): &mut (u64, Address)| *until <= now;
        let mut due: Vec<(u64, Address)> =
            std::iter::from_fn(|| self.unopened.pop_front_if(is_due)).take(MOST_AGAIN).collect();
        due.extend(std::iter::from_fn(|| self.silent.pop_front_if(is_due)));
        for (_, address) in due {
            let Some(slot) = shard.find(address) else { continue };
            let Some(session) = shard.session(slot) else { continue };
            let Some(inbox) = session.inbox.as_ref().filter(|inbox| !inbox.is_open && !inbox.has_asked)
            else {
                continue;
            };
            if inbox.is_asked_for() && shard.is_parked(slot) {
                // It waits for something else, behind which it may ask.
                self.unopened.push_back((now + AGAIN, address));
            } else {
                self.open_inbox_by_itself(shard, slot);
            }
        }
    }

    /// A client has read its inbox up to an offset, as it says.
    pub(super) fn inbox_read(&mut self, shard: &mut Shard<Self>, slot: Slot, offset: u64) {
        let inbox = shard.session(slot).and_then(|session| session.inbox.as_ref());
        let Some((inbox, logs)) = inbox.filter(|inbox| inbox.is_open).zip(self.node.logs()) else {
            let refusal = Refusal::new(None, ErrorCode::InvalidRequest)
                .because("There is no inbox that could be read.");
            return self.refuse(shard, slot, &refusal);
        };
        // It cannot have read what it was not given.
        let position = Position { offset: offset.min(inbox.at.offset), ..inbox.at };
        logs.read(inbox.reader.clone(), position);
    }

    /// A client has acknowledged all numbers up to this one.
    pub(super) fn acknowledged(&mut self, shard: &mut Shard<Self>, slot: Slot, last: u64) {
        let Some((session, logs)) = shard.session_mut(slot).zip(self.node.logs()) else { return };
        for reading in session.readings() {
            if let Some(position) = reading.acknowledged(last) {
                logs.read(reading.reader.clone(), position);
            }
        }
    }

    /// A client has answered a ping, perhaps one that named a place in a log.
    pub(super) fn arrived(&mut self, shard: &mut Shard<Self>, slot: Slot, payload: &[u8]) {
        let Some((session, logs)) = shard.session_mut(slot).zip(self.node.logs()) else { return };
        let answered = |reading: &mut Reading| Some((reading.answered(payload)?, reading.reader.clone()));
        let Some((position, reader)) = session.readings().find_map(answered) else { return };
        let log = reader.log.clone();
        logs.read(reader, position);
        self.ask_what_arrived(shard, slot, &log);
    }

    /// A connection was given a message of a log of which it is noted how far its client has read it.
    pub(super) fn given(&self, shard: &mut Shard<Self>, slot: Slot, log: &LogKey, position: Position) {
        let sequence = shard.last_sequence(slot);
        if let Some(reading) = shard.session_mut(slot).and_then(|session| session.reading(log)) {
            reading.give(position, sequence);
        }
    }

    /// Pings behind what a connection was given of a log, where that is how it is known what has arrived.
    pub(super) fn ask_what_arrived(&self, shard: &mut Shard<Self>, slot: Slot, log: &LogKey) {
        let now = shard.now_ms();
        let reading = shard.session_mut(slot).and_then(|session| session.reading(log));
        if let Some(payload) = reading.and_then(|reading| reading.ask(now)) {
            shard.ping(slot, &payload);
        }
    }

    /// Gives a connection what it missed.
    pub(super) fn catch_up(
        &mut self,
        shard: &mut Shard<Self>,
        address: Address,
        hub: &Arc<Hub>,
        log: &LogKey,
        entries: &[Entry],
    ) {
        for entry in entries {
            let Some(slot) = shard.find(address) else { return };
            let Some(id) = shard.session(slot).map(|session| session.id) else { return };
            let Some(delivery) = entry.delivery(hub, Target::Connection(id), false) else { continue };
            self.deliver(shard, &delivery);
            if let Some(position) = delivery.message.position {
                self.given(shard, slot, log, position);
            }
        }
        if let Some(slot) = shard.find(address) {
            self.ask_what_arrived(shard, slot, log);
        }
    }

    /// Tells the clerk how much a connection has coming that is about to enter a log.
    pub(super) fn tell_lag(&mut self, shard: &mut Shard<Self>, address: Address, entrant: u64) {
        if let Some(logs) = self.node.logs() {
            logs.lag(entrant, shard.find(address).map(|slot| shard.lag(slot)));
        }
    }

    /// A message that a connection sent is kept, or is not.
    pub(super) fn kept(
        &mut self,
        shard: &mut Shard<Self>,
        address: Address,
        ack_id: Option<u64>,
        result: Result<(), KeepError>,
    ) {
        let Some(slot) = shard.find(address) else { return };
        match result {
            Ok(()) => {
                // Who sends to a group without an echo gets ahead in its log without acknowledging anything.
                self.enlist(shard, slot);
                self.ack(shard, slot, ack_id, Extra::None);
            }
            Err(error) => self.refuse_kept(shard, slot, ack_id, &error),
        }
    }

    /// Tells a client why something was not kept, or what is kept cannot be had.
    pub(super) fn refuse_kept(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        ack_id: Option<u64>,
        error: &KeepError,
    ) {
        let message = error.to_string();
        let refusal = Refusal { ack_id, code: error.code(), field: None, message: &message };
        self.refuse(shard, slot, &refusal);
    }
}
