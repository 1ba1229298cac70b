//! What waits to be written to one peer: bounded in bytes, filled by whoever sends, emptied by one writer.
//!
//! Overflow: the envelope is refused, for this peer alone. Nothing waits but the writer. Pings, pongs and the member list have one
//! place each: a newer one replaces what was not sent yet, so a peer cannot make them pile up. Tested here.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tieline_core::broker::NotTaken;
use tokio::sync::Notify;

/// What an envelope costs beside its bytes: its header, its place in the queue and the counts of its allocation. It
/// bounds the number of very small ones.
const OVERHEAD: usize = 64;

/// What the queue counts for an envelope.
pub(super) fn cost(envelope: &[u8]) -> usize {
    envelope.len() + OVERHEAD
}

/// All that waited at one moment, in the order it is to be written.
#[derive(Default)]
pub(super) struct Batch {
    /// The payload of a pong, at most 125 bytes.
    pub(super) pong: Option<Vec<u8>>,
    /// Whether to ask for a sign of life.
    pub(super) ping: bool,
    /// The payload of a text frame.
    pub(super) members: Option<Vec<u8>>,
    /// In the order they were sent.
    pub(super) envelopes: Vec<Arc<[u8]>>,
    /// Nothing comes behind this batch: say goodbye.
    pub(super) last: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.pong.is_none() && !self.ping && self.members.is_none() && self.envelopes.is_empty() && !self.last
    }
}

#[derive(Default)]
struct State {
    /// What waits.
    batch: Batch,
    /// The cost of what waits and of what is being written.
    bytes: usize,
    /// No more envelopes are taken.
    closed: bool,
}

/// The queue towards one peer.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the writer; at most one waits.
    wake: Notify,
    /// The most cost.
    limit: usize,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Queue { state: Mutex::default(), wake: Notify::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, and wakes the writer if nothing did before.
    fn change(&self, change: impl FnOnce(&mut State) -> Result<(), NotTaken>) -> Result<(), NotTaken> {
        let mut state = self.lock();
        let slept = state.batch.is_empty();
        change(&mut state)?;
        let wakes = slept && !state.batch.is_empty();
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Takes an envelope.
    pub(super) fn push(&self, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        self.change(|state| {
            let cost = cost(envelope);
            if state.closed {
                Err(NotTaken::Unreachable)
            } else if cost > self.limit.saturating_sub(state.bytes) {
                Err(NotTaken::Full)
            } else {
                state.bytes += cost;
                state.batch.envelopes.push(Arc::clone(envelope));
                Ok(())
            }
        })
    }

    /// Puts something in its one place, unless nothing is taken any more.
    fn place(&self, place: impl FnOnce(&mut Batch)) {
        let placed = self.change(|state| {
            if state.closed {
                return Err(NotTaken::Unreachable);
            }
            place(&mut state.batch);
            Ok(())
        });
        // The link is over; so is what it was for.
        let _ = placed;
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&self) {
        self.place(|batch| batch.ping = true);
    }

    /// Answers a ping.
    pub(super) fn pong(&self, payload: &[u8]) {
        self.place(|batch| batch.pong = Some(payload.to_vec()));
    }

    /// Tells of other members.
    pub(super) fn members(&self, text: Vec<u8>) {
        self.place(|batch| batch.members = Some(text));
    }

    /// Takes nothing more; the writer writes what waits, and says goodbye.
    pub(super) fn finish(&self) {
        let finished = self.change(|state| {
            state.batch.last |= !state.closed;
            state.closed = true;
            Ok(())
        });
        // It was closed before, or it is now.
        let _ = finished;
    }

    /// Takes nothing more, and forgets what waits.
    pub(super) fn close(&self) {
        let forgotten = {
            let mut state = self.lock();
            state.closed = true;
            mem::take(&mut state.batch)
        };
        drop(forgotten);
    }

    /// The cost of what waits and of what is being written.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Waits for something to write, and exchanges it for the emptied `spare`.
    pub(super) async fn take(&self, spare: Batch) -> Batch {
        debug_assert!(spare.is_empty(), "what was not written would be lost");
        loop {
            {
                let mut state = self.lock();
                if !state.batch.is_empty() {
                    return mem::replace(&mut state.batch, spare);
                }
            }
            self.wake.notified().await;
        }
    }

    /// Gives back the room of what was written.
    pub(super) fn written(&self, cost: usize) {
        self.lock().bytes -= cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(len: usize) -> Arc<[u8]> {
        vec![7; len].into()
    }

    #[tokio::test]
    async fn room_is_given_back_when_written_not_when_taken() {
        let queue = Queue::new(3 * cost(&envelope(100)));
        for _ in 0..3 {
            assert_eq!(queue.push(&envelope(100)), Ok(()));
        }
        assert_eq!(queue.push(&envelope(0)), Err(NotTaken::Full));
        let batch = queue.take(Batch::default()).await;
        assert_eq!(batch.envelopes.len(), 3);
        assert_eq!(queue.push(&envelope(0)), Err(NotTaken::Full), "it is still in memory");
        queue.written(cost(&envelope(100)));
        assert_eq!(queue.push(&envelope(100)), Ok(()));
        assert_eq!(queue.bytes(), 3 * cost(&envelope(100)));
    }

    #[tokio::test]
    async fn what_has_one_place_does_not_pile_up() {
        let queue = Queue::new(1000);
        for number in 0..1000u32 {
            queue.pong(&number.to_be_bytes());
            queue.ping();
            queue.members(number.to_string().into_bytes());
        }
        let batch = queue.take(Batch::default()).await;
        assert_eq!(batch.pong.as_deref(), Some(999u32.to_be_bytes().as_slice()));
        assert_eq!(batch.members.as_deref(), Some(b"999".as_slice()));
        assert!(batch.ping && batch.envelopes.is_empty() && !batch.last);
    }

    #[tokio::test]
    async fn finish_lets_out_what_waits_and_close_forgets_it() {
        let queue = Queue::new(1000);
        queue.push(&envelope(1)).unwrap();
        queue.finish();
        assert_eq!(queue.push(&envelope(1)), Err(NotTaken::Unreachable));
        let batch = queue.take(Batch::default()).await;
        assert!(batch.last && batch.envelopes.len() == 1);

        let queue = Queue::new(1000);
        let held = envelope(1);
        queue.push(&held).unwrap();
        queue.close();
        assert_eq!(queue.push(&held), Err(NotTaken::Unreachable));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
