//! Nodes that do not answer, take nobody, or go: who asks goes to the next, and nobody who is connected is moved.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use super::fake::{AGREED, BUSY, FakeNode, nobody, read_status, upgrade};
use super::front::{Front, user_of};
use crate::support::PATIENCE;
use crate::support::http::{call, connect, exchange_one};

/// Opens a WebSocket, and hears the name that the node says behind its answer.
fn hear(front: &Front, user: &str) -> String {
    let mut stream = connect(front.address);
    stream.write_all(upgrade(&format!("/client/{user}"), "").as_bytes()).unwrap();
    let (status, mut rest) = read_status(&mut stream);
    assert_eq!(status, 101);
    stream.read_to_end(&mut rest).unwrap();
    String::from_utf8(rest).unwrap()
}

/// A node that says its name, and closes.
fn named(name: &'static str) -> FakeNode {
    FakeNode::start(move |mut stream, _| stream.write_all(&[AGREED, name.as_bytes()].concat()).unwrap())
}

pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_user_always_goes_to_the_same_node_and_only_those_of_a_node_that_is_gone_move() {
    let nodes = [named("a"), named("b"), named("c")];
    let shown = [("a", nodes[0].address, true), ("b", nodes[1].address, true), ("c", nodes[2].address, true)];
    let (one, other) = (Front::start(&[], &shown), Front::start(&[], &shown));
    let users: Vec<String> = (0..30).map(|number| format!("u{number}")).collect();
    let at = |front: &Front| users.iter().map(|user| hear(front, user)).collect::<Vec<_>>();
    let before = at(&one);
    assert_eq!(before, at(&other), "two gateways send users to different nodes");
    assert!(["a", "b", "c"].iter().all(|name| before.iter().any(|node| node == name)));
    // Without `b`, by the registry at one gateway, and by itself at the other.
    one.show(&[shown[0], shown[2]]);
    other.show(&[shown[0], ("b", nobody(), true), shown[2]]);
    eventually("the node is out", || one.metric("nodes{state=\"well\"}") == 2);
    for after in [at(&one), at(&other)] {
        for (before, after) in before.iter().zip(&after) {
            assert!(if before == "b" { after != "b" } else { before == after }, "{before} {after}");
        }
    }
}

/// What happens where the owner of a user is at this place, and another node is well.
fn next_is_tried(owner: SocketAddr) -> Front {
    let well = named("well");
    let user = user_of("owner", &["owner", "well"]);
    let front = Front::start(&[], &[("owner", owner, true), ("well", well.address, true)]);
    let began = Instant::now();
    assert_eq!(hear(&front, &user), "well");
    assert!(began.elapsed() < Duration::from_secs(10));
    front
}

#[test]
fn the_next_is_tried_where_nobody_listens() {
    let front = next_is_tried(nobody());
    // Once that is known it is tried last.
    eventually("it is known", || front.metric("nodes{state=\"unwell\"}") == 1);
    let failures = front.metric("failures_total");
    assert_eq!(hear(&front, &user_of("owner", &["owner", "well"])), "well");
    assert_eq!(front.metric("failures_total"), failures);
    assert!(call(front.admin, "GET", "/readyz", "", "").body.contains("degraded"));
}

#[test]
fn the_next_is_tried_where_one_closes_without_a_word() {
    let silent = FakeNode::start(|_, _| {});
    let front = next_is_tried(silent.address);
    assert_eq!((front.metric("failures_total"), front.metric("retries_total")), (1, 1));
}

#[test]
fn the_next_is_tried_where_one_takes_too_long() {
    // Its kernel accepts, and nobody reads.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    next_is_tried(hanging.local_addr().unwrap());
}

#[test]
fn the_next_is_tried_where_one_takes_nobody() {
    let busy = FakeNode::saying(BUSY);
    let front = next_is_tried(busy.address);
    assert_eq!((front.metric("failures_total"), front.metric("retries_total")), (0, 1));
}

#[test]
fn the_next_is_tried_where_one_speaks_no_http() {
    next_is_tried(FakeNode::saying(b"220 mail.example.com ESMTP\r\n").address);
}

#[test]
fn a_node_that_all_else_fails_for_is_tried_still() {
    // Its checks fail, and yet it is the only one that answers.
    let node = FakeNode::start(|mut stream, _| stream.write_all(&[AGREED, b"alone"].concat()).unwrap());
    let front = Front::start(&[], &[("dead", nobody(), true), ("alone", node.address, true)]);
    for user in ["x", "y", "z"] {
        assert_eq!(hear(&front, user), "alone");
    }
}

#[test]
fn a_refusal_is_the_clients_as_it_was_said() {
    let refusal =
        b"HTTP/1.1 401 Unauthorized\r\nx-ms-error-code: Unauthorized\r\ncontent-length: 2\r\n\r\nno";
    let (node, other) = (FakeNode::saying(refusal), named("other"));
    let user = user_of("a", &["a", "b"]);
    let front = Front::start(&[], &[("a", node.address, true), ("b", other.address, true)]);
    let answer = exchange_one(front.address, &upgrade(&format!("/client/{user}"), ""));
    assert_eq!((answer.status, &*answer.body), (401, "no"));
    assert_eq!(answer.header("x-ms-error-code"), Some("unauthorized"));
    assert!(other.heads().is_empty(), "nobody else is asked");
}

#[test]
fn a_503_of_the_application_is_the_clients_and_one_of_all_nodes_too() {
    let handler = b"HTTP/1.1 503 x\r\nx-ms-error-code: HandlerFailed\r\ncontent-length: 7\r\n\r\nhandler";
    let (failing, other) = (FakeNode::saying(handler), named("other"));
    let user = user_of("a", &["a", "b"]);
    let front = Front::start(&[], &[("a", failing.address, true), ("b", other.address, true)]);
    let answer = exchange_one(front.address, &upgrade(&format!("/client/{user}"), ""));
    assert_eq!((answer.status, &*answer.body), (503, "handler"));
    let (one, two) = (FakeNode::saying(BUSY), FakeNode::saying(BUSY));
    let front = Front::start(&[], &[("a", one.address, true), ("b", two.address, true)]);
    let answer = exchange_one(front.address, &upgrade("/client/x", ""));
    assert_eq!((answer.status, answer.header("retry-after"), &*answer.body), (503, Some("7"), "busy"));
    assert_eq!((one.heads().len(), two.heads().len()), (1, 1));
}

#[test]
fn without_nodes_the_answer_is_to_come_again() {
    let front = Front::start(&[], &[]);
    for request in
        [upgrade("/client/x", ""), "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned()]
    {
        let answer = exchange_one(front.address, &request);
        assert_eq!((answer.status, &*answer.code()), (503, "ServiceUnavailable"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(call(front.address, "GET", "/readyz", "", "").status, 503);
    assert_eq!(call(front.address, "GET", "/healthz", "", "").status, 200);
}

#[test]
fn a_node_that_drains_keeps_its_connections_and_gets_no_more() {
    let (drains, stays) = (FakeNode::echo(), named("stays"));
    let user = user_of("drains", &["drains", "stays"]);
    let front = Front::start(&[], &[("drains", drains.address, true), ("stays", stays.address, true)]);
    let mut old = connect(front.address);
    old.write_all(upgrade(&format!("/client/{user}"), "").as_bytes()).unwrap();
    assert_eq!(read_status(&mut old).0, 101);
    front.show(&[("drains", drains.address, false), ("stays", stays.address, true)]);
    eventually("it is closed", || front.metric("nodes{state=\"closed\"}") == 1);
    assert_eq!(hear(&front, &user), "stays");
    old.write_all(b"hello").unwrap();
    let mut said = [0; 5];
    old.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
    assert_eq!(front.metric("node_connections{node=\"drains\"}"), 1);
    // When all drain nobody is taken.
    front.show(&[("drains", drains.address, false), ("stays", stays.address, false)]);
    eventually("all are closed", || front.metric("nodes{state=\"closed\"}") == 2);
    assert_eq!(exchange_one(front.address, &upgrade("/client/x", "")).status, 503);
    assert_eq!(drains.heads().len(), 1);
}
