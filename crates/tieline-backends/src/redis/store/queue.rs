//! [`Queue`]: what waits for the server, bounded in number, bytes and time. Past a bound nothing is taken, and the caller is
//! told so; whatever waited too long is given up by [`Queue::expired`], so a server that is away costs an answer and no
//! memory. Tested here.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_core::store::Refusal;
use tokio::sync::Notify;

/// What a [`Queue`] takes, or gives at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Jobs at most.
    pub(super) count: usize,
    /// Bytes of all jobs at most; a single larger job passes when there is no other.
    pub(super) bytes: usize,
}

struct Waiting<T> {
    job: T,
    bytes: usize,
    since: Instant,
}

struct State<T> {
    jobs: VecDeque<Waiting<T>>,
    bytes: usize,
    is_closed: bool,
}

/// Jobs in the order in which they came, for one task.
pub(super) struct Queue<T> {
    bounds: Bounds,
    state: Mutex<State<T>>,
    /// Wakes the one task.
    changed: Notify,
}

impl<T> Queue<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let state = State { jobs: VecDeque::new(), bytes: 0, is_closed: false };
        Queue { bounds, state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job of so many bytes.
    pub(super) fn push(&self, job: T, bytes: usize) -> Result<(), Refusal> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Refusal::Closed);
        }
        let is_full = state.jobs.len() >= self.bounds.count
            || (state.bytes + bytes > self.bounds.bytes && state.bytes > 0);
        if is_full {
            return Err(Refusal::QueueFull);
        }
        state.bytes += bytes;
        let was_empty = state.jobs.is_empty();
        state.jobs.push_back(Waiting { job, bytes, since: Instant::now() });
        drop(state);
        if was_empty {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// The oldest jobs, as many as `most` allows but at least one; none at once when there are none.
    pub(super) fn take_now(&self, most: Bounds) -> Vec<T> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let mut state = self.lock();
        while let Some(next) = state.jobs.front() {
            bytes += next.bytes;
            if !taken.is_empty() && (taken.len() >= most.count || bytes > most.bytes) {
                break;
            }
            taken.extend(state.pop());
        }
        taken
    }

    /// Waits for jobs; none when the queue is closed and empty. A wait that is given up loses nothing.
    pub(super) async fn take(&self, most: Bounds) -> Vec<T> {
        loop {
            let taken = self.take_now(most);
            if !taken.is_empty() || self.is_over() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    /// The jobs that have waited for longer than this.
    pub(super) fn expired(&self, limit: Duration) -> Vec<T> {
        let mut state = self.lock();
        let mut expired = Vec::new();
        while state.jobs.front().is_some_and(|next| next.since.elapsed() >= limit) {
            expired.extend(state.pop());
        }
        expired
    }

    /// Takes no more. What was taken is still given.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Whether it is closed, and everything was given.
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.is_closed && state.jobs.is_empty()
    }
}

impl<T> State<T> {
    fn pop(&mut self) -> Option<T> {
        let Waiting { job, bytes, .. } = self.jobs.pop_front()?;
        self.bytes -= bytes;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { count: 3, bytes: 10 };

    #[tokio::test]
    async fn both_bounds_refuse_and_what_leaves_makes_room() {
        let queue = Queue::new(BOUNDS);
        for job in 0..3 {
            queue.push(job, 1).unwrap();
        }
        assert_eq!(queue.push(3, 1), Err(Refusal::QueueFull));
        assert_eq!(queue.take(Bounds { count: 2, bytes: 10 }).await, [0, 1]);
        assert_eq!(queue.push(3, 10), Err(Refusal::QueueFull));
        assert_eq!(queue.expired(Duration::from_secs(3600)), [0; 0]);
        assert_eq!(queue.expired(Duration::ZERO), [2]);
        // More than the bound, but alone.
        queue.push(3, 100).unwrap();
        assert_eq!(queue.push(4, 1), Err(Refusal::QueueFull));
        queue.close();
        assert_eq!(queue.push(4, 1), Err(Refusal::Closed));
        assert_eq!(queue.take(BOUNDS).await, [3]);
        assert_eq!(queue.take(BOUNDS).await, [0; 0]);
        assert!(queue.is_over());
    }

    #[tokio::test]
    async fn a_job_and_the_end_wake_whoever_waits() {
        let queue = Queue::new(BOUNDS);
        let (taken, ()) = tokio::join!(queue.take(BOUNDS), async { queue.push(1, 1).unwrap() });
        assert_eq!(taken, [1]);
        let (taken, ()) = tokio::join!(queue.take(BOUNDS), async { queue.close() });
        assert_eq!(taken, [0; 0]);
    }
}
