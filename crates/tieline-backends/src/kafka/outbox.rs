//! [`Outbox`]: what a node writes: the library's producer, which keeps what waits through an outage, and our bound of it.
//!
//! Overflow: an envelope that does not fit below the bound is refused as a whole. What is older than
//! [`KafkaSettings::keep`](super::KafkaSettings::keep) is given up by the library, counted, and nobody knows whether it arrived.
//!
//! A producer can come to a state in which it takes nothing for ever, by its servers' fault: what it had written is gone from them, so that it cannot say
//! what comes next. Another takes its place then.
//!
//! Tested with the broker.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tieline_core::broker::{NotTaken, To};
use tieline_proto::Incarnation;

use super::bootstrap::Bootstrap;
use super::signs::{Ears, Signs};
use super::topics::{Topics, inbox};
use super::{MAX_ENVELOPE, Trouble};
use crate::medium::parts;

/// What a message costs beside its bytes, in the library's books and in the batch that is sent.
const OVERHEAD: usize = 256;

/// The most bytes of one message, so that it is taken by servers and topics as they are by default, which is 1,048,588 for a batch.
const MAX_MESSAGE: usize = 900_000;

/// How long the producer is asked at most to know the topics again.
const ASK: Duration = Duration::from_millis(1_500);

pub(super) struct Outbox {
    node: Incarnation,
    topics: Arc<Topics>,
    signs: Arc<Signs>,
    config: ClientConfig,
    /// The most that may wait.
    limit: usize,
    /// None before the start and when nothing is taken any more.
    producer: RwLock<Option<ThreadedProducer<Ears>>>,
}

impl Outbox {
    pub(super) fn new(
        config: ClientConfig,
        signs: Arc<Signs>,
        topics: Arc<Topics>,
        node: Incarnation,
        limit: usize,
    ) -> Self {
        Outbox { node, topics, signs, config, limit, producer: RwLock::default() }
    }

    /// Begins to write.
    pub(super) fn open(&self) -> Result<(), Trouble> {
        let producer = ThreadedProducer::from_config_and_context(&self.config, Ears(Arc::clone(&self.signs)));
        let producer = producer.map_err(|error| Trouble::Setting(error.to_string()))?;
        let before = self.producer.write().unwrap_or_else(PoisonError::into_inner).replace(producer);
        // Here, where nobody waits for the lock: it gives up all that it had.
        drop(before);
        Ok(())
    }

    /// Takes nothing more, and gives the producer of what was taken.
    pub(super) fn close(&self) -> Option<ThreadedProducer<Ears>> {
        self.producer.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Names the servers to the producer again.
    pub(super) fn name_servers(&self, bootstrap: &Bootstrap) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = producer.as_ref() {
            bootstrap.name_to(producer.client());
        }
    }

    /// Looks after a producer to which topics are unknown, or which takes nothing for ever.
    pub(super) fn mend(&self) -> Result<(), Trouble> {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(producer) = producer else { return Ok(()) };
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::warn!(?code, reason, "The Kafka producer is at its end; another takes its place.");
            return self.open();
        }
        for topic in [&self.topics.all, &self.topics.one] {
            let asked = producer.client().fetch_metadata(Some(topic), ASK);
            asked.map_err(|error| {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                self.signs.trouble_of(code, &format!("cannot look for the topic {topic}: {code}"))
            })?;
        }
        Ok(())
    }

    /// Takes an envelope.
    pub(super) fn send(&self, to: To, envelope: &[u8]) -> Result<(), NotTaken> {
        if envelope.len() > MAX_ENVELOPE {
            return Err(NotTaken::Full);
        }
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        let producer = producer.as_ref().ok_or(NotTaken::Unreachable)?;
        let cut = || parts::cut(self.node, envelope, MAX_MESSAGE);
        let cost = |part: &[u8]| part.len() + OVERHEAD;
        let mut due: usize = cut().map(|(_, part)| cost(part)).sum();
        if !self.signs.reserve(due, self.limit) {
            return Err(NotTaken::Full);
        }
        let mut message = Vec::with_capacity(parts::HEADER + envelope.len().min(MAX_MESSAGE));
        for (header, part) in cut() {
            message.clear();
            message.extend_from_slice(&header);
            message.extend_from_slice(part);
            if let Err(error) = self.produce(producer, to, &message, cost(part)) {
                // Of parts that went, receivers see that the rest is missing.
                self.signs.release(due);
                return Err(error);
            }
            due -= cost(part);
        }
        Ok(())
    }

    /// Sends a canary, beyond the bound: there are never more than a few. One that is not taken does not come back.
    pub(super) fn canary(&self, to: To, number: u64) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = producer.as_ref() {
            let message = [&parts::canary(self.node)[..], &number.to_be_bytes()].concat();
            let _ = self.produce(producer, to, &message, 0);
        }
    }

    fn produce(
        &self,
        producer: &ThreadedProducer<Ears>,
        to: To,
        message: &[u8],
        cost: usize,
    ) -> Result<(), NotTaken> {
        let sent = match to {
            To::All => {
                let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&self.topics.all, cost);
                producer.send(record.partition(0).payload(message)).map_err(|(error, _)| error)
            }
            To::One(node) => {
                let key = node.0.to_be_bytes();
                let record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topics.one, cost);
                let record = record.partition(inbox(node)).key(&key[..]).payload(message);
                producer.send(record).map_err(|(error, _)| error)
            }
        };
        sent.map_err(|error| match error.rdkafka_error_code() {
            Some(Code::QueueFull) => NotTaken::Full,
            code => {
                self.signs
                    .note(code.unwrap_or(Code::Unknown), &format!("an envelope was not taken: {error}"));
                self.signs.lose_topic();
                NotTaken::Unreachable
            }
        })
    }
}
