//! Logs within a transaction of the writer: appending, cutting, renewing.
//!
//! What a log is, is a row of `tieline_logs`. The rows of all logs that a batch touches are locked first, in the order of their
//! hashes, so that two nodes never wait for each other in a circle. Offsets come from these rows, and the batch is then worked off in
//! memory. A cut, and what a log has too many of, only move its first offset here; rows are taken away by the
//! sweeper. Tested by the conformance suite and in `sql/tests`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tieline_core::store::{Append, Appended, Cut, Head, LogKey, Retention, fresh_epoch};
use tieline_proto::Position;

use super::dialect::{APPENDS, DROPPED, LOGS, MESSAGES};
use super::link::{Column, Link, Result, Row};
use crate::requests::Write;

/// Logs that are known to have a row. Past it all are forgotten, and asked for anew.
const KNOWN: usize = 65_536;

/// Rows in front of a log's first offset with which it is swept before its time: fewer are not worth the way.
const WORTHWHILE: u64 = 64;

/// What a log is looked up by: names are too long for an index.
pub(super) type Hash = [u8; 32];

pub(super) fn hash(log: &LogKey) -> Hash {
    digest(&SHA256, log.to_text().as_bytes()).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// A row of `tieline_logs`.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// Its number, drawn at random and never given to another log.
    pub(super) log: i64,
    pub(super) epoch: u64,
    /// The oldest offset that is given to readers.
    pub(super) first: u64,
    /// The newest offset.
    pub(super) last: u64,
    /// The oldest offset that may still have a row.
    pub(super) swept: u64,
    /// Bytes of bodies of all rows.
    pub(super) bytes: u64,
    /// The latest time in the id of a message there ever was.
    pub(super) newest_ms: u64,
    pub(super) retention: Retention,
    /// When the sweeper has to look at it.
    pub(super) due_ms: u64,
}

/// The columns that [`Log::from_row`] reads.
pub(super) const COLUMNS: &str =
    "hash, log, epoch, first, last, swept, bytes, newest_ms, keep_count, keep_bytes, keep_ms, due_ms";

impl Log {
    fn fresh(retention: Retention) -> Self {
        Log {
            // Any number that no other log has; epochs are drawn from as many as there is use for.
            log: fresh_epoch() as i64,
            epoch: fresh_epoch(),
            first: 1,
            last: 0,
            swept: 1,
            bytes: 0,
            newest_ms: 0,
            retention,
            due_ms: i64::MAX as u64,
        }
    }

    pub(super) fn from_row(row: &Row) -> Result<(Hash, Self)> {
        let retention = Retention {
            count: row.number(8)?,
            bytes: row.number(9)?,
            age: Duration::from_millis(row.number(10)?),
        };
        let log = Log {
            log: row.int(1)?,
            epoch: row.number(2)?,
            first: row.number(3)?,
            last: row.number(4)?,
            swept: row.number(5)?,
            bytes: row.number(6)?,
            newest_ms: row.number(7)?,
            retention,
            due_ms: row.number(11)?,
        };
        Ok((row.exactly(0)?, log))
    }

    fn head(&self) -> Head {
        Head { epoch: self.epoch, first: self.first, last: self.last }
    }

    /// Takes one more message into account.
    fn append(&mut self, append: &Append) {
        let sent_ms = append.id.unix_ms();
        let was_empty = self.first > self.last;
        self.last += 1;
        self.bytes += append.body.len() as u64;
        self.newest_ms = self.newest_ms.max(sent_ms);
        if was_empty {
            self.due_ms = self.due_ms.min(sent_ms.saturating_add(append.retention.age_ms()));
        }
        if self.last > 1 && self.retention != append.retention {
            self.due_ms = 0;
        }
        self.retention = append.retention;
        let kept = (self.last + 1).saturating_sub(append.retention.count.max(1));
        self.first = self.first.max(kept);
        let is_large = self.last > self.first && self.bytes > append.retention.bytes;
        if is_large || self.first - self.swept >= WORTHWHILE {
            self.due_ms = 0;
        }
    }
}

/// A log that a batch touches.
struct Touched {
    name: String,
    /// What it keeps if it has to be made; none when nothing of the batch makes it.
    retention: Option<Retention>,
    /// What it is; none when it is not there.
    log: Option<Log>,
    /// Whether the row of before has to go.
    is_dropped: bool,
    is_changed: bool,
}

/// A message that is to be written.
struct Message {
    log: i64,
    number: u64,
    id: [u8; 16],
    body: Arc<[u8]>,
}

/// The hashes of logs that had a row when this handle last looked.
#[derive(Default)]
pub(super) struct Known(HashSet<Hash>);

impl Known {
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn add(&mut self, hashes: impl Iterator<Item = Hash>) {
        if self.0.len() > KNOWN {
            self.0.clear();
        }
        self.0.extend(hashes);
    }
}

/// The logs of one batch.
pub(super) struct Logs {
    /// Which log each request of the batch is about, in the order of the batch.
    hashes: Vec<Option<Hash>>,
    touched: BTreeMap<Hash, Touched>,
    /// The present slot of appends.
    slot: i64,
    /// Appends that were made before: key and log, and the offset.
    made: HashMap<(u128, i64), u64>,
    messages: Vec<Message>,
    /// Keys of `messages`.
    said: Vec<[u8; 16]>,
    /// Numbers of logs that were dropped.
    dropped: Vec<i64>,
}

impl Logs {
    /// What a batch is about.
    pub(super) fn of(batch: &[Write]) -> Self {
        let (mut hashes, mut touched) = (Vec::with_capacity(batch.len()), BTreeMap::new());
        for write in batch {
            let (key, retention) = match write {
                Write::Append(append, _) => (&append.log, Some(append.retention)),
                Write::Trim(log, ..) | Write::Renew(log, ..) => (log, None),
                Write::Change(..) => {
                    hashes.push(None);
                    continue;
                }
            };
            let hash = hash(key);
            hashes.push(Some(hash));
            let touched = touched.entry(hash).or_insert_with(|| Touched {
                name: key.to_text(),
                retention: None,
                log: None,
                is_dropped: false,
                is_changed: false,
            });
            touched.retention = touched.retention.or(retention);
        }
        Logs {
            hashes,
            touched,
            slot: 0,
            made: HashMap::new(),
            messages: Vec::new(),
            said: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Locks the rows of all logs and reads what is needed; makes those that are not there. Whether all are there that have to be:
    /// if not, one that was known has been dropped by another node, and the transaction is begun anew.
    pub(super) async fn lock(&mut self, link: &mut Link, known: &mut Known, batch: &[Write]) -> Result<bool> {
        if self.touched.is_empty() {
            return Ok(true);
        }
        let made = self.touched.iter().filter(|(_, touched)| touched.retention.is_some());
        if made.clone().any(|(hash, _)| !known.0.contains(hash)) {
            // All of them, so that they are locked in order.
            let fresh = made.map(|(hash, touched)| {
                let retention = touched.retention.expect("it was looked for");
                (*hash, touched.name.as_bytes(), Log::fresh(retention))
            });
            let fresh: Vec<_> = fresh.collect();
            put(link, &["hash"], fresh.iter().map(|(hash, name, log)| (hash, *name, log))).await?;
        }
        let hashes: Vec<&[u8]> = self.touched.keys().map(|hash| &hash[..]).collect();
        let select = format!("SELECT {COLUMNS}, (SELECT slot FROM tieline_store) FROM tieline_logs");
        let rows = link.of_keys(&select, "hash", &hashes, "ORDER BY hash FOR UPDATE").await?;
        for row in &rows {
            let (hash, log) = Log::from_row(row)?;
            self.slot = row.int(12)?;
            if let Some(touched) = self.touched.get_mut(&hash) {
                touched.log = Some(log);
            }
        }
        if self.touched.values().any(|touched| touched.retention.is_some() && touched.log.is_none()) {
            return Ok(false);
        }
        let found = self.touched.iter().filter(|(_, touched)| touched.log.is_some());
        known.add(found.map(|(hash, _)| *hash));
        self.look_for_keys(link, batch).await?;
        Ok(true)
    }

    async fn look_for_keys(&mut self, link: &mut Link, batch: &[Write]) -> Result<()> {
        let mut keys: Vec<[u8; 16]> = Vec::new();
        for (write, hash) in batch.iter().zip(&self.hashes) {
            let (Write::Append(append, _), Some(hash)) = (write, hash) else { continue };
            // A log that has had no message has seen no key.
            if self.touched[hash].log.as_ref().is_some_and(|log| log.last > 0) {
                keys.push(append.key.0.to_be_bytes());
            }
        }
        keys.sort_unstable();
        keys.dedup();
        if !keys.is_empty() {
            let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
            let rows =
                link.of_keys("SELECT said, log, number FROM tieline_appends", "said", &keys, "").await?;
            for row in rows {
                let key = u128::from_be_bytes(row.exactly(0)?);
                self.made.insert((key, row.int(1)?), row.number(2)?);
            }
        }
        Ok(())
    }

    /// The log that the request at this place of the batch is about.
    fn at(&mut self, place: usize) -> &mut Touched {
        let hash = self.hashes[place].expect("the request is about a log");
        self.touched.get_mut(&hash).expect("each log of the batch is among them")
    }

    pub(super) fn append(&mut self, place: usize, append: &Append) -> Appended {
        let touched = self.at(place);
        // One that was dropped by the same batch is made anew.
        let mut log = touched.log.take().unwrap_or_else(|| Log::fresh(append.retention));
        let known = (append.key.0, log.log);
        let made = self.made.get(&known).copied();
        if made.is_none() {
            log.append(append);
            self.made.insert(known, log.last);
            self.said.push(append.key.0.to_be_bytes());
            let (number, id, body) = (log.last, append.id.0.to_be_bytes(), Arc::clone(&append.body));
            self.messages.push(Message { log: log.log, number, id, body });
        }
        let position = Position { epoch: log.epoch, offset: made.unwrap_or(log.last) };
        let touched = self.at(place);
        touched.is_changed |= made.is_none();
        touched.log = Some(log);
        Appended { position, is_duplicate: made.is_some() }
    }

    pub(super) fn trim(&mut self, place: usize, cut: Cut) {
        let touched = self.at(place);
        let Some(log) = &mut touched.log else { return };
        match cut {
            Cut::Through(to) if to.epoch == log.epoch => {
                let first = log.last.min(to.offset) + 1;
                if first > log.first {
                    log.first = first;
                    log.due_ms = 0;
                    touched.is_changed = true;
                }
            }
            Cut::Through(_) => {}
            Cut::Whole => {
                let number = log.log;
                touched.log = None;
                touched.is_dropped = true;
                self.dropped.push(number);
            }
        }
    }

    pub(super) fn renew(&mut self, place: usize, epoch: u64) -> Option<Head> {
        let touched = self.at(place);
        let log = touched.log.as_mut()?;
        if log.epoch == epoch {
            log.epoch = fresh_epoch();
            touched.is_changed = true;
        }
        Some(log.head())
    }

    /// Whether the batch leaves something to the sweeper.
    pub(super) fn is_left(&self) -> bool {
        let is_due = |touched: &Touched| touched.log.as_ref().is_some_and(|log| log.due_ms == 0);
        !self.dropped.is_empty() || self.touched.values().any(|touched| touched.is_changed && is_due(touched))
    }

    /// Writes what has become of the batch.
    pub(super) async fn finish(&self, link: &mut Link, known: &mut Known) -> Result<()> {
        let messages = &self.messages;
        let logs = || Column::Ints(messages.iter().map(|message| message.log).collect());
        let numbers = || Column::Ints(messages.iter().map(|message| message.number as i64).collect());
        let columns = [
            logs(),
            numbers(),
            Column::Bytes(messages.iter().map(|message| &message.id[..]).collect()),
            Column::Ints(messages.iter().map(|message| message.body.len() as i64).collect()),
            Column::Bytes(messages.iter().map(|message| &message.body[..]).collect()),
        ];
        link.put(&MESSAGES, &[], &columns).await?;
        let said = Column::Bytes(self.said.iter().map(|key| &key[..]).collect());
        let slots = Column::Ints(vec![self.slot; self.said.len()]);
        link.put(&APPENDS, &[], &[said, logs(), numbers(), slots]).await?;
        link.put(&DROPPED, &[], &[Column::Ints(self.dropped.clone())]).await?;
        let gone = self.touched.iter().filter(|(_, touched)| touched.is_dropped);
        let gone: Vec<&[u8]> = gone.map(|(hash, _)| &hash[..]).collect();
        if !gone.is_empty() {
            known.forget();
            link.delete(&LOGS, &gone).await?;
        }
        let changed = self.touched.iter().filter(|(_, touched)| touched.is_changed);
        let changed = changed.filter_map(|(hash, touched)| {
            touched.log.as_ref().map(|log| (hash, touched.name.as_bytes(), log))
        });
        let sets =
            ["epoch", "first", "last", "bytes", "newest_ms", "keep_count", "keep_bytes", "keep_ms", "due_ms"];
        put(link, &sets, changed).await
    }
}

/// Puts rows of logs.
async fn put<'a>(
    link: &mut Link,
    sets: &[&str],
    logs: impl Iterator<Item = (&'a Hash, &'a [u8], &'a Log)>,
) -> Result<()> {
    let logs: Vec<_> = logs.collect();
    let ints = |of: fn(&Log) -> u64| {
        let clamped = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Column::Ints(logs.iter().map(|(_, _, log)| clamped(of(log))).collect())
    };
    let columns = [
        Column::Bytes(logs.iter().map(|(hash, ..)| &hash[..]).collect()),
        Column::Bytes(logs.iter().map(|(_, name, _)| *name).collect()),
        Column::Ints(logs.iter().map(|(_, _, log)| log.log).collect()),
        ints(|log| log.epoch),
        ints(|log| log.first),
        ints(|log| log.last),
        ints(|log| log.swept),
        ints(|log| log.bytes),
        ints(|log| log.newest_ms),
        ints(|log| log.retention.count),
        ints(|log| log.retention.bytes),
        ints(|log| log.retention.age_ms()),
        ints(|log| log.due_ms),
    ];
    link.put(&LOGS, sets, &columns).await
}
