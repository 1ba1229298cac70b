//! What no client should send: each gets its answer, and the server serves on.

use std::io::{Read, Write};
use std::net::SocketAddr;

use tieline_websocket::ClientRequest;

use crate::server::Server;
use crate::support::http::{ask, connect, exchange, get};
use crate::support::socket::{Frame, Socket};

/// The headers of a request for a WebSocket, `Host` apart.
const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tieline.v1\r\n";

/// A server that gives requests little time.
fn server() -> Server {
    Server::start("[times]\nhandshake = \"300ms\"\n")
}

fn assert_serves(address: SocketAddr) {
    let request = ClientRequest::new("localhost", "/client/hubs/h").unwrap().protocol("tieline.v1");
    let mut client = Socket::open(address, request).unwrap();
    assert_eq!(client.json()["event"], "connected");
}

fn status(answer: &[u8]) -> &str {
    std::str::from_utf8(answer).unwrap().lines().next().unwrap_or("")
}

#[test]
fn malformed_requests_are_answered_and_counted() {
    let server = server();
    let at = server.address;
    for (request, expected, code) in [
        (format!("GET /client/hubs/h HTTP/1.1\r\n{HANDSHAKE}\r\n"), 400, "InvalidRequest"),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 400, "InvalidRequest"),
        (
            format!("GET /client/hubs/h HTTP/1.1\r\nHost: a\r\nHost: b\r\n{HANDSHAKE}\r\n"),
            400,
            "InvalidRequest",
        ),
        (format!("GET /client/hubs/h HTTP/1.1\r\nHost: a b\r\n{HANDSHAKE}\r\n"), 400, "InvalidRequest"),
        (format!("GET /client/hubs/h HTTP/1.1\r\nHost: a/b\r\n{HANDSHAKE}\r\n"), 400, "InvalidRequest"),
        (format!("GET /client/hubs/h HTTP/1.1\r\nHost: a:99999\r\n{HANDSHAKE}\r\n"), 400, "InvalidRequest"),
        (format!("GET /client/hubs/h HTTP/1.0\r\nHost: a\r\n{HANDSHAKE}\r\n"), 505, "InvalidRequest"),
        (
            format!("GET /client/hubs/h HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{HANDSHAKE}\r\nxx"),
            400,
            "InvalidRequest",
        ),
        (
            format!("POST /client/hubs/h HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{HANDSHAKE}\r\n"),
            405,
            "MethodNotAllowed",
        ),
        ("GET /client/hubs/h HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 426, "InvalidRequest"),
        (
            "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned(),
            405,
            "MethodNotAllowed",
        ),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404, "NotFound"),
        ("GET /clients HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404, "NotFound"),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404, "NotFound"),
    ] {
        let answer = ask(at, &request);
        assert_eq!((answer.status, &*answer.code()), (expected, code), "{request}");
    }
    for (changed, status) in [
        (HANDSHAKE.replace("Version: 13", "Version: 8"), 426),
        (HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        (HANDSHAKE.replace("Connection: Upgrade", "Connection: close"), 400),
        (HANDSHAKE.replace("tieline.v1", "stomp"), 400),
        (HANDSHAKE.replace("Sec-WebSocket-Protocol: tieline.v1\r\n", ""), 400),
    ] {
        let answer = get(at, "/client/hubs/h", &changed);
        assert_eq!((answer.status, &*answer.code()), (status, "InvalidRequest"), "{changed}");
    }
    let answer = get(at, "/client/hubs/h", &HANDSHAKE.replace("tieline.v1", "stomp, v12.stomp"));
    for known in ["tieline.v1", "json.webpubsub.azure.v1", "json.reliable.webpubsub.azure.v1"] {
        assert!(answer.body.contains(known), "{}", answer.body);
    }
    for path in ["/client/hubs/1bad", "/client/hubs/", "/client/?hub=a%20b"] {
        assert_eq!(get(at, path, HANDSHAKE).code(), "InvalidHub", "{path}");
    }
    assert_eq!(get(at, "/client/hubs/h/more", HANDSHAKE).code(), "NotFound");
    assert_eq!(get(at, "/client/hubs/h?user=a&user=b", HANDSHAKE).code(), "InvalidRequest");
    assert_eq!(get(at, "/client/hubs/h?user=", HANDSHAKE).code(), "InvalidUser");
    let metrics = get(at, "/metrics", "").body;
    assert!(metrics.contains("tieline_http_refused_total{code=\"InvalidHub\"} 3\n"), "{metrics}");
    assert_serves(at);
}

#[test]
fn oversized_requests_are_answered() {
    let server = server();
    let large = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(17 << 10));
    assert_eq!(
        status(&exchange(server.address, large.as_bytes())),
        "HTTP/1.1 431 Request Header Fields Too Large"
    );
    let endless = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(200 << 10));
    assert_eq!(
        status(&exchange(server.address, endless.as_bytes())),
        "HTTP/1.1 431 Request Header Fields Too Large"
    );
    let many = format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(
        status(&exchange(server.address, many.as_bytes())),
        "HTTP/1.1 431 Request Header Fields Too Large"
    );
    let fits = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n",
        "x".repeat(15 << 10)
    );
    assert_eq!(status(&exchange(server.address, fits.as_bytes())), "HTTP/1.1 200 OK");
    assert_serves(server.address);
}

#[test]
fn what_is_not_http_is_closed() {
    let server = server();
    for (bytes, expected) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], "HTTP/1.1 400 Bad Request"),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "HTTP/1.1 400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        // HTTP/2 without a word in between: it is not spoken here, and its client would not understand an answer.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ] {
        assert_eq!(
            status(&exchange(server.address, bytes)),
            expected,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    let metrics = get(server.address, "/metrics", "").body;
    assert!(metrics.contains("tieline_http_malformed_total 6\n"), "{metrics}");
    assert_serves(server.address);
}

#[test]
fn slow_requests_are_ended() {
    let server = server();
    // A head that does not end, although something comes again and again.
    let mut slow = connect(server.address);
    slow.write_all(b"GET /client/hubs/h HTTP/1.1\r\nHost: a\r\n").unwrap();
    slow.set_read_timeout(Some(std::time::Duration::from_millis(40))).unwrap();
    let mut answer = Vec::new();
    let mut sent = 0;
    loop {
        let mut chunk = [0; 1024];
        match slow.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(_) => {
                sent += 1;
                assert!(sent < 250, "a head of 10 s is still read");
                let _ = slow.write_all(b"X: y\r\n");
            }
        }
    }
    assert_eq!(status(&answer), "HTTP/1.1 408 Request Timeout");
    // One that says nothing at all is let go without a word, be it that the kernel keeps it back for a while.
    assert_eq!(exchange(server.address, b""), b"");
    // One that had its answer and stays is let go too.
    let answer = exchange(server.address, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status(&answer), "HTTP/1.1 200 OK");
    assert_eq!(answer.windows(5).filter(|window| window == b"HTTP/").count(), 1);
    assert_serves(server.address);
}

#[test]
fn broken_frames_close_with_their_code() {
    let server = Server::start("[limits]\nmax_message = \"2KiB\"\nmax_frame = \"1KiB\"\nmax_fragments = 4\n");
    let fragment = |first: u8| [&[first, 0x80, 1, 2, 3, 4][..]].concat();
    let mut fragments = fragment(0x01);
    (0..5).for_each(|_| fragments.extend(fragment(0x00)));
    for (frames, code) in [
        (vec![0x81, 0x05, b'h', b'e', b'l', b'l', b'o'], 1002),
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002),
        (vec![0xC1, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x80, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x89, 0xFE, 0, 126, 0, 0, 0, 0], 1002),
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),
        (vec![0x81, 0xFE, 0x04, 0x01, 0, 0, 0, 0], 1009),
        (vec![0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], 1009),
        (fragments, 1009),
    ] {
        let request = ClientRequest::new("localhost", "/client/hubs/h").unwrap().protocol("tieline.v1");
        let mut client = Socket::open(server.address, request).unwrap();
        assert_eq!(client.json()["event"], "connected");
        client.stream.write_all(&frames).unwrap();
        match client.next() {
            Frame::Close(found, reason) => {
                assert_eq!((found, reason.is_empty()), (code, false), "{frames:x?}")
            }
            other => panic!("{other:?} in place of a close for {frames:x?}"),
        }
        assert_eq!(client.next(), Frame::End);
    }
    assert_serves(server.address);
}
