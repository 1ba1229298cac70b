//! [`Checkpoints`]: the records of this node's connections in the store. One task writes them, at most once a second each and so many
//! a second of all; it alone knows their versions, so each change expects what the last one made.
//!
//! A change that finds another node's record with a higher generation tells that the connection is not this node's any more,
//! whatever the node thinks. The shards' side is `operator/checkpoints.rs`. Tested in `tests/sessions/resuming.rs`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tieline_proto::ConnectionId;
use tieline_switchboard::{Address, Full, Shard};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::checkpoint::{Checkpoint, key, life};
use super::counters::CheckpointCounters;
use crate::command::Command;
use crate::logs::Logs;
use crate::node::Node;
use crate::operator::{Due, Operator, Wanted};
use crate::reconnection::SECRET;
use crate::records::{Change, Expect, MAX_VALUE, Outcome, RecordKey, Records, Value, Version};
use crate::store::{Answer, StoreError};

/// How often connections are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Records that are written a second, at most: who acknowledges more often has an older record. So what is kept of connections
/// leaves the store to messages.
const MOST: usize = 1000;

/// How long an answer of the store is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the end waits for the store.
const ENDING: Duration = Duration::from_secs(2);

/// Requests of shards that the task has not come to. When it is full a record is not removed: it lapses by itself, and a connection
/// whose node lives is nobody else's; and who waits for a record to be gone is refused.
const REQUESTS: usize = 65_536;

/// How often the removal of a record is tried, once a second. After that it lapses by itself.
const REMOVALS: u32 = 60;

/// How long a full mailbox is waited for before it is tried again.
const ROOM: Duration = Duration::from_millis(1);

/// Where the secret of reconnection tokens is kept.
const SECRET_KEY: &str = "secret/reconnection";

/// Who waits for a record to be as it should.
enum Waiter {
    /// A connection that does something when its record is gone.
    Change(Address, Wanted),
    /// Whoever brings a connection here, until its record says so. Told whether the connection is this node's.
    Claim(oneshot::Sender<bool>),
}

/// What a shard asks for.
enum Request {
    /// The record is to be gone.
    Remove { id: ConnectionId, address: Address, generation: u32, then: Option<Waiter> },
    /// The record is to say now that the connection is here.
    Claim(ConnectionId, Address, Waiter),
    /// The record is another node's.
    Forget(ConnectionId),
}

/// The records of a node, as its shards see them.
pub(crate) struct Checkpoints {
    records: Arc<dyn Records>,
    requests: mpsc::Sender<Request>,
    counters: CheckpointCounters,
    life: Duration,
}

impl Checkpoints {
    /// What keeps them.
    pub(super) fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// What was counted.
    pub(crate) fn counters(&self) -> &CheckpointCounters {
        &self.counters
    }

    /// A record as it is given to the store.
    pub(super) fn value(&self, bytes: Vec<u8>) -> Value {
        Value { bytes: bytes.into(), lives: Some(self.life) }
    }

    /// The record of a connection is not true any more: it is removed.
    pub(crate) fn remove(&self, id: ConnectionId, address: Address, generation: u32) {
        // Without room it lapses by itself.
        let _ = self.requests.try_send(Request::Remove { id, address, generation, then: None });
    }

    /// The same for a connection that goes on to do something when it is gone.
    ///
    /// # Errors
    /// Gives back what it is about to do when the task has too much to do.
    pub(crate) fn remove_first(
        &self,
        id: ConnectionId,
        address: Address,
        generation: u32,
        wanted: Wanted,
    ) -> Result<(), Wanted> {
        let Ok(room) = self.requests.try_reserve() else { return Err(wanted) };
        let then = Some(Waiter::Change(address, wanted));
        room.send(Request::Remove { id, address, generation, then });
        Ok(())
    }

    /// The connection has gone to another node, and its record with it.
    pub(crate) fn forget(&self, id: ConnectionId) {
        // One that is not forgotten is found to be another node's when it is written.
        let _ = self.requests.try_send(Request::Forget(id));
    }

    /// Has the record say that a connection is here now. Returns false where it says that another node has it; true, too, when
    /// the store does not answer.
    pub(super) async fn claim(&self, id: ConnectionId, address: Address) -> bool {
        let (done, claimed) = oneshot::channel();
        if self.requests.try_send(Request::Claim(id, address, Waiter::Claim(done))).is_err() {
            return true;
        }
        match tokio::time::timeout(PATIENCE, claimed).await {
            Ok(Ok(is_ours)) => is_ours,
            Ok(Err(_)) | Err(_) => true,
        }
    }
}

/// The task's end. Whoever started it stops and joins it, before the task of the logs.
pub(crate) struct CheckpointsTask {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl CheckpointsTask {
    /// Writes what has changed once more, as far as the store takes it in time, and ends the task. The records stay: clients go on
    /// at other nodes.
    pub(crate) async fn stop(self) {
        self.stop.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The task of the checkpoints failed.");
        }
    }
}

/// What is to become of a record.
enum Next {
    Write(Vec<u8>),
    Remove,
}

/// A record, as the task knows it.
struct Entry {
    address: Address,
    generation: u32,
    /// The state that the last answer told of; none where that is not known, or there is no record.
    version: Option<Version>,
    /// What the store was asked for and has not answered.
    asked: Option<Next>,
    /// What it is asked for next.
    next: Option<Next>,
    waiting: Vec<Waiter>,
    /// Removals that failed in a row.
    failed: u32,
}

/// What the store has answered about a record.
type Told = (ConnectionId, Result<Outcome, StoreError>);

/// The task's own memory.
struct Writer {
    node: Arc<Node>,
    logs: Arc<Logs>,
    checkpoints: Arc<Checkpoints>,
    entries: HashMap<ConnectionId, Entry>,
    asking: FuturesUnordered<Pin<Box<dyn Future<Output = Told> + Send>>>,
    /// Records whose removal is tried again.
    again: Vec<ConnectionId>,
}

impl Node {
    /// Keeps connections of the reliable protocol in the store from now on, where messages are.
    pub(crate) fn keep_checkpoints(self: &Arc<Self>, logs: &Arc<Logs>) -> Option<CheckpointsTask> {
        let records = Arc::clone(logs.records()?);
        if !logs.rules().keep_anything() {
            return None;
        }
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (counters, life) = (CheckpointCounters::default(), life(self.recovery_window()));
        let checkpoints = Arc::new(Checkpoints { records, requests, counters, life });
        self.set_checkpoints(Arc::clone(&checkpoints));
        let stop = Arc::new(Notify::new());
        let writer = Writer {
            node: Arc::clone(self),
            logs: Arc::clone(logs),
            checkpoints,
            entries: HashMap::new(),
            asking: FuturesUnordered::new(),
            again: Vec::new(),
        };
        let task = tokio::spawn(writer.run(asked, Arc::clone(&stop)));
        Some(CheckpointsTask { task, stop })
    }

    /// Makes reconnection tokens by the secret of the store, if there is one that tells it within two seconds: then other nodes
    /// can check them when this one is dead. To be called before clients come. A store that does not tell it is asked again later.
    pub async fn share_secret(&self) {
        let Some(checkpoints) = self.checkpoints() else { return };
        if self.reconnection().is_shared() {
            return;
        }
        match tokio::time::timeout(PATIENCE, secret(checkpoints.records().as_ref())).await {
            Ok(Ok(secret)) => self.reconnection().share(&secret),
            Ok(Err(error)) => {
                tracing::warn!(%error, "The store does not tell the secret of reconnection tokens; other nodes cannot check those of this one yet.");
            }
            Err(_) => {
                tracing::warn!(
                    "The store does not answer; other nodes cannot check the reconnection tokens of this one yet."
                );
            }
        }
    }
}

/// The secret of a store: drawn by whoever comes first.
async fn secret(records: &dyn Records) -> Result<[u8; SECRET], StoreError> {
    let key = RecordKey::new(SECRET_KEY).expect("it is a key");
    let mut fresh = [0; SECRET];
    getrandom::fill(&mut fresh).map_err(|error| crate::store::Refusal::Failed(error.to_string()))?;
    let to = Some(Value { bytes: Arc::from(fresh), lives: None });
    match records.compare_and_set(Change { key, expect: Expect::Nothing, to }).await? {
        Outcome::Done(_) => Ok(fresh),
        Outcome::Differs(found) => {
            let found = found.and_then(|found| <[u8; SECRET]>::try_from(&*found.value).ok());
            Ok(found.ok_or_else(|| crate::store::Refusal::Damaged(format!("`{SECRET_KEY}` is no secret")))?)
        }
    }
}

impl Writer {
    async fn run(mut self, mut asked: mpsc::Receiver<Request>, stop: Arc<Notify>) {
        self.node.share_secret().await;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.notified() => break,
                Some((id, told)) = self.asking.next() => self.told(id, told).await,
                Some(request) = asked.recv() => self.take(request).await,
                _ = ticks.tick() => {
                    if !self.node.reconnection().is_shared() {
                        self.node.share_secret().await;
                    }
                    self.try_again();
                    // Nobody else could check whose connections they are.
                    if self.node.reconnection().is_shared() {
                        self.look().await;
                    }
                }
            }
        }
        let until = Instant::now() + ENDING;
        let ending = async {
            self.look().await;
            while let Some((id, told)) = self.asking.next().await {
                self.told(id, told).await;
            }
        };
        if tokio::time::timeout_at(until, ending).await.is_err() {
            tracing::warn!(
                "The store did not take all that is to be known of connections that go on elsewhere."
            );
        }
    }

    async fn take(&mut self, request: Request) {
        match request {
            Request::Remove { id, address, generation, then } => {
                let entry = self.entry(id, address, generation);
                entry.waiting.extend(then);
                entry.next = Some(Next::Remove);
                self.ask(id);
            }
            Request::Claim(id, address, waiter) => {
                let due = self
                    .node
                    .ask(address.shard, move |operator, shard| operator.checkpoint_now(shard, address));
                let Waiter::Claim(done) = waiter else { return };
                match due.await {
                    Ok(Some(due)) => {
                        let entry = self.write(due);
                        entry.waiting.push(Waiter::Claim(done));
                        self.ask(id);
                    }
                    // There is nothing that could be written, and so no record of it.
                    Ok(None) | Err(_) => drop(done.send(true)),
                }
            }
            Request::Forget(id) => drop(self.entries.remove(&id)),
        }
    }

    fn entry(&mut self, id: ConnectionId, address: Address, generation: u32) -> &mut Entry {
        let entry = self.entries.entry(id).or_insert_with(|| Entry {
            address,
            generation,
            version: None,
            asked: None,
            next: None,
            waiting: Vec::new(),
            failed: 0,
        });
        // The same connection may have gone and come back.
        (entry.address, entry.generation) = (address, generation);
        entry
    }

    fn write(&mut self, due: Due) -> &mut Entry {
        let entry = self.entry(due.id, due.address, due.generation);
        entry.next = Some(Next::Write(due.record));
        entry
    }

    /// Has the shards tell what is to be written, as much as there is room for.
    async fn look(&mut self) {
        let shards = self.node.handle().shards();
        for shard in 0..shards as u16 {
            let room = MOST.saturating_sub(self.asking.len()).div_ceil(shards - usize::from(shard));
            let look =
                move |operator: &mut Operator, on: &mut Shard<Operator>| operator.due_checkpoints(on, room);
            // A shard without room tells with the next look.
            let Ok((dues, unknown)) = self.node.ask(shard, look).await else { continue };
            self.write_all(dues);
            if unknown.is_empty() {
                continue;
            }
            // Logs of which the shard has delivered nothing: the clerk of the logs knows where they are, and what it has handed to the shard
            // comes there before the answer does.
            let ends = self.logs.ends(unknown).await;
            let learn = move |operator: &mut Operator, on: &mut Shard<Operator>| {
                operator.learn_ends(&ends);
                operator.due_checkpoints(on, room)
            };
            if let Ok((dues, _)) = self.node.ask(shard, learn).await {
                self.write_all(dues);
            }
        }
    }

    fn write_all(&mut self, dues: Vec<Due>) {
        for due in dues {
            let id = due.id;
            self.write(due);
            self.ask(id);
        }
    }

    fn try_again(&mut self) {
        for id in std::mem::take(&mut self.again) {
            self.ask(id);
        }
    }

    /// Asks the store for what is next of a record, unless it has not answered the last time.
    fn ask(&mut self, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.asked.is_some() {
            return;
        }
        let Some(next) = entry.next.take() else { return };
        let to = match &next {
            // One that no store takes is not kept.
            Next::Write(record) if record.len() <= MAX_VALUE => Some(self.checkpoints.value(record.clone())),
            Next::Write(_) | Next::Remove => None,
        };
        let expect = entry.version.map_or(Expect::Nothing, Expect::Version);
        entry.asked = Some(next);
        let answer: Answer<Outcome> = if to.is_none() && entry.version.is_none() {
            // What is removed must have been seen, so that it is nobody else's.
            let found = self.checkpoints.records.get(key(id));
            Box::pin(async move {
                Ok(match found.await? {
                    Some(record) => Outcome::Differs(Some(record)),
                    None => Outcome::Done(None),
                })
            })
        } else {
            self.checkpoints.records.compare_and_set(Change { key: key(id), expect, to })
        };
        self.asking.push(Box::pin(async move {
            let told = tokio::time::timeout(PATIENCE, answer).await;
            (id, told.unwrap_or_else(|_| Err(StoreError::Unknown("it does not answer".into()))))
        }));
    }

    async fn told(&mut self, id: ConnectionId, told: Result<Outcome, StoreError>) {
        let counters = &self.checkpoints.counters;
        let me = self.node.id().incarnation;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(asked) = entry.asked.take() else { return };
        let (address, is_write) = (entry.address, matches!(asked, Next::Write(_)));
        match told {
            Ok(Outcome::Done(version)) => {
                (entry.version, entry.failed) = (version, 0);
                if is_write {
                    counters.written.fetch_add(1, Ordering::Relaxed);
                }
                let waiting = self.take_waiting(id, is_write);
                self.tell(waiting, true).await;
            }
            Ok(Outcome::Differs(found)) => {
                // One of another form is written by a program that has the connection now.
                let is_lost = found.as_ref().is_some_and(|found| {
                    let found = Checkpoint::read(&found.value);
                    found.is_none_or(|found| found.supersedes(entry.generation, me))
                });
                if is_lost {
                    counters.fenced.fetch_add(1, Ordering::Relaxed);
                    let waiting = self.entries.remove(&id).map(|entry| entry.waiting).unwrap_or_default();
                    run_on(&self.node, address.shard, move |operator, shard| operator.fenced(shard, address))
                        .await;
                    return self.tell(waiting, false).await;
                }
                // It lapsed, or an answer did not come, or it is from before the connection came here.
                entry.version = found.map(|found| found.version);
                entry.next = entry.next.take().or(Some(asked));
            }
            Err(error) => {
                tracing::debug!(%error, %id, "The record of a connection was not changed.");
                if is_write {
                    counters.unwritten.fetch_add(1, Ordering::Relaxed);
                    run_on(&self.node, address.shard, move |operator, shard| {
                        operator.rewrite(shard, address)
                    })
                    .await;
                    let waiting = self.take_waiting(id, true);
                    self.tell(waiting, true).await;
                } else {
                    entry.failed += 1;
                    if entry.failed < REMOVALS {
                        entry.next = entry.next.take().or(Some(Next::Remove));
                        self.again.push(id);
                    }
                    let waiting = self.take_waiting(id, false);
                    self.tell(waiting, false).await;
                    return;
                }
            }
        }
        let is_over =
            self.entries.get(&id).is_some_and(|entry| entry.next.is_none() && entry.version.is_none());
        if is_over && !is_write {
            self.entries.remove(&id);
        }
        self.ask(id);
    }

    /// Who waits for a record to be written, or to be gone.
    fn take_waiting(&mut self, id: ConnectionId, is_write: bool) -> Vec<Waiter> {
        let Some(entry) = self.entries.get_mut(&id) else { return Vec::new() };
        let is_told = |waiter: &mut Waiter| matches!(waiter, Waiter::Claim(_)) == is_write;
        entry.waiting.extract_if(.., is_told).collect()
    }

    async fn tell(&mut self, waiting: Vec<Waiter>, is_so: bool) {
        for waiter in waiting {
            match waiter {
                // Who waits may have given up.
                Waiter::Claim(done) => drop(done.send(is_so)),
                Waiter::Change(address, wanted) => {
                    let voided = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
                        operator.voided(shard, address, wanted, is_so);
                    };
                    run_on(&self.node, address.shard, voided).await;
                }
            }
        }
    }
}

/// Hands work to a shard; waits for room, which comes within milliseconds.
async fn run_on(
    node: &Node,
    shard: u16,
    run: impl FnOnce(&mut Operator, &mut Shard<Operator>) + Send + 'static,
) {
    let mut command = Command::Run(Box::new(run));
    while let Err(Full(refused)) = node.handle().post(shard, command) {
        command = refused;
        tokio::time::sleep(ROOM).await;
    }
}
