//! The store on real servers: the conformance suites, and what only a server can suffer, each in a file of its own.
//!
//! Servers are private ones, kept by xtask. `TIELINE_TEST_REDIS` names another one for the suites; what kills a server or changes
//! its settings is left out then, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tieline_core::records::Records;
use tieline_core::store::{Append, AppendKey, LogKey, PageLimit, Retention, Store, fresh_epoch};
use tieline_core::unix_ms;
use tieline_proto::{GroupName, HubName, MessageId};
use xtask::{Engine, left_out};

use super::{RedisStore, RedisStoreSettings};
use crate::conformance::{records, store};

mod killed;
mod rolled_back;
mod sweeping;
mod unfit;

/// Settings for keys of their own on a server.
fn settings(engine: &Engine) -> RedisStoreSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another run may use the same server at the same time.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let url = format!("{}?prefix=tests-{}-{number}", engine.url(), std::process::id());
    RedisStoreSettings::parse(&url).unwrap()
}

/// Whether the server is ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    let is_named = std::env::var_os("TIELINE_TEST_REDIS").is_some();
    if is_named {
        left_out(
            &format!("the Redis store: {test}"),
            "TIELINE_TEST_REDIS names a server that was not started here",
        );
    }
    !is_named
}

/// One store of a server.
struct Shelf(RedisStoreSettings);

async fn open(settings: &RedisStoreSettings) -> Arc<RedisStore> {
    Arc::new(RedisStore::open(settings.clone()).await.unwrap())
}

impl store::Shelf for Shelf {
    fn open(&self) -> store::Opening<'_> {
        Box::pin(async {
            let store: Arc<dyn Store> = open(&self.0).await;
            store
        })
    }
}

impl records::Cabinet for Shelf {
    fn open(&self) -> records::Opening<'_> {
        Box::pin(async {
            let records: Arc<dyn Records> = open(&self.0).await;
            records
        })
    }
}

fn group(name: &str) -> LogKey {
    LogKey::Group(HubName::new("hub").unwrap(), GroupName::new(name).unwrap())
}

/// An append that is sent now, with a key of its own.
fn append(log: &str, body: &[u8]) -> Append {
    let key = (u128::from(fresh_epoch()) << 64) | u128::from(fresh_epoch());
    let id = MessageId::new(unix_ms(), key);
    Append { log: group(log), key: AppendKey(key), id, body: body.into(), retention: Retention::default() }
}

const ALL: PageLimit = PageLimit { count: usize::MAX, bytes: usize::MAX };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_conform() {
    let engine = Engine::redis().start().unwrap();
    store::store(|| Shelf(settings(&engine))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_conform() {
    let engine = Engine::redis().start().unwrap();
    records::records(|| Shelf(settings(&engine))).await;
}
