//! The sockets of one shard, simulated: each takes as many bytes as it has room for, and its far end decodes them
//! with the library's own client side.

use std::collections::VecDeque;
use std::io::{ErrorKind, Result};

use tieline_switchboard::{Slot, Sockets};
use tieline_websocket::{Decoder, Event, InflateMode, Limits, Role, Shared};

use crate::wire::{Request, Who};

/// What a client got.
#[derive(Debug)]
pub(crate) enum Heard {
    Text(String),
    Ping,
    Close(Option<u16>),
}

/// One socket and its client's end.
pub(crate) struct Socket {
    pub(crate) who: Who,
    /// Bytes that it takes before it is full.
    pub(crate) room: usize,
    /// It said that it is full, and owes a word when it is not any more.
    pub(crate) is_full: bool,
    /// It fails with the next write.
    pub(crate) is_broken: bool,
    /// What the client wrote and the server did not read.
    pub(crate) outbox: Vec<u8>,
    /// The requests in there, and those that the server has read but not come to.
    pub(crate) asked: VecDeque<Request>,
    /// The client has sent a close frame.
    pub(crate) says_goodbye: bool,
    has_ended: bool,
    decoder: Decoder,
    partial: Vec<u8>,
}

impl Socket {
    pub(crate) fn new(who: Who, room: usize, deflate: bool) -> Self {
        Socket {
            who,
            room,
            is_full: false,
            is_broken: false,
            outbox: Vec::new(),
            asked: VecDeque::new(),
            says_goodbye: false,
            has_ended: false,
            decoder: Decoder::new(Role::Client, deflate.then_some(InflateMode::Shared)),
            partial: Vec::new(),
        }
    }
}

/// All sockets of one shard.
pub(crate) struct Net {
    sockets: Vec<Option<Socket>>,
    shared: Shared,
    /// What clients got and the model did not look at.
    pub(crate) heard: Vec<(Who, Heard)>,
}

impl Net {
    pub(crate) fn new() -> Self {
        let limits = Limits { max_frame: 1 << 20, max_message: 1 << 20, max_fragments: 1 };
        Net { sockets: Vec::new(), shared: Shared::new(limits), heard: Vec::new() }
    }

    /// Puts a socket into a slot. Returns the one that stood there.
    pub(crate) fn put(&mut self, slot: Slot, socket: Socket) -> Option<Socket> {
        if self.sockets.len() <= slot as usize {
            self.sockets.resize_with(slot as usize + 1, || None);
        }
        self.sockets[slot as usize].replace(socket)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Socket> {
        self.sockets.get_mut(slot as usize)?.take()
    }

    pub(crate) fn get(&mut self, slot: Slot) -> Option<&mut Socket> {
        self.sockets.get_mut(slot as usize)?.as_mut()
    }

    /// The slots that have a socket.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let slots = self.sockets.iter().enumerate();
        slots.filter(|(_, socket)| socket.is_some()).map(|(slot, _)| slot as Slot).collect()
    }
}

impl Sockets for Net {
    fn send(&mut self, slot: Slot, bytes: &[u8]) -> Result<usize> {
        let socket = self.sockets[slot as usize].as_mut().expect("a socket that is written to is there");
        if socket.is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        assert!(!socket.is_full, "a write to a socket that said it was full");
        assert!(!socket.has_ended, "bytes behind the end of the stream");
        let taken = bytes.len().min(socket.room);
        socket.is_full = taken < bytes.len();
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        socket.room -= taken;
        socket.partial.extend_from_slice(&bytes[..taken]);
        let mut input = &mut socket.partial[..];
        while let Some(event) = socket.decoder.decode(&mut input, &mut self.shared).expect("frames are valid")
        {
            let heard = match event {
                Event::Message { payload, .. } => {
                    Heard::Text(String::from_utf8(payload.to_vec()).expect("frames are texts"))
                }
                Event::Ping(_) => Heard::Ping,
                Event::Close(frame) => Heard::Close(frame.map(|frame| frame.code)),
                Event::Pong(_) => continue,
            };
            self.heard.push((socket.who, heard));
        }
        socket.partial.clear();
        Ok(taken)
    }

    fn end_of_stream(&mut self, slot: Slot) {
        self.get(slot).expect("its socket is there").has_ended = true;
    }
}
