//! Records within a transaction of the writer, and as readers see them. Tested by the conformance suite.

use rusqlite::{Connection, OptionalExtension, Result, Row, Statement};
use tieline_core::records::{Change, Expect, Outcome, Record, RecordKey, Version};

/// Records whose life is over that one sweep takes away.
const SWEPT_RECORDS: usize = 256;

/// The records of a file, as its writer changes them.
pub(super) struct Facts<'c> {
    get: Statement<'c>,
    set: Statement<'c>,
    remove: Statement<'c>,
    sweep: Statement<'c>,
}

/// Finds one record that lives.
pub(super) const GET: &str =
    "SELECT version, value FROM records WHERE key = ?1 AND (ends_ms IS NULL OR ends_ms > ?2)";

/// From the version in a row's first column and the value in its second.
pub(super) fn record(row: &Row<'_>) -> Result<Record> {
    let value: Vec<u8> = row.get(1)?;
    Ok(Record { version: Version(row.get::<_, i64>(0)? as u64), value: value.into() })
}

/// As it is in the file: bytes, which sort as bytes.
pub(super) fn key(key: &RecordKey) -> &[u8] {
    key.as_str().as_bytes()
}

impl<'c> Facts<'c> {
    pub(super) fn new(connection: &'c Connection) -> Result<Self> {
        Ok(Facts {
            get: connection.prepare(GET)?,
            set: connection.prepare("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)")?,
            remove: connection.prepare("DELETE FROM records WHERE key = ?")?,
            sweep: connection.prepare(
                "DELETE FROM records WHERE key IN (SELECT key FROM records WHERE ends_ms <= ? ORDER BY ends_ms LIMIT ?)",
            )?,
        })
    }

    pub(super) fn change(&mut self, change: &Change, now_ms: u64) -> Result<Outcome> {
        let found = match change.expect {
            Expect::Anything => None,
            Expect::Nothing | Expect::Version(_) => {
                self.get.query_row((key(&change.key), now_ms as i64), record).optional()?
            }
        };
        let is_expected = match change.expect {
            Expect::Anything => true,
            Expect::Nothing => found.is_none(),
            Expect::Version(version) => found.as_ref().is_some_and(|record| record.version == version),
        };
        if !is_expected {
            return Ok(Outcome::Differs(found));
        }
        let Some(value) = &change.to else {
            self.remove.execute([key(&change.key)])?;
            return Ok(Outcome::Done(None));
        };
        let version = Version::fresh();
        let ends_ms = value.lives.map(|lives| {
            let lives = u64::try_from(lives.as_millis()).unwrap_or(u64::MAX);
            i64::try_from(now_ms.saturating_add(lives)).unwrap_or(i64::MAX)
        });
        self.set.execute((key(&change.key), version.0 as i64, &value.bytes[..], ends_ms))?;
        Ok(Outcome::Done(Some(version)))
    }

    /// Takes away some whose life is over. Whether there may be more.
    pub(super) fn sweep(&mut self, now_ms: u64) -> Result<bool> {
        Ok(self.sweep.execute((now_ms as i64, SWEPT_RECORDS as i64))? == SWEPT_RECORDS)
    }
}
