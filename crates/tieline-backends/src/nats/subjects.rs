//! The subjects of a cluster on NATS, and what is said and heard there.
//!
//! ```text
//! tieline.CLUSTER.all               to every node
//! tieline.CLUSTER.one.INCARNATION   to one node; its own canaries too
//! ```
//!
//! Messages look as on every medium (`medium/parts.rs`): an envelope longer than the server takes travels in parts. The server gives a
//! node back what it published itself, and the origin tells its echo. No I/O. Tested here.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tieline_core::broker::{Inbound, To};
use tieline_proto::Incarnation;

use super::Trouble;
use super::protocol::{self, Info, Said};
use super::settings::Login;
use crate::inbox::Inbox;
use crate::medium::parts::{self, Came, Channel, Joiner};
use crate::medium::stream::{Heard, Speech};

/// What stays as it is in a cluster's name: no dot, star or angle, so that no name reaches into another's subjects.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// The number of the subscription to what goes to all.
const ALL: u64 = 1;

/// The number of the subscription to what goes to this node.
const OWN: u64 = 2;

/// The least that a server has to take in one message.
const LEAST_ROOM: usize = 1024;

/// The subjects that matter to one node.
pub(super) struct Subjects {
    node: Incarnation,
    all: String,
    /// The subjects to one node, without its incarnation.
    one: String,
    /// The subject to this node.
    own: String,
    /// Messages that no node has published.
    foreign: AtomicU64,
}

impl Subjects {
    pub(super) fn new(cluster: &str, node: Incarnation) -> Self {
        let cluster = utf8_percent_encode(cluster, PLAIN);
        let one = format!("tieline.{cluster}.one.");
        let own = format!("{one}{node}");
        Subjects { node, all: format!("tieline.{cluster}.all"), one, own, foreign: AtomicU64::new(0) }
    }

    /// Messages that no node has published, through all connections.
    pub(super) fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Appends the commands that subscribe to what goes to all and what goes to this node.
    pub(super) fn subscribe(&self, out: &mut Vec<u8>) {
        protocol::subscribe(out, &self.all, ALL);
        protocol::subscribe(out, &self.own, OWN);
    }

    /// Appends the command that sends this node a canary.
    pub(super) fn canary(&self, out: &mut Vec<u8>) {
        protocol::publish(out, &[self.own.as_bytes()], &[&parts::canary(self.node)]);
    }
}

/// What is said to the others over one connection.
pub(super) struct Mouth {
    subjects: Arc<Subjects>,
    /// The most bytes of a message.
    room: usize,
}

impl Mouth {
    pub(super) fn new(subjects: Arc<Subjects>, room: usize) -> Result<Mouth, Trouble> {
        if room < LEAST_ROOM { Err(Trouble::Cramped(room)) } else { Ok(Mouth { subjects, room }) }
    }
}

impl Speech for Mouth {
    fn canary(&self, out: &mut Vec<u8>) {
        self.subjects.canary(out);
    }

    fn publish(&self, out: &mut Vec<u8>, to: To, envelope: &[u8]) {
        let Subjects { node, all, one, .. } = &*self.subjects;
        let mut digits = [0; 16];
        let subject: &[&[u8]] = match to {
            To::All => &[all.as_bytes()],
            To::One(node) => {
                write!(&mut digits[..], "{node}").expect("an incarnation has 16 digits");
                &[one.as_bytes(), &digits]
            }
        };
        for (head, piece) in parts::cut(*node, envelope, self.room) {
            protocol::publish(out, subject, &[&head, piece]);
        }
    }

    fn answer(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(protocol::PONG);
    }
}

fn channel(subscription: u64) -> Channel {
    if subscription == OWN { Channel::Own } else { Channel::All }
}

/// What hears the others over one connection.
pub(super) struct Ear {
    subjects: Arc<Subjects>,
    joiner: Joiner,
}

impl Ear {
    pub(super) fn new(subjects: &Arc<Subjects>) -> Self {
        Ear { subjects: Arc::clone(subjects), joiner: Joiner::new(subjects.node) }
    }

    /// Hands up what was read. What the server says of itself goes to `info`. A refusal ends it, and is told without the secret of the login.
    pub(super) fn hear(
        &mut self,
        inbox: &mut Inbox,
        inbound: &dyn Inbound,
        login: &Login,
        mut info: impl FnMut(Info),
    ) -> Result<Heard, Trouble> {
        let mut heard = Heard::default();
        while let Some((said, len)) = protocol::read(inbox.bytes())? {
            match said {
                Said::Message { subscription, payload } => match self
                    .joiner
                    .take(channel(subscription), payload)
                {
                    Came::Envelope(envelope) => inbound.envelope(&envelope),
                    Came::Canary => heard.canary = true,
                    Came::Echo | Came::Part => {}
                    Came::Foreign => {
                        self.subjects.foreign.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!("Somebody who is no node has published to a subject of the cluster.")
                    }
                },
                Said::Ping => heard.question = true,
                Said::Info(json) => info(Info::read(json)?),
                Said::Refused(reason) => return Err(Trouble::refused(reason, login)),
                Said::Pong | Said::Done => {}
            }
            inbox.understood(len);
        }
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn commands_name_whom_they_are_for() {
        let subjects = Arc::new(Subjects::new("tests", Incarnation(0xa)));
        let mut out = Vec::new();
        subjects.subscribe(&mut out);
        assert_eq!(out, b"SUB tieline.tests.all 1\r\nSUB tieline.tests.one.000000000000000a 2\r\n");
        let mouth = Mouth::new(Arc::clone(&subjects), 1 << 20).ok().unwrap();
        let mut out = Vec::new();
        mouth.publish(&mut out, To::One(Incarnation(u64::MAX)), b"xyz");
        assert!(
            out.starts_with(b"PUB tieline.tests.one.ffffffffffffffff "),
            "{}",
            String::from_utf8_lossy(&out)
        );
        assert!(out.ends_with(b"xyz\r\n"));
        let mut out = Vec::new();
        mouth.publish(&mut out, To::All, b"");
        assert!(out.starts_with(b"PUB tieline.tests.all "));
        assert!(Mouth::new(subjects, LEAST_ROOM - 1).is_err());
    }

    #[test]
    fn what_is_longer_than_the_server_takes_travels_in_parts_that_it_takes() {
        let mouth = Mouth::new(Arc::new(Subjects::new("tests", Incarnation(1))), LEAST_ROOM).ok().unwrap();
        let envelope: Vec<u8> = (0..10_000_u32).map(|at| (at % 251) as u8).collect();
        let mut out = Vec::new();
        mouth.publish(&mut out, To::All, &envelope);
        // What the server makes of it for another node.
        let mut joiner = Joiner::new(Incarnation(2));
        let (mut rest, mut whole) = (&out[..], Vec::new());
        while !rest.is_empty() {
            let message = rest.strip_prefix(b"PUB tieline.tests.all ").unwrap();
            let line = message.iter().position(|byte| *byte == b'\r').unwrap();
            let len: usize = std::str::from_utf8(&message[..line]).unwrap().parse().unwrap();
            assert!(len <= LEAST_ROOM, "the server would cut the connection");
            match joiner.take(Channel::All, &message[line + 2..line + 2 + len]) {
                Came::Envelope(envelope) => whole.push(envelope.to_vec()),
                Came::Part => {}
                other => panic!("{other:?}"),
            }
            rest = &message[line + 2 + len + 2..];
        }
        assert_eq!(whole, [envelope]);
    }

    #[test]
    fn no_name_reaches_into_another_cluster() {
        let names = [
            "a",
            "a.one",
            "a.all",
            "a%2Eall",
            "a.one.0000000000000001",
            "a*",
            ">",
            "*",
            "ä",
            "a b",
            "A",
            "$SYS",
            "a\r\nb",
        ];
        let mut seen = HashSet::new();
        for name in names {
            let subjects = Subjects::new(name, Incarnation(1));
            for subject in [subjects.all, subjects.own] {
                assert!(
                    subject.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte)),
                    "{subject}"
                );
                assert!(subject.starts_with("tieline."), "{subject}");
                assert!(
                    subject.split('.').count() == if subject.ends_with(".all") { 3 } else { 4 },
                    "{subject}"
                );
                assert!(seen.insert(subject), "{name} shares a subject");
            }
        }
    }
}
