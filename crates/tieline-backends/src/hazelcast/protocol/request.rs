//! Calls to bytes.

use super::data::{self, signed};
use super::frame::HEAD;
use super::{flags, kind};

/// What the client is, to members. They know the types of their own clients; any other word is taken as well.
const CLIENT: &[u8] = b"RST";

/// The version of the protocol's words that is spoken, as that of a client of the time.
const VERSION: &[u8] = b"5.5.0";

/// The version of the values' format.
const SERIALIZATION: u8 = 1;

/// Stands for the partition of a call that goes to none.
pub(super) const NOWHERE: i32 = -1;

/// Whom a client says that it is.
pub(in super::super) struct Greeter<'a> {
    /// Any number that no other connection has.
    pub(in super::super) id: u128,
    /// The name of the Hazelcast cluster.
    pub(in super::super) cluster: &'a str,
    /// User and password, where there are any.
    pub(in super::super) login: Option<(&'a str, &'a str)>,
    /// What members call the client in their lists and logs.
    pub(in super::super) name: &'a str,
}

/// Appends the first call on a connection: who the client is.
pub(in super::super) fn authenticate(out: &mut Vec<u8>, correlation: i64, who: &Greeter<'_>) {
    let mut call = Call::begin(out, kind::AUTHENTICATION, correlation, NOWHERE);
    // It has an id: two numbers of 64 bits.
    call.out.push(0);
    call.out.extend_from_slice(&((who.id >> 64) as u64).to_le_bytes());
    call.out.extend_from_slice(&(who.id as u64).to_le_bytes());
    call.out.push(SERIALIZATION);
    call.text(who.cluster.as_bytes());
    match who.login {
        Some((user, password)) => {
            call.text(user.as_bytes());
            call.text(password.as_bytes());
        }
        None => {
            call.frame(flags::NULL);
            call.frame(flags::NULL);
        }
    }
    call.text(CLIENT);
    call.text(VERSION);
    call.text(who.name.as_bytes());
    // A list of labels, with one in it, by which operators find us.
    call.frame(flags::OPEN);
    call.text(b"tieline");
    call.frame(flags::CLOSE);
    call.end();
}

/// Appends a call that asks for a sign of life.
pub(in super::super) fn ping(out: &mut Vec<u8>, correlation: i64) {
    Call::begin(out, kind::PING, correlation, NOWHERE).end();
}

/// Appends a call that subscribes to a topic. Events bear this correlation, and may come before the response does.
pub(in super::super) fn listen(out: &mut Vec<u8>, correlation: i64, topic: &str) {
    let mut call = Call::begin(out, kind::LISTEN, correlation, NOWHERE);
    // Not only to what this very member publishes.
    call.out.push(0);
    call.text(topic.as_bytes());
    call.end();
}

/// A call that publishes an array of bytes to a topic. What is appended to `out` before [`end`](Publication::end) is the array.
pub(in super::super) struct Publication<'a> {
    call: Call<'a>,
    /// Where the array begins.
    array: usize,
}

impl<'a> Publication<'a> {
    /// Begins one to this topic, which is in this partition.
    pub(in super::super) fn begin(
        out: &'a mut Vec<u8>,
        correlation: i64,
        topic: &str,
        partition: i32,
    ) -> Self {
        let mut call = Call::begin(out, kind::PUBLISH, correlation, partition);
        call.text(topic.as_bytes());
        call.frame(0);
        let array = data::begin_bytes(call.out);
        Publication { call, array }
    }

    /// Appends to the array.
    pub(in super::super) fn push(&mut self, bytes: &[u8]) {
        self.call.out.extend_from_slice(bytes);
    }

    /// How long the array is so far.
    pub(in super::super) fn len(&self) -> usize {
        self.call.out.len() - self.array
    }

    /// The array is whole.
    pub(in super::super) fn end(self) {
        data::end_bytes(self.call.out, self.array);
        self.call.end();
    }
}

/// One call, which is appended to what is to be written. A frame's length is written when the next one begins.
pub(super) struct Call<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// Where its last frame begins.
    last: usize,
}

impl<'a> Call<'a> {
    /// Begins one. Its fixed parameters are appended to `out` before the first frame.
    pub(super) fn begin(out: &'a mut Vec<u8>, kind: i32, correlation: i64, partition: i32) -> Self {
        let last = out.len();
        let call = Call { out, last };
        call.out.extend_from_slice(&[0; 4]);
        call.out.extend_from_slice(&flags::WHOLE.to_le_bytes());
        call.out.extend_from_slice(&kind.to_le_bytes());
        call.out.extend_from_slice(&correlation.to_le_bytes());
        call.out.extend_from_slice(&partition.to_le_bytes());
        call
    }

    /// Begins another frame.
    pub(super) fn frame(&mut self, flags: u16) {
        self.measure();
        self.last = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(&flags.to_le_bytes());
    }

    /// A frame of these bytes.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.frame(0);
        self.out.extend_from_slice(text);
    }

    /// Writes the last frame's length into it.
    fn measure(&mut self) {
        let len = signed(self.out.len() - self.last);
        self.out[self.last..][..4].copy_from_slice(&len.to_le_bytes());
    }

    /// Marks its last frame as such.
    pub(super) fn end(mut self) {
        self.measure();
        let place = &mut self.out[self.last..][4..HEAD];
        let marks = u16::from_le_bytes([place[0], place[1]]) | flags::LAST;
        place.copy_from_slice(&marks.to_le_bytes());
    }
}
