//! The engines: what stands behind the traits of tieline-core, one module each, each behind a feature.
//!
//! An engine implements a trait and is named nowhere but in the binary's configuration. The conformance suites of the
//! traits live here too, and every engine passes the same ones.

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis"))]
mod backlog;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(feature = "redis", feature = "nats"))]
mod crc16;
#[cfg(any(feature = "redis", feature = "hazelcast"))]
mod directory;
#[cfg(feature = "hazelcast")]
pub mod hazelcast;
#[cfg(any(feature = "redis", feature = "nats", feature = "hazelcast", feature = "rocketmq"))]
mod hosts;
#[cfg(any(feature = "redis", feature = "rabbitmq", feature = "nats", feature = "hazelcast"))]
mod inbox;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(any(
    feature = "mesh",
    feature = "redis",
    feature = "rabbitmq",
    feature = "nats",
    feature = "hazelcast",
    feature = "kafka",
    feature = "zookeeper",
    feature = "nacos",
    feature = "rocketmq"
))]
mod life;
// Kafka's client has a queue and outages of its own, and shares the parts of envelopes alone.
#[cfg_attr(
    not(any(
        feature = "redis",
        feature = "rabbitmq",
        feature = "nats",
        feature = "hazelcast",
        feature = "rocketmq"
    )),
    allow(dead_code, unreachable_pub)
)]
#[cfg(any(
    feature = "redis",
    feature = "rabbitmq",
    feature = "nats",
    feature = "hazelcast",
    feature = "rocketmq",
    feature = "kafka"
))]
mod medium;
#[cfg(feature = "mesh")]
pub mod mesh;
#[cfg(feature = "nats")]
pub mod nats;
mod pause;
#[cfg_attr(
    not(any(
        feature = "mesh",
        feature = "redis",
        feature = "nats",
        feature = "hazelcast",
        feature = "rocketmq"
    )),
    allow(dead_code, unreachable_pub)
)]
#[cfg(any(
    feature = "mesh",
    feature = "redis",
    feature = "rabbitmq",
    feature = "nats",
    feature = "hazelcast",
    feature = "rocketmq",
    feature = "kafka"
))]
mod queue;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "zookeeper", feature = "nacos"))]
pub mod registry;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod requests;
#[cfg(feature = "rocketmq")]
pub mod rocketmq;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "redis", feature = "rabbitmq", feature = "nats"))]
mod tls;

#[cfg(any(feature = "redis", feature = "hazelcast"))]
pub use directory::TableDirectory;
#[cfg(feature = "hazelcast")]
pub use hazelcast::{
    HazelcastAddress, HazelcastBroker, HazelcastDirectorySettings, HazelcastError, HazelcastSettings,
};
#[cfg(feature = "kafka")]
pub use kafka::{KafkaAddress, KafkaBroker, KafkaError, KafkaSettings};
#[cfg(any(
    feature = "redis",
    feature = "rabbitmq",
    feature = "nats",
    feature = "hazelcast",
    feature = "rocketmq"
))]
pub use medium::{MAX_ENVELOPE, Pace};
#[cfg(feature = "mesh")]
pub use mesh::{MeshBroker, MeshError, MeshSettings, Secret};
#[cfg(feature = "nats")]
pub use nats::{NatsAddress, NatsBroker, NatsError, NatsSettings};
pub use pause::pause;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::{RabbitMqAddress, RabbitMqBroker, RabbitMqError, RabbitMqSettings};
#[cfg(feature = "redis")]
pub use redis::cluster::RedisClusterBroker;
#[cfg(feature = "redis")]
pub use redis::directory::RedisDirectorySettings;
#[cfg(feature = "redis")]
pub use redis::registry::{RedisRegistry, RedisRegistrySettings};
#[cfg(feature = "redis")]
pub use redis::sentinel::RedisSentinelBroker;
#[cfg(feature = "redis")]
pub use redis::store::{RedisStore, RedisStoreError, RedisStoreSettings};
#[cfg(feature = "redis")]
pub use redis::{RedisAddress, RedisBroker, RedisError, RedisSettings, RedisSeveralAddress};
#[cfg(feature = "nacos")]
pub use registry::nacos::{
    DocumentError, NacosAddress, NacosDocument, NacosError, NacosRegistry, NacosSettings,
};
#[cfg(feature = "zookeeper")]
pub use registry::zookeeper::{ZooKeeperAddress, ZooKeeperError, ZooKeeperRegistry, ZooKeeperSettings};
#[cfg(feature = "rocketmq")]
pub use rocketmq::{RocketMqAddress, RocketMqBroker, RocketMqError, RocketMqSettings};
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use sql::{SqlAddress, SqlAddressError, SqlError, SqlReason, SqlStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteError, SqliteStore};
#[cfg(any(feature = "redis", feature = "rabbitmq", feature = "nats"))]
pub use tls::TlsError;
