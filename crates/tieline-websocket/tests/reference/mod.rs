//! A slow decoder, written a second time from the RFCs without a look at the fast one: it sees the whole stream at once,
//! takes it byte by byte, and copies everything. What it says is what the fast one must say.

use flate2::{Decompress, FlushDecompress, Status};
use tieline_websocket::{DecodeError, Event, Kind, Limits};

/// An event that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owned {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind, payload } => Self::Message(kind, payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(frame) => Self::Close(frame.map(|frame| (frame.code, frame.reason.to_owned()))),
        }
    }
}

/// The events of a stream, and the error that ended it, if one did. A close frame ends it too.
pub(crate) type Outcome = (Vec<Owned>, Option<DecodeError>);

/// Why reading stops.
enum Stop {
    /// The stream has no more bytes.
    End,
    /// The peer did wrong.
    Error(DecodeError),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Error(error)
    }
}

/// The stream, and what is known of it.
pub(crate) struct Reference<'a> {
    pub(crate) bytes: std::slice::Iter<'a, u8>,
    /// Frames must be masked.
    pub(crate) is_server: bool,
    /// Messages may be compressed, each by itself.
    pub(crate) deflate: bool,
    pub(crate) limits: Limits,
}

/// A fragmented message.
struct Message {
    kind: Kind,
    compressed: bool,
    fragments: u32,
    payload: Vec<u8>,
    utf8: Utf8,
}

impl Reference<'_> {
    /// Decodes to the end.
    pub(crate) fn run(mut self) -> Outcome {
        let mut events = Vec::new();
        let mut message = None;
        loop {
            match self.frame(&mut message) {
                Ok(None) => {}
                Ok(Some(event)) => {
                    let is_close = matches!(event, Owned::Close(_));
                    events.push(event);
                    if is_close {
                        return (events, None);
                    }
                }
                Err(Stop::End) => return (events, None),
                Err(Stop::Error(error)) => return (events, Some(error)),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        self.bytes.next().copied().ok_or(Stop::End)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, Stop> {
        let mut number = 0;
        for _ in 0..bytes {
            number = number << 8 | u64::from(self.byte()?);
        }
        Ok(number)
    }

    fn frame(&mut self, message: &mut Option<Message>) -> Result<Option<Owned>, Stop> {
        let first = self.byte()?;
        let (fin, rsv1, opcode) = (first & 128 != 0, first & 64 != 0, first & 15);
        if first & 32 != 0 || first & 16 != 0 {
            Err(DecodeError::ReservedBits)?;
        }
        if (3..8).contains(&opcode) || opcode > 10 {
            Err(DecodeError::ReservedOpcode(opcode))?;
        }
        let control = opcode >= 8;
        if control && !fin {
            Err(DecodeError::FragmentedControl)?;
        }
        if control && rsv1 {
            Err(DecodeError::ReservedBits)?;
        }
        let second = self.byte()?;
        let masked = second >= 128;
        let mut len = u64::from(second % 128);
        if control && len > 125 {
            Err(DecodeError::LongControl)?;
        }
        if len == 126 {
            len = self.number(2)?;
            if len <= 125 {
                Err(DecodeError::LengthNotMinimal)?;
            }
        } else if len == 127 {
            len = self.number(8)?;
            if len <= 65535 {
                Err(DecodeError::LengthNotMinimal)?;
            }
        }
        if len >= 1 << 63 {
            Err(DecodeError::LengthTopBit)?;
        }
        let mut mask = [0; 4];
        if masked {
            for byte in &mut mask {
                *byte = self.byte()?;
            }
        }
        if self.is_server && !masked {
            Err(DecodeError::NotMasked)?;
        }
        if !self.is_server && masked {
            Err(DecodeError::Masked)?;
        }
        if control {
            self.control(opcode, len, mask)
        } else {
            self.data(message, fin, rsv1, opcode, len, mask)
        }
    }

    fn control(&mut self, opcode: u8, len: u64, mask: [u8; 4]) -> Result<Option<Owned>, Stop> {
        let mut payload = Vec::new();
        for i in 0..len as usize {
            payload.push(self.byte()? ^ mask[i % 4]);
        }
        Ok(Some(match opcode {
            9 => Owned::Ping(payload),
            10 => Owned::Pong(payload),
            _ if payload.is_empty() => Owned::Close(None),
            _ if payload.len() == 1 => return Err(DecodeError::HalfCloseCode.into()),
            _ => {
                let code = u16::from(payload[0]) * 256 + u16::from(payload[1]);
                let registered = (1000..=1014).contains(&code) && ![1004, 1005, 1006].contains(&code);
                if !registered && !(3000..5000).contains(&code) {
                    Err(DecodeError::CloseCode(code))?;
                }
                let mut utf8 = Utf8::default();
                payload[2..].iter().try_for_each(|byte| utf8.push(*byte))?;
                utf8.end()?;
                Owned::Close(Some((code, String::from_utf8(payload.split_off(2)).expect("checked above"))))
            }
        }))
    }

    fn data(
        &mut self,
        message: &mut Option<Message>,
        fin: bool,
        rsv1: bool,
        opcode: u8,
        len: u64,
        mask: [u8; 4],
    ) -> Result<Option<Owned>, Stop> {
        if rsv1 && (!self.deflate || opcode == 0) {
            Err(DecodeError::ReservedBits)?;
        }
        if len > self.limits.max_frame as u64 {
            Err(DecodeError::FrameTooLarge)?;
        }
        match (opcode, &mut *message) {
            (0, None) => Err(DecodeError::NothingToContinue)?,
            (0, Some(message)) => {
                if message.fragments == self.limits.max_fragments {
                    Err(DecodeError::TooManyFragments)?;
                }
                message.fragments += 1;
            }
            (_, Some(_)) => Err(DecodeError::Interrupted)?,
            (_, None) => {
                let kind = if opcode == 1 { Kind::Text } else { Kind::Binary };
                let payload = Vec::new();
                let utf8 = Utf8::default();
                *message = Some(Message { kind, compressed: rsv1, fragments: 1, payload, utf8 });
            }
        }
        let current = message.as_mut().expect("a first frame makes it");
        if current.payload.len() as u64 + len > self.limits.max_message as u64 {
            Err(DecodeError::MessageTooLarge)?;
        }
        for i in 0..len as usize {
            let byte = self.byte()? ^ mask[i % 4];
            current.payload.push(byte);
            if current.kind == Kind::Text && !current.compressed {
                current.utf8.push(byte)?;
            }
        }
        if !fin {
            return Ok(None);
        }
        let Message { kind, compressed, payload, utf8, .. } = message.take().expect("still there");
        utf8.end()?;
        if !compressed {
            return Ok(Some(Owned::Message(kind, payload)));
        }
        let plain = inflate(&payload, self.limits.max_message)?;
        if kind == Kind::Text {
            let mut utf8 = Utf8::default();
            plain.iter().try_for_each(|byte| utf8.push(*byte))?;
            utf8.end()?;
        }
        Ok(Some(Owned::Message(kind, plain)))
    }
}

/// Inflates byte by byte, so that the limit and the end are exact.
fn inflate(payload: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut stream = Decompress::new(false);
    let mut plain = Vec::new();
    let mut at_end = false;
    let mut feed = |stream: &mut Decompress, bytes: &[u8]| {
        for byte in bytes {
            // A stream that goes on after its final block starts a new one.
            if std::mem::take(&mut at_end) {
                *stream = Decompress::new(false);
            }
            let mut input = std::slice::from_ref(byte);
            loop {
                let (before_in, before_out) = (stream.total_in(), stream.total_out());
                let mut out = [0];
                let status = stream
                    .decompress(input, &mut out, FlushDecompress::None)
                    .map_err(|_| DecodeError::Deflate)?;
                input = &input[(stream.total_in() - before_in) as usize..];
                if stream.total_out() > before_out {
                    if plain.len() == max {
                        return Err(DecodeError::MessageTooLarge);
                    }
                    plain.push(out[0]);
                } else if input.is_empty() || status == Status::StreamEnd {
                    at_end = status == Status::StreamEnd;
                    break;
                }
                if status == Status::StreamEnd {
                    at_end = true;
                    break;
                }
            }
        }
        Ok((plain.len(), at_end))
    };
    let (len, ended) = feed(&mut stream, payload)?;
    if payload.is_empty() {
        return Err(DecodeError::Deflate);
    }
    if ended {
        return Ok(plain);
    }
    // The tail completes an empty stored block, so nothing comes out; and a final block must then fit exactly.
    let (len_after, ended) = feed(&mut stream, &[0, 0, 255, 255]).map_err(|_| DecodeError::Deflate)?;
    if len_after != len {
        return Err(DecodeError::Deflate);
    }
    if !ended {
        let (len_at_end, ended) =
            feed(&mut stream, &[1, 0, 0, 255, 255]).map_err(|_| DecodeError::Deflate)?;
        if len_at_end != len || !ended {
            return Err(DecodeError::Deflate);
        }
    }
    Ok(plain)
}

/// UTF-8 by the table of RFC 3629, 4.
#[derive(Default)]
struct Utf8 {
    /// The ranges of the bytes that must follow.
    expected: Vec<(u8, u8)>,
}

impl Utf8 {
    fn push(&mut self, byte: u8) -> Result<(), DecodeError> {
        if !self.expected.is_empty() {
            let (low, high) = self.expected.remove(0);
            return if (low..=high).contains(&byte) { Ok(()) } else { Err(DecodeError::Utf8) };
        }
        let tail = (0x80, 0xbf);
        self.expected = match byte {
            0x00..=0x7f => vec![],
            0xc2..=0xdf => vec![tail],
            0xe0 => vec![(0xa0, 0xbf), tail],
            0xe1..=0xec | 0xee..=0xef => vec![tail, tail],
            0xed => vec![(0x80, 0x9f), tail],
            0xf0 => vec![(0x90, 0xbf), tail, tail],
            0xf1..=0xf3 => vec![tail, tail, tail],
            0xf4 => vec![(0x80, 0x8f), tail, tail],
            _ => return Err(DecodeError::Utf8),
        };
        Ok(())
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.expected.is_empty() { Ok(()) } else { Err(DecodeError::Utf8) }
    }
}
