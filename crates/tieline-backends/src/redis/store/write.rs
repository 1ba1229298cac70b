//! [`Write`]: a request that changes something, as words of the script `apply.lua`, and what its answers mean. No I/O.
//! Tested by the conformance suites.

use tieline_core::records::{Change, Expect, Outcome, Record, Version};
use tieline_core::store::{Append, Appended, Cut, Head, LogKey, Refusal, StoreError};
use tieline_proto::Position;
use tieline_proto::id::MAX_EXACT;
use tokio::sync::oneshot;

use super::super::link::{Words, shown};
use super::super::resp::Answer;
use super::fault;
use super::known::{Known, Last};

/// Bytes of a record before its value: the version.
const VERSION: usize = 8;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request to the writer.
pub(super) enum Write {
    Append(Append, Reply<Appended>),
    Trim(LogKey, Cut, Reply<()>),
    Renew(LogKey, u64, Reply<Option<Head>>),
    /// The version is what the record gets.
    Change(Change, Version, Reply<Outcome>),
}

impl Write {
    /// Bytes that it takes while it waits.
    pub(super) fn size(&self) -> usize {
        let carried = match self {
            Write::Append(append, _) => append.body.len(),
            Write::Change(change, ..) => change.to.as_ref().map_or(0, |value| value.bytes.len()),
            Write::Trim(..) | Write::Renew(..) => 0,
        };
        carried + size_of::<Write>()
    }

    /// Whether asking again does no harm where nobody knows whether it has happened.
    pub(super) fn may_be_repeated(&self) -> bool {
        match self {
            Write::Append(..) | Write::Renew(..) | Write::Trim(_, Cut::Through(_), _) => true,
            Write::Trim(_, Cut::Whole, _) | Write::Change(..) => false,
        }
    }

    /// Ends it.
    pub(super) fn fail(self, error: StoreError) {
        match self {
            Write::Append(_, reply) => drop(reply.send(Err(error))),
            Write::Trim(.., reply) => drop(reply.send(Err(error))),
            Write::Renew(.., reply) => drop(reply.send(Err(error))),
            Write::Change(.., reply) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn say(&self, words: &mut Words) {
        match self {
            Write::Append(append, _) => {
                words.push(b"a");
                words.push(append.log.to_text().as_bytes());
                words.push(&append.key.0.to_be_bytes());
                words.push_pieces(&[&append.id.0.to_be_bytes(), &append.body]);
                words.push_number(append.retention.count.min(MAX_EXACT));
                words.push_number(append.retention.bytes.min(MAX_EXACT));
                words.push_number(append.retention.age_ms());
            }
            Write::Trim(log, Cut::Through(to), _) => {
                words.push(b"t");
                words.push(log.to_text().as_bytes());
                words.push_number(to.epoch);
                words.push_number(to.offset.min(MAX_EXACT));
            }
            Write::Trim(log, Cut::Whole, _) => {
                words.push(b"d");
                words.push(log.to_text().as_bytes());
            }
            Write::Renew(log, epoch, _) => {
                words.push(b"r");
                words.push(log.to_text().as_bytes());
                words.push_number(*epoch);
            }
            Write::Change(change, version, _) => {
                words.push(b"c");
                words.push(change.key.as_str().as_bytes());
                match change.expect {
                    Expect::Anything => words.push(b"*"),
                    Expect::Nothing => words.push(b""),
                    Expect::Version(version) => words.push(&version.0.to_be_bytes()),
                }
                let value = change.to.as_ref();
                match value {
                    Some(value) => words.push_pieces(&[&version.0.to_be_bytes(), &value.bytes]),
                    None => words.push(b""),
                }
                let lives = value.and_then(|value| value.lives);
                let lives = lives.map(|lives| u64::try_from(lives.as_millis()).unwrap_or(u64::MAX));
                // A life that ends beyond what the server can count does not end.
                match lives.filter(|lives| *lives < MAX_EXACT / 2) {
                    Some(lives) => words.push_number(lives),
                    None => words.push(b""),
                }
            }
        }
    }

    /// Tells how it ended; what is acknowledged is remembered.
    pub(super) fn give(self, answer: &Answer<'_>, known: &mut Known) {
        if let Answer::Text(text) | Answer::Refused(text) = answer {
            return self.fail(fault::of_script(&shown(text)));
        }
        let parts: &[Answer<'_>] = if let Answer::Many(parts) = answer { parts } else { &[] };
        match self {
            Write::Append(append, reply) => {
                let appended = match numbers(parts)[..] {
                    [epoch, offset, again, life] => {
                        let position = Position { epoch, offset };
                        // The id of a duplicate may be another one than was stored.
                        if again == 0 {
                            known.saw(&append.log, Last { position, life, id: append.id });
                        }
                        Ok(Appended { position, is_duplicate: again == 1 })
                    }
                    _ => strange(),
                };
                drop(reply.send(appended));
            }
            Write::Trim(.., reply) => drop(reply.send(Ok(()))),
            Write::Renew(.., reply) => {
                let head = match (answer, &numbers(parts)[..]) {
                    (Answer::Number(0), _) => Ok(None),
                    (_, &[epoch, first, last]) => Ok(Some(Head { epoch, first, last })),
                    _ => strange(),
                };
                drop(reply.send(head));
            }
            Write::Change(change, version, reply) => {
                let outcome = match parts {
                    [Answer::Number(1)] => Ok(Outcome::Done(change.to.is_some().then_some(version))),
                    [Answer::Number(0), Answer::Nothing] => Ok(Outcome::Differs(None)),
                    [Answer::Number(0), Answer::Text(found)] => {
                        record(found).map(|record| Outcome::Differs(Some(record)))
                    }
                    _ => strange(),
                };
                drop(reply.send(outcome));
            }
        }
    }
}

/// The answers of the script are its own; another one means that somebody else's program ran.
fn strange<T>() -> Result<T, StoreError> {
    Err(StoreError::Unknown("the server answers something else".to_owned()))
}

/// A record as it is kept: its version, and the value.
pub(super) fn record(bytes: &[u8]) -> Result<Record, StoreError> {
    match bytes.split_first_chunk::<VERSION>() {
        Some((version, value)) => {
            Ok(Record { version: Version(u64::from_be_bytes(*version)), value: value.into() })
        }
        None => Err(Refusal::Damaged("a record is too short".to_owned()).into()),
    }
}

/// Those of the parts that are numbers.
pub(super) fn numbers(parts: &[Answer<'_>]) -> Vec<u64> {
    let number = |part: &Answer<'_>| match part {
        Answer::Number(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    parts.iter().filter_map(number).collect()
}
