//! Simulated sockets: each takes as many bytes as its kernel buffer has room for, and hands them to a client that
//! decodes them with the library's own client side.

use std::io::{ErrorKind, Result};

use tieline_websocket::{Decoder, Event, FrameHeader, InflateMode, Kind, Limits, Role, Shared};

use crate::{Slot, Sockets};

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Message(Kind, Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// The far end of one socket.
pub(super) struct Client {
    /// Room in the kernel's buffer.
    pub(super) room: usize,
    /// The kernel once took less than it was offered: it will tell when there is room.
    pub(super) starved: bool,
    /// The socket answers every write with an error.
    pub(super) broken: bool,
    /// The shard ended its half.
    pub(super) ended: bool,
    /// The shard dropped the socket.
    pub(super) dropped: bool,
    /// Bytes taken since the start.
    pub(super) taken: usize,
    /// What is still to come of the answer to the handshake, before the first frame.
    pub(super) head: Vec<u8>,
    /// What arrived of a frame that is not whole.
    pub(super) partial: Vec<u8>,
    decoder: Decoder,
    shared: Shared,
    pub(super) got: Vec<Got>,
    /// Which of those frames were compressed.
    pub(super) compressed: Vec<bool>,
}

impl Client {
    pub(super) fn new(room: usize, deflate: bool) -> Self {
        let limits = Limits { max_frame: 8 << 20, max_message: 8 << 20, max_fragments: 1 };
        Client {
            room,
            starved: false,
            broken: false,
            ended: false,
            dropped: false,
            taken: 0,
            head: Vec::new(),
            partial: Vec::new(),
            decoder: Decoder::new(Role::Client, deflate.then_some(InflateMode::Shared)),
            shared: Shared::new(limits),
            got: Vec::new(),
            compressed: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        assert!(!self.ended && !self.dropped, "bytes behind the end of the stream");
        self.room -= bytes.len();
        self.taken += bytes.len();
        let (head, frames) = bytes.split_at(self.head.len().min(bytes.len()));
        assert!(self.head.starts_with(head), "something else before the end of the answer");
        self.head.drain(..head.len());
        self.partial.extend_from_slice(frames);
        let mut start = 0;
        while let Ok(Some((header, used))) = FrameHeader::parse(&self.partial[start..])
            && self.partial.len() - start >= used + header.len as usize
        {
            assert!(!matches!(self.got.last(), Some(Got::Close(_))), "a frame behind a close frame");
            let end = start + used + header.len as usize;
            let mut input = &mut self.partial[start..end];
            let event = self.decoder.decode(&mut input, &mut self.shared).expect("frames are valid");
            self.got.push(match event.expect("the frame is whole") {
                Event::Message { kind, payload } => Got::Message(kind, payload.to_vec()),
                Event::Ping(_) => Got::Ping,
                Event::Pong(payload) => Got::Pong(payload.to_vec()),
                Event::Close(frame) => Got::Close(frame.map(|frame| frame.code)),
            });
            self.compressed.push(header.compressed);
            start = end;
        }
        self.partial.drain(..start);
    }
}

/// All sockets of one shard, and all clients that there ever were.
#[derive(Default)]
pub(super) struct Net {
    pub(super) clients: Vec<Client>,
    sockets: Vec<Option<usize>>,
    /// Writes so far: slot and bytes taken.
    pub(super) writes: Vec<(Slot, usize)>,
}

impl Net {
    pub(super) fn put(&mut self, slot: Slot, client: Client) -> usize {
        if self.sockets.len() <= slot as usize {
            self.sockets.resize(slot as usize + 1, None);
        }
        self.drop_socket(slot);
        self.clients.push(client);
        self.sockets[slot as usize] = Some(self.clients.len() - 1);
        self.clients.len() - 1
    }

    pub(super) fn drop_socket(&mut self, slot: Slot) {
        if let Some(client) = self.sockets.get_mut(slot as usize).and_then(Option::take) {
            self.clients[client].dropped = true;
        }
    }

    /// The client at a slot.
    pub(super) fn client(&self, slot: Slot) -> Option<usize> {
        self.sockets.get(slot as usize).copied().flatten()
    }
}

impl Sockets for Net {
    fn send(&mut self, slot: Slot, bytes: &[u8]) -> Result<usize> {
        assert!(!bytes.is_empty(), "an empty write says nothing");
        let client = self.client(slot).expect("a socket that is written to is there");
        let client = &mut self.clients[client];
        if client.broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        assert!(!client.starved, "a write to a socket that said it was full");
        let taken = bytes.len().min(client.room);
        client.starved = taken < bytes.len();
        self.writes.push((slot, taken));
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        client.take(&bytes[..taken]);
        Ok(taken)
    }

    fn end_of_stream(&mut self, slot: Slot) {
        let client = self.client(slot).expect("its socket is there");
        self.clients[client].ended = true;
    }
}
