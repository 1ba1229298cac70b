//! One shard: its connections, groups and log of frames, without any I/O.
//!
//! Commands go in (`send`, `publish`, `join` …), writes come out (`flush`, in `flush.rs`), inbound bytes go in
//! through `receive` (`inbound.rs`). Time and sockets are given from outside, so that all of it runs under
//! properties and seeds. Every connection sees the order in which the application spoke to the shard: nothing
//! that was published before its join, and nothing after its leave.

use std::collections::VecDeque;
use std::sync::Arc;

use tieline_websocket::{Kind, Opcode, encode};

use crate::application::{Application, Cause};
use crate::connection::{Address, Connection, Format, Phase};
use crate::counters::Counters;
use crate::encode::{Encoded, Encoder};
use crate::gather::{Gathered, MAX_NUMBERING};
use crate::group::{GroupId, Groups};
use crate::log::Log;
use crate::numbered::Acknowledged;
use crate::parking::Outgoing;
use crate::pending::MAX_ENTRIES;
use crate::settings::Settings;

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod tests;

/// A place in a shard's table of connections. Only meaningful on its shard; see [`Address`] for the rest.
pub type Slot = u32;

/// Slots that one shard can hold: what the three bytes of a slot in a connection's id can say.
pub const MAX_SLOTS: usize = 1 << 24;

/// The connections of one thread and everything that is on its way to them.
pub struct Shard<A: Application> {
    index: u16,
    pub(crate) settings: Arc<Settings>,
    pub(crate) connections: Vec<Connection<A::Session>>,
    /// Slots without a connection; the one that is free longest is used first.
    pub(crate) free: VecDeque<Slot>,
    pub(crate) groups: Groups,
    pub(crate) log: Log,
    pub(crate) encoder: Encoder,
    /// Connections with something to flush, in turn.
    pub(crate) dirty: VecDeque<Slot>,
    /// Connections that may refer to chunks of the log that are not being written any more.
    pub(crate) holders: Vec<Slot>,
    /// Bytes copied for laggards.
    pub(crate) copied: usize,
    /// Where several pending entries are joined for one write.
    pub(crate) gathered: Gathered,
    /// Connections that have ended or were cut; the application is told at the end of the present call.
    pub(crate) ended: VecDeque<(Slot, Cause)>,
    /// Connections to be read although no event says so.
    pub(crate) readable: VecDeque<Slot>,
    /// Connections that are held up because a mailbox was full.
    pub(crate) held_up: Vec<Slot>,
    /// Slots that lost their connection: their sockets are to be dropped.
    pub(crate) sockets_to_drop: Vec<Slot>,
    /// When to stop waiting for a peer's close frame. Equal waits, so the order is that of the deadlines.
    pub(crate) closing: VecDeque<(u32, Slot, u32)>,
    /// When to stop waiting for a cut connection's return; ordered likewise.
    pub(crate) detached: VecDeque<(u32, Slot, u32)>,
    pub(crate) next_stamp: u64,
    pub(crate) now_ms: u64,
    pub(crate) tick: u32,
    pub(crate) outgoing: Vec<Outgoing<A::Command>>,
    /// The present message added to what another shard has no room for.
    pub(crate) congested: bool,
    pub(crate) counters: Counters,
}

impl<A: Application> Shard<A> {
    /// An empty shard, number `index` of `count`.
    ///
    /// # Panics
    /// When the two parts of [`Settings::numbering`] are longer than 64 bytes together.
    pub fn new(index: u16, count: u16, settings: Arc<Settings>) -> Self {
        let (prefix, suffix) = settings.numbering;
        assert!(prefix.len() + suffix.len() <= MAX_NUMBERING, "the numbering is longer than 64 bytes");
        let outgoing = (0..count).map(|_| Outgoing::new()).collect();
        Shard {
            index,
            settings,
            connections: Vec::new(),
            free: VecDeque::new(),
            groups: Groups::default(),
            log: Log::new(),
            encoder: Encoder::default(),
            dirty: VecDeque::new(),
            holders: Vec::new(),
            copied: 0,
            gathered: Gathered::default(),
            ended: VecDeque::new(),
            readable: VecDeque::new(),
            held_up: Vec::new(),
            sockets_to_drop: Vec::new(),
            closing: VecDeque::new(),
            detached: VecDeque::new(),
            next_stamp: 1,
            now_ms: 0,
            tick: 0,
            outgoing,
            congested: false,
            counters: Counters::default(),
        }
    }

    /// The number of this shard.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The limits and times it works with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The shard's clock in milliseconds since some fixed moment: as of this round, and never going back.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Where the connection in `slot` stands.
    pub fn address(&self, slot: Slot) -> Address {
        Address { shard: self.index, slot, generation: self.connections[slot as usize].generation }
    }

    /// The slot of a connection of this shard, while it is open or cut.
    pub fn find(&self, address: Address) -> Option<Slot> {
        let connection = self.connections.get(address.slot as usize)?;
        let here = address.shard == self.index && connection.generation == address.generation;
        (here && connection.phase.is_alive()).then_some(address.slot)
    }

    /// The session in `slot`, unless the connection has ended.
    pub fn session(&self, slot: Slot) -> Option<&A::Session> {
        self.connections.get(slot as usize)?.session.as_ref()
    }

    /// The session in `slot`, unless the connection has ended.
    pub fn session_mut(&mut self, slot: Slot) -> Option<&mut A::Session> {
        self.connections.get_mut(slot as usize)?.session.as_mut()
    }

    /// All connections that have not ended.
    pub fn sessions(&self) -> impl Iterator<Item = (Slot, &A::Session)> {
        let slots = self.connections.iter().enumerate();
        slots.filter_map(|(slot, connection)| Some((slot as Slot, connection.session.as_ref()?)))
    }

    /// Bytes that a connection has coming, or has been sent and not acknowledged: what its limit of lagging counts.
    pub fn lag(&self, slot: Slot) -> usize {
        self.connections[slot as usize].lag()
    }

    /// Whether the connection in `slot` was cut and waits for its peer to come back.
    pub fn is_detached(&self, slot: Slot) -> bool {
        self.connections.get(slot as usize).is_some_and(|c| c.phase == Phase::Detached)
    }

    /// What the shard has counted so far.
    pub fn counters(&self) -> Counters {
        let in_use = self.connections.len() - self.free.len();
        Counters {
            connections: in_use as u64,
            log_bytes: self.log.memory() as u64,
            copied_bytes: self.copied as u64,
            ..self.counters
        }
    }

    // ---- groups ----

    /// Makes the connection a member. Returns false when it was one already or has ended.
    pub fn join(&mut self, slot: Slot, group: GroupId) -> bool {
        let connection = &mut self.connections[slot as usize];
        if !connection.phase.is_alive() || connection.memberships.iter().any(|m| m.group == group) {
            return false;
        }
        let membership = self.groups.add(group, connection.format, slot);
        connection.memberships.push(membership);
        true
    }

    /// Ends a membership. Returns false when there was none.
    pub fn leave(&mut self, slot: Slot, group: GroupId) -> bool {
        let connection = &mut self.connections[slot as usize];
        let Some(at) = connection.memberships.iter().position(|m| m.group == group) else { return false };
        let membership = connection.memberships.swap_remove(at);
        let format = connection.format;
        if connection.memberships.is_empty() && connection.memberships.spilled() {
            connection.memberships = Default::default();
        }
        if let Some(moved) = self.groups.remove(format, membership) {
            self.note_moved(moved, group, membership.index);
        }
        true
    }

    pub(crate) fn note_moved(&mut self, slot: Slot, group: GroupId, index: u32) {
        let memberships = &mut self.connections[slot as usize].memberships;
        if let Some(membership) = memberships.iter_mut().find(|m| m.group == group) {
            membership.index = index;
        }
    }

    /// A resumed connection may read another format than before.
    pub(crate) fn move_memberships(&mut self, slot: Slot, before: Format, now: Format) {
        let memberships = std::mem::take(&mut self.connections[slot as usize].memberships);
        for membership in memberships {
            if let Some(moved) = self.groups.remove(before, membership) {
                self.note_moved(moved, membership.group, membership.index);
            }
            let membership = self.groups.add(membership.group, now, slot);
            self.connections[slot as usize].memberships.push(membership);
        }
    }

    /// The groups that the connection is a member of.
    pub fn groups_of(&self, slot: Slot) -> impl Iterator<Item = GroupId> {
        self.connections[slot as usize].memberships.iter().map(|membership| membership.group)
    }

    /// Number of groups that the connection is a member of.
    pub fn group_count(&self, slot: Slot) -> usize {
        self.connections[slot as usize].memberships.len()
    }

    /// Whether the connection is a member.
    pub fn is_member(&self, slot: Slot, group: GroupId) -> bool {
        self.groups_of(slot).any(|of| of == group)
    }

    /// Number of members of a group on this shard.
    pub fn group_len(&self, group: GroupId) -> usize {
        self.groups.len(group)
    }

    /// The members of a group on this shard, in no order.
    pub fn members(&self, group: GroupId) -> impl Iterator<Item = Slot> {
        let partitions = self.groups.get(group).into_iter().flat_map(|group| &group.partitions);
        partitions.flat_map(|partition| partition.members.iter().copied())
    }

    // ---- frames ----

    /// Sends one unnumbered frame that `write` fills to one connection: an acknowledgement, an error, an event.
    /// A connection that has ended or was cut gets nothing.
    pub fn send(&mut self, slot: Slot, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
        let connection = &self.connections[slot as usize];
        if connection.phase != Phase::Open {
            return;
        }
        let format = connection.format;
        let encoded = self.encoder.encode_direct(&mut self.log, format, kind, write);
        self.queue(slot, &encoded);
        self.retire();
    }

    /// Sends a ping behind everything that an open connection has coming. [`Application::pong`] hears of the answer, which
    /// says that the peer has all of that; a peer may leave out answers to all pings but the last. It counts for nothing
    /// else: silence is found by the shard's own pings.
    ///
    /// # Panics
    /// When the payload is longer than 125 bytes, which is what a control frame may carry.
    pub fn ping(&mut self, slot: Slot, payload: &[u8]) {
        assert!(payload.len() <= 125, "a ping of {} bytes", payload.len());
        if self.connections[slot as usize].phase == Phase::Open {
            let mut frame = Vec::with_capacity(2 + payload.len());
            encode(&mut frame, Opcode::Ping, payload);
            self.queue_control(slot, &frame);
        }
    }

    /// Queues a frame of the shard's own (ping, pong, close) to a connection in any phase with a socket.
    pub(crate) fn queue_control(&mut self, slot: Slot, frame: &[u8]) {
        let extent = self.log.append(&[frame]);
        self.queue(slot, &Encoded::Log(extent));
        self.retire();
    }

    /// Adds an unnumbered frame to what a connection has coming, and ends the connection when it is too much.
    fn queue(&mut self, slot: Slot, encoded: &Encoded) {
        self.make_room(slot, encoded);
        let connection = &mut self.connections[slot as usize];
        let len = encoded.weight();
        if connection.phase == Phase::Open && connection.lag() + len > self.settings.max_lag {
            self.end(slot, Cause::Lag);
            return;
        }
        connection.unsent += len;
        match encoded {
            Encoded::Log(extent) => {
                if connection.pending.push_log(*extent) {
                    self.log.retain(*extent, 1);
                }
            }
            Encoded::Shared(frame) => connection.pending.push_shared(Arc::clone(frame)),
            Encoded::NumberedLog { .. } | Encoded::NumberedShared(_) => {
                debug_assert!(false, "direct frames are not numbered");
            }
        }
        self.counters.deliveries += 1;
        self.mark_dirty(slot);
    }

    /// A list of very many tiny entries is copied together before it grows on.
    #[inline]
    pub(crate) fn make_room(&mut self, slot: Slot, encoded: &Encoded) {
        if self.connections[slot as usize].pending.len() >= MAX_ENTRIES && matches!(encoded, Encoded::Log(_))
        {
            self.copy_for(slot, u64::MAX);
        }
    }

    /// The peer of a numbered connection has everything up to `sequence`: a number that the connection was never
    /// sent, or one that was acknowledged before, changes nothing. Returns the last number that is acknowledged now.
    pub fn acknowledge(&mut self, slot: Slot, sequence: u64) -> Option<u64> {
        let connection = &mut self.connections[slot as usize];
        let window = connection.window.as_mut()?;
        let Acknowledged { again, copied } = window.acknowledge(&mut self.log, sequence);
        let last = window.last_acknowledged();
        connection.copied -= copied;
        self.copied -= copied;
        if again > 0 {
            connection.pending.forget_numbered(again);
        }
        last
    }

    /// The number of the last frame that a numbered connection was given; none before the first.
    pub fn last_sequence(&self, slot: Slot) -> Option<u64> {
        self.connections.get(slot as usize)?.window.as_ref()?.last()
    }

    /// Puts a connection into the list of those to be flushed, unless the kernel takes no more for it.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if !connection.dirty && !connection.blocked {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
    }
}
