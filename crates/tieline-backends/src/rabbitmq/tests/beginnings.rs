//! How it begins, and how it does not: users, permissions, virtual hosts, addresses where nobody or somebody else answers. And how it
//! stops.

use super::super::{RabbitMqError, Trouble};
use super::*;
use crate::conformance::private::{nobody, refused, stranger};
use crate::medium::limits;

async fn start(url: &str) -> Result<RabbitMqBroker, RabbitMqError> {
    RabbitMqBroker::start(settings(url), &fresh_node("n"), Recorder::new()).await
}

/// What is wrong with a server, found in time.
async fn trouble(url: &str) -> Trouble {
    let error = refused(async || start(url).await).await;
    let RabbitMqError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

#[tokio::test]
async fn users_permissions_and_virtual_hosts_are_checked_at_once() {
    let _turn = TURN.lock().await;
    let Some(engine) = private("a server with users") else { return };
    let place = engine.url().strip_prefix("amqp://").unwrap();
    for words in [
        &["add_vhost", "v/1"][..],
        &["add_user", "node", "hush/1"],
        &["set_permissions", "-p", "v/1", "node", "^tieline\\.", "^tieline\\.", "^tieline\\."],
        &["add_user", "deaf", "hush"],
        &["set_permissions", "-p", "v/1", "deaf", "^tieline\\.", "^$", "^tieline\\."],
    ] {
        control(&engine, words).unwrap();
    }
    for good in ["amqp://{}", "amqp://guest:guest@{}/%2F", "amqp://node:hush%2F1@{}/v%2F1"] {
        start(&good.replace("{}", place)).await.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    let cases = [
        ("amqp://guest:hush@{}", "ACCESS_REFUSED"),
        ("amqp://nobody:hush@{}", "ACCESS_REFUSED"),
        ("amqp://node:hush%2F1@{}", "NOT_ALLOWED"),
        ("amqp://{}/nowhere", "NOT_ALLOWED"),
        ("amqp://deaf:hush@{}/v%2F1", "ACCESS_REFUSED"),
    ];
    for (url, reason) in cases {
        match trouble(&url.replace("{}", place)).await {
            Trouble::Refused(text) if text.contains(reason) => {}
            other => panic!("{url}: {other}"),
        }
    }
    let mut server = engine;
    let settings = settings(server.url());
    let start = async || {
        let (broker, recorder, _) = start_with(settings.clone()).await;
        (broker, recorder)
    };
    limits::it_stops_while_its_server_is_away(&mut server, start).await;
}

#[tokio::test]
async fn what_is_no_rabbitmq_is_told() {
    assert!(matches!(trouble(&format!("amqp://u:hush@{}", nobody())).await, Trouble::Connect(_)));
    assert!(matches!(trouble("amqp://no-such-host.invalid").await, Trouble::Connect(_) | Trouble::Silent));
    // A server of HTTP, one that wants TLS, and one of another version of this protocol.
    for says in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0x15, 3, 1, 0, 2, 2, 80], b"AMQP\x00\x01\x00\x00"]
    {
        let server = stranger(says);
        assert!(matches!(trouble(&format!("amqp://u:hush@{server}")).await, Trouble::Garbage));
    }
    let plain = stranger(b"AMQP\x00\x00\x09\x01");
    assert!(matches!(trouble(&format!("amqps://u:hush@{plain}")).await, Trouble::Tls(_)));
    let silent = stranger(b"");
    assert!(matches!(trouble(&format!("amqp://u:hush@{silent}")).await, Trouble::Silent));
    // As one greets that takes certificates alone.
    let mut greeting =
        b"\x01\x00\x00\x00\x00\x00\x20\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\x00\x00\x00\x08EXTERNAL"
            .to_vec();
    greeting.extend_from_slice(b"\x00\x00\x00\x05en_US\xce");
    greeting[6] = (greeting.len() - 8) as u8;
    let other = stranger(greeting.leak());
    match trouble(&format!("amqp://u:hush@{other}")).await {
        Trouble::Refused(text) => assert!(text.contains("PLAIN"), "{text}"),
        other => panic!("{other}"),
    }
}
