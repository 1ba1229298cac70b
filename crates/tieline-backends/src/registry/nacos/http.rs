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
const MAX_ANSWER: u64 = 2 << 20;

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

/// Asks `host:port`, as who has this token.
pub(super) async fn get(server: &str, path: &str, token: Option<&str>) -> io::Result<Answer> {
    let token = token.map(|token| format!("accessToken: {token}\r\n")).unwrap_or_default();
    exchange(server, &format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n{token}\r\n")).await
}

/// Those that answer, whatever they answer, in their order.
pub(super) async fn living(servers: &[String]) -> Vec<String> {
    let mut living = Vec::new();
    for server in servers {
        // Its operators' page, or what is in its place.
        if get(server, "/nacos/", None).await.is_ok() {
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
    let (code, body) = (head.code?, bytes[size..].to_vec());
    let length = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let is_whole = length.is_none_or(|header| header.value == body.len().to_string().as_bytes());
    (is_whole && (bytes.len() as u64) < MAX_ANSWER).then_some(Answer { code, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_other_protocols_are_none() {
        let answer = |code, body: &str| Some(Answer { code, body: body.as_bytes().to_vec() });
        assert_eq!(read(b"HTTP/1.1 200 \r\nConnection: close\r\n\r\n{}"), answer(200, "{}"));
        assert_eq!(read(b"HTTP/1.0 404 Not Found\r\n\r\n"), answer(404, ""));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"), answer(200, "a"));
        // The second one has lost its end.
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na";
        for bytes in [&b""[..], &cut[..], b"HTTP/1.1 200 OK\r\nConn", b"SSH-2.0-x\r\n", b"\xff\xff"] {
            assert_eq!(read(bytes), None);
        }
    }
}
