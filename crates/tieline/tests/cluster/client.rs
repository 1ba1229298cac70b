//! A blocking client of `tieline.v1` that hands out every frame in the order it came, but for notices of a gap, which it counts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_websocket::ClientRequest;

use crate::support::PATIENCE;
use crate::support::http::Answer;
use crate::support::socket::{Frame, Socket};

/// An open connection.
pub(crate) struct Client {
    pub(crate) id: String,
    socket: Socket,
    last_ack: u64,
    /// Notices of a gap that came. Whoever connects or joins before all nodes know of it, on a machine that is too busy, is told of one too.
    pub(crate) gaps: u32,
}

impl Client {
    /// Connects as a user and waits for `connected`.
    pub(crate) fn connect(node: SocketAddr, hub: &str, user: &str) -> Client {
        Client::enter(node, hub, &format!("user={user}")).unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    /// The same with any query, by a token say; an answer other than 101 is the error.
    pub(crate) fn enter(node: SocketAddr, hub: &str, query: &str) -> Result<Client, Answer> {
        let path = format!("/client/hubs/{hub}?{query}");
        let request = ClientRequest::new(&node.to_string(), &path).unwrap().protocol("tieline.v1");
        let socket = Socket::open(node, request)?;
        let mut client = Client { id: String::new(), socket, last_ack: 0, gaps: 0 };
        let connected = client.next();
        assert_eq!(connected["event"], "connected");
        client.id = connected["connectionId"].as_str().unwrap().to_owned();
        Ok(client)
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&mut self, frame: &Value) {
        self.socket.send(&frame.to_string());
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

    /// The same, or `None` when the node dies meanwhile.
    pub(crate) fn try_ask(&mut self, mut frame: Value) -> Option<Value> {
        self.last_ack += 1;
        frame["ackId"] = self.last_ack.into();
        self.socket.try_send(&frame.to_string()).ok()?;
        let ack = self.next_within(PATIENCE)?;
        assert_eq!((&ack["type"], &ack["ackId"]), (&json!("ack"), &json!(self.last_ack)), "{ack}");
        Some(ack)
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
            let frame = self.next_of_all(deadline)?;
            if frame["event"] != "gap" {
                return Some(frame);
            }
            self.gaps += 1;
        }
    }

    /// Waits for a notice of a gap, which must be the next that comes.
    pub(crate) fn next_gap(&mut self, limit: Duration) {
        let told = self.next_of_all(Instant::now() + limit).expect("the gap is told in time");
        assert_eq!(told["event"], "gap", "{told}");
        self.gaps += 1;
    }

    fn next_of_all(&mut self, deadline: Instant) -> Option<Value> {
        match self.socket.next_within(deadline.saturating_duration_since(Instant::now()))? {
            Frame::Text(text) => Some(serde_json::from_str(&text).unwrap()),
            Frame::Close(code, _) => Some(json!({"type": "close", "code": code})),
            Frame::End => None,
            Frame::Binary(bytes) => panic!("{bytes:x?} in place of JSON"),
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
