//! A connection to a name server or a broker, and one question after the other on it.
//!
//! A question waits for its answer before the next one goes out: that is what keeps messages in order (a broker carries out what
//! comes on a connection on several threads), and why sending and pulling have a connection each. Tested by the broker's
//! tests against real servers and strangers.

use std::mem;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Trouble;
use super::frames::{self, Answer, Request};
use super::signature::Signer;

/// The least room for one read.
const READ: usize = 64 * 1024;

/// A connection. A question that was not waited for to its end leaves it useless.
pub(super) struct Link {
    stream: TcpStream,
    signer: Option<Arc<Signer>>,
    /// The number of the last question.
    opaque: i32,
    /// What was read and is not a whole answer yet.
    inbox: Vec<u8>,
    /// What is written, kept for its room.
    outbox: Vec<u8>,
}

impl Link {
    /// Connects to `host:port`, and says nothing yet.
    pub(super) async fn open(place: &str, signer: Option<&Arc<Signer>>) -> Result<Link, Trouble> {
        let connected = TcpStream::connect(place).await;
        let stream = connected.map_err(|error| Trouble::Connect { place: place.to_owned(), error })?;
        // Without it questions are only later, not wrong.
        drop(stream.set_nodelay(true));
        Ok(Link { stream, signer: signer.cloned(), opaque: 0, inbox: Vec::new(), outbox: Vec::new() })
    }

    /// Asks, and waits for the answer, however long that takes.
    pub(super) async fn call(&mut self, request: Request<'_>) -> Result<Answer, Trouble> {
        self.opaque = self.opaque.wrapping_add(1);
        self.outbox.clear();
        request.write(&mut self.outbox, self.opaque, self.signer.as_deref());
        self.stream.write_all(&self.outbox).await.map_err(Trouble::Io)?;
        self.outbox.shrink_to(READ);
        loop {
            let answer = Answer::read(self.frame().await?)?;
            // Servers tell clients of changes by questions, none of which matters here.
            if answer.to == Some(self.opaque) {
                return Ok(answer);
            }
        }
    }

    /// The next frame.
    async fn frame(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            if let Some(end) = frames::whole(&self.inbox)? {
                let rest = self.inbox.split_off(end);
                return Ok(mem::replace(&mut self.inbox, rest));
            }
            self.inbox.reserve(READ);
            if self.stream.read_buf(&mut self.inbox).await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
        }
    }
}
