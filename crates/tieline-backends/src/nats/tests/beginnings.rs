//! How it begins, and how it does not: addresses where nobody or somebody else answers. And what a session does with messages of
//! strangers, with a queue that is full, and at its end.

use xtask::engine::nats::ask;

use super::*;
use crate::conformance::PATIENCE;
use crate::conformance::private::{nobody, stranger};
use crate::medium::limits;

#[tokio::test]
async fn what_is_no_nats_is_told() {
    assert!(matches!(trouble(&format!("nats://{}", nobody())).await, Trouble::Connect(_)));
    assert!(matches!(trouble("nats://no-such-host.invalid").await, Trouble::Connect(_) | Trouble::Silent));
    let http = stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(matches!(trouble(&format!("nats://{http}")).await, Trouble::Garbage));
    let redis = stranger(b"-ERR unknown command `hush`\r\n");
    match trouble(&format!("nats://u:hush@{redis}")).await {
        Trouble::Refused(text) => assert!(text.contains("unknown") && text.contains("***"), "{text}"),
        other => panic!("{other}"),
    }
    let silent = stranger(b"");
    assert!(matches!(trouble(&format!("nats://u:hush@{silent}")).await, Trouble::Silent));
    let half = stranger(b"INFO {\"max_payload\":1048576}\r\n");
    assert!(matches!(trouble(&format!("nats://u:hush@{half}")).await, Trouble::Silent));
    let plain = stranger(b"INFO {}\r\n");
    assert!(matches!(trouble(&format!("tls://u:hush@{plain}")).await, Trouble::Plain));
    // Who could have put words before the handshake could have put others.
    let eager = stranger(b"INFO {\"tls_required\":true}\r\nPING\r\n");
    assert!(matches!(trouble(&format!("nats://u:hush@{eager}")).await, Trouble::Garbage));
}

#[tokio::test]
async fn what_strangers_publish_is_ignored() {
    let engine = Engine::nats().start().unwrap();
    let settings = settings(&fresh_cluster(), engine.url());
    let cluster = settings.cluster.clone();
    let node = fresh_node("n");
    let recorder = Recorder::new();
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    let broker = NatsBroker::start(settings.clone(), &node, inbound).await.unwrap();
    let (other, _) = start_with(settings).await.unwrap();
    let own = format!("tieline.{cluster}.one.{}", node.incarnation);
    for subject in [&format!("tieline.{cluster}.all"), &own] {
        for payload in [&b""[..], b"short", b"12345678\0\x05\0\x02part", &[0xff; 100_000]] {
            publish(engine.url(), subject, payload).unwrap();
        }
    }
    assert_eq!(other.send(To::One(node.incarnation), &Arc::from(&b"a node's"[..])), Ok(()));
    assert_eq!(recorder.until_envelopes(1).await, [b"a node's"]);
    assert_eq!(recorder.heard().len(), 1, "it was away");
    assert_eq!(broker.stats().strays, [("foreign", 8)]);
}

#[tokio::test]
async fn nothing_of_a_node_that_is_gone_is_left_on_the_server() {
    if !is_private("what is left on a server") {
        return;
    }
    let engine = Engine::nats().start().unwrap();
    let (broker, _) = start(engine.url()).await.unwrap();
    let there = ask(engine.url(), "/connz?subs=1").unwrap();
    assert!(there.contains("\"name\": \"tieline-n\"") && there.contains("tieline.tests-"), "{there}");
    broker.close();
    broker.closed().await;
    let end = Instant::now() + PATIENCE;
    loop {
        let left = ask(engine.url(), "/connz?subs=1").unwrap();
        if !left.contains("tieline") {
            break;
        }
        assert!(Instant::now() < end, "{left}");
    }
    let interest = ask(engine.url(), "/subsz?subs=1").unwrap();
    assert!(!interest.contains("tieline"), "{interest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_envelopes_pass_a_server_that_takes_short_messages() {
    if !is_private("a server that takes short messages") {
        return;
    }
    let engine = configured("max_payload: 4096\n");
    conformance::a_large_envelope(&Cluster::on(&engine)).await;
    let cramped = configured("max_payload: 100\n");
    assert!(matches!(trouble(cramped.url()).await, Trouble::Cramped(100)));
}

#[tokio::test]
async fn a_queue_is_bounded_and_forgotten_with_its_session() {
    if is_private("a full queue") {
        let mut server = Engine::nats().start().unwrap();
        let settings = settings(&fresh_cluster(), server.url());
        let start = async || start_with(settings.clone()).await.unwrap();
        limits::a_queue_is_bounded_and_forgotten(&mut server, start, limits::QUEUE_AND_SOCKETS).await;
    }
}

#[tokio::test]
async fn it_stops_while_its_server_is_away() {
    if is_private("a stop in an outage") {
        let mut server = Engine::nats().start().unwrap();
        let settings = settings(&fresh_cluster(), server.url());
        let start = async || start_with(settings.clone()).await.unwrap();
        limits::it_stops_while_its_server_is_away(&mut server, start).await;
    }
}
