//! [`Preface`]: a balancer's header that was not whole when its socket was accepted, read to its end.
//!
//! What a header says is `proxy_protocol.rs`'s business. Tested in `tests/program/proxy_protocol.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::proxy_protocol::{self, HeaderError};

/// How much is read at a time: most headers, and the request that comes with one.
const CHUNK: usize = 1024;

/// What came before the client's request.
pub(super) struct Preface {
    /// Whom the balancer connects for, if it says so.
    pub(super) source: Option<SocketAddr>,
    /// What was read behind the header.
    pub(super) early: Vec<u8>,
}

impl Preface {
    /// Reads on behind the bytes that are there. `None` when the client left before it said a word, as those do that only want
    /// to see whether somebody listens.
    pub(super) async fn read(
        stream: &mut TcpStream,
        bytes: Vec<u8>,
        limit: Duration,
    ) -> Result<Option<Preface>, HeaderError> {
        timeout(limit, Preface::read_on(stream, bytes)).await.unwrap_or(Err(HeaderError::Slow))
    }

    async fn read_on(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Result<Option<Preface>, HeaderError> {
        loop {
            if let Some(header) = proxy_protocol::parse(&bytes)? {
                return Ok(Some(Preface { source: header.source, early: bytes.split_off(header.length) }));
            }
            let mut chunk = [0; CHUNK];
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) if bytes.is_empty() => return Ok(None),
                Ok(0) | Err(_) => return Err(HeaderError::Cut),
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            }
        }
    }
}
