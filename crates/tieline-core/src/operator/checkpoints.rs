//! What the store keeps of connections, on the shard's side: which are to be written, and what has to wait until a record is gone.
//!
//! A connection is written down when everything that it gets is kept: all its groups have a log, and so has its user. Its record
//! must never say less than its client was told, so before a client is told of another membership the record is removed; the
//! next look writes a new one. Nothing is done for a message.

use std::sync::Arc;

use tieline_proto::{CloseCode, ConnectionId, GroupName, Position};
use tieline_switchboard::{Address, Shard, Slot};

use super::Operator;
use super::answer::Refusal;
use super::moving::TAKEN;
use crate::logs::KeepError;
use crate::recovery::{Checkpoint, Group, Place, Places, Progress, roles};
use crate::session::{GONE, SETTLING, Session};
use crate::store::{LogKey, Refusal as StoreRefusal};
use crate::subprotocol::Subprotocol;

/// After how many looks the record of each connection is written again, so that it does not lapse.
const RENEWAL: u64 = 300;

/// Connections that are looked at for one that is written, at most: most that are listed have news.
const LOOKS: usize = 4;

/// What a client wants that its connection's record must not outlive.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// To join a group.
    Join {
        /// Which one.
        group: GroupName,
        /// The ack that it wants.
        ack_id: Option<u64>,
        /// What it saw last of the group's log.
        since: Option<Position>,
    },
    /// To leave one.
    Leave {
        /// Which one.
        group: GroupName,
        /// The ack that it wants.
        ack_id: Option<u64>,
    },
}

impl Wanted {
    fn ack_id(&self) -> Option<u64> {
        match self {
            Wanted::Join { ack_id, .. } | Wanted::Leave { ack_id, .. } => *ack_id,
        }
    }
}

/// A record that is to be written.
pub(crate) struct Due {
    /// The connection.
    pub(crate) id: ConnectionId,
    /// Where it stands.
    pub(crate) address: Address,
    /// How often it was taken over.
    pub(crate) generation: u32,
    /// The record.
    pub(crate) record: Vec<u8>,
}

/// How a shard holds a connection that was once there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// It does not any more.
    Gone,
    /// The store has no record of it, or none that is this node's.
    Unstored,
    /// The store keeps it as of this generation.
    Stored(u32),
}

impl Operator {
    /// Begins to follow how far the client of a connection is, if it may be kept in the store.
    pub(super) fn begin_progress(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let Some(checkpoints) = self.node.checkpoints() else { return };
        let Some(session) = shard.session_mut(slot) else { return };
        if session.subprotocol == Subprotocol::AzureReliable {
            checkpoints.begin();
            session.progress = Some(Box::new(Progress::new()));
            self.enlist(shard, slot);
        }
    }

    /// A client has acknowledged all numbers up to this one.
    pub(super) fn progressed(&mut self, shard: &mut Shard<Self>, slot: Slot, last: u64) {
        let progress = shard.session_mut(slot).and_then(|session| session.progress.as_mut());
        if progress.is_some_and(|progress| progress.acknowledge(last)) {
            self.enlist(shard, slot);
        }
    }

    /// A connection has become a member of a group, and its log from this place on.
    pub(super) fn begins_at(
        &self,
        shard: &mut Shard<Self>,
        slot: Slot,
        group: &GroupName,
        position: Option<Position>,
    ) {
        let progress = shard.session_mut(slot).and_then(|session| session.progress.as_mut());
        if let Some((progress, at)) = progress.zip(position) {
            progress.begin(group, at);
        }
    }

    /// Has a connection looked at with the next look.
    pub(super) fn enlist(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let address = shard.address(slot);
        let Some(progress) = shard.session_mut(slot).and_then(|session| session.progress.as_mut()) else {
            return;
        };
        if !std::mem::replace(&mut progress.is_listed, true) {
            self.enlisted.push_back(address);
        }
    }

    /// What a connection is has changed, and how it was is not to come back.
    pub(crate) fn changed(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let address = shard.address(slot);
        let Some(session) = shard.session_mut(slot) else { return };
        let Some(progress) = &mut session.progress else { return };
        (progress.is_kept, progress.is_changed) = (true, true);
        if std::mem::take(&mut progress.is_stored)
            && let Some(checkpoints) = self.node.checkpoints()
        {
            checkpoints.remove(session.id, address, progress.known.generation);
        }
        self.enlist(shard, slot);
    }

    /// A connection has something else that is worth writing down, and may come back as it was.
    pub(super) fn touched(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        if let Some(progress) = shard.session_mut(slot).and_then(|session| session.progress.as_mut()) {
            progress.is_changed = true;
            self.enlist(shard, slot);
        }
    }

    /// Has the record of a connection removed before something is done. Gives it back where there is none.
    pub(super) fn remove_first(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        wanted: Wanted,
    ) -> Option<Wanted> {
        let address = shard.address(slot);
        let Some(session) = shard.session_mut(slot) else { return Some(wanted) };
        let id = session.id;
        let Some(progress) = session.progress.as_mut().filter(|progress| progress.is_stored) else {
            return Some(wanted);
        };
        let checkpoints = self.node.checkpoints()?;
        match checkpoints.remove_first(id, address, progress.known.generation, wanted) {
            Ok(()) => {
                progress.changes += 1;
                shard.park(slot);
            }
            Err(wanted) => self.refuse_change(shard, slot, &wanted),
        }
        None
    }

    /// The record of a connection is gone, or could not be removed: what waited for that is done, or refused.
    pub(crate) fn voided(
        &mut self,
        shard: &mut Shard<Self>,
        address: Address,
        wanted: Wanted,
        is_gone: bool,
    ) {
        let Some(slot) = shard.find(address) else { return };
        let Some(progress) = shard.session_mut(slot).and_then(|session| session.progress.as_mut()) else {
            return;
        };
        progress.changes = progress.changes.saturating_sub(1);
        progress.is_changed = true;
        progress.is_stored &= !is_gone;
        self.enlist(shard, slot);
        shard.unpark(slot);
        match wanted {
            _ if !is_gone => self.refuse_change(shard, slot, &wanted),
            Wanted::Join { group, ack_id, since } => self.join(shard, slot, &group, ack_id, since),
            Wanted::Leave { group, ack_id } => self.leave(shard, slot, &group, ack_id),
        }
    }

    fn refuse_change(&mut self, shard: &mut Shard<Self>, slot: Slot, wanted: &Wanted) {
        let error = KeepError::Store(StoreRefusal::Failed("it does not answer".into()).into());
        let message = error.to_string();
        let refusal = Refusal { ack_id: wanted.ack_id(), code: error.code(), field: None, message: &message };
        self.refuse(shard, slot, &refusal);
    }

    /// The records that are to be written now, so many at most, and the logs of which this shard does not know where it is.
    pub(crate) fn due_checkpoints(
        &mut self,
        shard: &mut Shard<Self>,
        most: usize,
    ) -> (Vec<Due>, Vec<LogKey>) {
        let (mut dues, mut unknown) = (Vec::new(), Vec::new());
        let looks = self.enlisted.len().min(most.saturating_mul(LOOKS));
        for _ in 0..looks {
            if dues.len() >= most {
                break;
            }
            let Some(address) = self.enlisted.pop_front() else { break };
            let Some(slot) = shard.find(address) else { continue };
            let lacked = unknown.len();
            dues.extend(self.look(shard, slot, &mut unknown));
            if unknown.len() > lacked {
                self.enlist(shard, slot);
            }
        }
        (dues, unknown)
    }

    /// The record of one connection, if it can be written; whether or not there is news.
    pub(crate) fn checkpoint_now(&mut self, shard: &mut Shard<Self>, address: Address) -> Option<Due> {
        let slot = shard.find(address)?;
        shard.session_mut(slot)?.progress.as_mut()?.is_changed = true;
        // It is listed still, and written again if it is changed by then.
        let due = self.look(shard, slot, &mut Vec::new());
        self.enlist(shard, slot);
        due
    }

    fn look(&mut self, shard: &mut Shard<Self>, slot: Slot, unknown: &mut Vec<LogKey>) -> Option<Due> {
        let (address, last) = (shard.address(slot), shard.last_sequence(slot)?);
        let session = shard.session(slot)?;
        let (is_kept, hub) = (self.is_kept(session), Arc::clone(&session.hub));
        let mut places = Places { groups: Vec::new(), inbox: session.inbox.as_ref().map(|inbox| inbox.at) };
        let lacked = unknown.len();
        for (group, name) in session.groups.iter().filter_map(|group| Some((group, group.name()?))) {
            match self.ends.of(group) {
                Some(at) => places.groups.push((name.clone(), at)),
                None if is_kept => unknown.push(LogKey::Group(hub.name().clone(), name.clone())),
                None => {}
            }
        }
        let session = shard.session_mut(slot)?;
        // One that was given half is looked at: another node may have resumed it since.
        let is_moving = session.taking >= GONE;
        let progress = session.progress.as_mut()?;
        progress.is_listed = false;
        progress.is_kept = is_kept;
        if is_moving || progress.changes > 0 || !is_kept {
            // It is listed again when that has changed.
            unknown.truncate(lacked);
            return None;
        }
        if unknown.len() == lacked {
            progress.advance(last, places);
        }
        let names = session.groups.iter().filter_map(|group| group.name());
        if !progress.is_changed || !progress.covers(names, session.user.is_some()) {
            return None;
        }
        (progress.is_changed, progress.is_stored) = (false, true);
        let generation = progress.known.generation;
        let covered = progress.known.covered.clone();
        let mut record = Checkpoint::new(hub.name().clone(), session.id, self.node.id(), generation);
        record.user = session.user.clone();
        record.device = session.login.as_ref().map(|login| login.place.device.to_string());
        record.details = session.details().cloned();
        record.roles = roles(&session.roles);
        let at = |name: &GroupName| Group { name: name.clone(), at: covered.group(name) };
        record.groups = session.groups.iter().filter_map(|group| group.name()).map(at).collect();
        let device = session.device().map(str::to_owned);
        let place = |at| Place { at, has_given: true, is_open: true, device, marks: Vec::new() };
        record.inbox = covered.inbox.filter(|_| session.user.is_some()).map(place);
        record.acks = session.acks.intervals().to_vec();
        record.state = session.state.as_deref().cloned();
        Some(Due { id: session.id, address, generation, record: record.write() })
    }

    /// Whether all that a connection gets is kept, and it gets anything.
    fn is_kept(&self, session: &Session) -> bool {
        let mut groups = session.groups.iter().filter_map(|group| group.name());
        let has_inbox = session.inbox.as_ref().is_some_and(|inbox| inbox.is_open);
        let is_anything = session.user.is_some() || !session.groups.is_empty();
        is_anything && (session.user.is_none() || has_inbox) && groups.all(|name| self.node.keeps_group(name))
    }

    /// Where logs were that this shard has delivered nothing of, as far as it has delivered nothing since.
    pub(crate) fn learn_ends(&mut self, ends: &[(LogKey, Position)]) {
        for (log, at) in ends {
            if let LogKey::Group(hub, name) = log
                && let Some(group) = self.node.hubs().get(hub).and_then(|hub| hub.group(name))
                && self.ends.of(&group).is_none()
            {
                self.ends.note(&group, *at);
            }
        }
    }

    /// A record was not written: it is to be written again.
    pub(crate) fn rewrite(&mut self, shard: &mut Shard<Self>, address: Address) {
        if let Some(slot) = shard.find(address) {
            self.touched(shard, slot);
        }
    }

    /// Another node says that it holds a connection of this one. Its record tells which of the two has it.
    pub(crate) fn doubt(&mut self, shard: &mut Shard<Self>, id: ConnectionId) {
        let address = self.node.settlers().find(id).or_else(|| self.node.first_address(id));
        let Some(slot) = address.and_then(|address| shard.find(address)) else { return };
        if shard.session(slot).is_some_and(|session| session.id == id && session.taking < GONE) {
            self.touched(shard, slot);
        }
    }

    /// Another node has a connection: it is ended here, as one that has gone.
    pub(crate) fn fenced(&mut self, shard: &mut Shard<Self>, address: Address) {
        let Some(slot) = shard.find(address) else { return };
        let Some(session) = shard.session_mut(slot) else { return };
        session.taking = GONE;
        shard.close(slot, CloseCode::PolicyViolation.code(), TAKEN);
    }

    /// How this shard holds a connection.
    pub(crate) fn holding(&self, shard: &Shard<Self>, address: Address) -> Holding {
        let session = shard.find(address).and_then(|slot| shard.session(slot));
        let Some(session) = session.filter(|session| session.taking != GONE) else { return Holding::Gone };
        let progress = session.progress.as_ref();
        match progress.filter(|progress| progress.is_stored && session.taking != SETTLING) {
            Some(progress) => Holding::Stored(progress.known.generation),
            None => Holding::Unstored,
        }
    }

    /// Has some of the records written again, each in its turn.
    pub(super) fn renew_checkpoints(&mut self, shard: &mut Shard<Self>) {
        if self.node.checkpoints().is_none() {
            return;
        }
        let turn = self.ticks % RENEWAL;
        let has_record =
            |session: &Session| session.progress.as_ref().is_some_and(|progress| progress.is_kept);
        let due: Vec<Slot> = shard
            .sessions()
            .filter(|(slot, session)| u64::from(*slot) % RENEWAL == turn && has_record(session))
            .map(|(slot, _)| slot)
            .collect();
        for slot in due {
            self.touched(shard, slot);
        }
    }

    /// The record of a connection that has ended is removed, unless another node has it.
    pub(super) fn forget_checkpoint(&self, session: &Session, address: Address) {
        let Some((progress, checkpoints)) = session.progress.as_ref().zip(self.node.checkpoints()) else {
            return;
        };
        checkpoints.end();
        if session.taking >= GONE {
            checkpoints.forget(session.id);
        } else if progress.is_stored {
            checkpoints.remove(session.id, address, progress.known.generation);
        }
    }
}
