//! [`Places`]: how far users, or each of their devices, have read their inboxes, and stored members the logs of their groups.
//! Kept as records, written once a second for all that moved; what was not written yet when a node dies is read again by its
//! client. Those of members are part of their memberships, which `logs/audience.rs` keeps.

use std::collections::HashMap;
use std::time::Duration;

use tieline_proto::Position;
use tokio::time::Instant;

use super::audience::{Audience, Membership};
use super::clerk::Coming;
use super::{Engine, Reader};
use crate::records::{Change, Expect, RecordKey, Records, Value};
use crate::store::{AppendKey, LogKey, StoreError};

/// How often they are written.
const EVERY: Duration = Duration::from_secs(1);

/// How long a place is kept that does not move: a client that comes back later is given the whole inbox.
const LIVES: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long one is remembered that the store has: a client that is told where it was may have been asked about before that, and
/// is not given again what it has read since.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Places that are to be written, and those that were a moment ago.
#[derive(Default)]
pub(super) struct Places {
    moved: HashMap<Reader, Position>,
    /// Those that the store was given, and since when it has them, where it has.
    given: HashMap<Reader, (Position, Option<Instant>)>,
    taken: Option<Instant>,
}

impl Places {
    /// A client has read up to here. It does not go back within an epoch as long as it is remembered.
    pub(super) fn note(&mut self, reader: Reader, position: Position) {
        let is_new = |known: Position| known.epoch != position.epoch || known.offset < position.offset;
        if self.known(&reader).is_none_or(is_new) {
            self.moved.insert(reader, position);
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.taken.is_none_or(|taken| now.duration_since(taken) >= EVERY)
    }

    /// What is to be written.
    pub(super) fn take(&mut self, now: Instant) -> HashMap<Reader, Position> {
        self.taken = Some(now);
        self.given.retain(|_, (_, since)| since.is_none_or(|since| now.duration_since(since) < REMEMBERED));
        let moved = std::mem::take(&mut self.moved);
        self.given.extend(moved.iter().map(|(reader, position)| (reader.clone(), (*position, None))));
        moved
    }

    /// The store has one, or has not; then it is to be written again, unless it was forgotten or moved on meanwhile.
    pub(super) fn written(&mut self, reader: Reader, position: Position, is_written: bool, now: Instant) {
        match self.given.get_mut(&reader) {
            Some((given, since)) if *given == position && is_written => *since = Some(now),
            Some((given, _)) if *given == position => {
                self.given.remove(&reader);
                self.note(reader, position);
            }
            _ => {}
        }
    }

    /// A member has left: what it has read is of no account any more.
    pub(super) fn forget(&mut self, reader: &Reader) {
        self.moved.remove(reader);
        self.given.remove(reader);
    }

    fn known(&self, reader: &Reader) -> Option<Position> {
        let given = || self.given.get(reader).map(|(position, _)| *position);
        self.moved.get(reader).copied().or_else(given)
    }

    /// Where a reader is whose place the store has given, or has none of: what has moved here meanwhile is newer.
    pub(super) fn latest(&self, reader: &Reader, stored: Option<Position>) -> Option<Position> {
        later(stored, self.known(reader))
    }

    /// Reads one; none where there is none, or it cannot be read.
    pub(super) fn read(
        records: &dyn Records,
        reader: &Reader,
    ) -> Coming<Result<Option<Position>, StoreError>> {
        let answer = records.get(key(reader));
        Box::pin(async move {
            let record = answer.await?;
            Ok(record.and_then(|record| {
                let (epoch, rest) = record.value.split_first_chunk()?;
                let (offset, _) = rest.split_first_chunk()?;
                Some(Position { epoch: u64::from_le_bytes(*epoch), offset: u64::from_le_bytes(*offset) })
            }))
        })
    }

    /// Writes one.
    pub(super) fn write(
        engine: &Engine,
        reader: &Reader,
        position: Position,
    ) -> Coming<Result<(), StoreError>> {
        if let (LogKey::Group(hub, group), Some(user)) = (&reader.log, &reader.member) {
            let (audience, hub, user) = (Audience::new(engine), hub.clone(), user.clone());
            let membership = Membership { group: group.clone(), place: position };
            return Box::pin(async move { audience.note(&hub, &user, &membership).await });
        }
        // Behind the numbers stands whose it is, for people who look into the store.
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&position.epoch.to_le_bytes());
        bytes.extend_from_slice(&position.offset.to_le_bytes());
        bytes.extend_from_slice(reader.log.to_text().as_bytes());
        let to = Some(Value { bytes: bytes.into(), lives: Some(LIVES) });
        let answer =
            engine.records.compare_and_set(Change { key: key(reader), expect: Expect::Anything, to });
        Box::pin(async move { answer.await.map(drop) })
    }
}

/// The later one of two places, where the second is the newer word.
pub(super) fn later(first: Option<Position>, second: Option<Position>) -> Option<Position> {
    match (first, second) {
        (Some(first), Some(second)) if first.epoch == second.epoch && first.offset > second.offset => {
            Some(first)
        }
        (first, second) => second.or(first),
    }
}

fn key(reader: &Reader) -> RecordKey {
    let device = reader.device.as_deref().unwrap_or_default();
    let AppendKey(hash) = AppendKey::of(&[&reader.log.to_text(), device]);
    RecordKey::new(&format!("place/{hash:032x}")).expect("a prefix and digits are a key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_proto::{GroupName, HubName, UserId};

    #[test]
    fn a_place_does_not_go_back_while_it_is_written_and_just_after() {
        let reader = Reader::of_member(
            HubName::new("h").unwrap(),
            GroupName::new("g").unwrap(),
            UserId::new("u").unwrap(),
        );
        let at = |epoch, offset| Position { epoch, offset };
        let mut places = Places::default();
        let start = Instant::now();
        let second = |count: u32| start + count * EVERY;
        places.note(reader.clone(), at(7, 2));
        assert_eq!(places.take(second(0))[&reader], at(7, 2));
        places.note(reader.clone(), at(7, 1));
        assert_eq!(places.latest(&reader, Some(at(7, 0))), Some(at(7, 2)), "the store has it not yet");
        assert!(places.take(second(1)).is_empty(), "there is nothing to write");
        places.note(reader.clone(), at(7, 3));
        places.written(reader.clone(), at(7, 2), true, second(1));
        assert!(!places.is_due(second(1) + EVERY / 2) && places.is_due(second(2)));
        assert_eq!(places.take(second(2))[&reader], at(7, 3));
        places.written(reader.clone(), at(7, 3), false, second(2));
        assert_eq!(places.take(second(3))[&reader], at(7, 3), "what the store refused is written again");
        places.written(reader.clone(), at(7, 3), true, second(3));
        places.note(reader.clone(), at(7, 2));
        assert!(places.take(second(4)).is_empty(), "it has read more");
        assert_eq!(places.latest(&reader, Some(at(7, 2))), Some(at(7, 3)), "what the store said is old");
        places.note(reader.clone(), at(8, 1));
        assert_eq!(places.take(second(5))[&reader], at(8, 1), "another log begins anew");
        places.written(reader.clone(), at(8, 1), true, second(5));
        assert!(places.take(second(5) + REMEMBERED).is_empty());
        assert_eq!(places.latest(&reader, None), None, "it is the store that knows");
    }
}
