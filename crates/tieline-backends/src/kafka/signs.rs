//! [`Signs`]: what the client library says on threads of its own: what became of messages, and what is wrong. It is only noted here; the
//! broker's own thread looks at it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::Trouble;

/// What was noted. All of it is shared by the producer, the consumer and the broker's thread.
pub(super) struct Signs {
    /// What must not be shown.
    password: Option<String>,
    /// What was wrong last, until it is looked at.
    trouble: Mutex<Option<Trouble>>,
    /// Whether no server could be reached, until it is looked at.
    is_cut: AtomicBool,
    /// Whether the topics may be gone or others, until it is looked at.
    is_topic_lost: AtomicBool,
    /// Errors of connections, in the order of [`Trouble::NAMES`].
    counts: [AtomicU64; Trouble::NAMES.len()],
    /// The cost of all messages that were handed to the library, and of which it has not said what became of them.
    waiting: AtomicUsize,
    /// Messages of which nobody knows what has become.
    expired: AtomicU64,
}

impl Signs {
    pub(super) fn new(password: Option<String>) -> Arc<Self> {
        Arc::new(Signs {
            password,
            trouble: Mutex::default(),
            is_cut: AtomicBool::new(false),
            is_topic_lost: AtomicBool::new(false),
            counts: Default::default(),
            waiting: AtomicUsize::new(0),
            expired: AtomicU64::new(0),
        })
    }

    /// Says what an error of the library is, in words that may be shown.
    pub(super) fn trouble_of(&self, code: Code, reason: &str) -> Trouble {
        let mut text = reason.to_owned();
        if let Some(password) = self.password.as_deref().filter(|password| !password.is_empty()) {
            text = text.replace(password, "***");
        }
        Trouble::of(code, &text)
    }

    /// Notes what is wrong.
    pub(super) fn note(&self, code: Code, reason: &str) {
        match code {
            Code::AllBrokersDown => return self.is_cut.store(true, Ordering::Relaxed),
            Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::UnknownTopicId
            | Code::LogTruncation
            | Code::NoOffset
            | Code::Fatal
            | Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId => self.is_topic_lost.store(true, Ordering::Relaxed),
            _ => {}
        }
        let trouble = self.trouble_of(code, reason);
        tracing::debug!(%trouble, ?code, "The Kafka library tells of a trouble.");
        self.counts[trouble.index()].fetch_add(1, Ordering::Relaxed);
        let mut last = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // What comes after a refused login says less.
        if !matches!(*last, Some(Trouble::Login(_) | Trouble::Tls(_))) {
            *last = Some(trouble);
        }
    }

    /// What was wrong last, once.
    pub(super) fn take_trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether something is wrong that no waiting mends.
    pub(super) fn is_decided(&self) -> bool {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*trouble, Some(Trouble::Login(_) | Trouble::Tls(_)))
    }

    /// Whether no server could be reached since this was asked last.
    pub(super) fn take_cut(&self) -> bool {
        self.is_cut.swap(false, Ordering::Relaxed)
    }

    /// Whether somebody has to look after the topics.
    pub(super) fn take_topic_lost(&self) -> bool {
        self.is_topic_lost.swap(false, Ordering::Relaxed)
    }

    /// Somebody has to look after the topics.
    pub(super) fn lose_topic(&self) {
        self.is_topic_lost.store(true, Ordering::Relaxed);
    }

    /// Takes room for a message of this cost, if there is so much below the limit.
    pub(super) fn reserve(&self, cost: usize, limit: usize) -> bool {
        let add = |waiting: usize| waiting.checked_add(cost).filter(|waiting| *waiting <= limit);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Gives room back.
    pub(super) fn release(&self, cost: usize) {
        self.waiting.fetch_sub(cost, Ordering::Relaxed);
    }

    /// The cost of all that waits.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many messages there are of which nobody knows what has become.
    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// How many errors of connections there were, for each word.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Trouble::NAMES.into_iter().zip(counts).collect()
    }
}

/// The library's way to the [`Signs`].
#[derive(Clone)]
pub(super) struct Ears(pub(super) Arc<Signs>);

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // Whatever matters comes as an error too, and is told once.
        tracing::trace!(?level, facility, line, "The Kafka library says something.");
    }

    fn error(&self, error: LibraryError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.0.note(code, reason);
        }
    }
}

impl ConsumerContext for Ears {}

impl ProducerContext for Ears {
    /// What the message cost.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, cost: usize) {
        self.0.release(cost);
        let Err((error, _)) = result else { return };
        // Purged are those that were given up at the end.
        if let Some(code) =
            error.rdkafka_error_code().filter(|code| !matches!(code, Code::PurgeQueue | Code::PurgeInflight))
        {
            self.0.expired.fetch_add(1, Ordering::Relaxed);
            self.0.note(code, &format!("an envelope was given up: {error}"));
        }
    }
}
