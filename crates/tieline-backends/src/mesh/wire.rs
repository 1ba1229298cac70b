//! One peer's socket as frames: what is read, and how frames are encoded for its role. Not what they mean.
//!
//! Tested by whatever goes over it, the raw sockets of `tests/` above all.

use std::io;
use std::time::Duration;

use tieline_websocket::{
    DecodeError, Decoder, Event, Limits, Masks, Opcode, Role, Shared, encode, encode_close,
    encode_close_masked, encode_masked,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::refusal::Refusal;
use super::settings::MAX_ENVELOPE;

/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// The most bytes of a frame, and of an HTTP head, from somebody who is not authenticated yet.
pub(super) const MAX_STRANGER: usize = 4 * 1024;

/// For how long a refused peer may take to read why.
const GOODBYE: Duration = Duration::from_secs(1);

/// The bytes that came, and the frames in them.
pub(super) struct Inbox {
    decoder: Decoder,
    shared: Shared,
    /// Room for one read.
    bytes: Box<[u8]>,
    /// Where what is not decoded starts.
    start: usize,
    /// Where what was read ends.
    end: usize,
}

impl Inbox {
    fn new(role: Role) -> Self {
        let limits = Limits { max_frame: MAX_STRANGER, max_message: MAX_STRANGER, max_fragments: 16 };
        Inbox {
            decoder: Decoder::new(role, None),
            shared: Shared::new(limits),
            bytes: vec![0; READ].into(),
            start: 0,
            end: 0,
        }
    }

    /// Allows envelopes, now that the peer is known.
    pub(super) fn trust(&mut self) {
        self.shared.limits.max_frame = MAX_ENVELOPE;
        self.shared.limits.max_message = MAX_ENVELOPE;
    }

    /// The next event in what was read; `None` when there is no whole one.
    pub(super) fn next(&mut self) -> Result<Option<Event<'_>>, DecodeError> {
        let mut input = &mut self.bytes[self.start..self.end];
        let event = self.decoder.decode(&mut input, &mut self.shared);
        self.start = self.end - input.len();
        event
    }

    /// Reads behind what is there, and says how much came: zero at the end.
    pub(super) async fn read(&mut self, from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let read = from.read(&mut self.bytes[self.end..]).await?;
        self.end += read;
        Ok(read)
    }

    /// What was read and not decoded: an HTTP head, before the first frame.
    pub(super) fn raw(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Steps over bytes that were no frames.
    pub(super) fn skip(&mut self, len: usize) {
        self.start += len;
    }
}

/// Makes frames of the role.
pub(super) struct Outbox {
    role: Role,
    masks: Masks,
}

impl Outbox {
    /// Appends a frame; a client's is masked.
    pub(super) fn frame(&mut self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        match self.role {
            Role::Server => encode(out, opcode, payload),
            Role::Client => {
                encode_masked(out, opcode, payload, self.masks.next_mask().map_err(io::Error::other)?)
            }
        }
        Ok(())
    }

    /// Appends a close frame.
    pub(super) fn close(&mut self, out: &mut Vec<u8>, refusal: Refusal) -> io::Result<()> {
        let (code, reason) = (Some(refusal.code()), refusal.text());
        match self.role {
            Role::Server => encode_close(out, code, reason),
            Role::Client => {
                encode_close_masked(out, code, reason, self.masks.next_mask().map_err(io::Error::other)?);
            }
        }
        Ok(())
    }
}

/// A socket with its frames, while one task reads and writes in turn.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Whether HTTP is over, so that frames may be sent.
    pub(super) upgraded: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, role: Role) -> Self {
        let outbox = Outbox { role, masks: Masks::new() };
        Wire { stream, inbox: Inbox::new(role), outbox, upgraded: false }
    }

    /// Writes a text frame.
    pub(super) async fn say(&mut self, text: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(text.len() + 16);
        self.outbox.frame(&mut out, Opcode::Text, text)?;
        self.stream.write_all(&out).await
    }

    /// Reads on; the end is an error.
    pub(super) async fn read(&mut self) -> io::Result<()> {
        match self.inbox.read(&mut self.stream).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Says why the link does not come about, and waits a moment for the peer to have read it: closing at once would
    /// destroy the words on their way if the peer is still sending.
    pub(super) async fn refuse(mut self, refusal: Refusal) {
        let goodbye = async {
            if self.upgraded {
                let mut out = Vec::new();
                self.outbox.close(&mut out, refusal)?;
                self.stream.write_all(&out).await?;
            }
            self.stream.shutdown().await?;
            let mut heard = [0; 1024];
            while self.stream.read(&mut heard).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether the refused heard it changes nothing.
        drop(timeout(GOODBYE, goodbye).await);
    }
}
