//! [`RedisStore`]: logs and records on a Redis server with an append-only file, which many nodes may share.
//!
//! ```text
//! append, trim, … → queue → one script for all that waits → server → answers
//! read, heads, …  → queue → many at once, by a second connection → answers
//! ```
//!
//! A script is to Redis what a transaction is to others: it runs as a whole, and its writes are one entry of the append-only
//! file, which the server flushes before it answers (`appendfsync always`). So offsets have no holes, whoever appends, and
//! what nodes ask at the same moment shares a flush. `docs/store.md` says what this promises and shows the keys.
//!
//! **A server that lost something.** Whoever restores a copy, or lets a replica take over that was behind, takes back
//! what was acknowledged. A handle remembers the last message that it gave out of each log it used lately, and looks for it
//! after each new connection, before anything else goes through; a log without it gets another epoch.
//!
//! Tested by the conformance suites on a real server, and in `store/tests` with servers that die, stand still, are rolled back,
//! are full, or are not fit.

use std::sync::Arc;

use tieline_core::records::{Change, MAX_LIST, MAX_VALUE, Outcome, Record, RecordKey, Records, Version};
use tieline_core::store::{
    Answer, Append, Appended, Cut, Head, LogKey, MAX_BODY, Page, PageLimit, Refusal, Store, StoreId,
};
use tieline_proto::Position;
use tokio::sync::oneshot;

use super::RedisError;
use super::connection::Dialler;
use crate::backlog::{answered, at_once};
use opening::Failure;
use reads::{List, Read};
use session::Shared;
use write::{Reply, Write};

mod fault;
mod known;
mod opening;
mod queue;
mod reads;
mod scripts;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod write;
mod writer;

pub use opening::Unfit;
pub use settings::RedisStoreSettings;

/// Why a store on a Redis server is not opened.
#[derive(Debug, thiserror::Error)]
pub enum RedisStoreError {
    /// The address is wrong, or the server cannot be used at all.
    #[error(transparent)]
    Server(#[from] RedisError),
    /// The server is there, and not fit.
    #[error("the Redis server at {server} cannot keep the store: {unfit}")]
    Unfit {
        /// `host:port`.
        server: String,
        /// What is wrong.
        unfit: Unfit,
    },
}

/// A store on a Redis server. Dropped, it takes no more; what was taken is still done, by a task of the runtime that it was
/// opened in, within a few seconds. Share it in an [`Arc`].
pub struct RedisStore(Arc<Shared>);

impl RedisStore {
    /// Connects, looks whether the server is fit, and makes the store if there is none.
    ///
    /// # Errors
    /// [`RedisStoreError`] with the server and what is wrong, at the latest after a second.
    pub async fn open(settings: RedisStoreSettings) -> Result<Self, RedisStoreError> {
        let dialler = Arc::new(Dialler::new(settings.address.clone(), "tieline-store".to_owned())?);
        let opened = session::open(&dialler, &settings, StoreId::fresh()).await.map_err(|failure| {
            let server = settings.address.server();
            match failure {
                Failure::Trouble(trouble) => RedisStoreError::Server(RedisError::Server { server, trouble }),
                Failure::Unfit(unfit) => RedisStoreError::Unfit { server, unfit },
            }
        })?;
        let shared = Arc::new(Shared::new(settings, dialler, opened.id));
        tokio::spawn(Arc::clone(&shared).run(opened));
        Ok(RedisStore(shared))
    }

    /// Takes no more. What was taken is still done.
    pub fn close(&self) {
        self.0.life.stop();
        self.0.writes.close();
        self.0.reads.close();
    }

    /// Waits until all that was taken is answered after [`close`](RedisStore::close): about four seconds at most.
    pub async fn closed(&self) {
        self.0.life.stopped().await;
    }

    fn write<T: Send + 'static>(&self, write: impl FnOnce(Reply<T>) -> Write) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let write = write(reply);
        let size = write.size();
        answered(self.0.writes.push(write, size), answer)
    }

    fn read_by<T: Send + 'static>(&self, read: impl FnOnce(Reply<T>) -> Read) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let read = read(reply);
        let size = read.size();
        answered(self.0.reads.push(read, size), answer)
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for RedisStore {
    fn id(&self) -> StoreId {
        self.0.id
    }

    fn append(&self, append: Append) -> Answer<Appended> {
        if append.body.len() > MAX_BODY {
            return at_once(Err(Refusal::TooLarge.into()));
        }
        self.write(|reply| Write::Append(append, reply))
    }

    fn read(&self, log: LogKey, after: Option<Position>, limit: PageLimit) -> Answer<Page> {
        self.read_by(|reply| Read::Page { log, after, limit, found: None, reply })
    }

    fn heads(&self, logs: Vec<LogKey>) -> Answer<Vec<Option<Head>>> {
        if logs.is_empty() {
            return at_once(Ok(Vec::new()));
        }
        self.read_by(|reply| Read::Heads { logs, found: Vec::new(), reply })
    }

    fn trim(&self, log: LogKey, cut: Cut) -> Answer<()> {
        self.write(|reply| Write::Trim(log, cut, reply))
    }

    fn renew(&self, log: LogKey, epoch: u64) -> Answer<Option<Head>> {
        self.write(|reply| Write::Renew(log, epoch, reply))
    }
}

impl Records for RedisStore {
    fn get(&self, key: RecordKey) -> Answer<Option<Record>> {
        self.read_by(|reply| Read::Get { key, reply })
    }

    fn compare_and_set(&self, change: Change) -> Answer<Outcome> {
        if change.to.as_ref().is_some_and(|value| value.bytes.len() > MAX_VALUE) {
            return at_once(Err(Refusal::TooLarge.into()));
        }
        self.write(|reply| Write::Change(change, Version::fresh(), reply))
    }

    fn list(
        &self,
        prefix: String,
        after: Option<RecordKey>,
        count: usize,
    ) -> Answer<Vec<(RecordKey, Record)>> {
        let left = count.min(MAX_LIST);
        if left == 0 {
            return at_once(Ok(Vec::new()));
        }
        let after = after.map(|after| after.as_str().as_bytes().to_vec());
        self.read_by(|reply| Read::List(List { prefix, after, left, found: Vec::new(), reply }))
    }
}
