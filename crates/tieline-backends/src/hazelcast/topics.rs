//! The topics of a cluster, and what is published there.
//!
//! ```text
//! tieline:CLUSTER:all      to every node
//! tieline:CLUSTER:one:NN   to one node: its inbox, one of 64
//!
//! message = "tln1" | u8 to | u32 session | u64 origin | u64 target | (u32 length | envelope)…        big-endian
//! ```
//!
//! **Inboxes are a fixed number.** A topic of its own for each start of a node would stay in the members' statistics when the node
//! is killed, for nobody is left to destroy it. So a node's incarnation is hashed to one of 64 that are always the same, and the
//! target stands in the message. Two nodes that share an inbox drop each other's messages; with fifty nodes that is less than one
//! message more for each.
//!
//! **A message holds as many envelopes** as waited for the same target, for a member's work is by message. Without any it is a canary.
//!
//! **The session** is the number of the publisher's connection. What a member that stood still publishes late, behind the newer
//! messages that came through another member, is told by it and dropped: late is lost, but never in disorder.
//!
//! A member gives a node back what it published itself, and the origin tells its echo. No I/O. Tested here.

use std::collections::HashMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tieline_core::broker::To;
use tieline_proto::Incarnation;

use super::protocol::{self, Garbage, Publication};

/// What stays as it is in a cluster's name. A colon does not, so that no name reaches into another's topics; nor does `@`, behind
/// which Hazelcast looks for a partition's name.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// How many inboxes the nodes share.
pub(super) const INBOXES: usize = 64;

/// The beginning of every message, by which what others publish is told.
const MARK: [u8; 4] = *b"tln1";

/// Bytes before the first envelope.
const HEAD: usize = 25;

/// Origins whose newest session is remembered. Past it all are forgotten, which costs nothing unless a member stands still at
/// that very moment.
const MAX_ORIGINS: usize = 4096;

/// The names of the topics that matter to one node.
pub(super) struct Names {
    node: Incarnation,
    /// The topic to all, and then the inboxes.
    names: Vec<String>,
}

/// Which topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// The topic to all.
pub(super) const ALL: Place = Place(0);

impl Names {
    pub(super) fn new(cluster: &str, node: Incarnation) -> Self {
        let cluster = plain(cluster);
        let inboxes = (0..INBOXES).map(|number| format!("tieline:{cluster}:one:{number:02}"));
        let names = std::iter::once(format!("tieline:{cluster}:all")).chain(inboxes).collect();
        Names { node, names }
    }

    /// The topic's name.
    pub(super) fn name(&self, place: Place) -> &str {
        &self.names[place.0]
    }

    /// This node's inbox.
    pub(super) fn own(&self) -> Place {
        inbox(self.node)
    }

    /// The partition of each topic, of so many.
    pub(super) fn partitions(&self, count: i32) -> Result<Vec<i32>, Garbage> {
        self.names.iter().map(|name| protocol::partition(name, count)).collect()
    }
}

/// A cluster's name as it stands in those of topics and maps.
pub(super) fn plain(cluster: &str) -> String {
    utf8_percent_encode(cluster, PLAIN).to_string()
}

/// The inbox of a node.
fn inbox(node: Incarnation) -> Place {
    // The upper bits of a product with the golden ratio, so that numbers near each other are far from each other.
    let spread = node.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - INBOXES.ilog2());
    Place(1 + spread as usize)
}

/// The topic of what goes there.
pub(super) fn place(to: To) -> Place {
    match to {
        To::All => ALL,
        To::One(node) => inbox(node),
    }
}

/// Who publishes on one connection, and where.
pub(super) struct Publisher<'a> {
    pub(super) names: &'a Names,
    /// The partition of each topic.
    pub(super) partitions: &'a [i32],
    /// The number of the connection.
    pub(super) session: u32,
}

impl Publisher<'_> {
    /// Begins a message to these nodes, which is empty, in this topic.
    pub(super) fn begin<'o>(
        &self,
        out: &'o mut Vec<u8>,
        correlation: i64,
        place: Place,
        to: To,
    ) -> Publication<'o> {
        let Place(at) = place;
        let mut message = Publication::begin(out, correlation, &self.names.names[at], self.partitions[at]);
        let (word, target) = match to {
            To::All => (0, 0),
            To::One(node) => (1, node.0),
        };
        message.push(&MARK);
        message.push(&[word]);
        message.push(&self.session.to_be_bytes());
        message.push(&self.names.node.0.to_be_bytes());
        message.push(&target.to_be_bytes());
        message
    }

    /// Publishes a message to this node itself, in this topic.
    pub(super) fn canary(&self, out: &mut Vec<u8>, correlation: i64, place: Place) {
        self.begin(out, correlation, place, To::One(self.names.node)).end();
    }
}

/// Appends an envelope to a message.
pub(super) fn push(message: &mut Publication<'_>, envelope: &[u8]) {
    let len = u32::try_from(envelope.len()).expect("an envelope is no longer than a broker takes");
    message.push(&len.to_be_bytes());
    message.push(envelope);
}

/// What a message is to this node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came<'a> {
    /// Another node's envelopes.
    Envelopes(Envelopes<'a>),
    /// This node's canary of this session: the way there and back is open.
    Canary(u32),
    /// Not for this node: its own message to all, or another's that shares the inbox.
    Other,
    /// Of an earlier session of its origin, behind a later one.
    Late,
    /// Nothing that a node publishes.
    Foreign,
}

/// The envelopes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelopes<'a>(&'a [u8]);

impl<'a> Iterator for Envelopes<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk()?;
        let (envelope, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        self.0 = rest;
        Some(envelope)
    }
}

/// The newest session of each origin.
#[derive(Default)]
pub(super) struct Sessions(HashMap<u64, u32>);

impl Sessions {
    /// Whether this is not behind a later one.
    fn is_new(&mut self, origin: u64, session: u32) -> bool {
        if self.0.len() >= MAX_ORIGINS && !self.0.contains_key(&origin) {
            self.0.clear();
        }
        let newest = self.0.entry(origin).or_insert(session);
        *newest = session.max(*newest);
        *newest == session
    }
}

/// Says what a message is to this node.
pub(super) fn sort<'a>(message: &'a [u8], node: Incarnation, sessions: &mut Sessions) -> Came<'a> {
    let Some((head, envelopes)) = message.split_first_chunk::<HEAD>() else { return Came::Foreign };
    let (mark, head) = head.split_at(MARK.len());
    let number = |at: usize| head[at..][..8].try_into().map_or(0, u64::from_be_bytes);
    let session = head[1..5].try_into().map_or(0, u32::from_be_bytes);
    let (origin, target) = (number(5), number(13));
    let mut rest = Envelopes(envelopes);
    rest.by_ref().for_each(drop);
    if mark != MARK || head[0] > 1 || !rest.0.is_empty() {
        return Came::Foreign;
    }
    let is_to_one = head[0] == 1;
    if is_to_one && target != node.0 {
        Came::Other
    } else if origin == node.0 {
        if is_to_one && envelopes.is_empty() { Came::Canary(session) } else { Came::Other }
    } else if sessions.is_new(origin, session) {
        Came::Envelopes(Envelopes(envelopes))
    } else {
        Came::Late
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::protocol::{Answer, read};
    use super::*;

    /// What subscribers get of a message with these envelopes: the topic, and the array of bytes.
    fn published(names: &Names, session: u32, to: To, envelopes: &[&[u8]]) -> Vec<u8> {
        let partitions = names.partitions(271).unwrap();
        let publisher = Publisher { names, partitions: &partitions, session };
        let mut out = Vec::new();
        let mut message = publisher.begin(&mut out, 7, place(to), to);
        envelopes.iter().for_each(|envelope| push(&mut message, envelope));
        message.end();
        let topic = names.name(place(to)).as_bytes().to_vec();
        assert!(out.windows(topic.len()).any(|window| window == topic));
        let (_, len) = read(&out).unwrap().expect("the call is whole");
        assert_eq!(len, out.len());
        let at = out.windows(MARK.len()).rposition(|window| window == MARK);
        out.split_off(at.expect("envelopes of this test do not contain the mark"))
    }

    fn came(message: &[u8], names: &Names) -> Option<Vec<Vec<u8>>> {
        match sort(message, names.node, &mut Sessions::default()) {
            Came::Envelopes(envelopes) => Some(envelopes.map(<[u8]>::to_vec).collect()),
            _ => None,
        }
    }

    #[test]
    fn each_node_takes_what_is_for_it() {
        let (a, b) = (Incarnation(0xa), Incarnation(u64::MAX));
        let [at_a, at_b, at_c] = [a, b, Incarnation(3)].map(|node| Names::new("tests", node));
        let to_all = published(&at_a, 1, To::All, &[b"one", b"", b"three"]);
        assert_eq!(sort(&to_all, a, &mut Sessions::default()), Came::Other, "its echo");
        for names in [&at_b, &at_c] {
            assert_eq!(came(&to_all, names).unwrap(), [&b"one"[..], b"", b"three"]);
        }
        let to_b = published(&at_a, 1, To::One(b), &[b"x"]);
        assert_eq!(came(&to_b, &at_b).unwrap(), [b"x"]);
        assert_eq!(sort(&to_b, at_c.node, &mut Sessions::default()), Came::Other, "it shares the inbox");
        let canary = published(&at_a, 5, To::One(a), &[]);
        assert_eq!(sort(&canary, a, &mut Sessions::default()), Came::Canary(5));
        assert_eq!(sort(&canary, b, &mut Sessions::default()), Came::Other);
    }

    #[test]
    fn an_earlier_session_is_not_heard_behind_a_later_one() {
        let (a, b) = (Names::new("tests", Incarnation(1)), Incarnation(2));
        let of = |session| published(&a, session, To::All, &[b"x"]);
        let mut sessions = Sessions::default();
        for (session, is_heard) in [(1, true), (1, true), (3, true), (1, false), (2, false), (3, true)] {
            let message = of(session);
            let came = sort(&message, b, &mut sessions);
            assert_eq!(matches!(came, Came::Envelopes(_)), is_heard, "{session}");
            assert_eq!(came == Came::Late, !is_heard);
        }
        for origin in 2..3 * MAX_ORIGINS as u64 {
            assert!(sessions.is_new(origin, 1) && sessions.0.len() <= MAX_ORIGINS);
        }
    }

    #[test]
    fn no_name_reaches_into_another_cluster() {
        let names = ["a", "a:one", "a:all", "a%3Aall", "a:one:01", "a*", "ä", "a b", "A", "a@b"];
        let mut seen = std::collections::HashSet::new();
        for name in names {
            for topic in Names::new(name, Incarnation(1)).names {
                assert!(topic.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@'), "{topic}");
                assert!(seen.insert(topic), "{name} shares a topic");
            }
        }
        assert_eq!(seen.len(), names.len() * (INBOXES + 1));
    }

    #[test]
    fn nodes_are_spread_over_the_inboxes() {
        for step in [1, 2, 64, 1 << 32] {
            let used: std::collections::HashSet<usize> =
                (0..256).map(|number| inbox(Incarnation(number * step)).0).collect();
            assert!(used.iter().all(|at| (1..=INBOXES).contains(at)));
            assert!(used.len() > INBOXES / 2, "{} for steps of {step}", used.len());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_published_is_no_harm(garbage in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..60) {
            let names = Names::new("tests", Incarnation(1));
            let mut sessions = Sessions::default();
            sort(&garbage, Incarnation(2), &mut sessions);
            let marked = [&MARK[..], &[0], &garbage].concat();
            if let Came::Envelopes(envelopes) = sort(&marked, Incarnation(2), &mut sessions) {
                let len: usize = envelopes.map(|envelope| 4 + envelope.len()).sum();
                prop_assert_eq!(len, marked.len() - HEAD);
            }
            // A message that lost its end is nobody's, unless it ends with an envelope.
            let whole = published(&names, 1, To::All, &[b"first", b"second"]);
            let cut = cut.min(whole.len() - 1);
            let came = sort(&whole[..cut], Incarnation(2), &mut sessions);
            prop_assert_eq!(came == Came::Foreign, ![HEAD, HEAD + 9].contains(&cut));
        }
    }

    #[test]
    fn an_answer_is_not_an_event() {
        let response = [19, 0, 0, 0, 0, 0xe0, 1, 1, 4, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        let (message, _) = read(&response).unwrap().unwrap();
        assert_eq!((message.correlation(), message.answer()), (7, Ok(Answer::Done)));
    }
}
