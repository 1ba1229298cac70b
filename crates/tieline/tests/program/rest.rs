//! The REST API on one node: every call with its exact status, requests as bytes, and what clients see of them.

mod bad_input;
mod calls;
mod histories;
mod members;
mod pages;
mod presence;
pub(crate) mod tokens;

use tieline_websocket::ClientRequest;

use crate::server::Server;
use crate::support::http::{Answer, call};
use crate::support::socket::Socket;

/// A name of user and group that has everything a path must have encoded, and as it stands there.
const HARD_NAME: &str = "a/b ?#%ü";
const HARD_PATH: &str = "a%2Fb%20%3F%23%25%C3%BC";

/// The protocols of the official libraries.
const AZURE: &str = "json.webpubsub.azure.v1";
const RELIABLE: &str = "json.reliable.webpubsub.azure.v1";

/// A call without a body, for the hub of these tests.
fn ask(server: &Server, method: &str, path: &str) -> Answer {
    call(server.address, method, &format!("/api/hubs/h{path}"), "", "")
}

/// Sends a text.
fn send(server: &Server, path: &str, text: &str) -> Answer {
    call(server.address, "POST", &format!("/api/hubs/h{path}"), "Content-Type: text/plain\r\n", text)
}

/// A client of a server without a key, and its id.
fn connect(server: &Server, protocol: &str, user: &str) -> (Socket, String) {
    let path = format!("/client/hubs/h?user={user}");
    let request = ClientRequest::new(&server.address.to_string(), &path).unwrap().protocol(protocol);
    let mut client = Socket::open(server.address, request).unwrap();
    let connected = client.json();
    assert_eq!(connected["event"], "connected");
    let id = connected["connectionId"].as_str().unwrap().to_owned();
    (client, id)
}

/// Proves that nothing else was sent to the client.
fn expect_nothing(client: &mut Socket) {
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.json()["type"], "pong");
}
