//! How it begins, and how it does not: users, TLS, addresses where nobody or somebody else answers. And what it does with a queue that is
//! full, with what is too old, and at its end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use tieline_core::broker::{NotTaken, To};
#[cfg(feature = "kafka-tls")]
use xtask::engine::kafka;
use xtask::engine::kafka::LOGIN;

use super::super::bootstrap::Bootstrap;
use super::super::signs::{Ears, Signs};
use super::super::{MAX_ENVELOPE, Trouble};
use super::*;
use crate::conformance::Heard;
use crate::conformance::private::{nobody, refused};

/// How long a node may take to stop.
const SOON: Duration = Duration::from_secs(10);

/// The settings as they are by default.
fn impatient(url: &str) -> KafkaSettings {
    KafkaSettings::new(&fresh_cluster(), KafkaAddress::parse(url).unwrap())
}

/// What is wrong with a server, found in time.
async fn trouble(url: &str) -> Trouble {
    let error = refused(async || start_with(impatient(url)).await).await;
    let KafkaError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

/// A server's address with its port moved, and perhaps a login.
fn beside(engine: &Engine, further: u16, login: &str) -> String {
    let (_, port) = engine.url().rsplit_once(':').unwrap();
    format!("{login}127.0.0.1:{}", port.parse::<u16>().unwrap() + further)
}

#[tokio::test]
async fn users_and_passwords_are_checked_at_once() {
    let _turn = TURN.lock().await;
    if !is_private("a server with passwords") {
        return;
    }
    let engine = Engine::kafka().start().unwrap();
    let (user, password) = LOGIN;
    let password = password.replace('/', "%2F");
    let (broker, _) =
        start_with(settings(&format!("kafka://{}", beside(&engine, 1, &format!("{user}:{password}@")))))
            .await
            .unwrap();
    assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Ok(()));
    for login in ["tieline:hush@", "nobody:hush@"] {
        let url = format!("kafka://{}", beside(&engine, 1, login));
        assert!(matches!(trouble(&url).await, Trouble::Login(_)), "{url}");
    }
    // Without a login where one is wanted, with one where none is, and where TLS is spoken.
    for url in [beside(&engine, 1, ""), beside(&engine, 0, "tieline:hush@"), beside(&engine, 2, "")] {
        let found = trouble(&format!("kafka://{url}")).await;
        assert!(matches!(found, Trouble::Login(_) | Trouble::Connect(_) | Trouble::Silent), "{url}: {found}");
    }
}

#[cfg(feature = "kafka-tls")]
#[tokio::test]
async fn tls_proves_the_server_and_scram_the_user() {
    let _turn = TURN.lock().await;
    if !is_private("a server with TLS") {
        return;
    }
    let engine = Engine::kafka().start().unwrap();
    let ca = kafka::certificate().display().to_string().replace('/', "%2F");
    let url = format!("kafka+ssl://{}?ca={ca}", beside(&engine, 2, ""));
    start_with(settings(&url)).await.unwrap();
    let untrusted = format!("kafka+ssl://{}", beside(&engine, 2, ""));
    assert!(matches!(trouble(&untrusted).await, Trouble::Tls(_)));
    let plain = format!("kafka+ssl://{}?ca={ca}", beside(&engine, 0, ""));
    let found = trouble(&plain).await;
    assert!(matches!(found, Trouble::Tls(_) | Trouble::Connect(_)), "{found}");
    let absent = format!("kafka+ssl://{}?ca=%2Fno%2Fsuch%2Ffile", beside(&engine, 2, ""));
    assert!(matches!(trouble(&absent).await, Trouble::Setting(_)));

    let server = beside(&engine, 0, "");
    let grant = ["--bootstrap-server", &server, "--alter", "--entity-type", "users", "--entity-name", "ann"];
    let grant = [&grant[..], &["--add-config", "SCRAM-SHA-256=[password=hush]"]].concat();
    kafka::tool("kafka.admin.ConfigCommand", &grant).unwrap();
    let scram = |login| format!("kafka://{}?mechanism=SCRAM-SHA-256", beside(&engine, 1, login));
    start_with(settings(&scram("ann:hush@"))).await.unwrap();
    assert!(matches!(trouble(&scram("ann:hush2@")).await, Trouble::Login(_)));
}

/// A server that reads a while, says something, and waits for the other to leave.
fn somebody(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(says);
            if says.is_empty() {
                thread::park();
            }
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    server.to_string()
}

#[tokio::test]
async fn what_is_no_kafka_is_told() {
    let nobody = nobody();
    let found = trouble(&format!("kafka://{nobody}")).await;
    assert!(matches!(&found, Trouble::Connect(text) if text.contains("refused")), "{found}");
    let found = trouble("kafka://no-such-host.invalid").await;
    assert!(matches!(found, Trouble::Connect(_) | Trouble::Silent), "{found}");
    let http = somebody(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let found = trouble(&format!("kafka://tieline:hush@{http}")).await;
    assert!(matches!(found, Trouble::Connect(_)), "{found}");
    let silent = somebody(b"");
    let found = trouble(&format!("kafka://tieline:hush@{silent}")).await;
    assert!(matches!(found, Trouble::Connect(_) | Trouble::Silent), "{found}");
}

/// As it is where the library has forgotten all its servers.
#[tokio::test]
async fn a_client_that_knows_no_server_reaches_those_that_are_named_to_it() {
    let _turn = TURN.lock().await;
    let engine = Engine::kafka().start().unwrap();
    let mut config = stranger(&format!("kafka://{}", nobody()));
    let lost: BaseConsumer<Ears> =
        config.set("reconnect.backoff.max.ms", "500").create_with_context(Ears(Signs::new(None))).unwrap();
    lost.fetch_metadata(None, Duration::from_millis(500)).expect_err("nobody is there");
    let address = KafkaAddress::parse(engine.url()).unwrap();
    Bootstrap::new(&address.server()).name_to(lost.client());
    let found = lost.fetch_metadata(None, Duration::from_secs(20)).unwrap();
    assert!(!found.brokers().is_empty());
}

#[tokio::test]
async fn a_queue_is_bounded_in_bytes_and_by_age() {
    let _turn = TURN.lock().await;
    if !is_private("a full queue") {
        return;
    }
    let mut server = Engine::kafka().start().unwrap();
    let short = KafkaSettings { queue: 20 << 20, keep: Duration::from_secs(4), ..settings(server.url()) };
    let (broker, recorder) = start_with(short).await.unwrap();
    let envelope: Arc<[u8]> = vec![7; 1 << 20].into();
    let too_long: Arc<[u8]> = vec![7; MAX_ENVELOPE + 1].into();
    assert_eq!(broker.send(To::All, &too_long), Err(NotTaken::Full));
    server.kill().unwrap();
    recorder.until("the server to be away", |heard| heard.contains(&Heard::Away)).await;
    let taken = (0..200).take_while(|_| broker.send(To::All, &envelope) == Ok(())).count();
    assert_eq!(taken, 19, "what is in the queue counts with its headers");
    assert_eq!(broker.send(To::All, &envelope), Err(NotTaken::Full));
    assert_eq!(broker.overflows(), 3);
    assert!(broker.stats().queued_bytes > 19 << 20);
    let given_up = async {
        while broker.stats().queued_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given_up).await.expect("what is too old is given up");
    assert!(broker.expired() >= 38, "two messages each: {}", broker.expired());
    assert_eq!(broker.send(To::All, &envelope), Ok(()), "there is room again");
    server.restart().unwrap();
    recorder.until("the server to be back", |heard| heard.contains(&Heard::Back)).await;
}

#[tokio::test]
async fn it_stops_while_its_server_is_away() {
    let _turn = TURN.lock().await;
    if !is_private("a stop in an outage") {
        return;
    }
    let mut server = Engine::kafka().start().unwrap();
    let (broker, recorder) = start_with(settings(server.url())).await.unwrap();
    let (standing, _) = start_with(settings(server.url())).await.unwrap();
    server.stand_still().unwrap();
    let began = Instant::now();
    standing.close();
    standing.closed().await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    server.kill().unwrap();
    recorder.until("the server to be away", |heard| heard.contains(&Heard::Away)).await;
    assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Ok(()));
    let began = Instant::now();
    broker.close();
    broker.closed().await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Err(NotTaken::Unreachable));
}
