//! Publishing: a message is encoded once per format and appended to the log once; each recipient gets a
//! reference to it.

use smallvec::SmallVec;

use crate::application::{Application, Cause};
use crate::connection::{Connection, Format, Phase};
use crate::encode::{Encode, Encoded};
use crate::group::GroupId;
use crate::pending::MAX_ENTRIES;
use crate::shard::Shard;
use crate::{Address, Slot};

use std::collections::VecDeque;
use std::sync::Arc;

/// One part of a publication's recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// All members of a group on this shard.
    Group(GroupId),
    /// One connection, if it is still there.
    Connection(Address),
}

/// What becomes of a publication for a connection that has too much coming already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenLagging {
    /// The connection is ended: its client can come back and recover.
    #[default]
    End,
    /// The connection misses this message, which is counted.
    Drop,
}

/// Decides for one connection whether it gets a publication.
pub type Only<'a, S> = &'a dyn Fn(Slot, &S) -> bool;

/// A message and who gets it. A connection that is reached in several ways gets it once.
pub struct Publication<'a, S> {
    /// The message.
    pub message: &'a dyn Encode,
    /// Who gets it.
    pub to: &'a [Recipients],
    /// Connections of this shard that do not get it.
    pub except: &'a [Address],
    /// A condition on each recipient's session.
    pub only: Option<Only<'a, S>>,
    /// What happens where a recipient lags too far behind.
    pub when_lagging: WhenLagging,
}

/// The formats that a publication has been encoded for.
type Encodings = SmallVec<[(Format, Encoded); 2]>;

impl<A: Application> Shard<A> {
    /// Queues a message to its recipients on this shard and returns how many there are. Numbered frames get
    /// their sequence numbers in this order.
    pub fn publish(&mut self, publication: &Publication<'_, A::Session>) -> usize {
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        for address in publication.except {
            if let Some(slot) = self.find(*address) {
                self.connections[slot as usize].stamp = stamp;
            }
        }
        // Only where a connection could be met twice need each recipient be marked.
        let mark = publication.to.len() > 1;
        let direct = matches!(publication.to, [Recipients::Connection(_)]);
        let mut encodings = Encodings::new();
        let mut reached = 0;
        for part in publication.to {
            match part {
                Recipients::Connection(address) => {
                    let Some(slot) = self.find(*address) else { continue };
                    let format = self.connections[slot as usize].format;
                    let encoded = self.encoded(&mut encodings, publication, format, direct);
                    reached += self.walk(&[slot], &encoded, publication, stamp, mark);
                }
                Recipients::Group(group) => {
                    // The walk must not borrow the members from the table that it changes: they are moved out
                    // for its time, and no member joins or leaves meanwhile.
                    let partitions = self.groups.get(*group).map_or(0, |group| group.partitions.len());
                    for at in 0..partitions {
                        let partition = self.groups.partition_mut(*group, at);
                        let format = partition.format;
                        let members = std::mem::take(&mut partition.members);
                        let encoded = self.encoded(&mut encodings, publication, format, direct);
                        reached += self.walk(&members, &encoded, publication, stamp, mark);
                        self.groups.partition_mut(*group, at).members = members;
                    }
                }
            }
        }
        for (_, encoded) in encodings {
            if let Some(extent) = encoded.extent() {
                self.log.release(extent);
            }
        }
        self.counters.deliveries += reached as u64;
        self.retire();
        reached
    }

    /// The message in a format, encoded now if it was not before. The publication holds a reference itself.
    fn encoded(
        &mut self,
        encodings: &mut Encodings,
        publication: &Publication<'_, A::Session>,
        format: Format,
        direct: bool,
    ) -> Encoded {
        if let Some((_, encoded)) = encodings.iter().find(|(of, _)| *of == format) {
            return encoded.clone();
        }
        let encoded = self.encoder.encode(&mut self.log, publication.message, format, direct);
        if let Some(extent) = encoded.extent() {
            self.log.retain(extent, 1);
        }
        encodings.push((format, encoded.clone()));
        encoded
    }

    fn walk(
        &mut self,
        members: &[Slot],
        encoded: &Encoded,
        publication: &Publication<'_, A::Session>,
        stamp: u64,
        mark: bool,
    ) -> usize {
        let (mut reached, mut references) = (0, 0);
        let weight = encoded.weight();
        for &slot in members {
            let connection = &mut self.connections[slot as usize];
            if connection.stamp == stamp || !connection.phase.is_alive() {
                continue;
            }
            if let (Some(only), Some(session)) = (publication.only, connection.session.as_ref())
                && !only(slot, session)
            {
                continue;
            }
            if mark {
                connection.stamp = stamp;
            }
            if connection.lag() + weight > self.settings.max_lag {
                match publication.when_lagging {
                    WhenLagging::Drop => self.counters.dropped_lag += 1,
                    WhenLagging::End => self.end(slot, Cause::Lag),
                }
                continue;
            }
            if connection.pending.len() >= MAX_ENTRIES {
                self.make_room(slot, encoded);
                if !self.connections[slot as usize].phase.is_alive() {
                    continue;
                }
            }
            let connection = &mut self.connections[slot as usize];
            let holding = connection.holding;
            let Some(reference) = offer(connection, encoded, slot, &mut self.dirty) else { continue };
            references += u32::from(reference);
            reached += 1;
            if let Some(window) = &mut connection.window {
                window.note(publication.message);
                if !holding {
                    connection.holding = true;
                    self.holders.push(slot);
                }
            }
        }
        if let Some(extent) = encoded.extent() {
            self.log.retain(extent, references);
        }
        reached
    }
}

/// Adds a frame to what one living connection has coming. Returns whether that took one more reference to the log;
/// `None` when the format of the frame is not the connection's.
#[inline]
fn offer<S>(
    connection: &mut Connection<S>,
    encoded: &Encoded,
    slot: Slot,
    dirty: &mut VecDeque<Slot>,
) -> Option<bool> {
    let open = connection.phase == Phase::Open;
    let reference = match encoded {
        Encoded::Log(extent) => {
            connection.unsent += extent.len as usize;
            connection.pending.push_log(*extent)
        }
        Encoded::Shared(frame) => {
            connection.unsent += frame.len();
            connection.pending.push_shared(Arc::clone(frame));
            false
        }
        Encoded::NumberedLog { record, plain } => {
            let reference = connection.window.as_mut()?.push(*record, *plain);
            if open {
                connection.pending.push_numbered(1);
            }
            reference
        }
        Encoded::NumberedShared(body) => {
            connection.window.as_mut()?.push_large(body.clone());
            if open {
                connection.pending.push_numbered(1);
            }
            false
        }
    };
    if open && !connection.dirty && !connection.blocked {
        connection.dirty = true;
        dirty.push_back(slot);
    }
    Some(reference)
}
