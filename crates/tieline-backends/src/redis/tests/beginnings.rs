//! How it begins, and how it does not: users, databases, addresses where nobody or somebody else answers. And what a session
//! does with a queue that is full, with a connection that is cut, and at its end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use tieline_core::broker::{NotTaken, To};
use xtask::engine::redis::ask;

use super::super::{RedisError, Trouble};
use super::*;
use crate::conformance::outage::{RETURN, Server};
use crate::conformance::{Heard, Recorder, fresh_node};
use crate::medium::MAX_ENVELOPE;

/// How long a start may take that cannot succeed.
const SOON: Duration = Duration::from_secs(5);

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
    let began = Instant::now();
    let error = start(url).await.err().unwrap_or_else(|| panic!("{url} is fine"));
    assert!(began.elapsed() < SOON, "it took {:?}: {error}", began.elapsed());
    assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
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

/// A server that reads a while, says something, and waits for the other to leave.
fn stranger(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(says).unwrap();
        if !says.is_empty() {
            let _ = stream.read_to_end(&mut Vec::new());
        } else {
            thread::park();
        }
    });
    server.to_string()
}

#[tokio::test]
async fn what_is_no_redis_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(trouble(&format!("redis://{nobody}")).await, Trouble::Connect(_)));
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
async fn a_queue_is_bounded_and_forgotten_with_its_session() {
    if !is_private("a full queue") {
        return;
    }
    let mut server = Engine::redis().start().unwrap();
    let (broker, recorder) = start(server.url()).await.unwrap();
    let envelope: Arc<[u8]> = vec![7; 1 << 20].into();
    let too_long: Arc<[u8]> = vec![7; MAX_ENVELOPE + 1].into();
    assert_eq!(broker.send(To::All, &too_long), Err(NotTaken::Full));
    server.stand_still();
    let taken = (0..200).take_while(|_| broker.send(To::All, &envelope) == Ok(())).count();
    // 16 MiB in the queue, and what sockets hold.
    assert!((15..100).contains(&taken), "{taken} MiB were taken");
    assert!(broker.overflows() >= 2);
    recorder.until("the server to be away", |heard| heard.contains(&Heard::Away)).await;
    assert_eq!(broker.send(To::All, &envelope), Err(NotTaken::Unreachable));
    server.go_on();
    let back = recorder.until("the server to be back", |heard| heard.contains(&Heard::Back));
    tokio::time::timeout(RETURN, back).await.expect("it is back soon");
    for _ in 0..15 {
        assert_eq!(broker.send(To::All, &envelope), Ok(()), "there is room again");
    }
}

#[tokio::test]
async fn it_stops_while_its_server_is_away() {
    if !is_private("a stop in an outage") {
        return;
    }
    let mut server = Engine::redis().start().unwrap();
    let (broker, recorder) = start(server.url()).await.unwrap();
    let (standing, _) = start(server.url()).await.unwrap();
    server.stand_still();
    let began = Instant::now();
    standing.close();
    standing.closed().await;
    server.kill().unwrap();
    recorder.until("the server to be away", |heard| heard.contains(&Heard::Away)).await;
    broker.close();
    broker.closed().await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Err(NotTaken::Unreachable));
}
