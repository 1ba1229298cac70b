//! [`History`]: what senders said and what receivers heard. Each keeps its own order; one clock is everybody's.
//!
//! Plain data, written by whoever runs the cluster. Names are kept once; elsewhere everybody is a number, because a long run has
//! millions of events.

use std::fmt;
use std::ops::Range;

/// One message, wherever it is met: its payload says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// Place in [`History::senders`].
    pub sender: u16,
    /// Place in [`History::targets`].
    pub target: u16,
    /// Rises by one with each message of this sender to this target, from 0.
    pub counter: u32,
}

/// A place in a log. The position 0/0 is before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Which life of the log; another one after the store has lost something.
    pub epoch: u64,
    /// Rises by one with each message of the log, from 1.
    pub offset: u64,
}

impl Position {
    /// Before the first message of any log.
    pub const START: Position = Position { epoch: 0, offset: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.offset)
    }
}

/// What is promised to a target's audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A group without history: at most once, in order for each sender, and holes are told of.
    Live,
    /// A group with history: nothing that was acknowledged is lost.
    Durable,
    /// The inbox of this user: the same, for nobody else.
    Inbox(String),
}

/// What messages are sent to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As people know it.
    pub name: String,
    /// What is promised.
    pub kind: Kind,
}

/// What a sender was told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Acked,
    /// Every attempt was refused: nobody may ever get it.
    Refused,
    /// Neither, or one attempt was left without an answer: it may have arrived or not.
    Unknown,
}

/// A message as its sender knows it.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    /// Whither, and its number.
    pub target: u16,
    /// Its number among the sender's messages to this target.
    pub counter: u32,
    /// When it was said for the first time, in milliseconds of the run.
    pub at: u32,
    /// The sender's connection that said it first. Live messages are said once, and keep their order within one connection.
    pub connection: u32,
    /// What came of it in the end.
    pub outcome: Outcome,
}

/// One who sends.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// As people know it.
    pub name: String,
    /// In the order in which they were said.
    pub sends: Vec<Send>,
}

/// Something that happened to a receiver.
#[derive(Clone, Debug)]
pub struct Event {
    /// In milliseconds of the run.
    pub at: u32,
    /// The receiver's connection that it happened on. They are numbered in their order, and one ends before the next begins.
    pub connection: u32,
    /// What it was.
    pub what: What,
}

/// What happens to a receiver. Targets are places in [`History::targets`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A new connection, which is in no group.
    Opened,
    /// It asked for a target. With `since`, for what it has missed, too.
    Asked {
        /// Whose messages it wants.
        target: u16,
        /// The last position that it has; none to begin now, or, for an inbox, wherever the server knows it to be.
        since: Option<Position>,
    },
    /// It was let in.
    Joined {
        /// Whose messages come from now on.
        target: u16,
        /// Whether it has got all it missed, where it asked for that; false with the reason.
        recovered: Option<Result<(), String>>,
        /// What comes from now on is behind this; none for a live target.
        position: Option<Position>,
    },
    /// It was not let in, or asked to get out.
    Leaving(u16),
    /// It is out.
    Left(u16),
    /// A message.
    Heard {
        /// By which target it came.
        by: u16,
        /// What its payload says it is.
        message: Message,
        /// Its place in the log; none for a live one.
        position: Option<Position>,
    },
    /// Something that is no message of this run, and its text.
    Strange(String),
    /// It was told that messages may be missing.
    Gap,
    /// The connection has ended, or was given up.
    Closed,
}

/// One who listens.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    /// As people know it.
    pub name: String,
    /// The user that it connects as.
    pub user: String,
    /// In the order in which they happened.
    pub events: Vec<Event>,
}

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What messages were sent to.
    pub targets: Vec<Target>,
    /// Who sent.
    pub senders: Vec<Sender>,
    /// Who listened. In the end each has had the time to catch up.
    pub receivers: Vec<Receiver>,
    /// Times, in milliseconds, in which nothing was broken and everybody knew of everybody.
    pub calm: Vec<Range<u32>>,
    /// Something made the store lose what it had, more than once perhaps: a log may begin anew, and who is told so is owed only
    /// what comes from then on.
    pub store_lost: bool,
    /// When the run ended, in milliseconds: connections that are still open end then.
    pub end: u32,
    /// How long after a hole its notice may come, in milliseconds.
    pub notice_within: u32,
}
