//! What a node gets of a request: headers of proxies, prefixes, and heads that are meant to do harm.

use std::io::Write;

use super::fake::{AGREED, FakeNode, read_status, upgrade};
use super::front::Front;
use crate::support::http::{connect, exchange, exchange_one};
use crate::support::proxy_protocol::proxied;

fn node() -> FakeNode {
    FakeNode::saying(AGREED)
}

/// What the node gets of a WebSocket's request.
fn given(flags: &[&str], before: &[u8], target: &str, headers: &str) -> (String, Vec<String>) {
    let node = node();
    let front = Front::start(flags, &[("a", node.address, true)]);
    let mut stream = connect(front.address);
    stream.write_all(&[before, upgrade(target, headers).as_bytes()].concat()).unwrap();
    assert_eq!(read_status(&mut stream).0, 101);
    node.only_head()
}

/// The headers of it that are no gateway's own name.
fn without_via(headers: Vec<String>) -> Vec<String> {
    headers.into_iter().filter(|line| !line.starts_with("via: ")).collect()
}

const CLAIMS: &str =
    "X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 10.9.9.9\r\nX-Mine: 1\r\n";

#[test]
fn a_stranger_says_nothing_about_where_it_comes_from() {
    let (first, headers) = given(&[], b"", "/client/alice?x=%20#", CLAIMS);
    // What stands behind a number sign is no part of a request.
    assert_eq!(first, "GET /client/alice?x=%20 HTTP/1.1");
    let expected = [
        "connection: upgrade",
        "host: gateway.example.com",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==",
        "sec-websocket-version: 13",
        "upgrade: websocket",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: gateway.example.com",
        "x-forwarded-proto: http",
        "x-mine: 1",
    ];
    assert_eq!(without_via(headers), expected);
}

#[test]
fn a_trusted_proxy_is_believed() {
    let (_, headers) = given(&["--trusted-proxy", "127.0.0.0/8"], b"", "/client/alice", CLAIMS);
    for expected in
        ["x-forwarded-for: 10.9.9.9, 127.0.0.1", "x-forwarded-proto: https", "x-real-ip: 10.9.9.9"]
    {
        assert!(headers.iter().any(|line| line == expected), "{expected} {headers:?}");
    }
}

#[test]
fn a_balancer_tells_by_its_own_header_for_whom_it_connects() {
    let header = proxied("203.0.113.7:4711".parse().unwrap());
    let (_, headers) = given(
        &["--proxy-protocol", "--allow-anonymous", "--trusted-proxy", "127.0.0.0/8"],
        &header,
        "/client/alice",
        CLAIMS,
    );
    // The client's address is none that is trusted, though the balancer's is.
    assert!(headers.contains(&"x-forwarded-for: 203.0.113.7".to_owned()), "{headers:?}");
}

#[test]
fn a_prefix_is_taken_off_and_told() {
    let (first, headers) = given(&["--strip-prefix", "/websocket"], b"", "/websocket/client/alice?a=b", "");
    assert_eq!(first, "GET /client/alice?a=b HTTP/1.1");
    assert!(headers.contains(&"x-forwarded-prefix: /websocket".to_owned()), "{headers:?}");
    let (first, _) = given(&["--strip-prefix", "/a", "--add-prefix", "/b"], b"", "/a/c", "");
    assert_eq!(first, "GET /b/c HTTP/1.1");
    let node = node();
    let front = Front::start(&["--strip-prefix", "/websocket"], &[("a", node.address, true)]);
    for path in ["/client/alice", "/websocketx/client/alice", "/"] {
        let answer = exchange_one(front.address, &upgrade(path, ""));
        assert_eq!((answer.status, &*answer.code()), (404, "NotFound"), "{path}");
    }
    assert!(node.heads().is_empty());
}

#[test]
fn a_gateway_that_is_its_own_node_says_so() {
    let front = Front::start(&[], &[]);
    front.show(&[("a", front.address, true)]);
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    for request in
        [upgrade("/client/x", ""), "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned()]
    {
        loop {
            let answer = exchange_one(front.address, &request);
            if answer.status == 508 {
                break;
            }
            assert!(answer.status == 503 && std::time::Instant::now() < deadline, "{answer:?}");
        }
    }
}

#[test]
fn what_is_no_proper_request_reaches_no_node() {
    let node = node();
    let front = Front::start(&[], &[("a", node.address, true)]);
    let usual = upgrade("/client/x", "");
    let large = upgrade("/client/x", &format!("X: {}\r\n", "x".repeat(20_000)));
    let many = upgrade("/client/x", &"X: 1\r\n".repeat(200));
    for (what, request) in [
        ("garbage", "\x16\x03\x01\x02\r\n\r\n".to_owned()),
        ("no host", usual.replace("Host: gateway.example.com\r\n", "")),
        ("two hosts", usual.replace("Host: ", "Host: a\r\nHost: ")),
        ("a host with a path", usual.replace("gateway.example.com", "a/b")),
        ("a body", upgrade("/client/x", "Content-Length: 5\r\n") + "GET /"),
        ("chunks", upgrade("/client/x", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n"),
        ("another method", usual.replace("GET ", "POST ")),
        ("an old version", usual.replace("HTTP/1.1", "HTTP/1.0")),
        ("no key", usual.replace("Sec-WebSocket-Key", "X-Key")),
        ("a folded header", upgrade("/client/x", "X: 1\r\n 2\r\n")),
        ("a blank in a name", upgrade("/client/x", "X : 1\r\n")),
        ("a zero byte", upgrade("/client/x", "X: \0\r\n")),
        (
            "two lengths",
            "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
        ),
        (
            "length and chunks",
            "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ),
        ("a large head", large),
        ("many headers", many),
        ("a star", "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned()),
        ("a tunnel", "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n\r\n".to_owned()),
    ] {
        let answer = String::from_utf8(exchange(front.address, request.as_bytes())).unwrap();
        let status: u16 = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        assert!(status == 0 || status == 505 || (400..500).contains(&status), "{what}: {answer}");
        assert_eq!(node.heads(), Vec::<String>::new(), "{what}");
    }
    // And it goes on.
    let mut stream = connect(front.address);
    stream.write_all(usual.as_bytes()).unwrap();
    assert_eq!(read_status(&mut stream).0, 101);
}
