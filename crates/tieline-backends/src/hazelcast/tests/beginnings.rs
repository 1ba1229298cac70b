//! How it begins, and how it does not: names, users, addresses where nobody or somebody else answers. And what a session does with a
//! queue that is full, with what others publish to its topics, and at its end.

use std::io::{Read, Write};

use tieline_core::broker::To;

use super::super::topics::{ALL, Names};
use super::super::{HazelcastError, Trouble, protocol};
use super::*;
use crate::conformance::private::{nobody, refused, stranger};
use crate::conformance::{Heard, PATIENCE, Recorder, fresh_node};
use crate::medium::limits;

async fn start(settings: HazelcastSettings) -> Result<(HazelcastBroker, Arc<Recorder>), HazelcastError> {
    let recorder = Recorder::new();
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    let broker = HazelcastBroker::start(settings, &fresh_node("n"), inbound).await?;
    Ok((broker, recorder))
}

/// What is wrong with members, found in time.
async fn trouble(url: &str) -> Trouble {
    let error = refused(async || start(settings(url)).await).await;
    let HazelcastError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

/// The address behind the scheme, without the cluster's name.
fn place(url: &str) -> &str {
    url.strip_prefix("hazelcast://").and_then(|rest| rest.split('?').next()).unwrap()
}

/// As a member says that it does not know a client: status 1, and nothing else that matters.
const UNKNOWN: &[u8] = b"\x44\0\0\0\0\xe0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[tokio::test]
async fn what_is_no_member_is_told() {
    assert!(matches!(trouble(&format!("hazelcast://{}", nobody())).await, Trouble::Connect(_)));
    let unknown_host = trouble("hazelcast://no-such-host.invalid").await;
    assert!(matches!(unknown_host, Trouble::Connect(_) | Trouble::Silent), "{unknown_host}");
    for words in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0x15, 3, 1, 0, 2, 2, 80], b"-ERR\r\n"] {
        let told = trouble(&format!("hazelcast://u:hush@{}", stranger(words))).await;
        assert!(matches!(told, Trouble::Garbage), "{told}");
    }
    let told = trouble(&format!("hazelcast://u:hush@{}", stranger(UNKNOWN))).await;
    assert!(matches!(told, Trouble::Login { .. }) && told.to_string().contains("password"), "{told}");
    let silent = trouble(&format!("hazelcast://u:hush@{}", stranger(b""))).await;
    assert!(matches!(silent, Trouble::Silent), "{silent}");
    // Of several members the most telling one is heard.
    let several = format!("hazelcast://{},{},{}", nobody(), stranger(UNKNOWN), stranger(b""));
    assert!(matches!(trouble(&several).await, Trouble::Login { .. }));
}

#[tokio::test]
async fn members_are_tried_one_after_the_other() {
    if !is_private("one member after the other") {
        return;
    }
    let engine = Engine::hazelcast().start().unwrap();
    let (real, cluster) = (place(engine.url()), engine.url().split_once('?').unwrap().1);
    let wrong = format!("hazelcast://{real}?cluster=other");
    let told = trouble(&wrong).await;
    assert!(matches!(&told, Trouble::Login { cluster } if cluster == "other"), "{told}");
    let url = format!("hazelcast://{},{},{real}?{cluster}", nobody(), stranger(b""));
    let (broker, _) = start(settings(&url)).await.unwrap();
    broker.close();
    // Whatever a name is made of.
    for name in ["a:one:01", "a b@c", "*", "ä/ö", &"x".repeat(256)] {
        let settings = HazelcastSettings { cluster: name.to_owned(), ..settings(engine.url()) };
        let [(one, _), (_other, heard)] =
            [start(settings.clone()).await.unwrap(), start(settings).await.unwrap()];
        one.send(To::All, &Arc::from(&b"x"[..])).unwrap();
        assert_eq!(heard.until_envelopes(1).await, [b"x"], "{name}");
    }
    for name in ["", &"x".repeat(257)] {
        let settings = HazelcastSettings { cluster: name.to_owned(), ..settings(engine.url()) };
        assert!(matches!(start(settings).await, Err(HazelcastError::Cluster)));
    }
}

/// Publishes any bytes to a topic, as any client could.
fn publish(url: &str, topic: &str, bytes: &[u8]) {
    let mut stream = std::net::TcpStream::connect(place(url)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut hello = protocol::PREAMBLE.to_vec();
    let greeter = protocol::Greeter { id: 1, cluster: "tieline", login: None, name: "anybody" };
    protocol::authenticate(&mut hello, 1, &greeter);
    let mut call = Vec::new();
    let partition = protocol::partition(topic, 271).unwrap();
    let mut message = protocol::Publication::begin(&mut call, 2, topic, partition);
    message.push(bytes);
    message.end();
    for call in [hello, call] {
        stream.write_all(&call).unwrap();
        let mut read = Vec::new();
        let answer = loop {
            if let Some((message, _)) = protocol::read(&read).unwrap() {
                break message.answer().unwrap();
            }
            let mut more = [0; 4096];
            let len = stream.read(&mut more).unwrap();
            read.extend_from_slice(&more[..len]);
        };
        assert_eq!(answer, protocol::Answer::Done);
    }
}

#[tokio::test]
async fn what_others_publish_to_its_topics_is_ignored() {
    if !is_private("somebody else on its topics") {
        return;
    }
    let engine = Engine::hazelcast().start().unwrap();
    let settings = settings(engine.url());
    let [(one, _), (other, heard)] =
        [start(settings.clone()).await.unwrap(), start(settings.clone()).await.unwrap()];
    let names = Names::new(&settings.cluster, tieline_proto::Incarnation(0));
    let marked = [&b"tln1"[..], &[0; 21], &[0, 0, 0, 9], b"too short"].concat();
    for poison in [&b""[..], b"hello", b"tln1", &marked[..marked.len() - 1], &[0xff; 100_000]] {
        publish(engine.url(), names.name(ALL), poison);
    }
    // What is like a node's is heard: who may publish to the topics is the members' business.
    publish(engine.url(), names.name(ALL), &marked);
    one.send(To::All, &Arc::from(&b"behind"[..])).unwrap();
    assert_eq!(heard.until_envelopes(2).await, [&b"too short"[..], b"behind"]);
    heard.with(|heard| assert!(!heard.contains(&Heard::Away)));
    assert_eq!(other.stats().strays, [("foreign", 5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_bounded_and_it_stops_while_its_member_is_away() {
    if is_private("a full queue, and a stop in an outage") {
        let mut server = Engine::hazelcast().start().unwrap();
        let settings = settings(server.url());
        let begin = async || start(settings.clone()).await.unwrap();
        limits::a_queue_is_bounded_and_forgotten(&mut server, begin, limits::QUEUE_AND_SOCKETS).await;
        limits::it_stops_while_its_server_is_away(&mut server, begin).await;
    }
}
