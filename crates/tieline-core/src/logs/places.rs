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

/// Places that are to be written.
#[derive(Default)]
pub(super) struct Places {
    moved: HashMap<Reader, Position>,
    /// Those that the store was given and has not answered for.
    writing: HashMap<Reader, Position>,
    written: Option<Instant>,
}

impl Places {
    /// A client has read up to here. It never goes back within an epoch.
    pub(super) fn note(&mut self, reader: Reader, position: Position) {
        let place = self.moved.entry(reader).or_insert(position);
        if place.epoch != position.epoch || place.offset < position.offset {
            *place = position;
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.moved.is_empty() && self.written.is_none_or(|written| now.duration_since(written) >= EVERY)
    }

    pub(super) fn take(&mut self) -> HashMap<Reader, Position> {
        self.written = Some(Instant::now());
        let moved = std::mem::take(&mut self.moved);
        self.writing.extend(moved.iter().map(|(reader, position)| (reader.clone(), *position)));
        moved
    }

    /// The store has one, or has not; then it is to be written again, unless it was forgotten meanwhile.
    pub(super) fn written(&mut self, reader: Reader, position: Position, is_written: bool) {
        let is_known = self.writing.contains_key(&reader);
        if self.writing.get(&reader) == Some(&position) {
            self.writing.remove(&reader);
        }
        if !is_written && is_known {
            self.note(reader, position);
        }
    }

    /// A member has left: what it has read is of no account any more.
    pub(super) fn forget(&mut self, reader: &Reader) {
        self.moved.remove(reader);
        self.writing.remove(reader);
    }

    /// Where a reader is whose place the store has given, or has none of: what has moved here meanwhile is newer.
    pub(super) fn latest(&self, reader: &Reader, stored: Option<Position>) -> Option<Position> {
        let here = self.moved.get(reader).or_else(|| self.writing.get(reader)).copied();
        later(stored, here)
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
