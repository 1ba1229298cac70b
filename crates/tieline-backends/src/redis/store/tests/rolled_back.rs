//! Servers that lost what they had acknowledged: an older copy of their files was put back.

use std::fs;
use std::path::{Path, PathBuf};

use tieline_core::store::{Gap, Page};
use tieline_proto::Position;
use xtask::engine::redis::ask;

use super::killed::said_until_known;
use super::*;
use crate::redis::store::known::Last;

/// What a running server works in.
fn folder(engine: &Engine) -> PathBuf {
    fs::read_link(format!("/proc/{}/cwd", engine.pid().unwrap())).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "server.log" {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

async fn page(store: &RedisStore, log: &str, after: Position) -> Page {
    store.read(group(log), Some(after), ALL).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_messages_has_another_epoch_before_anybody_sees_it() {
    if !is_private("a server that is rolled back") {
        return;
    }
    let mut engine = Engine::redis().start().unwrap();
    let settings = settings(&engine);
    let store = open(&settings).await;
    for body in [b"1", b"2"] {
        store.append(append("cut", body)).await.unwrap();
        store.append(append("whole", body)).await.unwrap();
    }
    let folder = folder(&engine);
    let saved = folder.with_extension("saved");
    copy(&folder, &saved);
    let lost = append("cut", b"3");
    let before = store.append(lost.clone()).await.unwrap().position;
    let made = store.append(append("made since", b"1")).await.unwrap().position;
    let whole = store.append(append("whole", b"3")).await.unwrap().position;
    store.trim(group("whole"), tieline_core::store::Cut::Whole).await.unwrap();
    let whole_again = store.append(append("whole", b"anew")).await.unwrap().position;

    engine.kill().unwrap();
    for entry in fs::read_dir(&saved).unwrap() {
        let name = entry.unwrap().file_name();
        let _ = fs::remove_dir_all(folder.join(&name));
    }
    copy(&saved, &folder);
    fs::remove_dir_all(&saved).unwrap();
    engine.restart().unwrap();

    // The message is not known as said before: it is lost, and is stored now.
    let after = said_until_known(&store, lost).await;
    assert!(!after.is_duplicate);
    assert_eq!(after.position.offset, 3);
    assert_ne!(after.position.epoch, before.epoch, "the same position would name two lives of the log");
    assert_eq!(page(&store, "cut", before).await.gap, Some(Gap::Epoch));
    assert_eq!(page(&store, "made since", made).await.gap, Some(Gap::Epoch));
    // This one was dropped and made anew, which is undone: the life of before would be there again.
    assert_eq!(page(&store, "whole", whole_again).await.gap, Some(Gap::Epoch));
    assert_eq!(
        page(&store, "whole", whole).await.gap,
        Some(Gap::Epoch),
        "what was dropped is back, and not as it was"
    );
    let other = open(&settings).await;
    assert_eq!(page(&other, "cut", before).await.gap, Some(Gap::Epoch), "for all handles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_message_in_the_place_of_one_that_was_given_out_is_found() {
    if !is_private("a cut connection") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let settings = settings(&engine);
    let (store, other) = (open(&settings).await, open(&settings).await);
    let mut at = Vec::new();
    for log in ["same", "other", "trimmed"] {
        let said = append(log, b"1");
        at.push((said.id, other.append(said).await.unwrap().position));
        other.append(append(log, b"2")).await.unwrap();
    }
    other.trim(group("trimmed"), tieline_core::store::Cut::Through(at[2].1)).await.unwrap();
    // As if this handle had read them before the server was rolled back and others went on.
    let foreign = MessageId::new(unix_ms(), 7);
    let ids = [at[0].0, foreign, foreign];
    for (life, (log, (id, (_, position)))) in
        (1..).zip(["same", "other", "trimmed"].iter().zip(ids.into_iter().zip(at.clone())))
    {
        // Lives are counted from 1.
        store.0.known().saw(&group(log), Last { position, life: life as u64, id });
    }
    // A connection that was only cut changes nothing either.
    assert!(ask(engine.url(), "CLIENT KILL TYPE normal").unwrap().starts_with(':'));
    let mut kept = Vec::new();
    for (log, (_, before)) in ["same", "other", "trimmed"].into_iter().zip(&at) {
        let appended = said_until_known(&store, append(log, b"3")).await;
        assert_eq!(appended.position.offset, 3);
        kept.push(appended.position.epoch == before.epoch);
    }
    assert_eq!(kept, [true, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_emptied_begins_anew() {
    if !is_private("an emptied server") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let settings = settings(&engine);
    let store = open(&settings).await;
    let before = store.append(append("a", b"1")).await.unwrap().position;
    assert_eq!(ask(engine.url(), "FLUSHALL").unwrap(), "+OK");
    assert_eq!(page(&store, "a", before).await.gap, Some(Gap::Epoch));
    let after = store.append(append("a", b"1")).await.unwrap().position;
    assert!(after.offset == 1 && after.epoch != before.epoch);
    assert_eq!(open(&settings).await.id(), store.id(), "it is the same store");
    // Another store in its place is nobody's.
    let key = format!("{}:store", settings.prefix);
    assert_eq!(ask(engine.url(), &format!("HSET {key} id {:032x}", 5)).unwrap(), ":0");
    let refused = store.append(append("a", b"2")).await.unwrap_err();
    assert!(refused.to_string().contains("another store"), "{refused}");
}
