//! [`SqliteStore`]: logs and records in one file, which the processes of one machine may share.
//!
//! One thread of the process writes, and makes one transaction of all that waits: with many callers, many share one
//! flush to the disk. Offsets come from the file, inside the transaction, so it does not matter how many processes
//! do so. Readers have threads and connections of their own. `docs/store.md` says what this promises and shows the tables.
//!
//! Why rusqlite, where SQL servers will have sqlx: SQLite is not a server but a library, and one thread that calls it
//! needs no runtime between. Measured with the same statements on two processors, a message costs 19 µs of
//! processor time by rusqlite and 76 µs by sqlx 0.9, which sends each statement to another thread; appends a second without
//! flushes were 21,800 and 5,300. Both can be in one build, as long as they want the same SQLite.
//!
//! Tested by the conformance suites, and in `sqlite/tests` by what is the file's own: other processes that hold it, kill -9,
//! full disks, files that are no store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tieline_core::store::{DEDUP_WINDOW, MAX_BODY};

use crate::requests::{Desk, ThreadedStore, Threads};

mod busy;
mod facts;
mod fault;
mod identity;
mod logs;
mod open;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

pub use busy::LIMIT as BUSY_LIMIT;
pub use open::{SqliteError, SqliteReason};

/// Threads that read. Two, so that a long page does not hold up a short one.
const READERS: usize = 2;

/// A store in a file.
pub type SqliteStore = ThreadedStore<SqliteThreads>;

/// What works for a store in a file.
pub struct SqliteThreads {
    desk: Desk,
    /// The writer, and then the readers.
    joined: Vec<JoinHandle<()>>,
}

impl ThreadedStore<SqliteThreads> {
    /// Opens the file, or makes it; the folder must be there. Waits for the disk, and for other processes at most
    /// [`BUSY_LIMIT`] a step, so it is no call for a thread that serves others.
    ///
    /// # Errors
    /// [`SqliteError`] with the path and what is wrong.
    pub fn open(path: &Path) -> Result<Self, SqliteError> {
        SqliteStore::open_with_window(path, DEDUP_WINDOW)
    }

    fn open_with_window(path: &Path, window: Duration) -> Result<Self, SqliteError> {
        SqliteStore::start(path, window).map_err(|reason| SqliteError { path: path.to_owned(), reason })
    }

    fn start(path: &Path, window: Duration) -> Result<Self, SqliteReason> {
        let (connection, id) = open::writer(path)?;
        let readers = (0..READERS).map(|_| open::reader(path)).collect::<Result<Vec<_>, _>>()?;
        let mut threads = SqliteThreads { desk: Desk::new(MAX_BODY), joined: Vec::new() };
        // What was started is joined by the drop of `threads`, also where the next one cannot be started.
        let failed =
            |error: io::Error| SqliteReason::Failed(format!("its thread cannot be started: {error}"));
        let (writes, path) = (Arc::clone(&threads.desk.writes), PathBuf::from(path));
        let writer = move || writer::run(connection, &path, window, &writes);
        threads
            .joined
            .push(std::thread::Builder::new().name("store-writer".to_owned()).spawn(writer).map_err(failed)?);
        for connection in readers {
            let reads = Arc::clone(&threads.desk.reads);
            let reader = move || reader::run(&connection, &reads);
            let thread = std::thread::Builder::new().name("store-reader".to_owned()).spawn(reader);
            threads.joined.push(thread.map_err(failed)?);
        }
        Ok(ThreadedStore { id, threads })
    }
}

impl Threads for SqliteThreads {
    fn desk(&self) -> &Desk {
        &self.desk
    }
}

impl Drop for SqliteThreads {
    fn drop(&mut self) {
        self.desk.reads.close();
        // The writer ends last and alone: of connections that close at the same moment, none puts `-wal` into the file.
        while let Some(thread) = self.joined.pop() {
            if self.joined.is_empty() {
                self.desk.writes.close();
            }
            if thread.join().is_err() {
                tracing::error!("A thread of the store has panicked.");
            }
        }
    }
}
