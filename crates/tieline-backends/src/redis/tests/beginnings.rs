//! How it begins, and how it does not: users, databases, addresses where nobody or somebody else answers. And what a session
//! does with a queue that is full, with a connection that is cut, and at its end.

use tieline_core::broker::To;
use xtask::engine::redis::ask;

use super::super::{RedisError, Trouble};
use super::*;
use crate::conformance::private::{nobody, refused, stranger};
use crate::conformance::{Heard, Recorder, fresh_node};
use crate::medium::limits;

async fn start(url: &str) -> Result<(RedisBroker, Arc<Recorder>), RedisError> {
    start_with(settings(url)).await
}

async fn start_with(settings: RedisSettings) -> Result<(RedisBroker, Arc<Recorder>), RedisError> {
    let recorder = Recorder::new();
    let broker =
        RedisBroker::start(settings, &fresh_node("n"), Arc::clone(&recorder) as Arc<dyn Inbound>).await?;
    Ok((broker, recorder))
}

/// What is wrong with a server, found in time.
async fn trouble(url: &str) -> Trouble {
    let error = refused(async || start(url).await).await;
    let RedisError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

fn ok(engine: &Engine, command: &str) {
    assert_eq!(ask(engine.url(), command).unwrap(), "+OK", "{command}");
}

#[tokio::test]
async fn users_passwords_and_databases_are_checked_at_once() {
    if !is_private("a server with passwords") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let server = engine.url().strip_prefix("redis://").unwrap();
    ok(&engine, "ACL SETUSER node on >hush/1 resetchannels &tieline:* -@all +@connection +@pubsub");
    ok(&engine, "ACL SETUSER deaf on >hush resetchannels -@all +@connection +@pubsub");
    ok(&engine, "CONFIG SET requirepass hush");
    for good in ["redis://:hush@{}", "redis://default:hush@{}/15", "redis://node:hush%2F1@{}"] {
        start(&good.replace("{}", server)).await.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    let cases = [
        ("redis://{}", "NOAUTH"),
        ("redis://:hush2@{}", "WRONGPASS"),
        ("redis://nobody:hush@{}", "WRONGPASS"),
        ("redis://deaf:hush@{}", "NOPERM"),
        ("redis://:hush@{}/16", "DB index is out of range"),
    ];
    for (url, reason) in cases {
        match trouble(&url.replace("{}", server)).await {
            Trouble::Refused(text) if text.contains(reason) => {}
            other => panic!("{url}: {other}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_redis_is_told() {
    assert!(matches!(trouble(&format!("redis://{}", nobody())).await, Trouble::Connect(_)));
    assert!(matches!(trouble("redis://no-such-host.invalid").await, Trouble::Connect(_) | Trouble::Silent));
    let http = stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(matches!(trouble(&format!("redis://{http}")).await, Trouble::Garbage));
    let alert = stranger(&[0x15, 3, 1, 0, 2, 2, 80]);
    assert!(matches!(trouble(&format!("redis://{alert}")).await, Trouble::Garbage));
    let silent = stranger(b"");
    assert!(matches!(trouble(&format!("redis://:hush@{silent}")).await, Trouble::Silent));
    // As Redis 5 answers, which repeats what it does not know.
    let old = stranger(
        b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `hush`, \r\n",
    );
    match trouble(&format!("redis://:hush@{old}")).await {
        Trouble::Refused(text) => assert!(text.contains("HELLO") && text.contains("***"), "{text}"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_cut_connection_is_made_anew() {
    if !is_private("a cut connection") {
        return;
    }
    let engine = Engine::redis().start().unwrap();
    let (broker, recorder) = start(engine.url()).await.unwrap();
    for outage in 1..=3 {
        assert!(ask(engine.url(), "CLIENT KILL TYPE pubsub").unwrap().starts_with(':'));
        let count = |heard: &[Heard], what| heard.iter().filter(|heard| **heard == what).count();
        recorder.until("the connection is made anew", |heard| count(heard, Heard::Back) == outage).await;
        assert_eq!(recorder.with(|heard| count(heard, Heard::Away)), outage);
        assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Ok(()));
    }
}

#[tokio::test]
async fn what_strangers_publish_is_counted_and_done_with() {
    let engine = Engine::redis().start().unwrap();
    let settings = settings(engine.url());
    let cluster = settings.cluster.clone();
    let (node, recorder) = (fresh_node("n"), Recorder::new());
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    let broker = RedisBroker::start(settings.clone(), &node, inbound).await.unwrap();
    let (other, _) = start_with(settings).await.unwrap();
    let own = format!("tieline:{cluster}:one:{}", node.incarnation);
    for channel in [&format!("tieline:{cluster}:all"), &own] {
        for payload in ["\"\"", "short", "seven77"] {
            let heard = ask(engine.url(), &format!("PUBLISH {channel} {payload}")).unwrap();
            assert!(heard.starts_with(':') && heard != ":0", "{heard}");
        }
    }
    assert_eq!(other.send(To::One(node.incarnation), &Arc::from(&b"a node's"[..])), Ok(()));
    assert_eq!(recorder.until_envelopes(1).await, [b"a node's"]);
    assert_eq!(recorder.heard().len(), 1, "it was away");
    assert_eq!(broker.stats().strays, [("foreign", 6)]);
}

#[tokio::test]
async fn a_queue_is_bounded_and_forgotten_with_its_session() {
    if is_private("a full queue") {
        let mut server = Engine::redis().start().unwrap();
        let settings = settings(server.url());
        let start = async || start_with(settings.clone()).await.unwrap();
        limits::a_queue_is_bounded_and_forgotten(&mut server, start, limits::QUEUE_AND_SOCKETS).await;
    }
}

#[tokio::test]
async fn it_stops_while_its_server_is_away() {
    if is_private("a stop in an outage") {
        let mut server = Engine::redis().start().unwrap();
        let settings = settings(server.url());
        let start = async || start_with(settings.clone()).await.unwrap();
        limits::it_stops_while_its_server_is_away(&mut server, start).await;
    }
}
