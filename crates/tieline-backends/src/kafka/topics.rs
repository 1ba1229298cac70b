//! The two topics of a cluster: their names, which partition is a node's, and that they are there. What nodes write to them is
//! `outbox.rs`, what they read `reader.rs`.
//!
//! ```text
//! tieline-CLUSTER-all   1 partition     what goes to all nodes
//! tieline-CLUSTER-one   64 partitions   what goes to one node, by a hash of the node; the key says which
//! ```
//!
//! Nothing is made for a node, so nothing of a dead one stays behind. Of a name everything but letters, digits and `-` is written as `_` and two
//! hexadecimal digits: servers take few other characters, and think names alike that differ in `.` and `_` alone.
//!
//! Names and partitions are tested here, the rest with the broker.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use tieline_proto::Incarnation;
use tokio::runtime::Handle;

use super::signs::Ears;
use super::{KafkaError, Trouble};

/// How many partitions nodes share for what goes to one of them. Two nodes in one partition read each other's envelopes and drop them, which costs
/// both a little; it is never changed, because all nodes must reckon alike.
const INBOXES: i32 = 64;

/// The most bytes of a cluster's name as it is written in a topic's: the servers' bound is 249 for all of it.
const MAX_NAME: usize = 230;

/// How long one question to the servers may take.
const ASK: Duration = Duration::from_millis(1_500);

/// How long making a topic may take.
const MAKE: Duration = Duration::from_secs(3);

/// What the servers are told of topics that are made. Messages are for those that run now: minutes cover any outage that they are
/// kept for. The servers' clock counts, because a node's may be wrong.
const SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "300000"),
    ("segment.ms", "300000"),
    ("segment.bytes", "67108864"),
    ("message.timestamp.type", "LogAppendTime"),
];

/// The topics of one cluster.
pub(super) struct Topics {
    pub(super) all: String,
    pub(super) one: String,
    /// On how many servers they are kept; what the servers do by default, if it is not said.
    replicas: Option<i32>,
}

/// The partition of a node's inbox. FNV-1a, because it must be the same in every version.
pub(super) fn inbox(node: Incarnation) -> i32 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = node.0.to_be_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    // The low bits of the product know little of the last bytes; the high ones know all.
    (hash >> 32) as i32 & (INBOXES - 1)
}

impl Topics {
    pub(super) fn new(cluster: &str, replicas: Option<i32>) -> Result<Self, KafkaError> {
        let mut name = String::new();
        for byte in cluster.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'-' {
                name.push(byte.into());
            } else {
                name.push_str(&format!("_{byte:02x}"));
            }
        }
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(KafkaError::Cluster);
        }
        Ok(Topics { all: format!("tieline-{name}-all"), one: format!("tieline-{name}-one"), replicas })
    }

    /// Looks whether both topics are there, and makes what is not. Says whether they were: if not, they are asked for again, because
    /// servers tell each other late.
    pub(super) fn ensure(
        &self,
        consumer: &BaseConsumer<Ears>,
        config: &ClientConfig,
        runtime: &Handle,
    ) -> Result<bool, Trouble> {
        let mut missing = Vec::new();
        for (topic, wanted) in [(&self.all, 1), (&self.one, INBOXES)] {
            let found = partitions(consumer, topic)?;
            if found.is_none_or(|found| found < wanted) {
                missing.push((topic.as_str(), wanted, found.is_some()));
            }
        }
        if missing.is_empty() {
            return Ok(true);
        }
        let ears = Ears::clone(consumer.context());
        let admin = AdminClient::from_config_and_context(config, ears);
        let admin = admin.map_err(|error| Trouble::Setting(error.to_string()))?;
        for (topic, wanted, is_there) in missing {
            self.make(consumer, &admin, runtime, (topic, wanted, is_there))?;
        }
        Ok(false)
    }

    /// Makes a topic, or more partitions in one that somebody has made with fewer, or the servers by themselves.
    fn make(
        &self,
        consumer: &BaseConsumer<Ears>,
        admin: &AdminClient<Ears>,
        runtime: &Handle,
        (topic, wanted, is_there): (&str, i32, bool),
    ) -> Result<(), Trouble> {
        let signs = &consumer.context().0;
        let options = AdminOptions::new().request_timeout(Some(MAKE)).operation_timeout(Some(MAKE));
        tracing::info!(topic, partitions = wanted, "A topic of the cluster is made.");
        let result = if is_there {
            let more = NewPartitions::new(topic, wanted as usize);
            runtime.block_on(admin.create_partitions([&more], &options))
        } else {
            let replication = TopicReplication::Fixed(self.replicas.unwrap_or(-1));
            let new = NewTopic::new(topic, wanted, replication);
            let new = SETTINGS.into_iter().fold(new, |new, (name, value)| new.set(name, value));
            runtime.block_on(admin.create_topics([&new], &options))
        };
        let refused = |code: Code| signs.trouble_of(code, &format!("cannot make the topic {topic}: {code}"));
        match result {
            Err(error) => Err(refused(error.rdkafka_error_code().unwrap_or(Code::Unknown))),
            // Another node may have been faster.
            Ok(told) => match told.into_iter().next() {
                Some(Err((_, code)))
                    if !matches!(code, Code::TopicAlreadyExists | Code::InvalidPartitions) =>
                {
                    Err(refused(code))
                }
                _ => Ok(()),
            },
        }
    }
}

/// How many partitions a topic has, if it is there.
fn partitions(consumer: &BaseConsumer<Ears>, topic: &str) -> Result<Option<i32>, Trouble> {
    let signs = &consumer.context().0;
    let trouble = |code: Code| signs.trouble_of(code, &format!("cannot look for the topic {topic}: {code}"));
    let metadata = consumer.fetch_metadata(Some(topic), ASK);
    let metadata = metadata.map_err(|error| trouble(error.rdkafka_error_code().unwrap_or(Code::Unknown)))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(Code::from) {
        None => Ok(Some(found.partitions().len() as i32)),
        Some(Code::UnknownTopicOrPartition) => Ok(None),
        Some(code) => Err(trouble(code)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_reaches_into_another_cluster_or_is_refused_by_servers() {
        let names = [
            "a", "a-all", "a-one", "a.b", "a_b", "a_2eb", "a/../b", "ä", "a b", "A", "a\0", "..", "*", "__x",
        ];
        let mut seen = HashSet::new();
        for name in names {
            let topics = Topics::new(name, None).unwrap();
            for topic in [topics.all, topics.one] {
                assert!(
                    topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
                    "{topic}"
                );
                assert!(topic.len() <= 249 && seen.insert(topic), "{name} shares a topic");
            }
        }
        assert_eq!(Topics::new("shop 1", None).unwrap().all, "tieline-shop_201-all");
        assert!(Topics::new(&"x".repeat(MAX_NAME), None).is_ok());
        for name in [String::new(), "x".repeat(MAX_NAME + 1), "_".repeat(MAX_NAME / 3 + 1)] {
            assert!(matches!(Topics::new(&name, None), Err(KafkaError::Cluster)));
        }
    }

    #[test]
    fn inboxes_are_where_every_version_looks_for_them() {
        let at = [0, 1, 2, 0xdead_beef, u64::MAX].map(|node| inbox(Incarnation(node)));
        assert_eq!(at, FROZEN);
        let mut taken = [0; INBOXES as usize];
        // As starts of nodes are numbered: by the time, and by chance.
        for node in 0..6_400_u64 {
            taken[inbox(Incarnation(((node * 1_000) << 20) | (node * 7))) as usize] += 1;
        }
        assert!(taken.iter().all(|count| (20..300).contains(count)), "{taken:?}");
    }

    /// They must never change.
    const FROZEN: [i32; 5] = [50, 50, 50, 33, 11];
}
