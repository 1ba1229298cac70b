//! A message on its way through this node: borrowed from its frame while it stays on one shard, owned when it
//! goes further. Both write themselves in every encoding that recipients read.

use std::sync::Arc;

use tieline_proto::envelope;
use tieline_proto::reply::{self, From, Wire};
use tieline_proto::{Data, GroupName, MessageId, Payload, Position, UserId};
use tieline_switchboard::{Encode, Frames, Mark};
use tieline_websocket::Kind;

use crate::subprotocol::wire;

/// A message borrowed from the frame it came in.
pub(crate) struct Letter<'a>(pub(crate) reply::Message<'a>);

impl Encode for Letter<'_> {
    fn kind(&self, _wire: u8) -> Kind {
        Kind::Text
    }

    fn encode(&self, number: u8, numbered: bool, out: &mut Vec<u8>) {
        write(&self.0, wire(number), numbered, out);
    }

    fn mark(&self) -> Mark {
        self.0.id.0
    }
}

/// By what way a message goes, and so what its recipients are told.
#[derive(Clone, Debug, Default)]
pub enum Way {
    /// Through a group.
    Group(GroupName),
    /// From the application, to everybody, or by several ways at once.
    #[default]
    Server,
    /// To a user, from another.
    User(UserId),
}

impl Way {
    /// The way as nodes tell it each other.
    pub(crate) fn borrow(&self) -> envelope::Way<'_> {
        match self {
            Way::Group(group) => envelope::Way::Group(group),
            Way::Server => envelope::Way::Server,
            Way::User(user) => envelope::Way::User(user),
        }
    }

    /// The way that another node told; none where its name breaks a rule.
    pub(crate) fn of(way: envelope::Way<'_>) -> Option<Self> {
        Some(match way {
            envelope::Way::Group(name) => Way::Group(GroupName::new(name).ok()?),
            envelope::Way::Server => Way::Server,
            envelope::Way::User(name) => Way::User(UserId::new(name).ok()?),
        })
    }
}

/// A message that is kept beyond its frame.
#[derive(Debug)]
pub struct Message {
    /// By what way it goes.
    pub way: Way,
    /// The sender, when it has a user. The server's word, never the client's.
    pub from_user: Option<UserId>,
    /// The server's id of the message.
    pub id: MessageId,
    /// The server's time in Unix milliseconds.
    pub time_ms: u64,
    /// What it carries; nobody looks inside.
    pub payload: Payload,
    /// Its place in its log, where it has one.
    pub position: Option<Position>,
    frames: Frames,
}

impl Message {
    /// Puts a live message together.
    pub fn new(
        way: Way,
        from_user: Option<UserId>,
        id: MessageId,
        time_ms: u64,
        payload: Payload,
    ) -> Arc<Self> {
        let (position, frames) = (None, Frames::default());
        Arc::new(Message { way, from_user, id, time_ms, payload, position, frames })
    }

    /// Puts a message together that has this place in its log.
    pub fn kept(
        way: Way,
        from_user: Option<UserId>,
        id: MessageId,
        time_ms: u64,
        payload: Payload,
        position: Position,
    ) -> Arc<Self> {
        let (position, frames) = (Some(position), Frames::default());
        Arc::new(Message { way, from_user, id, time_ms, payload, position, frames })
    }

    /// The same message by another way.
    pub(crate) fn by(&self, way: Way) -> Self {
        let (from_user, payload) = (self.from_user.clone(), self.payload.clone());
        let (position, frames) = (self.position, Frames::default());
        Message { way, from_user, id: self.id, time_ms: self.time_ms, payload, position, frames }
    }

    /// The same message, now that its log has it at this place.
    pub(crate) fn placed(&self, position: Position) -> Arc<Self> {
        let (way, from_user) = (self.way.clone(), self.from_user.clone());
        Message::kept(way, from_user, self.id, self.time_ms, self.payload.clone(), position)
    }

    fn borrow(&self) -> reply::Message<'_> {
        let from = match &self.way {
            Way::Group(name) => From::Group { name },
            Way::Server => From::Server,
            Way::User(to) => From::User { to },
        };
        let letter = letter(from, self.from_user.as_deref(), self.id, self.time_ms, self.payload.as_data());
        reply::Message { position: self.position, ..letter }
    }
}

impl Encode for Message {
    fn kind(&self, _wire: u8) -> Kind {
        Kind::Text
    }

    fn encode(&self, number: u8, numbered: bool, out: &mut Vec<u8>) {
        write(&self.borrow(), wire(number), numbered, out);
    }

    fn mark(&self) -> Mark {
        // What has a place in a log is told apart by that.
        if self.position.is_some() { 0 } else { self.id.0 }
    }

    fn frames(&self) -> Option<&Frames> {
        Some(&self.frames)
    }
}

/// A live message outside any log or stream.
pub(crate) fn letter<'a>(
    from: From<'a>,
    from_user_id: Option<&'a str>,
    id: MessageId,
    time_ms: u64,
    data: Data<'a>,
) -> reply::Message<'a> {
    reply::Message { from, from_user_id, id, time_ms, data, position: None, stream: None }
}

fn write(message: &reply::Message<'_>, wire: Wire, numbered: bool, out: &mut Vec<u8>) {
    if numbered {
        reply::message_tail(out, wire, message);
    } else {
        reply::message(out, wire, message);
    }
}
