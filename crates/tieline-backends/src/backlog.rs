//! [`Backlog`]: jobs that wait for a store, bounded in number and bytes. Past either bound nothing is taken, and the caller is told
//! so: whoever has a socket decides there what that means. Not the waiting itself: threads wait in `requests/queue.rs`, a task in
//! `redis/store/queue.rs`. Tested here.

use std::collections::VecDeque;

use tieline_core::store::{Answer, Refusal, StoreError};
use tokio::sync::oneshot;

/// How much a [`Backlog`] takes, or gives at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Jobs at most.
    pub(crate) count: usize,
    /// Bytes of all jobs at most; a single larger job passes when there is no other.
    pub(crate) bytes: usize,
}

/// Jobs in the order in which they came.
pub(crate) struct Backlog<T> {
    bounds: Bounds,
    /// Each with its bytes.
    jobs: VecDeque<(T, usize)>,
    bytes: usize,
    is_closed: bool,
}

impl<T> Backlog<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Backlog { bounds, jobs: VecDeque::new(), bytes: 0, is_closed: false }
    }

    /// Takes a job of so many bytes.
    pub(crate) fn push(&mut self, job: T, bytes: usize) -> Result<(), Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        let Bounds { count, bytes: most } = self.bounds;
        if self.jobs.len() >= count || (self.bytes + bytes > most && self.bytes > 0) {
            return Err(Refusal::QueueFull);
        }
        self.bytes += bytes;
        self.jobs.push_back((job, bytes));
        Ok(())
    }

    /// The oldest jobs, as many as `most` allows but at least one; none when there are none.
    pub(crate) fn take(&mut self, most: Bounds) -> Vec<T> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some((_, size)) = self.jobs.front() {
            bytes += size;
            if !taken.is_empty() && (taken.len() >= most.count || bytes > most.bytes) {
                break;
            }
            taken.extend(self.pop_if(|_| true));
        }
        taken
    }

    /// The oldest job, if it is one of these.
    pub(crate) fn pop_if(&mut self, is_one: impl FnOnce(&T) -> bool) -> Option<T> {
        let (job, bytes) = self.jobs.pop_front_if(|(job, _)| is_one(job))?;
        self.bytes -= bytes;
        Some(job)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Takes no more. What was taken is still given.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

/// The answer to what was taken, or was not.
pub(crate) fn answered<T: Send + 'static>(
    taken: Result<(), Refusal>,
    answer: oneshot::Receiver<Result<T, StoreError>>,
) -> Answer<T> {
    match taken {
        Ok(()) => Box::pin(async move {
            answer
                .await
                .unwrap_or_else(|_| Err(StoreError::Unknown("nobody works for it any longer".to_owned())))
        }),
        Err(refusal) => at_once(Err(refusal.into())),
    }
}

/// The answer to what nobody has to be asked for.
pub(crate) fn at_once<T: Send + 'static>(result: Result<T, StoreError>) -> Answer<T> {
    Box::pin(std::future::ready(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { count: 3, bytes: 10 };

    #[test]
    fn both_bounds_refuse_and_what_leaves_makes_room() {
        let mut backlog = Backlog::new(BOUNDS);
        for job in 0..3 {
            backlog.push(job, 1).unwrap();
        }
        assert_eq!(backlog.push(3, 1), Err(Refusal::QueueFull));
        assert_eq!(backlog.take(Bounds { count: 2, bytes: 10 }), [0, 1]);
        assert_eq!(backlog.push(3, 10), Err(Refusal::QueueFull));
        assert_eq!(backlog.pop_if(|job| *job > 2), None);
        assert_eq!(backlog.pop_if(|job| *job == 2), Some(2));
        assert!(backlog.is_empty());
        // More than the bound, but alone.
        backlog.push(3, 100).unwrap();
        assert_eq!(backlog.push(4, 1), Err(Refusal::QueueFull));
        assert_eq!(backlog.take(BOUNDS), [3]);
        backlog.push(5, 8).unwrap();
        backlog.push(6, 2).unwrap();
        assert_eq!(backlog.take(Bounds { count: 9, bytes: 9 }), [5]);
        backlog.close();
        assert_eq!(backlog.push(7, 1), Err(Refusal::Closed));
        assert_eq!(backlog.take(BOUNDS), [6]);
        assert_eq!(backlog.take(BOUNDS), [0; 0]);
    }
}
