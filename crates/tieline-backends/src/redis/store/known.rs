//! [`Known`]: the last message of each log that this handle gave out, so that a log that has lost it is found when the
//! server is back. It remembers nothing beyond the process. Tested here, and with a server that was rolled back.

use std::collections::HashMap;

use tieline_core::store::LogKey;
use tieline_proto::{MessageId, Position};

/// What one generation remembers. Past either, it becomes the former one, and what the former one knew alone is forgotten: those
/// are the logs that were not used for the longest.
const MOST_LOGS: usize = 32_768;
const MOST_BYTES: usize = 8 << 20;

/// A message that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) position: Position,
    /// Which life of all logs the epoch is: a later one has a larger number, as long as the server loses nothing.
    pub(super) life: u64,
    pub(super) id: MessageId,
}

/// The logs that were used lately.
#[derive(Default)]
pub(super) struct Known {
    present: HashMap<LogKey, Last>,
    former: HashMap<LogKey, Last>,
    /// Of the names in `present`.
    bytes: usize,
}

impl Known {
    /// A message was acknowledged, or read.
    pub(super) fn saw(&mut self, log: &LogKey, last: Last) {
        if let Some(known) = self.present.get_mut(log) {
            if known.position.epoch != last.position.epoch || known.position.offset < last.position.offset {
                *known = last;
            }
            return;
        }
        if self.present.len() >= MOST_LOGS || self.bytes >= MOST_BYTES {
            self.former = std::mem::take(&mut self.present);
            self.bytes = 0;
        }
        let newer = |known: &Last| {
            known.position.epoch == last.position.epoch && known.position.offset > last.position.offset
        };
        let last = self.former.remove(log).filter(newer).unwrap_or(last);
        self.bytes += log.to_text().len();
        self.present.insert(log.clone(), last);
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<(LogKey, Last)> {
        self.present.iter().chain(&self.former).map(|(log, last)| (log.clone(), *last)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_proto::{HubName, UserId};

    fn log(number: usize) -> LogKey {
        LogKey::Inbox(HubName::new("h").unwrap(), UserId::new(&number.to_string()).unwrap())
    }

    fn last(epoch: u64, offset: u64) -> Last {
        Last { position: Position { epoch, offset }, life: epoch, id: MessageId(u128::from(offset)) }
    }

    #[test]
    fn the_newest_message_of_the_latest_epoch_counts() {
        let mut known = Known::default();
        for seen in [last(1, 5), last(1, 4), last(1, 6), last(2, 3), last(2, 2)] {
            known.saw(&log(1), seen);
        }
        assert_eq!(known.all(), [(log(1), last(2, 3))]);
    }

    #[test]
    fn the_logs_that_are_used_stay_and_the_others_go() {
        let mut known = Known::default();
        for number in 0..3 * MOST_LOGS {
            known.saw(&log(number), last(1, 1));
            if number % 1000 == 0 {
                known.saw(&log(0), last(1, 1 + number as u64));
                known.saw(&log(0), last(1, 1));
            }
        }
        let all = known.all();
        assert!((MOST_LOGS..=2 * MOST_LOGS).contains(&all.len()), "{}", all.len());
        let newest = all.iter().find(|(key, _)| *key == log(0)).map(|(_, last)| last.position.offset);
        assert_eq!(newest, Some(1 + (3 * MOST_LOGS as u64 - 1) / 1000 * 1000));
    }
}
