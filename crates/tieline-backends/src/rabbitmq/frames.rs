//! The frames of AMQP 0-9-1 and the words in them, as far as a node needs them. No I/O.
//!
//! ```text
//! frame:    type 1 · channel 2 · size 4 · so many bytes · 0xCE
//! method:   class 2 · method 2 · arguments
//! header:   class 2 · 0 2 · size of the content 8 · properties
//! ```
//!
//! A message is a method, a header, and as many bodies as its content needs. Everything is big-endian. Tested here, against bytes that
//! were written by hand from the specification.

/// What a connection begins with: the protocol and its version.
pub(super) const GREETING: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// The frames between nodes and server are no longer than this, which is what a server proposes by default.
pub(super) const FRAME_MAX: usize = 131_072;

/// The shortest longest frame that a server may insist on.
pub(super) const FRAME_MIN: usize = 4096;

/// What is around the bytes of a frame.
pub(super) const AROUND: usize = 8;

/// What each frame ends with.
const END: u8 = 0xCE;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// The class of methods and headers that carry messages.
const BASIC: u16 = 60;

/// What cannot be frames of this protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// A frame as it is on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Method(Method<'a>),
    /// So many bytes of content follow.
    Header(u64),
    Body(&'a [u8]),
    Heartbeat,
}

/// A method that a server sends. Who asks one thing after the other on one channel needs nothing of the plain answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Method<'a> {
    /// The server greets, and can do these mechanisms of authentication.
    Start { mechanisms: &'a [u8] },
    /// What it proposes: the most bytes of a frame.
    Tune { frame_max: u32 },
    /// The server ends the connection, or the channel, and says why.
    Close { text: &'a [u8] },
    /// It has heard that the connection is over.
    CloseOk,
    /// It takes no messages until further notice, and says why.
    Blocked { reason: &'a [u8] },
    /// The queue that was consumed is gone.
    Cancel,
    /// A message from this exchange, whose content follows.
    Deliver { exchange: &'a [u8] },
    /// A message that no queue takes comes back, and its content follows.
    Return,
    /// The server has taken charge of what was published with this number, and everything before if it says so.
    Ack { tag: u64, and_before: bool },
    /// It has not.
    Nack { tag: u64, and_before: bool },
    /// Anything else.
    Other,
}

/// Reads the first frame, and how long it is; `None` when it is not whole.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Garbage> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    if ![METHOD, HEADER, BODY, HEARTBEAT].contains(kind) {
        return Err(Garbage);
    }
    let Some(size) = bytes.get(3..7) else { return Ok(None) };
    let size = u32::from_be_bytes(size.try_into().expect("four bytes were taken")) as usize;
    let whole = size + AROUND;
    if whole > FRAME_MAX {
        return Err(Garbage);
    }
    let Some(frame) = bytes.get(..whole) else { return Ok(None) };
    if frame[whole - 1] != END {
        return Err(Garbage);
    }
    let inside = &frame[7..whole - 1];
    let frame = match *kind {
        METHOD => Frame::Method(method(inside).ok_or(Garbage)?),
        HEADER => Frame::Header(Reader(inside).header().ok_or(Garbage)?),
        BODY => Frame::Body(inside),
        _ => Frame::Heartbeat,
    };
    Ok(Some((frame, whole)))
}

/// Reads a method; `None` when its arguments are not those of its kind.
fn method(bytes: &[u8]) -> Option<Method<'_>> {
    let mut reader = Reader(bytes);
    let method = match (reader.u16()?, reader.u16()?) {
        (10, 10) => {
            reader.take(2)?;
            reader.long()?;
            Method::Start { mechanisms: reader.long()? }
        }
        (10, 30) => {
            reader.take(2)?;
            Method::Tune { frame_max: reader.u32()? }
        }
        (10, 50) | (20, 40) => {
            reader.take(2)?;
            Method::Close { text: reader.short()? }
        }
        (10, 51) => Method::CloseOk,
        (10, 60) => Method::Blocked { reason: reader.short()? },
        (BASIC, 30) => Method::Cancel,
        (BASIC, 50) => Method::Return,
        (BASIC, 60) => {
            reader.short()?;
            reader.take(9)?;
            Method::Deliver { exchange: reader.short()? }
        }
        (BASIC, 80) => Method::Ack { tag: reader.u64()?, and_before: reader.u8()? & 1 != 0 },
        (BASIC, 120) => Method::Nack { tag: reader.u64()?, and_before: reader.u8()? & 1 != 0 },
        _ => Method::Other,
    };
    Some(method)
}

/// Takes arguments off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A short string.
    fn short(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// A long string, or a table.
    fn long(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// A content header: the size of the content.
    fn header(&mut self) -> Option<u64> {
        self.take(4)?;
        self.u64()
    }
}

/// A value of a table.
pub(super) enum Value<'a> {
    Yes,
    Number(i64),
    Text(&'a str),
    Table(&'a [(&'a str, Value<'a>)]),
}

/// Appends the arguments of a method.
pub(super) struct Arguments<'a>(&'a mut Vec<u8>);

impl Arguments<'_> {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A short string: at most 255 bytes.
    pub(super) fn short(&mut self, text: &[u8]) -> &mut Self {
        self.0.push(u8::try_from(text.len()).expect("a short string is short"));
        self.0.extend_from_slice(text);
        self
    }

    pub(super) fn long(&mut self, text: &[u8]) -> &mut Self {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text);
        self
    }

    pub(super) fn table(&mut self, entries: &[(&str, Value<'_>)]) -> &mut Self {
        let start = self.0.len();
        self.u32(0);
        for (name, value) in entries {
            self.short(name.as_bytes());
            match value {
                Value::Yes => {
                    self.u8(b't').u8(1);
                }
                Value::Number(number) => {
                    self.u8(b'l').0.extend_from_slice(&number.to_be_bytes());
                }
                Value::Text(text) => {
                    self.u8(b'S').long(text.as_bytes());
                }
                Value::Table(entries) => {
                    self.u8(b'F').table(entries);
                }
            }
        }
        fill(self.0, start);
        self
    }
}

/// Writes at `start`, where there is room for it, how many bytes follow that room.
fn fill(out: &mut [u8], start: usize) {
    let size = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Appends a frame whose bytes `write` appends.
fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    fill(out, start);
    out.push(END);
}

/// Appends a method.
pub(super) fn write(
    out: &mut Vec<u8>,
    channel: u16,
    (class, method): (u16, u16),
    arguments: impl FnOnce(&mut Arguments<'_>),
) {
    frame(out, METHOD, channel, |out| {
        let mut written = Arguments(out);
        written.u16(class).u16(method);
        arguments(&mut written);
    });
}

/// Appends a message that no disk sees, of these parts, in frames of at most so many bytes. A server that has no queue for it gives it
/// back.
pub(super) fn publish(
    out: &mut Vec<u8>,
    channel: u16,
    frame_max: usize,
    (exchange, key): (&[u8], &[u8]),
    parts: [&[u8]; 2],
) {
    /// The flag that asks for messages back that no queue takes.
    const MANDATORY: u8 = 1;
    write(out, channel, (BASIC, 40), |arguments| {
        arguments.u16(0).short(exchange).short(key).u8(MANDATORY);
    });
    let size: usize = parts.iter().map(|part| part.len()).sum();
    frame(out, HEADER, channel, |out| {
        out.extend_from_slice(&BASIC.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(size as u64).to_be_bytes());
        // No properties.
        out.extend_from_slice(&[0; 2]);
    });
    let [mut first, mut second] = parts;
    let mut left = size;
    while left > 0 {
        let body = left.min(frame_max - AROUND);
        left -= body;
        frame(out, BODY, channel, |out| {
            let (begins, rest) = first.split_at(body.min(first.len()));
            let (ends, rest_of_second) = second.split_at(body - begins.len());
            out.extend_from_slice(begins);
            out.extend_from_slice(ends);
            (first, second) = (rest, rest_of_second);
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A method frame, written by hand.
    fn by_hand(channel: u8, payload: &[u8]) -> Vec<u8> {
        let head = [1, 0, channel, 0, 0, 0, payload.len() as u8];
        [&head[..], payload, &[END]].concat()
    }

    #[test]
    fn what_a_server_says_is_read() {
        let close = [&[0, 10, 0, 50, 1, 147, 4][..], b"gone", &[0, 0, 0, 0]].concat();
        let deliver =
            [&[0, 60, 0, 60, 1][..], b"t", &[0, 0, 0, 0, 0, 0, 0, 7, 0, 3], b"all", &[1], b"k"].concat();
        let start =
            [&[0, 10, 0, 10, 0, 9, 0, 0, 0, 2, 9, 9, 0, 0, 0, 5][..], b"PLAIN", &[0, 0, 0, 0]].concat();
        let cases: [(&[u8], Method<'_>); 10] = [
            (&start, Method::Start { mechanisms: b"PLAIN" }),
            (&[0, 10, 0, 30, 7, 255, 0, 2, 0, 0, 0, 60], Method::Tune { frame_max: 131_072 }),
            (&close, Method::Close { text: b"gone" }),
            (&[0, 10, 0, 51], Method::CloseOk),
            (&[0, 10, 0, 60, 2, 111, 104], Method::Blocked { reason: b"oh" }),
            (&[0, 60, 0, 30, 1, 116, 0], Method::Cancel),
            (&deliver, Method::Deliver { exchange: b"all" }),
            (&[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 1, 2, 1], Method::Ack { tag: 258, and_before: true }),
            (&[0, 60, 0, 120, 0, 0, 0, 0, 0, 0, 0, 2, 2], Method::Nack { tag: 2, and_before: false }),
            (&[0, 85, 0, 11], Method::Other),
        ];
        for (payload, said) in cases {
            let bytes = by_hand(1, payload);
            assert_eq!(read(&bytes), Ok(Some((Frame::Method(said), bytes.len()))), "{payload:?}");
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{end} of {payload:?}");
            }
        }
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, END];
        assert_eq!(read(&heartbeat), Ok(Some((Frame::Heartbeat, 8))));
    }

    #[test]
    fn what_is_no_frame_is_told_at_once() {
        let endless = [1, 0, 0, 0, 2, 0, 1];
        let without_end = [8, 0, 0, 0, 0, 0, 0, 0];
        let short = by_hand(1, &[0, 60, 0, 80, 0]);
        for bytes in [&b"HTTP/1.1 400"[..], GREETING, &[0x15, 3, 1], &endless, &without_end, &short] {
            assert_eq!(read(bytes), Err(Garbage), "{bytes:?}");
        }
    }

    #[test]
    fn methods_are_written_as_the_specification_says() {
        let mut out = Vec::new();
        write(&mut out, 1, (50, 10), |arguments| {
            arguments.u16(0).short(b"q").u8(4);
            arguments.table(&[("n", Value::Number(5)), ("s", Value::Text("d")), ("y", Value::Yes)]);
        });
        let table =
            [&[1][..], b"nl", &[0, 0, 0, 0, 0, 0, 0, 5, 1], b"sS", &[0, 0, 0, 1], b"d", &[1], b"yt", &[1]];
        let table = table.concat();
        let payload = [&[0, 50, 0, 10, 0, 0, 1][..], b"q", &[4, 0, 0, 0, table.len() as u8], &table].concat();
        assert_eq!(out, by_hand(1, &payload));

        let mut out = Vec::new();
        write(&mut out, 0, (10, 11), |arguments| {
            arguments.table(&[("c", Value::Table(&[("a", Value::Yes)]))]);
        });
        let payload = [&[0, 10, 0, 11, 0, 0, 0, 11, 1][..], b"cF", &[0, 0, 0, 4, 1], b"at", &[1]].concat();
        assert_eq!(out, by_hand(0, &payload));
    }

    proptest! {
        #[test]
        fn a_message_is_cut_into_frames_and_none_is_too_long(
            first in prop::collection::vec(any::<u8>(), 0..300),
            second in prop::collection::vec(any::<u8>(), 0..300),
            frame_max in AROUND + 1..400,
        ) {
            let mut out = Vec::new();
            publish(&mut out, 1, frame_max, (b"exchange", b"key"), [&first, &second]);
            let mut rest = &out[..];
            let mut frames = Vec::new();
            while let Some((frame, len)) = read(rest).unwrap() {
                prop_assert!(frames.len() < 2 || len <= frame_max);
                frames.push(frame);
                rest = &rest[len..];
            }
            prop_assert!(rest.is_empty());
            let sent = [first, second].concat();
            prop_assert_eq!(&frames[..2], &[Frame::Method(Method::Other), Frame::Header(sent.len() as u64)]);
            let bodies: Vec<u8> = frames[2..]
                .iter()
                .flat_map(|frame| match frame {
                    Frame::Body(bytes) => bytes.to_vec(),
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(bodies, sent);
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read(&by_hand(0, &bytes));
        }
    }
}
