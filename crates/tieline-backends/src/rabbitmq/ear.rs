//! [`Ear`]: what a node hears by the server. Messages go up, confirms give room back, and everything else ends the connection or means
//! nothing. Tested by the broker's tests.

use std::sync::Arc;

use tieline_core::broker::Inbound;

use super::confirms::Confirms;
use super::frames::Method;
use super::messages::{Messages, Said};
use super::names::Names;
use super::{Counts, Trouble};
use crate::medium::parts::{Came, Joiner};

/// What was among the things that were heard.
#[derive(Default)]
pub(super) struct Heard {
    /// This node's canary: the way there and back is open.
    pub(super) canary: bool,
    /// Whether there was any message: the server hands out what is in the node's queue.
    pub(super) messages: bool,
    /// The cost of envelopes that the server has answered for.
    pub(super) confirmed: usize,
}

/// Hears for one node by one connection.
pub(super) struct Ear {
    messages: Messages,
    names: Arc<Names>,
    joiner: Joiner,
    counts: Arc<Counts>,
    confirms: Arc<Confirms>,
}

impl Ear {
    pub(super) fn new(
        messages: Messages,
        names: Arc<Names>,
        counts: Arc<Counts>,
        confirms: Arc<Confirms>,
    ) -> Self {
        let joiner = Joiner::new(names.node);
        Ear { messages, names, joiner, counts, confirms }
    }

    /// Hands up what was read.
    pub(super) fn hear(&mut self, inbound: &dyn Inbound) -> Result<Heard, Trouble> {
        let mut heard = Heard::default();
        while let Some(said) = self.messages.next()? {
            match said {
                Said::Message { exchange, payload } => {
                    heard.messages = true;
                    let channel = self.names.channel(exchange);
                    match channel.map_or(Came::Foreign, |channel| self.joiner.take(channel, payload)) {
                        Came::Envelope(envelope) => inbound.envelope(&envelope),
                        Came::Canary => heard.canary = true,
                        Came::Echo | Came::Part => {}
                        Came::Foreign => self.counts.foreign(),
                    }
                }
                Said::Returned => self.counts.returned(),
                Said::Method(Method::Ack { tag, and_before }) => {
                    heard.confirmed += self.confirms.confirmed(tag, and_before).1;
                }
                Said::Method(Method::Nack { tag, and_before }) => {
                    let (count, cost) = self.confirms.confirmed(tag, and_before);
                    heard.confirmed += cost;
                    self.counts.refused(count);
                }
                Said::Method(method) => check(&method)?,
            }
        }
        Ok(heard)
    }

    /// Reads on. What was read is kept when this is not waited for to the end.
    pub(super) async fn read(&mut self) -> Result<(), Trouble> {
        match self.messages.read().await {
            Ok(0) => Err(Trouble::Left),
            Ok(_) => Ok(()),
            Err(error) => Err(Trouble::Io(error)),
        }
    }
}

/// What may not be said to a connection that is to go on.
pub(super) fn check(method: &Method<'_>) -> Result<(), Trouble> {
    match method {
        Method::Close { text } => Err(Trouble::refused(text)),
        Method::Blocked { reason } => Err(Trouble::blocked(reason)),
        Method::Cancel => Err(Trouble::Refused("the node's queue is gone".to_owned())),
        Method::CloseOk => Err(Trouble::Left),
        _ => Ok(()),
    }
}
