//! The suites of all stores on a file, and what only a file can suffer: each in a file of its own.
//!
//! Where another process is needed, it is this same test program: [`child::be_one`] is the test that it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tieline_core::records::Records;
use tieline_core::store::{Append, AppendKey, LogKey, PageLimit, Retention, Store, fresh_epoch};
use tieline_core::unix_ms;
use tieline_proto::{GroupName, HubName, MessageId};

use super::SqliteStore;
use crate::conformance::{records, store};

mod child;
mod files;
mod frozen;
mod full;
mod killed;
mod sweeping;
mod window;

/// A folder that is removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tieline-store-{:x}", fresh_epoch()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl store::Shelf for Folder {
    fn open(&self) -> store::Opening<'_> {
        Box::pin(async {
            let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&self.file()).unwrap());
            store
        })
    }
}

impl records::Cabinet for Folder {
    fn open(&self) -> records::Opening<'_> {
        Box::pin(async {
            let records: Arc<dyn Records> = Arc::new(SqliteStore::open(&self.file()).unwrap());
            records
        })
    }
}

fn group(name: &str) -> LogKey {
    LogKey::Group(HubName::new("hub").unwrap(), GroupName::new(name).unwrap())
}

/// An append that is sent at this time, with a key of its own.
fn append_at(log: &str, body: &[u8], sent_ms: u64) -> Append {
    let key = (u128::from(fresh_epoch()) << 64) | u128::from(fresh_epoch());
    let id = MessageId::new(sent_ms, key);
    Append { log: group(log), key: AppendKey(key), id, body: body.into(), retention: Retention::default() }
}

fn append(log: &str, body: &[u8]) -> Append {
    append_at(log, body, unix_ms())
}

const ALL: PageLimit = PageLimit { count: usize::MAX, bytes: usize::MAX };

/// A number that the file itself tells, by a connection that is no store's.
fn count(path: &Path, sql: &str) -> i64 {
    rusqlite::Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_conform() {
    store::store(Folder::new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_conform() {
    records::records(Folder::new).await;
}
