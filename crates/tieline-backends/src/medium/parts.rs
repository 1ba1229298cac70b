//! What a message on a medium looks like whose servers bound the length of messages: an envelope is cut into as many parts as it
//! needs, and each says whose it is and where it belongs.
//!
//! ```text
//! origin (u64)  index (u16)  count (u16)  bytes        big-endian; 12 bytes, then what is carried
//! ```
//!
//! A part of no bytes with a count of nothing is a canary. A medium keeps the order of what one origin sends on one channel, so
//! parts of one envelope follow each other, and the first that does not fit shows that something is missing: the rest of
//! that envelope is dropped, and its number tells that it is. A part that comes a second time is passed over.
//!
//! Not here: which channel something came on, nor how a server bounds its messages. Tested here by properties.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tieline_proto::Incarnation;

use super::MAX_ENVELOPE;

/// Bytes in front of what is carried.
pub(crate) const HEADER: usize = 12;

/// The most bytes of envelopes of which parts are missing, of all origins together. Overflow: the part that came last is dropped, and with it
/// its envelope.
const MAX_WAITING: usize = 64 << 20;

/// Which of a node's two channels a message came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Channel {
    /// What goes to all nodes.
    All,
    /// What goes to this node alone.
    Own,
}

/// What a message is to the node that received it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came<'a> {
    /// Another node's envelope, whole.
    Envelope(Cow<'a, [u8]>),
    /// A part of one.
    Part,
    /// Something of this node's own that went to all.
    Echo,
    /// This node's canary: the way there and back is open.
    Canary,
    /// Nothing that a node sends, or a part without those before it.
    Foreign,
}

/// The message by which a node looks whether the way to itself is open.
pub(crate) fn canary(origin: Incarnation) -> [u8; HEADER] {
    header(origin, 0, 0)
}

/// The messages that carry an envelope, each at most `limit` bytes long with its header, which comes first.
///
/// # Panics
/// When `limit` leaves no room, or so little that an envelope of [`MAX_ENVELOPE`] has more parts than can be counted.
pub(crate) fn cut(
    origin: Incarnation,
    envelope: &[u8],
    limit: usize,
) -> impl Iterator<Item = ([u8; HEADER], &[u8])> {
    let room = limit.saturating_sub(HEADER);
    assert!(
        room >= MAX_ENVELOPE.div_ceil(usize::from(u16::MAX)),
        "a message has room for a part of an envelope"
    );
    let count = envelope.len().div_ceil(room).max(1) as u16;
    (0..count).map(move |index| {
        let start = usize::from(index) * room;
        let end = envelope.len().min(start + room);
        (header(origin, index, count), &envelope[start..end])
    })
}

fn header(origin: Incarnation, index: u16, count: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&origin.0.to_be_bytes());
    header[8..10].copy_from_slice(&index.to_be_bytes());
    header[10..].copy_from_slice(&count.to_be_bytes());
    header
}

/// An envelope of which parts are missing.
struct Waiting {
    /// How many there will be.
    count: u16,
    /// Which comes next.
    next: u16,
    bytes: Vec<u8>,
}

/// Makes envelopes of parts again, for one node. It belongs to one session with a server: what an outage has cut in two does not come
/// together again.
pub(crate) struct Joiner {
    me: Incarnation,
    waiting: HashMap<(Incarnation, Channel), Waiting>,
    /// The bytes that wait, of all together.
    bytes: usize,
}

impl Joiner {
    pub(crate) fn new(me: Incarnation) -> Self {
        Joiner { me, waiting: HashMap::new(), bytes: 0 }
    }

    /// Says what a message is.
    pub(crate) fn take<'a>(&mut self, channel: Channel, message: &'a [u8]) -> Came<'a> {
        let Some((header, bytes)) = message.split_first_chunk::<HEADER>() else { return Came::Foreign };
        let (origin, place) = header.split_at(8);
        let origin = Incarnation(u64::from_be_bytes(origin.try_into().expect("eight bytes")));
        let index = u16::from_be_bytes([place[0], place[1]]);
        let count = u16::from_be_bytes([place[2], place[3]]);
        if origin == self.me {
            let is_canary = channel == Channel::Own && count == 0;
            return if is_canary { Came::Canary } else { Came::Echo };
        }
        if index >= count {
            return Came::Foreign;
        }
        let key = (origin, channel);
        if count == 1 {
            self.forget(key);
            return Came::Envelope(Cow::Borrowed(bytes));
        }
        if index == 0 {
            self.forget(key);
        }
        if !self.add(key, index, count, bytes) {
            self.forget(key);
            return Came::Foreign;
        }
        if index + 1 < count {
            return Came::Part;
        }
        match self.forget(key) {
            Some(whole) => Came::Envelope(Cow::Owned(whole)),
            None => Came::Foreign,
        }
    }

    /// Adds a part to those before it, if it is the next one and there is room.
    fn add(&mut self, key: (Incarnation, Channel), index: u16, count: u16, bytes: &[u8]) -> bool {
        let waiting = match self.waiting.entry(key) {
            Entry::Occupied(waiting) => waiting.into_mut(),
            Entry::Vacant(place) if index == 0 => place.insert(Waiting { count, next: 0, bytes: Vec::new() }),
            Entry::Vacant(_) => return false,
        };
        if (1..waiting.next).contains(&index) && waiting.count == count {
            return true;
        }
        let fits =
            waiting.bytes.len() + bytes.len() <= MAX_ENVELOPE && self.bytes + bytes.len() <= MAX_WAITING;
        if !fits || (waiting.next, waiting.count) != (index, count) {
            return false;
        }
        waiting.next += 1;
        waiting.bytes.extend_from_slice(bytes);
        self.bytes += bytes.len();
        true
    }

    /// Takes what waits of an origin on a channel.
    fn forget(&mut self, key: (Incarnation, Channel)) -> Option<Vec<u8>> {
        let waiting = self.waiting.remove(&key)?;
        self.bytes -= waiting.bytes.len();
        Some(waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ME: Incarnation = Incarnation(1);

    fn messages(origin: Incarnation, envelope: &[u8], limit: usize) -> Vec<Vec<u8>> {
        cut(origin, envelope, limit).map(|(header, bytes)| [&header[..], bytes].concat()).collect()
    }

    #[test]
    fn own_messages_are_echoes_or_canaries() {
        let mut joiner = Joiner::new(ME);
        assert_eq!(joiner.take(Channel::Own, &canary(ME)), Came::Canary);
        assert_eq!(joiner.take(Channel::All, &messages(ME, b"x", 1024)[0]), Came::Echo);
        assert_eq!(joiner.take(Channel::Own, &canary(Incarnation(2))), Came::Foreign, "another's");
        assert_eq!(joiner.take(Channel::Own, b"short"), Came::Foreign);
    }

    #[test]
    fn parts_that_come_again_change_nothing() {
        let envelope: Vec<u8> = (0..3_000_u32).map(|byte| byte as u8).collect();
        let parts = messages(Incarnation(2), &envelope, 1024);
        let mut joiner = Joiner::new(ME);
        let mut come = |index: usize| match joiner.take(Channel::All, &parts[index]) {
            Came::Envelope(whole) => Some(whole.into_owned()),
            Came::Part => None,
            other => panic!("{other:?}"),
        };
        for order in [[0, 1, 1, 2], [0, 0, 1, 2]] {
            let came: Vec<_> = order.into_iter().filter_map(&mut come).collect();
            assert_eq!(came, [&envelope[..]], "{order:?}");
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut joiner = Joiner::new(ME);
        let part = vec![0; 1 << 20];
        let first = |origin: u64| [&header(Incarnation(origin), 0, 9)[..], &part].concat();
        for origin in 2..66 {
            assert_eq!(joiner.take(Channel::All, &first(origin)), Came::Part);
        }
        assert_eq!(joiner.take(Channel::All, &first(66)), Came::Foreign);
        // A newer envelope of an origin takes the place of an older one.
        assert_eq!(joiner.take(Channel::All, &first(2)), Came::Part);
        assert_eq!(joiner.bytes, MAX_WAITING);
    }

    proptest! {
        #[test]
        fn envelopes_come_out_as_they_went_in_or_not_at_all(
            envelopes in prop::collection::vec((2u64..5, prop::collection::vec(any::<u8>(), 0..2000)), 1..20),
            lost in prop::collection::vec(0usize..60, 0..4),
        ) {
            let mut joiner = Joiner::new(ME);
            let mut number = 0;
            for (origin, envelope) in &envelopes {
                let parts = messages(Incarnation(*origin), envelope, HEADER + 300);
                prop_assert_eq!(parts.len(), envelope.len().div_ceil(300).max(1));
                let mut is_whole = true;
                let mut came = None;
                for part in &parts {
                    number += 1;
                    if lost.contains(&number) {
                        is_whole = false;
                    } else if let Came::Envelope(bytes) = joiner.take(Channel::All, part) {
                        came = Some(bytes.into_owned());
                    }
                }
                prop_assert_eq!(came.as_ref(), is_whole.then_some(envelope));
            }
        }

        #[test]
        fn garbage_is_harmless(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..50)) {
            let mut joiner = Joiner::new(ME);
            for message in &messages {
                joiner.take(Channel::Own, message);
            }
            let waiting: usize = joiner.waiting.values().map(|waiting| waiting.bytes.len()).sum();
            prop_assert_eq!(joiner.bytes, waiting);
        }
    }
}
