//! Room is made in slices: nobody waits for it, and in the end it is made.

use std::time::{Duration, Instant};

use tieline_core::store::{Append, Cut, Retention, Store};
use tieline_core::unix_ms;

use super::{Folder, SqliteStore, append, append_at, count, group};
use crate::sqlite::logs::Logs;
use crate::sqlite::open;

/// More rows than many slices take.
const MANY: u64 = 20_000;

async fn filled(folder: &Folder) -> SqliteStore {
    let store = SqliteStore::open(&folder.file()).unwrap();
    let retention = Retention { count: MANY, ..Retention::default() };
    let answers: Vec<_> =
        (0..MANY).map(|_| store.append(Append { retention, ..append("a", &[7; 100]) })).collect();
    for answer in answers {
        answer.await.unwrap();
    }
    store
}

fn rows(folder: &Folder) -> i64 {
    count(&folder.file(), "SELECT count(*) FROM messages")
}

async fn until_rows(folder: &Folder, wanted: i64) {
    let since = Instant::now();
    while rows(folder) > wanted {
        assert!(since.elapsed() < Duration::from_secs(60), "{} rows are still there", rows(folder));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_log_that_is_dropped_goes_in_slices_between_appends() {
    let folder = Folder::new();
    let store = filled(&folder).await;
    store.trim(group("a"), Cut::Whole).await.unwrap();
    assert_eq!(store.heads(vec![group("a")]).await.unwrap(), [None]);
    // It is answered, and another append after it, long before all rows are gone.
    store.append(append("b", b"meanwhile")).await.unwrap();
    assert!(rows(&folder) as u64 > MANY / 2, "{} rows are left at once", rows(&folder));
    until_rows(&folder, 1).await;
    let since = Instant::now();
    while count(&folder.file(), "SELECT count(*) FROM logs") > 1 {
        assert!(since.elapsed() < Duration::from_secs(30), "the dropped log is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lower_bound_takes_slices_too() {
    let folder = Folder::new();
    let store = filled(&folder).await;
    let retention = Retention { count: 10, ..Retention::default() };
    store.append(Append { retention, ..append("a", b"last") }).await.unwrap();
    assert!(rows(&folder) as u64 > MANY / 2, "{} rows are left at once", rows(&folder));
    until_rows(&folder, 10).await;
    let head = store.heads(vec![group("a")]).await.unwrap()[0].unwrap();
    assert_eq!((head.first, head.last), (MANY - 8, MANY + 1));
}

/// The writer keeps rows of logs in memory; a sweep changes the row of one, and leaves the other's alone.
#[test]
fn an_append_after_a_sweep_goes_on_from_what_is_left() {
    const HOUR: u64 = 3_600_000;
    let folder = Folder::new();
    let (connection, _) = open::writer(&folder.file()).unwrap();
    let mut logs = Logs::new(&connection, Duration::from_secs(300)).unwrap();
    let mut transact = |now_ms, work: &dyn Fn(&mut Logs<'_>)| {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        logs.begin(std::time::Instant::now(), now_ms).unwrap();
        work(&mut logs);
        logs.finish(now_ms).unwrap();
        connection.execute_batch("COMMIT").unwrap();
    };
    let start = unix_ms();
    let say = |log: &'static str, sent_ms| {
        move |logs: &mut Logs<'_>| {
            logs.append(&append_at(log, b"12345", sent_ms)).unwrap();
        }
    };
    for _ in 0..3 {
        transact(start, &say("swept", start));
        transact(start, &say("left", start + 20 * HOUR));
    }
    let later = start + 25 * HOUR;
    transact(later, &|logs| {
        logs.sweep(later).unwrap();
    });
    transact(later, &say("swept", later));
    transact(later, &say("left", later));
    let row = |log: &str| {
        let sql = "SELECT first, last, swept, bytes FROM logs WHERE name = ?";
        let row =
            |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?]);
        connection.query_row(sql, [group(log).to_text()], row).unwrap()
    };
    assert_eq!((row("swept"), row("left")), ([4, 4, 4, 5], [1, 4, 1, 20]));
}

#[tokio::test]
async fn a_log_that_was_empty_for_long_is_forgotten() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.file()).unwrap();
    let retention = Retention { age: Duration::from_secs(3600), ..Retention::default() };
    for (log, hours) in [("empty", 3), ("just empty", 1), ("full", 0)] {
        let sent_ms = unix_ms() - hours * 3_600_000 - 60_000;
        store.append(Append { retention, ..append_at(log, b"x", sent_ms) }).await.unwrap();
    }
    let since = Instant::now();
    let names = || count(&folder.file(), "SELECT count(*) FROM logs WHERE name LIKE '%empty'");
    while names() > 1 {
        assert!(since.elapsed() < Duration::from_secs(30), "nothing is forgotten");
        tokio::task::yield_now().await;
    }
    let heads = store.heads(["empty", "just empty", "full"].map(group).to_vec()).await.unwrap();
    assert!(heads[0].is_none() && heads[1].is_some_and(|head| (head.first, head.last) == (2, 1)));
    assert!(heads[2].is_some_and(|head| (head.first, head.last) == (1, 1)));
    // Records whose life is over go, too.
    let over = "SELECT count(*) FROM records";
    rusqlite::Connection::open(folder.file())
        .unwrap()
        .execute_batch("INSERT INTO records VALUES (x'61', 1, x'', 5), (x'62', 1, x'', NULL)")
        .unwrap();
    while count(&folder.file(), over) > 1 {
        assert!(since.elapsed() < Duration::from_secs(60), "a record whose life is over is still there");
        tokio::task::yield_now().await;
    }
}
