//! The decoder: bytes of one connection in, events out. It reads and writes nothing itself, and answers nothing:
//! pongs and close frames are the caller's to send.
//!
//! Tested in `decoder/tests.rs`, by properties against a slow reference in `tests/`, by a public client over TCP,
//! and by the fuzz target `decode`.

mod error;
mod partial;
mod shared;

pub use error::DecodeError;
pub use shared::{Limits, Shared};

use crate::close::CloseFrame;
use crate::deflate::Inflater;
use crate::frame::{FrameHeader, Kind, Opcode};
use crate::mask::apply_mask;
use partial::{Assembly, Incoming, Partial};

/// Which end of the connection this is, and so what it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A server, which takes masked frames only.
    Server,
    /// A client, which takes unmasked frames only.
    Client,
}

/// How the peer's compressed messages are inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateMode {
    /// By the inflater in [`Shared`]: the peer promised `no_context_takeover`.
    Shared,
    /// By an inflater of this connection's own: 48 kB from the first compressed message on.
    Own {
        /// The peer's window is 2^this many bytes, 8 to 15.
        window_bits: u8,
    },
}

/// Something whole that the peer sent. Borrowed from the input or from [`Shared`], until the next decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message, whole, unmasked and inflated.
    Message {
        /// Text or binary.
        kind: Kind,
        /// The content; of a text it is valid UTF-8.
        payload: &'a [u8],
    },
    /// To be answered by a pong with the same payload, of at most 125 bytes.
    Ping(&'a [u8]),
    /// An answer, or a sign of life.
    Pong(&'a [u8]),
    /// The peer closes; answer with a close frame, and decode nothing more.
    Close(Option<CloseFrame<'a>>),
}

impl<'a> Event<'a> {
    /// The text of a text message. This looks at each byte once more; who only parses the payload can do without.
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Self::Message { kind: Kind::Text, payload } => std::str::from_utf8(payload).ok(),
            _ => None,
        }
    }
}

/// One connection's decoder.
///
/// It is 24 bytes while no frame and no message is incomplete; the state of those lives on the heap and is freed with
/// the message's end.
pub struct Decoder {
    /// What is incomplete.
    partial: Option<Box<Partial>>,
    /// The connection's own inflater, made when the first compressed message is complete.
    inflater: Option<Box<Inflater>>,
    /// The error after which nothing is decoded any more.
    failed: Option<DecodeError>,
    /// Which masks are expected.
    role: Role,
    /// Zero without permessage-deflate, [`SHARED_INFLATER`], or the window bits of an own inflater. A byte, as the
    /// whole is to stay small.
    inflate: u8,
}

/// The peer compresses without context takeover. No window has this many bits.
const SHARED_INFLATER: u8 = u8::MAX;

/// What a step found, before it is known where its bytes are borrowed from.
enum Found {
    Message(Kind),
    Control(Opcode),
}

/// Where the bytes of what was found are.
enum Source<'i> {
    Input(&'i [u8]),
    Assembled,
    Inflated,
}

impl Decoder {
    /// A decoder for `role`; `deflate` when permessage-deflate was negotiated, see
    /// [`DeflateParams::inflate_mode`](crate::handshake::DeflateParams::inflate_mode).
    pub fn new(role: Role, deflate: Option<InflateMode>) -> Self {
        let inflate = match deflate {
            None => 0,
            Some(InflateMode::Shared) => SHARED_INFLATER,
            Some(InflateMode::Own { window_bits }) => window_bits.clamp(8, 15),
        };
        Self { partial: None, inflater: None, failed: None, role, inflate }
    }

    /// Decodes the next event from `input`, and advances `input` behind it. Payloads are unmasked in place.
    ///
    /// `Ok(None)` means that the input is used up; what was incomplete is kept, and grows as its bytes arrive: nothing is
    /// reserved for a length that was only declared. A whole, uncompressed, unfragmented message is a slice of `input`.
    ///
    /// # Errors
    /// When the peer breaks the protocol or a limit. The decoder then drops what it kept, and every further call gives
    /// the same error.
    pub fn decode<'i: 'e, 'e>(
        &mut self,
        input: &mut &'i mut [u8],
        shared: &'e mut Shared,
    ) -> Result<Option<Event<'e>>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        shared.release();
        let result = match self.step(input, shared) {
            Ok(None) => return Ok(None),
            Ok(Some((found, source))) => {
                let bytes = match source {
                    Source::Input(bytes) => bytes,
                    Source::Assembled => &shared.assembled,
                    Source::Inflated => &shared.inflated,
                };
                event(found, bytes)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.failed = Some(error);
            self.partial = None;
            self.inflater = None;
        }
        result.map(Some)
    }

    /// Whether nothing is incomplete: the next byte starts a frame, and that frame a message or a control frame.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes of memory kept for what is incomplete; zero when idle. An own inflater is not counted.
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.memory())
    }

    /// Goes on until something is whole or the input is used up.
    fn step<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        shared: &mut Shared,
    ) -> Result<Option<(Found, Source<'i>)>, DecodeError> {
        loop {
            let kept = self.partial.as_mut().and_then(|partial| partial.frame.take());
            let (mut frame, is_new) = match kept {
                Some(frame) => (frame, false),
                None => match self.next_header(input)? {
                    Some(header) => (self.accept(header, &shared.limits)?, true),
                    None => return Ok(None),
                },
            };

            let available = frame.remaining.min(input.len());
            let (piece, rest) = std::mem::take(input).split_at_mut(available);
            *input = rest;
            if let Some(mask) = &mut frame.header.mask {
                apply_mask(piece, *mask);
                if piece.len() < frame.remaining {
                    mask.rotate_left(piece.len() % 4);
                }
            }
            frame.remaining -= piece.len();
            let is_whole = is_new && frame.remaining == 0;

            if frame.header.opcode.is_control() {
                let found = Found::Control(frame.header.opcode);
                if is_whole {
                    return Ok(Some((found, Source::Input(piece))));
                }
                let partial = self.partial.get_or_insert_default();
                partial.control.extend_from_slice(piece);
                if frame.remaining > 0 {
                    partial.frame = Some(frame);
                    return Ok(None);
                }
                shared.assembled = std::mem::take(&mut partial.control);
                self.tidy();
                return Ok(Some((found, Source::Assembled)));
            }

            let starts = match frame.header.opcode {
                Opcode::Text => Some(Kind::Text),
                Opcode::Binary => Some(Kind::Binary),
                _ => None,
            };
            if let Some(kind) = starts
                && is_whole
                && frame.header.fin
            {
                return self.whole_message(kind, frame.header.compressed, piece, shared).map(Some);
            }
            let partial = self.partial.get_or_insert_default();
            if let Some(kind) = starts
                && is_new
            {
                partial.message = Some(Assembly::new(kind, frame.header.compressed));
            }
            let message = partial.message.as_mut().expect("accept() refuses a continuation of nothing");
            message.append(piece, frame.remaining, frame.header.fin)?;
            if frame.remaining > 0 {
                partial.frame = Some(frame);
                return Ok(None);
            }
            if frame.header.fin
                && let Some(message) = partial.message.take()
            {
                self.tidy();
                return self.assembled_message(message, shared).map(Some);
            }
        }
    }

    /// The next header, when the input and what is kept of the one before make it complete.
    fn next_header(&mut self, input: &mut &mut [u8]) -> Result<Option<FrameHeader>, DecodeError> {
        let kept = self.partial.as_ref().map_or(0, |partial| partial.head.len());
        if kept == 0 {
            if let Some((header, used)) = FrameHeader::parse(input)? {
                *input = &mut std::mem::take(input)[used..];
                return Ok(Some(header));
            }
            if !input.is_empty() {
                let partial = self.partial.get_or_insert_default();
                let incomplete = std::mem::take(input);
                partial.head.extend_from_slice(incomplete);
            }
            return Ok(None);
        }
        let partial = self.partial.get_or_insert_default();
        // A header is 14 bytes at most, so byte by byte is soon over.
        while let Some((byte, rest)) = std::mem::take(input).split_first_mut() {
            *input = rest;
            partial.head.push(*byte);
            if let Some((header, _)) = FrameHeader::parse(&partial.head)? {
                partial.head = Vec::new();
                self.tidy();
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Checks a header against the role, what was negotiated, the message in progress and the limits.
    fn accept(&mut self, header: FrameHeader, limits: &Limits) -> Result<Incoming, DecodeError> {
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(DecodeError::NotMasked),
            (Role::Client, Some(_)) => return Err(DecodeError::Masked),
            _ => {}
        }
        let message = self.partial.as_mut().and_then(|partial| partial.message.as_mut());
        if !header.opcode.is_control() {
            if header.compressed && (self.inflate == 0 || header.opcode == Opcode::Continuation) {
                return Err(DecodeError::ReservedBits);
            }
            if header.len > limits.max_frame as u64 {
                return Err(DecodeError::FrameTooLarge);
            }
            match (header.opcode, message) {
                (Opcode::Continuation, None) => return Err(DecodeError::NothingToContinue),
                (Opcode::Continuation, Some(message)) => message.continues(header.len, limits)?,
                (_, Some(_)) => return Err(DecodeError::Interrupted),
                (_, None) if header.len > limits.max_message as u64 => {
                    return Err(DecodeError::MessageTooLarge);
                }
                (_, None) => {}
            }
        }
        Ok(Incoming { header, remaining: header.len as usize })
    }

    /// A message that is one frame and was whole in the input.
    fn whole_message<'i>(
        &mut self,
        kind: Kind,
        compressed: bool,
        payload: &'i [u8],
        shared: &mut Shared,
    ) -> Result<(Found, Source<'i>), DecodeError> {
        if compressed {
            return self.inflated_message(kind, payload, shared);
        }
        if kind == Kind::Text && std::str::from_utf8(payload).is_err() {
            return Err(DecodeError::Utf8);
        }
        Ok((Found::Message(kind), Source::Input(payload)))
    }

    /// A message that came in pieces; its memory moves to the shared part.
    fn assembled_message<'i>(
        &mut self,
        message: Assembly,
        shared: &mut Shared,
    ) -> Result<(Found, Source<'i>), DecodeError> {
        if message.compressed {
            return self.inflated_message(message.kind, &message.bytes, shared);
        }
        if !message.ends_well() {
            return Err(DecodeError::Utf8);
        }
        shared.assembled = message.bytes;
        Ok((Found::Message(message.kind), Source::Assembled))
    }

    /// A compressed message, however it came.
    fn inflated_message<'i>(
        &mut self,
        kind: Kind,
        payload: &[u8],
        shared: &mut Shared,
    ) -> Result<(Found, Source<'i>), DecodeError> {
        let Shared { limits, inflater, inflated, .. } = shared;
        let inflater = if self.inflate == SHARED_INFLATER {
            inflater.get_or_insert_default()
        } else {
            let window_bits = self.inflate;
            &mut **self.inflater.get_or_insert_with(|| Box::new(Inflater::with_context_takeover(window_bits)))
        };
        inflater.inflate(payload, limits.max_message, inflated)?;
        if kind == Kind::Text && std::str::from_utf8(inflated).is_err() {
            return Err(DecodeError::Utf8);
        }
        Ok((Found::Message(kind), Source::Inflated))
    }

    /// Frees the state of what is incomplete when nothing is.
    fn tidy(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.is_empty()) {
            self.partial = None;
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("role", &self.role)
            .field("failed", &self.failed)
            .field("buffered", &self.buffered())
            .finish_non_exhaustive()
    }
}

/// Makes the event, now that its bytes are in place.
fn event(found: Found, bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    Ok(match found {
        Found::Message(kind) => Event::Message { kind, payload: bytes },
        Found::Control(Opcode::Ping) => Event::Ping(bytes),
        Found::Control(Opcode::Pong) => Event::Pong(bytes),
        Found::Control(_) => Event::Close(CloseFrame::parse(bytes)?),
    })
}

#[cfg(test)]
mod tests;
