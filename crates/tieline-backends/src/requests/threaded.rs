//! [`ThreadedStore`]: a store whose requests are done by [`Threads`]. Tested with each engine.

use tieline_core::records::{Change, Outcome, Record, RecordKey, Records};
use tieline_core::store::{Answer, Append, Appended, Cut, Head, LogKey, Page, PageLimit, Store, StoreId};
use tieline_proto::Position;

use super::{Desk, Read, Write};

/// The threads of a store, which do what is handed in at a desk. Dropped, they take no more, do what was taken, and are joined.
pub trait Threads: Send + Sync + 'static {
    /// Where requests are handed in.
    fn desk(&self) -> &Desk;
}

/// A store that has threads of its own. Dropping it commits what was taken, answers it, and joins its threads; that takes as long as
/// a commit does, or as a server that does not answer is waited for. Share it in an [`Arc`](std::sync::Arc).
pub struct ThreadedStore<T> {
    pub(crate) id: StoreId,
    pub(crate) threads: T,
}

impl<T: Threads> Store for ThreadedStore<T> {
    fn id(&self) -> StoreId {
        self.id
    }

    fn append(&self, append: Append) -> Answer<Appended> {
        self.threads.desk().append(append)
    }

    fn read(&self, log: LogKey, after: Option<Position>, limit: PageLimit) -> Answer<Page> {
        self.threads.desk().read(|sender| Read::Page(log, after, limit, sender))
    }

    fn heads(&self, logs: Vec<LogKey>) -> Answer<Vec<Option<Head>>> {
        self.threads.desk().read(|sender| Read::Heads(logs, sender))
    }

    fn trim(&self, log: LogKey, cut: Cut) -> Answer<()> {
        self.threads.desk().write(|reply| Write::Trim(log, cut, reply))
    }

    fn renew(&self, log: LogKey, epoch: u64) -> Answer<Option<Head>> {
        self.threads.desk().write(|reply| Write::Renew(log, epoch, reply))
    }
}

impl<T: Threads> Records for ThreadedStore<T> {
    fn get(&self, key: RecordKey) -> Answer<Option<Record>> {
        self.threads.desk().read(|sender| Read::Get(key, sender))
    }

    fn compare_and_set(&self, change: Change) -> Answer<Outcome> {
        self.threads.desk().change(change)
    }

    fn list(
        &self,
        prefix: String,
        after: Option<RecordKey>,
        count: usize,
    ) -> Answer<Vec<(RecordKey, Record)>> {
        self.threads.desk().read(|sender| Read::List { prefix, after, count, sender })
    }
}
