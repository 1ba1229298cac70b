//! [`Mouth`]: what a node says to the others by the server, as frames. No I/O. Tested by the broker's tests.

use std::sync::Arc;

use tieline_core::broker::To;

use super::LONGEST;
use super::confirms::Confirms;
use super::connection::CHANNEL;
use super::frames;
use super::names::Names;
use crate::medium::parts::{canary, cut};

/// Publishes for one node by one connection.
pub(super) struct Mouth {
    names: Arc<Names>,
    /// The most bytes of a frame.
    frame_max: usize,
    confirms: Arc<Confirms>,
}

impl Mouth {
    pub(super) fn new(names: Arc<Names>, frame_max: usize, confirms: Arc<Confirms>) -> Self {
        Mouth { names, frame_max, confirms }
    }

    /// Appends a message to this very node.
    pub(super) fn canary(&self, out: &mut Vec<u8>) {
        self.message(out, To::One(self.names.node), [&canary(self.names.node), &[]], 0);
    }

    /// Appends an envelope, which the queue counts as so many bytes until it is confirmed.
    pub(super) fn publish(&self, out: &mut Vec<u8>, to: To, envelope: &[u8], mut cost: usize) {
        let mut parts = cut(self.names.node, envelope, LONGEST).peekable();
        while let Some((header, bytes)) = parts.next() {
            // The last part stands for all: they are confirmed in any order, but soon after each other.
            let cost = if parts.peek().is_none() { std::mem::take(&mut cost) } else { 0 };
            self.message(out, to, [&header, bytes], cost);
        }
    }

    fn message(&self, out: &mut Vec<u8>, to: To, parts: [&[u8]; 2], cost: usize) {
        self.confirms.published(cost);
        let mut room = [0; 16];
        frames::publish(out, CHANNEL, self.frame_max, self.names.place(to, &mut room), parts);
    }
}

/// Appends that the connection is over.
pub(super) fn goodbye(out: &mut Vec<u8>) {
    frames::write(out, 0, (10, 50), |arguments| {
        arguments.u16(200).short(b"goodbye").u16(0).u16(0);
    });
}
