//! Records within one process, as the measure of all other engines. Nothing outlives the process. Tested by the suite of
//! the engines, which lives beside them; its bound is tested here.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Change, Expect, MAX_LIST, MAX_VALUE, Outcome, Record, RecordKey, Records, Version};
use crate::store::{Answer, Refusal, StoreError};

/// Bytes that all records together may take. Past it, records whose life is over are looked for; where that makes no
/// room, changes are refused.
const ROOM: usize = 64 << 20;

/// What a record takes beside its key and its value.
const RECORD_COST: usize = 128;

struct Entry {
    record: Record,
    /// When its life is over.
    ends: Option<Instant>,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    fn cost(&self, key: &RecordKey) -> usize {
        key.as_str().len() + self.record.value.len() + RECORD_COST
    }
}

#[derive(Default)]
struct State {
    entries: BTreeMap<RecordKey, Entry>,
    /// What is taken of [`ROOM`].
    taken: usize,
}

/// Records in memory. A clone is another handle to the same.
#[derive(Clone, Default)]
pub struct MemoryRecords(Arc<Mutex<State>>);

impl MemoryRecords {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        MemoryRecords::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get(&self, key: &RecordKey) -> Option<&Record> {
        let now = Instant::now();
        self.entries.get(key).filter(|entry| !entry.is_over(now)).map(|entry| &entry.record)
    }

    fn change(&mut self, change: Change) -> Result<Outcome, StoreError> {
        if change.to.as_ref().is_some_and(|value| value.bytes.len() > MAX_VALUE) {
            return Err(Refusal::TooLarge.into());
        }
        let found = self.get(&change.key);
        let is_expected = match change.expect {
            Expect::Anything => true,
            Expect::Nothing => found.is_none(),
            Expect::Version(version) => found.is_some_and(|record| record.version == version),
        };
        if !is_expected {
            return Ok(Outcome::Differs(found.cloned()));
        }
        let Some(value) = change.to else {
            self.remove(&change.key);
            return Ok(Outcome::Done(None));
        };
        let record = Record { version: Version::fresh(), value: value.bytes };
        let now = Instant::now();
        let version = record.version;
        // A life that ends beyond the clock's range does not end.
        let entry = Entry { record, ends: value.lives.and_then(|lives| now.checked_add(lives)) };
        let cost = entry.cost(&change.key);
        let freed = self.entries.get(&change.key).map_or(0, |entry| entry.cost(&change.key));
        if self.taken - freed + cost > ROOM {
            self.sweep(now);
            let freed = self.entries.get(&change.key).map_or(0, |entry| entry.cost(&change.key));
            if self.taken - freed + cost > ROOM {
                return Err(Refusal::NoRoom.into());
            }
        }
        self.remove(&change.key);
        self.taken += cost;
        self.entries.insert(change.key, entry);
        Ok(Outcome::Done(Some(version)))
    }

    fn remove(&mut self, key: &RecordKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.taken -= entry.cost(key);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let taken = &mut self.taken;
        self.entries.retain(|key, entry| {
            let is_over = entry.is_over(now);
            *taken -= if is_over { entry.cost(key) } else { 0 };
            !is_over
        });
    }

    fn list(&self, prefix: &str, after: Option<RecordKey>, count: usize) -> Vec<(RecordKey, Record)> {
        let now = Instant::now();
        // Keys are compared with the prefix as with a key; an empty one begins before all of them.
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after),
            _ => RecordKey::new(prefix).map_or(Bound::Unbounded, Bound::Included),
        };
        let entries = self.entries.range((start, Bound::Unbounded));
        let of_prefix = entries.take_while(|(key, _)| key.as_str().starts_with(prefix));
        let live = of_prefix.filter(|(_, entry)| !entry.is_over(now));
        live.take(count.min(MAX_LIST)).map(|(key, entry)| (key.clone(), entry.record.clone())).collect()
    }
}

fn ready<T: Send + 'static>(result: Result<T, StoreError>) -> Answer<T> {
    Box::pin(std::future::ready(result))
}

impl Records for MemoryRecords {
    fn get(&self, key: RecordKey) -> Answer<Option<Record>> {
        ready(Ok(self.lock().get(&key).cloned()))
    }

    fn compare_and_set(&self, change: Change) -> Answer<Outcome> {
        ready(self.lock().change(change))
    }

    fn list(
        &self,
        prefix: String,
        after: Option<RecordKey>,
        count: usize,
    ) -> Answer<Vec<(RecordKey, Record)>> {
        ready(Ok(self.lock().list(&prefix, after, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Value;
    use std::time::Duration;

    #[test]
    fn it_is_bounded_and_what_is_over_makes_room() {
        let records = MemoryRecords::new();
        let set = |number: usize, lives| {
            let key = RecordKey::new(&format!("{number}")).unwrap();
            let to = Some(Value { bytes: vec![0; MAX_VALUE].into(), lives });
            records.lock().change(Change { key, expect: Expect::Anything, to })
        };
        let most = (0..).take_while(|number| set(*number, None).is_ok()).count();
        assert_eq!(most, 63);
        // One that is there may be changed all the same.
        assert!(matches!(set(0, Some(Duration::ZERO)), Ok(Outcome::Done(Some(_)))));
        assert!(matches!(set(most, None), Ok(Outcome::Done(Some(_)))));
        assert_eq!(set(most + 1, None), Err(Refusal::NoRoom.into()));
    }
}
