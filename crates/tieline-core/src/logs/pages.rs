//! [`Pages`]: what was read of logs for connections that come back. Many that were cut at once come back at once, each as fast as
//! it reads: what one of them needed, others need a moment later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tieline_proto::Position;
use tokio::time::Instant;

use super::entry::Entry;
use super::feed::Item;
use crate::store::LogKey;

/// How long a page is kept. Not longer, because what was removed from a log is not to be given any more.
const KEPT: Duration = Duration::from_secs(2);

/// Pages that are kept. Past it the oldest goes.
const MOST: usize = 256;

/// Bytes of them; likewise.
const MOST_BYTES: usize = 8 << 20;

/// Messages of a log, by their offsets.
pub(super) type Messages = Arc<[(u64, Entry)]>;

struct Kept {
    log: LogKey,
    epoch: u64,
    messages: Messages,
    bytes: usize,
    since: Instant,
}

/// The pages, the oldest first.
#[derive(Default)]
pub(super) struct Pages {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Pages {
    /// Keeps what was read of a log.
    pub(super) fn keep(&mut self, log: LogKey, epoch: u64, messages: Messages, now: Instant) {
        let bytes = messages.iter().map(|(_, entry)| entry.bytes()).sum();
        self.bytes += bytes;
        self.kept.push_back(Kept { log, epoch, messages, bytes, since: now });
        while self.kept.len() > MOST || self.bytes > MOST_BYTES {
            self.drop_oldest();
        }
    }

    /// What is known to follow a place; `None` where nothing is.
    pub(super) fn after(&self, log: &LogKey, at: Position) -> Option<&[(u64, Entry)]> {
        let next = at.offset + 1;
        let holds = |kept: &&Kept| {
            let first = kept.messages.first().is_some_and(|(offset, _)| *offset <= next);
            let last = kept.messages.last().is_some_and(|(offset, _)| *offset >= next);
            kept.epoch == at.epoch && first && last && kept.log == *log
        };
        let messages = &self.kept.iter().rev().find(holds)?.messages;
        Some(&messages[messages.partition_point(|(offset, _)| *offset < next)..])
    }

    /// Lets go of what was kept for long enough.
    pub(super) fn tend(&mut self, now: Instant) {
        while self.kept.front().is_some_and(|kept| now.duration_since(kept.since) >= KEPT) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use tieline_proto::{GroupName, HubName, MessageId};

    use super::*;

    fn log(name: &str) -> LogKey {
        LogKey::Group(HubName::new("hub").unwrap(), GroupName::new(name).unwrap())
    }

    fn messages(offsets: std::ops::RangeInclusive<u64>) -> Messages {
        // What cannot be read is an entry too, and small.
        let entry = |offset| {
            let position = Position { epoch: 1, offset };
            (offset, Entry::of_log(MessageId::new(1, u128::from(offset)), position, b"?"))
        };
        offsets.map(entry).collect()
    }

    fn after(pages: &Pages, name: &str, epoch: u64, offset: u64) -> Option<Vec<u64>> {
        let found = pages.after(&log(name), Position { epoch, offset })?;
        Some(found.iter().map(|(offset, _)| *offset).collect())
    }

    #[test]
    fn what_was_read_is_found_from_any_place_in_it() {
        let mut pages = Pages::default();
        pages.keep(log("a"), 1, messages(4..=8), Instant::now());
        assert_eq!(after(&pages, "a", 1, 3), Some(vec![4, 5, 6, 7, 8]));
        assert_eq!(after(&pages, "a", 1, 6), Some(vec![7, 8]));
        for (name, epoch, offset) in [("a", 1, 2), ("a", 1, 8), ("a", 2, 4), ("b", 1, 4)] {
            assert_eq!(after(&pages, name, epoch, offset), None, "{name} {epoch} {offset}");
        }
    }

    #[test]
    fn it_is_bounded_in_number_bytes_and_time() {
        let (mut pages, now) = (Pages::default(), Instant::now());
        for number in 0..=MOST as u64 {
            pages.keep(log("a"), 1, messages(number * 2 + 1..=number * 2 + 1), now);
        }
        assert_eq!(
            (pages.kept.len(), after(&pages, "a", 1, 0), after(&pages, "a", 1, 2)),
            (MOST, None, Some(vec![3]))
        );
        let many = MOST_BYTES as u64 / 256 / 2 + 1;
        pages.keep(log("b"), 1, messages(1..=many), now);
        pages.keep(log("c"), 1, messages(1..=many), now);
        assert_eq!((after(&pages, "b", 1, 0), pages.bytes <= MOST_BYTES), (None, true));
        pages.tend(now + KEPT - Duration::from_millis(1));
        assert!(after(&pages, "c", 1, 0).is_some());
        pages.tend(now + KEPT);
        assert_eq!((after(&pages, "c", 1, 0), pages.bytes), (None, 0));
    }
}
