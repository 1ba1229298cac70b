//! [`SqlStore`]: logs and records in a database of a PostgreSQL, MySQL or MariaDB server, which any number of nodes share.
//!
//! One thread of each handle writes, and makes one transaction of all that waits; others read, and one sweeps. Each has a
//! connection of its own, made anew when it is lost. Offsets come from a log's row, which a transaction locks, so the order of
//! offsets is the order of commits whoever appends. A server that does not answer costs whoever asks a refusal, or an
//! answer that nobody knows, and never a wait without end. `docs/store.md` says what this promises and shows the tables.
//!
//! What servers call by other names is in `dialect.rs`, their drivers (sqlx) are in `link.rs`; all else is the same for
//! both. Tested by the conformance suites on real servers, and in `sql/tests` by what servers suffer: SIGKILL, SIGSTOP,
//! neighbours, settings that lose data.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tieline_core::store::{DEDUP_WINDOW, MAX_BODY, StoreId};
use tokio::runtime::{Builder, Runtime};

use crate::requests::{Desk, ThreadedStore, Threads};
use link::Link;
use session::Session;

mod address;
mod dialect;
mod facts;
mod fault;
mod link;
mod logs;
mod reader;
mod schema;
mod session;
mod sweeper;
#[cfg(test)]
mod tests;
mod writer;

pub use address::{SqlAddress, SqlAddressError};

/// Threads that read. Four, so that a server that is far away is asked several things at once.
const READERS: usize = 4;

/// How much longer than [`DEDUP_WINDOW`] a slot of appends lasts: a transaction that was begun in one may end in the next.
const SLOT_MARGIN: Duration = Duration::from_secs(10);

/// A store on a server.
pub type SqlStore = ThreadedStore<SqlThreads>;

/// What works for a store on a server.
pub struct SqlThreads {
    desk: Desk,
    /// The writer and the readers.
    joined: Vec<JoinHandle<()>>,
    /// The sweeper, and what it is woken by; it ends when nobody can wake it.
    sweeper: Option<(SyncSender<()>, JoinHandle<()>)>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the store {address} cannot be opened: {reason}")]
pub struct SqlError {
    /// Which one; it does not show its password.
    pub address: SqlAddress,
    /// What is wrong.
    pub reason: SqlReason,
}

/// What is wrong with a server, or with what is on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlReason {
    /// It cannot be reached, lets nobody in, or does not do what it is told.
    #[error("{0}")]
    Failed(String),
    /// It may lose what it has acknowledged.
    #[error("the server may lose what it has acknowledged, because {0}; `?force=true` takes it all the same")]
    Unsafe(String),
    /// Its tables were made by a program that is newer than this one.
    #[error("its tables are those of a newer tieline")]
    Newer,
}

impl ThreadedStore<SqlThreads> {
    /// Opens the store, or makes its tables; the database must be there. Waits for the server at most a few seconds, so it is no call
    /// for a thread that serves others.
    ///
    /// # Errors
    /// [`SqlError`] with the address and what is wrong.
    pub fn open(address: &SqlAddress) -> Result<Self, SqlError> {
        SqlStore::open_with_slot(address, DEDUP_WINDOW + SLOT_MARGIN)
    }

    fn open_with_slot(address: &SqlAddress, slot: Duration) -> Result<Self, SqlError> {
        SqlStore::start(address, slot).map_err(|reason| SqlError { address: address.clone(), reason })
    }

    fn start(address: &SqlAddress, slot: Duration) -> Result<Self, SqlReason> {
        // What was started is joined by the drop of `threads`, also where the next one cannot be started.
        let (opened, opening) = sync_channel(1);
        let (poke, pokes) = sync_channel(1);
        let mut threads = SqlThreads { desk: Desk::new(MAX_BODY), joined: Vec::new(), sweeper: None };
        let (writes, mine, woken) = (Arc::clone(&threads.desk.writes), address.clone(), poke.clone());
        threads.joined.push(thread("store-writer", move |runtime| {
            let link = match runtime.block_on(open(&mine)) {
                Ok((link, id)) => {
                    let largest = link.packet.saturating_sub(link::PACKET_MARGIN).min(MAX_BODY);
                    let _ = opened.send(Ok((id, largest)));
                    link
                }
                Err(reason) => return drop(opened.send(Err(reason))),
            };
            writer::run(runtime, Session::with(*mine.options, link), &writes, &woken);
        })?);
        let gone = || SqlReason::Failed("its thread has ended".to_owned());
        let (id, largest) = opening.recv().map_err(|_| gone())??;
        threads.desk.set_largest(largest);
        if largest < MAX_BODY {
            tracing::warn!(
                %address, largest,
                "The server takes no larger bodies than this: raise its max_allowed_packet to 17M."
            );
        }
        for _ in 0..READERS {
            let (reads, options) = (Arc::clone(&threads.desk.reads), (*address.options).clone());
            threads.joined.push(thread("store-reader", move |runtime| {
                reader::run(runtime, Session::new(options, &[]), &reads);
            })?);
        }
        let session = Session::new((*address.options).clone(), address.options.dialect().sweeping());
        let sweeping = thread("store-sweeper", move |runtime| sweeper::run(runtime, session, slot, &pokes))?;
        threads.sweeper = Some((poke, sweeping));
        Ok(ThreadedStore { id, threads })
    }
}

/// A thread with a runtime of its own, on which one connection lives.
fn thread(name: &str, work: impl FnOnce(&Runtime) + Send + 'static) -> Result<JoinHandle<()>, SqlReason> {
    let failed = |error: io::Error| SqlReason::Failed(format!("its thread cannot be started: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&runtime)).map_err(failed)
}

/// Connects, looks at the server, and makes the tables what they have to be.
async fn open(address: &SqlAddress) -> Result<(Link, StoreId), SqlReason> {
    let mut link = session::first(&address.options).await?;
    let failed = |error: sqlx::Error| SqlReason::Failed(fault::text(&error));
    if !address.is_forced {
        let found = link.rows(link.dialect.unsafe_settings(), &[]).await.map_err(failed)?;
        if let Some(row) = found.first() {
            let setting = row.bytes(0).map_err(failed)?;
            return Err(SqlReason::Unsafe(String::from_utf8_lossy(setting).into_owned()));
        }
    }
    let id = schema::ready(&mut link).await?;
    Ok((link, id))
}

impl Threads for SqlThreads {
    fn desk(&self) -> &Desk {
        &self.desk
    }
}

impl Drop for SqlThreads {
    fn drop(&mut self) {
        self.desk.reads.close();
        self.desk.writes.close();
        let sweeper = self.sweeper.take().map(|(_, thread)| thread);
        for thread in self.joined.drain(..).chain(sweeper) {
            if thread.join().is_err() {
                tracing::error!("A thread of the store has panicked.");
            }
        }
    }
}
