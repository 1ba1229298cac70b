//! A blocking client of `tieline.v1` that hides nothing: it hands out every frame in the order it came.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_websocket::{ClientRequest, Decoder, Event, Limits, Opcode, Role, Shared, encode_masked};

use crate::processes::PATIENCE;

/// An open connection.
pub(crate) struct Client {
    pub(crate) id: String,
    stream: TcpStream,
    decoder: Decoder,
    shared: Shared,
    /// Bytes that were read and not decoded yet.
    unread: Vec<u8>,
    last_ack: u64,
    /// Notices of a gap that came, where they are expected; otherwise they are handed out as any frame.
    pub(crate) gaps: Option<u32>,
}

impl Client {
    /// Connects as a user and waits for `connected`.
    pub(crate) fn connect(node: SocketAddr, hub: &str, user: &str) -> Client {
        let path = format!("/client/hubs/{hub}?user={user}");
        let request = ClientRequest::new(&node.to_string(), &path).unwrap().protocol("tieline.v1");
        let mut stream = TcpStream::connect(node).expect("the node accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&request.to_bytes().unwrap()).unwrap();
        let mut read = Vec::new();
        let (_, head) = loop {
            let parsed = request.parse_response(&read);
            match parsed.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&read))) {
                Some(done) => break done,
                None => {
                    let mut chunk = [0; 4096];
                    let length = stream.read(&mut chunk).expect("the node answers");
                    assert!(length > 0, "the node closed within a head");
                    read.extend_from_slice(&chunk[..length]);
                }
            }
        };
        let mut client = Client {
            id: String::new(),
            stream,
            decoder: Decoder::new(Role::Client, None),
            shared: Shared::new(Limits { max_frame: 1 << 24, max_message: 1 << 24, max_fragments: 1 }),
            unread: read.split_off(head),
            last_ack: 0,
            gaps: None,
        };
        let connected = client.next();
        assert_eq!(connected["event"], "connected");
        client.id = connected["connectionId"].as_str().unwrap().to_owned();
        client
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&mut self, frame: &Value) {
        let mut bytes = Vec::new();
        encode_masked(&mut bytes, Opcode::Text, frame.to_string().as_bytes(), [7, 1, 8, 2]);
        self.stream.write_all(&bytes).expect("the node reads");
    }

    /// Sends a frame that asks for an ack, and returns the ack's number.
    pub(crate) fn send_acked(&mut self, mut frame: Value) -> u64 {
        self.last_ack += 1;
        frame["ackId"] = self.last_ack.into();
        self.send(&frame);
        self.last_ack
    }

    /// Sends a frame and waits for its ack, which must be the next that comes.
    pub(crate) fn ask(&mut self, frame: Value) -> Value {
        let number = self.send_acked(frame);
        let ack = self.next();
        assert_eq!((&ack["type"], &ack["ackId"]), (&json!("ack"), &json!(number)), "{ack}");
        ack
    }

    /// Joins a group and waits for the ack.
    pub(crate) fn join(&mut self, group: &str) {
        let ack = self.ask(json!({"type": "joinGroup", "group": group}));
        assert_eq!(ack["success"], true, "{ack}");
    }

    /// The next frame, or `None` when none came in time, or the node has closed.
    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let mut input = &mut self.unread[..];
            let before = input.len();
            let event = self.decoder.decode(&mut input, &mut self.shared).expect("the node speaks WebSocket");
            let frame = match event {
                Some(Event::Message { payload, .. }) => Some(serde_json::from_slice(payload).unwrap()),
                Some(Event::Close(close)) => {
                    Some(json!({"type": "close", "code": close.map_or(1005, |close| close.code)}))
                }
                Some(_) => None,
                None => {
                    self.unread.clear();
                    if !self.read_until(deadline) {
                        return None;
                    }
                    continue;
                }
            };
            let used = before - input.len();
            self.unread.drain(..used);
            match (&mut self.gaps, &frame) {
                (Some(gaps), Some(frame)) if frame["event"] == "gap" => *gaps += 1,
                (_, Some(_)) => return frame,
                (_, None) => {}
            }
        }
    }

    /// Reads what there is; false at the end of the stream or of the time.
    fn read_until(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(length) => {
                self.unread.extend_from_slice(&chunk[..length]);
                length > 0
            }
            Err(error) => {
                let known = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::ConnectionReset];
                assert!(known.contains(&error.kind()), "{error}");
                false
            }
        }
    }

    /// The next frame, which must come.
    pub(crate) fn next(&mut self) -> Value {
        self.next_within(PATIENCE).expect("a frame comes")
    }

    /// The data of the next frame, which must be a message.
    pub(crate) fn next_data(&mut self) -> Value {
        let mut message = self.next();
        assert_eq!(message["type"], "message", "{message}");
        message["data"].take()
    }

    /// Proves that nothing else was sent to this connection up to now.
    pub(crate) fn expect_nothing(&mut self) {
        self.send(&json!({"type": "ping"}));
        let next = self.next();
        assert_eq!(next["type"], "pong", "{next}");
    }
}

/// The frame of a text to a user.
pub(crate) fn to_user(user: &str, data: impl Into<Value>) -> Value {
    json!({"type": "sendToUser", "user": user, "dataType": "json", "data": data.into()})
}

/// The frame of a text to a group.
pub(crate) fn to_group(group: &str, data: impl Into<Value>) -> Value {
    json!({"type": "sendToGroup", "group": group, "dataType": "json", "data": data.into()})
}

/// Asserts what an ack says became of a message.
#[track_caller]
pub(crate) fn assert_ack(ack: &Value, delivered: u64, unknown: u64) {
    let expected = json!([true, delivered, 0, unknown]);
    assert_eq!(json!([ack["success"], ack["delivered"], ack["queued"], ack["unknown"]]), expected, "{ack}");
}
