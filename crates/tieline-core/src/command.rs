//! What other threads ask of a shard.

use std::sync::Arc;

use tieline_proto::{GroupName, HubName, UserId};
use tieline_switchboard::{Address, Shard, Weigh};

use crate::delivery::{Delivery, Outcome};
use crate::operator::Operator;

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
        /// The groups of its token.
        groups: Vec<GroupName>,
    },
    /// To be a member of a group, and told so.
    Join {
        /// Its hub.
        hub: HubName,
        /// The group.
        group: GroupName,
        /// The ack that it wants.
        ack_id: Option<u64>,
        /// Whether it asked for what it missed.
        recovers: bool,
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
    /// The other nodes have read what a connection waited for.
    GoOn(Address, Then),
    /// Messages of other nodes may have been missed.
    Gap,
    /// Anything else: rare work for the operations interface.
    Run(Run),
}

impl Weigh for Command {
    fn weight(&self) -> usize {
        match self {
            Command::Deliver(delivery) => SMALL + delivery.message.payload.len(),
            Command::Settled { .. } | Command::GoOn(..) | Command::Gap | Command::Run(_) => SMALL,
        }
    }
}
