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

/// What a receiver has seen of every origin.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    last: HashMap<(Incarnation, Channel), u64>,
}

impl Seen {
    /// Takes note of an envelope. Numbers start at 1; the first one seen of an origin sets the mark, because a
    /// node that comes to a cluster has missed nothing it was promised.
    pub(crate) fn envelope(&mut self, origin: Incarnation, channel: Channel, number: u64) -> Arrived {
        match self.last.get_mut(&(origin, channel)) {
            None => {
                self.last.insert((origin, channel), number);
                Arrived::InOrder
            }
            Some(last) if number <= *last => Arrived::Again,
            Some(last) => {
                let missing = number - *last - 1;
                *last = number;
                if missing == 0 { Arrived::InOrder } else { Arrived::AfterGap(missing) }
            }
        }
    }

    /// The origin says what it numbered last on a channel. Returns how many are missing at the tail: the same
    /// channel carried them before this word, so they will not come any more.
    pub(crate) fn last_number(&mut self, origin: Incarnation, channel: Channel, number: u64) -> u64 {
        let last = self.last.entry((origin, channel)).or_insert(number);
        let missing = number.saturating_sub(*last);
        *last = number.max(*last);
        missing
    }

    /// Forgets a node that is gone.
    pub(crate) fn forget(&mut self, origin: Incarnation) {
        self.last.retain(|(of, _), _| *of != origin);
    }
}
