//! [`Journal`]: events that nobody waits for, in a store until an endpoint has taken them.
//!
//! Each node has a log for each hub, and a record of how far it was sent. Whoever holds the log's lease, another record, sends
//! it: the node itself, or, when it has not renewed the lease for a while, another node that has endpoints configured. The
//! record moves after the endpoint's answer, so an event is sent at least once. Tested by `journal/tests.rs`.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tieline_backends::pause;
use tieline_core::records::{Change, Expect, Outcome, RecordKey, Records, Value, Version};
use tieline_core::store::{Append, AppendKey, Cut, LogKey, PageLimit, Retention, Store, StoreError};
use tieline_proto::{HubName, MessageId, NodeId, NodeName, Position};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::lane::BATCH;
use super::notice::{Delivery, Notice};

/// What all records of journals begin with.
const PREFIX: &str = "events/";

/// How long things last and how often they are done; tests hurry.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// How long a lease lasts that is not renewed.
    lease: Duration,
    /// How often it is renewed, or asked for.
    renew: Duration,
    /// How often logs are looked for whose node is gone.
    look: Duration,
    /// How often a log is read to which nothing came, as far as is known.
    read: Duration,
}

const TIMES: Times = Times {
    lease: Duration::from_secs(15),
    renew: Duration::from_secs(5),
    look: Duration::from_secs(10),
    read: Duration::from_secs(5),
};

/// Bounds of the pause before a store is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long events that are on their way get to arrive when the node stops. Shorter than what the task waits for.
const LINGER: Duration = Duration::from_secs(1);

/// How much of a log is kept; what is taken is trimmed long before.
const RETENTION: Retention =
    Retention { count: 1_000_000, bytes: 256 << 20, age: Duration::from_secs(8 * 24 * 3600) };

/// How long it is remembered how far a log was sent: longer than the log lasts.
const REMEMBER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far a log was sent, as its record says.
#[derive(Serialize, Deserialize)]
struct Sent {
    epoch: u64,
    offset: u64,
}

/// How far a log was sent, and the record that says so.
#[derive(Default)]
struct Mark {
    version: Option<Version>,
    position: Option<Position>,
}

/// One log: the node and the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Log {
    node: NodeName,
    hub: HubName,
}

impl Log {
    fn key(&self) -> LogKey {
        LogKey::Events(self.node.clone(), self.hub.clone())
    }

    fn record(&self, what: &str) -> RecordKey {
        RecordKey::new(&format!("{PREFIX}{}/{}/{what}", self.node, self.hub)).expect("both names are short")
    }

    /// The log whose record this is, and which record it is.
    fn of_record(key: &str) -> Option<(Log, &str)> {
        let (node, rest) = key.strip_prefix(PREFIX)?.split_once('/')?;
        let (hub, what) = rest.split_once('/')?;
        Some((Log { node: NodeName::new(node).ok()?, hub: HubName::new(hub).ok()? }, what))
    }
}

/// The journals of a store.
pub(super) struct Journal {
    store: Arc<dyn Store>,
    records: Arc<dyn Records>,
    node: NodeName,
    /// What a lease says whose it is: this start of the node.
    owner: Arc<[u8]>,
    times: Times,
}

impl Journal {
    pub(super) fn new(store: Arc<dyn Store>, records: Arc<dyn Records>, node: &NodeId) -> Self {
        let owner = node.to_string().into_bytes().into();
        Journal { store, records, node: node.name.clone(), owner, times: TIMES }
    }

    fn own(&self, hub: &HubName) -> Log {
        Log { node: self.node.clone(), hub: hub.clone() }
    }

    /// Keeps events, in their order; returns when the store has them, however long that takes.
    pub(super) async fn keep(&self, hub: &HubName, notices: Vec<Notice>) {
        let log = self.own(hub).key();
        let mut left: Vec<Append> = notices.iter().filter_map(|notice| append(&log, notice)).collect();
        let mut failures = 0;
        while !left.is_empty() {
            let answers: Vec<_> = left.iter().map(|append| self.store.append(append.clone())).collect();
            let mut failed = Vec::new();
            for (append, answer) in left.into_iter().zip(answers) {
                match answer.await {
                    Ok(_) => {}
                    // Those behind it may have been stored: said again with the same key they are not stored twice.
                    Err(error) if error.is_retryable() => failed.push(append),
                    Err(error) => tracing::error!(%error, "An event for the application was not kept."),
                }
            }
            left = failed;
            if !left.is_empty() {
                sleep(pause(PAUSE.0, PAUSE.1, failures)).await;
                failures += 1;
            }
        }
    }

    /// Has the log of a hub known to the other nodes; returns when the store has it, however long that takes.
    pub(super) async fn enrol(&self, hub: &HubName) {
        let log = self.own(hub);
        let mut failures = 0;
        while let Err(error) = self.mark(&log).await {
            tracing::debug!(%error, "The log of events cannot be made known.");
            sleep(pause(PAUSE.0, PAUSE.1, failures)).await;
            failures += 1;
        }
    }

    /// Sends this node's log of a hub until the node stops. `kept` tells of new events.
    pub(super) async fn send_own(
        &self,
        hub: &HubName,
        delivery: &Arc<Delivery>,
        kept: &Notify,
        stopping: watch::Receiver<bool>,
    ) {
        let log = self.own(hub);
        let mut stopped = stopping.clone();
        while !*stopping.borrow() {
            if self.lease(&log).await {
                let stop = Some(stopping.clone());
                tokio::select! {
                    () = self.send(&log, delivery, Some(kept), stop) => {}
                    () = self.renew(&log) => tracing::warn!(%hub, "Another node sends this node's events."),
                }
            }
            tokio::select! {
                () = sleep(self.times.renew) => {}
                () = wait(&mut stopped) => {}
            }
        }
        self.drop_lease(&log).await;
    }

    /// Looks for logs, for ever: `found` is told the hubs of this node's own, and those of nodes that are gone are sent.
    pub(super) async fn look(self: &Arc<Self>, delivery: &Arc<Delivery>, found: impl Fn(HubName)) {
        loop {
            match self.logs().await {
                Ok(logs) => {
                    for (log, leased) in logs {
                        if log.node == self.node {
                            found(log.hub);
                        } else if !leased && self.has_more(&log).await && self.lease(&log).await {
                            tracing::info!(node = %log.node, hub = %log.hub, "Sending the events of a node that is gone.");
                            tokio::select! {
                                () = self.send(&log, delivery, None, None) => {}
                                () = self.renew(&log) => {}
                            }
                            self.drop_lease(&log).await;
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "The logs of events cannot be looked for."),
            }
            sleep(self.times.look).await;
        }
    }

    /// All logs that were ever sent from, and whether somebody has the lease.
    async fn logs(&self) -> Result<Vec<(Log, bool)>, StoreError> {
        let mut logs: Vec<(Log, bool)> = Vec::new();
        let mut after = None;
        loop {
            let page = self.records.list(PREFIX.to_owned(), after, BATCH).await?;
            for (key, _) in &page {
                let Some((log, what)) = Log::of_record(key.as_str()) else { continue };
                // `lease` stands before `sent`.
                match logs.iter_mut().find(|(known, _)| *known == log) {
                    Some((_, leased)) => *leased |= what == "lease",
                    None => logs.push((log, what == "lease")),
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == BATCH => after = Some(key.clone()),
                _ => return Ok(logs),
            }
        }
    }

    async fn has_more(&self, log: &Log) -> bool {
        let head =
            self.store.heads(vec![log.key()]).await.ok().and_then(|heads| heads.first().copied().flatten());
        let mark = self.mark(log).await.unwrap_or_default();
        head.is_some_and(|head| {
            mark.position.is_none_or(|at| at.epoch != head.epoch || at.offset != head.last)
                && head.first <= head.last
        })
    }

    /// Sends a log from where its record says: to its end, or, where somebody tells of new events, until the node stops.
    async fn send(
        &self,
        log: &Log,
        delivery: &Arc<Delivery>,
        kept: Option<&Notify>,
        mut stopping: Option<watch::Receiver<bool>>,
    ) {
        let mut failures = 0;
        let mut mark = None;
        while !stopping.as_ref().is_some_and(|stopping| *stopping.borrow()) {
            let result = self.send_page(log, delivery, &mut mark, stopping.as_mut()).await;
            match result {
                Ok(0) => match kept {
                    None => return,
                    Some(kept) => {
                        tokio::select! {
                            () = kept.notified() => {}
                            () = sleep(self.times.read) => {}
                            () = until(stopping.as_mut()) => {}
                        }
                    }
                },
                Ok(_) => failures = 0,
                Err(error) => {
                    tracing::debug!(%error, "The log of events cannot be read, or its record not be changed.");
                    // It is read again: somebody else may have changed it.
                    mark = None;
                    sleep(pause(PAUSE.0, PAUSE.1, failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Sends what comes next, and returns how much that was.
    async fn send_page(
        &self,
        log: &Log,
        delivery: &Arc<Delivery>,
        mark: &mut Option<Mark>,
        stopping: Option<&mut watch::Receiver<bool>>,
    ) -> Result<usize, StoreError> {
        if mark.is_none() {
            *mark = Some(self.mark(log).await?);
        }
        let at = mark.as_mut().expect("it was read above");
        let limit = PageLimit { count: BATCH, ..PageLimit::default() };
        let page = self.store.read(log.key(), at.position, limit).await?;
        if let Some(gap) = page.gap {
            // What is there is sent, from its beginning on.
            tracing::warn!(?gap, node = %log.node, hub = %log.hub, "The log of events has lost some, or begins anew.");
            at.position = None;
            return self.note(log, at).await.map(|()| usize::from(page.head.is_some()));
        }
        let (Some(head), Some(last)) = (page.head, page.messages.last()) else { return Ok(0) };
        let notices = page.messages.iter().filter_map(|stored| serde_json::from_slice(&stored.body).ok());
        tokio::select! {
            () = delivery.deliver(notices.collect()) => {}
            // Those of the page that were taken are then sent once more, by the next start. What follows is not cut short.
            () = async {
                until(stopping).await;
                sleep(LINGER).await;
            } => return Ok(0),
        }
        let position = Position { epoch: head.epoch, offset: last.offset };
        at.position = Some(position);
        self.note(log, at).await?;
        // Room is freed sooner than age would; nothing depends on it.
        let _ = self.store.trim(log.key(), Cut::Through(position)).await;
        Ok(page.messages.len())
    }

    /// How far a log was sent. There is a record afterwards, by which others find the log.
    async fn mark(&self, log: &Log) -> Result<Mark, StoreError> {
        let Some(record) = self.records.get(log.record("sent")).await? else {
            let mut mark = Mark::default();
            let change = Self::change(log, &mark);
            // Else somebody else has just made it.
            if let Outcome::Done(version) = self.records.compare_and_set(change).await? {
                mark.version = version;
            }
            return Ok(mark);
        };
        let sent: Option<Sent> = serde_json::from_slice(&record.value).ok();
        let position = sent.filter(|sent| sent.epoch > 0);
        let position = position.map(|Sent { epoch, offset }| Position { epoch, offset });
        Ok(Mark { version: Some(record.version), position })
    }

    /// Writes down how far a log was sent. Where somebody else has written meanwhile, that counts.
    async fn note(&self, log: &Log, mark: &mut Mark) -> Result<(), StoreError> {
        match self.records.compare_and_set(Self::change(log, mark)).await? {
            Outcome::Done(version) => mark.version = version,
            Outcome::Differs(_) => *mark = self.mark(log).await?,
        }
        Ok(())
    }

    fn change(log: &Log, mark: &Mark) -> Change {
        let Position { epoch, offset } = mark.position.unwrap_or(Position { epoch: 0, offset: 0 });
        let bytes = serde_json::to_vec(&Sent { epoch, offset }).expect("numbers are always JSON");
        Change {
            key: log.record("sent"),
            expect: mark.version.map_or(Expect::Nothing, Expect::Version),
            to: Some(Value { bytes: bytes.into(), lives: Some(REMEMBER) }),
        }
    }

    /// Takes or renews the lease of a log. False when somebody else has it, or nobody knows.
    async fn lease(&self, log: &Log) -> bool {
        let key = log.record("lease");
        let expect = match self.records.get(key.clone()).await {
            Ok(None) => Expect::Nothing,
            Ok(Some(record)) if record.value == self.owner => Expect::Version(record.version),
            Ok(Some(_)) | Err(_) => return false,
        };
        let to = Some(Value { bytes: Arc::clone(&self.owner), lives: Some(self.times.lease) });
        matches!(self.records.compare_and_set(Change { key, expect, to }).await, Ok(Outcome::Done(_)))
    }

    /// Renews a lease until it is lost.
    async fn renew(&self, log: &Log) {
        loop {
            sleep(self.times.renew).await;
            if !self.lease(log).await {
                return;
            }
        }
    }

    async fn drop_lease(&self, log: &Log) {
        let key = log.record("lease");
        if let Ok(Some(record)) = self.records.get(key.clone()).await
            && record.value == self.owner
        {
            let change = Change { key, expect: Expect::Version(record.version), to: None };
            // Else it ends by itself.
            let _ = self.records.compare_and_set(change).await;
        }
    }
}

/// Until the node stops; for ever where nobody says so.
async fn until(stopping: Option<&mut watch::Receiver<bool>>) {
    match stopping {
        Some(stopping) => wait(stopping).await,
        None => std::future::pending().await,
    }
}

async fn wait(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn append(log: &LogKey, notice: &Notice) -> Option<Append> {
    let id: MessageId = notice.id()?;
    let body = serde_json::to_vec(notice).expect("text and numbers are always JSON");
    Some(Append { log: log.clone(), key: AppendKey::from(id), id, body: body.into(), retention: RETENTION })
}
