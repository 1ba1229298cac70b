//! [`Rewound`]: a socket of which some bytes were read before hyper was asked to read them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Gives the bytes that were read early, and then the socket's own.
pub(super) struct Rewound {
    early: Vec<u8>,
    /// How many of them were given.
    given: usize,
    stream: TokioIo<TcpStream>,
}

impl Rewound {
    pub(super) fn new(early: Vec<u8>, stream: TcpStream) -> Self {
        Rewound { early, given: 0, stream: TokioIo::new(stream) }
    }

    /// The socket, and those early bytes that nobody has read.
    pub(super) fn into_parts(mut self) -> (TcpStream, Vec<u8>) {
        (self.stream.into_inner(), self.early.split_off(self.given))
    }
}

impl Read for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let early = &self.early[self.given..];
        if early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = early.len().min(buffer.remaining());
        buffer.put_slice(&early[..length]);
        self.given += length;
        Poll::Ready(Ok(()))
    }
}

impl Write for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}
