//! What a cluster declares on a server: one topic of one queue, and a consumer group of the same name.
//!
//! ```text
//! tieline-CLUSTER    tag `all`           to every node
//!                    tag INCARNATION     to one node; its own canaries too
//! ```
//!
//! **One topic, not one for all and one for each**: a queue has one order, so what went to all and what went to one node arrive in
//! the order they were sent; a node pulls from one queue, and everything that waits goes out in one batch. The broker sorts by
//! tags, and gives each node no more than what is for it. Nothing on the server is a node's own, so a dead node leaves nothing.
//!
//! Tested here.

use std::fmt::Write;

use aws_lc_rs::digest;
use tieline_core::broker::To;
use tieline_proto::Incarnation;

use crate::medium::parts::Channel;

/// The most bytes of a name. A topic may have 127, a group 120.
const MAX_NAME: usize = 120;

/// Bytes of a digest that stand for what is too long of a name.
const DIGEST: usize = 16;

/// The tag of what goes to all. No incarnation looks like it.
const ALL: &str = "all";

/// The names that matter to one node.
pub(super) struct Names {
    /// The topic's, and the group's.
    pub(super) topic: String,
    /// The tag of what goes to this node.
    own: String,
    /// Which tags this node hears, as the broker reads it.
    pub(super) subscription: String,
}

impl Names {
    pub(super) fn new(cluster: &str, node: Incarnation) -> Self {
        let own = node.to_string();
        Names { topic: topic(cluster), subscription: format!("{ALL} || {own}"), own }
    }

    /// The channel that a tag names; none of somebody else. Brokers sort by the tags' hashes, so this happens.
    pub(super) fn channel(&self, tag: &[u8]) -> Option<Channel> {
        match tag {
            tag if tag == ALL.as_bytes() => Some(Channel::All),
            tag if tag == self.own.as_bytes() => Some(Channel::Own),
            _ => None,
        }
    }

    /// The tag of this node's canaries.
    pub(super) fn own(&self) -> &str {
        &self.own
    }
}

/// Writes the tag of what goes to a node or to all.
pub(super) fn tag(to: To) -> String {
    match to {
        To::All => ALL.to_owned(),
        To::One(node) => node.to_string(),
    }
}

/// The topic of a cluster: letters, digits and `-` stay, all else is `_` and two hexadecimal digits, and what is too long
/// ends with `__` and a digest of the whole.
fn topic(cluster: &str) -> String {
    let mut topic = "tieline-".to_owned();
    for byte in cluster.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            topic.push(char::from(byte));
        } else {
            write!(topic, "_{byte:02x}").expect("a string takes everything");
        }
    }
    if topic.len() > MAX_NAME {
        topic.truncate(MAX_NAME - 2 - 2 * DIGEST);
        topic.push_str("__");
        for byte in &digest::digest(&digest::SHA256, cluster.as_bytes()).as_ref()[..DIGEST] {
            write!(topic, "{byte:02x}").expect("a string takes everything");
        }
    }
    topic
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_is_another_clusters_and_all_are_allowed() {
        let long = "n".repeat(112);
        let names = [
            "a",
            "a_",
            "a_5f",
            "a b",
            "a%20b",
            "%RETRY%a",
            "%DLQ%",
            "a|b",
            "ä",
            "A",
            "-",
            "日本",
            "a\u{1}\u{2}",
        ];
        let longs = [long.clone(), long.clone() + "m", long.clone() + "n", "_".repeat(200), "_".repeat(201)];
        let mut seen = HashSet::new();
        for name in names.into_iter().map(str::to_owned).chain(longs) {
            let topic = topic(&name);
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            assert!(topic.len() <= MAX_NAME && topic.bytes().all(is_allowed), "{topic}");
            assert!(seen.insert(topic), "{name} shares a topic");
        }
        assert_eq!(topic("production-1"), "tieline-production-1");
        assert_eq!(topic(&long).len(), MAX_NAME, "no longer than is allowed, and not shortened");
    }

    #[test]
    fn each_node_hears_what_is_for_it() {
        let (a, b) = (Incarnation(0xa), Incarnation(u64::MAX));
        let names = Names::new("tests", a);
        assert_eq!(names.subscription, "all || 000000000000000a");
        assert_eq!(names.channel(tag(To::All).as_bytes()), Some(Channel::All));
        assert_eq!(names.channel(tag(To::One(a)).as_bytes()), Some(Channel::Own));
        assert_eq!(names.channel(names.own().as_bytes()), Some(Channel::Own));
        assert_eq!(names.channel(tag(To::One(b)).as_bytes()), None);
        assert_eq!(names.channel(b""), None);
    }
}
