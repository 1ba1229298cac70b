//! Bytes to messages, borrowed from what was read. No more than lengths and marks is looked at here.

use super::{MAX_MESSAGE, flags};

/// Bytes of a frame before its payload.
pub(super) const HEAD: usize = 6;

/// The least payload of a message's first frame: kind, correlation and the count of backups.
const LEAST: usize = 13;

/// What was read is not this protocol, or not the part of it that members speak to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Garbage;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) flags: u16,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    pub(super) fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// A whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Message<'a> {
    /// The first frame's payload.
    pub(super) first: &'a [u8],
    /// Whether it answers no call.
    pub(super) is_event: bool,
    /// The other frames.
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// What kind of message it is.
    pub(super) fn kind(&self) -> i32 {
        let bytes = self.first.first_chunk().expect("a message was read with its kind");
        i32::from_le_bytes(*bytes)
    }

    /// The number of the call that it belongs to.
    pub(in super::super) fn correlation(&self) -> i64 {
        let bytes = self.first[4..].first_chunk().expect("a message was read with its correlation");
        i64::from_le_bytes(*bytes)
    }

    /// The frames behind the first.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'a>> + use<'a> {
        let mut rest = self.rest;
        std::iter::from_fn(move || {
            let (frame, len) = cut(rest).ok()??;
            rest = &rest[len..];
            Some(frame)
        })
    }
}

/// The frame at the beginning of these bytes, and how long it is with its head; `None` as long as it is not all there.
fn cut(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Garbage> {
    let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [a, b, c, d, e, f] = *head;
    let len = usize::try_from(i32::from_le_bytes([a, b, c, d])).map_err(|_| Garbage)?;
    if !(HEAD..=MAX_MESSAGE).contains(&len) {
        return Err(Garbage);
    }
    let frame = |payload| (Frame { flags: u16::from_le_bytes([e, f]), payload }, len);
    Ok(bytes.get(HEAD..len).map(frame))
}

/// The message at the beginning of these bytes, and how long it is; `None` as long as it is not all there. A stranger is told by
/// the first six bytes.
pub(in super::super) fn read(bytes: &[u8]) -> Result<Option<(Message<'_>, usize)>, Garbage> {
    if let Some(flags) = bytes.get(4..HEAD) {
        let flags = u16::from_le_bytes([flags[0], flags[1]]);
        if flags & flags::WHOLE != flags::WHOLE {
            return Err(Garbage);
        }
    }
    let Some((first, begin)) = cut(bytes)? else { return Ok(None) };
    if first.payload.len() < LEAST {
        return Err(Garbage);
    }
    let (mut end, mut is_last) = (begin, first.is(flags::LAST));
    while !is_last {
        let Some((frame, len)) = cut(&bytes[end..])? else { return Ok(None) };
        end += len;
        if end > MAX_MESSAGE {
            return Err(Garbage);
        }
        is_last = frame.is(flags::LAST);
    }
    let is_event = first.is(flags::EVENT);
    Ok(Some((Message { first: first.payload, is_event, rest: &bytes[begin..end] }, end)))
}
