//! Requests through a gateway that ask for no WebSocket.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fake::{AGREED, BUSY, FakeNode, nobody};
use super::front::{Front, user_of};
use crate::support::http::{call, connect, get, read_answer};

const DONE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-own: 1\r\nconnection: close\r\n\r\ndone";

/// A node that reads bodies by their announced length, and says them back.
fn reading() -> FakeNode {
    FakeNode::start(|mut stream, mut body| {
        // Only its own sockets have the length in their heads, which it has not here: it is told by the body's end mark.
        while !body.ends_with(b"END") {
            let mut chunk = [0; 64 << 10];
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the body ends too soon");
            body.extend_from_slice(&chunk[..read]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    })
}

#[test]
fn a_request_about_a_user_goes_to_the_users_node() {
    let nodes = [FakeNode::saying(DONE), FakeNode::saying(DONE)];
    let front = Front::start(&[], &[("a", nodes[0].address, true), ("b", nodes[1].address, true)]);
    for (index, owner) in ["a", "b"].into_iter().enumerate() {
        let user = user_of(owner, &["a", "b"]);
        let before = nodes[index].heads().len();
        for path in [format!("/api/hubs/h/users/{user}/:send"), format!("/api/v1/hubs/h/users/{user}/inbox")]
        {
            let answer = call(front.address, "POST", &path, "", "");
            assert_eq!((answer.status, &*answer.body), (200, "done"));
        }
        assert_eq!(nodes[index].heads().len(), before + 2);
    }
}

#[test]
fn bodies_go_and_come_back_whole() {
    let node = reading();
    let front = Front::start(&[], &[("a", node.address, true)]);
    for size in [0, 1000, 64 << 10, 1 << 20] {
        let body = format!("{}END", "b".repeat(size));
        let answer = call(front.address, "PUT", "/x", "X-Mine: 1\r\nX-Forwarded-For: 10.9.9.9\r\n", &body);
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
        assert!(answer.body == body, "{size} bytes came back otherwise");
    }
    let head = node.heads()[0].to_lowercase();
    for expected in ["x-mine: 1\r\n", "x-forwarded-for: 127.0.0.1\r\n", "content-length: 3\r\n"] {
        assert!(head.contains(expected), "{expected} {head}");
    }
    assert!(head.starts_with("put /x http/1.1\r\n") && !head.contains("connection: close"));
}

#[test]
fn a_request_goes_on_where_nobody_listens_or_nobody_is_taken_now() {
    let (busy, well) = (FakeNode::saying(BUSY), reading());
    let user = user_of("owner", &["owner", "well"]);
    let path = format!("/api/hubs/h/users/{user}/:send");
    for owner in [nobody(), busy.address] {
        let front = Front::start(&[], &[("owner", owner, true), ("well", well.address, true)]);
        let answer = call(front.address, "POST", &path, "", "the body, END");
        assert_eq!((answer.status, &*answer.body), (200, "the body, END"));
    }
    assert_eq!(busy.heads().len(), 1);
}

/// Each node counts the requests that it gets, and closes without an answer.
fn failing(count: &Arc<AtomicUsize>) -> FakeNode {
    let count = Arc::clone(count);
    FakeNode::start(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    })
}

#[test]
fn what_may_have_been_carried_out_is_not_said_again() {
    let count = Arc::default();
    let nodes = [failing(&count), failing(&count), failing(&count)];
    let shown = [("a", nodes[0].address, true), ("b", nodes[1].address, true), ("c", nodes[2].address, true)];
    let front = Front::start(&[], &shown);
    let answer = call(front.address, "POST", "/api/hubs/h/users/u/:send", "", "x");
    assert_eq!((answer.status, count.load(Ordering::Relaxed)), (504, 1));
    assert!(answer.json()["message"].as_str().unwrap().contains("nobody knows"));
    let answer = call(front.address, "GET", "/api/hubs/h/users/u", "", "");
    assert_eq!((answer.status, count.load(Ordering::Relaxed)), (503, 4));
}

#[test]
fn several_requests_share_a_socket() {
    let node = FakeNode::saying(DONE);
    let front = Front::start(&["--strip-prefix", "/ws"], &[("a", node.address, true)]);
    let mut stream = connect(front.address);
    for (path, status) in [("/ws/one", 200), ("/two", 404), ("/ws/three", 200), ("/healthz", 200)] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        let answer = read_answer(&mut stream, Vec::new());
        assert_eq!(answer.status, status, "{path}");
        assert_ne!(answer.header("connection"), Some("close"), "the node's own word about its own socket");
    }
    assert_eq!(node.heads().len(), 2);
}

#[test]
fn an_offer_of_another_protocol_is_passed_over() {
    let node = FakeNode::saying(DONE);
    let front = Front::start(&[], &[("a", node.address, true)]);
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let answer = get(front.address, "/x", offer);
    assert_eq!((answer.status, &*answer.body), (200, "done"));
    let (_, headers) = node.only_head();
    assert!(!headers.iter().any(|line| line.contains("h2c") || line.contains("http2")), "{headers:?}");
}

#[test]
fn a_node_that_changes_the_protocol_unasked_is_not_believed() {
    let node = FakeNode::saying(AGREED);
    let front = Front::start(&[], &[("a", node.address, true)]);
    assert_eq!(get(front.address, "/x", "").status, 502);
}

#[test]
fn a_client_that_spoils_its_own_request_says_nothing_against_the_node() {
    // It waits for the end of the body, which never comes.
    let node = reading();
    let front = Front::start(&[], &[("a", node.address, true)]);
    let mut stream = connect(front.address);
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .unwrap();
    assert_eq!(node.only_head().0, "POST /x HTTP/1.1");
    stream.write_all(b"no length\r\n").unwrap();
    let answer = read_answer(&mut stream, Vec::new());
    assert!(answer.status >= 400, "{answer:?}");
    assert_eq!(front.metric("failures_total"), 0);
}
