//! [`Reading`]: how far a node has read in the cluster's queue, and what it makes of what it reads. No I/O.
//!
//! It outlives sessions: after an outage a node reads on where it was, so nothing is lost that the broker had taken. Where that place
//! is gone, because the log was cut off at its end or begun anew, it reads on from the time of the last message; what comes twice then is
//! dropped by its number. Envelopes in parts go on, too, where they were. After [`BACKLOG`] out of reach it begins at the end, like a new node: nobody waits for what is that old.
//!
//! Tested here.

use std::time::Duration;

use tieline_core::broker::Inbound;
use tieline_proto::Incarnation;
use tokio::time::Instant;

use super::messages;
use super::names::Names;
use crate::medium::parts::{Came, Joiner};

/// How old what is read on may be.
const BACKLOG: Duration = Duration::from_secs(60);

/// Where to read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At this place.
    At(i64),
    /// At the first message stored at this time, by the broker's clock.
    Since(i64),
    /// Behind the last message.
    Newest,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A canary was among it.
    Canary,
    /// No canary.
    Nothing,
}

/// A node's reading.
pub(super) struct Reading {
    joiner: Joiner,
    /// The place of the next message; none before the first connection, or when the place is gone.
    next: Option<i64>,
    /// When the last message was stored, by the broker's clock; none before the first.
    stored_at: Option<i64>,
    /// When the broker last gave something.
    heard: Instant,
    /// How many messages were read that no node has sent.
    foreign: u64,
}

impl Reading {
    pub(super) fn new(me: Incarnation) -> Self {
        Reading { joiner: Joiner::new(me), next: None, stored_at: None, heard: Instant::now(), foreign: 0 }
    }

    /// Where to read on now.
    pub(super) fn start(&self) -> Start {
        if self.heard.elapsed() > BACKLOG {
            return Start::Newest;
        }
        match (self.next, self.stored_at) {
            (Some(next), _) => Start::At(next),
            (None, Some(time)) => Start::Since(time),
            (None, None) => Start::Newest,
        }
    }

    /// How many messages were read that no node has sent.
    pub(super) fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Reads on at this place.
    pub(super) fn begin(&mut self, next: i64) {
        self.next = Some(next);
    }

    /// The place of the next message.
    pub(super) fn next(&self) -> i64 {
        self.next.unwrap_or_default()
    }

    /// The place is gone.
    pub(super) fn lose(&mut self) {
        self.next = None;
    }

    /// Hands up what was read, and reads on at `next`. What no node has sent is passed over, and counted.
    pub(super) fn hear(
        &mut self,
        names: &Names,
        mut messages: &[u8],
        next: i64,
        inbound: &dyn Inbound,
    ) -> Heard {
        let mut heard = Heard::Nothing;
        loop {
            let message = match messages::next(&mut messages) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => {
                    self.foreign += 1;
                    break;
                }
            };
            self.stored_at = Some(message.stored_at);
            let Some(channel) = names.channel(message.tag) else { continue };
            match self.joiner.take(channel, message.body) {
                Came::Envelope(envelope) => inbound.envelope(&envelope),
                Came::Canary => heard = Heard::Canary,
                Came::Part | Came::Echo => {}
                Came::Foreign => self.foreign += 1,
            }
        }
        self.next = Some(next);
        self.heard = Instant::now();
        heard
    }
}

#[cfg(test)]
mod tests {
    use tieline_core::broker::To;

    use super::super::messages::tests::{STORED_AT, stored};
    use super::super::names::tag;
    use super::*;
    use crate::conformance::Recorder;
    use crate::medium::parts;

    const ME: Incarnation = Incarnation(1);
    const OTHER: Incarnation = Incarnation(2);

    fn message(to: To, body: &[u8]) -> Vec<u8> {
        stored(0, "topic", &format!("TAGS\u{1}{}\u{2}", tag(to)), body)
    }

    fn parts(to: To, envelope: &[u8], limit: usize) -> Vec<Vec<u8>> {
        parts::cut(OTHER, envelope, limit)
            .map(|(header, bytes)| message(to, &[&header[..], bytes].concat()))
            .collect()
    }

    #[test]
    fn it_goes_on_where_it_was_or_where_that_was_last() {
        let (mut reading, names, inbound) = (Reading::new(ME), Names::new("c", ME), Recorder::new());
        assert_eq!(reading.start(), Start::Newest);
        reading.begin(7);
        assert_eq!((reading.start(), reading.next()), (Start::At(7), 7));
        let canary = message(To::One(ME), &parts::canary(ME));
        assert_eq!(reading.hear(&names, &canary, 8, &*inbound), Heard::Canary);
        assert_eq!(reading.start(), Start::At(8));
        assert_eq!(reading.hear(&names, b"", 9, &*inbound), Heard::Nothing, "a pull that brought nothing");
        reading.lose();
        assert_eq!(reading.start(), Start::Since(STORED_AT));
        reading.begin(3);
        assert_eq!(reading.start(), Start::At(3));
        reading.heard -= BACKLOG;
        assert_eq!(reading.start(), Start::Newest, "nobody waits for what is that old");
    }

    #[test]
    fn it_hands_up_what_is_for_this_node_and_passes_over_the_rest() {
        let (mut reading, names, inbound) = (Reading::new(ME), Names::new("c", ME), Recorder::new());
        let whole = |to, envelope: &[u8]| parts(to, envelope, 4096).concat();
        let large = vec![7; 10_000];
        let large_parts = parts(To::All, &large, 4096);
        let pulled = [
            whole(To::All, b"to all"),
            whole(To::One(Incarnation(3)), b"of a tag with the same hash"),
            message(To::All, b"short"),
            stored(0, "topic", "", b"without a tag"),
            message(To::All, &parts::cut(ME, b"echo", 4096).next().unwrap().0),
            whole(To::One(ME), b"to me"),
            large_parts[0].clone(),
            large_parts[1].clone(),
        ];
        reading.hear(&names, &pulled.concat(), 8, &*inbound);
        // After an outage the parts go on.
        reading.begin(8);
        reading.hear(&names, &large_parts[2], 9, &*inbound);
        assert_eq!(inbound.envelopes(), [b"to all".to_vec(), b"to me".to_vec(), large]);
        // What is broken ends a pull, and not the reading.
        let broken = [whole(To::All, b"before"), b"broken".to_vec(), whole(To::All, b"never")].concat();
        reading.hear(&names, &broken, 12, &*inbound);
        assert_eq!((inbound.envelopes().len(), reading.start()), (4, Start::At(12)));
        assert_eq!(reading.foreign(), 2, "what is short, and what is broken");
    }
}
