//! [`RedisStoreSettings`]: what a store on a Redis server is told at its start, and how a URL says it. Tested here.

use std::fmt;
use std::time::Duration;

use tieline_core::store::DEDUP_WINDOW;

use super::super::RedisError;
use super::super::settings::RedisAddress;

/// The most bytes of a prefix.
const MAX_PREFIX: usize = 64;

/// The longest wait for replicas: below what a request waits at all.
const MAX_WAIT_MS: u64 = 1500;

/// How a node uses a Redis server as its store. It never shows its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStoreSettings {
    /// Where the server is.
    pub address: RedisAddress,
    /// What the names of all keys begin with, before a colon: 1 to 64 letters, digits or `_.-`.
    pub prefix: String,
    /// Whether a server is taken whose settings lose acknowledged messages, or do not let themselves be read.
    pub force: bool,
    /// Whether `appendfsync everysec` is enough: then a death of the server may lose what was acknowledged in its last
    /// two seconds.
    pub is_every_second_enough: bool,
    /// How many replicas must have a change before it is acknowledged.
    pub replicas: u32,
    /// How long they may take.
    pub replicas_within: Duration,
    /// How long an append is known again at least. Only tests have another one than [`DEDUP_WINDOW`].
    pub(super) window: Duration,
}

impl RedisStoreSettings {
    /// The defaults: prefix `tieline`, `appendfsync always`, no replicas.
    pub fn new(address: RedisAddress) -> Self {
        RedisStoreSettings {
            address,
            prefix: "tieline".to_owned(),
            force: false,
            is_every_second_enough: false,
            replicas: 0,
            replicas_within: Duration::from_secs(1),
            window: DEDUP_WINDOW,
        }
    }

    /// Reads an address as [`RedisAddress::parse`] does, and behind a `?` what differs from the defaults:
    /// `prefix=NAME`, `force=true`, `fsync=everysec`, `wait=REPLICAS`, `wait-ms=MILLISECONDS`, joined by `&`.
    ///
    /// # Errors
    /// [`RedisError::Url`], which repeats nothing of what was written.
    pub fn parse(url: &str) -> Result<Self, RedisError> {
        let bad = RedisError::Url;
        let (address, parameters) = url.split_once('?').map_or((url, None), |(url, rest)| (url, Some(rest)));
        let mut settings = RedisStoreSettings::new(RedisAddress::parse(address)?);
        let mut seen = Vec::new();
        for parameter in parameters.into_iter().flat_map(|parameters| parameters.split('&')) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if seen.contains(&name) {
                return Err(bad("a parameter behind `?` is there twice"));
            }
            seen.push(name);
            match name {
                "prefix" => {
                    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
                    if value.is_empty() || value.len() > MAX_PREFIX || !value.bytes().all(is_fit) {
                        return Err(bad("`prefix` is 1 to 64 letters, digits or `_.-`"));
                    }
                    value.clone_into(&mut settings.prefix);
                }
                "force" => {
                    settings.force = value.parse().map_err(|_| bad("`force` is `true` or `false`"))?;
                }
                "fsync" => {
                    settings.is_every_second_enough = match value {
                        "always" => false,
                        "everysec" => true,
                        _ => return Err(bad("`fsync` is `always` or `everysec`")),
                    };
                }
                "wait" => {
                    let number = value.parse().ok().filter(|number| *number <= 100);
                    settings.replicas = number.ok_or(bad("`wait` is a number of replicas from 0 to 100"))?;
                }
                "wait-ms" => {
                    let number = value.parse().ok().filter(|number| (1..=MAX_WAIT_MS).contains(number));
                    let number = number.ok_or(bad("`wait-ms` is a number from 1 to 1500"))?;
                    settings.replicas_within = Duration::from_millis(number);
                }
                _ => {
                    return Err(bad("behind `?` there may be prefix, force, fsync, wait and wait-ms"));
                }
            }
        }
        Ok(settings)
    }
}

impl fmt::Display for RedisStoreSettings {
    /// The server without its password, and whose keys are meant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}?prefix={}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_or_refused() {
        let default = RedisStoreSettings::new(RedisAddress::parse("redis://:hush@h").unwrap());
        let parse = |parameters: &str| RedisStoreSettings::parse(&format!("redis://:hush@h{parameters}"));
        assert_eq!(parse("").unwrap(), default);
        assert_eq!(default.to_string(), "redis://default:***@h:6379?prefix=tieline");
        assert!(!format!("{default:?}").contains("hush"));
        let all = parse("?prefix=a.b-c_1&force=true&fsync=everysec&wait=2&wait-ms=50").unwrap();
        assert_eq!(
            all,
            RedisStoreSettings {
                prefix: "a.b-c_1".to_owned(),
                force: true,
                is_every_second_enough: true,
                replicas: 2,
                replicas_within: Duration::from_millis(50),
                ..default
            }
        );
        for bad in [
            "?",
            "?prefix=",
            "?prefix=a:b",
            "?prefix={a}",
            "?force",
            "?force=yes",
            "?fsync=no",
            "?wait=-1",
            "?wait=101",
            "?wait-ms=0",
            "?wait-ms=1501",
            "?hush=1",
            "?force=true&force=true",
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
