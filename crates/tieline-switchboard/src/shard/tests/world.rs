//! One shard with its program, clients and clock, as the tests of single rules use it.

use std::sync::Arc;

use tieline_websocket::{Opcode, Shared, encode_close_masked, encode_masked};

use super::net::{Client, Got, Net};
use super::program::{Arrival, Message, Note, Program};
use crate::*;

/// The group that tests publish to.
pub(super) const ROOM: GroupId = GroupId(3);

/// More room than any test fills.
pub(super) const ROOMY: usize = 1 << 30;

/// What stands before and behind the number of numbered frames.
pub(super) const NUMBERING: (&[u8], &[u8]) = (b"{\"sequenceId\":", b",");

pub(super) fn numbered(deflate: u8) -> Format {
    Format { wire: 0, numbered: true, deflate }
}

pub(super) struct World {
    pub(super) shard: Shard<Program>,
    pub(super) program: Program,
    pub(super) net: Net,
    pub(super) shared: Shared,
    clock: u64,
    next_id: u32,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self::on(0, settings)
    }

    /// A world around shard `index` of two.
    pub(super) fn on(index: u16, settings: Settings) -> Self {
        let settings = Settings { numbering: NUMBERING, ..settings };
        let shared = Shared::new(settings.inbound);
        World {
            shard: Shard::new(index, 2, Arc::new(settings)),
            program: Program::default(),
            net: Net::default(),
            shared,
            clock: 0,
            next_id: 0,
        }
    }

    /// Settles, drops sockets, and checks the books: what stands behind every step.
    pub(super) fn settle(&mut self) {
        self.shard.settle(&mut self.program);
        for slot in self.shard.sockets_to_drop() {
            self.net.drop_socket(slot);
        }
        self.shard.check_invariants();
    }

    /// A client with so much room in its kernel buffer. Returns its slot; its id is the count of those before.
    pub(super) fn connect(&mut self, format: Format, room: usize) -> Slot {
        let arrival = Arrival::Open { id: self.next_id, resumable: true };
        self.next_id += 1;
        self.arrive(format, room, arrival)
    }

    /// A member of the room.
    pub(super) fn member(&mut self, format: Format, room: usize) -> Slot {
        let slot = self.connect(format, room);
        assert!(self.shard.join(slot, ROOM));
        slot
    }

    pub(super) fn arrive(&mut self, format: Format, room: usize, arrival: Arrival) -> Slot {
        self.arrive_with(&[], format, room, arrival)
    }

    /// A client that is still to be sent the answer to its handshake.
    pub(super) fn arrive_with(&mut self, head: &[u8], format: Format, room: usize, arrival: Arrival) -> Slot {
        let slot = self.shard.adopt(&mut self.program, head, format, None, arrival).expect("there is room");
        for slot in self.shard.sockets_to_drop() {
            self.net.drop_socket(slot);
        }
        let mut client = Client::new(room, format.deflate > 0);
        client.head = head.to_vec();
        self.net.put(slot, client);
        self.settle();
        slot
    }

    pub(super) fn client(&mut self, slot: Slot) -> &mut Client {
        let client = self.net.client(slot).expect("it has a socket");
        &mut self.net.clients[client]
    }

    /// Messages that the client at `slot` got.
    pub(super) fn payloads(&self, slot: Slot) -> Vec<Vec<u8>> {
        let client = self.net.client(slot).expect("it has a socket");
        let messages = self.net.clients[client].got.iter();
        messages
            .filter_map(|got| if let Got::Message(_, payload) = got { Some(payload.clone()) } else { None })
            .collect()
    }

    pub(super) fn publish_with(&mut self, message: &Message, when_lagging: WhenLagging) -> usize {
        let to = [Recipients::Group(ROOM)];
        let reached =
            self.shard.publish(&Publication { message, to: &to, except: &[], only: None, when_lagging });
        self.settle();
        reached
    }

    /// Publishes a message of so many bytes to the room.
    pub(super) fn publish(&mut self, number: u64, len: usize) -> usize {
        self.publish_with(&Message::new(number, len), WhenLagging::End)
    }

    pub(super) fn flush(&mut self) -> bool {
        let more = self.shard.flush(&mut self.net, || false);
        self.settle();
        more
    }

    /// Flushes until nothing more can be sent.
    pub(super) fn flush_all(&mut self) {
        while self.flush() {}
    }

    /// The client's kernel has so many bytes of room more, and says so if it was asked.
    pub(super) fn drain(&mut self, slot: Slot, bytes: usize) {
        let client = self.client(slot);
        client.room += bytes;
        if bytes > 0 && std::mem::take(&mut client.starved) {
            self.shard.writable(slot);
        }
        self.settle();
    }

    pub(super) fn receive(&mut self, slot: Slot, mut bytes: Vec<u8>) {
        self.shard.receive(slot, &mut bytes, &mut self.shared, &mut self.program);
        self.settle();
    }

    /// The client sends a text message.
    pub(super) fn say(&mut self, slot: Slot, text: &str) {
        let mut frame = Vec::new();
        encode_masked(&mut frame, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
        self.receive(slot, frame);
    }

    /// The client sends a close frame.
    pub(super) fn say_close(&mut self, slot: Slot, code: Option<u16>) {
        let mut frame = Vec::new();
        encode_close_masked(&mut frame, code, "", [1, 2, 3, 4]);
        self.receive(slot, frame);
    }

    pub(super) fn lose(&mut self, slot: Slot) {
        self.shard.lose_socket(slot);
        self.settle();
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock += 1000;
            assert!(self.shard.advance(self.clock));
            self.shard.tick();
            self.settle();
        }
    }

    /// Why each session ended that has ended.
    pub(super) fn closed(&self) -> Vec<(u32, Cause)> {
        let notes = self.program.notes.iter();
        notes
            .filter_map(
                |note| if let Note::Closed(id, cause) = note { Some((*id, cause.clone())) } else { None },
            )
            .collect()
    }
}
