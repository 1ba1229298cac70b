//! What waits to be written to one socket: bounded in bytes, filled by whoever sends, emptied by one writer.
//!
//! Overflow: the envelope is refused, for this queue alone. Nothing waits but the writer. What an engine says beside
//! envelopes ([`Words`]: signs of life, lists of members) has one place for each kind: a newer word replaces one that was not
//! written yet, so they cannot pile up. Not here: how anything looks on the wire. Tested here.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tieline_core::broker::NotTaken;
use tokio::sync::Notify;

/// What an envelope costs beside its bytes: its header, its place in the queue and the counts of its allocation. It
/// bounds the number of very small ones.
const OVERHEAD: usize = 64;

/// What the queue counts for an envelope of so many bytes.
pub(crate) fn cost(len: usize) -> usize {
    len + OVERHEAD
}

/// What an engine says beside envelopes, one place for each kind of word.
pub trait Words: Default {
    /// Whether nothing is to be said.
    fn is_empty(&self) -> bool;
}

/// All that waited at one moment: the words, then the envelopes as `E`, in the order they were sent.
pub(crate) struct Batch<E, W> {
    /// What is to be said beside them.
    pub(crate) words: W,
    /// In the order they were sent.
    pub(crate) envelopes: Vec<E>,
    /// Nothing comes behind this batch: say goodbye.
    pub(crate) last: bool,
}

impl<E, W: Words> Default for Batch<E, W> {
    fn default() -> Self {
        Batch { words: W::default(), envelopes: Vec::new(), last: false }
    }
}

impl<E, W: Words> Batch<E, W> {
    fn is_empty(&self) -> bool {
        self.words.is_empty() && self.envelopes.is_empty() && !self.last
    }
}

struct State<E, W> {
    /// What waits.
    batch: Batch<E, W>,
    /// The cost of what waits and of what is being written.
    bytes: usize,
    /// No more envelopes are taken.
    closed: bool,
}

/// The queue towards one socket.
pub struct Queue<E, W> {
    state: Mutex<State<E, W>>,
    /// Wakes the writer; at most one waits.
    wake: Notify,
    /// The most cost.
    limit: usize,
}

impl<E, W: Words> Queue<E, W> {
    pub(crate) fn new(limit: usize) -> Self {
        let state = State { batch: Batch::default(), bytes: 0, closed: false };
        Queue { state: Mutex::new(state), wake: Notify::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<E, W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, and wakes the writer if nothing did before.
    fn change(&self, change: impl FnOnce(&mut State<E, W>) -> Result<(), NotTaken>) -> Result<(), NotTaken> {
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

    /// Takes an envelope of so many bytes.
    pub(crate) fn push(&self, len: usize, envelope: E) -> Result<(), NotTaken> {
        self.change(|state| {
            let cost = cost(len);
            if state.closed {
                Err(NotTaken::Unreachable)
            } else if cost > self.limit.saturating_sub(state.bytes) {
                Err(NotTaken::Full)
            } else {
                state.bytes += cost;
                state.batch.envelopes.push(envelope);
                Ok(())
            }
        })
    }

    /// Puts a word in its one place, unless nothing is taken any more: then what it was for is over too.
    pub(crate) fn say(&self, place: impl FnOnce(&mut W)) {
        let placed = self.change(|state| {
            if state.closed {
                return Err(NotTaken::Unreachable);
            }
            place(&mut state.batch.words);
            Ok(())
        });
        let _ = placed;
    }

    /// Takes nothing more; the writer writes what waits, and says goodbye.
    pub(crate) fn finish(&self) {
        let finished = self.change(|state| {
            state.batch.last |= !state.closed;
            state.closed = true;
            Ok(())
        });
        // It was closed before, or it is now.
        let _ = finished;
    }

    /// Takes nothing more, and forgets what waits.
    pub(crate) fn close(&self) {
        let forgotten = {
            let mut state = self.lock();
            state.closed = true;
            mem::take(&mut state.batch)
        };
        drop(forgotten);
    }

    /// The cost of what waits and of what is being written.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Waits for something to write, and exchanges it for the emptied `spare`.
    pub(crate) async fn take(&self, spare: Batch<E, W>) -> Batch<E, W> {
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
    pub(crate) fn written(&self, cost: usize) {
        self.lock().bytes -= cost;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Default)]
    struct Word(Option<u32>);

    impl Words for Word {
        fn is_empty(&self) -> bool {
            self.0.is_none()
        }
    }

    type Tried = Queue<Arc<()>, Word>;

    fn push(queue: &Tried, len: usize) -> Result<(), NotTaken> {
        queue.push(len, Arc::default())
    }

    #[tokio::test]
    async fn room_is_given_back_when_written_not_when_taken() {
        let queue = Tried::new(3 * cost(100));
        for _ in 0..3 {
            assert_eq!(push(&queue, 100), Ok(()));
        }
        assert_eq!(push(&queue, 0), Err(NotTaken::Full));
        let batch = queue.take(Batch::default()).await;
        assert_eq!(batch.envelopes.len(), 3);
        assert_eq!(push(&queue, 0), Err(NotTaken::Full), "it is still in memory");
        queue.written(cost(100));
        assert_eq!(push(&queue, 100), Ok(()));
        assert_eq!(queue.bytes(), 3 * cost(100));
    }

    #[tokio::test]
    async fn words_do_not_pile_up() {
        let queue = Tried::new(1000);
        for number in 0..1000 {
            queue.say(|word| word.0 = Some(number));
        }
        let batch = queue.take(Batch::default()).await;
        assert_eq!(batch.words.0, Some(999));
        assert!(batch.envelopes.is_empty() && !batch.last);
    }

    #[tokio::test]
    async fn finish_lets_out_what_waits_and_close_forgets_it() {
        let queue = Tried::new(1000);
        push(&queue, 1).unwrap();
        queue.finish();
        assert_eq!(push(&queue, 1), Err(NotTaken::Unreachable));
        queue.say(|word| word.0 = Some(1));
        let batch = queue.take(Batch::default()).await;
        assert!(batch.last && batch.envelopes.len() == 1 && batch.words.is_empty());

        let queue = Tried::new(1000);
        let held = Arc::default();
        queue.push(1, Arc::clone(&held)).unwrap();
        queue.close();
        assert_eq!(push(&queue, 1), Err(NotTaken::Unreachable));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
