//! [`Fresh`]: connections of users who have come from another node a moment ago, and the live messages to their users that they were given.
//!
//! What was held for such a user comes late, and its origin may have given it to this node as well: a connection gets it if it came
//! after the message, which means that it is here and was not given it.

use std::collections::HashMap;

use tieline_proto::MessageId;
use tieline_switchboard::Address;

use crate::transit::PATIENCE;

/// Messages that are remembered of one connection. Of one that gets more in so short a time, held ones may come twice.
const MESSAGES: usize = 4096;

/// The connections, by their addresses.
#[derive(Default)]
pub(super) struct Fresh {
    of: HashMap<Address, Given>,
}

/// What a message is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giving {
    /// It was here before anything that is held.
    NotFresh,
    /// It has not had it.
    First,
    /// It has had it.
    Again,
}

struct Given {
    /// When it is like any other, in Unix milliseconds.
    until: u64,
    messages: Vec<MessageId>,
}

impl Fresh {
    /// A connection has come.
    pub(super) fn add(&mut self, address: Address, now: u64) {
        // What is held for its user was held for so long at most, and as long again may pass on its way.
        let until = now + 2 * PATIENCE.as_millis() as u64;
        self.of.insert(address, Given { until, messages: Vec::new() });
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// A connection is given a message to its user, unless it had it. Returns how that is: what was held may come before what was
    /// not.
    pub(super) fn give(&mut self, address: Address, message: MessageId) -> Giving {
        let Some(given) = self.of.get_mut(&address) else { return Giving::NotFresh };
        if given.messages.contains(&message) {
            return Giving::Again;
        }
        if given.messages.len() < MESSAGES {
            given.messages.push(message);
        }
        Giving::First
    }

    /// A connection has ended. Returns what it was given.
    pub(super) fn remove(&mut self, address: Address) -> Vec<MessageId> {
        self.of.remove(&address).map(|given| given.messages).unwrap_or_default()
    }

    /// Forgets those that are like any other.
    pub(super) fn tidy(&mut self, now: u64) {
        self.of.retain(|_, given| given.until > now);
    }
}
