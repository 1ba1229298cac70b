//! The task that writes the records of this node's connections: at most once a second each, and so many a second of all. It alone knows their
//! versions, so each change expects what the last one made.
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
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::checkpoint::{Checkpoint, key};
use super::checkpoints::{Checkpoints, PATIENCE, Request, Waiter};
use crate::command::Command;
use crate::logs::Logs;
use crate::node::Node;
use crate::operator::{Due, Operator};
use crate::records::{Change, Expect, MAX_VALUE, Outcome, Version};
use crate::store::{Answer, StoreError};

/// How often connections are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Records that are written a second, at most: who acknowledges more often has an older record. So what is kept of connections
/// leaves the store to messages.
const MOST: usize = 1000;

/// How long the end waits for the store.
const ENDING: Duration = Duration::from_secs(2);

/// How often the removal of a record is tried, once a second. After that it lapses by itself.
const REMOVALS: u32 = 60;

/// How long a full mailbox is waited for before it is tried again.
const ROOM: Duration = Duration::from_millis(1);

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
        let (checkpoints, asked) = Checkpoints::new(records, self.recovery_window());
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
}

impl Writer {
    async fn run(mut self, mut asked: mpsc::Receiver<Request>, stop: Arc<Notify>) {
        tokio::select! {
            () = stop.notified() => {}
            () = self.work(&mut asked) => {}
        }
        self.end().await;
    }

    /// Goes on until it is dropped.
    async fn work(&mut self, asked: &mut mpsc::Receiver<Request>) {
        self.node.share_secret().await;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
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
    }

    /// Writes once more what has changed, if there may be anything.
    async fn end(&mut self) {
        if !self.checkpoints.is_needed() {
            return;
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
            let found = self.checkpoints.records().get(key(id));
            Box::pin(async move {
                Ok(match found.await? {
                    Some(record) => Outcome::Differs(Some(record)),
                    None => Outcome::Done(None),
                })
            })
        } else {
            self.checkpoints.records().compare_and_set(Change { key: key(id), expect, to })
        };
        self.asking.push(Box::pin(async move {
            let told = tokio::time::timeout(PATIENCE, answer).await;
            (id, told.unwrap_or_else(|_| Err(StoreError::Unknown("it does not answer".into()))))
        }));
    }

    async fn told(&mut self, id: ConnectionId, told: Result<Outcome, StoreError>) {
        let counters = self.checkpoints.counters();
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
                return self.failed(id, is_write).await;
            }
        }
        let is_over =
            self.entries.get(&id).is_some_and(|entry| entry.next.is_none() && entry.version.is_none());
        if is_over && !is_write {
            self.entries.remove(&id);
        }
        self.ask(id);
    }

    /// The store did not change a record, or did not answer.
    async fn failed(&mut self, id: ConnectionId, is_write: bool) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let address = entry.address;
        // Nobody waits for a store that does not answer.
        let waiting = std::mem::take(&mut entry.waiting);
        if is_write {
            self.checkpoints.counters().unwritten.fetch_add(1, Ordering::Relaxed);
            let rewrite =
                move |operator: &mut Operator, on: &mut Shard<Operator>| operator.rewrite(on, address);
            run_on(&self.node, address.shard, rewrite).await;
            self.ask(id);
        } else {
            entry.failed += 1;
            if entry.failed < REMOVALS {
                entry.next = entry.next.take().or(Some(Next::Remove));
                self.again.push(id);
            } else {
                self.entries.remove(&id);
            }
        }
        let (claims, changes) = waiting.into_iter().partition(|waiter| matches!(waiter, Waiter::Claim(_)));
        self.tell(claims, true).await;
        self.tell(changes, false).await;
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
