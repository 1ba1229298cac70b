//! Several nodes on one database: they make the tables at once, append to the same logs in the worst order, and drop them.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use tieline_core::records::{Change, Expect, Outcome, RecordKey, Value};
use tieline_core::store::{Cut, Refusal, StoreError};
use tieline_proto::Position;

use super::*;

on_each_server!(
    nodes_that_start_at_once_find_one_store,
    nodes_that_append_to_the_same_logs,
    a_node_that_stands_still_does_not_keep_its_locks,
);

async fn nodes_that_start_at_once_find_one_store(server: Server) {
    let database = server.database();
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let address = database.address();
            std::thread::spawn(move || SqlStore::open(&address).unwrap())
        })
        .collect();
    let stores: Vec<SqlStore> = opening.into_iter().map(|opening| opening.join().unwrap()).collect();
    assert!(stores.iter().all(|store| store.id() == stores[0].id()));
    assert_eq!(database.count("SELECT COUNT(*) FROM tieline_store"), 1);
}

/// Each node appends to all logs, in an order of its own, so that transactions meet in every way; one log is dropped now and then,
/// and one record is counted up by all.
async fn nodes_that_append_to_the_same_logs(server: Server) {
    let server = server.hasty();
    const NODES: usize = 3;
    const TURNS: usize = 60;
    const LOGS: usize = 12;
    let database = server.database();
    let stores: Vec<_> = (0..NODES).map(|_| Arc::new(database.store())).collect();
    let tasks: Vec<_> = stores
        .iter()
        .cloned()
        .enumerate()
        .map(|(node, store)| {
            tokio::spawn(async move {
                let mut places: HashMap<String, Vec<(Position, String)>> = HashMap::new();
                for turn in 0..TURNS {
                    let mut answers = Vec::new();
                    for log in 0..LOGS {
                        // A stride that is its own: no two nodes go through the logs in one order.
                        let log = format!("log {}", (log * [1, 5, 7][node] + turn) % LOGS);
                        let body = format!("{node} {turn} {log}");
                        answers.push((
                            log.clone(),
                            body.clone(),
                            store.append(append(&log, body.as_bytes())),
                        ));
                    }
                    let coming = store.append(append("comes and goes", b"x"));
                    if turn % 10 == node {
                        store.trim(group("comes and goes"), Cut::Whole).await.unwrap();
                    }
                    let counted = count_up(&store).await;
                    for (log, body, answer) in answers {
                        let appended = answer.await.unwrap();
                        assert!(!appended.is_duplicate);
                        places.entry(log).or_default().push((appended.position, body));
                    }
                    let appended = coming.await.unwrap();
                    places
                        .entry("comes and goes".to_owned())
                        .or_default()
                        .push((appended.position, String::new()));
                    counted.unwrap();
                }
                places
            })
        })
        .collect();
    let mut all: HashMap<String, Vec<(Position, String)>> = HashMap::new();
    for task in tasks {
        for (log, places) in task.await.unwrap() {
            let is_ordered = places.is_sorted_by(|a, b| a.0.epoch != b.0.epoch || a.0.offset < b.0.offset);
            assert!(is_ordered, "one node's appends to {log} changed their order");
            all.entry(log).or_default().extend(places);
        }
    }
    for (log, places) in all {
        let given: HashSet<Position> = places.iter().map(|(position, _)| *position).collect();
        assert_eq!(given.len(), places.len(), "{log}: a place was given twice");
        if log == "comes and goes" {
            continue;
        }
        for store in &stores {
            let page = store.read(group(&log), None, ALL).await.unwrap();
            let offsets = page.messages.iter().map(|message| message.offset);
            assert!(offsets.eq(1..=(NODES * TURNS) as u64), "{log} has a hole");
            for (position, body) in &places {
                assert_eq!(*page.messages[position.offset as usize - 1].body, *body.as_bytes());
            }
        }
    }
    let key = RecordKey::new("count").unwrap();
    let record = stores[0].get(key).await.unwrap().unwrap();
    assert_eq!(*record.value, (NODES * TURNS).to_be_bytes(), "a change was lost");
}

async fn a_node_that_stands_still_does_not_keep_its_locks(server: Server) {
    let database = server.database();
    let store = database.store();
    store.append(append("a", b"1")).await.unwrap();
    // It has locked the log, and says nothing more.
    let (locked, told) = tokio::sync::oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let url = database.url.clone();
    let still = std::thread::spawn(move || {
        ask(&url, async move |mut link| {
            link.run("BEGIN").await.unwrap();
            link.rows("SELECT first FROM tieline_logs FOR UPDATE", &[]).await.unwrap();
            locked.send(()).unwrap();
            let _ = ended.recv();
        });
    });
    told.await.unwrap();
    assert_eq!(store.append(append("a", b"2")).await, Err(Refusal::Busy.into()));
    assert_eq!(store.read(group("a"), None, ALL).await.unwrap().messages.len(), 1, "readers do not wait");
    let since = Instant::now();
    while store.append(append("a", b"3")).await.is_err() {
        assert!(since.elapsed() < PATIENCE, "its locks are kept");
    }
    assert_eq!(store.read(group("a"), None, ALL).await.unwrap().messages.len(), 2);
    drop(end);
    still.join().unwrap();
}

/// Adds one to a record that others change too.
async fn count_up(store: &SqlStore) -> Result<(), StoreError> {
    let key = RecordKey::new("count").unwrap();
    let mut found = store.get(key.clone()).await?;
    loop {
        let (expect, count) = match &found {
            None => (Expect::Nothing, 0),
            Some(record) => {
                (Expect::Version(record.version), usize::from_be_bytes((*record.value).try_into().unwrap()))
            }
        };
        let to = Some(Value { bytes: (count + 1).to_be_bytes().as_slice().into(), lives: None });
        match store.compare_and_set(Change { key: key.clone(), expect, to }).await? {
            Outcome::Done(_) => return Ok(()),
            Outcome::Differs(other) => found = other,
        }
    }
}
