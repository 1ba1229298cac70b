//! Logs within a transaction of the writer: appending, cutting, sweeping.
//!
//! What a log is, is a row of `logs`; offsets come from that row, inside the transaction, so several processes may share the
//! file. The row is read once and kept as long as nobody else writes, and is written once for each transaction that
//! changed it. A cut only moves a log's first offset; the rows before it are swept later, a slice at a time. It is not
//! told when a transaction ends in failure: it is then made anew. Tested by the conformance suite and in `sqlite/tests`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Result, Row, Statement};
use tieline_core::store::{Append, Appended, Cut, Head, LogKey, Retention, fresh_epoch};
use tieline_proto::Position;

/// Rows of logs that are kept in memory between transactions. Past it all are dropped and read again.
const KEPT_LOGS: usize = 65_536;

/// Rows that one slice of sweeping takes away beside those that the transaction's own appends have earned.
const SLICE: usize = 16;

/// Bytes of bodies that one slice takes away at most, and one message at least.
const SLICE_BYTES: u64 = 4 << 20;

/// Rows of logs that one sweep through the file looks at.
const SWEPT_LOGS: usize = 512;

/// Rows that one sweep through the file takes away from one log.
const SWEPT_ROWS: usize = 512;

/// A row of `logs`.
#[derive(Clone, Debug)]
struct Log {
    /// Its number, which is never given to another log.
    log: i64,
    epoch: u64,
    /// The oldest offset that is given to readers.
    first: u64,
    /// The newest offset.
    last: u64,
    /// The oldest offset that still has a row: it falls behind `first` until a sweep.
    swept: u64,
    /// Bytes of bodies of all rows.
    bytes: u64,
    /// The latest time in the id of a message there ever was.
    newest_ms: u64,
    retention: Retention,
    /// The time in the id of the oldest message, where it is known; not in the file.
    oldest_ms: Option<u64>,
    /// Appends of this transaction.
    appended: usize,
    /// Whether the row in the file is older.
    is_changed: bool,
}

impl Log {
    fn head(&self) -> Head {
        Head { epoch: self.epoch, first: self.first, last: self.last }
    }

    /// Whether its oldest message is past the retention.
    fn is_over(&self, oldest_ms: u64, now_ms: u64) -> bool {
        let count = (self.last + 1).saturating_sub(self.first);
        let is_large = count > 1 && (count > self.retention.count || self.bytes > self.retention.bytes);
        is_large || oldest_ms.saturating_add(self.retention.age_ms()) <= now_ms
    }

    /// Whether a sweep would find nothing to take.
    fn is_clean(&self, now_ms: u64) -> bool {
        self.swept == self.first
            && (self.first > self.last || self.oldest_ms.is_some_and(|oldest| !self.is_over(oldest, now_ms)))
    }

    fn from_row(row: &Row<'_>) -> Result<Self> {
        let number = |column| row.get::<_, i64>(column).map(|value| value as u64);
        let retention =
            Retention { count: number(7)?, bytes: number(8)?, age: Duration::from_millis(number(9)?) };
        Ok(Log {
            log: row.get(0)?,
            epoch: number(1)?,
            first: number(2)?,
            last: number(3)?,
            swept: number(4)?,
            bytes: number(5)?,
            newest_ms: number(6)?,
            retention,
            oldest_ms: None,
            appended: 0,
            is_changed: false,
        })
    }
}

/// What a sweep has left for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    /// Rows that were found, or may be there.
    ToTake,
    /// Logs that it has not looked at.
    ToSee,
    /// Nothing: the next one begins anew.
    Nothing,
}

/// What a store remembers of which append was when: the present slot and the one before are looked at.
#[derive(Clone, Copy, Debug)]
struct Slots {
    present: i64,
    /// The last key of the slot before, which gets no more of them: a key behind it is not there. Most are behind it,
    /// as most keys are ids of messages and begin with a time.
    last_before: Option<[u8; 16]>,
}

/// The logs of a file, as its writer knows them.
pub(super) struct Logs<'c> {
    window: Duration,
    logs: HashMap<LogKey, Log>,
    slots: Option<Slots>,
    /// The last slot that was the present one when this process looked, and when it first was.
    seen: Option<(i64, Instant)>,
    /// The file's version as of the last transaction: another one means that somebody else has written.
    version: Option<i64>,
    /// The keys of logs that the transaction touched.
    touched: Vec<LogKey>,
    /// Appends of this transaction.
    appended: usize,
    /// Whether older slots may have rows.
    has_old_slots: bool,
    /// The last log that the sweep through the file has seen.
    cursor: i64,
    data_version: Statement<'c>,
    find: Statement<'c>,
    make: Statement<'c>,
    keep: Statement<'c>,
    unname: Statement<'c>,
    forget: Statement<'c>,
    next_logs: Statement<'c>,
    insert: Statement<'c>,
    oldest: Statement<'c>,
    sweep: Statement<'c>,
    known: Statement<'c>,
    remember: Statement<'c>,
    last_key: Statement<'c>,
    old_appends: Statement<'c>,
    forget_appends: Statement<'c>,
    slots_now: Statement<'c>,
    turn_slot: Statement<'c>,
}

const COLUMNS: &str = "log, epoch, first, last, swept, bytes, newest_ms, keep_count, keep_bytes, keep_ms";

impl<'c> Logs<'c> {
    pub(super) fn new(connection: &'c Connection, window: Duration) -> Result<Self> {
        let prepare = |sql: &str| connection.prepare(sql);
        Ok(Logs {
            window,
            logs: HashMap::new(),
            slots: None,
            seen: None,
            version: None,
            touched: Vec::new(),
            appended: 0,
            has_old_slots: true,
            cursor: 0,
            data_version: prepare("PRAGMA data_version")?,
            find: prepare(&format!("SELECT {COLUMNS} FROM logs WHERE name = ?"))?,
            make: prepare("INSERT INTO logs VALUES (NULL, ?, ?, 1, 0, 1, 0, 0, ?, ?, ?)")?,
            keep: prepare(
                "UPDATE logs SET epoch = ?2, first = ?3, last = ?4, swept = ?5, bytes = ?6, newest_ms = ?7, \
                 keep_count = ?8, keep_bytes = ?9, keep_ms = ?10 WHERE log = ?1",
            )?,
            unname: prepare("UPDATE logs SET name = NULL, first = last + 1 WHERE log = ?")?,
            forget: prepare("DELETE FROM logs WHERE log = ?")?,
            next_logs: prepare(&format!(
                "SELECT {COLUMNS}, name IS NULL FROM logs WHERE log > ? ORDER BY log LIMIT {SWEPT_LOGS}"
            ))?,
            insert: prepare("INSERT INTO messages VALUES (?, ?, ?, ?)")?,
            oldest: prepare(
                "SELECT number, id, length(body) FROM messages WHERE log = ? AND number >= ? ORDER BY number LIMIT ?",
            )?,
            sweep: prepare("DELETE FROM messages WHERE log = ? AND number < ?")?,
            known: prepare("SELECT number FROM appends WHERE slot = ? AND key = ? AND log = ?")?,
            remember: prepare("INSERT INTO appends VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")?,
            last_key: prepare("SELECT key FROM appends WHERE slot = ? ORDER BY key DESC LIMIT 1")?,
            old_appends: prepare(
                "SELECT slot, key, log FROM appends WHERE slot < ? ORDER BY slot, key, log LIMIT ?",
            )?,
            forget_appends: prepare("DELETE FROM appends WHERE (slot, key, log) <= (?, ?, ?)")?,
            slots_now: prepare("SELECT slot FROM store")?,
            turn_slot: prepare("UPDATE store SET slot = ?, since_ms = ?")?,
        })
    }

    /// At the begin of each transaction: drops what it knows if somebody else has written since.
    pub(super) fn begin(&mut self, now: Instant, now_ms: u64) -> Result<()> {
        let version = self.data_version.query_row([], |row| row.get(0))?;
        if self.version != Some(version) || self.logs.len() > KEPT_LOGS {
            self.logs.clear();
            self.slots = None;
            self.version = Some(version);
        }
        self.turn_slot(now, now_ms)
    }

    /// After a transaction that was not committed: what it knows is not in the file.
    pub(super) fn roll_back(&mut self) {
        self.version = None;
        self.touched.clear();
        self.appended = 0;
    }

    /// Turns to the next slot when this process has seen the present one for a window. Wall clocks have no say: they leap, and
    /// those of two processes may differ by more than a window.
    fn turn_slot(&mut self, now: Instant, now_ms: u64) -> Result<()> {
        let mut slots = match self.slots {
            Some(slots) => slots,
            None => {
                let present: i64 = self.slots_now.query_row([], |row| row.get(0))?;
                Slots { present, last_before: self.last_key(present - 1)? }
            }
        };
        let seen = self.seen.filter(|(slot, _)| *slot == slots.present).map_or(now, |(_, since)| since);
        self.seen = Some((slots.present, seen));
        if now.duration_since(seen) >= self.window {
            let last_before = self.last_key(slots.present)?;
            slots = Slots { present: slots.present + 1, last_before };
            self.turn_slot.execute((slots.present, now_ms as i64))?;
            self.seen = Some((slots.present, now));
            self.has_old_slots = true;
        }
        self.slots = Some(slots);
        Ok(())
    }

    fn last_key(&mut self, slot: i64) -> Result<Option<[u8; 16]>> {
        self.last_key.query_row([slot], |row| row.get(0)).optional()
    }

    fn present_slot(&self) -> i64 {
        self.slots.map_or(0, |slots| slots.present)
    }

    /// The log, read if it is not known.
    fn log(&mut self, key: &LogKey) -> Result<Option<&mut Log>> {
        if !self.logs.contains_key(key) {
            let Some(log) = self.find.query_row([key.to_text()], Log::from_row).optional()? else {
                return Ok(None);
            };
            self.logs.insert(key.clone(), log);
        }
        Ok(self.logs.get_mut(key))
    }

    fn make(&mut self, key: &LogKey, retention: Retention) -> Result<()> {
        let epoch = fresh_epoch();
        let log = self.make.insert((
            key.to_text(),
            epoch as i64,
            clamped(retention.count),
            clamped(retention.bytes),
            retention.age_ms() as i64,
        ))?;
        let log = Log {
            log,
            epoch,
            first: 1,
            last: 0,
            swept: 1,
            bytes: 0,
            newest_ms: 0,
            retention,
            oldest_ms: None,
            appended: 0,
            is_changed: false,
        };
        self.logs.insert(key.clone(), log);
        Ok(())
    }

    pub(super) fn append(&mut self, append: &Append) -> Result<Appended> {
        let slots = self.slots.expect("a transaction has begun");
        if self.log(&append.log)?.is_none() {
            self.make(&append.log, append.retention)?;
        }
        let log = self.logs.get_mut(&append.log).expect("it was found or made");
        let key = append.key.0.to_be_bytes();
        let (slot, number) = (slots.present, log.last + 1);
        let mut known = None;
        if slots.last_before.is_some_and(|last| key <= last) {
            known = self.known.query_row((slot - 1, key, log.log), |row| row.get::<_, i64>(0)).optional()?;
        }
        if known.is_none() && self.remember.execute((slot, key, log.log, number as i64))? == 0 {
            known = Some(self.known.query_row((slot, key, log.log), |row| row.get(0))?);
        }
        if let Some(number) = known {
            let position = Position { epoch: log.epoch, offset: number as u64 };
            return Ok(Appended { position, is_duplicate: true });
        }
        log.last = number;
        let id = append.id.0.to_be_bytes();
        self.insert.execute((log.log, log.last as i64, id, &append.body[..]))?;
        log.retention = append.retention;
        log.newest_ms = log.newest_ms.max(append.id.unix_ms());
        log.bytes += append.body.len() as u64;
        if log.first == log.last {
            log.oldest_ms = Some(append.id.unix_ms());
        }
        log.appended += 1;
        self.appended += 1;
        let position = Position { epoch: log.epoch, offset: log.last };
        if !std::mem::replace(&mut log.is_changed, true) {
            self.touched.push(append.log.clone());
        }
        Ok(Appended { position, is_duplicate: false })
    }

    pub(super) fn trim(&mut self, key: &LogKey, cut: Cut) -> Result<()> {
        let Some(log) = self.log(key)? else { return Ok(()) };
        match cut {
            Cut::Through(to) if to.epoch == log.epoch => {
                let first = log.last.min(to.offset) + 1;
                if first > log.first {
                    log.first = first;
                    log.oldest_ms = None;
                    if !std::mem::replace(&mut log.is_changed, true) {
                        self.touched.push(key.clone());
                    }
                }
            }
            Cut::Through(_) => {}
            Cut::Whole => {
                let log = log.clone();
                self.keep(&log)?;
                self.unname.execute([log.log])?;
                self.logs.remove(key);
            }
        }
        Ok(())
    }

    pub(super) fn renew(&mut self, key: &LogKey, epoch: u64) -> Result<Option<Head>> {
        let Some(log) = self.log(key)? else { return Ok(None) };
        if log.epoch == epoch {
            log.epoch = fresh_epoch();
            let head = log.head();
            if !std::mem::replace(&mut log.is_changed, true) {
                self.touched.push(key.clone());
            }
            return Ok(Some(head));
        }
        Ok(Some(log.head()))
    }

    /// Before the commit: sweeps a slice of each log that was touched, and writes their rows.
    pub(super) fn finish(&mut self, now_ms: u64) -> Result<()> {
        for key in std::mem::take(&mut self.touched) {
            // Dropped in the same transaction.
            let Some(mut log) = self.logs.remove(&key) else { continue };
            let slice = 2 * std::mem::take(&mut log.appended) + SLICE;
            self.sweep_log(&mut log, slice, now_ms)?;
            self.keep(&log)?;
            log.is_changed = false;
            self.logs.insert(key, log);
        }
        let slice = 2 * std::mem::take(&mut self.appended) + SLICE;
        self.forget_appends(slice)
    }

    fn forget_appends(&mut self, slice: usize) -> Result<()> {
        if self.has_old_slots {
            let oldest = self.present_slot() - 1;
            let (mut found, mut last) = (0, None);
            let mut rows = self.old_appends.query((oldest, slice as i64))?;
            while let Some(row) = rows.next()? {
                found += 1;
                last = Some((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?, row.get::<_, i64>(2)?));
            }
            drop(rows);
            if let Some(last) = last {
                self.forget_appends.execute(last)?;
            }
            self.has_old_slots = found == slice;
        }
        Ok(())
    }

    fn keep(&mut self, log: &Log) -> Result<()> {
        self.keep.execute((
            log.log,
            log.epoch as i64,
            log.first as i64,
            log.last as i64,
            log.swept as i64,
            log.bytes as i64,
            log.newest_ms as i64,
            clamped(log.retention.count),
            clamped(log.retention.bytes),
            log.retention.age_ms() as i64,
        ))?;
        Ok(())
    }

    /// Takes away at most `slice` rows from the log's old end: those that are cut off, and those past its retention.
    fn sweep_log(&mut self, log: &mut Log, slice: usize, now_ms: u64) -> Result<()> {
        if log.is_clean(now_ms) {
            return Ok(());
        }
        let (swept, bytes) = (log.swept, log.bytes);
        let mut rows = self.oldest.query((log.log, swept as i64, slice as i64))?;
        while let Some(row) = rows.next()? {
            let number = row.get::<_, i64>(0)? as u64;
            let oldest_ms = tieline_proto::MessageId(u128::from_be_bytes(row.get(1)?)).unix_ms();
            let is_cut = number < log.first;
            if !is_cut {
                log.oldest_ms = Some(oldest_ms);
            }
            if !(is_cut || log.is_over(oldest_ms, now_ms)) || bytes - log.bytes > SLICE_BYTES {
                break;
            }
            log.bytes = log.bytes.saturating_sub(row.get::<_, i64>(2)? as u64);
            log.swept = number + 1;
            if !is_cut {
                log.first = log.swept;
                log.oldest_ms = None;
            }
        }
        drop(rows);
        if log.swept > swept {
            log.is_changed = true;
            self.sweep.execute((log.log, log.swept as i64))?;
        }
        Ok(())
    }

    /// Looks at the next logs of the file, whether anybody appends to them or not: takes away what is past its age, and
    /// forgets logs that were dropped or have long been empty.
    pub(super) fn sweep(&mut self, now_ms: u64) -> Result<More> {
        self.forget_appends(SWEPT_ROWS)?;
        let rows = self
            .next_logs
            .query_map([self.cursor], |row| Ok((Log::from_row(row)?, row.get::<_, bool>(10)?)))?;
        let found = rows.collect::<Result<Vec<_>>>()?;
        self.cursor = if found.len() < SWEPT_LOGS { 0 } else { found.last().map_or(0, |(log, _)| log.log) };
        let mut left = SWEPT_ROWS;
        let mut changed = HashSet::new();
        for (mut log, is_dropped) in found {
            let before = log.swept;
            self.sweep_log(&mut log, left, now_ms)?;
            left = left.saturating_sub((log.swept - before) as usize);
            let is_empty = log.swept > log.last;
            let forgotten_ms = log.newest_ms.saturating_add(log.retention.age_ms().saturating_mul(2));
            if is_empty && (is_dropped || forgotten_ms < now_ms) {
                self.forget.execute([log.log])?;
            } else if log.is_changed {
                self.keep(&log)?;
            } else {
                continue;
            }
            if !is_dropped {
                changed.insert(log.log);
            }
            if left == 0 {
                self.cursor = log.log - 1;
                break;
            }
        }
        // What is kept in memory of these is old now. Of a log that was dropped nothing is kept.
        if !changed.is_empty() {
            self.logs.retain(|_, log| !changed.contains(&log.log));
        }
        Ok(match (left == 0 || self.has_old_slots, self.cursor) {
            (true, _) => More::ToTake,
            (false, 1..) => More::ToSee,
            (false, _) => More::Nothing,
        })
    }
}

/// As a number that SQLite can hold.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
