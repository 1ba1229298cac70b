//! [`Publishing`]: a message on its way into its logs, and what follows when it is there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use smallvec::SmallVec;
use tieline_proto::UserId;
use tieline_switchboard::Address;
use tokio::sync::oneshot;

use super::clerk::Clerk;
use super::enrolling::Uncounted;
use super::entry::{Entry, body};
use super::health::Health;
use super::{KeepError, log_of};
use crate::cluster::Nodes;
use crate::command::Command;
use crate::delivery::{Delivery, Outcome, Receipt, Target};
use crate::events::Queued;
use crate::message::Way;
use crate::node::Route;
use crate::store::{Append, AppendKey, Appended, Refusal, StoreError};

/// How long a store may take to answer for a message. Engines have limits of their own, which are shorter.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages that the store may have and not have answered for; more are refused.
const MOST_STORING: usize = 131_072;

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

/// Who is told, and when they asked; empty once they were told.
pub(super) type Pending = (Instant, Arc<Mutex<Option<Reply>>>);

/// A message that the store has answered for.
pub(super) struct Stored {
    delivery: Delivery,
    reply: Arc<Mutex<Option<Reply>>>,
    /// The targets with a log, and what the store said of each.
    kept: SmallVec<[(Target, Result<Appended, StoreError>); 1]>,
    since: Instant,
}

impl Clerk {
    /// Asks the store to keep a message.
    pub(super) fn publish(&mut self, publishing: Publishing) {
        let Publishing { delivery, key, reply } = publishing;
        let engine = match self.logs.usable() {
            Ok(_) if self.storing.len() >= MOST_STORING => {
                return self.reply(&delivery, reply, Err(KeepError::Store(Refusal::QueueFull.into())));
            }
            Ok(engine) => engine,
            Err(error) => return self.reply(&delivery, reply, Err(error)),
        };
        let hub = delivery.hub.name();
        let since = Instant::now();
        let mut answers = SmallVec::<[_; 1]>::new();
        for target in &delivery.to {
            let Some(retention) = self.logs.retention(target) else { continue };
            let Some(log) = log_of(hub, target) else { continue };
            if let (Target::User(user), Some(cluster)) = (target, self.node.cluster()) {
                // It is looked up while the store works.
                cluster.seek_early(hub, user);
            }
            let body: Arc<[u8]> = match (target, &delivery.message.way) {
                // By several ways: each log says its own.
                (Target::Group(group), Way::Server) => {
                    let message = delivery.message.by(Way::Group(group.clone()));
                    body(&delivery, &message).into()
                }
                _ => body(&delivery, &delivery.message).into(),
            };
            let append = Append { log, key, id: delivery.message.id, body, retention };
            answers.push((target.clone(), engine.store.append(append)));
        }
        let reply = Arc::new(Mutex::new(Some(reply)));
        self.pending.push_back((since, Arc::clone(&reply)));
        self.storing.push(Box::pin(async move {
            let mut kept = SmallVec::new();
            for (target, answer) in answers {
                kept.push((target, answer.await));
            }
            Stored { delivery, reply, kept, since }
        }));
    }

    /// The store has answered: the message goes to whom it is for.
    pub(super) async fn stored(&mut self, stored: Stored) {
        let Stored { delivery, reply, kept, since } = stored;
        // Nobody waits for it any more where the store took too long.
        let reply = lock(&reply).take();
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
                    self.store_failed(&error);
                    if Health::is_told_by(&error) {
                        logs.health.refused(Instant::now());
                    }
                    failed = Some(error);
                }
            }
        }
        let is_kept = failed.is_none();
        if is_kept {
            logs.health.took();
        }
        // Said again, what is live has been sent: that is at most once.
        let live: SmallVec<[Target; 1]> = if fresh.is_empty() {
            SmallVec::new()
        } else {
            let live = delivery.to.iter().filter(|target| self.logs.retention(target).is_none());
            live.cloned().collect()
        };
        let receipt = delivery.receipt.clone().filter(|_| is_kept && reply.is_some());
        if let Some(reply) = reply {
            self.reply(&delivery, reply, failed.map_or(Ok(()), |error| Err(error.into())));
        }
        if let Some(receipt) = &receipt {
            if fresh.is_empty() && live.is_empty() {
                // Said again: the numbers of the first time are not known any more.
                let settled = receipt.give_up();
                settled.into_iter().for_each(|settled| self.node.settle(settled));
            } else {
                self.watch(receipt);
            }
        }
        // Each such node counts once, in however many parts the message goes.
        let mut away = Nodes::new();
        for (target, appended) in fresh {
            self.hand_over(&delivery, target, appended, receipt.as_ref(), &mut away).await;
        }
        if is_kept && !live.is_empty() {
            self.send_live(delivery, live, receipt.as_ref(), &mut away).await;
        }
        // The one answer that it was made with: all parts are on their way now.
        if let Some(receipt) = receipt {
            self.add(&receipt, Outcome::default());
        }
    }

    /// Tells those who have waited for the store for too long that nobody knows.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        while let Some((since, reply)) = self.pending.front() {
            let is_told = lock(reply).is_none();
            if !is_told && now.duration_since(*since) < PATIENCE {
                return;
            }
            let Some((_, reply)) = self.pending.pop_front() else { return };
            let Some(reply) = lock(&reply).take() else { continue };
            self.logs.counters.failed.fetch_add(1, Ordering::Relaxed);
            let error = StoreError::Unknown(format!("it has not answered for {} s", PATIENCE.as_secs()));
            self.store_failed(&error);
            self.tell(reply, Err(error.into()), false);
        }
    }

    /// A message has its place: the other nodes are told, and this one's feed is.
    async fn hand_over(
        &mut self,
        delivery: &Delivery,
        target: Target,
        appended: Appended,
        receipt: Option<&Arc<Receipt>>,
        away: &mut Nodes,
    ) {
        let Some(log) = log_of(delivery.hub.name(), &target) else { return };
        let message = match (&target, &delivery.message.way) {
            (Target::Group(group), Way::Server) => {
                delivery.message.by(Way::Group(group.clone())).placed(appended.position)
            }
            _ => delivery.message.placed(appended.position),
        };
        let mut part = Delivery {
            hub: Arc::clone(&delivery.hub),
            message,
            to: SmallVec::from_iter([target]),
            newest: None,
            handed_on: false,
            except: delivery.except.clone(),
            users: delivery.users.clone(),
            filter: delivery.filter.clone(),
            receipt: receipt.cloned(),
        };
        if let Some(cluster) = self.node.cluster() {
            cluster.seek(&part).await;
        }
        let route = self.node.route(&part);
        let mut known = Outcome { doubtful: 0, ..newly_known(&route, away) };
        if let (Target::User(user), true) = (&part.to[0], known.unknown > 0) {
            self.tell_queued(&part, user);
            known = Outcome { unknown: 0, queued: 1, ..known };
        }
        let counts = self.counts_offline(&part, receipt);
        if let Some(receipt) = receipt {
            // One by this node's feed, where it follows the log, one by what is known now, and one by who counts.
            receipt.await_more(route.elsewhere.nodes.len() + 2 + usize::from(counts));
            self.add(receipt, known);
        }
        if counts {
            let uncounted = Uncounted {
                hub: Arc::clone(&part.hub),
                message: part.message.id,
                position: appended.position,
                from: part.message.from_user.clone(),
                users: part.users.clone(),
                receipt: receipt.cloned(),
            };
            self.count_offline(log.clone(), uncounted);
        }
        self.node.forward(&part, &route);
        if self.follows(&log) {
            self.offer(log, appended.position, Entry::of_delivery(&part)).await;
        } else if let Some(receipt) = part.receipt.take() {
            self.add(&receipt, Outcome::default());
        }
    }

    /// Whether members of a message's group may be offline who get it on return, and anybody wants to know.
    fn counts_offline(&self, part: &Delivery, receipt: Option<&Arc<Receipt>>) -> bool {
        let is_wanted = receipt.is_some() || self.node.events().is_some();
        is_wanted && matches!(&part.to[0], Target::Group(group) if self.logs.rules().stores_members(group))
    }

    /// A message waits for a user who is offline.
    fn tell_queued(&self, delivery: &Delivery, user: &UserId) {
        let (Some(events), Some(position)) = (self.node.events(), delivery.message.position) else { return };
        events.queued(Queued {
            hub: delivery.hub.name().clone(),
            user: user.clone(),
            group: None,
            message: delivery.message.id,
            position,
            from: delivery.message.from_user.clone(),
        });
    }

    /// Sends a message to those of its targets that have no log.
    async fn send_live(
        &mut self,
        delivery: Delivery,
        to: SmallVec<[Target; 1]>,
        receipt: Option<&Arc<Receipt>>,
        away: &mut Nodes,
    ) {
        let mut live = Delivery { to, receipt: receipt.cloned(), ..delivery };
        if let Some(cluster) = self.node.cluster() {
            cluster.seek(&live).await;
        }
        let route = self.node.route(&live);
        if let Some(receipt) = receipt {
            receipt.await_more(route.answers() + 1);
            self.add(receipt, newly_known(&route, away));
        }
        live.newest = route.elsewhere.newest;
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
        self.tell(reply, result, delivery.receipt.is_some());
    }

    /// The same; `numbers_follow` where success is told together with them, later.
    fn tell(&self, reply: Reply, result: Result<(), KeepError>, numbers_follow: bool) {
        match reply {
            Reply::Connection(address, ack_id) => {
                if result.is_ok() && (ack_id.is_none() || numbers_follow) {
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

fn lock(reply: &Mutex<Option<Reply>>) -> MutexGuard<'_, Option<Reply>> {
    reply.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What can be told of a part of a message before anybody has answered, without the nodes that were counted for another part.
fn newly_known(route: &Route, away: &mut Nodes) -> Outcome {
    let before = away.len();
    for node in &route.elsewhere.unreachable {
        if !away.contains(node) {
            away.push(*node);
        }
    }
    Outcome { unreachable: (away.len() - before) as u64, ..route.known() }
}
