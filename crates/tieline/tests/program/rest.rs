//! The REST API on one node: every call with its exact status, requests as bytes, and what clients see of them.

mod bad_input;
mod calls;
mod pages;
mod tokens;

use std::net::SocketAddr;

use serde_json::Value;
use tieline_websocket::ClientRequest;

use crate::server::Server;
use crate::socket::{Answer, Client, exchange};

/// A name of user and group that has everything a path must have encoded, and as it stands there.
const HARD_NAME: &str = "a/b ?#%ü";
const HARD_PATH: &str = "a%2Fb%20%3F%23%25%C3%BC";

/// The protocols of the official libraries.
const AZURE: &str = "json.webpubsub.azure.v1";
const RELIABLE: &str = "json.reliable.webpubsub.azure.v1";

/// Sends a request on a socket of its own and reads the answer. The headers come each with its line end; the length of the body is
/// announced.
fn call(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    raw(
        address,
        &format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

/// Sends bytes and reads one answer, up to the end of the stream.
fn raw(address: SocketAddr, request: &str) -> Answer {
    let answer = String::from_utf8(exchange(address, request.as_bytes())).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("the server answers");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = head.split_once("\r\n").map_or("", |(_, headers)| headers).to_lowercase();
    Answer { status, headers, body: body.to_owned() }
}

/// The same without a body, for the hub of these tests.
fn ask(server: &Server, method: &str, path: &str) -> Answer {
    call(server.address, method, &format!("/api/hubs/h{path}"), "", "")
}

/// Sends a text.
fn send(server: &Server, path: &str, text: &str) -> Answer {
    call(server.address, "POST", &format!("/api/hubs/h{path}"), "Content-Type: text/plain\r\n", text)
}

fn send_json(server: &Server, target: &str, body: &str) -> Answer {
    call(server.address, "POST", target, "Content-Type: application/json\r\n", body)
}

/// A client of a server without a key, and its id.
fn connect(server: &Server, protocol: &str, user: &str) -> (Client, String) {
    let path = format!("/client/hubs/h?user={user}");
    let request = ClientRequest::new(&server.address.to_string(), &path).unwrap().protocol(protocol);
    let mut client = Client::open(server.address, request).unwrap();
    let connected = client.json();
    assert_eq!(connected["event"], "connected");
    let id = connected["connectionId"].as_str().unwrap().to_owned();
    (client, id)
}

/// Proves that nothing else was sent to the client.
fn expect_nothing(client: &mut Client) {
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.json()["type"], "pong");
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_str(&answer.body).unwrap()
}
