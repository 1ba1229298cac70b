//! How connections come: a new one, one that returns to what it was cut from, or one that is refused. And how a
//! slot is taken and given back.
//! Tested through the properties of the shard.

use tieline_websocket::InflateMode;

use crate::Slot;
use crate::application::{Application, Placement};
use crate::connection::{Address, Connection, Format, Phase, fresh_decoder};
use crate::log::MAX_RECORD;
use crate::numbered::Window;
use crate::shard::{MAX_SLOTS, Shard};

impl<A: Application> Shard<A> {
    /// Takes in a client whose handshake is granted, as the application decides. `head` is the answer to it, which
    /// goes out before all frames and whatever becomes of the client; empty when that was sent. Returns the slot
    /// that its socket belongs to from now on, in place of any that stood there; `None` when the table is full. The
    /// caller first drops what [`Shard::sockets_to_drop`] names, then puts the socket there, and then calls
    /// [`Shard::settle`].
    ///
    /// # Panics
    /// When `head` is longer than 16 KiB.
    pub fn adopt(
        &mut self,
        application: &mut A,
        head: &[u8],
        format: Format,
        inflate: Option<InflateMode>,
        arrival: A::Arrival,
    ) -> Option<Slot> {
        match application.arrive(self, arrival) {
            Placement::Open(session) => {
                let slot = self.take_slot()?;
                self.open(slot, session, format, inflate);
                self.answer(slot, head);
                application.opened(self, slot);
                Some(slot)
            }
            Placement::Take(address, session) => {
                if !self.is_reserved(address) {
                    return self.refuse(head, 1013, "The place of the connection was given back.");
                }
                self.open(address.slot, session, format, inflate);
                self.answer(address.slot, head);
                application.opened(self, address.slot);
                Some(address.slot)
            }
            Placement::Resume(slot) => {
                if !self.connections.get(slot as usize).is_some_and(|c| c.phase.is_alive()) {
                    return self.refuse(head, 1008, "The connection has ended.");
                }
                self.attach(slot, format, inflate);
                self.answer(slot, head);
                application.resumed(self, slot);
                self.replay(slot);
                Some(slot)
            }
            Placement::Refuse(code, reason) => self.refuse(head, code, reason),
        }
    }

    /// Makes a slot that is nobody else's that of a new connection.
    fn open(&mut self, slot: Slot, session: A::Session, format: Format, inflate: Option<InflateMode>) {
        let first_sequence = self.settings.first_sequence;
        let tick = self.tick;
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Open;
        connection.format = format;
        connection.window = format.numbered.then(|| Box::new(Window::new(first_sequence)));
        connection.decoder = fresh_decoder(inflate);
        connection.last_message = tick;
        connection.session = Some(session);
        self.counters.opened += 1;
    }

    /// Gives a socket that is refused a slot, only to be sent `head` and a close frame. `None` when the table is
    /// full.
    ///
    /// # Panics
    /// When `head` is longer than 16 KiB.
    pub fn refuse(&mut self, head: &[u8], code: u16, reason: &str) -> Option<Slot> {
        let slot = self.take_slot()?;
        let connection = &mut self.connections[slot as usize];
        connection.format = Format::plain(0);
        connection.decoder = fresh_decoder(None);
        self.answer(slot, head);
        self.start_close(slot, Some(code), reason);
        Some(slot)
    }

    /// Queues the answer to the handshake. It is no frame, so it is taken for the rest of one that is open on the
    /// wire: such a rest goes out first and whole, even when the connection is ended for a limit meanwhile. Until it
    /// is sent, it counts as what the connection has coming.
    fn answer(&mut self, slot: Slot, head: &[u8]) {
        if head.is_empty() {
            return;
        }
        assert!(head.len() <= MAX_RECORD, "the answer to a handshake of {} bytes", head.len());
        let extent = self.log.append(&[head]);
        let connection = &mut self.connections[slot as usize];
        connection.unsent += head.len();
        connection.open_frame = head.len();
        if connection.pending.push_log(extent) {
            self.log.retain(extent, 1);
        }
        self.mark_dirty(slot);
        self.retire();
    }

    /// Keeps a place for a client on whose request somebody still decides, so that its address is known already. It
    /// counts as a connection until the client takes it ([`Placement::Take`]) or it is given back. `None` when the table
    /// is full.
    pub fn reserve(&mut self) -> Option<Address> {
        let slot = self.take_slot()?;
        self.connections[slot as usize].phase = Phase::Reserved;
        Some(self.address(slot))
    }

    /// Gives a reserved place back. Anything else is left alone.
    pub fn give_back(&mut self, address: Address) {
        if self.is_reserved(address) {
            let connection = &mut self.connections[address.slot as usize];
            connection.phase = Phase::Free;
            // Whoever knows the address must never find another connection there.
            connection.generation = connection.generation.wrapping_add(1);
            self.free.push_back(address.slot);
        }
    }

    fn is_reserved(&self, address: Address) -> bool {
        self.connections.get(address.slot as usize).is_some_and(|connection| {
            connection.phase == Phase::Reserved && self.address(address.slot) == address
        })
    }

    pub(crate) fn take_slot(&mut self) -> Option<Slot> {
        if let Some(slot) = self.free.pop_front() {
            return Some(slot);
        }
        if self.connections.len() >= MAX_SLOTS {
            return None;
        }
        self.connections.push(Connection::free());
        Some(self.connections.len() as Slot - 1)
    }

    /// Puts a new socket under a connection that was cut, or whose old socket it replaces.
    fn attach(&mut self, slot: Slot, format: Format, inflate: Option<InflateMode>) {
        self.keep_pending(slot, 0);
        let tick = self.tick;
        let connection = &mut self.connections[slot as usize];
        // Whether its frames are numbered was settled when it was opened: there is a window, or there is none.
        let format = Format { numbered: connection.window.is_some(), ..format };
        if connection.phase == Phase::Detached {
            self.counters.detached -= 1;
        }
        connection.phase = Phase::Open;
        connection.blocked = false;
        connection.open_frame = 0;
        connection.held_up = false;
        connection.unanswered = 0;
        connection.unread = None;
        connection.last_message = tick;
        connection.decoder = fresh_decoder(inflate);
        if let Some(window) = &mut connection.window {
            window.rewind();
            window.end_tape();
            if connection.format.deflate != format.deflate {
                // What was compressed for another window size is sent plain.
                window.forget_deflated();
            }
        }
        let before = std::mem::replace(&mut connection.format, format);
        if before != format {
            self.move_memberships(slot, before, format);
        }
        self.counters.resumed += 1;
    }

    /// Queues everything that the peer of a resumed connection has not acknowledged.
    fn replay(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if connection.phase != Phase::Open {
            return;
        }
        let unsent = connection.window.as_ref().map_or(0, |window| window.unsent());
        connection.pending.push_numbered(unsent - connection.pending.numbered());
        self.mark_dirty(slot);
    }

    pub(crate) fn free_slot(&mut self, slot: Slot) {
        self.keep_pending(slot, 0);
        self.forget_window(slot);
        let connection = &mut self.connections[slot as usize];
        debug_assert!(connection.session.is_none() && connection.memberships.is_empty());
        connection.phase = Phase::Free;
        connection.generation = connection.generation.wrapping_add(1);
        connection.blocked = false;
        connection.open_frame = 0;
        connection.parked = false;
        connection.held_up = false;
        connection.unanswered = 0;
        connection.unread = None;
        connection.decoder = fresh_decoder(None);
        self.free.push_back(slot);
        self.sockets_to_drop.push(slot);
    }
}
