//! [`Messages`]: what a server says, its messages put together from their frames. A message in one frame is handed up where it was read.
//!
//! Tested here with a stream of bytes, and by the broker's tests.

use std::io;

use super::LONGEST;
use super::frames::{self, Frame, Garbage, Method};
use crate::inbox::Inbox;

/// Room that is kept while nothing waits in it.
const KEPT: usize = 256 * 1024;

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Anything that has no content.
    Method(Method<'a>),
    /// A message came from this exchange. One that is longer than any of ours has no payload.
    Message { exchange: &'a [u8], payload: &'a [u8] },
    /// A message that was published here came back: no queue takes it.
    Returned,
}

/// A message whose content is not whole yet.
#[derive(Default)]
struct Content {
    is_returned: bool,
    /// Which exchange it came from.
    exchange: Vec<u8>,
    /// How much is still to come; none before the header.
    left: Option<u64>,
    /// What has come.
    bytes: Vec<u8>,
    /// Whether what comes is forgotten.
    is_skipped: bool,
}

impl Content {
    fn begin(&mut self, is_returned: bool, exchange: &[u8]) {
        (self.is_returned, self.left) = (is_returned, None);
        self.exchange.clear();
        self.exchange.extend_from_slice(exchange);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }

    fn header(&mut self, size: u64) {
        self.left = Some(size);
        self.is_skipped = self.is_returned || size > LONGEST as u64;
    }
}

/// What a frame has brought to an end.
enum Ended {
    Nothing,
    Method,
    /// A message, whose content is this frame's bytes alone.
    Alone,
    /// A message of several frames.
    Gathered,
}

/// Reads what a server says.
pub(super) struct Messages {
    inbox: Inbox,
    content: Content,
    /// How much of what was read belongs to what was said last.
    said: usize,
}

impl Messages {
    pub(super) fn new(inbox: Inbox) -> Self {
        Messages { inbox, content: Content::default(), said: 0 }
    }

    /// The next thing the server said, of what was read; `None` when there is no whole one.
    pub(super) fn next(&mut self) -> Result<Option<Said<'_>>, Garbage> {
        self.inbox.understood(std::mem::take(&mut self.said));
        let ended = loop {
            let Some((frame, len)) = frames::read(self.inbox.bytes())? else { return Ok(None) };
            match take(&mut self.content, &frame)? {
                Ended::Nothing => self.inbox.understood(len),
                ended => {
                    self.said = len;
                    break ended;
                }
            }
        };
        // Only now something may be borrowed for whoever asks, so the frame is read again: that looks at a few bytes.
        let payload = match (ended, frames::read(self.inbox.bytes())?) {
            (Ended::Method, Some((Frame::Method(method), _))) => return Ok(Some(Said::Method(method))),
            (Ended::Alone, Some((Frame::Body(bytes), _))) => bytes,
            _ => &self.content.bytes,
        };
        if self.content.is_returned {
            return Ok(Some(Said::Returned));
        }
        Ok(Some(Said::Message { exchange: &self.content.exchange, payload }))
    }

    /// Reads on, and says how much came: zero at the end. What was read is kept when this is not waited for to the end.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        self.inbox.understood(std::mem::take(&mut self.said));
        self.inbox.read().await
    }
}

/// Takes a frame into what is being put together.
fn take(content: &mut Content, frame: &Frame<'_>) -> Result<Ended, Garbage> {
    let is_whole = match frame {
        Frame::Heartbeat => return Ok(Ended::Nothing),
        Frame::Method(Method::Deliver { exchange }) => {
            content.begin(false, exchange);
            return Ok(Ended::Nothing);
        }
        Frame::Method(Method::Return) => {
            content.begin(true, &[]);
            return Ok(Ended::Nothing);
        }
        Frame::Method(_) => return Ok(Ended::Method),
        Frame::Header(size) => {
            content.header(*size);
            *size == 0
        }
        Frame::Body(bytes) => {
            let left = content.left.and_then(|left| left.checked_sub(bytes.len() as u64)).ok_or(Garbage)?;
            content.left = Some(left);
            if left == 0 && content.bytes.is_empty() && !content.is_skipped {
                return Ok(Ended::Alone);
            }
            if !content.is_skipped {
                content.bytes.extend_from_slice(bytes);
            }
            left == 0
        }
    };
    Ok(if is_whole { Ended::Gathered } else { Ended::Nothing })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as a server delivers it, cut into bodies of at most so many bytes.
    fn delivery(exchange: &[u8], content: &[u8], body: usize) -> Vec<u8> {
        let mut out = Vec::new();
        frames::write(&mut out, 1, (60, 60), |arguments| {
            arguments.short(b"tag").u32(0).u32(1).u8(0).short(exchange).short(b"key");
        });
        let mut published = Vec::new();
        frames::publish(&mut published, 1, body + frames::AROUND, (b"", b""), [content, &[]]);
        let (_, method) = frames::read(&published).unwrap().unwrap();
        out.extend_from_slice(&published[method..]);
        out
    }

    fn returned(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frames::write(&mut out, 1, (60, 50), |arguments| {
            arguments.u16(312).short(b"NO_ROUTE").short(b"one").short(b"key");
        });
        out.extend(delivery(b"", content, 3).split_off(delivery(b"", b"", 3).len() - 22));
        out
    }

    /// All that is said by these bytes, when so many are read at a time.
    async fn said(bytes: &[u8], step: usize) -> Result<Vec<String>, Garbage> {
        let (mut writes, reads) = tokio::io::duplex(step);
        let mut messages = Messages::new(Inbox::new(Box::new(reads), Vec::new()));
        let mut said = Vec::new();
        let write = async {
            tokio::io::AsyncWriteExt::write_all(&mut writes, bytes).await.unwrap();
            drop(writes);
        };
        let read = async {
            loop {
                while let Some(next) = messages.next()? {
                    said.push(match next {
                        Said::Message { exchange, payload } => {
                            format!("{} {}", String::from_utf8_lossy(exchange), payload.len())
                        }
                        other => format!("{other:?}"),
                    });
                }
                if messages.read().await.unwrap() == 0 {
                    return Ok(said);
                }
            }
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn messages_are_put_together_however_they_were_cut() {
        let mut bytes = Vec::new();
        bytes.extend(delivery(b"all", b"", 10));
        bytes.extend(delivery(b"one", b"0123456789", 10));
        bytes.extend([8, 0, 0, 0, 0, 0, 0, 0xCE]);
        bytes.extend(returned(b"nobody has it"));
        bytes.extend(delivery(b"all", &vec![1; 200_000], 100_000));
        frames::write(&mut bytes, 1, (60, 80), |arguments| {
            arguments.u32(0).u32(9).u8(1);
        });
        bytes.extend(delivery(b"all", &vec![1; LONGEST], 100_000));
        bytes.extend(delivery(b"all", &vec![1; LONGEST + 1], 100_000));
        bytes.extend(delivery(b"one", b"x", 1));
        let expected = [
            "all 0".to_owned(),
            "one 10".to_owned(),
            "Returned".to_owned(),
            "all 200000".to_owned(),
            format!("{:?}", Said::Method(Method::Ack { tag: 9, and_before: true })),
            format!("all {LONGEST}"),
            "all 0".to_owned(),
            "one 1".to_owned(),
        ];
        for step in [1000, 70_000, 1 << 20] {
            assert_eq!(said(&bytes, step).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn more_content_than_was_announced_is_garbage() {
        let mut bytes = delivery(b"all", b"12", 2);
        let again = bytes[bytes.len() - 10..].to_vec();
        bytes.extend(again);
        assert_eq!(said(&bytes, 1000).await, Err(Garbage));
    }
}
