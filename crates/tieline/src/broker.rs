//! [`BrokerUrl`]: which broker is meant, and how a node is joined to others by it. Tested here.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use tieline_backends::mesh;
#[cfg(feature = "hazelcast")]
use tieline_backends::{HazelcastAddress, HazelcastBroker, HazelcastError, HazelcastSettings};
#[cfg(feature = "kafka")]
use tieline_backends::{KafkaAddress, KafkaBroker, KafkaError, KafkaSettings};
use tieline_backends::{
    MeshBroker, MeshError, MeshSettings, RedisAddress, RedisBroker, RedisClusterBroker, RedisError,
    RedisSentinelBroker, RedisSettings, RedisSeveralAddress, Secret,
};
#[cfg(feature = "nats")]
use tieline_backends::{NatsAddress, NatsBroker, NatsError, NatsSettings};
#[cfg(feature = "rabbitmq")]
use tieline_backends::{RabbitMqAddress, RabbitMqBroker, RabbitMqError, RabbitMqSettings};
#[cfg(feature = "rocketmq")]
use tieline_backends::{RocketMqAddress, RocketMqBroker, RocketMqError, RocketMqSettings};
use tieline_core::broker::{Broker, Inbound};
use tieline_proto::NodeId;

use crate::config::Server;

/// The address of a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BrokerUrl {
    /// `memory:`: nothing, the node is alone.
    #[default]
    Memory,
    /// `mesh://host:port,…`: the nodes themselves, each a WebSocket client of the others; these addresses are asked for the rest.
    Mesh(Vec<String>),
    /// `redis://host`, or `rediss://host` for TLS.
    Redis(RedisAddress),
    /// `redis+cluster://host,…`, or `rediss+cluster://…` for TLS.
    RedisCluster(RedisSeveralAddress),
    /// `redis+sentinel://host,…/master`, or `rediss+sentinel://…` for TLS.
    RedisSentinel(RedisSeveralAddress),
    /// `amqp://host`, or `amqps://host` for TLS.
    #[cfg(feature = "rabbitmq")]
    RabbitMq(RabbitMqAddress),
    /// `nats://host,…`, or `tls://host,…` where TLS is insisted on.
    #[cfg(feature = "nats")]
    Nats(NatsAddress),
    /// `rocketmq://host,…`: the name servers of RocketMQ.
    #[cfg(feature = "rocketmq")]
    RocketMq(RocketMqAddress),
    /// `hazelcast://host,…`.
    #[cfg(feature = "hazelcast")]
    Hazelcast(HazelcastAddress),
    /// `kafka://host,…`, or `kafka+ssl://host,…` for TLS.
    #[cfg(feature = "kafka")]
    Kafka(KafkaAddress),
}

/// Text that is no address of a broker. It is not repeated: addresses of servers have passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// Nothing that is known.
    #[error("known are {}", known())]
    Unknown,
    /// An address of a server with a mistake in it, in the engine's words.
    #[error("{0}")]
    Server(String),
    /// An engine that is known, but not in this program.
    #[error(
        "{0} is not built into this program: build it with `cargo build --release -p tieline --features {1}`"
    )]
    NotBuilt(&'static str, &'static str),
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerStartError {
    /// The others must be able to reach it.
    #[error("`--broker mesh://…` needs `--peer-listen ADDR`, where the other nodes connect")]
    NoPeerAddress,
    /// The mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The Redis server.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The RabbitMQ server.
    #[cfg(feature = "rabbitmq")]
    #[error(transparent)]
    RabbitMq(#[from] RabbitMqError),
    /// The NATS servers.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// RocketMQ.
    #[cfg(feature = "rocketmq")]
    #[error(transparent)]
    RocketMq(#[from] RocketMqError),
    /// The Hazelcast cluster.
    #[cfg(feature = "hazelcast")]
    #[error(transparent)]
    Hazelcast(#[from] HazelcastError),
    /// The Kafka cluster.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

/// Reads an address of one kind, and says what is wrong with it.
type Read = fn(&str) -> Result<BrokerUrl, String>;

/// A kind of broker that addresses can name.
struct Scheme {
    /// What stands before the first colon of such addresses.
    names: &'static [&'static str],
    /// An example of an address.
    example: &'static str,
    /// What it is called, and the feature it is built in by; the default build has it where there is none.
    feature: Option<(&'static str, &'static str)>,
    /// Reads an address; None where it is not built in.
    read: Option<Read>,
}

/// Every kind, built in or not.
const SCHEMES: &[Scheme] = &[
    Scheme {
        names: &["memory"],
        example: "memory:",
        feature: None,
        read: Some(|text| match text {
            "memory:" | "memory://" => Ok(BrokerUrl::Memory),
            _ => Err("behind `memory:` stands nothing".to_owned()),
        }),
    },
    Scheme {
        names: &["mesh"],
        example: "mesh://HOST:PORT,HOST:PORT",
        feature: None,
        read: Some(|text| mesh::parse_seeds(text).map(BrokerUrl::Mesh).map_err(|error| error.to_string())),
    },
    Scheme {
        names: &["redis", "rediss"],
        example: "redis://[[USER]:PASSWORD@]HOST[:PORT]",
        feature: None,
        read: Some(|text| RedisAddress::parse(text).map(BrokerUrl::Redis).map_err(|error| error.to_string())),
    },
    Scheme {
        names: &["redis+cluster", "rediss+cluster"],
        example: "redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],HOST",
        feature: None,
        read: Some(|text| several(text).map(BrokerUrl::RedisCluster)),
    },
    Scheme {
        names: &["redis+sentinel", "rediss+sentinel"],
        example: "redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],HOST/MASTER",
        feature: None,
        read: Some(|text| several(text).map(BrokerUrl::RedisSentinel)),
    },
    Scheme {
        names: &["amqp", "amqps"],
        example: "amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST]",
        feature: Some(("RabbitMQ", "rabbitmq")),
        #[cfg(feature = "rabbitmq")]
        read: Some(|text| {
            RabbitMqAddress::parse(text).map(BrokerUrl::RabbitMq).map_err(|error| error.to_string())
        }),
        #[cfg(not(feature = "rabbitmq"))]
        read: None,
    },
    Scheme {
        names: &["nats", "tls", "nats+tls"],
        example: "nats://[USER:PASSWORD@]HOST[:PORT],HOST",
        feature: Some(("NATS", "nats")),
        #[cfg(feature = "nats")]
        read: Some(|text| NatsAddress::parse(text).map(BrokerUrl::Nats).map_err(|error| error.to_string())),
        #[cfg(not(feature = "nats"))]
        read: None,
    },
    Scheme {
        names: &["rocketmq"],
        example: "rocketmq://[USER:PASSWORD@]HOST[:PORT],HOST",
        feature: Some(("RocketMQ", "rocketmq")),
        #[cfg(feature = "rocketmq")]
        read: Some(|text| {
            RocketMqAddress::parse(text).map(BrokerUrl::RocketMq).map_err(|error| error.to_string())
        }),
        #[cfg(not(feature = "rocketmq"))]
        read: None,
    },
    Scheme {
        names: &["hazelcast"],
        example: "hazelcast://[USER:PASSWORD@]HOST[:PORT],…[?cluster=NAME]",
        feature: Some(("Hazelcast", "hazelcast")),
        #[cfg(feature = "hazelcast")]
        read: Some(|text| {
            HazelcastAddress::parse(text).map(BrokerUrl::Hazelcast).map_err(|error| error.to_string())
        }),
        #[cfg(not(feature = "hazelcast"))]
        read: None,
    },
    Scheme {
        names: &["kafka", "kafka+ssl"],
        example: "kafka://[USER:PASSWORD@]HOST[:PORT],HOST",
        feature: Some(("Kafka", "kafka")),
        #[cfg(feature = "kafka")]
        read: Some(|text| KafkaAddress::parse(text).map(BrokerUrl::Kafka).map_err(|error| error.to_string())),
        #[cfg(not(feature = "kafka"))]
        read: None,
    },
];

fn several(text: &str) -> Result<RedisSeveralAddress, String> {
    RedisSeveralAddress::parse(text).map_err(|error| error.to_string())
}

/// The list of all, for an error.
fn known() -> String {
    let examples: Vec<String> = SCHEMES.iter().map(|scheme| format!("`{}`", scheme.example)).collect();
    examples.join(", ")
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let (name, _) = text.split_once(':').ok_or(BrokerUrlError::Unknown)?;
        let scheme = SCHEMES.iter().find(|scheme| scheme.names.contains(&name));
        match scheme.ok_or(BrokerUrlError::Unknown)? {
            Scheme { read: Some(read), .. } => read(text).map_err(BrokerUrlError::Server),
            Scheme { feature, example, .. } => {
                let (engine, feature) = feature.unwrap_or((example, "full"));
                Err(BrokerUrlError::NotBuilt(engine, feature))
            }
        }
    }
}

impl fmt::Display for BrokerUrl {
    /// The address, without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokerUrl::Memory => f.write_str("memory:"),
            BrokerUrl::Mesh(seeds) => write!(f, "mesh://{}", seeds.join(",")),
            BrokerUrl::Redis(address) => address.fmt(f),
            BrokerUrl::RedisCluster(address) | BrokerUrl::RedisSentinel(address) => address.fmt(f),
            #[cfg(feature = "rabbitmq")]
            BrokerUrl::RabbitMq(address) => address.fmt(f),
            #[cfg(feature = "nats")]
            BrokerUrl::Nats(address) => address.fmt(f),
            #[cfg(feature = "rocketmq")]
            BrokerUrl::RocketMq(address) => address.fmt(f),
            #[cfg(feature = "hazelcast")]
            BrokerUrl::Hazelcast(address) => address.fmt(f),
            #[cfg(feature = "kafka")]
            BrokerUrl::Kafka(address) => address.fmt(f),
        }
    }
}

/// A broker that carries.
pub struct Started {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The same, where nodes link each other.
    pub mesh: Option<Arc<MeshBroker>>,
    /// Where it listens for other nodes, if it does.
    pub peers: Option<SocketAddr>,
}

impl Started {
    /// By a server in the middle.
    fn server(broker: impl Broker) -> Self {
        Started { broker: Arc::new(broker), mesh: None, peers: None }
    }
}

impl BrokerUrl {
    /// What is taken, as it stands behind "takes" in an error.
    pub const TAKES: &'static str = "the address of a broker";

    /// The broker as it is shown: its scheme and nothing secret.
    pub fn name(&self) -> &'static str {
        match self {
            BrokerUrl::Memory => "memory:",
            BrokerUrl::Mesh(_) => "mesh:",
            BrokerUrl::Redis(_) => "redis:",
            BrokerUrl::RedisCluster(_) => "redis+cluster:",
            BrokerUrl::RedisSentinel(_) => "redis+sentinel:",
            #[cfg(feature = "rabbitmq")]
            BrokerUrl::RabbitMq(_) => "amqp:",
            #[cfg(feature = "nats")]
            BrokerUrl::Nats(_) => "nats:",
            #[cfg(feature = "rocketmq")]
            BrokerUrl::RocketMq(_) => "rocketmq:",
            #[cfg(feature = "hazelcast")]
            BrokerUrl::Hazelcast(_) => "hazelcast:",
            #[cfg(feature = "kafka")]
            BrokerUrl::Kafka(_) => "kafka:",
        }
    }

    /// Starts the broker of a node; none for a node that is alone.
    ///
    /// # Errors
    /// When the settings are not enough for it, an address cannot be bound, or a server cannot be used, at the latest after
    /// some seconds.
    pub async fn start(
        &self,
        settings: &Server,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Option<Started>, BrokerStartError> {
        let cluster = &settings.cluster;
        Ok(Some(match self {
            BrokerUrl::Memory => return Ok(None),
            BrokerUrl::Mesh(seeds) => mesh(settings, seeds, node, inbound)?,
            BrokerUrl::Redis(address) => {
                let settings = RedisSettings::new(cluster, address.clone());
                Started::server(RedisBroker::start(settings, node, inbound).await?)
            }
            BrokerUrl::RedisCluster(address) => {
                let settings = RedisSettings::new(cluster, address.clone());
                Started::server(RedisClusterBroker::start(settings, node, inbound).await?)
            }
            BrokerUrl::RedisSentinel(address) => {
                let settings = RedisSettings::new(cluster, address.clone());
                Started::server(RedisSentinelBroker::start(settings, node, inbound).await?)
            }
            #[cfg(feature = "rabbitmq")]
            BrokerUrl::RabbitMq(address) => {
                let settings = RabbitMqSettings::new(cluster, address.clone());
                Started::server(RabbitMqBroker::start(settings, node, inbound).await?)
            }
            #[cfg(feature = "nats")]
            BrokerUrl::Nats(address) => {
                let settings = NatsSettings::new(cluster, address.clone());
                Started::server(NatsBroker::start(settings, node, inbound).await?)
            }
            #[cfg(feature = "rocketmq")]
            BrokerUrl::RocketMq(address) => {
                let settings = RocketMqSettings::new(cluster, address.clone());
                Started::server(RocketMqBroker::start(settings, node, inbound).await?)
            }
            #[cfg(feature = "hazelcast")]
            BrokerUrl::Hazelcast(address) => {
                let settings = HazelcastSettings::new(cluster, address.clone());
                Started::server(HazelcastBroker::start(settings, node, inbound).await?)
            }
            #[cfg(feature = "kafka")]
            BrokerUrl::Kafka(address) => {
                let settings = KafkaSettings::new(cluster, address.clone());
                Started::server(KafkaBroker::start(settings, node, inbound).await?)
            }
        }))
    }
}

fn mesh(
    settings: &Server,
    seeds: &[String],
    node: &NodeId,
    inbound: Arc<dyn Inbound>,
) -> Result<Started, BrokerStartError> {
    let listen = settings.peer_listen.ok_or(BrokerStartError::NoPeerAddress)?;
    let secret = settings.cluster_secret.as_ref().map(|secret| Secret::new(&secret.0)).transpose()?;
    let settings = MeshSettings {
        seeds: seeds.to_vec(),
        advertise: settings.peer_advertise.clone(),
        secret,
        ..MeshSettings::new(&settings.cluster, listen)
    };
    let (mesh, bound) = MeshBroker::start(settings, node.clone(), inbound)?;
    let mesh = Arc::new(mesh);
    Ok(Started { broker: Arc::clone(&mesh) as Arc<dyn Broker>, mesh: Some(mesh), peers: Some(bound) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_broker_and_show_no_password() {
        for (text, name, shown) in [
            ("memory:", "memory:", "memory:"),
            ("mesh://a:1,b:2", "mesh:", "mesh://a:1,b:2"),
            ("redis://:hush@h:1/2", "redis:", "redis://default:***@h:1/2"),
            ("rediss+cluster://:hush@h:1,i", "redis+cluster:", "rediss+cluster://default:***@h:1,i:6379"),
            ("redis+sentinel://h/m", "redis+sentinel:", "redis+sentinel://h:26379/m"),
            #[cfg(feature = "nats")]
            ("tls://u:hush@h,i:1", "nats:", "tls://u:***@h:4222,i:1"),
            #[cfg(feature = "rocketmq")]
            ("rocketmq://k:hush@h,i:1", "rocketmq:", "rocketmq://k:***@h:9876,i:1"),
            #[cfg(feature = "hazelcast")]
            ("hazelcast://u:hush@h,i:1", "hazelcast:", "hazelcast://u:***@h:5701,i:1"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.name(), url.to_string().as_str()), (name, shown));
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_a_password() {
        for text in ["", "redis", "ampq://u:hush@h", "memory:hush", "mesh://hush", "redis://:hush@h:port"] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(!error.contains("u:hush") && !error.contains(":hush@"), "{text}: {error}");
        }
        let amqp = "amqp://u:hush@h/v".parse::<BrokerUrl>().map(|url| url.to_string());
        if cfg!(feature = "rabbitmq") {
            assert_eq!(amqp.unwrap(), "amqp://u:***@h:5672/v");
        } else {
            assert!(amqp.unwrap_err().to_string().contains("--features rabbitmq"));
        }
        let unknown = "ampq://h".parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(SCHEMES.iter().all(|scheme| unknown.contains(scheme.example)), "{unknown}");
    }
}
