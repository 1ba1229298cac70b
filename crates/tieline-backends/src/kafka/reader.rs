//! [`Reader`]: what comes out of the two partitions that are a node's business: the one for all, and its inbox.
//!
//! It reads from the end that it found at its start, by offsets that it keeps itself: no group comes to be on the servers, nothing is
//! committed, and the library never chooses a place. Where its place is gone, because messages were removed or a topic was
//! made anew, it goes on at the nearest one that is there; the numbers of envelopes tell what is missing.
//!
//! Tested with the broker.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tieline_core::broker::Inbound;
use tieline_proto::Incarnation;

use super::Trouble;
use super::signs::Ears;
use super::topics::{Topics, inbox};
use crate::medium::parts::{self, Came, Channel, Joiner};

/// How long one question to the servers may take.
const ASK: Duration = Duration::from_millis(1_500);

/// A partition, and how far it was read.
struct Place {
    topic: String,
    partition: i32,
    channel: Channel,
    /// The offset that comes next; none before the first look.
    next: Option<i64>,
}

/// What a message was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing came, or what somebody else sent, and it was handed up if it was for this node.
    Nothing,
    /// This node's canary of this number, which went to itself.
    Canary(u64),
    /// This node's canary of this number, which went to all.
    Echo(u64),
    /// Nothing that a node sends.
    Foreign,
}

pub(super) struct Reader {
    consumer: BaseConsumer<Ears>,
    node: Incarnation,
    places: [Place; 2],
    joiner: Joiner,
}

impl Reader {
    pub(super) fn new(
        config: &ClientConfig,
        ears: Ears,
        topics: &Topics,
        node: Incarnation,
    ) -> Result<Self, Trouble> {
        let consumer = BaseConsumer::from_config_and_context(config, ears);
        let consumer = consumer.map_err(|error| Trouble::Setting(error.to_string()))?;
        let place = |topic: &str, partition, channel| Place {
            topic: topic.to_owned(),
            partition,
            channel,
            next: None,
        };
        let places = [place(&topics.all, 0, Channel::All), place(&topics.one, inbox(node), Channel::Own)];
        Ok(Reader { consumer, node, places, joiner: Joiner::new(node) })
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<Ears> {
        &self.consumer
    }

    /// Begins to read, or goes on, as near as possible to where it was. Says whether that place was gone.
    pub(super) fn settle(&mut self) -> Result<bool, Trouble> {
        let mut list = TopicPartitionList::new();
        let mut nexts = Vec::new();
        let mut is_gap = false;
        for place in &self.places {
            let found = self.consumer.fetch_watermarks(&place.topic, place.partition, ASK);
            let (low, high) = found.map_err(|error| {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                self.trouble(code, &format!("cannot read {}: {code}", place.topic))
            })?;
            let next = place.next.map_or(high, |next| next.clamp(low, high.max(low)));
            is_gap |= place.next.is_some_and(|before| before != next);
            let added = list.add_partition_offset(&place.topic, place.partition, Offset::Offset(next));
            added.map_err(|error| Trouble::Setting(error.to_string()))?;
            nexts.push(next);
        }
        self.consumer.assign(&list).map_err(|error| Trouble::Setting(error.to_string()))?;
        for (place, next) in self.places.iter_mut().zip(nexts) {
            place.next = Some(next);
        }
        if is_gap {
            // What was begun is not continued.
            self.joiner = Joiner::new(self.node);
        }
        Ok(is_gap)
    }

    fn trouble(&self, code: Code, reason: &str) -> Trouble {
        self.consumer.context().0.trouble_of(code, reason)
    }

    /// Waits so long for one message, and hands it up if it is an envelope for this node. What else the library has to say reaches the signs.
    pub(super) fn read(&mut self, wait: Duration, inbound: &dyn Inbound) -> Heard {
        let message = match self.consumer.poll(wait) {
            None => return Heard::Nothing,
            // The signs have it, with the reason.
            Some(Err(_)) => return Heard::Nothing,
            Some(Ok(message)) => message,
        };
        let place = self.places.iter_mut().find(|place| place.topic == message.topic());
        let Some(place) = place.filter(|place| place.partition == message.partition()) else {
            return Heard::Foreign;
        };
        // What was on its way from before a place was taken anew is not read twice.
        if place.next.is_none_or(|next| message.offset() < next) {
            return Heard::Nothing;
        }
        place.next = Some(message.offset() + 1);
        if place.channel == Channel::Own {
            match message.key().map(<[u8; 8]>::try_from) {
                Some(Ok(to)) if u64::from_be_bytes(to) == self.node.0 => {}
                // A neighbour's in the same partition.
                Some(Ok(_)) => return Heard::Nothing,
                _ => return Heard::Foreign,
            }
        }
        let payload = message.payload().unwrap_or_default();
        if place.channel == Channel::All
            && let Some((origin, number)) = canary_in(payload)
        {
            return if origin == self.node { Heard::Echo(number) } else { Heard::Nothing };
        }
        match self.joiner.take(place.channel, payload) {
            Came::Envelope(envelope) => {
                inbound.envelope(&envelope);
                Heard::Nothing
            }
            Came::Part | Came::Echo => Heard::Nothing,
            Came::Canary => match payload[parts::HEADER..].try_into() {
                Ok(number) => Heard::Canary(u64::from_be_bytes(number)),
                Err(_) => Heard::Foreign,
            },
            Came::Foreign => Heard::Foreign,
        }
    }
}

/// Whose canary a message is, and its number.
fn canary_in(message: &[u8]) -> Option<(Incarnation, u64)> {
    let (header, number) = message.split_last_chunk()?;
    let origin = Incarnation(u64::from_be_bytes(*header.first_chunk()?));
    (header == parts::canary(origin)).then(|| (origin, u64::from_be_bytes(*number)))
}
