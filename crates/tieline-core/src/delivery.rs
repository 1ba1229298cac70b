//! A message with its targets, on its way to the shards of this node.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;
use tieline_proto::filter::Filter;
use tieline_proto::{ConnectionId, GroupName, Incarnation, UserId};
use tieline_switchboard::Address;
use tokio::sync::oneshot;

use crate::hub::Hub;
use crate::message::Message;

/// Who gets a message. A connection that several targets name gets it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everybody in the hub.
    Everyone,
    /// The members of a group, whichever they are when the message comes to their shard.
    Group(GroupName),
    /// All connections of a user.
    User(UserId),
    /// One connection.
    Connection(ConnectionId),
}

/// A message for connections of this node, shared by the shards that hold them.
pub struct Delivery {
    /// The namespace; targets of another are not reached.
    pub hub: Arc<Hub>,
    /// What is delivered.
    pub message: Arc<Message>,
    /// Whom to.
    pub to: SmallVec<[Target; 1]>,
    /// Where that is one user and nobody else, the node with the newest claim, as the origin knew when it sent the message: that one
    /// holds it for a user who is on the way. Where it did not know, whoever claims the user does.
    pub newest: Option<Incarnation>,
    /// Whether it was held for a user on the way: only connections that came since, and have it not, get it.
    pub handed_on: bool,
    /// Connections that do not get it.
    pub except: SmallVec<[ConnectionId; 1]>,
    /// When not empty, only connections of these users.
    pub users: Vec<UserId>,
    /// A condition on each connection.
    pub filter: Option<Arc<Filter>>,
    /// Where the number of recipients is gathered, if anybody asked.
    pub receipt: Option<Arc<Receipt>>,
}

impl Delivery {
    /// The same for one user and nobody else.
    pub(crate) fn for_user(&self, user: &UserId) -> Delivery {
        Delivery {
            hub: Arc::clone(&self.hub),
            message: Arc::clone(&self.message),
            to: SmallVec::from_iter([Target::User(user.clone())]),
            newest: None,
            handed_on: false,
            except: self.except.clone(),
            users: self.users.clone(),
            filter: self.filter.clone(),
            receipt: self.receipt.clone(),
        }
    }
}

/// Gathers from shards and other nodes how many connections a message was handed to.
pub struct Receipt {
    /// Shards and nodes whose answer is missing.
    missing: AtomicU32,
    delivered: AtomicU64,
    /// Named users and connections that nobody holds.
    unknown: AtomicU64,
    /// Nodes that the message could not be given to.
    unreachable: AtomicU64,
    /// Users for whom a log keeps it.
    queued: AtomicU64,
    /// Users of whom it was not known whether anybody holds them.
    doubtful: AtomicU64,
    /// Whether the answer was given, by the last who answered or because the time was up.
    done: AtomicBool,
    reply_to: ReplyTo,
}

/// Who wants to know.
enum ReplyTo {
    /// A connection, by the ackId of its request.
    Connection(Address, u64),
    /// Another node, by its number.
    Node(Incarnation, u64),
    /// Somebody outside the shards.
    Waiter(Mutex<Option<oneshot::Sender<Option<Outcome>>>>),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Connections that it was handed to.
    pub delivered: u64,
    /// Named users and connections that nobody holds.
    pub unknown: u64,
    /// Other nodes that may hold recipients and that the message could not be given to.
    pub unreachable: u64,
    /// Users without a connection, for whom a log keeps it until they come back.
    pub queued: u64,
    /// Named users of whom it was not known whether anybody holds them: they are unknown where nobody was reached.
    pub doubtful: u64,
}

impl Outcome {
    /// So many connections were reached, and nothing is to be said of others.
    pub fn delivered(delivered: u64) -> Self {
        Outcome { delivered, ..Outcome::default() }
    }
}

/// An answer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// To a connection of this node, by the ackId of its request. `None` where not all answered in time.
    Connection(Address, u64, Option<Outcome>),
    /// To another node, by its number.
    Node(Incarnation, u64, Outcome),
}

impl Receipt {
    /// A receipt for a connection that waits for `answers`, with what is known already.
    pub fn for_connection(answers: usize, known: Outcome, address: Address, ack_id: u64) -> Arc<Self> {
        Receipt::new(answers, known, ReplyTo::Connection(address, ack_id))
    }

    /// A receipt that another node asked for by a number.
    pub fn for_node(answers: usize, node: Incarnation, number: u64) -> Arc<Self> {
        Receipt::new(answers, Outcome::default(), ReplyTo::Node(node, number))
    }

    /// A receipt for somebody outside the shards, and where its outcome arrives: `None` when not all answered in
    /// time.
    pub fn waiter(answers: usize, known: Outcome) -> (Arc<Self>, oneshot::Receiver<Option<Outcome>>) {
        let (sender, receiver) = oneshot::channel();
        (Receipt::new(answers, known, ReplyTo::Waiter(Mutex::new(Some(sender)))), receiver)
    }

    fn new(answers: usize, known: Outcome, reply_to: ReplyTo) -> Arc<Self> {
        Arc::new(Receipt {
            missing: AtomicU32::new(answers as u32),
            delivered: AtomicU64::new(known.delivered),
            unknown: AtomicU64::new(known.unknown),
            unreachable: AtomicU64::new(known.unreachable),
            queued: AtomicU64::new(known.queued),
            doubtful: AtomicU64::new(known.doubtful),
            done: AtomicBool::new(false),
            reply_to,
        })
    }

    /// One answer. The last one gives what is to be told, if that is not told here.
    pub fn add(&self, outcome: Outcome) -> Option<Settled> {
        self.delivered.fetch_add(outcome.delivered, Ordering::Relaxed);
        self.unknown.fetch_add(outcome.unknown, Ordering::Relaxed);
        self.unreachable.fetch_add(outcome.unreachable, Ordering::Relaxed);
        self.queued.fetch_add(outcome.queued, Ordering::Relaxed);
        self.doubtful.fetch_add(outcome.doubtful, Ordering::Relaxed);
        if self.missing.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let mut outcome = Outcome {
            delivered: self.delivered.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            unreachable: self.unreachable.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            doubtful: self.doubtful.load(Ordering::Relaxed),
        };
        if (outcome.delivered, outcome.unknown, outcome.unreachable) == (0, 0, 0) {
            outcome.unknown = std::mem::take(&mut outcome.doubtful);
        }
        self.finish(Some(outcome))
    }

    /// So many more answers are waited for. Only whoever owes one itself may say so.
    pub(crate) fn await_more(&self, answers: usize) {
        self.missing.fetch_add(answers as u32, Ordering::AcqRel);
    }

    /// Whether its answer was given.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The time is up: what is not known by now is told so.
    pub fn give_up(&self) -> Option<Settled> {
        self.finish(None)
    }

    fn finish(&self, outcome: Option<Outcome>) -> Option<Settled> {
        if self.done.swap(true, Ordering::AcqRel) {
            return None;
        }
        match &self.reply_to {
            ReplyTo::Connection(address, ack_id) => Some(Settled::Connection(*address, *ack_id, outcome)),
            ReplyTo::Node(node, number) => outcome.map(|outcome| Settled::Node(*node, *number, outcome)),
            ReplyTo::Waiter(waiter) => {
                let waiter = waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waiter) = waiter {
                    // The waiter may have given up: then nobody wants to know any more.
                    let _ = waiter.send(outcome);
                }
                None
            }
        }
    }
}
