//! What little HTTP is spoken to a Nacos server: one request and its answer, in the earlier version of the protocol, whose answers
//! end with the connection. Tested with those who ask, and here by answers that a server might give.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The most bytes of an answer.
const MAX_ANSWER: u64 = 64 << 10;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Vec<u8>,
}

/// Posts a form to `host:port`.
pub(super) async fn post(server: &str, path: &str, form: &str) -> io::Result<Answer> {
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {server}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    exchange(server, &request).await
}

/// Those that answer, whatever they answer, in their order.
pub(super) async fn living(servers: &[String]) -> Vec<String> {
    let mut living = Vec::new();
    for server in servers {
        // Its operators' page, or what is in its place.
        let request = format!("GET /nacos/ HTTP/1.0\r\nHost: {server}\r\n\r\n");
        if exchange(server, &request).await.is_ok() {
            living.push(server.clone());
        }
    }
    living
}

async fn exchange(server: &str, request: &str) -> io::Result<Answer> {
    let exchanging = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut bytes).await?;
        read(&bytes).ok_or(io::ErrorKind::InvalidData.into())
    };
    timeout(LIMIT, exchanging).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

fn read(bytes: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = head.parse(bytes).ok()? else { return None };
    Some(Answer { code: head.code?, body: bytes[size..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_other_protocols_are_none() {
        let answer = |code, body: &str| Some(Answer { code, body: body.as_bytes().to_vec() });
        assert_eq!(read(b"HTTP/1.1 200 \r\nConnection: close\r\n\r\n{}"), answer(200, "{}"));
        assert_eq!(read(b"HTTP/1.0 404 Not Found\r\n\r\n"), answer(404, ""));
        for bytes in [&b""[..], b"HTTP/1.1 200 OK\r\nConn", b"SSH-2.0-x\r\n", b"\xff\xff"] {
            assert_eq!(read(bytes), None);
        }
    }
}
