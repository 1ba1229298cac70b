//! A client that hides nothing: requests as bytes, answers as they came, frames one by one.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tieline_websocket::{
    ClientRequest, Decoder, Event, Kind, Limits, Opcode, Role, Shared, encode_close_masked, encode_masked,
};

/// How long anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head without its first line, in lower case.
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &&str| line.split_once(": ").is_some_and(|(found, _)| found == name);
        self.headers.lines().find(line).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    /// The code of an error, which body and header must agree on.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("an error's body is JSON");
        let code = body["code"].as_str().expect("an error has a code").to_owned();
        assert_eq!(self.header("x-ms-error-code"), Some(&*code.to_lowercase()));
        assert!(!body["message"].as_str().unwrap().is_empty());
        code
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes and reads until the server closes; what came may be nothing.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The server may have refused and closed before it read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the server neither answers nor closes: {error}"),
    }
}

/// Sends a request and reads one answer.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    let _ = stream.write_all(request.as_bytes());
    read_answer(&mut stream)
}

/// GET of a path with a proper Host and these headers, each with its line end.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n"))
}

fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(
            read_some(stream, &mut bytes),
            "the server closed within a head: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = head.split_once("\r\n").unwrap().1.to_lowercase();
    let mut answer = Answer { status, headers, body: String::new() };
    let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_end + length {
        assert!(read_some(stream, &mut bytes), "the server closed within a body");
    }
    answer.body = String::from_utf8(bytes[head_end..head_end + length].to_vec()).unwrap();
    answer
}

/// Reads what there is; false at the end of the stream.
fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk) {
        Ok(read) => {
            bytes.extend_from_slice(&chunk[..read]);
            read > 0
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("the server says nothing: {error}"),
    }
}

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
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) protocol: Option<String>,
    decoder: Decoder,
    shared: Shared,
    /// Bytes that were read and not decoded yet.
    unread: Vec<u8>,
}

impl Client {
    /// Opens a WebSocket; an answer other than 101 is the error.
    pub(crate) fn open(address: SocketAddr, request: ClientRequest) -> Result<Client, Answer> {
        Client::open_with(address, request, &[])
    }

    /// The same with bytes that are sent together with the request.
    pub(crate) fn open_with(
        address: SocketAddr,
        request: ClientRequest,
        more: &[u8],
    ) -> Result<Client, Answer> {
        let mut stream = connect(address);
        let mut bytes = request.to_bytes().unwrap();
        bytes.extend_from_slice(more);
        stream.write_all(&bytes).unwrap();
        let mut read = Vec::new();
        let (agreement, head) = loop {
            match request.parse_response(&read) {
                Ok(Some(done)) => break done,
                Ok(None) => assert!(read_some(&mut stream, &mut read), "the server closed within a head"),
                Err(_) => return Err(ask(address, std::str::from_utf8(&bytes).unwrap())),
            }
        };
        let mode = agreement.deflate.map(|params| params.inflate_mode(Role::Client));
        Ok(Client {
            stream,
            protocol: agreement.protocol,
            decoder: Decoder::new(Role::Client, mode),
            shared: Shared::new(Limits { max_frame: 1 << 30, max_message: 1 << 30, max_fragments: u32::MAX }),
            unread: read.split_off(head),
        })
    }

    pub(crate) fn send(&mut self, text: &str) {
        let mut frame = Vec::new();
        encode_masked(&mut frame, Opcode::Text, text.as_bytes(), [7, 1, 8, 2]);
        self.stream.write_all(&frame).unwrap();
    }

    pub(crate) fn close(&mut self, code: u16) {
        let mut frame = Vec::new();
        encode_close_masked(&mut frame, Some(code), "", [7, 1, 8, 2]);
        self.stream.write_all(&frame).unwrap();
    }

    /// The next message, close or end. Pings are passed over.
    pub(crate) fn next(&mut self) -> Frame {
        loop {
            let mut input = &mut self.unread[..];
            let before = input.len();
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
                Some(_) => None,
                None => {
                    self.unread.clear();
                    if !read_some(&mut self.stream, &mut self.unread) {
                        return Frame::End;
                    }
                    continue;
                }
            };
            let used = before - input.len();
            self.unread.drain(..used);
            if let Some(frame) = frame {
                return frame;
            }
        }
    }

    /// The next message, which must be JSON.
    pub(crate) fn json(&mut self) -> serde_json::Value {
        match self.next() {
            Frame::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} in place of JSON"),
        }
    }
}
