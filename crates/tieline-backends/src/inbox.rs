//! [`Inbox`]: what was read from a server and is not understood yet. Messages are handed up where they were read. Tested with the
//! protocols that are read from it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// The least room for one read.
const READ: usize = 64 * 1024;

/// Room that is kept while nothing waits in it.
const KEPT: usize = 256 * 1024;

/// The way from a server.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The way to a server.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The way from a server, with what was read and not understood yet.
pub(crate) struct Inbox {
    read: Reader,
    bytes: Vec<u8>,
    /// Where what is not understood starts.
    start: usize,
}

impl Inbox {
    /// `bytes` were read already.
    pub(crate) fn new(read: Reader, bytes: Vec<u8>) -> Inbox {
        Inbox { read, bytes, start: 0 }
    }

    /// What is not understood yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// So many of the [`bytes`](Self::bytes) are understood.
    pub(crate) fn understood(&mut self, len: usize) {
        self.start += len;
    }

    /// Reads on, and says how much came: zero at the end. What was read is kept when this is not waited for to the end.
    pub(crate) async fn read(&mut self) -> io::Result<usize> {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.start = 0;
        }
        if self.bytes.capacity() - self.bytes.len() < READ {
            // Only the beginning of something that is not whole is moved, and room doubles, so long messages cost no more.
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.reserve(READ);
        }
        self.read.read_buf(&mut self.bytes).await
    }
}
