//! [`Socket`]: a WebSocket that hands out every frame in the order it came.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tieline_websocket::{
    ClientRequest, Decoder, Event, Kind, Limits, Opcode, Role, Shared, encode_close_masked, encode_masked,
};

use super::PATIENCE;
use super::http::{Answer, connect, read_answer, read_some};

/// What a client of a WebSocket may receive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    /// With its code, 1005 for none.
    Close(u16, String),
    /// The socket ended.
    End,
}

/// An open WebSocket.
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    pub(crate) protocol: Option<String>,
    decoder: Decoder,
    shared: Shared,
    /// Bytes that were read and not decoded yet.
    unread: Vec<u8>,
}

impl Socket {
    /// Opens a WebSocket; an answer other than 101 is the error.
    pub(crate) fn open(address: SocketAddr, request: ClientRequest) -> Result<Socket, Answer> {
        Socket::open_with(address, b"", request, b"")
    }

    /// The same with bytes that are sent together with the request, before and behind it.
    pub(crate) fn open_with(
        address: SocketAddr,
        before: &[u8],
        request: ClientRequest,
        behind: &[u8],
    ) -> Result<Socket, Answer> {
        let mut stream = connect(address);
        let bytes = [before, &request.to_bytes().unwrap(), behind].concat();
        stream.write_all(&bytes).unwrap();
        Socket::shake(stream, &request)
    }

    /// Waits on a stream for the answer to a request that was sent.
    pub(crate) fn shake(mut stream: TcpStream, request: &ClientRequest) -> Result<Socket, Answer> {
        let mut read = Vec::new();
        let (agreement, head) = loop {
            match request.parse_response(&read) {
                Ok(Some(done)) => break done,
                Ok(None) => {
                    let more = read_some(&mut stream, &mut read).expect("the server answers");
                    assert!(more, "the server closed within a head");
                }
                Err(_) => return Err(read_answer(&mut stream, read)),
            }
        };
        let mode = agreement.deflate.map(|params| params.inflate_mode(Role::Client));
        Ok(Socket {
            stream,
            protocol: agreement.protocol,
            decoder: Decoder::new(Role::Client, mode),
            shared: Shared::new(Limits { max_frame: 1 << 30, max_message: 1 << 30, max_fragments: u32::MAX }),
            unread: read.split_off(head),
        })
    }

    /// Sends a text; the error is the stream's.
    pub(crate) fn try_send(&mut self, text: &str) -> io::Result<()> {
        let mut frame = Vec::new();
        encode_masked(&mut frame, Opcode::Text, text.as_bytes(), [7, 1, 8, 2]);
        self.stream.write_all(&frame)
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.try_send(text).expect("the server reads");
    }

    pub(crate) fn close(&mut self, code: u16) {
        let mut frame = Vec::new();
        encode_close_masked(&mut frame, Some(code), "", [7, 1, 8, 2]);
        self.stream.write_all(&frame).unwrap();
    }

    /// The next message, close or end, which must come. Pings are passed over; one that only asks whether the client lives is answered, so
    /// that whoever listens for long is not taken for gone.
    pub(crate) fn next(&mut self) -> Frame {
        self.next_within(PATIENCE).expect("the server says something")
    }

    /// The same, or `None` when nothing came in time.
    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<Frame> {
        let deadline = Instant::now() + limit;
        loop {
            let mut input = &mut self.unread[..];
            let before = input.len();
            let mut is_asked = false;
            let event =
                self.decoder.decode(&mut input, &mut self.shared).expect("the server speaks WebSocket");
            let frame = match event {
                Some(Event::Message { kind: Kind::Text, payload }) => {
                    Some(Frame::Text(String::from_utf8(payload.to_vec()).unwrap()))
                }
                Some(Event::Message { kind: Kind::Binary, payload }) => Some(Frame::Binary(payload.to_vec())),
                Some(Event::Close(close)) => Some(close.map_or(Frame::Close(1005, String::new()), |close| {
                    Frame::Close(close.code, close.reason.to_owned())
                })),
                Some(Event::Ping(payload)) => {
                    is_asked = payload.is_empty();
                    None
                }
                Some(Event::Pong(_)) => None,
                None => {
                    self.unread.clear();
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.stream.set_read_timeout(Some(left)).unwrap();
                    if !read_some(&mut self.stream, &mut self.unread)? {
                        return Some(Frame::End);
                    }
                    continue;
                }
            };
            let used = before - input.len();
            self.unread.drain(..used);
            if is_asked {
                let mut pong = Vec::new();
                encode_masked(&mut pong, Opcode::Pong, b"", [7, 1, 8, 2]);
                // The server may have closed since.
                let _ = self.stream.write_all(&pong);
            }
            if frame.is_some() {
                return frame;
            }
        }
    }

    /// The next message, which must be JSON.
    pub(crate) fn json(&mut self) -> Value {
        match self.next() {
            Frame::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} in place of JSON"),
        }
    }
}
