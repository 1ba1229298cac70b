//! The `connect` event: an application decides on each connection, and without its answer there is none.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use tieline_websocket::ClientRequest;

use super::*;
use crate::support::http::{connect as dial, get};
use crate::support::metrics::await_sample;
use std::io::Write;

const CONNECT: &str = "user_events = []\nsystem_events = [\"connect\", \"connected\", \"disconnected\"]";

#[test]
fn an_application_is_told_all_about_a_request_and_says_who_the_client_is() {
    let endpoint = Endpoint::start(|post| {
        match post.event() {
        "connect" => Reply::json(&json!({
            "userId": "bob", "groups": ["room"], "roles": ["webpubsub.sendToGroup.room"], "subprotocol": "tieline.v1",
        }))
        .state("eyJhIjoxfQ=="),
        _ => Reply::status(204),
    }
    });
    let mut server = server(&endpoint, CONNECT);
    let offer = request(&server, "other").protocol("json.webpubsub.azure.v1").protocol("tieline.v1");
    let offer = offer.header("X-Tag", "x").header("Authorization", "Bearer SECRET");
    let mut socket = Socket::open(server.address, offer).unwrap();
    assert_eq!(socket.protocol.as_deref(), Some("tieline.v1"));
    let connected = socket.json();
    assert_eq!(connected["userId"], "bob");
    let id = connected["connectionId"].as_str().unwrap();
    let post = endpoint.next();
    check(&post, &server, id, "connect");
    assert_eq!(post.header("ce-type"), "azure.webpubsub.sys.connect");
    assert_eq!(post.header("content-type"), "application/json; charset=utf-8");
    assert_eq!((post.header("ce-userid"), post.header("ce-connectionstate")), ("alice", ""));
    let told = post.json();
    assert_eq!(told["query"], json!({"tag": ["a", "b c"]}));
    assert_eq!(told["subprotocols"], json!(["other", "json.webpubsub.azure.v1", "tieline.v1"]));
    assert_eq!(told["clientCertificates"], json!([]));
    assert_eq!(told["claims"]["sub"], json!(["alice"]));
    assert_eq!(told["claims"]["role"], json!(["webpubsub.joinLeaveGroup"]));
    assert_eq!(told["claims"]["exp"].as_array().map(Vec::len), Some(1));
    assert_eq!(told["headers"]["x-tag"], json!(["x"]));
    assert_eq!(told["headers"]["host"], json!([server.address.to_string()]));
    assert!(!String::from_utf8_lossy(&post.body).contains("SECRET"));
    // It is in the group that the application named, with the role that it was given in place of its token's.
    socket.send(r#"{"type":"sendToGroup","group":"room","dataType":"text","data":"hi","ackId":1}"#);
    assert_eq!(socket.json()["data"], "hi");
    assert_eq!(socket.json()["success"], true);
    socket.send(r#"{"type":"joinGroup","group":"other","ackId":2}"#);
    assert_eq!(socket.json()["error"]["name"], "Forbidden");
    // What the application wants to be reminded of comes with every later event.
    for event in ["connected", "disconnected"] {
        let post = endpoint.next();
        check(&post, &server, id, event);
        assert_eq!((post.header("ce-userid"), post.header("ce-connectionstate")), ("bob", "eyJhIjoxfQ=="));
        assert_eq!(post.header("ce-subprotocol"), "tieline.v1");
        let body = if event == "connected" {
            json!({})
        } else {
            json!({"reason": "The client closed the connection with 1000."})
        };
        assert_eq!(post.json(), body);
        if event == "connected" {
            socket.close(1000);
        }
    }
    server.stop();
}

#[test]
fn an_application_that_says_nothing_leaves_the_client_as_its_token_says() {
    let endpoint = Endpoint::start(|_| Reply::status(204));
    let server = server(&endpoint, CONNECT);
    for protocol in ["tieline.v1", "json.webpubsub.azure.v1", "json.reliable.webpubsub.azure.v1"] {
        let (mut socket, connected) = connect(&server, protocol).unwrap();
        assert_eq!((&connected["userId"], socket.protocol.as_deref()), (&json!("alice"), Some(protocol)));
        socket.send(r#"{"type":"joinGroup","group":"g","ackId":1}"#);
        assert_eq!(socket.json()["success"], true);
    }
}

#[test]
fn a_refusal_reaches_the_client_with_its_status_and_sentence() {
    let endpoint = Endpoint::start(|_| Reply::text(401, "not you"));
    let server = server(&endpoint, CONNECT);
    for (status, reply, message) in [
        (401, Reply::text(401, "not you"), "not you"),
        (404, Reply::status(404), "The application's event handler refuses this."),
        (422, Reply::Answer(422, String::new(), b"a\r\nb\xc3\xbc".to_vec()), "a  bü"),
    ] {
        endpoint.answer(move |_| reply.clone());
        let answer = connect(&server, "tieline.v1").err().unwrap();
        assert_eq!((answer.status, &*answer.code()), (status, "RefusedByHandler"));
        assert_eq!(answer.json()["message"], message);
    }
    // Nobody was connected, so nobody is told of connections.
    assert!(endpoint.so_far().iter().all(|post| matches!(post.event(), "connect" | "")));
    await_sample(server.address, "upstream_events_total{event=\"connect\",outcome=\"refused\"}", 3.0);
    await_sample(server.address, "upstream_request_seconds_count{event=\"connect\"}", 3.0);
}

#[test]
fn without_a_proper_answer_nobody_is_let_in_and_the_server_goes_on() {
    let elsewhere = Endpoint::start(|_| Reply::status(204));
    let endpoint = Endpoint::start(|_| Reply::status(204));
    let server = server(&endpoint, &format!("{CONNECT}\ntimeout = \"300ms\""));
    let redirect = format!("Location: {}\r\n", elsewhere.url());
    let json = "Content-Type: application/json\r\n";
    let bytes = |text: &str| Reply::Bytes(text.into());
    for (what, reply) in [
        ("a failure", Reply::status(500)),
        ("too many requests", Reply::status(429)),
        ("a redirect", Reply::Answer(302, redirect.clone(), Vec::new())),
        ("a redirect that keeps the method", Reply::Answer(307, redirect, Vec::new())),
        ("no answer", bytes("")),
        ("half a head", bytes("HTTP/1.1 200 OK\r\nContent-")),
        ("a slow body", bytes(&format!("HTTP/1.1 200 OK\r\n{json}Content-Length: 20\r\n\r\n{{\"userId\":"))),
        ("an endless body", bytes(&format!("HTTP/1.1 200 OK\r\n{json}\r\n{}", "a".repeat(3 << 20)))),
        ("a huge body", Reply::Answer(200, json.into(), vec![b' '; 3 << 20])),
        ("a closed socket", Reply::Close),
        ("no HTTP", bytes("SSH-2.0-OpenSSH\r\n\r\n")),
        ("another type", Reply::Answer(200, "Content-Type: text/html\r\n".into(), b"{}".to_vec())),
        ("bad JSON", Reply::Answer(200, json.into(), b"{\"userId\":".to_vec())),
        ("JSON of another shape", Reply::json(&json!([1]))),
        ("a group that is none", Reply::json(&json!({"groups": [" "]}))),
        ("a user that is none", Reply::json(&json!({"userId": "x".repeat(2000)}))),
        ("a subprotocol that was not offered", Reply::json(&json!({"subprotocol": "mqtt"}))),
        ("two states", Reply::status(204).state("a").state("b")),
    ] {
        endpoint.answer(move |_| reply.clone());
        let answer = connect(&server, "tieline.v1").err().unwrap_or_else(|| panic!("{what}: it was let in"));
        assert_eq!((answer.status, &*answer.code()), (503, "HandlerFailed"), "{what}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{what}");
    }
    assert!(elsewhere.so_far().is_empty(), "redirects are not followed");
    endpoint.answer(|_| Reply::status(204));
    connect(&server, "tieline.v1").unwrap();
}

#[test]
fn an_endpoint_that_is_away_lets_nobody_in_until_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Server::start(&format!(
        "access_key = [\"{}\"]\n[[upstream]]\nurl = \"http://{address}/\"\n{CONNECT}",
        KEYS[0]
    ));
    assert_eq!(connect(&server, "tieline.v1").err().unwrap().status, 503);
    let endpoint = Endpoint::on(TcpListener::bind(address).unwrap(), |_| Reply::allow("*"));
    // A no counts for a second.
    let patience = std::time::Instant::now();
    while connect(&server, "tieline.v1").is_err() {
        assert!(patience.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert_eq!(endpoint.next().path, "/");
}

#[test]
fn an_endpoint_that_does_not_allow_it_is_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::on(listener, |post| match &*post.method {
        "OPTIONS" => Reply::allow("elsewhere.example.com"),
        _ => Reply::status(204),
    });
    let server = server(&endpoint, &format!("{CONNECT}\nhub = \"chat\""));
    assert_eq!(connect(&server, "tieline.v1").err().unwrap().code(), "HandlerFailed");
    let posts = endpoint.so_far();
    assert!(posts.iter().all(|post| post.method == "OPTIONS"), "{posts:?}");
    assert_eq!(posts[0].path, "/app/chat/validate?code=SECRET");
    assert_eq!(posts[0].header("webhook-request-origin"), server.address.to_string());
    assert_eq!(posts[0].header("ce-awpsversion"), "1.0");
}

#[test]
fn the_first_of_several_endpoints_that_wants_an_event_gets_it() {
    let (first, second) = (Endpoint::start(|_| Reply::status(403)), Endpoint::start(|_| Reply::status(204)));
    let table =
        |endpoint: &Endpoint, lines: &str| format!("[[upstream]]\nurl = \"{}\"\n{lines}\n", endpoint.url());
    let server = Server::start(&format!(
        "access_key = [\"{}\"]\n{}{}{}",
        KEYS[0],
        table(&first, "hub = \"other\"\nsystem_events = [\"connect\"]"),
        table(&second, "hub = \"chat\"\norigin = \"app.example.com\"\nsystem_events = [\"connect\"]"),
        table(&first, "system_events = [\"connect\", \"connected\"]"),
    ));
    connect(&server, "tieline.v1").unwrap();
    assert_eq!(second.next().header("webhook-request-origin"), "app.example.com");
    assert_eq!(first.next().event(), "connected");
}

#[test]
fn a_request_that_comes_in_parts_and_frames_behind_it_are_kept_while_the_application_decides() {
    let endpoint = Endpoint::start(|_| Reply::status(204));
    let server = server(&endpoint, CONNECT);
    let mut frame = Vec::new();
    let text = br#"{"type":"joinGroup","group":"g","ackId":1}"#;
    tieline_websocket::encode_masked(&mut frame, tieline_websocket::Opcode::Text, text, [1, 2, 3, 4]);
    let offer = || request(&server, "tieline.v1");
    // At once, with a frame behind it; and in two parts, which is another way through the server.
    let mut socket = Socket::open_with(server.address, b"", offer(), &frame).unwrap();
    assert_eq!((&socket.json()["event"], &socket.json()["ackId"]), (&json!("connected"), &json!(1)));
    let (offer, mut stream) = (offer(), dial(server.address));
    let bytes = offer.to_bytes().unwrap();
    stream.write_all(&bytes[..40]).unwrap();
    // The server has read the first part when it answers somebody who came later.
    connect(&server, "tieline.v1").unwrap();
    stream.write_all(&bytes[40..]).unwrap();
    stream.write_all(&frame).unwrap();
    let mut socket = Socket::shake(stream, &offer).unwrap();
    assert_eq!((&socket.json()["event"], &socket.json()["ackId"]), (&json!("connected"), &json!(1)));
}

#[test]
fn a_client_that_leaves_while_the_application_decides_is_told_of_as_disconnected() {
    let endpoint = Endpoint::start(|_| Reply::status(204));
    let server = server(&endpoint, CONNECT);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    endpoint.answer(move |post| {
        if post.event() == "connect" {
            wait.lock().unwrap().recv().unwrap();
        }
        Reply::status(204)
    });
    // At once, and in two parts, which is another way through the server.
    for first in [None, Some(40)] {
        let offer = request(&server, "tieline.v1").to_bytes().unwrap();
        let mut stream = dial(server.address);
        if let Some(first) = first {
            stream.write_all(&offer[..first]).unwrap();
            // The server has read the first part when it answers somebody who came later.
            assert_eq!(get(server.address, "/healthz", "").status, 200);
        }
        stream.write_all(&offer[first.unwrap_or_default()..]).unwrap();
        let asked = endpoint.next_of("connect");
        drop(stream);
        // The server has seen that when it answers somebody who came later, where it looks.
        assert_eq!(get(server.address, "/healthz", "").status, 200);
        go.send(()).unwrap();
        let told = endpoint.next_of("disconnected");
        assert_eq!(told.header("ce-connectionid"), asked.header("ce-connectionid"));
    }
}

#[test]
fn anonymous_clients_are_decided_on_too() {
    let endpoint = Endpoint::start(|post| match post.event() {
        "connect" => Reply::json(&json!({"userId": "guest", "roles": []})),
        _ => Reply::status(204),
    });
    let server = Server::start(&format!("[[upstream]]\nurl = \"{}\"\n{CONNECT}", endpoint.url()));
    let offer = ClientRequest::new(&server.address.to_string(), "/client/hubs/chat").unwrap();
    let mut socket = Socket::open(server.address, offer.protocol("tieline.v1")).unwrap();
    assert_eq!(socket.json()["userId"], "guest");
    socket.send(r#"{"type":"joinGroup","group":"g","ackId":1}"#);
    assert_eq!(socket.json()["error"]["name"], "Forbidden");
    let post = endpoint.next();
    assert_eq!((post.json()["claims"].clone(), post.header("ce-signature")), (json!({}), ""));
}
