//! [`Speaker`]: a client of any dialect, for tests that look only at who gets which number.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tieline_websocket::ClientRequest;

use crate::support::http::Answer;
use crate::support::socket::{Frame, Socket};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Tieline,
    Azure,
    Reliable,
    Plain,
}

impl Dialect {
    pub(crate) const ALL: [Dialect; 4] =
        [Dialect::Tieline, Dialect::Azure, Dialect::Reliable, Dialect::Plain];

    fn subprotocol(self) -> Option<&'static str> {
        match self {
            Dialect::Tieline => Some("tieline.v1"),
            Dialect::Azure => Some("json.webpubsub.azure.v1"),
            Dialect::Reliable => Some("json.reliable.webpubsub.azure.v1"),
            Dialect::Plain => None,
        }
    }
}

/// What a client gets.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// The number in a message.
    Message(usize),
    /// With its number, as it came.
    Ack(u64, Value),
    /// A plain client's receiver is nowhere.
    NotFound,
    /// Everything that was sent to this connection before was handed out.
    Fence,
    /// The server closes, with this code.
    Close(u16),
    End,
}

/// An open connection.
pub(crate) struct Speaker {
    pub(crate) dialect: Dialect,
    /// As the server calls the connection; plain clients are not told.
    pub(crate) id: Option<String>,
    /// What a connection of the reliable dialect is recovered by.
    token: String,
    /// The number of the last message on the reliable dialect.
    sequence: u64,
    /// Messages that came before may come again, before new ones.
    is_recovered: bool,
    last_ack: u64,
    socket: Socket,
}

impl Speaker {
    /// Connects as a user and waits until it is connected for all others.
    pub(crate) fn connect(address: SocketAddr, dialect: Dialect, hub: &str, user: &str) -> Speaker {
        let path = match dialect {
            Dialect::Plain => format!("/client/{user}?hub={hub}"),
            _ => format!("/client/hubs/{hub}?user={user}"),
        };
        let socket = open(address, dialect, &path).unwrap_or_else(|answer| panic!("{answer:?}"));
        let mut speaker = Speaker {
            dialect,
            id: None,
            token: String::new(),
            sequence: 0,
            is_recovered: false,
            last_ack: 0,
            socket,
        };
        match dialect {
            // Whoever is answered is connected.
            Dialect::Plain => speaker.wait_for_fence(),
            _ => speaker.be_greeted(),
        }
        speaker
    }

    fn be_greeted(&mut self) {
        let connected = self.socket.json();
        assert_eq!(connected["event"], "connected", "{connected}");
        self.id = Some(connected["connectionId"].as_str().unwrap().to_owned());
        self.token = connected["reconnectionToken"].as_str().unwrap_or_default().to_owned();
    }

    /// Asks on a new socket for this connection, as after a cut; the code of the close is the error.
    pub(crate) fn recover(&mut self, address: SocketAddr, hub: &str) -> Result<(), u16> {
        *self = self.recover_beside(address, hub)?;
        Ok(())
    }

    /// The same by another socket, while this one stays.
    pub(crate) fn recover_beside(&self, address: SocketAddr, hub: &str) -> Result<Speaker, u16> {
        self.recover_by(address, &format!("/client/hubs/{hub}?"))
    }

    /// The same by an address that ends with what stands before its own parameters.
    pub(crate) fn recover_by(&self, address: SocketAddr, before: &str) -> Result<Speaker, u16> {
        let id = self.id.as_ref().expect("the connection has been greeted");
        let query = format!("awps_connection_id={id}&awps_reconnection_token={}", self.token);
        let path = format!("{before}{query}");
        let mut socket = open(address, self.dialect, &path).expect("whoever wants to recover is accepted");
        match socket.next() {
            Frame::Close(code, _) => Err(code),
            Frame::Text(text) => {
                let connected: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(connected["connectionId"].as_str(), self.id.as_deref(), "{connected}");
                let token = connected["reconnectionToken"].as_str().unwrap().to_owned();
                Ok(Speaker { id: self.id.clone(), token, is_recovered: true, socket, ..*self })
            }
            other => panic!("{other:?} in place of a greeting"),
        }
    }

    /// Joins a group, and waits until every other node knows.
    pub(crate) fn join(&mut self, group: &str) {
        if self.dialect == Dialect::Plain {
            self.socket.send(&json!({"join": group}).to_string());
            return self.wait_for_fence();
        }
        let number = self.send(json!({"type": "joinGroup", "group": group}));
        match self.next() {
            Heard::Ack(ack, answer) => assert_eq!((Some(ack), &answer["success"]), (number, &json!(true))),
            other => panic!("{other:?} in place of an ack"),
        }
    }

    /// Sends a frame, and returns the number of its ack where there will be one.
    pub(crate) fn send(&mut self, mut frame: Value) -> Option<u64> {
        let number = (self.dialect != Dialect::Plain).then(|| {
            self.last_ack += 1;
            frame["ackId"] = self.last_ack.into();
            self.last_ack
        });
        self.socket.send(&frame.to_string());
        number
    }

    /// Asks for an answer behind everything that was sent to this connection up to now.
    pub(crate) fn send_fence(&mut self) {
        match self.dialect {
            Dialect::Plain => self.socket.send("no JSON"),
            _ => self.socket.send(r#"{"type":"ping"}"#),
        }
    }

    fn wait_for_fence(&mut self) {
        self.send_fence();
        let next = self.next();
        assert_eq!(next, Heard::Fence);
    }

    pub(crate) fn next(&mut self) -> Heard {
        self.next_within(crate::support::PATIENCE).expect("a frame comes")
    }

    /// What comes next, or `None` when nothing came in time.
    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<Heard> {
        let frame: Value = match self.socket.next_within(limit)? {
            Frame::Text(text) => serde_json::from_str(&text).unwrap(),
            Frame::Close(code, _) => return Some(Heard::Close(code)),
            Frame::End => return Some(Heard::End),
            Frame::Binary(bytes) => panic!("{bytes:x?} in place of JSON"),
        };
        if self.dialect == Dialect::Plain {
            return Some(match (frame["error"].as_str(), frame["msg"].as_u64()) {
                (None, Some(number)) => Heard::Message(number as usize),
                (Some("NotFound"), None) => Heard::NotFound,
                (Some("InvalidRequest"), None) => Heard::Fence,
                _ => panic!("{frame}"),
            });
        }
        if self.dialect == Dialect::Reliable && frame["type"] == "message" {
            let sequence = frame["sequenceId"].as_u64().unwrap();
            if self.is_recovered && sequence <= self.sequence {
                // It came before the cut, and the server was not told in time.
                return self.next_within(limit);
            }
            // After the death of its node they begin anew, above all that there were.
            let is_resumed = self.is_recovered && sequence >> 32 > self.sequence >> 32;
            let last = if is_resumed { sequence >> 32 << 32 } else { self.sequence };
            assert_eq!(sequence, last + 1, "{frame}");
            (self.sequence, self.is_recovered) = (sequence, false);
        }
        Some(match frame["type"].as_str() {
            Some("message") => Heard::Message(frame["data"].as_u64().unwrap() as usize),
            Some("ack") => Heard::Ack(frame["ackId"].as_u64().unwrap(), frame),
            Some("pong") => Heard::Fence,
            _ => panic!("{frame}"),
        })
    }

    /// How often the reliable dialect has begun to number anew.
    pub(crate) fn generation(&self) -> u64 {
        self.sequence >> 32
    }

    /// Acknowledges every message that came so far.
    pub(crate) fn acknowledge(&mut self) {
        self.socket.send(&json!({"type": "sequenceAck", "sequenceId": self.sequence}).to_string());
    }
}

fn open(address: SocketAddr, dialect: Dialect, path: &str) -> Result<Socket, Answer> {
    let request = ClientRequest::new(&address.to_string(), path).unwrap();
    let request = match dialect.subprotocol() {
        Some(name) => request.protocol(name),
        None => request,
    };
    Socket::open(address, request)
}
