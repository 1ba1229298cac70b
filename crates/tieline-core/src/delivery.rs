//! A message with its targets, on its way to the shards of this node.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;
use tieline_proto::filter::Filter;
use tieline_proto::{ConnectionId, UserId};
use tieline_switchboard::Address;
use tokio::sync::oneshot;

use crate::hub::{Group, Hub};
use crate::message::Message;

/// Who gets a message. A connection that several targets name gets it once.
#[derive(Clone, Debug)]
pub enum Target {
    /// Everybody in the hub.
    Everyone,
    /// The members of a group.
    Group(Arc<Group>),
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
    /// Connections that do not get it.
    pub except: SmallVec<[ConnectionId; 1]>,
    /// When not empty, only connections of these users.
    pub users: Vec<UserId>,
    /// A condition on each connection.
    pub filter: Option<Arc<Filter>>,
    /// Where the number of recipients is gathered, if anybody asked.
    pub receipt: Option<Arc<Receipt>>,
}

/// Gathers from several shards how many connections a message was handed to.
pub struct Receipt {
    /// Shards whose answer is missing.
    missing: AtomicU32,
    delivered: AtomicU64,
    /// Named users and connections that nobody holds.
    unknown: AtomicU64,
    reply_to: ReplyTo,
}

/// Who wants to know.
pub enum ReplyTo {
    /// A connection, by the ackId of its request.
    Connection(Address, u64),
    /// Somebody outside the shards.
    Waiter(Mutex<Option<oneshot::Sender<Outcome>>>),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Connections that it was handed to.
    pub delivered: u64,
    /// Named users and connections that nobody holds.
    pub unknown: u64,
}

impl Receipt {
    /// A receipt that waits for `shards` answers, with what is unknown already.
    pub fn new(shards: usize, unknown: u64, reply_to: ReplyTo) -> Arc<Self> {
        Arc::new(Receipt {
            missing: AtomicU32::new(shards as u32),
            delivered: AtomicU64::new(0),
            unknown: AtomicU64::new(unknown),
            reply_to,
        })
    }

    /// A receipt for somebody outside the shards, and where its outcome arrives.
    pub fn waiter(shards: usize, unknown: u64) -> (Arc<Self>, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        (Receipt::new(shards, unknown, ReplyTo::Waiter(Mutex::new(Some(sender)))), receiver)
    }

    /// One shard's answer. The last one gives the outcome, and to whom it goes if that is a connection.
    pub fn add(&self, outcome: Outcome) -> Option<(Address, u64, Outcome)> {
        self.delivered.fetch_add(outcome.delivered, Ordering::Relaxed);
        self.unknown.fetch_add(outcome.unknown, Ordering::Relaxed);
        if self.missing.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let outcome = Outcome {
            delivered: self.delivered.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        };
        match &self.reply_to {
            ReplyTo::Connection(address, ack_id) => Some((*address, *ack_id, outcome)),
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
