//! [`RegistryUrl`]: which registry is meant, and how it is opened, by a node or by whoever only looks. Tested here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "nacos")]
use tieline_backends::{NacosAddress, NacosError, NacosRegistry, NacosSettings};
use tieline_backends::{RedisAddress, RedisError, RedisRegistry, RedisRegistrySettings};
#[cfg(feature = "zookeeper")]
use tieline_backends::{ZooKeeperAddress, ZooKeeperError, ZooKeeperRegistry, ZooKeeperSettings};
use tieline_core::registry::{Fixed, FixedError, Registry};
use tieline_proto::{NodeId, NodeName};

/// The address of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RegistryUrl {
    /// `heartbeat`: the beats that nodes say over their broker.
    #[default]
    Heartbeat,
    /// `static://…`: a list that somebody has written down.
    Static(Fixed),
    /// `redis://host`, or `rediss://host` for TLS.
    Redis(RedisAddress),
    /// `zookeeper://host,host/path`.
    #[cfg(feature = "zookeeper")]
    ZooKeeper(ZooKeeperAddress),
    /// `nacos://user:password@host/namespace?group=&service=`.
    #[cfg(feature = "nacos")]
    Nacos(NacosAddress),
}

/// Text that is no address of a registry. It is not repeated: addresses of servers have passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryUrlError {
    /// Nothing that is known.
    #[error("known are {KNOWN}")]
    Unknown,
    /// A list with a mistake in it.
    #[error(transparent)]
    Static(#[from] FixedError),
    /// An address of a server with a mistake in it, in the engine's words.
    #[error("{0}")]
    Server(String),
    /// An engine that is known, but not in this program.
    #[error(
        "{0} is not built into this program: build it with `cargo build --release -p tieline --features {1}`"
    )]
    NotBuilt(&'static str, &'static str),
}

/// What there is.
const KNOWN: &str = "`heartbeat`, `static://NAME=ws://HOST:PORT,…`, `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, with TLS `rediss://…`, `zookeeper://HOST,…[/PATH]` and `nacos://[USER:PASSWORD@]HOST[:PORT][/NAMESPACE]`";

/// Why a registry is not opened.
#[derive(Debug, thiserror::Error)]
pub enum RegistryOpenError {
    /// The Redis server.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The ZooKeeper ensemble.
    #[cfg(feature = "zookeeper")]
    #[error(transparent)]
    ZooKeeper(#[from] ZooKeeperError),
    /// The Nacos server.
    #[cfg(feature = "nacos")]
    #[error(transparent)]
    Nacos(#[from] NacosError),
}

impl FromStr for RegistryUrl {
    type Err = RegistryUrlError;

    fn from_str(text: &str) -> Result<Self, RegistryUrlError> {
        match text.split(':').next().unwrap_or_default() {
            "heartbeat" if matches!(text, "heartbeat" | "heartbeat:") => Ok(RegistryUrl::Heartbeat),
            "static" => Ok(RegistryUrl::Static(Fixed::parse(text)?)),
            "redis" | "rediss" => RedisAddress::parse(text)
                .map(RegistryUrl::Redis)
                .map_err(|error| RegistryUrlError::Server(error.to_string())),
            #[cfg(feature = "zookeeper")]
            "zookeeper" => ZooKeeperAddress::parse(text)
                .map(RegistryUrl::ZooKeeper)
                .map_err(|error| RegistryUrlError::Server(error.to_string())),
            #[cfg(not(feature = "zookeeper"))]
            "zookeeper" => Err(RegistryUrlError::NotBuilt("ZooKeeper", "zookeeper")),
            #[cfg(feature = "nacos")]
            "nacos" => NacosAddress::parse(text)
                .map(RegistryUrl::Nacos)
                .map_err(|error| RegistryUrlError::Server(error.to_string())),
            #[cfg(not(feature = "nacos"))]
            "nacos" => Err(RegistryUrlError::NotBuilt("Nacos", "nacos")),
            _ => Err(RegistryUrlError::Unknown),
        }
    }
}

impl fmt::Display for RegistryUrl {
    /// The address, without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryUrl::Heartbeat => f.write_str("heartbeat"),
            RegistryUrl::Static(list) => list.fmt(f),
            RegistryUrl::Redis(address) => address.fmt(f),
            #[cfg(feature = "zookeeper")]
            RegistryUrl::ZooKeeper(address) => address.fmt(f),
            #[cfg(feature = "nacos")]
            RegistryUrl::Nacos(address) => address.fmt(f),
        }
    }
}

impl RegistryUrl {
    /// What is taken, as it stands behind "takes" in an error.
    #[cfg(all(feature = "zookeeper", feature = "nacos"))]
    pub const TAKES: &'static str = "the address of a registry; known are `heartbeat`, `static://NAME=ws://HOST:PORT[;weight=N][;capacity=N][;peer=HOST:PORT],…`, `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, with TLS `rediss://…`, `zookeeper://[USER:PASSWORD@]HOST[:PORT],…[/PATH]` and `nacos://[USER:PASSWORD@]HOST[:PORT][/NAMESPACE][?group=GROUP&service=SERVICE]`";
    /// What is taken, as it stands behind "takes" in an error.
    #[cfg(not(all(feature = "zookeeper", feature = "nacos")))]
    pub const TAKES: &'static str = "the address of a registry; known are `heartbeat`, `static://NAME=ws://HOST:PORT[;weight=N][;capacity=N][;peer=HOST:PORT],…` and `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, with TLS `rediss://…`; `zookeeper://…` and `nacos://…` where they are built in: `cargo build --release -p tieline --features zookeeper,nacos`";

    /// The registry as it is shown: its scheme and nothing secret.
    pub fn name(&self) -> &'static str {
        match self {
            RegistryUrl::Heartbeat => "heartbeat",
            RegistryUrl::Static(_) => "static:",
            RegistryUrl::Redis(_) => "redis:",
            #[cfg(feature = "zookeeper")]
            RegistryUrl::ZooKeeper(_) => "zookeeper:",
            #[cfg(feature = "nacos")]
            RegistryUrl::Nacos(_) => "nacos:",
        }
    }

    /// What a list says that a node weighs: its own word has no part in it, for whoever has the list knows nothing else.
    pub fn weight(&self, node: &NodeName) -> Option<u32> {
        let RegistryUrl::Static(list) = self else { return None };
        let member = list.members().iter().find(|member| member.id.name == *node)?;
        Some(member.registration.weight)
    }

    /// The server that others can read what nodes declare at, where there is one, and whether it can only be reached on this
    /// machine.
    pub fn server(&self) -> Option<(String, bool)> {
        match self {
            RegistryUrl::Heartbeat | RegistryUrl::Static(_) => None,
            RegistryUrl::Redis(address) => Some((address.to_string(), address.is_loopback())),
            #[cfg(feature = "zookeeper")]
            RegistryUrl::ZooKeeper(address) => Some((address.to_string(), address.is_loopback())),
            #[cfg(feature = "nacos")]
            RegistryUrl::Nacos(address) => Some((address.to_string(), address.is_loopback())),
        }
    }

    /// Opens the registry of a cluster, for a node or for whoever only looks. None for the beats, which are heard by members of
    /// a broker alone.
    ///
    /// # Errors
    /// With the server and the reason, when it cannot be used, at the latest after some seconds.
    pub async fn open(
        &self,
        cluster: &str,
        me: Option<&NodeId>,
    ) -> Result<Option<Arc<dyn Registry>>, RegistryOpenError> {
        Ok(match self {
            RegistryUrl::Heartbeat => None,
            RegistryUrl::Static(list) => Some(Arc::new(match me {
                Some(me) => list.seen_by(&me.name),
                None => list.clone(),
            })),
            RegistryUrl::Redis(address) => {
                let settings = RedisRegistrySettings::new(address.clone(), cluster, me.cloned());
                Some(Arc::new(RedisRegistry::open(settings).await?))
            }
            #[cfg(feature = "zookeeper")]
            RegistryUrl::ZooKeeper(address) => {
                let settings = ZooKeeperSettings::new(cluster, address.clone());
                Some(Arc::new(ZooKeeperRegistry::start(settings, me.cloned()).await?))
            }
            #[cfg(feature = "nacos")]
            RegistryUrl::Nacos(address) => {
                let settings = NacosSettings::new(cluster, address.clone());
                Some(Arc::new(NacosRegistry::start(settings, me.cloned()).await?))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_registry_and_show_no_password() {
        for (text, name, shown) in [
            ("heartbeat", "heartbeat", "heartbeat"),
            ("heartbeat:", "heartbeat", "heartbeat"),
            ("static://a=ws://a:1;weight=2", "static:", "static://a=ws://a:1;weight=2"),
            ("redis://:hush@h:1/2", "redis:", "redis://default:***@h:1/2"),
            ("rediss://h", "redis:", "rediss://h:6379"),
            #[cfg(feature = "zookeeper")]
            ("zookeeper://u:hush@h/p", "zookeeper:", "zookeeper://***@h:2181/p"),
            #[cfg(feature = "nacos")]
            ("nacos://u:hush@h", "nacos:", "nacos://***@h:8848/public?group=DEFAULT_GROUP&service=tieline"),
        ] {
            let url: RegistryUrl = text.parse().unwrap();
            assert_eq!((url.name(), url.to_string().as_str()), (name, shown));
            assert!(!format!("{url:?}").contains("hush"));
        }
    }

    #[test]
    fn what_is_not_known_is_told_what_is() {
        for text in ["", "heartbeats", "heartbeat://x", "etcd://h", "REDIS://h", "redis"] {
            let error = text.parse::<RegistryUrl>().unwrap_err().to_string();
            assert!(error.contains("redis://"), "{text}: {error}");
        }
        for (text, scheme) in [("zookeeper://a:hush", "zookeeper"), ("nacos://a:hush", "nacos")] {
            let error = text.parse::<RegistryUrl>().unwrap_err().to_string();
            // With the engine it is a wrong port, without it the way to get it.
            assert!(
                error.contains(&format!("{scheme}://")) || error.contains(&format!("--features {scheme}"))
            );
            assert!(!error.contains("hush"), "{error}");
        }
        let list: RegistryUrl = "static://a=ws://a:1;weight=2,b=ws://b:1".parse().unwrap();
        let weights = ["a", "b", "c"].map(|name| list.weight(&NodeName::new(name).unwrap()));
        assert_eq!(weights, [Some(2), Some(1), None]);
        let error = "static://a=ws://a;weight=0".parse::<RegistryUrl>().unwrap_err().to_string();
        assert!(error.contains("weight"), "{error}");
    }
}
