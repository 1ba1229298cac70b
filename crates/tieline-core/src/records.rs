//! [`Records`]: small facts that outlive a node: checkpoints, positions of devices, stored membership.
//!
//! A record is changed whole, by compare-and-set. What grows by every message belongs into a log, see
//! [`Store`](crate::store::Store). The suite that every engine passes is in the crate of the engines.

use std::sync::Arc;
use std::time::Duration;

use crate::store::Answer;

mod key;
mod memory;

pub use key::{MAX_KEY, RecordKey, RecordKeyError};
pub use memory::MemoryRecords;

/// The largest value that is taken.
pub const MAX_VALUE: usize = 1 << 20;

/// The most records that one list gives.
pub const MAX_LIST: usize = 1000;

/// Which state of a record: drawn at random with each change, so that a record that was removed and made again is
/// not taken for its former self.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(
    /// Below 2^63, which every engine can hold.
    pub u64,
);

impl Version {
    /// The version of a change that is being made.
    ///
    /// # Panics
    /// When the system has no random bits to give.
    #[must_use]
    pub fn fresh() -> Self {
        Version(crate::store::random() >> 1)
    }
}

/// A record as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which state this is.
    pub version: Version,
    /// What was set.
    pub value: Arc<[u8]>,
}

/// What a change wants to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything or nothing: the change is made in any case.
    Anything,
    /// No record.
    Nothing,
    /// The record in this state.
    Version(Version),
}

/// What a record shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// At most [`MAX_VALUE`] bytes.
    pub bytes: Arc<[u8]>,
    /// After this time there is no record any more, by the clock of the engine; without one it stays.
    pub lives: Option<Duration>,
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub key: RecordKey,
    /// What it must be now.
    pub expect: Expect,
    /// What it becomes; without a value it is removed.
    pub to: Option<Value>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is made. The record's version is this one, or none when it is removed.
    Done(Option<Version>),
    /// Something else was found, and nothing changed: this is what there is.
    Differs(Option<Record>),
}

/// Keeps records.
///
/// *Guarantee*: a change that was answered [`Outcome::Done`] is on disk (where the engine has one) and seen by every
/// later call, until another change or its end of life. Of several changes that expect the same version one is made.
/// *Ordering*: changes by one handle take effect in the order of the calls; each record changes by itself, and there
/// are no changes of several. *Cancellation*: dropping an [`Answer`] cancels nothing. *Retries*: none; after
/// [`StoreError::Refused`](crate::store::StoreError::Refused) nothing has happened, and after
/// [`StoreError::Unknown`](crate::store::StoreError::Unknown) the caller reads what there is. No call waits; where an
/// engine has to, a bounded queue stands before it and refuses when it is full.
pub trait Records: Send + Sync + 'static {
    /// The record, if there is one and its life is not over.
    fn get(&self, key: RecordKey) -> Answer<Option<Record>>;

    /// Changes a record if it is what the change expects.
    fn compare_and_set(&self, change: Change) -> Answer<Outcome>;

    /// Records whose keys begin with `prefix`, in the order of their keys' bytes, behind the key `after`, at most `count` and
    /// at most [`MAX_LIST`]. Pages of one list are no picture of one moment.
    fn list(
        &self,
        prefix: String,
        after: Option<RecordKey>,
        count: usize,
    ) -> Answer<Vec<(RecordKey, Record)>>;
}
