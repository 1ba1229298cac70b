//! [`Queue`]: what waits for a thread of the store, bounded in number and bytes. Past either bound nothing is taken, and
//! the caller is told so: whoever has a socket decides there what that means. Tested here.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_core::store::Refusal;

/// What a [`Queue`] takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Jobs at most.
    pub(crate) count: usize,
    /// Bytes of all jobs at most; a single larger job is taken when nothing else waits.
    pub(crate) bytes: usize,
}

struct State<T> {
    /// Each with its bytes.
    jobs: VecDeque<(T, usize)>,
    bytes: usize,
    is_closed: bool,
    /// Threads that wait for jobs: nobody is woken in vain.
    idle: usize,
}

/// Jobs in the order in which they came.
pub(crate) struct Queue<T> {
    bounds: Bounds,
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
        let state = State { jobs: VecDeque::new(), bytes: 0, is_closed: false, idle: 0 };
        Queue { bounds, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job of so many bytes.
    pub(crate) fn push(&self, job: T, bytes: usize) -> Result<(), Refusal> {
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
        state.jobs.push_back((job, bytes));
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
        while state.jobs.is_empty() {
            if state.is_closed {
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
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some((_, size)) = state.jobs.front() {
            bytes += size;
            if !taken.is_empty() && (taken.len() >= most.count || bytes > most.bytes) {
                break;
            }
            let (job, size) = state.jobs.pop_front().expect("there is a front");
            state.bytes -= size;
            taken.push(job);
        }
        Taken::Jobs(taken)
    }

    /// Takes no more. What was taken is still given.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
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
    fn both_bounds_refuse_and_what_leaves_makes_room() {
        let queue = Queue::new(BOUNDS);
        for job in 0..3 {
            queue.push(job, 1).unwrap();
        }
        assert_eq!(queue.push(3, 1), Err(Refusal::QueueFull));
        assert_eq!(jobs(queue.take(Bounds { count: 2, bytes: 10 }, None)), [0, 1]);
        assert_eq!(queue.push(3, 10), Err(Refusal::QueueFull));
        assert_eq!(jobs(queue.take(BOUNDS, None)), [2]);
        // More than the bound, but alone.
        queue.push(3, 100).unwrap();
        assert_eq!(queue.push(4, 1), Err(Refusal::QueueFull));
        assert_eq!(jobs(queue.take(BOUNDS, None)), [3]);
        queue.push(5, 8).unwrap();
        queue.push(6, 2).unwrap();
        assert_eq!(jobs(queue.take(Bounds { count: 9, bytes: 9 }, None)), [5]);
        queue.close();
        assert_eq!(queue.push(7, 1), Err(Refusal::Closed));
        assert_eq!(jobs(queue.take(BOUNDS, None)), [6]);
        assert!(matches!(queue.take(BOUNDS, None), Taken::Closed));
    }

    #[test]
    fn a_deadline_ends_the_wait_and_a_job_too() {
        let queue = Queue::new(BOUNDS);
        assert!(matches!(queue.take(BOUNDS, Some(Instant::now())), Taken::<u8>::Nothing));
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| jobs(queue.take(BOUNDS, None)));
            queue.push(1, 1).unwrap();
            assert_eq!(taker.join().unwrap(), [1]);
        });
    }
}
