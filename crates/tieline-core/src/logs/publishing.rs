//! [`Publishing`]: a message on its way into its logs, and what follows when it is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

use smallvec::SmallVec;
use tieline_switchboard::Address;
use tokio::sync::oneshot;

use super::clerk::Clerk;
use super::entry::{Entry, body};
use super::{KeepError, log_of};
use crate::command::Command;
use crate::delivery::{Delivery, Outcome, Receipt, Target};
use crate::message::Way;
use crate::store::{Append, AppendKey, Appended, StoreError};

/// A message that is to be kept.
pub(crate) struct Publishing {
    /// The message, to all of its targets.
    pub(crate) delivery: Delivery,
    /// By what the same message is known when it is said again.
    pub(crate) key: AppendKey,
    /// Who is told what became of it.
    pub(crate) reply: Reply,
}

/// Who is told what became of a message.
pub(crate) enum Reply {
    /// A connection, by the ackId of its request, if it named one. The numbers follow by the delivery's receipt, where it
    /// has one.
    Connection(Address, Option<u64>),
    /// Somebody outside the shards. The numbers follow in the same way.
    Waiter(oneshot::Sender<Result<(), KeepError>>),
}

/// A message that the store has answered for.
pub(super) struct Stored {
    publishing: Publishing,
    /// The targets with a log, and what the store said of each.
    kept: SmallVec<[(Target, Result<Appended, StoreError>); 1]>,
    since: Instant,
}

impl Clerk {
    /// Asks the store to keep a message.
    pub(super) fn publish(&mut self, publishing: Publishing) {
        let engine = match self.logs.usable() {
            Ok(engine) => engine,
            Err(error) => return self.reply(&publishing.delivery, publishing.reply, Err(error)),
        };
        let delivery = &publishing.delivery;
        let hub = delivery.hub.name();
        let since = Instant::now();
        let mut answers = SmallVec::<[_; 1]>::new();
        for target in &delivery.to {
            let Some(retention) = self.logs.retention(target) else { continue };
            let Some(log) = log_of(hub, target) else { continue };
            let body: Arc<[u8]> = match (target, &delivery.message.way) {
                // By several ways: each log says its own.
                (Target::Group(group), Way::Server) => {
                    let message = delivery.message.by(Way::Group(group.clone()));
                    body(delivery, &message).into()
                }
                _ => body(delivery, &delivery.message).into(),
            };
            let append = Append { log, key: publishing.key, id: delivery.message.id, body, retention };
            answers.push((target.clone(), engine.store.append(append)));
        }
        self.storing.push(Box::pin(async move {
            let mut kept = SmallVec::new();
            for (target, answer) in answers {
                kept.push((target, answer.await));
            }
            Stored { publishing, kept, since }
        }));
    }

    /// The store has answered: the message goes to whom it is for.
    pub(super) async fn stored(&mut self, stored: Stored) {
        let Stored { publishing: Publishing { delivery, reply, .. }, kept, since } = stored;
        let logs = Arc::clone(&self.logs);
        let counters = logs.counters();
        counters.append_wait.record(since.elapsed());
        let mut failed = None;
        let mut fresh = SmallVec::<[(Target, Appended); 1]>::new();
        for (target, result) in kept {
            match result {
                Ok(appended) if appended.is_duplicate => {
                    counters.again.fetch_add(1, Ordering::Relaxed);
                    // It may have been stored by a node that could tell nobody.
                    self.look_at(&delivery.hub, &target);
                }
                Ok(appended) => {
                    counters.stored.fetch_add(1, Ordering::Relaxed);
                    fresh.push((target, appended));
                }
                Err(error) => {
                    counters.failed.fetch_add(1, Ordering::Relaxed);
                    if matches!(error, StoreError::Unknown(_)) {
                        self.look_at(&delivery.hub, &target);
                    }
                    self.store_failed();
                    failed = Some(error);
                }
            }
        }
        let is_kept = failed.is_none();
        let live: SmallVec<[Target; 1]> =
            delivery.to.iter().filter(|target| self.logs.retention(target).is_none()).cloned().collect();
        let receipt = delivery.receipt.clone().filter(|_| is_kept);
        self.reply(&delivery, reply, failed.map_or(Ok(()), |error| Err(error.into())));
        if let Some(receipt) = &receipt {
            if fresh.is_empty() && live.is_empty() {
                // Said again: the numbers of the first time are not known any more.
                let settled = receipt.give_up();
                settled.into_iter().for_each(|settled| self.node.settle(settled));
            } else {
                self.watch(receipt);
            }
        }
        for (target, appended) in fresh {
            self.hand_over(&delivery, target, appended, receipt.as_ref()).await;
        }
        if is_kept && !live.is_empty() {
            self.send_live(delivery, live, receipt.as_ref()).await;
        }
        // The one answer that it was made with: all parts are on their way now.
        if let Some(receipt) = receipt {
            self.add(&receipt, Outcome::default());
        }
    }

    /// A message has its place: the other nodes are told, and this one's feed is.
    async fn hand_over(
        &mut self,
        delivery: &Delivery,
        target: Target,
        appended: Appended,
        receipt: Option<&Arc<Receipt>>,
    ) {
        let Some(log) = log_of(delivery.hub.name(), &target) else { return };
        let message = match (&target, &delivery.message.way) {
            (Target::Group(group), Way::Server) => {
                delivery.message.by(Way::Group(group.clone())).placed(appended.position)
            }
            _ => delivery.message.placed(appended.position),
        };
        let is_user = matches!(target, Target::User(_));
        let mut part = Delivery {
            hub: Arc::clone(&delivery.hub),
            message,
            to: SmallVec::from_iter([target]),
            except: delivery.except.clone(),
            users: delivery.users.clone(),
            filter: delivery.filter.clone(),
            receipt: receipt.cloned(),
        };
        let route = self.node.route(&part);
        let mut known = route.known();
        if is_user && known.unknown > 0 {
            known = Outcome { unknown: 0, queued: 1, ..known };
        }
        if let Some(receipt) = receipt {
            // One by this node's feed, where it follows the log, and one by what is known now.
            receipt.await_more(route.elsewhere.nodes.len() + 2);
            self.add(receipt, known);
        }
        self.node.forward(&part, &route);
        if self.follows(&log) {
            self.offer(log, appended.position, Entry::of_delivery(&part)).await;
        } else if let Some(receipt) = part.receipt.take() {
            self.add(&receipt, Outcome::default());
        }
    }

    /// Sends a message to those of its targets that have no log.
    async fn send_live(
        &mut self,
        delivery: Delivery,
        to: SmallVec<[Target; 1]>,
        receipt: Option<&Arc<Receipt>>,
    ) {
        let live = Delivery { to, receipt: receipt.cloned(), ..delivery };
        let route = self.node.route(&live);
        if let Some(receipt) = receipt {
            receipt.await_more(route.answers() + 1);
            self.add(receipt, route.known());
        }
        let live = Arc::new(live);
        self.node.forward(&live, &route);
        for shard in route.shards {
            self.post(shard, || Command::Deliver(Arc::clone(&live))).await;
        }
    }

    pub(super) fn add(&self, receipt: &Receipt, outcome: Outcome) {
        if let Some(settled) = receipt.add(outcome) {
            self.node.settle(settled);
        }
    }

    /// Tells whoever sent a message whether it is kept.
    fn reply(&self, delivery: &Delivery, reply: Reply, result: Result<(), KeepError>) {
        match reply {
            Reply::Connection(address, ack_id) => {
                // The numbers come with the ack, later.
                if result.is_ok() && (ack_id.is_none() || delivery.receipt.is_some()) {
                    return;
                }
                // A shard without room for acks is one whose clients wait for them: they ask again.
                let _ = self.node.post(address.shard, Command::Kept { address, ack_id, result });
            }
            Reply::Waiter(waiter) => {
                // The waiter may have given up: then nobody wants to know any more.
                let _ = waiter.send(result);
            }
        }
    }
}
