//! [`Health`]: whether the store does what it is asked, as operators are told. It decides nothing. Tested here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Refusal, StoreError};

/// How long a message that was not taken is held against the store, when no later one is taken. Without messages nothing else
/// tells that it takes them again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What is known of the store.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether it did not do the last thing that it was asked.
    is_silent: AtomicBool,
    /// When it last did not take a message, unless it has taken one since. A full disk is like that: it can be read from.
    refused: Mutex<Option<Instant>>,
}

impl Health {
    /// Whether an error tells of the store, and not only of what it was asked.
    pub(super) fn is_told_by(error: &StoreError) -> bool {
        !matches!(error, StoreError::Refused(Refusal::QueueFull | Refusal::TooLarge))
    }

    /// It did not do what it was asked.
    pub(super) fn unanswered(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// It has answered a question.
    pub(super) fn answered(&self) {
        self.is_silent.store(false, Ordering::Relaxed);
    }

    /// It did not take a message.
    pub(super) fn refused(&self, now: Instant) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// It has taken a message, which is more than to answer.
    pub(super) fn took(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.answered();
    }

    /// Whether it is thought to do what it will be asked.
    pub(super) fn is_up(&self, now: Instant) -> bool {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refusing = refused.is_some_and(|at| now.duration_since(at) < REMEMBERED);
        !is_refusing && !self.is_silent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_until_a_message_is_taken_or_a_minute_is_over() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(health.is_up(now));
        health.refused(now);
        health.unanswered();
        health.answered();
        assert!(!health.is_up(now), "that it can be read from says nothing of messages");
        assert!(!health.is_up(now + REMEMBERED - Duration::from_millis(1)));
        assert!(health.is_up(now + REMEMBERED));
        health.unanswered();
        assert!(!health.is_up(now + REMEMBERED));
        health.took();
        assert!(health.is_up(now));
    }

    #[test]
    fn what_is_the_askers_fault_is_not_held_against_it() {
        assert!(
            !Health::is_told_by(&Refusal::QueueFull.into()) && !Health::is_told_by(&Refusal::TooLarge.into())
        );
        assert!(
            Health::is_told_by(&Refusal::NoRoom.into())
                && Health::is_told_by(&StoreError::Unknown(String::new()))
        );
    }
}
