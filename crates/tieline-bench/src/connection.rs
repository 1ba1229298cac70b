//! One client socket: bytes in, frames out; texts in, bytes out. It never waits.
//! It knows nothing of loads or groups. An incomplete frame is the only thing it keeps of its input.
//! Tested through the fleet, by `tests/command.rs`.

use crate::error::BenchError;
use crate::frame;
use crate::upgrade;
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};
use tieline_websocket::{ClientRequest, CloseFrame, HandshakeError, Opcode, encode_masked};

/// The code that stands for a close frame without one.
const NO_CODE: u16 = 1005;
/// The masking key of a connection's first frame. Masks protect proxies from hostile scripts; a load needs no random ones.
const FIRST_MASK: u32 = 0x5bd1_e995;

/// What arrived on a connection.
pub(crate) enum Incoming<'a> {
    /// The upgrade is done.
    Upgraded,
    /// One whole frame.
    Frame {
        /// Its payload: text or binary, for pings and closes are treated by the connection itself.
        payload: &'a [u8],
        /// Bytes it took on the wire.
        wire: usize,
    },
}

/// How the server ended a connection in good order.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A close frame with this code and reason.
    Close(u16, String),
    /// The end of the stream without one.
    Eof,
}

/// Bytes waiting for the socket.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Whole frames, the first perhaps partly sent. Its bound is the load's: a window's worth of messages, or the open
    /// loop's limit on outstanding ones.
    bytes: Vec<u8>,
    /// The next frame's masking key; all zero for the floor.
    mask: u32,
}

impl Outbox {
    /// Appends a client frame.
    pub(crate) fn push(&mut self, opcode: Opcode, payload: &[u8]) {
        encode_masked(&mut self.bytes, opcode, payload, self.mask.to_be_bytes());
        // An odd step visits every key but never settles on one; zero stays zero.
        if self.mask != 0 {
            self.mask = self.mask.wrapping_add(0x9e37_79b9) | 1;
        }
    }
}

/// One client socket.
pub(crate) struct Connection {
    /// The socket, registered by the fleet.
    pub(crate) stream: TcpStream,
    /// Whether the request offers a subprotocol, which the server then has to choose.
    wants_subprotocol: bool,
    /// While the answer to the upgrade is awaited: what was asked for.
    upgrading: Option<ClientRequest>,
    /// The beginning of a frame whose end has not arrived; shorter than the fleet's read buffer.
    tail: Vec<u8>,
    /// What is to be sent.
    pub(crate) outbox: Outbox,
}

impl Connection {
    /// Wraps a socket that is connecting, and queues the upgrade.
    pub(crate) fn new(
        stream: TcpStream,
        request: ClientRequest,
        wants_subprotocol: bool,
        masked: bool,
    ) -> Result<Self, HandshakeError> {
        let outbox = Outbox { bytes: request.to_bytes()?, mask: if masked { FIRST_MASK } else { 0 } };
        Ok(Self { stream, wants_subprotocol, upgrading: Some(request), tail: Vec::new(), outbox })
    }

    /// Whether anything is waiting to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.bytes.is_empty()
    }

    /// Sends what the socket takes; the rest waits for its next writable event.
    pub(crate) fn flush(&mut self) -> Result<(), std::io::Error> {
        let mut sent = 0;
        let result = loop {
            if sent == self.outbox.bytes.len() {
                break Ok(());
            }
            match self.stream.write(&self.outbox.bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not connected: the connection is still being made, and a writable event follows.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        self.outbox.bytes.drain(..sent);
        result
    }

    /// Reads what is there and hands each frame to `each`. A read that does not fill the buffer has emptied the
    /// socket, so no second one is made, unless `to_end` says that the peer has closed. `Some` when it has.
    pub(crate) fn receive(
        &mut self,
        number: usize,
        buffer: &mut [u8],
        to_end: bool,
        mut each: impl FnMut(&mut Outbox, Incoming<'_>) -> Result<(), BenchError>,
    ) -> Result<Option<Ended>, BenchError> {
        loop {
            let kept = self.tail.len();
            buffer[..kept].copy_from_slice(&self.tail);
            let filled = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Ok(Some(Ended::Eof)),
                Ok(count) => kept + count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => {
                    return Err(BenchError::Disconnected {
                        connection: number,
                        detail: format!(": {error}"),
                    });
                }
            };
            self.tail.clear();
            let mut rest = &buffer[..filled];
            if let Some(request) = &self.upgrading {
                match request.parse_response(rest) {
                    Ok(None) => rest = self.keep(rest),
                    Ok(Some((agreement, head))) if agreement.protocol.is_some() == self.wants_subprotocol => {
                        self.upgrading = None;
                        rest = &rest[head..];
                        each(&mut self.outbox, Incoming::Upgraded)?;
                    }
                    Ok(Some(_)) => {
                        let detail = "it agreed to no subprotocol".to_owned();
                        return Err(BenchError::Protocol { connection: number, detail });
                    }
                    Err(HandshakeError::Refused(status)) => {
                        return Err(BenchError::Refused { status, reason: upgrade::refusal(rest) });
                    }
                    Err(error) => {
                        return Err(BenchError::Protocol { connection: number, detail: error.to_string() });
                    }
                }
            }
            while let Some(head) =
                frame::skim(rest).map_err(|detail| BenchError::Protocol { connection: number, detail })?
            {
                let (whole, next) = rest.split_at(head.total());
                let payload = &whole[head.header..];
                rest = next;
                match head.opcode {
                    Opcode::Close => {
                        let (code, reason) = match CloseFrame::parse(payload) {
                            Ok(Some(close)) => (close.code, close.reason.to_owned()),
                            Ok(None) => (NO_CODE, String::new()),
                            Err(error) => {
                                return Err(BenchError::Protocol {
                                    connection: number,
                                    detail: error.to_string(),
                                });
                            }
                        };
                        return Ok(Some(Ended::Close(code, reason)));
                    }
                    Opcode::Ping => self.outbox.push(Opcode::Pong, payload),
                    Opcode::Pong => {}
                    _ => each(&mut self.outbox, Incoming::Frame { payload, wire: whole.len() })?,
                }
            }
            self.tail.extend_from_slice(rest);
            if filled < buffer.len() && !to_end {
                return Ok(None);
            }
        }
    }

    /// Keeps all of `bytes` for the next read and says that nothing is left.
    fn keep(&mut self, bytes: &[u8]) -> &'static [u8] {
        self.tail.extend_from_slice(bytes);
        &[]
    }
}
