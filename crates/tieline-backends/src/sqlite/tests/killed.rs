//! Processes that are killed while they write, and what a power cut may leave of the log of writes.

use std::collections::HashMap;
use std::path::Path;

use tieline_core::store::{Store, Stored};

use super::child::Neighbour;
use super::{ALL, Folder, SqliteStore, append, group};

/// The messages of each log, by offset; there must not be a hole.
async fn read_all(path: &Path) -> HashMap<String, Vec<Stored>> {
    let store = SqliteStore::open(path).unwrap();
    let mut found = HashMap::new();
    for log in ["a", "b", "c"] {
        let page = store.read(group(log), None, ALL).await.unwrap();
        assert!(
            page.messages
                .iter()
                .map(|message| message.offset)
                .eq(page.head.map_or(1, |head| head.first)..=page.head.map_or(0, |head| head.last))
        );
        found.insert(log.to_owned(), page.messages);
    }
    found
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there() {
    let folder = Folder::new();
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let children = [0; 2].map(|_| Neighbour::start("append", &folder.file(), &[]));
        for (index, mut child) in children.into_iter().enumerate() {
            for _ in 0..60 * round + 10 * index + 5 {
                acknowledged.push(child.next().unwrap());
            }
            acknowledged.extend(child.kill_and_hear());
        }
    }
    acknowledged.retain(|line| line != "busy");
    assert!(acknowledged.len() > 500, "{} were acknowledged", acknowledged.len());
    let found = read_all(&folder.file()).await;
    let mut missing = 0;
    for line in &acknowledged {
        let [log, _epoch, offset, body] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let offset: u64 = offset.parse().unwrap();
        let log = &found[log];
        let Some(first) = log.first().map(|first| first.offset).filter(|first| *first <= offset) else {
            continue;
        };
        let message = log.get((offset - first) as usize);
        missing += usize::from(message.is_none_or(|message| *message.body != *body.as_bytes()));
    }
    assert_eq!(missing, 0, "of {} that were acknowledged", acknowledged.len());
}

/// What a power cut leaves is a part of the log of writes, cut anywhere: the store is then what it was after some commit.
#[tokio::test]
async fn a_torn_tail_is_cut_off_at_a_commit() {
    let (folder, torn) = (Folder::new(), Folder::new());
    let store = SqliteStore::open(&folder.file()).unwrap();
    for number in 0..60_u8 {
        store.append(append(["a", "b", "c"][number as usize % 3], &[number; 700])).await.unwrap();
    }
    let [wal, torn_wal] = [&folder, &torn].map(|folder| folder.0.join("store.db-wal"));
    let written = std::fs::read(wal).unwrap();
    let mut counts = Vec::new();
    for part in 0..=12 {
        for file in ["store.db-wal", "store.db-shm"] {
            let _ = std::fs::remove_file(torn.0.join(file));
        }
        std::fs::copy(folder.file(), torn.file()).unwrap();
        let mut tail = written[..written.len() * part / 12].to_vec();
        // Half a page that came to the disk as something else.
        let end = tail.len();
        if part < 12 {
            tail[end.saturating_sub(1500)..].fill(0x55);
        }
        std::fs::write(&torn_wal, tail).unwrap();
        match SqliteStore::open(&torn.file()) {
            Ok(store) => drop(store),
            // So early that there was no store yet.
            Err(error) => panic!("{error}"),
        }
        let found = read_all(&torn.file()).await;
        let count: usize = found.values().map(Vec::len).sum();
        for (log, index) in [("a", 0), ("b", 1), ("c", 2)] {
            let wanted = (index..60_u8).step_by(3).take(found[log].len());
            assert!(found[log].iter().zip(wanted).all(|(message, number)| *message.body == [number; 700]));
            assert_eq!(found[log].len(), (count + 2 - index as usize) / 3, "in the order of the commits");
        }
        counts.push(count);
        // It goes on from there.
        let store = SqliteStore::open(&torn.file()).unwrap();
        let appended = store.append(append("a", b"on")).await.unwrap();
        assert_eq!(appended.position.offset as usize, found["a"].len() + 1);
    }
    assert!(counts.is_sorted() && counts[0] == 0 && counts[12] == 60, "{counts:?}");
}
