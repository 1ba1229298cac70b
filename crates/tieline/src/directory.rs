//! [`DirectoryUrl`]: which directory says where users are, and how a node has it. Tested here, and with real processes in
//! `tests/cluster/directories.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "hazelcast")]
use tieline_backends::{HazelcastAddress, HazelcastDirectorySettings, HazelcastError};
use tieline_backends::{RedisAddress, RedisDirectorySettings, RedisError, TableDirectory};
use tieline_core::directory::Choice;
use tieline_core::ring::RingHash;
use tieline_proto::Incarnation;

/// What says where users are.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DirectoryUrl {
    /// `replicated`: every node knows all users.
    #[default]
    Replicated,
    /// `redis://host`, or `rediss://host` for TLS: a table on a Redis server.
    Redis(RedisAddress),
    /// `hazelcast://host,…`: a map of a Hazelcast cluster.
    #[cfg(feature = "hazelcast")]
    Hazelcast(HazelcastAddress),
    /// `ring`, or `ring:md5` and the like: users are where the ring says, and nodes tell of those who are not.
    Ring(RingHash),
}

/// Text that names no directory. It is not repeated: addresses of servers have passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryUrlError {
    /// Nothing that is known.
    #[error("known are {}", DirectoryUrl::KNOWN)]
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

/// Why a directory is not opened.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryOpenError {
    /// The Redis server.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The Hazelcast cluster.
    #[cfg(feature = "hazelcast")]
    #[error(transparent)]
    Hazelcast(#[from] HazelcastError),
}

impl FromStr for DirectoryUrl {
    type Err = DirectoryUrlError;

    fn from_str(text: &str) -> Result<Self, DirectoryUrlError> {
        let unknown = |_| DirectoryUrlError::Unknown;
        match text.split_once(':') {
            None if text == "replicated" => Ok(DirectoryUrl::Replicated),
            None if text == "ring" => Ok(DirectoryUrl::Ring(RingHash::default())),
            Some(("ring", hash)) => Ok(DirectoryUrl::Ring(hash.parse().map_err(unknown)?)),
            Some(("redis" | "rediss", _)) => RedisAddress::parse(text)
                .map(DirectoryUrl::Redis)
                .map_err(|error| DirectoryUrlError::Server(error.to_string())),
            #[cfg(feature = "hazelcast")]
            Some(("hazelcast", _)) => HazelcastAddress::parse(text)
                .map(DirectoryUrl::Hazelcast)
                .map_err(|error| DirectoryUrlError::Server(error.to_string())),
            #[cfg(not(feature = "hazelcast"))]
            Some(("hazelcast", _)) => Err(DirectoryUrlError::NotBuilt("Hazelcast", "hazelcast")),
            _ => Err(DirectoryUrlError::Unknown),
        }
    }
}

impl fmt::Display for DirectoryUrl {
    /// The address, without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirectoryUrl::Replicated => f.write_str("replicated"),
            DirectoryUrl::Redis(address) => address.fmt(f),
            #[cfg(feature = "hazelcast")]
            DirectoryUrl::Hazelcast(address) => address.fmt(f),
            DirectoryUrl::Ring(hash) if *hash == RingHash::default() => f.write_str("ring"),
            DirectoryUrl::Ring(hash) => write!(f, "ring:{hash}"),
        }
    }
}

impl DirectoryUrl {
    const KNOWN: &'static str = "`replicated`, `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, with TLS `rediss://…`, where it is built in `hazelcast://[USER:PASSWORD@]HOST[:PORT],…[?cluster=NAME]`, and `ring`, for gateways with another hash `ring:md5` or `ring:fnv`";

    /// What is taken, as it stands behind "takes" in an error.
    pub const TAKES: &'static str = "the name of a directory; known are `replicated`, `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, with TLS `rediss://…`, where it is built in `hazelcast://[USER:PASSWORD@]HOST[:PORT],…[?cluster=NAME]`, and `ring`, for gateways with another hash `ring:md5` or `ring:fnv`";

    /// Opens the directory of a node, and gives what serves it, to be closed when the node has left the cluster.
    ///
    /// # Errors
    /// With the server and the reason, when it cannot be used, at the latest after some seconds.
    pub async fn open(
        &self,
        cluster: &str,
        me: Incarnation,
    ) -> Result<(Choice, Option<TableDirectory>), DirectoryOpenError> {
        let table = match self {
            DirectoryUrl::Replicated => return Ok((Choice::Replicated, None)),
            DirectoryUrl::Ring(hash) => return Ok((Choice::Ringed(*hash), None)),
            DirectoryUrl::Redis(address) => {
                RedisDirectorySettings::new(address.clone(), cluster).open(me).await?
            }
            #[cfg(feature = "hazelcast")]
            DirectoryUrl::Hazelcast(address) => {
                HazelcastDirectorySettings::new(address.clone(), cluster).open(me).await?
            }
        };
        Ok((Choice::Asked(Arc::clone(table.asked())), Some(table)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_without_passwords() {
        for (text, shown) in [
            ("replicated", "replicated"),
            ("ring", "ring"),
            ("ring:tieline", "ring"),
            ("ring:md5", "ring:md5"),
            ("redis://:hush@h:1/2", "redis://default:***@h:1/2"),
            ("rediss://h", "rediss://h:6379"),
            #[cfg(feature = "hazelcast")]
            ("hazelcast://u:hush@h,i:1?cluster=c", "hazelcast://u:***@h:5701,i:1?cluster=c"),
        ] {
            let url: DirectoryUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("hush"));
        }
        for text in ["", "replicate", "ring:", "ring:sha", "nats://h", "hazelcast", "redis", "redis://:hush@"]
        {
            let error = text.parse::<DirectoryUrl>().unwrap_err().to_string();
            assert!(error.contains("redis://") && !error.contains("hush"), "{text}: {error}");
        }
        let error = "hazelcast://u:hush@".parse::<DirectoryUrl>().unwrap_err().to_string();
        let wanted = if cfg!(feature = "hazelcast") { "hazelcast://[USER" } else { "--features hazelcast" };
        assert!(error.contains(wanted) && !error.contains("hush"), "{error}");
    }
}
