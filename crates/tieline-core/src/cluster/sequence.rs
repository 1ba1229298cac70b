//! Numbers of envelopes: each origin numbers what it sends on a channel, and each receiver finds out what is
//! missing or came twice. Without I/O.

use std::collections::HashMap;

use tieline_proto::Incarnation;

/// How an envelope travels, and what its origin numbers it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Channel {
    /// To every other node.
    All,
    /// To this one alone.
    One,
}

impl Channel {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Channel::All => Channel::One,
            Channel::One => Channel::All,
        }
    }
}

/// What the number of an envelope says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// It is the next, or the first ever seen of this origin on this channel.
    InOrder,
    /// It is new, but so many before it are missing: a gap to be reported.
    AfterGap(u64),
    /// It was seen before, or is older than what was seen: to be dropped.
    Again,
}

/// What a receiver has seen of one origin.
#[derive(Debug, Default)]
struct Origin {
    to_all: Option<u64>,
    to_one: Option<u64>,
    /// Whether anything of it arrived since that was last asked.
    is_heard: bool,
}

/// What a receiver has seen of every origin.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashMap<Incarnation, Origin>);

impl Seen {
    /// Takes note of an envelope. Numbers start at 1; the first one seen of an origin sets the mark, because a
    /// node that comes to a cluster has missed nothing it was promised.
    pub(crate) fn envelope(&mut self, origin: Incarnation, channel: Channel, number: u64) -> Arrived {
        let origin = self.0.entry(origin).or_default();
        origin.is_heard = true;
        let seen = origin.last(channel);
        match *seen {
            None => {
                *seen = Some(number);
                Arrived::InOrder
            }
            Some(last) if number <= last => Arrived::Again,
            Some(last) => {
                *seen = Some(number);
                match number - last - 1 {
                    0 => Arrived::InOrder,
                    missing => Arrived::AfterGap(missing),
                }
            }
        }
    }

    /// The origin says what it numbered last on a channel. Returns how many are missing at the tail: the same
    /// channel carried them before this word, so they will not come any more.
    pub(crate) fn last_number(&mut self, origin: Incarnation, channel: Channel, number: u64) -> u64 {
        let seen = self.0.entry(origin).or_default().last(channel);
        let last = seen.unwrap_or(number);
        *seen = Some(number.max(last));
        number.saturating_sub(last)
    }

    /// The origin says on another channel what it numbered last on this one. That may be ahead of what is on its way, so it
    /// is a mark only where nothing was seen yet.
    pub(crate) fn mark(&mut self, origin: Incarnation, channel: Channel, number: u64) {
        self.0.entry(origin).or_default().last(channel).get_or_insert(number);
    }

    /// The last number that was seen on a channel; 0 where there is none.
    pub(crate) fn last(&self, origin: Incarnation, channel: Channel) -> u64 {
        let last = |origin: &Origin| match channel {
            Channel::All => origin.to_all,
            Channel::One => origin.to_one,
        };
        self.0.get(&origin).and_then(last).unwrap_or(0)
    }

    /// Something of an origin arrived that is not taken note of yet.
    pub(crate) fn heard(&mut self, origin: Incarnation) {
        self.0.entry(origin).or_default().is_heard = true;
    }

    /// Whether anything of an origin arrived since this was last asked.
    pub(crate) fn take_heard(&mut self, origin: Incarnation) -> bool {
        self.0.get_mut(&origin).is_some_and(|origin| std::mem::take(&mut origin.is_heard))
    }

    /// Forgets a node that is gone.
    pub(crate) fn forget(&mut self, origin: Incarnation) {
        self.0.remove(&origin);
    }
}

impl Origin {
    fn last(&mut self, channel: Channel) -> &mut Option<u64> {
        match channel {
            Channel::All => &mut self.to_all,
            Channel::One => &mut self.to_one,
        }
    }
}
