//! Processes that stand still: with the lock, and anywhere.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tieline_core::records::{Change, Expect, RecordKey, Records};
use tieline_core::store::{Refusal, Store, StoreError};

use super::child::Neighbour;
use super::{ALL, Folder, SqliteStore, append, group};
use crate::sqlite::BUSY_LIMIT;

/// More than a refusal may take on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_process_that_stands_still_with_the_lock_costs_a_refusal() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.file()).unwrap();
    store.append(append("a", b"before")).await.unwrap();
    let mut holder = Neighbour::start("hold", &folder.file(), &[]);
    assert_eq!(holder.next().unwrap(), "held");
    holder.signal(Signal::SIGSTOP);

    let since = Instant::now();
    let key = RecordKey::new("k").unwrap();
    let change = store.compare_and_set(Change { key, expect: Expect::Anything, to: None });
    let answer = store.append(append("a", b"meanwhile"));
    let page = store.read(group("a"), None, ALL).await.unwrap();
    assert_eq!(page.messages.len(), 1);
    assert!(since.elapsed() < BUSY_LIMIT, "a reader waited for the lock");
    assert_eq!(answer.await, Err(StoreError::Refused(Refusal::Busy)));
    assert_eq!(change.await, Err(StoreError::Refused(Refusal::Busy)));
    assert!((BUSY_LIMIT / 2..SOON + SOON).contains(&since.elapsed()), "it took {:?}", since.elapsed());

    // Another one may not begin its service in silence either.
    let since = Instant::now();
    let error = SqliteStore::open(&folder.file()).map(drop).unwrap_err();
    assert!(error.to_string().ends_with("another process has held it for 2 s"), "{error}");
    assert!(since.elapsed() < SOON);

    drop(holder);
    let appended = store.append(append("a", b"after")).await.unwrap();
    assert_eq!(appended.position.offset, 2, "what was refused left no hole");
}

#[tokio::test]
async fn a_process_that_stands_still_anywhere_hangs_nobody() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.file()).unwrap();
    let mut neighbour = Neighbour::start("append", &folder.file(), &[]);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..8 {
        for _ in 0..50 {
            neighbour.next().unwrap();
        }
        neighbour.signal(Signal::SIGSTOP);
        let since = Instant::now();
        match store.append(append("own", b"x")).await {
            Ok(_) => taken += 1,
            Err(StoreError::Refused(Refusal::Busy)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
        assert_eq!(store.read(group("own"), None, ALL).await.unwrap().messages.len(), taken);
        neighbour.signal(Signal::SIGCONT);
    }
    assert_eq!(taken + refused, 8);
    store.append(append("own", b"x")).await.unwrap();
}
