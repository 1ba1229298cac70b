//! Records within a transaction of the writer, and as readers see them. Tested by the conformance suite.
//!
//! A record that is not there has no row to lock, so each key of a batch is given one, whose life is over: nobody sees it, and it is
//! gone at the end if nothing came of it. By the server's clock alone lives end.

use std::collections::BTreeMap;
use std::sync::Arc;

use tieline_core::records::{Change, Expect, Outcome, Record, RecordKey, Version};

use super::dialect::RECORDS;
use super::link::{Column, Link, Result};
use crate::requests::Write;

/// The end of a life that never was. The sweeper passes it over, and so does not wait for who has made it.
const NEVER: i64 = 0;

/// A record that lives, and the end of its life if there is one.
struct Fact {
    record: Record,
    ends_ms: Option<i64>,
}

/// What a batch has made of a key.
#[derive(Default)]
struct Touched {
    fact: Option<Fact>,
    is_changed: bool,
}

/// The records of one batch.
pub(super) struct Facts {
    touched: BTreeMap<RecordKey, Touched>,
    /// The server's time.
    now_ms: i64,
}

impl Facts {
    /// What a batch is about.
    pub(super) fn of(batch: &[Write]) -> Self {
        let keys = batch.iter().filter_map(|write| match write {
            Write::Change(change, _) => Some((change.key.clone(), Touched::default())),
            _ => None,
        });
        Facts { touched: keys.collect(), now_ms: 0 }
    }

    /// Locks the rows of all keys, in their order, and reads them.
    pub(super) async fn lock(&mut self, link: &mut Link) -> Result<()> {
        if self.touched.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = self.touched.keys().map(|key| key.as_str().as_bytes()).collect();
        let columns = [
            Column::Bytes(keys.clone()),
            Column::Ints(vec![0; keys.len()]),
            Column::Bytes(vec![&[]; keys.len()]),
            Column::MaybeInts(vec![Some(NEVER); keys.len()]),
        ];
        link.put(&RECORDS, &["name"], &columns).await?;
        let now_ms = link.dialect.now_ms();
        let select = format!("SELECT version, value, name, {ENDS}, {now_ms} FROM tieline_records");
        let rows = link.of_keys(&select, "name", &keys, "").await?;
        for row in rows {
            self.now_ms = row.int(4)?;
            let ends_ms = row.int(3)?;
            let Some(key) = key(row.bytes(2)?).filter(|_| ends_ms > self.now_ms) else { continue };
            let record = Record { version: Version(row.number(0)?), value: row.bytes(1)?.into() };
            let ends_ms = Some(ends_ms).filter(|ends_ms| *ends_ms < i64::MAX);
            self.touched.entry(key).or_default().fact = Some(Fact { record, ends_ms });
        }
        Ok(())
    }

    pub(super) fn change(&mut self, change: &Change) -> Outcome {
        let touched = self.touched.entry(change.key.clone()).or_default();
        touched.fact.take_if(|fact| fact.ends_ms.is_some_and(|ends_ms| ends_ms <= self.now_ms));
        let found = touched.fact.as_ref().map(|fact| &fact.record);
        let is_expected = match change.expect {
            Expect::Anything => true,
            Expect::Nothing => found.is_none(),
            Expect::Version(version) => found.is_some_and(|record| record.version == version),
        };
        if !is_expected {
            return Outcome::Differs(found.cloned());
        }
        touched.is_changed = true;
        touched.fact = change.to.as_ref().map(|value| {
            let lives = value.lives.map(|lives| i64::try_from(lives.as_millis()).unwrap_or(i64::MAX));
            let record = Record { version: Version::fresh(), value: Arc::clone(&value.bytes) };
            Fact { record, ends_ms: lives.map(|lives| self.now_ms.saturating_add(lives)) }
        });
        Outcome::Done(touched.fact.as_ref().map(|fact| fact.record.version))
    }

    /// Writes what has become of the batch.
    pub(super) async fn finish(&self, link: &mut Link) -> Result<()> {
        let nothing = self.touched.iter().filter(|(_, touched)| touched.fact.is_none());
        let nothing: Vec<&[u8]> = nothing.map(|(key, _)| key.as_str().as_bytes()).collect();
        if !nothing.is_empty() {
            link.delete(&RECORDS, &nothing).await?;
        }
        let changed = self.touched.iter().filter(|(_, touched)| touched.is_changed);
        let changed: Vec<_> =
            changed.filter_map(|(key, touched)| touched.fact.as_ref().map(|fact| (key, fact))).collect();
        let columns = [
            Column::Bytes(changed.iter().map(|(key, _)| key.as_str().as_bytes()).collect()),
            Column::Ints(changed.iter().map(|(_, fact)| fact.record.version.0 as i64).collect()),
            Column::Bytes(changed.iter().map(|(_, fact)| &fact.record.value[..]).collect()),
            Column::MaybeInts(changed.iter().map(|(_, fact)| fact.ends_ms).collect()),
        ];
        link.put(&RECORDS, &["version", "value", "ends_ms"], &columns).await
    }
}

/// When a life is over, as a number in any case.
pub(super) const ENDS: &str = "COALESCE(ends_ms, 9223372036854775807)";

/// From the bytes of a row; none for what is no key of ours.
pub(super) fn key(bytes: &[u8]) -> Option<RecordKey> {
    RecordKey::new(std::str::from_utf8(bytes).ok()?).ok()
}
