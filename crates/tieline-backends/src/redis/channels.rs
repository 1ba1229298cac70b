//! The channels of a cluster on a server, and what is published there.
//!
//! ```text
//! tieline:CLUSTER:all               to every node
//! tieline:CLUSTER:one:INCARNATION   to one node; its own canaries too
//! ```
//!
//! On a Redis Cluster a third one is where the first one is, whatever its slot: `tieline:CLUSTER:watch:INCARNATION:{tieline:CLUSTER:all}`.
//! The braces are the part of a name that decides where it belongs. It carries canaries of the node to the master that it hears all others by.
//!
//! A payload is the eight bytes of the publisher's incarnation, big-endian, and an envelope. The server gives a node back what
//! it published itself, and those bytes tell its echo. No I/O. Tested here.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tieline_core::broker::{Inbound, To};
use tieline_proto::Incarnation;

use super::Trouble;
use super::resp::{self, Said};
use super::settings::Login;
use crate::inbox::Inbox;
use crate::medium::stream::{Heard, Speech};

/// What stays as it is in a cluster's name. A colon does not, so that no name reaches into another's channels.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// Bytes before the envelope.
const ORIGIN: usize = 8;

/// What a message on one of the channels is.
#[derive(Debug, PartialEq, Eq)]
enum Came<'a> {
    /// Another node's envelope.
    Envelope(&'a [u8]),
    /// This node's own envelope to all.
    Echo,
    /// This node's canary: the way there and back is open.
    Canary,
    /// Nothing that a node publishes, or on another channel.
    Foreign,
}

/// Which kind of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A server's: all of them are everywhere.
    Plain,
    /// A cluster's: each is where its slot is.
    Sharded,
}

/// The channels that matter to one node.
pub(super) struct Channels {
    kind: Kind,
    origin: [u8; ORIGIN],
    all: String,
    /// The channels to one node, without its incarnation.
    one: String,
    /// The channel to this node.
    own: String,
    /// The channel beside `all` for this node's canaries.
    watch: String,
    /// Messages that no node has published.
    foreign: AtomicU64,
}

impl Channels {
    pub(super) fn new(cluster: &str, node: Incarnation, kind: Kind) -> Self {
        let cluster = utf8_percent_encode(cluster, PLAIN);
        let (all, one) = (format!("tieline:{cluster}:all"), format!("tieline:{cluster}:one:"));
        let watch = format!("tieline:{cluster}:watch:{node}:{{{all}}}");
        let (origin, own) = (node.0.to_be_bytes(), format!("{one}{node}"));
        Channels { kind, origin, own, all, one, watch, foreign: AtomicU64::new(0) }
    }

    /// What came to nothing, for [`Engine::strays`](crate::medium::Engine::strays).
    pub(super) fn strays(&self) -> Vec<(&'static str, u64)> {
        vec![("foreign", self.foreign.load(Ordering::Relaxed))]
    }

    /// The channel to all nodes.
    pub(super) fn all(&self) -> &str {
        &self.all
    }

    /// The channel to this node.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// The channel to a node, in two pieces.
    pub(super) fn one(&self, node: Incarnation) -> (&str, [u8; 16]) {
        let mut digits = [0; 16];
        write!(&mut digits[..], "{node}").expect("an incarnation has 16 digits");
        (&self.one, digits)
    }

    /// Appends the commands that subscribe to what goes to all, or to this node, or both.
    pub(super) fn subscribe_to(&self, all: bool, own: bool, out: &mut Vec<u8>) {
        let subscribe = |out: &mut Vec<u8>, channel: &str| match self.kind {
            Kind::Plain => resp::command(out, &[b"SUBSCRIBE", channel.as_bytes()]),
            // Two slots may be one server's, but never in one command.
            Kind::Sharded => resp::command(out, &[b"SSUBSCRIBE", channel.as_bytes()]),
        };
        if all {
            subscribe(out, &self.all);
        }
        if own {
            subscribe(out, &self.own);
        } else {
            subscribe(out, &self.watch);
        }
    }

    /// Appends the command that sends this node a canary: on its own channel, or else on the one beside what goes to all.
    pub(super) fn canary_on(&self, own: bool, out: &mut Vec<u8>) {
        let channel = if own { &self.own } else { &self.watch };
        resp::publish(out, self.verb(), &[channel.as_bytes()], &[&self.origin]);
    }

    fn verb(&self) -> &'static [u8] {
        match self.kind {
            Kind::Plain => resp::PUBLISH,
            Kind::Sharded => resp::SPUBLISH,
        }
    }

    /// Appends the command that sends an envelope.
    pub(super) fn publish(&self, out: &mut Vec<u8>, to: To, envelope: &[u8]) {
        match to {
            To::All => resp::publish(out, self.verb(), &[self.all.as_bytes()], &[&self.origin, envelope]),
            To::One(node) => {
                let (prefix, digits) = self.one(node);
                resp::publish(out, self.verb(), &[prefix.as_bytes(), &digits], &[&self.origin, envelope]);
            }
        }
    }

    /// Hands up what was read. A refusal ends it, and is told without the password.
    pub(super) fn hear(
        &self,
        inbox: &mut Inbox,
        inbound: &dyn Inbound,
        login: Option<&Login>,
    ) -> Result<Heard, Trouble> {
        let mut heard = Heard::default();
        while let Some((said, len)) = resp::read(inbox.bytes())? {
            match said {
                Said::Message { channel, payload } => match self.sort(channel, payload) {
                    Came::Envelope(envelope) => inbound.envelope(envelope),
                    Came::Canary => heard.canary = true,
                    Came::Echo => {}
                    Came::Foreign => {
                        self.foreign.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!("Somebody who is no node has published to a channel of the cluster.")
                    }
                },
                Said::Refused(reason) => return Err(Trouble::refused(reason, login)),
                Said::Dropped => return Err(Trouble::Moved),
                Said::Subscribed | Said::Other => {}
            }
            inbox.understood(len);
        }
        Ok(heard)
    }

    /// Says what a message is.
    fn sort<'a>(&self, channel: &[u8], payload: &'a [u8]) -> Came<'a> {
        let is_own = channel == self.own.as_bytes() || channel == self.watch.as_bytes();
        if !is_own && channel != self.all.as_bytes() {
            return Came::Foreign;
        }
        match payload.split_first_chunk() {
            Some((origin, _)) if *origin == self.origin => {
                if is_own {
                    Came::Canary
                } else {
                    Came::Echo
                }
            }
            Some((_, envelope)) => Came::Envelope(envelope),
            None => Came::Foreign,
        }
    }
}

impl Speech for Arc<Channels> {
    fn canary(&self, out: &mut Vec<u8>) {
        self.canary_on(true, out);
    }

    fn publish(&self, out: &mut Vec<u8>, to: To, envelope: &[u8]) {
        Channels::publish(self, out, to, envelope);
    }

    /// Redis asks nothing.
    fn answer(&self, _: &mut Vec<u8>) {}
}

#[cfg(test)]
mod tests {
    use super::super::resp::{Said, read};
    use super::*;

    /// What a server makes of a `PUBLISH`: the message that subscribers get, as channel and payload.
    fn published(command: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let text = [b">3\r\n$7\r\nmessage", command.strip_prefix(b"*3\r\n$7\r\nPUBLISH").unwrap()].concat();
        match read(&text).unwrap() {
            Some((Said::Message { channel, payload }, len)) if len == text.len() => {
                (channel.into(), payload.into())
            }
            other => panic!("{other:?}"),
        }
    }

    fn envelope(channels: &Channels, to: To, envelope: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut out = Vec::new();
        channels.publish(&mut out, to, envelope);
        published(&out)
    }

    #[test]
    fn each_node_takes_what_is_for_it() {
        let (a, b) = (Incarnation(0xa), Incarnation(u64::MAX));
        let [at_a, at_b, at_c] = [a, b, Incarnation(3)].map(|node| Channels::new("tests", node, Kind::Plain));
        let (channel, payload) = envelope(&at_a, To::All, b"to all");
        assert_eq!(channel, b"tieline:tests:all");
        assert_eq!(at_a.sort(&channel, &payload), Came::Echo);
        assert_eq!(at_b.sort(&channel, &payload), Came::Envelope(b"to all"));
        assert_eq!(at_b.sort(&channel, b"1234567"), Came::Foreign, "no node's");

        let (channel, payload) = envelope(&at_a, To::One(b), b"");
        assert_eq!(channel, b"tieline:tests:one:ffffffffffffffff");
        assert_eq!(at_b.sort(&channel, &payload), Came::Envelope(b""));
        assert_eq!(at_c.sort(&channel, &payload), Came::Foreign);

        let mut out = Vec::new();
        at_a.canary_on(true, &mut out);
        let (channel, payload) = published(&out);
        assert_eq!(channel, b"tieline:tests:one:000000000000000a");
        assert_eq!(at_a.sort(&channel, &payload), Came::Canary);
        assert_eq!(at_b.sort(&channel, &payload), Came::Foreign);
    }

    #[test]
    fn no_name_reaches_into_another_cluster() {
        let node = Incarnation(1);
        let names = ["a", "a:one", "a:all", "a%3Aall", "a:one:0000000000000001", "a*", "ä", "a b", "A"];
        let mut seen = std::collections::HashSet::new();
        for name in names {
            let channels = Channels::new(name, node, Kind::Sharded);
            for channel in [channels.all, channels.own, channels.watch] {
                assert!(channel.bytes().all(|byte| byte.is_ascii_graphic()), "{channel}");
                assert!(seen.insert(channel), "{name} shares a channel");
            }
        }
    }
}
