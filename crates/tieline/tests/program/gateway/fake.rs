//! [`FakeNode`]: a listener that answers requests as a test wants, and remembers their heads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// What a node says that agrees to a WebSocket.
pub(super) const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// What one says that takes nobody now.
pub(super) const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nx-ms-error-code: ServiceUnavailable\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy";

/// A listener that answers as a test wants. It lives as long as the test's process.
pub(super) struct FakeNode {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl FakeNode {
    /// Gives each socket, with the head and what was read behind it, to `answer`, on a thread of its own. Checks are answered
    /// as a node does that is ready.
    pub(super) fn start(answer: impl Fn(TcpStream, Vec<u8>) + Send + Sync + 'static) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, written) = (Arc::new(answer), Arc::clone(&heads));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, heads) = (Arc::clone(&answer), Arc::clone(&written));
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let Some((head, rest)) = read_head(&mut stream) else { return };
                    if head.starts_with("GET /readyz ") {
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                        return;
                    }
                    heads.lock().unwrap().push(head);
                    answer(stream, rest);
                });
            }
        });
        FakeNode { address, heads }
    }

    /// One that agrees to every WebSocket, and then says back what it hears until the end of it.
    pub(super) fn echo() -> FakeNode {
        FakeNode::start(|mut stream, rest| {
            stream.write_all(&[AGREED, &rest].concat()).unwrap();
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                stream.write_all(&chunk[..read]).unwrap();
            }
        })
    }

    /// One that says the same to every request, and closes.
    pub(super) fn saying(answer: &'static [u8]) -> FakeNode {
        FakeNode::start(move |mut stream, _| stream.write_all(answer).unwrap())
    }

    /// The heads of all requests but checks.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The only request that came, when it has come: its first line, and its headers in lower case, in order.
    pub(super) fn only_head(&self) -> (String, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        while self.heads().is_empty() {
            assert!(Instant::now() < deadline, "no request came");
            thread::park_timeout(Duration::from_millis(5));
        }
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        let (first, headers) = heads[0].split_once("\r\n").unwrap();
        let mut headers: Vec<_> =
            headers.lines().filter(|line| !line.is_empty()).map(str::to_lowercase).collect();
        headers.sort_unstable();
        (first.to_owned(), headers)
    }
}

/// A place of this machine where nobody listens: no connection is given this port, and no server of a test.
pub(super) fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// Reads a head, and what came with it.
fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Some((String::from_utf8(bytes).unwrap(), rest));
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => bytes.extend_from_slice(&chunk[..read]),
            _ => return None,
        }
    }
}

/// What a client asks for a WebSocket with.
pub(super) fn upgrade(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: gateway.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Reads the head of an answer, which is all that there is, and gives its status.
pub(super) fn read_status(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let (head, rest) = read_head(stream).expect("an answer comes");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), rest)
}
