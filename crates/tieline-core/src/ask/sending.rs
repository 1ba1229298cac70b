//! Messages of the application: from outside the shards to connections of this node.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tieline_proto::{ConnectionId, Filter, GroupName, HubName, Payload, UserId};
use tokio::time::{Instant, sleep};

use crate::command::Command;
use crate::delivery::{Delivery, Outcome, Receipt, Target};
use crate::message::{Message, Way};
use crate::node::{Node, Overloaded};

/// How long the remaining shards are asked again when one of them has taken a message and another is full. A caller that
/// is told to try again sends to the first one twice, so that is the last resort.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often they are asked.
const EVERY: Duration = Duration::from_millis(5);

/// A message of the application, and whom it is for, by name.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Whom to; a connection that several of them name gets it once.
    pub to: Vec<Recipient>,
    /// Connections that do not get it.
    pub except: Vec<ConnectionId>,
    /// A condition on each connection.
    pub filter: Option<Arc<Filter>>,
    /// What it carries.
    pub payload: Payload,
}

/// Somebody that a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Every connection of the hub.
    Everyone,
    /// The members of a group.
    Group(GroupName),
    /// All connections of a user.
    User(UserId),
    /// One connection.
    Connection(ConnectionId),
}

/// Whether the sender wants to know what becomes of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// No: it is enough that it is on its way.
    Nothing,
    /// Yes: the numbers, when every shard has delivered it.
    Outcome,
}

impl Node {
    /// Sends a message to connections of this node. Messages of one caller, each sent after the one before was answered, keep
    /// their order at every connection. Without a wish for the outcome, an empty one is given.
    ///
    /// # Errors
    /// [`Overloaded`] when a shard has too much waiting: then nobody got it, or, where only some of several shards went on being
    /// full for a second, some.
    pub async fn send(&self, hub: &HubName, sending: Sending, wants: Wants) -> Result<Outcome, Overloaded> {
        let named = |to: &&Recipient| matches!(to, Recipient::User(_) | Recipient::Connection(_));
        let Some(hub) = self.hubs().get(hub) else {
            return Ok(Outcome { delivered: 0, unknown: sending.to.iter().filter(named).count() as u64 });
        };
        let Sending { to, except, filter, payload } = sending;
        let way = match &to[..] {
            [Recipient::Group(name)] => Way::Group(name.clone()),
            _ => Way::Server,
        };
        let mut unknown = 0;
        let mut targets = SmallVec::new();
        for recipient in to {
            match recipient {
                Recipient::Everyone => targets.push(Target::Everyone),
                Recipient::Group(name) => targets.extend(hub.group(&name).map(Target::Group)),
                Recipient::User(user) if hub.user_connections(&user) == 0 => unknown += 1,
                Recipient::User(user) => targets.push(Target::User(user)),
                Recipient::Connection(id) if self.address(id).is_none() => unknown += 1,
                Recipient::Connection(id) => targets.push(Target::Connection(id)),
            }
        }
        let (time_ms, id) = self.stamp();
        let mut delivery = Delivery {
            hub,
            message: Message::new(way, None, id, time_ms, payload),
            to: targets,
            except: SmallVec::from_vec(except),
            users: Vec::new(),
            filter,
            receipt: None,
        };
        let shards = self.shards_of(&delivery);
        if shards.is_empty() {
            return Ok(Outcome { delivered: 0, unknown });
        }
        let outcome = (wants == Wants::Outcome).then(|| {
            let (receipt, outcome) = Receipt::waiter(shards.len(), unknown);
            delivery.receipt = Some(receipt);
            outcome
        });
        self.hand_out(&Arc::new(delivery), &shards).await?;
        match outcome {
            Some(outcome) => outcome.await.map_err(|_| Overloaded),
            None => Ok(Outcome::default()),
        }
    }

    async fn hand_out(&self, delivery: &Arc<Delivery>, shards: &[u16]) -> Result<(), Overloaded> {
        let deliver = |shard: u16| self.post(shard, Command::Deliver(Arc::clone(delivery)));
        let (first, rest) = shards.split_first().expect("a delivery has shards");
        deliver(*first)?;
        let mut until = None;
        for shard in rest {
            while deliver(*shard).is_err() {
                if Instant::now() > *until.get_or_insert_with(|| Instant::now() + PATIENCE) {
                    return Err(Overloaded);
                }
                sleep(EVERY).await;
            }
        }
        Ok(())
    }
}
