//! The application of these tests: a room over all shards, an echo, and notes of what ended.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use tieline_switchboard::{
    Address, Application, Cause, Encode, Frames, GroupId, Handle, Placement, Publication, Recipients, Shard,
    Slot, Weigh, WhenLagging,
};
use tieline_websocket::Kind;

/// Everybody's group.
pub(crate) const ROOM: GroupId = GroupId(0);

/// What the application tells the test.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Opened(u32, Address),
    Cut(u32),
    Closed(u32, Cause),
    Parked(u32),
}

/// What the test decides about a client.
#[derive(Debug)]
pub(crate) enum Arrival {
    New(u32),
    Back(Address),
}

/// Something that was said, on its way to everybody.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) payload: Vec<u8>,
    pub(crate) frames: Frames,
}

impl Encode for Said {
    fn kind(&self, _: u8) -> Kind {
        Kind::Text
    }

    fn encode(&self, _: u8, _: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.payload);
    }

    fn frames(&self) -> Option<&Frames> {
        Some(&self.frames)
    }
}

#[derive(Debug)]
pub(crate) enum Command {
    Say(Arc<Said>),
    Unpark(Address),
    /// The shard stands still until the other end of the second channel is dropped; it says so on the first.
    StandStill(Sender<()>, Receiver<()>),
}

impl Weigh for Command {
    fn weight(&self) -> usize {
        match self {
            Command::Say(said) => said.payload.len(),
            Command::Unpark(_) | Command::StandStill(..) => 1,
        }
    }
}

pub(crate) struct Chat {
    pub(crate) shard: u16,
    pub(crate) shards: u16,
    pub(crate) notes: Sender<Note>,
}

impl Chat {
    pub(crate) fn new(shard: u16, handle: &Handle<Chat>, notes: Sender<Note>) -> Self {
        Chat { shard, shards: handle.shards() as u16, notes }
    }

    fn publish(shard: &mut Shard<Self>, said: &Said) {
        let to = [Recipients::Group(ROOM)];
        shard.publish(&Publication {
            message: said,
            to: &to,
            except: &[],
            only: None,
            when_lagging: WhenLagging::End,
        });
    }
}

impl Application for Chat {
    type Session = u32;
    type Arrival = Arrival;
    type Command = Command;

    fn arrive(&mut self, shard: &mut Shard<Self>, arrival: Arrival) -> Placement<u32> {
        match arrival {
            Arrival::New(id) => Placement::Open(id),
            Arrival::Back(address) => match shard.find(address) {
                Some(slot) => Placement::Resume(slot),
                None => Placement::Refuse(1008, "gone"),
            },
        }
    }

    fn opened(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        shard.join(slot, ROOM);
        shard.send(slot, Kind::Text, |out| out.extend_from_slice(b"welcome"));
        let id = shard.session(slot).copied().unwrap();
        self.notes.send(Note::Opened(id, shard.address(slot))).unwrap();
    }

    fn resumed(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        shard.send(slot, Kind::Text, |out| out.extend_from_slice(b"welcome back"));
    }

    fn message(&mut self, shard: &mut Shard<Self>, slot: Slot, kind: Kind, payload: &[u8]) {
        match payload {
            b"close me" => shard.close(slot, 4000, "as you wish"),
            b"park" => {
                shard.park(slot);
                self.notes.send(Note::Parked(shard.session(slot).copied().unwrap())).unwrap();
            }
            b"panic" => panic!("as you wish"),
            _ if payload.starts_with(b"say ") => {
                let said = Arc::new(Said { payload: payload[4..].to_vec(), frames: Frames::default() });
                Self::publish(shard, &said);
                for other in (0..self.shards).filter(|other| *other != self.shard) {
                    shard.post(other, Command::Say(Arc::clone(&said)));
                }
            }
            _ => shard.send(slot, kind, |out| out.extend_from_slice(payload)),
        }
    }

    fn cut(&mut self, shard: &mut Shard<Self>, slot: Slot, _: &Cause) -> bool {
        self.notes.send(Note::Cut(shard.session(slot).copied().unwrap())).unwrap();
        true
    }

    fn closed(&mut self, _: &mut Shard<Self>, _: Slot, session: u32, cause: &Cause) {
        self.notes.send(Note::Closed(session, cause.clone())).unwrap();
    }

    fn command(&mut self, shard: &mut Shard<Self>, command: Command) {
        match command {
            Command::Say(said) => Self::publish(shard, &said),
            Command::Unpark(address) => shard.unpark(shard.find(address).unwrap()),
            Command::StandStill(reached, gone) => {
                reached.send(()).unwrap();
                let _ = gone.recv();
            }
        }
    }

    fn tick(&mut self, _: &mut Shard<Self>) {}

    fn close_frame(&self, _: &u32, cause: &Cause) -> (u16, &'static str) {
        match cause {
            Cause::Protocol(code) => (*code, "protocol"),
            _ => (4001, "lag"),
        }
    }
}
