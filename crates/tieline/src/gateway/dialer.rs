//! [`Dialer`]: asking a node for a WebSocket.
//!
//! The node's answer is read up to the end of its head, and given on as it came. Tested over sockets in
//! `tests/program/gateway`.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The most bytes of an answer's head, and of the body of a refusal.
const MOST: usize = 64 * 1024;

/// How much is read at a time.
const CHUNK: usize = 2048;

/// How long the rest of a refusal is waited for behind its head.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Headers that an answer may have.
const MAX_HEADERS: usize = 100;

/// What a node said to a request for a WebSocket.
#[derive(Debug)]
pub(super) enum Answer {
    /// Yes. The bytes are its answer, and what it has said since.
    Agreed(TcpStream, Vec<u8>),
    /// It takes nobody now; another node may.
    Busy(Vec<u8>),
    /// Anything else, which is for the client.
    Refused(Vec<u8>),
}

/// Why a node is taken for one that does not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody listens there, or the way to it is broken.
    #[error("it cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("it did not answer in time")]
    Slow,
    /// It closed without an answer.
    #[error("it closed without an answer")]
    Silent,
    /// It does not speak HTTP.
    #[error("its answer is no HTTP")]
    Malformed,
}

/// Asks nodes for WebSockets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialer {
    /// How long connecting may take.
    pub(super) connect: Duration,
    /// How long the answer may take.
    pub(super) answer: Duration,
}

impl Dialer {
    /// Sends the head of a request, and reads the answer.
    pub(super) async fn ask(&self, authority: &str, head: &[u8]) -> Result<Answer, DialError> {
        let connecting = tokio::net::TcpStream::connect(authority);
        let mut stream = timeout(self.connect, connecting).await.map_err(|_| DialError::Slow)??;
        stream.set_nodelay(true)?;
        timeout(self.answer, converse(&mut stream, head)).await.map_err(|_| DialError::Slow)?.map(
            |reply| match reply {
                Reply::Agreed(bytes) => Ok(Answer::Agreed(stream.into_std()?, bytes)),
                Reply::Busy(bytes) => Ok(Answer::Busy(bytes)),
                Reply::Refused(bytes) => Ok(Answer::Refused(bytes)),
            },
        )?
    }
}

/// An answer before its socket is taken.
enum Reply {
    Agreed(Vec<u8>),
    Busy(Vec<u8>),
    Refused(Vec<u8>),
}

async fn converse(stream: &mut tokio::net::TcpStream, head: &[u8]) -> Result<Reply, DialError> {
    stream.write_all(head).await?;
    let mut bytes = Vec::new();
    loop {
        if !read_more(stream, &mut bytes).await? {
            return Err(DialError::Silent);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(&bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < MOST => continue,
            _ => return Err(DialError::Malformed),
        };
        let header = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
        };
        // A 503 of the application's handler, or of the store, is one that other nodes would give as well.
        let is_busy = response.code == Some(503)
            && header("x-ms-error-code").is_none_or(|code| code == "ServiceUnavailable");
        let end = header("content-length")
            .and_then(|text| text.parse().ok())
            .map(|body: usize| length.saturating_add(body));
        if response.code == Some(101) {
            return Ok(Reply::Agreed(bytes));
        }
        // What does not come in time is left out: the client's stream ends behind what there is.
        let _ = timeout(REFUSAL_TIME, read_rest(stream, &mut bytes, end)).await;
        return Ok(if is_busy { Reply::Busy(bytes) } else { Reply::Refused(bytes) });
    }
}

/// Reads until so many bytes are there, or to the end.
async fn read_rest(
    stream: &mut tokio::net::TcpStream,
    bytes: &mut Vec<u8>,
    end: Option<usize>,
) -> io::Result<()> {
    let is_whole = |bytes: &Vec<u8>| match end {
        Some(end) => bytes.len() >= end,
        // The last chunk of a body that comes in chunks.
        None => bytes.ends_with(b"\r\n0\r\n\r\n"),
    };
    while !is_whole(bytes) && bytes.len() < MOST && read_more(stream, bytes).await? {}
    Ok(())
}

async fn read_more(stream: &mut tokio::net::TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; CHUNK];
    let read = stream.read(&mut chunk).await?;
    bytes.extend_from_slice(&chunk[..read]);
    Ok(read > 0)
}
