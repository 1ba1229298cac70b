//! What a cluster has on a server, by name.
//!
//! ```text
//! tieline.CLUSTER.all                            the exchange to every node, which copies
//! tieline.CLUSTER.one                            the exchange to one node, whose incarnation is the key
//! tieline.CLUSTER.node.INCARNATION.GENERATION    the queue of one connection of a node, bound to both
//! ```
//!
//! A queue is one connection's alone (*exclusive*) and gone with it, so that nothing of a dead node stays. After a silent cut the
//! server may take the former connection for alive a while longer: that holds its queue, and the new connection has another one, by the
//! generation in its name. No I/O. Tested here.

use std::fmt::Write;
use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tieline_core::broker::To;
use tieline_proto::Incarnation;

use crate::medium::parts::Channel;

/// What stays as it is in a cluster's name. A dot does not, so that no name reaches into another's.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// So many characters of a cluster's name go into others, of which a server takes 255 bytes.
const MAX_SHOWN: usize = 190;

/// So many characters of a longer one are shown before its digest.
const SHOWN_OF_LONG: usize = 120;

/// The names that matter to one node.
pub(super) struct Names {
    /// The node.
    pub(super) node: Incarnation,
    /// The exchange to all.
    pub(super) all: String,
    /// The exchange to one.
    pub(super) one: String,
    /// The key of what goes to this node.
    pub(super) own: String,
    /// The queues of this node, without their generation.
    queues: String,
}

impl Names {
    pub(super) fn new(cluster: &str, node: Incarnation) -> Self {
        let cluster = shown(cluster);
        Names {
            node,
            all: format!("tieline.{cluster}.all"),
            one: format!("tieline.{cluster}.one"),
            own: node.to_string(),
            queues: format!("tieline.{cluster}.node.{node}."),
        }
    }

    /// What the names of this node's queues begin with.
    #[cfg(test)]
    pub(super) fn queues(&self) -> &str {
        &self.queues
    }

    /// The queue of the node's connection of this number.
    pub(super) fn queue(&self, generation: u64) -> String {
        format!("{}{generation}", self.queues)
    }

    /// The exchange and the key of what goes there; the key is written into `room`.
    pub(super) fn place<'a>(&'a self, to: To, room: &'a mut [u8; 16]) -> (&'a [u8], &'a [u8]) {
        match to {
            To::All => (self.all.as_bytes(), &[]),
            To::One(node) => {
                io::Write::write_fmt(&mut &mut room[..], format_args!("{node}"))
                    .expect("an incarnation has 16 digits");
                (self.one.as_bytes(), room)
            }
        }
    }

    /// The channel that what comes by this exchange belongs to; none for what comes past the cluster.
    pub(super) fn channel(&self, exchange: &[u8]) -> Option<Channel> {
        if exchange == self.one.as_bytes() {
            Some(Channel::Own)
        } else if exchange == self.all.as_bytes() {
            Some(Channel::All)
        } else {
            None
        }
    }
}

/// A cluster's name as a part of others: whatever it is, two differ in it.
fn shown(cluster: &str) -> String {
    let mut shown = utf8_percent_encode(cluster, PLAIN).to_string();
    if shown.len() > MAX_SHOWN {
        shown.truncate(SHOWN_OF_LONG);
        // No name that is shown whole has this sign.
        shown.push('~');
        for byte in digest(&SHA256, cluster.as_bytes()).as_ref() {
            write!(shown, "{byte:02x}").expect("a string takes what is written");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_reaches_into_another_cluster_and_none_is_too_long() {
        let long = |end: &str| "ä".repeat(127) + end;
        let names = ["a", "a.one", "a.all", "a%2Eall", "a.node.1", "a~", "ä", "a b", "A", "*", "#"];
        let names = names.map(str::to_owned).into_iter().chain(["1", "2"].map(long)).chain(["x".repeat(256)]);
        let mut seen = HashSet::new();
        for name in names {
            let cluster = Names::new(&name, Incarnation(u64::MAX));
            for name in [&cluster.all, &cluster.one, &cluster.queue(u64::MAX)] {
                assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
                assert!(name.len() <= 255, "{name}");
                assert!(seen.insert(name.clone()), "{name} is shared");
            }
        }
    }

    #[test]
    fn what_goes_to_a_node_has_the_key_that_it_binds() {
        let names = [1, 0xab].map(|node| Names::new("c", Incarnation(node)));
        let mut room = [0; 16];
        let (exchange, key) = names[0].place(To::One(names[1].node), &mut room);
        assert_eq!((exchange, key), (&b"tieline.c.one"[..], names[1].own.as_bytes()));
        assert_eq!(names[1].channel(exchange), Some(Channel::Own));
        let (exchange, key) = names[0].place(To::All, &mut room);
        assert_eq!((exchange, key), (&b"tieline.c.all"[..], &[][..]));
        assert_eq!(names[1].channel(exchange), Some(Channel::All));
        assert_eq!([&b""[..], b"amq.direct", b"tieline.d.all"].map(|past| names[1].channel(past)), [None; 3]);
        assert_ne!(names[0].queue(1), names[0].queue(2));
    }
}
