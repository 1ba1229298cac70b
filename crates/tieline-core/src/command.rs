//! What other threads ask of a shard.

use std::sync::Arc;

use tieline_proto::reply::Recovered;
use tieline_proto::{ConnectionId, GroupName, HubName, Position, UserId};
use tieline_switchboard::{Address, Shard, Weigh};
use tokio::sync::oneshot;

use crate::delivery::{Delivery, Outcome};
use crate::events::{EventAnswer, ReplyTo};
use crate::hub::Hub;
use crate::logins::Login;
use crate::logs::{Admission, Entry, Item, KeepError};
use crate::operator::Operator;
use crate::presence::Announcement;
use crate::store::LogKey;

/// Bytes that a command without a payload of its own counts for in a mailbox.
const SMALL: usize = 128;

/// Work that is handed to a shard whole.
pub type Run = Box<dyn FnOnce(&mut Operator, &mut Shard<Operator>) + Send>;

/// What a connection waits to do until the other nodes have read of it. It holds its names in the cluster already.
#[derive(Debug)]
pub enum Then {
    /// To be greeted, as this user and in these groups.
    Greet {
        /// Its hub.
        hub: HubName,
        /// Its user, if it is anybody.
        user: Option<UserId>,
        /// The number of its claim to that user in the cluster.
        claim: u64,
        /// Its claim to the one place that its user has, where that has no more.
        login: Option<Box<Login>>,
        /// The groups of its token.
        groups: Vec<GroupName>,
        /// Those that its user is to be a stored member of.
        joins: Vec<GroupName>,
        /// The device of its user that it is, as its token says.
        device: Option<Box<str>>,
        /// The connection that its client had before, which is closed then. Boxed, because hardly any has one.
        replaces: Option<Box<ConnectionId>>,
    },
    /// To be a member of a group, and told so.
    Join {
        /// Its hub.
        hub: HubName,
        /// The group.
        group: GroupName,
        /// The ack that it wants.
        ack_id: Option<u64>,
        /// What it saw last of the group's log, where it asked for what it missed.
        since: Option<Position>,
    },
    /// To know what its user is a stored member of.
    List,
    /// To be in the groups that its user is a stored member of: in this one, or, without one, in whichever is the next.
    Attend(Option<GroupName>),
    /// To be told that its user is a member of a group no longer.
    Leave {
        /// The ack that it wants.
        ack_id: Option<u64>,
    },
    /// To be in a log again, at the place where it was on another node: that of a group, or its user's inbox.
    Return {
        /// Its hub.
        hub: HubName,
        /// The group; none for the inbox.
        group: Option<GroupName>,
        /// Told how it is in; dropped when the connection has ended.
        done: oneshot::Sender<Result<Option<Recovered>, KeepError>>,
    },
    /// To get its user's inbox.
    Hear {
        /// The ack that it wants.
        ack_id: Option<u64>,
        /// Whether it is given the inbox without having asked: then it is told of no error, and given it later.
        by_itself: bool,
    },
}

/// Something to be done on the shard's own thread.
pub enum Command {
    /// A message for connections of this shard.
    Deliver(Arc<Delivery>),
    /// What became of a message that a connection of this shard sent: its ack is due.
    Settled {
        /// The connection.
        address: Address,
        /// The ackId of its request.
        ack_id: u64,
        /// What became of it; `None` where not all nodes answered in time.
        outcome: Option<Outcome>,
    },
    /// The other nodes have read what a connection waited for; or, with an admission, it has what it missed of its logs.
    GoOn(Address, Then, Option<Admission>),
    /// Messages that a connection missed.
    CatchUp {
        /// The connection.
        address: Address,
        /// Its hub.
        hub: Arc<Hub>,
        /// Their log.
        log: LogKey,
        /// In the order of the log.
        entries: Arc<[Entry]>,
        /// To whom of the clerk's entrants it is to tell how much it has coming then.
        tells_lag: Option<u64>,
    },
    /// A connection is to tell this entrant how much it has coming.
    TellLag(Address, u64),
    /// A message that a connection sent is kept, or is not: its ack is due.
    Kept {
        /// The connection.
        address: Address,
        /// The ackId of its request.
        ack_id: Option<u64>,
        /// What became of it.
        result: Result<(), KeepError>,
    },
    /// What the application answers to an event.
    Answered(ReplyTo, Box<EventAnswer>),
    /// Who has come and gone, for connections of this shard that are told.
    Announce(Arc<Announcement>),
    /// Messages of other nodes may have been missed.
    Gap,
    /// Anything else: rare work for the operations interface.
    Run(Run),
}

impl Weigh for Command {
    fn weight(&self) -> usize {
        match self {
            Command::Deliver(delivery) => SMALL + delivery.message.payload.len(),
            Command::Answered(_, answer) => {
                let data = answer.outcome.as_ref().ok().and_then(Option::as_ref);
                SMALL + data.map_or(0, |data| data.len())
            }
            Command::Announce(announcement) => SMALL + announcement.len(),
            Command::CatchUp { entries, .. } => SMALL + entries.iter().map(Item::bytes).sum::<usize>(),
            Command::Settled { .. }
            | Command::GoOn(..)
            | Command::TellLag(..)
            | Command::Kept { .. }
            | Command::Gap
            | Command::Run(_) => SMALL,
        }
    }
}
