//! How a published message becomes bytes: once per format, whoever receives it.

use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;
use tieline_websocket::{Deflater, Kind, Opcode, server_header};

use crate::Format;
use crate::log::{Extent, Log, MAX_RECORD};
use crate::numbered::{LargeBody, NUMBERED_FRAME, RECORD_HEADER, Record};
use crate::transplant::Mark;

/// A direct message below this many bytes goes uncompressed: compressing 132 bytes costs nearly as much
/// processor time as sending them (measured: 3.85 µs against 4 µs).
const MIN_DIRECT_DEFLATE: usize = 1024;

/// A message that can write itself in every encoding its recipients read.
pub trait Encode {
    /// Whether the encoding is text or binary.
    fn kind(&self, wire: u8) -> Kind;

    /// Appends the message in encoding `wire`. For a numbered format it is the body behind the number.
    fn encode(&self, wire: u8, numbered: bool, out: &mut Vec<u8>);

    /// What the message is known by on every node, so that a connection that moves between two gets it once; 0 where it
    /// needs no such name.
    fn mark(&self) -> Mark {
        0
    }

    /// The place where frames that were encoded on one shard wait for the next. A message that goes to several shards has
    /// one; a message for one shard need not.
    fn frames(&self) -> Option<&Frames> {
        None
    }
}

/// Frames of one message that several shards share, so that it is encoded and compressed once per node.
#[derive(Debug, Default)]
pub struct Frames(Mutex<SmallVec<[(Format, Bytes); 2]>>);

/// An encoded message, not in any log yet.
#[derive(Clone, Debug)]
enum Bytes {
    /// A whole frame with its header.
    Frame(Arc<Box<[u8]>>),
    /// The body of a numbered frame.
    Body(LargeBody),
}

/// A message encoded for one format, ready to be referred to by each recipient.
#[derive(Clone, Debug)]
pub(crate) enum Encoded {
    /// A whole frame in the log.
    Log(Extent),
    /// A whole frame, too large for the log.
    Shared(Arc<Box<[u8]>>),
    /// The body of a numbered frame, whose plain form has `plain` bytes, as a record in the log.
    NumberedLog { record: Extent, plain: u32 },
    /// The body of a numbered frame, too large for the log.
    NumberedShared(LargeBody),
}

impl Encoded {
    /// Bytes that it adds to what a recipient has coming.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Encoded::Log(extent) => extent.len as usize,
            Encoded::Shared(frame) => frame.len(),
            Encoded::NumberedLog { plain, .. } => NUMBERED_FRAME + *plain as usize,
            Encoded::NumberedShared(body) => NUMBERED_FRAME + body.plain.len(),
        }
    }

    /// The reference to the log that one publication itself holds while it is walked, if it stands there.
    pub(crate) fn extent(&self) -> Option<Extent> {
        match self {
            Encoded::Log(extent) | Encoded::NumberedLog { record: extent, .. } => Some(*extent),
            Encoded::Shared(_) | Encoded::NumberedShared(_) => None,
        }
    }
}

/// Turns messages into frames: holds the buffers and compressors of one shard.
#[derive(Default)]
pub(crate) struct Encoder {
    plain: Vec<u8>,
    deflated: Vec<u8>,
    /// One compressor for each window size in use, by bits.
    deflaters: [Option<Box<Deflater>>; 16],
}

impl Encoder {
    /// Encodes `message` for `format` into the log, or into shared memory when it is large.
    pub(crate) fn encode(
        &mut self,
        log: &mut Log,
        message: &dyn Encode,
        format: Format,
        direct: bool,
    ) -> Encoded {
        if let Some(frames) = message.frames() {
            return self.encode_once(log, message, format, direct, frames);
        }
        let compressed = self.write(message, format, direct);
        if format.numbered {
            return append_numbered(log, &self.plain, &self.deflated)
                .unwrap_or_else(|| Encoded::NumberedShared(self.body(compressed)));
        }
        let payload = if compressed { &self.deflated } else { &self.plain };
        let header = server_header(opcode(message.kind(format.wire)), compressed, payload.len());
        if header.len() + payload.len() <= MAX_RECORD {
            Encoded::Log(log.append(&[&header, payload]))
        } else {
            Encoded::Shared(Arc::new([&header[..], payload].concat().into_boxed_slice()))
        }
    }

    /// A direct frame that `write` fills, for one connection.
    pub(crate) fn encode_direct(
        &mut self,
        log: &mut Log,
        format: Format,
        kind: Kind,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Encoded {
        self.plain.clear();
        write(&mut self.plain);
        self.deflated.clear();
        let compressed =
            format.deflate > 0 && self.plain.len() >= MIN_DIRECT_DEFLATE && self.compress(format);
        let payload = if compressed { &self.deflated } else { &self.plain };
        let header = server_header(opcode(kind), compressed, payload.len());
        let encoded = if header.len() + payload.len() <= MAX_RECORD {
            Encoded::Log(log.append(&[&header, payload]))
        } else {
            Encoded::Shared(Arc::new([&header[..], payload].concat().into_boxed_slice()))
        };
        self.shrink();
        encoded
    }

    fn encode_once(
        &mut self,
        log: &mut Log,
        message: &dyn Encode,
        format: Format,
        direct: bool,
        frames: &Frames,
    ) -> Encoded {
        let mut known = frames.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match known.iter().find(|(of, _)| *of == format) {
            Some((_, bytes)) => bytes.clone(),
            None => {
                let compressed = self.write(message, format, direct);
                let bytes = if format.numbered {
                    Bytes::Body(self.body(compressed))
                } else {
                    let payload = if compressed { &self.deflated } else { &self.plain };
                    let header = server_header(opcode(message.kind(format.wire)), compressed, payload.len());
                    Bytes::Frame(Arc::new([&header[..], payload].concat().into_boxed_slice()))
                };
                known.push((format, bytes.clone()));
                bytes
            }
        };
        drop(known);
        match bytes {
            Bytes::Frame(frame) if frame.len() <= MAX_RECORD => Encoded::Log(log.append(&[&frame])),
            Bytes::Frame(frame) => Encoded::Shared(frame),
            Bytes::Body(body) => {
                let deflated: &[u8] = body.deflated.as_ref().map_or(&[], |bytes| bytes);
                append_numbered(log, &body.plain, deflated).unwrap_or(Encoded::NumberedShared(body))
            }
        }
    }

    /// Fills `plain`, and `deflated` when that pays. Returns whether the compressed form is to be used.
    fn write(&mut self, message: &dyn Encode, format: Format, direct: bool) -> bool {
        self.shrink();
        self.plain.clear();
        self.deflated.clear();
        message.encode(format.wire, format.numbered, &mut self.plain);
        let worth = format.deflate > 0 && (!direct || self.plain.len() >= MIN_DIRECT_DEFLATE);
        worth && self.compress(format)
    }

    /// Compresses `plain`; gives up when that does not make it smaller.
    fn compress(&mut self, format: Format) -> bool {
        let bits = format.deflate;
        let deflater =
            self.deflaters[usize::from(bits & 15)].get_or_insert_with(|| Box::new(Deflater::new(bits)));
        deflater.compress(&self.plain, &mut self.deflated);
        if self.deflated.len() >= self.plain.len() {
            self.deflated.clear();
        }
        !self.deflated.is_empty()
    }

    fn body(&self, compressed: bool) -> LargeBody {
        LargeBody {
            plain: Arc::new(self.plain.as_slice().into()),
            deflated: compressed.then(|| Arc::new(self.deflated.as_slice().into())),
        }
    }

    /// A single huge message must not leave huge buffers behind.
    fn shrink(&mut self) {
        for buffer in [&mut self.plain, &mut self.deflated] {
            if buffer.capacity() > 4 * MAX_RECORD {
                *buffer = Vec::new();
            }
        }
    }
}

/// Puts both forms of a numbered body into the log; `None` when they are too large for it.
fn append_numbered(log: &mut Log, plain: &[u8], deflated: &[u8]) -> Option<Encoded> {
    if RECORD_HEADER + plain.len() + deflated.len() > MAX_RECORD {
        return None;
    }
    let record = log.append(&[&Record::header(plain.len(), deflated.len()), plain, deflated]);
    Some(Encoded::NumberedLog { record, plain: plain.len() as u32 })
}

pub(crate) fn opcode(kind: Kind) -> Opcode {
    match kind {
        Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
    }
}
