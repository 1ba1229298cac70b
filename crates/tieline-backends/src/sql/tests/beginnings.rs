//! How a store begins, and how it does not: settings that lose data, tables of a newer program, users who may not write,
//! servers that are not there. And how large a body may be.

use std::time::{Duration, Instant};

use tieline_core::records::{Change, Expect, RecordKey};
use tieline_core::store::{MAX_BODY, Refusal};

use super::super::SqlReason;
use super::*;

on_each_server!(
    servers_that_lose_data_are_taken_by_force_alone,
    who_may_only_read_reads,
    what_cannot_be_opened_says_why,
    large_bodies,
);

fn reason(url: &str) -> SqlReason {
    let error = SqlStore::open(&url.parse().unwrap()).map(drop).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    error.reason
}

async fn servers_that_lose_data_are_taken_by_force_alone(server: Server) {
    if !server.is_private("settings that lose data") {
        return;
    }
    let database = server.database();
    database.store();
    let setting = if server.name == "PostgreSQL" {
        say(&database.url, "ALTER SYSTEM SET fsync = off");
        say(&database.url, "SELECT pg_reload_conf()");
        let since = Instant::now();
        while database.count("SELECT COUNT(*) FROM pg_settings WHERE name = 'fsync' AND setting = 'off'") == 0
        {
            assert!(since.elapsed() < PATIENCE);
        }
        "fsync"
    } else {
        say(&database.url, "SET GLOBAL innodb_flush_log_at_trx_commit = 2");
        "innodb_flush_log_at_trx_commit"
    };
    match reason(&database.url) {
        SqlReason::Unsafe(text) => assert!(text.contains(setting), "{text}"),
        other => panic!("{other}"),
    }
    let forced = SqlStore::open(&format!("{}?force=true", database.url).parse().unwrap()).unwrap();
    forced.append(append("a", b"x")).await.unwrap();
    if server.name == "PostgreSQL" {
        // A session that would not wait for the disk is told to, and one that waits for more is left alone.
        for (set, wanted) in [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")] {
            say(&database.url, &format!("ALTER DATABASE {} SET synchronous_commit = {set}", database.name));
            let query = format!(
                "SELECT COUNT(*) FROM pg_settings WHERE name = 'synchronous_commit' AND setting = '{wanted}'"
            );
            assert_eq!(database.count(&query), 1, "{set}");
        }
    }
}

async fn who_may_only_read_reads(server: Server) {
    if !server.is_private("a server that may only be read") {
        return;
    }
    let database = server.database();
    let first = database.store();
    first.append(append("a", b"x")).await.unwrap();
    let url = if server.name == "PostgreSQL" {
        say(
            server.engine.url(),
            &format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name),
        );
        database.url.clone()
    } else {
        // Whom the setting does not concern is `root` alone.
        for host in ["localhost", "127.0.0.1"] {
            say(&database.url, &format!("CREATE USER node@'{host}' IDENTIFIED BY 'hush'"));
            say(&database.url, &format!("GRANT ALL ON {}.* TO node@'{host}'", database.name));
        }
        say(&database.url, "SET GLOBAL read_only = 1");
        database.url.replace("root@", "node:hush@")
    };
    let store = SqlStore::open(&url.parse().unwrap()).unwrap();
    assert_eq!(store.id(), first.id());
    assert_eq!(store.append(append("a", b"y")).await, Err(Refusal::ReadOnly.into()));
    let change = Change { key: RecordKey::new("a").unwrap(), expect: Expect::Nothing, to: None };
    assert_eq!(store.compare_and_set(change).await, Err(Refusal::ReadOnly.into()));
    assert_eq!(store.read(group("a"), None, ALL).await.unwrap().messages.len(), 1);
    if server.name == "PostgreSQL" {
        say(
            server.engine.url(),
            &format!("ALTER DATABASE {} RESET default_transaction_read_only", database.name),
        );
    } else {
        say(&database.url, "SET GLOBAL read_only = 0");
    }
    // It notices by itself.
    store.append(append("a", b"y")).await.unwrap();
}

async fn what_cannot_be_opened_says_why(server: Server) {
    let database = server.database();
    let store = database.store();
    say(&database.url, "UPDATE tieline_store SET version = 99");
    assert_eq!(reason(&database.url), SqlReason::Newer);
    drop(store);
    let nowhere = format!("{}_nowhere", database.url);
    match reason(&nowhere) {
        SqlReason::Failed(text) => assert!(text.contains("_nowhere"), "{text}"),
        other => panic!("{other}"),
    }
    let scheme = database.url.split_once(':').unwrap().0;
    let since = Instant::now();
    match reason(&format!("{scheme}://me:hush@127.0.0.1:1/d")) {
        SqlReason::Failed(text) => assert!(text.contains("refused"), "{text}"),
        other => panic!("{other}"),
    }
    assert!(since.elapsed() < Duration::from_secs(5));
}

async fn large_bodies(server: Server) {
    let database = server.database();
    let store = database.store();
    let body = vec![7; MAX_BODY];
    let largest = store.append(append("a", &body)).await;
    if server.name == "PostgreSQL" {
        largest.unwrap();
        let page = store.read(group("a"), None, PageLimit::default()).await.unwrap();
        assert_eq!(*page.messages[0].body, *body);
    } else if server.is_private("bodies of 16 MiB") {
        // Its packets have 16 MiB, if nobody raises that.
        assert_eq!(largest, Err(Refusal::TooLarge.into()));
    }
    // Several that do not fit into one statement together, and small ones between them.
    let bodies: Vec<Vec<u8>> = [6, 0, 5, 7, 0, 4].map(|size| vec![size as u8; size << 20]).into();
    let whole = Retention { bytes: u64::MAX, ..Retention::default() };
    let say = |body: &Vec<u8>| store.append(Append { retention: whole, ..append("b", body) });
    let answers: Vec<_> = bodies.iter().map(say).collect();
    for answer in answers {
        answer.await.unwrap();
    }
    let page = store.read(group("b"), None, ALL).await.unwrap();
    assert!(page.messages.iter().map(|message| &message.body[..]).eq(bodies.iter().map(|body| &body[..])));
    let page = store.read(group("b"), None, PageLimit { count: 10, bytes: 12 << 20 }).await.unwrap();
    assert_eq!(page.messages.len(), 3, "only what fits is fetched");
}
