//! How it begins, and how it does not: addresses where nobody or somebody else answers. And what a session does with messages of
//! strangers, with a queue that is full, and at its end.

use std::io::Read;
use std::net::TcpListener;
use std::thread;

use tieline_core::broker::NotTaken;
use xtask::engine::nats::ask;

use super::*;
use crate::conformance::outage::{RETURN, Server};
use crate::medium::MAX_ENVELOPE;

/// A server that says something, and waits for the other to leave.
fn stranger(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(says).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    server.to_string()
}

#[tokio::test]
async fn what_is_no_nats_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(trouble(&format!("nats://{nobody}")).await, Trouble::Connect(_)));
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
    let _broker = NatsBroker::start(settings.clone(), &node, inbound).await.unwrap();
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
    let end = Instant::now() + SOON;
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
    if !is_private("a full queue") {
        return;
    }
    let mut server = Engine::nats().start().unwrap();
    let settings = settings(&fresh_cluster(), server.url());
    let (broker, recorder) = start_with(settings.clone()).await.unwrap();
    let (_other, heard) = start_with(settings).await.unwrap();
    let envelope: Arc<[u8]> = vec![7; 1 << 20].into();
    let too_long: Arc<[u8]> = vec![7; MAX_ENVELOPE + 1].into();
    assert_eq!(broker.send(To::All, &too_long), Err(NotTaken::Full));
    server.stand_still();
    let taken = (0..200).take_while(|_| broker.send(To::All, &envelope) == Ok(())).count();
    // 16 MiB in the queue, and what sockets hold.
    assert!((15..100).contains(&taken), "{taken} MiB were taken");
    assert!(broker.overflows() >= 2);
    for recorder in [&recorder, &heard] {
        recorder.until("the server to be away", |heard| heard.contains(&Heard::Away)).await;
    }
    assert_eq!(broker.send(To::All, &envelope), Err(NotTaken::Unreachable));
    server.go_on();
    for recorder in [&recorder, &heard] {
        let back = recorder.until("the server to be back", |heard| heard.contains(&Heard::Back));
        tokio::time::timeout(RETURN, back).await.expect("it is back soon");
    }
    // What waited behind the stalled socket is not published now, in one late burst.
    assert_eq!(broker.send(To::All, &Arc::from(&b"fresh"[..])), Ok(()));
    let is_fresh = |heard: &Heard| *heard == Heard::Envelope(b"fresh".to_vec());
    heard.until("what is sent now", |heard| heard.iter().any(is_fresh)).await;
    let late = heard.envelopes().len() - 1;
    assert!(late < 8, "{late} MiB of the past");
}

#[tokio::test]
async fn it_stops_while_its_server_is_away() {
    if !is_private("a stop in an outage") {
        return;
    }
    let mut server = Engine::nats().start().unwrap();
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
