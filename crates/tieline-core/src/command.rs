//! What other threads ask of a shard.

use std::sync::Arc;

use tieline_switchboard::{Address, Shard, Weigh};

use crate::delivery::{Delivery, Outcome};
use crate::operator::Operator;

/// Bytes that a command without a payload of its own counts for in a mailbox.
const SMALL: usize = 128;

/// Work that is handed to a shard whole.
pub type Run = Box<dyn FnOnce(&mut Operator, &mut Shard<Operator>) + Send>;

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
        /// What became of it.
        outcome: Outcome,
    },
    /// Anything else: rare work for the operations interface.
    Run(Run),
}

impl Weigh for Command {
    fn weight(&self) -> usize {
        match self {
            Command::Deliver(delivery) => SMALL + delivery.message.payload.len(),
            Command::Settled { .. } | Command::Run(_) => SMALL,
        }
    }
}
