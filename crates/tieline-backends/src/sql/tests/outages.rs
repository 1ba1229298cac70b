//! Servers that are killed amid appends and come back, and servers that stand still.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tieline_core::records::{RecordKey, Records};
use tieline_core::store::StoreError;
use tieline_proto::Position;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;

on_each_server!(what_was_acknowledged_outlives_the_server, a_server_that_stands_still_holds_nobody_up);

const LOGS: [&str; 3] = ["a", "b", "c"];

/// What was said, and what came of it.
#[derive(Default)]
struct Told {
    acknowledged: Vec<(&'static str, Position, String)>,
    refused: Vec<(&'static str, String)>,
    unknown: usize,
}

/// Appends until told to end; counts what was acknowledged.
async fn append_on(
    store: Arc<SqlStore>,
    task: usize,
    count: watch::Sender<usize>,
    mut end: watch::Receiver<bool>,
) -> Told {
    let mut told = Told::default();
    for turn in 0.. {
        if *end.borrow() {
            break;
        }
        let log = LOGS[(task + turn) % LOGS.len()];
        let body = format!("{task} {turn}");
        let mut said = append(log, body.as_bytes());
        said.retention = Retention { count: u64::MAX, bytes: u64::MAX, age: Duration::MAX };
        match store.append(said).await {
            Ok(appended) => {
                told.acknowledged.push((log, appended.position, body));
                count.send_modify(|count| *count += 1);
                continue;
            }
            Err(StoreError::Refused(_)) => told.refused.push((log, body)),
            Err(StoreError::Unknown(_)) => told.unknown += 1,
        }
        // Whoever is refused does not ask again at once.
        let _ = timeout(Duration::from_millis(5), end.changed()).await;
    }
    told
}

async fn what_was_acknowledged_outlives_the_server(mut server: Server) {
    if !server.is_private("a server that is killed") {
        return;
    }
    let database = server.database();
    let store = Arc::new(database.store());
    let (count, mut counted) = watch::channel(0);
    let (end, ended) = watch::channel(false);
    let tasks: Vec<_> = (0..8)
        .map(|task| tokio::spawn(append_on(Arc::clone(&store), task, count.clone(), ended.clone())))
        .collect();
    for round in 0..4 {
        let wanted = *counted.borrow() + 50 + 70 * round;
        let grown = timeout(PATIENCE, counted.wait_for(|count| *count >= wanted)).await;
        assert!(grown.is_ok(), "round {round}: the store does not append again");
        if round < 3 {
            server = tokio::task::spawn_blocking(move || {
                server.engine.kill().unwrap();
                server.engine.restart().unwrap();
                server
            })
            .await
            .unwrap();
        }
    }
    end.send_replace(true);
    let mut told = Told::default();
    for task in tasks {
        let one = task.await.unwrap();
        told.acknowledged.extend(one.acknowledged);
        told.refused.extend(one.refused);
        told.unknown += one.unknown;
    }
    let mut stored = 0;
    for log in LOGS {
        let page = store.read(group(log), None, ALL).await.unwrap();
        let head = page.head.unwrap();
        assert!(page.messages.iter().map(|message| message.offset).eq(1..=head.last), "{log} has a hole");
        stored += page.messages.len();
        for (_, position, body) in told.acknowledged.iter().filter(|(other, ..)| *other == log) {
            assert_eq!(position.epoch, head.epoch);
            let message = page.messages.get(position.offset as usize - 1);
            assert!(
                message.is_some_and(|message| *message.body == *body.as_bytes()),
                "{log} lost {position:?}"
            );
        }
        let bodies: HashMap<&[u8], u64> =
            page.messages.iter().map(|message| (&message.body[..], message.offset)).collect();
        assert_eq!(bodies.len(), page.messages.len(), "{log} has a message twice");
        for (_, body) in told.refused.iter().filter(|(other, _)| *other == log) {
            assert_eq!(bodies.get(body.as_bytes()), None, "it was refused, and is there");
        }
    }
    assert!(stored <= told.acknowledged.len() + told.unknown);
}

async fn a_server_that_stands_still_holds_nobody_up(server: Server) {
    if !server.is_private("a server that stands still") {
        return;
    }
    /// A silence, an attempt to connect, and a slow machine.
    const SOON: Duration = Duration::from_secs(6);
    let database = server.database();
    let store = Arc::new(database.store());
    store.append(append("a", b"before")).await.unwrap();
    store.read(group("a"), None, ALL).await.unwrap();
    server.engine.stand_still().unwrap();
    let refused = Mutex::new(Vec::new());
    for round in 0..3 {
        let since = Instant::now();
        let answers: Vec<_> = (0..500)
            .map(|number| {
                let body = format!("{round} {number}");
                (body.clone(), store.append(append("a", body.as_bytes())))
            })
            .collect();
        let reads = ["a", "b"].map(|log| store.read(group(log), None, PageLimit::default()));
        let record = store.get(RecordKey::new("a").unwrap());
        for (body, answer) in answers {
            match answer.await.unwrap_err() {
                StoreError::Refused(_) => refused.lock().unwrap().push(body),
                StoreError::Unknown(_) => {}
            }
        }
        for read in reads {
            read.await.unwrap_err();
        }
        record.await.unwrap_err();
        assert!(since.elapsed() < SOON, "round {round} took {:?}", since.elapsed());
    }
    server.engine.go_on().unwrap();
    let since = Instant::now();
    while store.append(append("a", b"after")).await.is_err() {
        assert!(since.elapsed() < PATIENCE, "the store does not append again");
        tokio::task::yield_now().await;
    }
    let page = store.read(group("a"), None, ALL).await.unwrap();
    assert_eq!(*page.messages[0].body, *b"before");
    assert!(page.messages.iter().map(|message| message.offset).eq(1..=page.head.unwrap().last));
    let refused = refused.into_inner().unwrap();
    assert!(!refused.is_empty());
    for message in &page.messages {
        assert!(
            !refused.iter().any(|body| *body.as_bytes() == *message.body),
            "it was refused, and is there"
        );
    }
}
