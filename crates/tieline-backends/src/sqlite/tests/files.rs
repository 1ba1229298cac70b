//! Files: whose they are, whether they can be written, and what becomes of them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tieline_core::store::{Refusal, Store, StoreError};

use super::{ALL, Folder, SqliteStore, append, count, group};
use crate::sqlite::open;
use crate::sqlite::schema::STEPS;

/// What the program would print.
fn refusal(path: &Path) -> String {
    let text = SqliteStore::open(path).map(drop).unwrap_err().to_string();
    let start = format!("the store {} cannot be opened: ", path.display());
    text.strip_prefix(&start).unwrap().to_owned()
}

#[tokio::test]
async fn a_store_keeps_its_id_and_two_stores_have_two() {
    let (folder, other) = (Folder::new(), Folder::new());
    let paths = [folder.file(), folder.file(), folder.file(), other.file()];
    // All at once, on files that are not there yet.
    let ids = std::thread::scope(|scope| {
        let opening = paths.each_ref().map(|path| scope.spawn(|| SqliteStore::open(path).unwrap().id()));
        opening.map(|opening| opening.join().unwrap())
    });
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3]);
    assert_eq!(SqliteStore::open(&folder.file()).unwrap().id(), ids[0]);
    assert_eq!(count(&folder.file(), "PRAGMA user_version"), STEPS.len() as i64);
}

#[test]
fn what_cannot_be_a_store_is_named() {
    let folder = Folder::new();
    let missing = folder.0.join("no folder");
    assert_eq!(refusal(&missing.join("s.db")), format!("there is no folder {}", missing.display()));
    // Nobody may make files there, not even root.
    assert_eq!(refusal(Path::new("/proc/s.db")), "it, or its folder, may not be written to");
    assert_eq!(refusal(&folder.0), "it, or its folder, may not be written to");

    let text = folder.0.join("text");
    fs::write(&text, "not a store, but long enough to look at. ".repeat(100)).unwrap();
    assert_eq!(refusal(&text), "it is not a store of tieline");
    let foreign = folder.0.join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = fs::read(&foreign).unwrap();
    assert_eq!(refusal(&foreign), "it is not a store of tieline");
    assert!(fs::read(&foreign).unwrap() == before, "the file of another program was touched");

    let newer = folder.file();
    drop(SqliteStore::open(&newer).unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(
        refusal(&newer),
        format!("a newer tieline has made it (schema 99; this one knows {})", STEPS.len())
    );

    let empty = folder.0.join("empty");
    fs::write(&empty, "").unwrap();
    drop(SqliteStore::open(&empty).unwrap());
}

/// What a power cut leaves hangs on these two, and no test can cut the power.
#[test]
fn each_commit_is_flushed() {
    let folder = Folder::new();
    let (connection, _) = open::writer(&folder.file()).unwrap();
    let pragma =
        |name| connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
    assert_eq!(pragma("synchronous"), Ok(2.into()));
    assert_eq!(pragma("journal_mode"), Ok("wal".to_owned().into()));
}

/// Damage is told to whoever meets it, and nobody reads something else instead.
#[tokio::test]
async fn a_damaged_file_is_not_believed() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.file()).unwrap();
    for number in 0..400_u32 {
        store.append(append("a", &[number as u8; 900])).await.unwrap();
    }
    drop(store);
    let whole = fs::read(folder.file()).unwrap();
    let (mut told, pages) = (0, whole.len() / 4096);
    for page in 1..pages {
        let mut damaged = whole.clone();
        damaged[page * 4096..][..4096].fill(0xa5);
        fs::write(folder.file(), damaged).unwrap();
        let Ok(store) = SqliteStore::open(&folder.file()) else {
            told += 1;
            continue;
        };
        match store.read(group("a"), None, ALL).await {
            Err(StoreError::Refused(Refusal::Damaged(_))) => told += 1,
            Err(error) => panic!("{error}"),
            // This page had nothing of the log.
            Ok(found) => assert!(found.messages.len() == 400, "{} are left of 400", found.messages.len()),
        }
    }
    assert!(told > pages / 2, "{told} of {pages}");
}

/// Whoever writes to a file that was removed writes for nobody.
#[tokio::test]
async fn a_file_that_is_removed_is_missed() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.file()).unwrap();
    store.append(append("a", b"x")).await.unwrap();
    fs::rename(folder.file(), folder.0.join("elsewhere")).unwrap();
    let since = Instant::now();
    let error = loop {
        match store.append(append("a", b"x")).await {
            Ok(_) => assert!(since.elapsed() < Duration::from_secs(30), "nobody missed the file"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the store refuses: it fails: its file was removed or replaced");
    fs::rename(folder.0.join("elsewhere"), folder.file()).unwrap();
    while store.append(append("a", b"x")).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(60), "nobody found it again");
    }
}
