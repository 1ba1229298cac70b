//! [`Envelope`]: what nodes say to each other, in bytes.
//!
//! Messages and their receipts are the hot path and have a binary form that borrows from the bytes it is read
//! from; everything else is rare and is JSON. The first byte is the version: a node reads its own and the one
//! before, and refuses others whole. Integers are little-endian; a text is its length in four bytes and UTF-8.
//! Tested below: what is written reads back, and no bytes panic or make it allocate beyond them.

use serde::{Deserialize, Serialize};

use crate::id::{ConnectionId, GroupName, HubName, Incarnation, MessageId, NodeName, Position, UserId};
use crate::payload::DataType;
use crate::presence::Present;

mod bytes;
#[cfg(test)]
mod tests;

use bytes::{Reader, Writer};

/// The version that is written.
pub const VERSION: u8 = 1;

/// Bytes of the header, before what is said.
pub const HEADER: usize = 20;

/// What is before every word: who says it, to whom, and which number it has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The node that says it. Nobody forwards what another said.
    pub origin: Incarnation,
    /// Whether it is said to all nodes or to one; each of the two is numbered by itself.
    pub to_all: bool,
    /// Its number, from 1, among what the origin said to all, or to this node. 0 is for words that need no number,
    /// because losing them does no harm.
    pub number: u64,
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Written by a version that is not understood.
    #[error("the envelope has version {0}")]
    Version(u8),
    /// Cut off, or not what it claims to be.
    #[error("the envelope is malformed")]
    Malformed,
}

/// By what way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// Through a group.
    Group(&'a str),
    /// From the application, to everybody, or by several ways.
    Server,
    /// To a user.
    User(&'a str),
}

/// A message for connections of the node that reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// The namespace.
    pub hub: &'a str,
    /// By what way it goes.
    pub way: Way<'a>,
    /// The sender's user.
    pub from_user: Option<&'a str>,
    /// Its id.
    pub id: MessageId,
    /// Its time in Unix milliseconds.
    pub time_ms: u64,
    /// What the payload is.
    pub data_type: DataType,
    /// The payload as JSON text.
    pub json: &'a str,
    /// To everybody in the hub.
    pub everyone: bool,
    /// To the members of these groups.
    pub groups: Vec<&'a str>,
    /// To these users.
    pub users: Vec<&'a str>,
    /// The node with the newest claim to each of these users, as far as the origin knows; 0 for one that nobody claims.
    pub newest: Vec<Incarnation>,
    /// To these connections.
    pub connections: Vec<ConnectionId>,
    /// Not to these connections.
    pub except: Vec<ConnectionId>,
    /// When not empty, only to connections of these users.
    pub only_users: Vec<&'a str>,
    /// A condition on each connection, in the language of filters.
    pub filter: Option<&'a str>,
    /// Under which number the origin waits for a receipt; 0 when it does not.
    pub receipt: u64,
    /// Its place in the log of its one group or user, where it has one.
    pub position: Option<Position>,
    /// Whether its user is given it later than others, having been on the way: connections that were there before have it.
    pub handed_on: bool,
}

/// A change of what a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The namespace.
    pub hub: HubName,
    /// What it holds, or holds no longer.
    pub what: Held,
    /// Whether it holds it from now on.
    pub held: bool,
    /// The number of its newest claim to a user that it holds, or of who is present; else 0.
    #[serde(default)]
    pub claim: u64,
}

/// Something of which a node holds connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// A user.
    User(UserId),
    /// A group: the node's interest in it.
    Group(GroupName),
    /// A connection whose id does not say that it is on this node: it has come from another.
    Connection(ConnectionId),
    /// The one place that a user, or a device of it, has in a hub where it may have no more: the user, and the device, which is
    /// empty where the user has one place.
    Login(UserId, String),
    /// Connections of a user in a place where it is told who is present. The number of its claim says how many, and since when
    /// the user is there, as [`Stay`](crate::presence::Stay) has it.
    Present(Present),
}

/// What a node says of itself once a beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Its stable name.
    pub name: NodeName,
    /// Where clients reach it.
    pub client_url: String,
    /// The number of the last envelope that it said to all.
    pub last_to_all: u64,
    /// Version of its roster: how many changes it has stated.
    pub version: u64,
    /// Digest of its roster, equal when the rosters are.
    pub digest: u64,
    /// Its connections.
    pub connections: u64,
    /// The nodes that it reaches, where the broker tells it: for these it vouches.
    #[serde(default)]
    pub reaches: Vec<Incarnation>,
    /// Whether it asks the others for a beat of their own, because it may have missed what they said.
    #[serde(default)]
    pub wants_answer: bool,
    /// The id of its store, where it has one: nodes share their logs only where these are equal.
    #[serde(default)]
    pub store: Option<String>,
    /// Where other nodes reach it; empty where they do not connect to it.
    #[serde(default)]
    pub peer_url: String,
    /// How many shares of the clients it is to have.
    #[serde(default = "one")]
    pub weight: u32,
    /// How many connections it may hold; 0 where it does not say.
    #[serde(default)]
    pub capacity: u64,
    /// The version of its program; empty from one that does not say.
    #[serde(default)]
    pub program: String,
    /// Where it says that connections belong; empty from one that does not say.
    #[serde(default)]
    pub placement: String,
    /// Whether it gives its clients away and takes no new ones.
    #[serde(default)]
    pub draining: bool,
    /// What it calls its directory: only those that call theirs the same find each other's users by it.
    #[serde(default = "replicated")]
    pub directory: Box<str>,
}

/// The directory of a node that says nothing of it.
fn replicated() -> Box<str> {
    "replicated".into()
}

/// The weight of a node that says nothing of it.
fn one() -> u32 {
    1
}

/// Anything that nodes say to each other.
#[derive(Debug, Clone, PartialEq)]
pub enum Envelope<'a> {
    /// A message.
    Message(Message<'a>),
    /// What became of a message that was received: its receipt number, recipients reached, and targets unknown.
    Receipt(u64, u64, u64),
    /// Anything else.
    Rare(Rare),
}

/// What nodes say rarely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Rare {
    /// A sign of life.
    Beat(Beat),
    /// Changes of the origin's roster, which make it version `.0`.
    Changes(u64, Vec<Change>),
    /// The receiver's roster has been read up to this version.
    Read(u64),
    /// The receiver is asked for its whole roster.
    RosterWanted,
    /// A part of the origin's whole roster, of version `.0`, which so many parts follow: each entry with the number of
    /// its claim, 0 for a group.
    Roster(u64, u32, Vec<(HubName, Held, u64)>),
    /// Something asked of the receiver about its connections of a hub, under a number: the ask as JSON.
    Ask(u64, HubName, String),
    /// A wish of the origin about a connection of the receiver that comes to the origin, under a number: as JSON.
    Wish(u64, String),
    /// The receiver is asked to answer under a number, with nothing, behind all that it has said to the origin.
    Fence(u64),
    /// The answer to an ask or a wish, as JSON; none where the receiver could not carry it out.
    Answer(u64, Option<String>),
    /// The client of a connection of the receiver has another one now, of the same user.
    Replaced(HubName, ConnectionId, UserId),
    /// The receiver is to be emptied, as an operator wishes.
    Drain,
    /// The number of the last envelope that the origin said to the receiver alone.
    Tail(u64),
    /// What the receiver remembers of where these users are is old; all that it remembers, where none is named. It answers that it
    /// has forgotten what has a number other than 0.
    Stale(Vec<(u64, HubName, UserId)>),
    /// The origin has forgotten what it was told is stale, under these numbers.
    Forgotten(Vec<u64>),
    /// The origin stops.
    Goodbye,
}

impl From<Rare> for Envelope<'_> {
    fn from(rare: Rare) -> Self {
        Envelope::Rare(rare)
    }
}

/// The byte before what is said.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Message = 1,
    Receipt = 2,
    Json = 3,
}

/// That a receiver has to wait for what it was told before on the other channel: the receiver, and the number there.
pub type After = (Incarnation, u64);

impl Header {
    /// Writes the header, with at most 65,535 receivers that have to wait for another channel. What is said follows by
    /// [`Envelope::write`].
    pub fn write(&self, after: &[After], out: &mut Vec<u8>) {
        let mut writer = Writer(out);
        writer.byte(VERSION);
        writer.byte(u8::from(self.to_all));
        writer.number(self.origin.0);
        writer.number(self.number);
        let count = u16::try_from(after.len()).unwrap_or(u16::MAX);
        writer.bytes(&count.to_le_bytes());
        for (receiver, number) in &after[..usize::from(count)] {
            writer.number(receiver.0);
            writer.number(*number);
        }
    }

    /// Reads the header, and for which number of the other channel `receiver` has to wait.
    ///
    /// # Errors
    /// When the bytes are too few, or of another version.
    pub fn read(bytes: &[u8], receiver: Incarnation) -> Result<(Header, Option<u64>, &[u8]), EnvelopeError> {
        let mut reader = Reader(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(EnvelopeError::Version(other)),
        }
        let to_all = reader.byte()? != 0;
        let origin = Incarnation(reader.number()?);
        let number = reader.number()?;
        let mut after = None;
        for _ in 0..u16::from_le_bytes(reader.array()?) {
            let (of, number) = (reader.number()?, reader.number()?);
            if of == receiver.0 {
                after = Some(number);
            }
        }
        Ok((Header { origin, to_all, number }, after, reader.0))
    }
}

impl<'a> Envelope<'a> {
    /// Writes what is said, behind the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer(out);
        match self {
            Envelope::Message(message) => {
                writer.byte(Kind::Message as u8);
                message.write(&mut writer);
            }
            Envelope::Receipt(number, delivered, unknown) => {
                writer.byte(Kind::Receipt as u8);
                [number, delivered, unknown].into_iter().for_each(|n| writer.number(*n));
            }
            Envelope::Rare(rare) => {
                writer.byte(Kind::Json as u8);
                serde_json::to_writer(out, rare).expect("names and numbers are JSON");
            }
        }
    }

    /// Reads what is said, behind the header.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn read(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader(bytes);
        match reader.byte()? {
            kind if kind == Kind::Message as u8 => {
                let message = Message::read(&mut reader)?;
                reader.end()?;
                Ok(Envelope::Message(message))
            }
            kind if kind == Kind::Receipt as u8 => {
                let receipt = Envelope::Receipt(reader.number()?, reader.number()?, reader.number()?);
                reader.end()?;
                Ok(receipt)
            }
            kind if kind == Kind::Json as u8 => {
                let rare = serde_json::from_slice(reader.0).map_err(|_| EnvelopeError::Malformed)?;
                Ok(Envelope::Rare(rare))
            }
            _ => Err(EnvelopeError::Malformed),
        }
    }
}

impl<'a> Message<'a> {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.text(self.hub);
        match self.way {
            Way::Server => writer.byte(0),
            Way::Group(name) => {
                writer.byte(1);
                writer.text(name);
            }
            Way::User(name) => {
                writer.byte(2);
                writer.text(name);
            }
        }
        writer.optional_text(self.from_user);
        writer.bytes(&self.id.0.to_le_bytes());
        writer.number(self.time_ms);
        writer.byte(self.data_type as u8);
        writer.text(self.json);
        writer.byte(u8::from(self.everyone));
        writer.texts(&self.groups);
        writer.texts(&self.users);
        let newest = |at| self.newest.get(at).map_or(0, |node: &Incarnation| node.0);
        (0..self.users.len()).for_each(|at| writer.number(newest(at)));
        writer.ids(&self.connections);
        writer.ids(&self.except);
        writer.texts(&self.only_users);
        writer.optional_text(self.filter);
        writer.number(self.receipt);
        writer.byte(u8::from(self.position.is_some()) | u8::from(self.handed_on) << 1);
        if let Some(Position { epoch, offset }) = self.position {
            writer.number(epoch);
            writer.number(offset);
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, EnvelopeError> {
        let mut message = Message {
            hub: reader.text()?,
            way: match reader.byte()? {
                0 => Way::Server,
                1 => Way::Group(reader.text()?),
                2 => Way::User(reader.text()?),
                _ => return Err(EnvelopeError::Malformed),
            },
            from_user: reader.optional_text()?,
            id: MessageId(u128::from_le_bytes(reader.array()?)),
            time_ms: reader.number()?,
            data_type: match reader.byte()? {
                0 => DataType::Json,
                1 => DataType::Text,
                2 => DataType::Binary,
                3 => DataType::Protobuf,
                _ => return Err(EnvelopeError::Malformed),
            },
            json: reader.text()?,
            everyone: reader.byte()? != 0,
            groups: reader.texts()?,
            users: reader.texts()?,
            newest: Vec::new(),
            connections: Vec::new(),
            except: Vec::new(),
            only_users: Vec::new(),
            filter: None,
            receipt: 0,
            position: None,
            handed_on: false,
        };
        for _ in 0..message.users.len() {
            message.newest.push(Incarnation(reader.number()?));
        }
        message.connections = reader.ids()?;
        message.except = reader.ids()?;
        message.only_users = reader.texts()?;
        message.filter = reader.optional_text()?;
        message.receipt = reader.number()?;
        let flags = reader.byte()?;
        if flags > 3 {
            return Err(EnvelopeError::Malformed);
        }
        message.handed_on = flags & 2 != 0;
        if flags & 1 != 0 {
            message.position = Some(Position { epoch: reader.number()?, offset: reader.number()? });
        }
        Ok(message)
    }

    /// The bytes that a log keeps of a message: the same as an envelope, behind the version. They outlive the node that
    /// wrote them, so a later version goes on reading them.
    #[must_use]
    pub fn to_log(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + self.json.len());
        let mut writer = Writer(&mut bytes);
        writer.byte(VERSION);
        self.write(&mut writer);
        bytes
    }

    /// Reads what [`Message::to_log`] wrote.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn of_log(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(EnvelopeError::Version(other)),
        }
        let message = Message::read(&mut reader)?;
        reader.end()?;
        Ok(message)
    }
}
