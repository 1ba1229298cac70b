//! [`Queue`]: a [`Backlog`] for which threads of a store wait. Tested here.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_core::store::Refusal;

use crate::backlog::{Backlog, Bounds};

struct State<T> {
    backlog: Backlog<T>,
    /// Threads that wait for jobs: nobody is woken in vain.
    idle: usize,
}

/// Jobs in the order in which they came.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// What a thread takes from a queue.
pub(crate) enum Taken<T> {
    /// Some jobs.
    Jobs(Vec<T>),
    /// None came in the time.
    Nothing,
    /// There are none, and there will be none.
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let state = State { backlog: Backlog::new(bounds), idle: 0 };
        Queue { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job of so many bytes.
    pub(crate) fn push(&self, job: T, bytes: usize) -> Result<(), Refusal> {
        let mut state = self.lock();
        state.backlog.push(job, bytes)?;
        let is_anybody_idle = state.idle > 0;
        drop(state);
        if is_anybody_idle {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Gives the oldest jobs, as many as `most` allows but at least one, and waits for one until `deadline`.
    pub(crate) fn take(&self, most: Bounds, deadline: Option<Instant>) -> Taken<T> {
        let mut state = self.lock();
        while state.backlog.is_empty() {
            if state.backlog.is_closed() {
                return Taken::Closed;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Taken::Nothing;
            }
            state.idle += 1;
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.idle -= 1;
        }
        Taken::Jobs(state.backlog.take(most))
    }

    /// Takes no more. What was taken is still given.
    pub(crate) fn close(&self) {
        self.lock().backlog.close();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { count: 3, bytes: 10 };

    fn jobs(taken: Taken<u8>) -> Vec<u8> {
        match taken {
            Taken::Jobs(jobs) => jobs,
            Taken::Nothing | Taken::Closed => Vec::new(),
        }
    }

    #[test]
    fn after_the_end_nothing_is_taken_and_all_is_given() {
        let queue = Queue::new(BOUNDS);
        queue.push(1, 1).unwrap();
        queue.close();
        assert_eq!(queue.push(2, 1), Err(Refusal::Closed));
        assert_eq!(jobs(queue.take(BOUNDS, None)), [1]);
        assert!(matches!(queue.take(BOUNDS, None), Taken::Closed));
    }

    #[test]
    fn a_deadline_ends_the_wait_and_a_job_and_the_end_too() {
        let queue = Queue::new(BOUNDS);
        assert!(matches!(queue.take(BOUNDS, Some(Instant::now())), Taken::<u8>::Nothing));
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| jobs(queue.take(BOUNDS, None)));
            queue.push(1, 1).unwrap();
            assert_eq!(taker.join().unwrap(), [1]);
            let taker = scope.spawn(|| jobs(queue.take(BOUNDS, None)));
            queue.close();
            assert!(taker.join().unwrap().is_empty());
        });
    }
}
