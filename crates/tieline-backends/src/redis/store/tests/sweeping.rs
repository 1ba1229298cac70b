//! What is left on the server: nothing that nobody needs, and keys of appends for as long as was promised.

use std::time::{Duration, Instant};

use tieline_core::records::{Change, Expect, RecordKey, Value};
use tieline_core::store::Cut;
use xtask::engine::redis::ask;

use super::*;

/// How many keys there are by such names.
fn count(engine: &Engine, settings: &RedisStoreSettings, names: &str) -> usize {
    let found = ask(engine.url(), &format!("KEYS {}:{names}", settings.prefix)).unwrap();
    found.strip_prefix('*').unwrap().parse().unwrap()
}

async fn until(wish: &str, mut is_met: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_met() {
        assert!(since.elapsed() < Duration::from_secs(15), "waited in vain: {wish}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_appends_are_forgotten_after_the_window_and_not_before() {
    let engine = Engine::redis().start().unwrap();
    let window = Duration::from_millis(1500);
    let settings = RedisStoreSettings { window, ..settings(&engine) };
    let store = open(&settings).await;
    // Two more that turn the slots as well, in their own time.
    let _others = [open(&settings).await, open(&settings).await];
    let said = append("a", b"1");
    let since = Instant::now();
    let mut said_at = since;
    assert!(!store.append(said.clone()).await.unwrap().is_duplicate);
    let quiet = append("quiet", b"1");
    store.append(quiet.clone()).await.unwrap();
    let mut forgotten = 0;
    while forgotten < 2 {
        let again = store.append(said.clone()).await.unwrap();
        if !again.is_duplicate {
            assert!(said_at.elapsed() >= window, "forgotten after {:?}", said_at.elapsed());
            said_at = Instant::now();
            forgotten += 1;
        }
        assert!(since.elapsed() < 10 * window, "never forgotten");
    }
    // Of a log that nobody appends to, the server itself has nothing of them any more.
    until("keys to go", || count(&engine, &settings, "seen:*quiet*") == 0).await;
    assert!(!store.append(quiet).await.unwrap().is_duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_what_is_over() {
    let engine = Engine::redis().start().unwrap();
    let settings = settings(&engine);
    let store = open(&settings).await;
    let short = Retention { age: Duration::from_millis(200), ..Retention::default() };
    let mut answers = Vec::new();
    for number in 0..300 {
        answers.push(store.append(Append { retention: short, ..append(&format!("old {number}"), b"x") }));
    }
    for number in 0..3000_u32 {
        let append = append("cut", &number.to_be_bytes());
        let retention = Retention { count: 10_000, ..Retention::default() };
        answers.push(store.append(Append { retention, ..append }));
    }
    let mut last = None;
    for answer in answers {
        last = Some(answer.await.unwrap().position);
    }
    for number in 0..300 {
        let lives = Some(Duration::from_millis(100));
        let to = Some(Value { bytes: b"x".as_slice().into(), lives });
        let key = RecordKey::new(&format!("r{number}")).unwrap();
        store.compare_and_set(Change { key, expect: Expect::Anything, to }).await.unwrap();
    }
    let mut cut = last.unwrap();
    cut.offset -= 10;
    store.trim(group("cut"), Cut::Through(cut)).await.unwrap();
    until("the messages that are cut off to go", || {
        let length = ask(engine.url(), &format!("LLEN {}:messages:{{g/hub/cut}}", settings.prefix));
        length.unwrap() == ":10"
    })
    .await;
    until("logs and records to go", || {
        let left = ask(engine.url(), &format!("ZCARD {}:records", settings.prefix)).unwrap();
        count(&engine, &settings, "*old*") == 0 && left == ":0"
    })
    .await;
    store.trim(group("cut"), Cut::Whole).await.unwrap();
    // The indexes are removed by the server with their last member.
    until("everything to go", || count(&engine, &settings, "*") == 1).await;
}
