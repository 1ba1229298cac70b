//! What is trimmed, dropped, over or forgotten leaves the tables too.

use std::time::{Duration, Instant};

use tieline_core::records::{Change, Expect, RecordKey, Value};
use tieline_core::store::Cut;

use super::*;

on_each_server!(what_nobody_needs_leaves_no_rows, keys_are_forgotten_after_their_slots);

/// Waits until the server tells this number.
async fn until(database: &Database, query: &str, is_met: impl Fn(i64) -> bool) {
    let since = Instant::now();
    loop {
        let count = database.count(query);
        if is_met(count) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{query}: {count}");
        tokio::task::yield_now().await;
    }
}

async fn what_nobody_needs_leaves_no_rows(server: Server) {
    let server = server.hasty();
    let database = server.database();
    let store = database.store();
    let messages = "SELECT COUNT(*) FROM tieline_messages";
    // Past its count: a few rows may stay until there are enough of them.
    let few = Retention { count: 5, ..Retention::default() };
    let answers: Vec<_> =
        (0..1000).map(|_| store.append(Append { retention: few, ..append("few", b"x") })).collect();
    for answer in answers {
        answer.await.unwrap();
    }
    until(&database, messages, |count| (5..5 + 64).contains(&count)).await;
    let page = store.read(group("few"), None, ALL).await.unwrap();
    assert_eq!(page.messages.len(), 5);
    // What is told of the rows is true.
    let rows = "SELECT COUNT(*) FROM tieline_logs WHERE bytes = (SELECT COUNT(*) FROM tieline_messages) \
                AND swept = (SELECT MIN(number) FROM tieline_messages) AND last = 1000 AND first = 996";
    until(&database, rows, |count| count == 1).await;
    store.trim(group("few"), Cut::Whole).await.unwrap();
    until(&database, messages, |count| count == 0).await;
    until(&database, "SELECT COUNT(*) FROM tieline_dropped", |count| count == 0).await;
    // A log that has been empty for long is forgotten, and is another one when it comes back.
    let short = Retention { age: Duration::from_secs(1), ..Retention::default() };
    let old = |log| {
        let id = MessageId::new(unix_ms() - 10_000, 1);
        Append { id, retention: short, ..append(log, b"x") }
    };
    let epoch = store.append(old("old")).await.unwrap().position.epoch;
    until(&database, "SELECT COUNT(*) FROM tieline_logs", |count| count == 0).await;
    assert_ne!(store.append(old("old")).await.unwrap().position.epoch, epoch);
    // Records whose life is over.
    let to = Some(Value { bytes: b"x".as_slice().into(), lives: Some(Duration::ZERO) });
    let change = Change { key: RecordKey::new("a").unwrap(), expect: Expect::Anything, to };
    store.compare_and_set(change).await.unwrap();
    until(&database, "SELECT COUNT(*) FROM tieline_records", |count| count == 0).await;
}

async fn keys_are_forgotten_after_their_slots(server: Server) {
    let server = server.hasty();
    let database = server.database();
    let appends = "SELECT COUNT(*) FROM tieline_appends";
    let store = database.store();
    let said = append("a", b"x");
    let first = store.append(said.clone()).await.unwrap();
    let answers: Vec<_> = (0..5000).map(|_| store.append(append("a", b"y"))).collect();
    for answer in answers {
        answer.await.unwrap();
    }
    assert!(store.append(said.clone()).await.unwrap().is_duplicate);
    // A slot of no length is over at each look.
    drop(store);
    let hasty = SqlStore::open_with_slot(&database.address(), Duration::ZERO).unwrap();
    until(&database, appends, |count| count == 0).await;
    let again = hasty.append(said).await.unwrap();
    assert!(!again.is_duplicate && again.position > first.position);
}
