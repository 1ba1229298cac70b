//! [`Feed`]: the delivery of one log at this node, strictly by offset, whatever comes in which order and whatever does not
//! come. Without I/O: what it has to know of the store it asks by a [`Question`], one at a time.
//!
//! Messages come from this node's own appends, from other nodes and from the store. Those ahead wait until what is
//! before them was read. When the log has another epoch, the ids of the last messages that were delivered tell whether it is
//! the same log under a new name (then delivery goes on behind them) or another one (then it begins anew).
//! Tested by properties in `feed/tests.rs`.

use std::collections::{BTreeMap, VecDeque};

use tieline_proto::{MessageId, Position};

use crate::store::{Gap, Head, PageLimit};

#[cfg(test)]
mod tests;

/// Messages that wait for one before them. Past it the newest is dropped: it is read from the store later.
const MOST_AHEAD: usize = 1024;

/// Messages that were delivered last and are remembered: for those who come back after a moment, and to know the log by.
/// Not more than one page, so that one read compares them all.
const MOST_RECENT: usize = 256;

/// Bytes of those.
const MOST_RECENT_BYTES: usize = 1 << 20;

/// Where a log is that has no message yet: its name on the wire, and what a client may come back with.
pub(crate) const NOTHING_YET: Position = Position { epoch: 0, offset: 0 };

/// A message of a log, as far as its feed looks at it.
pub(crate) trait Item: Clone {
    /// The message's id.
    fn id(&self) -> MessageId;
    /// Its memory.
    fn bytes(&self) -> usize;
}

/// What a feed has to ask the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// The log's head.
    Head,
    /// A page of what follows.
    Read(Position),
    /// To give the log another epoch, if it still has this one.
    Renew(u64),
}

/// A page in the words of a feed.
pub(crate) struct FeedPage<M> {
    /// The head at the time of reading.
    pub(crate) head: Option<Head>,
    /// Why there are no messages.
    pub(crate) gap: Option<Gap>,
    /// By their offsets, without holes.
    pub(crate) messages: Vec<(u64, M)>,
}

/// What a feed does next about its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Nothing: it has all that it knows of.
    Rest,
    /// To learn where the log ends.
    Head,
    /// To read on.
    Read,
    /// To find the last delivered messages in a log that has another epoch, or whose store was away.
    Recognize(Head),
    /// To give the log another epoch: it has lost messages.
    Renew(u64),
}

/// The delivery of one log.
pub(crate) struct Feed<M> {
    /// The last message that was delivered; none until it is known where to begin.
    at: Option<Position>,
    /// What came before that was known.
    early: Vec<(Position, M)>,
    /// What came and waits for others, by offset, of the epoch of `at`.
    ahead: BTreeMap<u64, M>,
    /// What was delivered last, by offset, ending with `at`.
    recent: VecDeque<(u64, M)>,
    recent_bytes: usize,
    aim: Aim,
    is_asking: bool,
    /// Whether what it asked was before the store was away, so that the answer is of no account.
    is_stale: bool,
    /// Where it was when it asked: more may have come since, which an answer need not know of.
    asked: Option<Position>,
    /// Whether the last messages have to be looked for in the log before it is read on.
    in_doubt: bool,
    /// Whether messages were trimmed before they could be delivered.
    has_lost: bool,
    /// Whether there was another log before: what comes late of that must not be taken for the first of its successor.
    is_remade: bool,
}

impl<M: Item> Default for Feed<M> {
    fn default() -> Self {
        Feed {
            at: None,
            early: Vec::new(),
            ahead: BTreeMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            aim: Aim::Head,
            is_asking: false,
            is_stale: false,
            asked: None,
            in_doubt: false,
            has_lost: false,
            is_remade: false,
        }
    }
}

impl<M: Item> Feed<M> {
    /// The end of what was delivered; none until it is known where to begin.
    pub(crate) fn at(&self) -> Option<Position> {
        self.at
    }

    /// Takes a message that was stored. One that was delivered already is dropped, and so is one that is read later.
    pub(crate) fn offer(&mut self, position: Position, message: M) {
        let Some(at) = self.at else {
            if self.early.len() < MOST_AHEAD {
                self.early.push((position, message));
            }
            return;
        };
        if at == NOTHING_YET && position.offset == 1 && !self.is_remade {
            self.at = Some(Position { epoch: position.epoch, offset: 0 });
        } else if position.epoch != at.epoch {
            return self.look();
        } else if position.offset <= at.offset {
            return;
        }
        self.hold(position.offset, message);
    }

    /// Keeps a message until its turn. Where there are too many, the last one is dropped.
    fn hold(&mut self, offset: u64, message: M) {
        self.ahead.entry(offset).or_insert(message);
        if self.ahead.len() > MOST_AHEAD {
            self.ahead.pop_last();
        }
    }

    /// The next message in the order of the log, which counts as delivered from now on.
    pub(crate) fn next(&mut self) -> Option<(Position, M)> {
        let at = self.at?;
        if self.in_doubt || matches!(self.aim, Aim::Recognize(_) | Aim::Renew(_)) {
            return None;
        }
        let offset = at.offset + 1;
        let Some(message) = self.ahead.remove(&offset) else {
            if !self.ahead.is_empty() && self.aim == Aim::Rest {
                self.aim = Aim::Read;
            }
            return None;
        };
        let position = Position { epoch: at.epoch, offset };
        self.at = Some(position);
        self.recent_bytes += message.bytes();
        self.recent.push_back((offset, message.clone()));
        while self.recent.len() > MOST_RECENT
            || self.recent_bytes > MOST_RECENT_BYTES && self.recent.len() > 1
        {
            let (_, oldest) = self.recent.pop_front().expect("there are more than one");
            self.recent_bytes -= oldest.bytes();
        }
        Some((position, message))
    }

    /// What was delivered after a position, if it is all remembered.
    pub(crate) fn recent_since(&self, since: Position) -> Option<impl Iterator<Item = &(u64, M)>> {
        let at = self.at?;
        let oldest = self.recent.front().map_or(at.offset + 1, |(offset, _)| *offset);
        let is_covered = since.epoch == at.epoch && since.offset <= at.offset && since.offset + 1 >= oldest;
        is_covered.then(|| self.recent.iter().skip_while(move |(offset, _)| *offset <= since.offset))
    }

    /// What has to be asked of the store now. The answer must be given by [`Feed::head`], [`Feed::page`] or
    /// [`Feed::failed`] before the next question.
    pub(crate) fn question(&mut self) -> Option<Question> {
        if self.is_asking {
            return None;
        }
        let question = match (self.aim, self.at) {
            (Aim::Rest, _) => return None,
            (Aim::Head, _) | (_, None) => Question::Head,
            (Aim::Read, Some(NOTHING_YET)) => Question::Head,
            (Aim::Read, Some(at)) => Question::Read(at),
            (Aim::Recognize(head), Some(_)) => {
                let oldest = self.recent.front().map_or(1, |(offset, _)| *offset);
                Question::Read(Position { epoch: head.epoch, offset: oldest.max(head.first) - 1 })
            }
            (Aim::Renew(epoch), _) => Question::Renew(epoch),
        };
        self.is_asking = true;
        self.asked = self.at;
        Some(question)
    }

    /// Wants to know where the log ends: others may have said more than came here.
    pub(crate) fn look(&mut self) {
        if self.aim == Aim::Rest {
            self.aim = Aim::Head;
        }
    }

    /// Whether there is nothing that it wants to know.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.aim == Aim::Rest
    }

    /// The store was away: before anything else is delivered, the log must be found to be what it was.
    pub(crate) fn doubt(&mut self) {
        // What waits may be gone there; what is not is read.
        self.ahead.clear();
        self.early.clear();
        self.is_stale = self.is_asking;
        if self.at.is_some_and(|at| at != NOTHING_YET) && !self.recent.is_empty() {
            self.in_doubt = true;
            self.aim = Aim::Head;
        } else {
            self.look();
        }
    }

    /// The store did not answer a question; it is asked again.
    pub(crate) fn failed(&mut self) {
        self.is_asking = false;
        self.is_stale = false;
    }

    /// Whether messages were lost to this node since it was asked last, because they were trimmed before they were read.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// The answer to [`Question::Head`] and [`Question::Renew`].
    pub(crate) fn head(&mut self, head: Option<Head>) {
        self.is_asking = false;
        if !std::mem::take(&mut self.is_stale) {
            self.compare(head);
        }
    }

    fn compare(&mut self, head: Option<Head>) {
        let Some(at) = self.at else {
            self.at =
                Some(head.map_or(NOTHING_YET, |head| Position { epoch: head.epoch, offset: head.last }));
            self.aim = Aim::Rest;
            for (position, message) in std::mem::take(&mut self.early) {
                self.offer(position, message);
            }
            return;
        };
        let asked = self.asked.unwrap_or(at);
        if asked.epoch != at.epoch {
            // The answer is older than what is known of the log by now.
            self.aim = Aim::Head;
            return;
        }
        let in_doubt = std::mem::take(&mut self.in_doubt);
        self.aim = match head {
            None => {
                // Dropped, or not there yet: what comes next is the first of its log.
                if at != NOTHING_YET {
                    self.begin_anew(NOTHING_YET);
                }
                Aim::Rest
            }
            Some(head) if at == NOTHING_YET => {
                self.begin_at(head);
                Aim::Read
            }
            Some(head) if head.epoch != at.epoch => Aim::Recognize(head),
            Some(head) if head.last < asked.offset => Aim::Renew(head.epoch),
            Some(head) if in_doubt && at.offset >= head.first => Aim::Recognize(head),
            Some(head) if head.last > at.offset => Aim::Read,
            Some(_) => Aim::Rest,
        };
    }

    /// The log is another one, of which nothing was delivered.
    fn begin_at(&mut self, head: Head) {
        // A log that was trimmed at its beginning already: what is gone is told.
        self.has_lost |= head.first > 1;
        self.begin_anew(Position { epoch: head.epoch, offset: head.first - 1 });
    }

    fn begin_anew(&mut self, at: Position) {
        self.is_remade |= self.at.is_some_and(|at| at != NOTHING_YET);
        self.at = Some(at);
        self.ahead.clear();
        self.recent.clear();
        self.recent_bytes = 0;
    }

    /// The answer to [`Question::Read`].
    pub(crate) fn page(&mut self, page: FeedPage<M>) {
        self.is_asking = false;
        if std::mem::take(&mut self.is_stale) {
            return;
        }
        let Some(at) = self.at else { return };
        let Some(head) = page.head else { return self.compare(None) };
        if let Aim::Recognize(of) = self.aim {
            // It changed again meanwhile.
            if of.epoch != head.epoch || page.gap == Some(Gap::Trimmed) {
                self.aim = Aim::Recognize(head);
                return;
            }
            return self.recognize(at, head, &page.messages);
        }
        match page.gap {
            None => {
                let is_end = page.messages.last().is_none_or(|(offset, _)| *offset >= head.last);
                for (offset, message) in page.messages {
                    if offset > at.offset {
                        self.hold(offset, message);
                    }
                }
                self.aim = if is_end { Aim::Rest } else { Aim::Read };
            }
            // Of what was trimmed all has come meanwhile.
            Some(Gap::Trimmed) if head.first <= at.offset + 1 => self.aim = Aim::Read,
            Some(Gap::Trimmed) => {
                self.has_lost = true;
                self.at = Some(Position { epoch: at.epoch, offset: head.first - 1 });
                self.recent.clear();
                self.recent_bytes = 0;
                self.ahead = self.ahead.split_off(&head.first);
                self.aim = Aim::Read;
            }
            Some(Gap::Epoch) => self.aim = Aim::Recognize(head),
            Some(Gap::Ahead) => self.aim = Aim::Renew(head.epoch),
        }
    }

    /// Compares what was delivered last with what the log has at these places.
    fn recognize(&mut self, at: Position, head: Head, found: &[(u64, M)]) {
        let ids: BTreeMap<u64, MessageId> =
            found.iter().map(|(offset, message)| (*offset, message.id())).collect();
        let same = self.recent.iter().take_while(|(offset, message)| {
            // What was trimmed cannot be compared, and was before what can.
            *offset < head.first || ids.get(offset) == Some(&message.id())
        });
        let same = same.filter(|(offset, _)| *offset >= head.first).last().map(|(offset, _)| *offset);
        let is_whole = same == Some(at.offset);
        match same {
            _ if head.epoch == at.epoch && !is_whole && head.first <= at.offset => {
                // Another message is at a place that was given already.
                self.aim = Aim::Renew(head.epoch);
            }
            Some(same) => {
                // The same log, perhaps without its end.
                self.at = Some(Position { epoch: head.epoch, offset: same });
                self.recent.retain(|(offset, _)| *offset <= same);
                self.recent_bytes = self.recent.iter().map(|(_, message)| message.bytes()).sum();
                if head.epoch != at.epoch {
                    self.ahead.clear();
                }
                self.aim = Aim::Read;
            }
            None => {
                self.begin_at(head);
                self.aim = Aim::Read;
            }
        }
    }

    /// How much one read of this log may bring.
    pub(crate) fn page_limit() -> PageLimit {
        PageLimit { count: MOST_RECENT, bytes: 4 * MOST_RECENT_BYTES }
    }
}
