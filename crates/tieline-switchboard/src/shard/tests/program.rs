//! The application of the tests, which takes notes, and the messages that it publishes.

use tieline_websocket::Kind;

use crate::*;

/// What the shard told the application, by the id of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Opened(u32),
    Resumed(u32),
    Message(u32, Kind, Vec<u8>),
    Cut(u32, Cause),
    Closed(u32, Cause),
}

/// What the test decides about each client that arrives.
#[derive(Debug)]
pub(super) enum Arrival {
    Open { id: u32, resumable: bool },
    Take(Address, u32),
    Resume(Slot),
    Refuse(u16),
}

pub(super) struct Session {
    pub(super) id: u32,
    pub(super) resumable: bool,
}

/// Takes notes. On a resume it says hello; on the messages `park`, `close` and `post` it does so.
#[derive(Default)]
pub(super) struct Program {
    pub(super) notes: Vec<Note>,
    /// Whoever returns is closed at once.
    pub(super) closes_on_resume: bool,
    /// What came as pongs, and from which session.
    pub(super) pongs: Vec<(u32, Vec<u8>)>,
}

/// The direct frame that a resumed connection gets before its replay.
pub(super) const HELLO: &[u8] = b"hello again";

/// The code and reason for each of the shard's own causes.
pub(super) fn close_code(cause: &Cause) -> u16 {
    match cause {
        Cause::Protocol(code) => *code,
        Cause::Lag => 4001,
        Cause::Memory => 4002,
        Cause::Idle => 4003,
        _ => 4999,
    }
}

impl Weigh for Vec<u8> {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl Application for Program {
    type Session = Session;
    type Arrival = Arrival;
    type Command = Vec<u8>;

    fn arrive(&mut self, _: &mut Shard<Self>, arrival: Arrival) -> Placement<Session> {
        match arrival {
            Arrival::Open { id, resumable } => Placement::Open(Session { id, resumable }),
            Arrival::Take(address, id) => Placement::Take(address, Session { id, resumable: false }),
            Arrival::Resume(slot) => Placement::Resume(slot),
            Arrival::Refuse(code) => Placement::Refuse(code, "no"),
        }
    }

    fn opened(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        self.notes.push(Note::Opened(shard.session(slot).unwrap().id));
    }

    fn resumed(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        self.notes.push(Note::Resumed(shard.session(slot).unwrap().id));
        shard.send(slot, Kind::Text, |out| out.extend_from_slice(HELLO));
        if self.closes_on_resume {
            shard.close(slot, 4010, "not you");
        }
    }

    fn message(&mut self, shard: &mut Shard<Self>, slot: Slot, kind: Kind, payload: &[u8]) {
        self.notes.push(Note::Message(shard.session(slot).unwrap().id, kind, payload.to_vec()));
        match payload {
            b"park" => shard.park(slot),
            b"close" => shard.close(slot, 4000, "as you wish"),
            b"post" => shard.post(1, vec![0; 2 << 20]),
            b"echo" => shard.send(slot, kind, |out| out.extend_from_slice(b"echo")),
            _ => {}
        }
    }

    fn pong(&mut self, shard: &mut Shard<Self>, slot: Slot, payload: &[u8]) {
        self.pongs.push((shard.session(slot).unwrap().id, payload.to_vec()));
    }

    fn cut(&mut self, shard: &mut Shard<Self>, slot: Slot, cause: &Cause) -> bool {
        let session = shard.session(slot).unwrap();
        self.notes.push(Note::Cut(session.id, cause.clone()));
        session.resumable
    }

    fn closed(&mut self, shard: &mut Shard<Self>, slot: Slot, session: Session, cause: &Cause) {
        // Whoever remains hears of it, while others may be about to end: nothing of that may be in the way.
        let groups: Vec<_> = shard.groups_of(slot).map(Recipients::Group).collect();
        assert!(groups.len() <= shard.group_count(slot));
        self.notes.push(Note::Closed(session.id, cause.clone()));
    }

    fn command(&mut self, _: &mut Shard<Self>, _: Vec<u8>) {}

    fn tick(&mut self, _: &mut Shard<Self>) {}

    fn close_frame(&self, _: &Session, cause: &Cause) -> (u16, &'static str) {
        (close_code(cause), "limit")
    }
}

/// A message whose content follows from its number, so that nothing need be kept to recognise it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) len: usize,
    pub(super) compressible: bool,
    pub(super) frames: Frames,
}

impl Message {
    pub(super) fn new(number: u64, len: usize) -> Self {
        Message { number, len, compressible: number.is_multiple_of(2), frames: Frames::default() }
    }

    /// The content in one encoding.
    pub(super) fn body(&self, wire: u8, numbered: bool) -> Vec<u8> {
        let mut state =
            self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(wire) ^ u64::from(numbered) << 8;
        let mut body = Vec::with_capacity(self.len + 8);
        let mut word = [b'a'; 8];
        while body.len() < self.len {
            if !self.compressible || body.len() < 16 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Eight printable characters.
                let bits = (state ^ state >> 29) & 0x3f3f_3f3f_3f3f_3f3f;
                word = (bits + 0x2020_2020_2020_2020).to_le_bytes();
            }
            body.extend_from_slice(&word);
        }
        body.truncate(self.len);
        body
    }
}

impl Encode for Message {
    fn kind(&self, wire: u8) -> Kind {
        if wire == 1 { Kind::Binary } else { Kind::Text }
    }

    fn encode(&self, wire: u8, numbered: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.body(wire, numbered));
    }

    fn mark(&self) -> Mark {
        u128::from(self.number) + 1
    }

    fn frames(&self) -> Option<&Frames> {
        // Some messages are for one shard only.
        (!self.number.is_multiple_of(3)).then_some(&self.frames)
    }
}
