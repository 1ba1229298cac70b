//! When a connection's reading stands still: because the application waits for something, or because what the
//! connection published does not fit into another shard's mailbox. Commands for other shards are gathered here.
//! Tested through the properties of the shard, and by two shards with tiny mailboxes in `tests/`.

use crate::Slot;
use crate::application::{Application, Weigh};
use crate::connection::Phase;
use crate::shard::Shard;

/// Bytes of commands for one other shard that are gathered before the connection they came from stops being
/// read. They are handed over at the end of the round; this bounds a round's memory.
const OUTGOING_LIMIT: usize = 1 << 20;

/// Commands on their way to one other shard.
pub(crate) struct Outgoing<C> {
    pub(crate) commands: Vec<C>,
    pub(crate) weight: usize,
    /// The other shard's mailbox took no more when it was last tried.
    pub(crate) blocked: bool,
}

impl<C> Outgoing<C> {
    pub(crate) fn new() -> Self {
        Outgoing { commands: Vec::new(), weight: 0, blocked: false }
    }
}

impl<A: Application> Shard<A> {
    /// Lets the connection's reading stand still until [`Shard::unpark`]. What it sent already waits. Once the
    /// connection ends, it reads on without being asked; when it was cut and is resumed, it still stands still.
    pub fn park(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        connection.parked |= connection.phase == Phase::Open;
    }

    /// Lets a parked connection read on, in a later step of this round.
    pub fn unpark(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if std::mem::take(&mut connection.parked) && !connection.held_up {
            self.readable.push_back(slot);
        }
    }

    /// Whether the connection's reading stands still, for whatever reason.
    pub fn is_parked(&self, slot: Slot) -> bool {
        self.connections[slot as usize].is_parked()
    }

    /// Connections that are to be read although no event says so: each until its socket is empty.
    pub(crate) fn take_readable(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.readable).into()
    }

    /// Inbound bytes that waited while the connection was parked.
    pub(crate) fn take_unread(&mut self, slot: Slot) -> Option<Box<[u8]>> {
        self.connections[slot as usize].unread.take()
    }

    /// Hands a command to another shard of this node at the end of the round. Commands to one shard keep their
    /// order. Nothing waits here; a connection whose message filled a mailbox is not read on until it drains.
    pub fn post(&mut self, shard: u16, command: A::Command) {
        let outgoing = &mut self.outgoing[usize::from(shard)];
        outgoing.weight += command.weight();
        outgoing.commands.push(command);
        self.congested |= outgoing.blocked || outgoing.weight > OUTGOING_LIMIT;
    }

    /// The commands gathered for each other shard.
    pub(crate) fn outgoing_mut(&mut self) -> &mut [Outgoing<A::Command>] {
        &mut self.outgoing
    }

    /// Holds up `slot` if what its message has just caused does not fit into another shard's mailbox.
    pub(crate) fn hold_up_if_congested(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if std::mem::take(&mut self.congested) && connection.phase == Phase::Open && !connection.held_up {
            connection.held_up = true;
            self.held_up.push(slot);
            self.counters.parked += 1;
        }
    }

    /// Lets the connections read on that [`Shard::hold_up_if_congested`] held up.
    pub(crate) fn release_held_up(&mut self) {
        for slot in std::mem::take(&mut self.held_up) {
            // One that has ended meanwhile is not held up any more, nor is who has its slot now, unless it is in
            // this list itself.
            let connection = &mut self.connections[slot as usize];
            if std::mem::take(&mut connection.held_up) && !connection.parked {
                self.readable.push_back(slot);
            }
        }
    }
}
