//! Servers that are not fit to keep a store, users that may do little, and servers that are full or become replicas.

use std::time::{Duration, Instant};

use tieline_core::store::{Refusal, StoreError};
use xtask::engine::redis::ask;

use super::killed::said_until_known;
use super::*;
use crate::redis::store::{RedisStoreError, Unfit};

fn ok(engine: &Engine, command: &str) {
    assert_eq!(ask(engine.url(), command).unwrap(), "+OK", "{command}");
}

/// Why the store is not opened.
async fn unfit(settings: &RedisStoreSettings) -> Unfit {
    match RedisStore::open(settings.clone()).await.map(drop) {
        Err(RedisStoreError::Unfit { unfit, .. }) => unfit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_loses_what_it_acknowledged_is_refused_unless_forced() {
    if !is_private("a server's settings") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let settings = settings(&engine);
    let force = RedisStoreSettings { force: true, ..settings.clone() };
    let second = RedisStoreSettings { is_every_second_enough: true, ..settings.clone() };
    drop(open(&settings).await);
    ok(&engine, "CONFIG SET appendfsync everysec");
    assert_eq!(unfit(&settings).await, Unfit::Fsync("everysec".to_owned()));
    drop(open(&second).await);
    ok(&engine, "CONFIG SET appendfsync no");
    assert_eq!(unfit(&second).await, Unfit::Fsync("no".to_owned()));
    drop(open(&force).await);
    ok(&engine, "CONFIG SET appendfsync always");
    ok(&engine, "CONFIG SET maxmemory-policy allkeys-lru");
    drop(open(&settings).await);
    ok(&engine, "CONFIG SET maxmemory 100mb");
    assert_eq!(unfit(&settings).await, Unfit::Evicts("allkeys-lru".to_owned()));
    drop(open(&force).await);
    ok(&engine, "CONFIG SET maxmemory 0");
    ok(&engine, "CONFIG SET appendonly no");
    let unfit = unfit(&settings).await;
    assert_eq!(unfit, Unfit::NoFile);
    assert!(unfit.to_string().ends_with("or accept that by `?force=true`"), "{unfit}");
    drop(open(&force).await);
}

#[tokio::test]
async fn what_is_kept_there_must_be_a_store_that_is_understood() {
    let engine = Engine::redis().start().unwrap();
    let settings = settings(&engine);
    let key = format!("{}:store", settings.prefix);
    assert_eq!(ask(engine.url(), &format!("SET {key} x")).unwrap(), "+OK");
    assert_eq!(unfit(&settings).await, Unfit::Foreign(key.clone()));
    assert_eq!(ask(engine.url(), &format!("DEL {key}")).unwrap(), ":1");
    drop(open(&settings).await);
    assert_eq!(ask(engine.url(), &format!("HSET {key} layout 2")).unwrap(), ":0");
    assert_eq!(unfit(&settings).await, Unfit::Newer);
}

/// What `docs/store.md` says that a user needs.
const PERMISSIONS: &str = "~tieline:* -@all +hello +select +config|get +eval +evalsha +wait +time +get +set +mget +exists \
    +unlink +hget +hset +hsetnx +hmget +hincrby +rpush +rpop +lpop +lindex +lrange +zadd +zrem +zrangebyscore +zrangebylex";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_permissions_that_are_told_is_enough() {
    if !is_private("a server with users") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let document = include_str!("../../../../../../docs/store.md");
    let words: Vec<&str> = document.split_whitespace().collect();
    assert!(words.join(" ").contains(PERMISSIONS), "the document says something else");
    ok(&engine, &format!("ACL SETUSER node on >hush {PERMISSIONS}"));
    ok(&engine, &format!("ACL SETUSER blind on >hush {PERMISSIONS} -config"));
    let server = engine.url().strip_prefix("redis://").unwrap();
    let as_user = |user: &str| RedisStoreSettings::parse(&format!("redis://{user}:hush@{server}")).unwrap();
    let shelf = Shelf(as_user("node"));
    // Everything that a store does, sweeping and lives that end among it; each on an empty server.
    for part in 0..5 {
        match part {
            0 => store::retention(&shelf).await,
            1 => store::cuts(&shelf).await,
            2 => store::renewal(&shelf).await,
            3 => records::lives(&shelf).await,
            _ => store::offsets_and_pages(&shelf).await,
        }
        ok(&engine, "FLUSHALL");
    }
    match unfit(&as_user("blind")).await {
        Unfit::Unread(text) => assert!(text.contains("NOPERM"), "{text}"),
        other => panic!("{other}"),
    }
    let forced = RedisStoreSettings { force: true, ..as_user("blind") };
    open(&forced).await.append(append("a", b"1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_and_goes_on() {
    if !is_private("a full server") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let store = open(&settings(&engine)).await;
    for _ in 0..3 {
        store.append(append("a", b"before")).await.unwrap();
    }
    ok(&engine, "CONFIG SET maxmemory 1");
    assert_eq!(store.append(append("a", b"full")).await, Err(Refusal::NoRoom.into()));
    let page = store.read(group("a"), None, ALL).await.unwrap();
    assert_eq!(page.messages.len(), 3);
    ok(&engine, "CONFIG SET maxmemory 0");
    assert_eq!(store.append(append("a", b"after")).await.unwrap().position.offset, 4);
    // Whoever throws away the scripts costs nothing but a second attempt.
    ok(&engine, "SCRIPT FLUSH");
    assert_eq!(store.append(append("a", b"after")).await.unwrap().position.offset, 5);
    assert_eq!(store.read(group("a"), None, ALL).await.unwrap().messages.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_waited_for_and_are_no_stores() {
    if !is_private("replicas") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let mut replica = Engine::redis().start().unwrap();
    let settings =
        RedisStoreSettings { replicas: 1, replicas_within: Duration::from_millis(300), ..settings(&engine) };
    let store = open(&settings).await;
    let said = append("a", b"1");
    match store.append(said.clone()).await {
        Err(StoreError::Unknown(text)) => assert_eq!(text, "0 of 1 replicas have it"),
        other => panic!("{other:?}"),
    }
    let port = engine.url().rsplit_once(':').unwrap().1;
    ok(&replica, &format!("REPLICAOF 127.0.0.1 {port}"));
    let appended = said_until_known(&store, said).await;
    assert!(appended.is_duplicate && appended.position.offset == 1, "it was there, and is known again");
    let on_replica =
        RedisStoreSettings::parse(&format!("{}?prefix={}", replica.url(), settings.prefix)).unwrap();
    assert_eq!(unfit(&on_replica).await, Unfit::Replica);
    // The replica takes over, has everything, and is followed by the server.
    ok(&replica, "REPLICAOF NO ONE");
    let promoted = open(&on_replica).await;
    let page = promoted.read(group("a"), None, ALL).await.unwrap();
    assert_eq!(page.messages.len(), 1);
    let port = replica.url().rsplit_once(':').unwrap().1;
    ok(&engine, &format!("REPLICAOF 127.0.0.1 {port}"));
    let since = Instant::now();
    loop {
        match store.append(append("a", b"2")).await {
            Err(StoreError::Refused(Refusal::ReadOnly)) => break,
            other => assert!(since.elapsed() < Duration::from_secs(10), "{other:?}"),
        }
    }
    ok(&engine, "REPLICAOF NO ONE");
    replica.kill().unwrap();
}
