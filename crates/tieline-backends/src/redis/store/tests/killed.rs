//! Servers that are killed while they write, and that stand still.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tieline_core::store::{Appended, Refusal, StoreError};

use super::*;
use crate::redis::store::session::LIMIT;

/// More than an answer may take on a machine that has other things to do.
const SOON: Duration = Duration::from_millis(4500);

/// Appends one message after the other, each again until it is known what became of it. What was acknowledged.
async fn append_until(store: Arc<RedisStore>, task: usize, end: Arc<AtomicBool>) -> Vec<(Append, Appended)> {
    let mut acknowledged = Vec::new();
    for turn in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let said = append(["a", "b", "c"][(task + turn) % 3], format!("{task}-{turn}").as_bytes());
        let said = Append { retention: Retention { count: 1 << 20, ..Retention::default() }, ..said };
        loop {
            match store.append(said.clone()).await {
                Ok(appended) => {
                    acknowledged.push((said, appended));
                    break;
                }
                Err(StoreError::Unknown(_) | StoreError::Refused(Refusal::Failed(_))) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_there_and_once() {
    if !is_private("a killed server") {
        return;
    }
    let mut engine = Engine::redis().start().unwrap();
    let settings = settings(&engine);
    let handles = [open(&settings).await, open(&settings).await];
    let end = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|task| tokio::spawn(append_until(Arc::clone(&handles[task % 2]), task, Arc::clone(&end))))
        .collect();
    let mut reached = 0;
    for _ in 0..4 {
        // Each death comes while appends are on their way.
        reached += 150;
        let since = Instant::now();
        loop {
            let heads = handles[0].heads(vec![group("a"), group("b"), group("c")]).await;
            let sum: u64 = heads.iter().flatten().flatten().map(|head| head.last).sum();
            if sum > reached {
                reached = sum;
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "nothing is appended any more");
        }
        engine.kill().unwrap();
        engine.restart().unwrap();
    }
    end.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    assert!(acknowledged.len() > 600, "{} were acknowledged", acknowledged.len());
    let mut bodies = HashSet::new();
    for name in ["a", "b", "c"] {
        let page = handles[1].read(group(name), None, ALL).await.unwrap();
        let head = page.head.unwrap();
        assert!(page.messages.iter().map(|message| message.offset).eq(1..=head.last), "a hole in {name}");
        for message in &page.messages {
            assert!(bodies.insert(message.body.clone()), "twice: {:?}", message.body);
        }
        for (said, appended) in acknowledged.iter().filter(|(said, _)| said.log == group(name)) {
            assert_eq!(appended.position.epoch, head.epoch, "nothing was lost, so no epoch ends");
            let message = &page.messages[appended.position.offset as usize - 1];
            assert_eq!((message.id, &message.body), (said.id, &said.body));
        }
    }
    assert_eq!(
        bodies.len(),
        acknowledged.len(),
        "what was said again until it was acknowledged is there once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_costs_an_answer_in_time() {
    if !is_private("a server that stands still") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let store = open(&settings(&engine)).await;
    store.append(append("a", b"before")).await.unwrap();
    let pid = Pid::from_raw(engine.pid().unwrap() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();

    let since = Instant::now();
    let said = append("a", b"in doubt");
    let first = store.append(said.clone());
    let page = store.read(group("a"), None, ALL);
    // Behind what is on its way: this is bounded, and refused in the same time.
    let body: Arc<[u8]> = vec![7; 1 << 20].into();
    let waiting: Vec<_> =
        (0..80).map(|_| store.append(Append { body: Arc::clone(&body), ..append("a", b"") })).collect();
    assert!(matches!(first.await, Err(StoreError::Unknown(_))));
    assert!(matches!(page.await, Err(StoreError::Refused(Refusal::Failed(_)))));
    let mut full = 0;
    for answer in waiting {
        match answer.await {
            Err(StoreError::Refused(Refusal::QueueFull)) => full += 1,
            Err(StoreError::Refused(Refusal::Failed(_)) | StoreError::Unknown(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((10..=17).contains(&full), "{full} MiB of 80 found the queue full");
    assert!((LIMIT..SOON).contains(&since.elapsed()), "it took {:?}", since.elapsed());

    let since = Instant::now();
    let refused = store.append(append("a", b"meanwhile")).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::Failed(_)))), "{refused:?}");
    assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());

    kill(pid, Signal::SIGCONT).unwrap();
    let appended = said_until_known(&store, said).await;
    let bodies: Vec<_> = store.read(group("a"), None, ALL).await.unwrap().messages;
    let same = bodies.iter().filter(|message| *message.body == *b"in doubt").count();
    assert_eq!((same, bodies[appended.position.offset as usize - 1].body.as_ref()), (1, &b"in doubt"[..]));
    assert!(
        bodies.iter().all(|message| *message.body != *b"meanwhile"),
        "refused means that nothing happened"
    );
}

/// The same append, until the server is back.
pub(super) async fn said_until_known(store: &RedisStore, said: Append) -> Appended {
    let since = Instant::now();
    loop {
        match store.append(said.clone()).await {
            Ok(appended) => return appended,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_end_comes_in_time_though_its_server_is_gone() {
    if !is_private("a killed server") {
        return;
    }
    let mut engine = Engine::redis().start().unwrap();
    let store = open(&settings(&engine)).await;
    engine.kill().unwrap();
    let since = Instant::now();
    let answer = store.append(append("a", b"too late"));
    store.close();
    store.closed().await;
    assert!(answer.await.is_err());
    assert_eq!(store.append(append("a", b"closed")).await, Err(Refusal::Closed.into()));
    assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
}
