//! [`Reading`]: a connection's place in a log of which it is noted how far its client has read it, its user's inbox or the log
//! of a group that the user is a stored member of; and how it is known how far that is.
//!
//! Clients of `tieline.v1` say so themselves. Those of the reliable protocol acknowledge numbers, so each message's number is
//! remembered until it is. The others say nothing: a WebSocket ping behind the messages names the place, and its pong says that
//! they have arrived. Without I/O; tested below, and on real sockets in `tests/sessions/inboxes.rs` and `members.rs`.

use std::collections::VecDeque;

use tieline_proto::Position;

use crate::logs::Reader;
use crate::subprotocol::Subprotocol;

/// Messages whose numbers are remembered until they are acknowledged. Past it the last place moves on with each message, and is
/// read when the newest of them is.
const MOST_MARKS: usize = 64;

/// How long an answer to a ping is waited for before another one is sent, in milliseconds: a peer may leave out the answer to all
/// pings but the last, and then never answers the one that named a place.
const PONG: u64 = 5000;

/// A connection's place in a log.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Whose place in the log it moves.
    pub(crate) reader: Reader,
    /// The last message that it was given, or what it begins behind.
    pub(crate) at: Position,
    /// Whether it was given a message of the log, which then is at `at`.
    pub(crate) has_given: bool,
    evidence: Evidence,
}

/// How it is known what the client has read.
#[derive(Debug)]
enum Evidence {
    /// It says so itself.
    Said,
    /// By numbers: those that are not acknowledged, each with the place that is read when it is.
    Numbered(VecDeque<(u64, Position)>),
    /// By pings: the last place that one has named, if any, when that was, and the last one whose pong came.
    Pinged { asked: Option<Position>, at_ms: u64, answered: Option<Position> },
}

impl Reading {
    /// A connection's place that is not known yet, or, where the client is to say it, is behind `at` unless it does.
    pub(crate) fn new(reader: Reader, at: Position, subprotocol: Subprotocol) -> Self {
        let evidence = match subprotocol {
            Subprotocol::Tieline => Evidence::Said,
            Subprotocol::AzureReliable => Evidence::Numbered(VecDeque::new()),
            Subprotocol::Azure | Subprotocol::Plain => {
                Evidence::Pinged { asked: None, at_ms: 0, answered: None }
            }
        };
        Reading { reader, at, has_given: false, evidence }
    }

    /// The numbers that are not acknowledged, each with the place that is read when it is.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (u64, Position)> {
        let marks = if let Evidence::Numbered(marks) = &self.evidence { Some(marks) } else { None };
        marks.into_iter().flatten().copied()
    }

    /// The connection's messages have other numbers now: those that it had before as `before` says, and what it was given here
    /// is read when the last one is.
    pub(crate) fn renumber(&mut self, before: Vec<(u64, Position)>, last: u64) {
        let Evidence::Numbered(marks) = &mut self.evidence else { return };
        let has_own = !std::mem::take(marks).is_empty();
        marks.extend(before.into_iter().take(MOST_MARKS));
        if has_own {
            self.give(self.at, Some(last));
        }
    }

    /// Whether it is for its client to say what it has read.
    pub(crate) fn is_said(&self) -> bool {
        matches!(self.evidence, Evidence::Said)
    }

    /// The connection was given the message at `position`, as the last of its numbered ones, where they are numbered.
    pub(crate) fn give(&mut self, position: Position, sequence: Option<u64>) {
        self.at = position;
        self.has_given = true;
        let Evidence::Numbered(marks) = &mut self.evidence else { return };
        let mark = (sequence.unwrap_or(0), position);
        if marks.len() >= MOST_MARKS {
            marks.pop_back();
        }
        marks.push_back(mark);
    }

    /// All numbers up to this one are acknowledged. Returns the place that has been read by that.
    pub(crate) fn acknowledged(&mut self, sequence: u64) -> Option<Position> {
        let Evidence::Numbered(marks) = &mut self.evidence else { return None };
        let mut read = None;
        while let Some((_, position)) = marks.pop_front_if(|(number, _)| *number <= sequence) {
            read = Some(position);
        }
        read
    }

    /// The place that a ping is to name now: one at a time, unless the answer does not come.
    pub(crate) fn ask(&mut self, now_ms: u64) -> Option<[u8; 16]> {
        let Evidence::Pinged { asked, at_ms, answered } = &mut self.evidence else { return None };
        let is_waiting = asked != answered && now_ms.saturating_sub(*at_ms) < PONG;
        if !self.has_given || *asked == Some(self.at) || is_waiting {
            return None;
        }
        (*asked, *at_ms) = (Some(self.at), now_ms);
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&self.at.epoch.to_be_bytes());
        payload[8..].copy_from_slice(&self.at.offset.to_be_bytes());
        Some(payload)
    }

    /// A pong came. Returns the place that has been read by that: none where the payload names no place that was asked for.
    pub(crate) fn answered(&mut self, payload: &[u8]) -> Option<Position> {
        let Evidence::Pinged { asked: Some(asked), answered, .. } = &mut self.evidence else { return None };
        let (epoch, rest) = payload.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let position = Position { epoch: u64::from_be_bytes(*epoch), offset: u64::from_be_bytes(*offset) };
        // Places of earlier pings are behind that of the last one, and their pongs may be late.
        let was_asked = rest.is_empty() && position.epoch == asked.epoch && position.offset <= asked.offset;
        let is_new = answered
            .is_none_or(|answered| answered.epoch != position.epoch || answered.offset < position.offset);
        if !was_asked || !is_new {
            return None;
        }
        *answered = Some(position);
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use tieline_proto::{HubName, UserId};

    use super::*;

    fn reading(subprotocol: Subprotocol) -> Reading {
        let (hub, bob) = (HubName::new("hub").unwrap(), UserId::new("bob").unwrap());
        Reading::new(Reader::of_inbox(hub, bob, None), at(0), subprotocol)
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 7, offset }
    }

    #[test]
    fn what_a_number_covers_is_read() {
        let mut reading = reading(Subprotocol::AzureReliable);
        assert_eq!(reading.acknowledged(9), None);
        // 2 and 4 were messages of groups.
        for (sequence, offset) in [(1, 1), (3, 2), (5, 3)] {
            reading.give(at(offset), Some(sequence));
        }
        assert_eq!(reading.acknowledged(2), Some(at(1)));
        assert_eq!(reading.acknowledged(2), None);
        assert_eq!(reading.acknowledged(5), Some(at(3)));
        assert_eq!(reading.ask(0), None);
    }

    #[test]
    fn what_it_had_elsewhere_keeps_its_numbers_and_what_came_here_is_read_with_the_last() {
        let mut reading = reading(Subprotocol::AzureReliable);
        reading.give(at(3), Some(1));
        reading.give(at(4), Some(2));
        reading.renumber(vec![(7, at(1)), (9, at(2))], 12);
        assert_eq!(reading.marks().collect::<Vec<_>>(), [(7, at(1)), (9, at(2)), (12, at(4))]);
        assert_eq!((reading.acknowledged(11), reading.acknowledged(12)), (Some(at(2)), Some(at(4))));
        reading.renumber(vec![(14, at(5))], 20);
        assert_eq!(reading.acknowledged(20), Some(at(5)));
    }

    #[test]
    fn many_numbers_are_bounded_and_never_read_too_early() {
        let mut reading = reading(Subprotocol::AzureReliable);
        for number in 1..=10_000 {
            reading.give(at(number), Some(number));
        }
        let Evidence::Numbered(marks) = &reading.evidence else { panic!() };
        assert_eq!(marks.len(), MOST_MARKS);
        assert_eq!(reading.acknowledged(9_999), Some(at(MOST_MARKS as u64 - 1)));
        assert_eq!(reading.acknowledged(10_000), Some(at(10_000)));
    }

    #[test]
    fn one_ping_is_out_at_a_time_and_its_pong_moves_the_place() {
        let mut reading = reading(Subprotocol::Azure);
        assert_eq!(reading.ask(0), None, "nothing was given");
        reading.give(at(1), None);
        let first = reading.ask(0).unwrap();
        reading.give(at(2), None);
        assert_eq!(reading.ask(PONG - 1), None);
        assert_eq!(reading.answered(&first), Some(at(1)));
        let second = reading.ask(PONG - 1).unwrap();
        assert_eq!(reading.answered(&first), None);
        assert_eq!((reading.answered(&second), reading.ask(1 << 40)), (Some(at(2)), None));
    }

    #[test]
    fn a_pong_that_does_not_come_is_asked_for_again_and_counts_when_it_is_late() {
        let mut reading = reading(Subprotocol::Plain);
        reading.give(at(1), None);
        let first = reading.ask(0).unwrap();
        reading.give(at(2), None);
        let second = reading.ask(PONG).unwrap();
        assert_eq!((reading.answered(&first), reading.answered(&second)), (Some(at(1)), Some(at(2))));
    }

    #[test]
    fn a_pong_that_names_no_asked_place_is_nothing() {
        let mut reading = reading(Subprotocol::Plain);
        let named = |epoch: u64, offset: u64| [epoch.to_be_bytes(), offset.to_be_bytes()].concat();
        reading.give(at(1), None);
        assert_eq!(reading.answered(&named(7, 1)), None, "nothing was asked");
        reading.ask(0).unwrap();
        reading.give(at(2), None);
        let longer = [named(7, 1), vec![0]].concat();
        for payload in [vec![], vec![0; 8], named(7, 2), named(8, 1), named(0, 0), longer] {
            assert_eq!(reading.answered(&payload), None, "{payload:?}");
        }
        assert_eq!(reading.answered(&named(7, 1)), Some(at(1)));
    }
}
