//! Messages of the application: from outside the shards to connections of this node.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tieline_proto::{ConnectionId, Filter, HubName, Payload};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::command::Command;
use crate::delivery::{Delivery, Outcome, Receipt, Target};
use crate::logs::{KeepError, Logs, Publishing, Reply};
use crate::message::{Message, Way};
use crate::node::{Node, Overloaded};
use crate::store::{AppendKey, Refusal};

/// How long the remaining shards are asked again when one of them has taken a message and another is full. A caller that
/// is told to try again sends to the first one twice, so that is the last resort.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often they are asked.
const EVERY: Duration = Duration::from_millis(5);

/// A message of the application, and whom it is for, by name.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Whom to; a connection that several of them name gets it once.
    pub to: Vec<Target>,
    /// Connections that do not get it.
    pub except: Vec<ConnectionId>,
    /// A condition on each connection.
    pub filter: Option<Arc<Filter>>,
    /// What it carries.
    pub payload: Payload,
    /// By what the same message is known when it is said again, where it is kept.
    pub key: Option<AppendKey>,
}

/// Why a message of the application was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A shard has too much waiting.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// It would have to be kept, and is not, or nobody knows.
    #[error(transparent)]
    NotKept(#[from] KeepError),
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
    /// Sends a message to connections, wherever they are; where targets have a log, it is in the store when this returns. Messages of one caller, each sent after the one before was
    /// answered, keep their order at every connection. Without a wish for the outcome, an empty one is given; `None`
    /// stands for one that was not known in time.
    ///
    /// # Errors
    /// [`SendError::Overloaded`] when a shard of this node has too much waiting: then nobody got it, or, where only some of
    /// several shards went on being full for a second, some. [`SendError::NotKept`] when a target has a log and the store did
    /// not take it: then nobody is given it, but for targets whose own log has it; or when nobody knows.
    pub async fn send(
        &self,
        hub: &HubName,
        sending: Sending,
        wants: Wants,
    ) -> Result<Option<Outcome>, SendError> {
        let Sending { to, except, filter, payload, key } = sending;
        let way = match &to[..] {
            [Target::Group(name)] => Way::Group(name.clone()),
            _ => Way::Server,
        };
        let (time_ms, id) = self.stamp();
        let mut delivery = Delivery {
            hub: self.hubs().get_or_make(hub),
            message: Message::new(way, None, id, time_ms, payload),
            to: SmallVec::from_vec(to),
            newest: None,
            handed_on: false,
            except: SmallVec::from_vec(except),
            users: Vec::new(),
            filter,
            receipt: None,
        };
        if let Some(logs) = self.logs().filter(|_| delivery.to.iter().any(|target| self.keeps(target))) {
            let key = key.unwrap_or_else(|| id.into());
            return keep(logs, delivery, key, wants).await;
        }
        if let Some(cluster) = self.cluster() {
            cluster.seek(&delivery).await;
        }
        let route = self.route(&delivery);
        if route.is_nowhere() {
            self.forward(&delivery, &route);
            return Ok(Some(route.known()));
        }
        let outcome = (wants == Wants::Outcome).then(|| {
            let (receipt, outcome) = Receipt::waiter(route.answers(), route.known());
            delivery.receipt = Some(receipt);
            outcome
        });
        delivery.newest = route.elsewhere.newest;
        let delivery = Arc::new(delivery);
        self.hand_out(&delivery, &route.shards).await?;
        self.forward(&delivery, &route);
        match outcome {
            Some(outcome) => Ok(outcome.await.map_err(|_| Overloaded)?),
            None => Ok(Some(Outcome::default())),
        }
    }

    async fn hand_out(&self, delivery: &Arc<Delivery>, shards: &[u16]) -> Result<(), Overloaded> {
        let deliver = |shard: u16| self.post(shard, Command::Deliver(Arc::clone(delivery)));
        let Some((first, rest)) = shards.split_first() else { return Ok(()) };
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

/// Has a message stored and delivered.
async fn keep(
    logs: &Logs,
    mut delivery: Delivery,
    key: AppendKey,
    wants: Wants,
) -> Result<Option<Outcome>, SendError> {
    // The one answer is the clerk's, which waits for more as it finds out where the message goes.
    let outcome = (wants == Wants::Outcome).then(|| {
        let (receipt, outcome) = Receipt::waiter(1, Outcome::default());
        delivery.receipt = Some(receipt);
        outcome
    });
    let (sender, kept) = oneshot::channel();
    let publishing = Publishing { delivery, key, reply: Reply::Waiter(sender) };
    logs.publish(publishing)?;
    kept.await.map_err(|_| KeepError::Store(Refusal::Closed.into()))??;
    match outcome {
        Some(outcome) => Ok(outcome.await.map_err(|_| Overloaded)?),
        None => Ok(Some(Outcome::default())),
    }
}
