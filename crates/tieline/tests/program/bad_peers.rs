//! What no peer should send to the address where nodes connect: each is refused with its close code and counted, and the node
//! serves on. Every wrong word there is, is tried in the mesh's own tests; here the program is what answers.

use std::net::SocketAddr;

use tieline_websocket::ClientRequest;

use crate::member::{eventually, member};
use crate::server::Server;
use crate::support::http::{exchange, get};
use crate::support::socket::{Frame, Socket};

/// The path and subprotocol of links.
const PATH: &str = "/peer";
const PROTOCOL: &str = "tieline.peer.v1";

fn hello(version: u32, cluster: &str) -> String {
    let rest = r#""node":"stranger/00000000000000ff","address":"127.0.0.1:1""#;
    format!(r#"{{"type":"hello","version":{version},"cluster":"{cluster}",{rest},"nonce":{:?}}}"#, [0; 32])
}

/// Speaks these words as a peer, and returns the close code.
fn say(peers: SocketAddr, words: &[&str]) -> u16 {
    let request = ClientRequest::new("localhost", PATH).unwrap().protocol(PROTOCOL);
    let mut socket = Socket::open(peers, request).unwrap();
    words.iter().for_each(|word| socket.send(word));
    loop {
        match socket.next() {
            Frame::Close(code, _) => return code,
            Frame::End => panic!("the node closes without a code"),
            Frame::Text(_) | Frame::Binary(_) => {}
        }
    }
}

#[test]
fn strangers_at_the_peers_address_are_refused_and_counted() {
    let node = member("first", None);
    let peers = node.peers.unwrap();
    let refused = |reason: &str, count: u64| {
        let line = format!("tieline_broker_refused_total{{reason=\"{reason}\"}} {count}\n");
        eventually(node.address, "/metrics", |body| body.contains(&line));
    };
    refused("not_a_peer", 0);
    // A browser, a program of another protocol, and a client that takes the peers' address for the clients'.
    let answer = exchange(peers, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
    let answer = exchange(peers, b"EHLO example.com\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    let client = ClientRequest::new("localhost", "/client/hubs/h?user=alice").unwrap().protocol("tieline.v1");
    assert_eq!(Socket::open(peers, client).err().expect("no client is let in").status, 404);
    refused("not_a_peer", 3);
    // Those that come as peers.
    assert_eq!(say(peers, &["garbage"]), 4600);
    assert_eq!(say(peers, &[r#"{"type":"sendToAll","data":1}"#]), 4600);
    refused("not_a_peer", 5);
    assert_eq!(say(peers, &[&hello(99, "tieline")]), 4601);
    refused("version", 1);
    assert_eq!(say(peers, &[&hello(1, "another")]), 4602);
    refused("cluster", 1);
    let proof = format!(r#"{{"type":"proof","proof":{:?},"lost":0}}"#, [0; 32]);
    assert_eq!(say(peers, &[&hello(1, "tieline"), &proof]), 4603);
    refused("secret", 1);

    // None of them became a member, and a true one still can.
    let nodes = get(node.address, "/api/v1/nodes", "").body;
    assert!(!nodes.contains("stranger"), "{nodes}");
    let other = member("second", Some(&node));
    eventually(other.address, "/api/v1/nodes", |body| body.contains("first"));
    serves(&node);
}

fn serves(server: &Server) {
    let request = ClientRequest::new("localhost", "/client/hubs/h?user=u").unwrap().protocol("tieline.v1");
    assert_eq!(Socket::open(server.address, request).unwrap().json()["event"], "connected");
}
