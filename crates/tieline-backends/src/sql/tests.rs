//! The suites of all stores on real servers, and what only a server can suffer: each in a file of its own.
//!
//! Servers are private ones, kept by xtask, and each test has databases of its own. `TIELINE_TEST_POSTGRES` and
//! `TIELINE_TEST_MYSQL` name others for the suites, whose user may make databases; what kills a server is left out then,
//! and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tieline_core::records::Records;
use tieline_core::store::{Append, AppendKey, LogKey, PageLimit, Retention, Store, fresh_epoch};
use tieline_core::unix_ms;
use tieline_proto::{GroupName, HubName, MessageId};
use xtask::{Engine, left_out};

use super::link::Link;
use super::{SqlAddress, SqlStore};
use crate::conformance::{PATIENCE, records, store};

mod beginnings;
mod neighbours;
mod outages;
mod sweeping;

/// A server for one test, with one database for it.
struct Server {
    engine: Engine,
    name: &'static str,
    /// Where the test's tables are.
    url: String,
}

impl Server {
    fn postgres() -> Self {
        Server::with(Engine::postgres().start().unwrap(), "PostgreSQL")
    }

    fn mysql() -> Self {
        Server::with(Engine::mariadb().start().unwrap(), "MySQL")
    }

    fn with(engine: Engine, name: &'static str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let database = format!("tieline_test_{}_{number}", std::process::id());
        let (server, _) = engine.url().rsplit_once('/').unwrap();
        let url = format!("{server}/{database}");
        say(engine.url(), &format!("CREATE DATABASE {database}"));
        Server { engine, name, url }
    }

    /// Does not wait for the disk, where that is not what is tested: only a loss of power would tell.
    fn hasty(mut self) -> Self {
        if self.engine.pid().is_some() {
            if self.name == "PostgreSQL" {
                say(&self.url, "ALTER SYSTEM SET fsync = off");
                say(&self.url, "SELECT pg_reload_conf()");
            } else {
                say(&self.url, "SET GLOBAL innodb_flush_log_at_trx_commit = 2");
            }
            self.url.push_str("?force=true");
        }
        self
    }

    /// Its database without any tables. One at a time is used.
    fn database(&self) -> Database {
        let tables = ["store", "logs", "messages", "appends", "dropped", "records"];
        let tables = tables.map(|table| format!("tieline_{table}")).join(", ");
        say(&self.url, &format!("DROP TABLE IF EXISTS {tables}"));
        let name = self.url.rsplit_once('/').unwrap().1.to_owned();
        Database { url: self.url.clone(), name }
    }

    /// Whether the server is ours to hurt. If not, that is said.
    fn is_private(&self, test: &str) -> bool {
        let is_private = self.engine.pid().is_some();
        if !is_private {
            left_out(&format!("the store on {}: {test}", self.name), "the server was not started here");
        }
        is_private
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that was started here takes its databases with it.
        if self.engine.pid().is_none() {
            let force = if self.name == "PostgreSQL" { " WITH (FORCE)" } else { "" };
            let (_, database) = self.url.rsplit_once('/').unwrap();
            say(self.engine.url(), &format!("DROP DATABASE {database}{force}"));
        }
    }
}

/// A database, empty at first.
struct Database {
    url: String,
    name: String,
}

impl Database {
    fn address(&self) -> SqlAddress {
        self.url.parse().unwrap()
    }

    fn store(&self) -> SqlStore {
        SqlStore::open(&self.address()).unwrap()
    }

    /// A number that the server itself tells.
    fn count(&self, query: &str) -> i64 {
        let query = query.to_owned();
        ask(&self.url, async move |mut link| link.rows(&query, &[]).await.unwrap()[0].int(0).unwrap())
    }
}

/// Asks the server by a connection that is no store's, from wherever the test is.
fn ask<T: Send + 'static>(url: &str, question: impl AsyncFnOnce(Link) -> T + Send + 'static) -> T {
    let address: SqlAddress = url.parse().unwrap();
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut link = address.options.connect().await.unwrap();
            link.patience = PATIENCE;
            question(link).await
        })
    });
    asking.join().unwrap()
}

/// Tells the server to do something.
fn say(url: &str, text: &str) {
    let text = text.to_owned();
    ask(url, async move |mut link| link.run(&text).await.unwrap());
}

impl store::Shelf for Database {
    fn open(&self) -> store::Opening<'_> {
        Box::pin(async {
            let store: Arc<dyn Store> = Arc::new(self.store());
            store
        })
    }
}

impl records::Cabinet for Database {
    fn open(&self) -> records::Opening<'_> {
        Box::pin(async {
            let records: Arc<dyn Records> = Arc::new(self.store());
            records
        })
    }
}

fn group(name: &str) -> LogKey {
    LogKey::Group(HubName::new("hub").unwrap(), GroupName::new(name).unwrap())
}

/// An append with a key of its own.
fn append(log: &str, body: &[u8]) -> Append {
    let key = (u128::from(fresh_epoch()) << 64) | u128::from(fresh_epoch());
    let id = MessageId::new(unix_ms(), key);
    Append { log: group(log), key: AppendKey(key), id, body: body.into(), retention: Retention::default() }
}

const ALL: PageLimit = PageLimit { count: usize::MAX, bytes: usize::MAX };

/// One test for each engine, in a module named like the engine.
macro_rules! on_each_server {
    ($($name:ident),+ $(,)?) => {
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Server::postgres()).await;
            })+
        }
        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Server::mysql()).await;
            })+
        }
    };
}
use on_each_server;

on_each_server!(logs_conform, records_conform);

async fn logs_conform(server: Server) {
    let server = server.hasty();
    store::store(|| server.database()).await;
}

async fn records_conform(server: Server) {
    let server = server.hasty();
    records::records(|| server.database()).await;
}
