//! [`Queue`]: what waits for the server, a [`Backlog`] that is also bounded in time: whatever waited too long is given up by
//! [`Queue::expired`], so a server that is away costs an answer and no memory. Tested here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_core::store::Refusal;
use tokio::sync::Notify;

use crate::backlog::{Backlog, Bounds};

/// Jobs in the order in which they came, for one task.
pub(super) struct Queue<T> {
    /// Each with when it came.
    backlog: Mutex<Backlog<(T, Instant)>>,
    /// Wakes the one task.
    changed: Notify,
}

impl<T> Queue<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Queue { backlog: Mutex::new(Backlog::new(bounds)), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Backlog<(T, Instant)>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job of so many bytes.
    pub(super) fn push(&self, job: T, bytes: usize) -> Result<(), Refusal> {
        let mut backlog = self.lock();
        let was_empty = backlog.is_empty();
        backlog.push((job, Instant::now()), bytes)?;
        drop(backlog);
        if was_empty {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// The oldest jobs, as many as `most` allows but at least one; none at once when there are none.
    pub(super) fn take_now(&self, most: Bounds) -> Vec<T> {
        let taken = self.lock().take(most);
        taken.into_iter().map(|(job, _)| job).collect()
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
        let mut backlog = self.lock();
        let late = || backlog.pop_if(|(_, since)| since.elapsed() >= limit);
        std::iter::from_fn(late).map(|(job, _)| job).collect()
    }

    /// Takes no more. What was taken is still given.
    pub(super) fn close(&self) {
        self.lock().close();
        self.changed.notify_one();
    }

    /// Whether it is closed, and everything was given.
    pub(super) fn is_over(&self) -> bool {
        let backlog = self.lock();
        backlog.is_closed() && backlog.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { count: 3, bytes: 10 };

    #[tokio::test]
    async fn what_waited_too_long_is_given_up_and_at_the_end_nothing_is_left() {
        let queue = Queue::new(BOUNDS);
        for job in 0..3 {
            queue.push(job, 1).unwrap();
        }
        assert_eq!(queue.push(3, 1), Err(Refusal::QueueFull));
        assert_eq!(queue.take(Bounds { count: 1, bytes: 10 }).await, [0]);
        assert_eq!(queue.expired(Duration::from_secs(3600)), [0; 0]);
        assert_eq!(queue.expired(Duration::ZERO), [1, 2]);
        queue.push(3, 100).unwrap();
        queue.close();
        assert_eq!(queue.push(4, 1), Err(Refusal::Closed));
        assert!(!queue.is_over());
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
