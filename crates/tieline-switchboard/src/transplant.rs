//! How a numbered connection that was cut leaves its shard for another node, and how one is put in place that comes from
//! there: without a socket, as if it had been cut here.
//!
//! While nobody is there, the marks of what a connection is sent are written down beside its frames (its *tape*). Its old
//! node goes on sending to it while the new one does so as well; the marks tell what both have.
//! Tested in `shard/tests/transplant.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use crate::Slot;
use crate::application::{Application, Cause};
use crate::connection::{Format, Phase};
use crate::encode::Encode;
use crate::log::MAX_RECORD;
use crate::numbered::{Frame, LargeBody, RECORD_HEADER, Record, Window};
use crate::shard::Shard;

/// What a message is known by on every node; 0 for one that has no such name.
pub type Mark = u128;

/// A frame of a numbered connection, without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// What stands behind the number.
    pub body: Vec<u8>,
    /// The message it was made of; 0 where it came before the cut, or has no mark.
    pub mark: Mark,
}

/// The marks of the frames that came since the tape began.
#[derive(Debug)]
pub(crate) struct Tape {
    /// Number of the first of these frames.
    from: u64,
    /// One for each frame.
    marks: Vec<Mark>,
}

impl Tape {
    pub(crate) fn from(from: u64) -> Box<Self> {
        Box::new(Tape { from, marks: Vec::new() })
    }

    pub(crate) fn note(&mut self, message: &dyn Encode) {
        self.marks.push(message.mark());
    }

    fn mark(&self, sequence: u64) -> Mark {
        let at = sequence.checked_sub(self.from).and_then(|at| self.marks.get(at as usize));
        at.copied().unwrap_or_default()
    }
}

impl<A: Application> Shard<A> {
    /// Puts a connection in place that has no socket, with a session of its own, as if it had been cut this moment. Its peer
    /// may resume it; `closed` follows as for one that was opened. `None` when the table is full.
    pub fn plant(&mut self, session: A::Session, format: Format) -> Option<Slot> {
        let slot = self.take_slot()?;
        let (tick, first_sequence) = (self.tick, self.settings.first_sequence);
        let deadline = tick + self.ticks(self.settings.resume_window);
        let connection = &mut self.connections[slot as usize];
        let mut window = Window::new(first_sequence);
        window.begin_tape();
        connection.phase = Phase::Detached;
        connection.format = Format { numbered: true, ..format };
        connection.window = Some(Box::new(window));
        connection.last_message = tick;
        connection.session = Some(session);
        self.detached.push_back((deadline, slot, connection.generation));
        self.counters.opened += 1;
        self.counters.detached += 1;
        Some(slot)
    }

    /// Takes the socket from a connection that has one, as if it had been cut. Returns whether the connection is there without
    /// one now.
    pub fn unplug(&mut self, application: &mut A, slot: Slot) -> bool {
        if self.connections[slot as usize].phase == Phase::Open {
            self.lose_socket(slot);
            self.settle(application);
        }
        self.is_detached(slot)
    }

    /// The numbers of the first frame that a connection without a socket holds, and behind its last one.
    pub fn held(&self, slot: Slot) -> Option<(u64, u64)> {
        self.connections[slot as usize].window.as_ref().map(|window| window.bounds())
    }

    /// Frames that a connection without a socket holds, from a number on: of so many bytes, or one that is larger. Returns
    /// whether they are all that follow.
    pub fn frames(&self, slot: Slot, from: u64, most: usize) -> (Vec<Numbered>, bool) {
        let connection = &self.connections[slot as usize];
        let Some(window) = connection.window.as_ref().filter(|_| connection.phase == Phase::Detached) else {
            return (Vec::new(), true);
        };
        let (base, _) = window.bounds();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let skipped = usize::try_from(from.saturating_sub(base)).unwrap_or(usize::MAX);
        for (sequence, frame) in (base..).zip(window.unsent_frames(&self.log)).skip(skipped) {
            let body = match frame {
                Frame::Small(record) => record.plain.to_vec(),
                Frame::Large(body) => body.plain.to_vec(),
            };
            bytes += body.len();
            if bytes > most && !frames.is_empty() {
                return (frames, false);
            }
            let mark = window.tape().map_or(0, |tape| tape.mark(sequence));
            frames.push(Numbered { body, mark });
        }
        (frames, true)
    }

    /// Gives a planted connection the frames that it had elsewhere, from the number `base` on. What it was sent here comes behind
    /// them, but for messages of these marks. A connection that has too much then is ended.
    pub fn refill(&mut self, slot: Slot, base: u64, before: &[Numbered], known: &HashSet<Mark>) {
        let (own, _) = self.frames(slot, 0, usize::MAX);
        self.forget_window(slot);
        let connection = &mut self.connections[slot as usize];
        connection.window = Some(Box::new(Window::new(base)));
        if !std::mem::replace(&mut connection.holding, true) {
            self.holders.push(slot);
        }
        let own = own.iter().filter(|frame| frame.mark == 0 || !known.contains(&frame.mark));
        for frame in before {
            self.push_body(slot, &frame.body);
        }
        if let Some(window) = &mut self.connections[slot as usize].window {
            window.count_as_sent();
        }
        for frame in own {
            self.push_body(slot, &frame.body);
        }
        if self.connections[slot as usize].lag() > self.settings.max_lag {
            self.end(slot, Cause::Lag);
        }
    }

    fn push_body(&mut self, slot: Slot, body: &[u8]) {
        let Some(window) = &mut self.connections[slot as usize].window else { return };
        if RECORD_HEADER + body.len() > MAX_RECORD {
            return window.push_large(LargeBody { plain: Arc::new(body.into()), deflated: None });
        }
        let record = self.log.append(&[&Record::header(body.len(), 0), body]);
        if window.push(record, body.len() as u32) {
            self.log.retain(record, 1);
        }
        self.retire();
    }
}
