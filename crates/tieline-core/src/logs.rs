//! [`Logs`]: durable messages. A message to a group with a history, or to a user with an inbox, is acknowledged when the store
//! has it, and every node delivers it to the connections it holds, in the order of the log.
//!
//! `Logs` is the handle that shards, the cluster and the application call from their own threads; it hands requests to one
//! task, the `Clerk`, and never waits. The clerk appends (`logs/publishing.rs`), keeps a `Feed` for each log
//! that this node holds connections of, and lets connections enter a log where they left it (`logs/entering.rs`). It alone
//! hands messages of logs to shards, so the order in which it does is the order that every connection sees.

mod audience;
mod clerk;
mod counters;
mod enrolling;
mod entering;
mod entry;
mod feed;
mod health;
mod history;
mod pages;
mod places;
mod publishing;
mod rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tieline_proto::{ErrorCode, GroupName, HubName, Position, UserId};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::command::Then;
use crate::delivery::{Delivery, Target};
use crate::node::Node;
use crate::records::Records;
use crate::recovery::CheckpointsTask;
use crate::store::{LogKey, Refusal, Retention, Store, StoreError};
pub use audience::Membership;
use clerk::{Clerk, Request};
pub use counters::LogCounters;
pub(crate) use enrolling::{Enrolment, Wish};
pub use entering::Admission;
pub(crate) use entering::{Entering, Since};
pub use entry::Entry;
pub(crate) use entry::log_of;
pub(crate) use feed::{Item, NOTHING_YET};
use health::Health;
pub use history::{History, HistoryError};
pub(crate) use publishing::{Publishing, Reply};
pub(crate) use rules::matches;
pub use rules::{GroupRule, LogRules};

/// Requests that the clerk has not come to. When it is full a message is refused, and one of another node is left to be read
/// from the store.
const REQUESTS: usize = 65_536;

/// What keeps logs, and the small facts beside them.
#[derive(Clone)]
pub struct Engine {
    /// The logs.
    pub store: Arc<dyn Store>,
    /// The facts.
    pub records: Arc<dyn Records>,
}

impl Engine {
    /// An engine that is both.
    pub fn of(engine: Arc<impl Store + Records>) -> Self {
        Engine { store: Arc::clone(&engine) as _, records: engine }
    }
}

/// Why a durable message was not accepted, or it is not known whether it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// This node has no store.
    #[error(
        "messages to this target are kept, and this node has no store: start every node with the same --store"
    )]
    NoStore,
    /// The nodes do not share their logs.
    #[error(
        "messages to this target are kept, and the nodes of this cluster have different stores: start every node with the same --store, which a file of one machine or a server can be"
    )]
    OtherStores,
    /// The user is a stored member of as many groups as one may be.
    #[error("the user is in as many groups with stored members as a user may be: {}", audience::MOST_GROUPS)]
    TooManyGroups,
    /// The group has as many stored members as it may have.
    #[error("the group has as many stored members as a group may have: {}", audience::MOST_MEMBERS)]
    TooManyMembers,
    /// The store said no, or nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeepError {
    /// What a client is told.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            KeepError::NoStore | KeepError::OtherStores => ErrorCode::StoreMissing,
            KeepError::TooManyGroups => ErrorCode::TooManyGroups,
            KeepError::TooManyMembers => ErrorCode::TooManyMembers,
            KeepError::Store(StoreError::Refused(Refusal::TooLarge)) => ErrorCode::MessageTooLarge,
            KeepError::Store(StoreError::Refused(_)) => ErrorCode::StoreUnavailable,
            KeepError::Store(StoreError::Unknown(_)) => ErrorCode::StoreUnknown,
        }
    }
}

/// The durable side of a node.
pub struct Logs {
    rules: LogRules,
    engine: Option<Engine>,
    /// Whether a member of the cluster has another store than this node.
    is_divided: AtomicBool,
    requests: mpsc::Sender<Request>,
    counters: LogCounters,
    /// How the store is.
    health: Health,
}

/// The clerk's task, and that of the checkpoints. Whoever started it stops and joins it, after the cluster and before the shards.
pub struct LogsTask {
    task: JoinHandle<()>,
    checkpoints: Option<CheckpointsTask>,
    stop: Arc<Notify>,
}

impl LogsTask {
    /// Ends the task. Messages that the store has taken and nobody was handed are found there by the other nodes.
    pub async fn stop(self) {
        if let Some(checkpoints) = self.checkpoints {
            checkpoints.stop().await;
        }
        self.stop.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The task of the logs failed.");
        }
    }
}

impl Logs {
    /// Starts what a node needs for durable messages. To be called before clients and other nodes are.
    pub fn start(node: &Arc<Node>, rules: LogRules, engine: Option<Engine>) -> LogsTask {
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (counters, health) = (LogCounters::default(), Health::default());
        let is_divided = AtomicBool::new(false);
        let logs = Arc::new(Logs { rules, engine, is_divided, requests, counters, health });
        node.set_logs(Arc::clone(&logs));
        let checkpoints = node.keep_checkpoints(&logs);
        let stop = Arc::new(Notify::new());
        let task = tokio::spawn(Clerk::new(logs, Arc::clone(node)).run(asked, Arc::clone(&stop)));
        LogsTask { task, checkpoints, stop }
    }

    /// Which targets have a log.
    pub fn rules(&self) -> &LogRules {
        &self.rules
    }

    /// Its store, if it has one.
    pub fn store(&self) -> Option<&Arc<dyn Store>> {
        self.engine.as_ref().map(|engine| &engine.store)
    }

    /// Whether the store, where there is one, does what it is asked: it answers, and took the last message that it was given, or
    /// was not given any for a minute.
    pub fn is_store_up(&self) -> Option<bool> {
        self.engine.as_ref().map(|_| self.health.is_up(Instant::now()))
    }

    /// What keeps small facts, if it has a store.
    pub(crate) fn records(&self) -> Option<&Arc<dyn Records>> {
        self.engine.as_ref().map(|engine| &engine.records)
    }

    /// What was counted.
    pub fn counters(&self) -> &LogCounters {
        &self.counters
    }

    /// Requests that the clerk has not come to.
    pub fn requests_waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// How much is kept of the messages to a target; nothing of those that are live.
    pub(crate) fn retention(&self, target: &Target) -> Option<Retention> {
        match target {
            Target::Group(group) => self.rules.history(group),
            Target::User(_) => self.rules.inbox,
            Target::Everyone | Target::Connection(_) => None,
        }
    }

    /// The log of a target, where it has one.
    pub(crate) fn log(&self, hub: &HubName, target: &Target) -> Option<LogKey> {
        self.retention(target)?;
        log_of(hub, target)
    }

    /// What keeps logs, if this node may use it now.
    fn usable(&self) -> Result<&Engine, KeepError> {
        let engine = self.engine.as_ref().ok_or(KeepError::NoStore)?;
        if self.is_divided.load(Ordering::Relaxed) { Err(KeepError::OtherStores) } else { Ok(engine) }
    }

    /// The members of the cluster have the same store as this node, or not.
    pub(crate) fn set_divided(&self, is_divided: bool) {
        if self.is_divided.swap(is_divided, Ordering::Relaxed) != is_divided && self.rules.keep_anything() {
            if is_divided {
                tracing::error!("Another node has another store; durable messages are refused.");
            } else {
                tracing::info!("All nodes have the same store.");
            }
        }
    }

    /// Whether durable messages are refused because the nodes do not share a store, or have none.
    pub fn is_missing(&self) -> bool {
        self.rules.keep_anything() && self.usable().is_err()
    }

    /// Has a message stored and delivered. Its `reply` is told what became of it.
    ///
    /// # Errors
    /// When the clerk has too much to do; the reply is not told then.
    pub(crate) fn publish(&self, publishing: Publishing) -> Result<(), KeepError> {
        let request = Request::Publish(Box::new(publishing));
        self.requests.try_send(request).map_err(|_| KeepError::Store(Refusal::QueueFull.into()))
    }

    /// Takes what another node has stored, and says is for connections of this one. What does not find room is read from the
    /// store later.
    pub(crate) fn offer(&self, log: LogKey, position: Position, delivery: &Delivery) {
        let entry = Entry::of_delivery(delivery);
        if self.requests.try_send(Request::Offer(log, position, entry)).is_err() {
            self.counters.not_taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets a connection enter logs; it goes on when it has what it missed.
    ///
    /// # Errors
    /// Gives back what it was about to do, when the clerk has too much to do.
    pub(crate) fn enter(&self, entering: Entering) -> Result<(), Box<Then>> {
        use mpsc::error::TrySendError::{Closed, Full};
        match self.requests.try_send(Request::Enter(Box::new(entering))) {
            Err(Full(Request::Enter(entering)) | Closed(Request::Enter(entering))) => {
                Err(Box::new(entering.then))
            }
            _ => Ok(()),
        }
    }

    /// Waits until logs are followed here, so that whoever becomes a member afterwards gets what is stored from then on.
    ///
    /// # Errors
    /// When the store does not tell in time where they end.
    pub(crate) async fn follow(&self, logs: Vec<LogKey>) -> Result<(), KeepError> {
        if self.engine.is_none() {
            // Nothing is kept anywhere, so there is nothing to follow.
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        let full = || KeepError::Store(Refusal::QueueFull.into());
        self.requests.try_send(Request::Follow(logs, sender)).map_err(|_| full())?;
        let late = |_| KeepError::Store(Refusal::Failed("it does not answer".into()).into());
        tokio::time::timeout(entering::PATIENCE, receiver).await.map_err(late)?.map_err(|_| full())?
    }

    /// How far logs were handed to the shards, of those that are followed here.
    pub(crate) async fn ends(&self, logs: Vec<LogKey>) -> Vec<(LogKey, Position)> {
        let (sender, receiver) = oneshot::channel();
        if logs.is_empty() || self.requests.try_send(Request::Ends(logs, sender)).is_err() {
            return Vec::new();
        }
        receiver.await.unwrap_or_default()
    }

    /// The connection of an entrant has so many bytes coming, or is gone.
    pub(crate) fn lag(&self, entrant: u64, bytes: Option<usize>) {
        // The clerk asks again.
        let _ = self.requests.try_send(Request::Lag(entrant, bytes));
    }

    /// A client has read a log up to here.
    pub(crate) fn read(&self, reader: Reader, position: Position) {
        // The next one says it as well.
        let _ = self.requests.try_send(Request::Read(reader, position));
    }

    /// Something may have been missed: ends of logs are compared now rather than with the next beat.
    pub(crate) fn look(&self) {
        let _ = self.requests.try_send(Request::Look);
    }
}

/// Whose place in a log it is: that of a user, or of one of its devices, in the inbox, or that of a stored member in a group's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reader {
    /// The user's inbox, or the group's log.
    pub(crate) log: LogKey,
    /// Who the member is, in a group's log.
    pub(crate) member: Option<UserId>,
    /// Which device, where the user has several that read the inbox for themselves.
    pub(crate) device: Option<Arc<str>>,
}

impl Reader {
    /// A user, or one of its devices, in the inbox.
    pub(crate) fn of_inbox(hub: HubName, user: UserId, device: Option<Arc<str>>) -> Self {
        Reader { log: LogKey::Inbox(hub, user), member: None, device }
    }

    /// A member of a group.
    pub(crate) fn of_member(hub: HubName, group: GroupName, user: UserId) -> Self {
        Reader { log: LogKey::Group(hub, group), member: Some(user), device: None }
    }
}
