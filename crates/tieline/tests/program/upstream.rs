//! Upstream events: a server, its clients, and endpoints that behave well and badly.

mod connect;
mod presence;
mod told;
mod user;

use serde_json::Value;
use tieline_core::token::{Grant, Keys};
use tieline_core::unix_ms;
use tieline_proto::{HubName, UserId};
use tieline_websocket::ClientRequest;

use crate::server::Server;
use crate::support::endpoint::{Endpoint, Post, Reply};
use crate::support::http::Answer;
use crate::support::socket::Socket;

const KEYS: [&str; 2] = ["the first key", "the second key"];

/// A server whose only endpoint is this one, with these lines in its table.
fn server(endpoint: &Endpoint, table: &str) -> Server {
    let keys = KEYS.map(|key| format!("{key:?}")).join(", ");
    Server::start(&format!("access_key = [{keys}]\n[[upstream]]\nurl = \"{}\"\n{table}\n", endpoint.url()))
}

fn token(user: Option<&str>) -> String {
    let grant = Grant {
        endpoint: "http://h".into(),
        hub: HubName::new("chat").unwrap(),
        user: user.map(|user| UserId::new(user).unwrap()),
        roles: vec!["webpubsub.joinLeaveGroup".into()],
        groups: vec![],
        presence: None,
        lifetime: 60,
    };
    Keys::new(KEYS).sign_client(&grant, unix_ms() / 1000).unwrap()
}

fn request(server: &Server, protocol: &str) -> ClientRequest {
    let path = format!("/client/hubs/chat?access_token={}&tag=a&tag=b%20c", token(Some("alice")));
    ClientRequest::new(&server.address.to_string(), &path).unwrap().protocol(protocol)
}

/// A client that is let in, and its `connected` frame.
fn connect(server: &Server, protocol: &str) -> Result<(Socket, Value), Answer> {
    let mut socket = Socket::open(server.address, request(server, protocol))?;
    let connected = socket.json();
    assert_eq!(connected["event"], "connected", "{connected}");
    Ok((socket, connected))
}

/// The signature that an event of this connection must have.
fn signature(id: &str) -> String {
    let keys = Keys::new(KEYS);
    let signed = keys.sign_text(id);
    signed.iter().map(|hex| format!("sha256={hex}")).collect::<Vec<_>>().join(",")
}

/// What every event of a connection says.
fn check(post: &Post, server: &Server, id: &str, event: &str) {
    assert_eq!((&*post.method, &*post.path), ("POST", &*format!("/app/chat/{event}?code=SECRET")));
    let header = |name| post.header(name);
    assert_eq!((header("ce-specversion"), header("ce-awpsversion")), ("1.0", "1.0"));
    assert_eq!((header("ce-connectionid"), header("ce-hub"), header("ce-eventname")), (id, "chat", event));
    assert_eq!(header("ce-source"), format!("/hubs/chat/client/{id}"));
    assert_eq!(header("ce-signature"), signature(id));
    assert_eq!(header("webhook-request-origin"), server.address.to_string());
    assert!(header("ce-time").ends_with('Z') && !header("ce-id").is_empty());
}
