//! Gathering: what one connection has coming from several places, joined in one buffer for one write.
//!
//! Numbered frames get their header and number here. Nothing is taken off any list: `flush.rs` does that, with
//! what is noted here, when the kernel has the bytes. Tested below, and through the properties of the shard.

use std::sync::Arc;

use tieline_websocket::{Opcode, server_header, stored_block};

use crate::connection::Connection;
use crate::log::{Extent, Log};
use crate::numbered::Frame;
use crate::pending::Pending;

/// Bytes joined for one write.
const GATHER: usize = 64 * 1024;

/// What stands before and behind the number of a numbered frame.
type Numbering = (&'static [u8], &'static [u8]);

/// Bytes that a stored block adds to its content.
const STORED: usize = 5;

/// Longest sum of what stands before and behind the number.
pub(crate) const MAX_NUMBERING: usize = 64;

/// Digits of the largest number.
const MAX_DIGITS: usize = 20;

/// Frames that were joined for one write, and where.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The bytes of the write.
    pub(crate) bytes: Vec<u8>,
    /// The length of each numbered frame in `bytes`, in order; of one with a `tail` what stands before that.
    pub(crate) numbered: Vec<u32>,
    /// The body of the last numbered frame, which is large and goes in a write of its own.
    pub(crate) tail: Option<Arc<Box<[u8]>>>,
}

impl Gathered {
    /// Joins entries from the front of the connection's list. Large frames and copied bytes end the run.
    pub(crate) fn gather<S>(&mut self, connection: &Connection<S>, log: &Log, numbering: Numbering) {
        self.bytes.clear();
        self.numbered.clear();
        self.tail = None;
        let deflate = connection.format.deflate > 0;
        let mut unsent = None;
        for item in connection.pending.as_slice() {
            match item {
                Pending::Log { start, len } => {
                    if self.bytes.len() + *len as usize > GATHER && !self.bytes.is_empty() {
                        return;
                    }
                    self.bytes.extend_from_slice(log.bytes(Extent { start: *start, len: *len }));
                }
                Pending::Numbered(count) => {
                    let Some(window) = &connection.window else { return };
                    let (frames, head) = unsent.get_or_insert_with(|| {
                        (window.unsent_frames(log), Head::new(numbering, window.next_sequence()))
                    });
                    for frame in frames.by_ref().take(*count as usize) {
                        if self.bytes.len() >= GATHER || !self.join(&frame, head.bytes(), deflate) {
                            return;
                        }
                        head.advance();
                    }
                }
                Pending::Shared { .. } | Pending::Owned(_) => return,
            }
        }
    }

    /// Adds a numbered frame: header, number and body. The body of a large one is left for a write of its own, and
    /// `false` says that nothing may follow here.
    #[inline]
    fn join(&mut self, frame: &Frame<'_>, head: &[u8], deflate: bool) -> bool {
        let before = self.bytes.len();
        let (body, compressed): (&[u8], bool) = match frame {
            Frame::Small(record) if deflate && !record.deflated.is_empty() => (record.deflated, true),
            Frame::Small(record) => (record.plain, false),
            Frame::Large(body) => {
                let deflated = body.deflated.as_ref().filter(|_| deflate);
                self.tail = Some(Arc::clone(deflated.unwrap_or(&body.plain)));
                (deflated.unwrap_or(&body.plain), deflated.is_some())
            }
        };
        let head_len = head.len() + if compressed { STORED } else { 0 };
        self.bytes.extend_from_slice(&server_header(Opcode::Text, compressed, head_len + body.len()));
        if compressed {
            // The number cannot be part of what is compressed once for all, so it goes before it, stored.
            stored_block(head, &mut self.bytes);
        } else {
            self.bytes.extend_from_slice(head);
        }
        if self.tail.is_none() {
            self.bytes.extend_from_slice(body);
        }
        self.numbered.push((self.bytes.len() - before) as u32);
        self.tail.is_none()
    }
}

/// The start of a numbered frame's payload: prefix, number, suffix. It is counted up in place: writing eleven
/// digits anew costs more than copying a body of 128 bytes.
struct Head {
    bytes: [u8; MAX_NUMBERING + MAX_DIGITS],
    /// Where the digits begin and end, and where the suffix ends.
    digits: usize,
    suffix: usize,
    len: usize,
}

impl Head {
    fn new((prefix, suffix): Numbering, sequence: u64) -> Self {
        let mut head =
            Head { bytes: [0; MAX_NUMBERING + MAX_DIGITS], digits: prefix.len(), suffix: 0, len: 0 };
        head.put(prefix);
        head.put(itoa::Buffer::new().format(sequence).as_bytes());
        head.suffix = head.len;
        head.put(suffix);
        head
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Goes on to the next number.
    #[inline]
    fn advance(&mut self) {
        for digit in self.bytes[self.digits..self.suffix].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        // All were nines: one digit more.
        self.bytes.copy_within(self.digits..self.len, self.digits + 1);
        self.bytes[self.digits] = b'1';
        self.suffix += 1;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_counts_up() {
        let numbering: Numbering = (b"<", b">>");
        for first in [0, 8, 97, 998, 9_998, (7 << 32) + 1, 9_999_999_999_999_999_998, u64::MAX - 5] {
            let mut head = Head::new(numbering, first);
            for number in first..=first.saturating_add(4) {
                assert_eq!(head.bytes(), format!("<{number}>>").as_bytes());
                head.advance();
            }
        }
    }
}
