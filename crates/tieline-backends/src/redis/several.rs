//! Addresses of several servers: the nodes of a Redis Cluster, or the sentinels that know where a master is. Tested here by tables of
//! good and bad URLs.

use std::fmt;

use super::RedisError;
use super::settings::{Login, PORT, RedisAddress};
use crate::hosts::{self, Host, decoded};

/// The port of a sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26379;

/// What the servers of an address are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nodes of a cluster.
    Cluster,
    /// Sentinels.
    Sentinels {
        /// What they call the master.
        master: String,
        /// Whom to authenticate as with them.
        login: Option<Login>,
    },
}

/// Where a Redis Cluster is, or a master with sentinels. It never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSeveralAddress {
    /// Whether TLS is spoken, with sentinels too.
    pub(super) tls: bool,
    /// Whom to authenticate as with the servers that carry.
    pub(super) login: Option<Login>,
    /// At least one.
    pub(super) hosts: Vec<Host>,
    pub(super) kind: Kind,
}

impl RedisSeveralAddress {
    /// Reads `redis+cluster://[[USER]:PASSWORD@]HOST[:PORT][,HOST…]` or `redis+sentinel://…/MASTER`, with `rediss+…` for TLS. In user and
    /// password everything but letters, digits and `-._~` is written as `%` and two hexadecimal digits. Sentinels may have a user and a
    /// password of their own, behind a comma: `redis+sentinel://[USER]:PASSWORD,[USER]:PASSWORD@…`.
    ///
    /// # Errors
    /// [`RedisError::Url`], which repeats nothing of what was written: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, RedisError> {
        let bad = RedisError::Url;
        let (scheme, rest) =
            url.split_once("://").ok_or(bad("it begins with `redis+cluster://` or `redis+sentinel://`"))?;
        let (tls, is_cluster) = match scheme {
            "redis+cluster" => (false, true),
            "rediss+cluster" => (true, true),
            "redis+sentinel" => (false, false),
            "rediss+sentinel" => (true, false),
            _ => return Err(bad("it begins with `redis+cluster://` or `redis+sentinel://`")),
        };
        let parts = hosts::parts(rest, if is_cluster { PORT } else { SENTINEL_PORT }).map_err(bad)?;
        let (login, asker) = match parts.login.and_then(|logins| logins.split_once(',')) {
            Some((login, asker)) if !is_cluster => {
                (Some(login).filter(|login| !login.is_empty()), Some(asker))
            }
            _ => (parts.login, None),
        };
        let (login, asker) = (login.map(Login::parse).transpose()?, asker.map(Login::parse).transpose()?);
        if !parts.query.is_empty() {
            return Err(bad("there are no parameters behind `?`"));
        }
        let kind = match (is_cluster, decoded(parts.path).map_err(bad)?) {
            (true, path) if path.is_empty() => Kind::Cluster,
            (true, _) => return Err(bad("a cluster has no databases")),
            (false, master) if !master.is_empty() && !master.contains('/') => {
                Kind::Sentinels { master, login: asker }
            }
            (false, _) => return Err(bad("behind the sentinels comes what they call the master: `/MASTER`")),
        };
        Ok(RedisSeveralAddress { tls, login, hosts: parts.hosts, kind })
    }

    /// Whether all of them are reached on this machine alone.
    pub fn is_loopback(&self) -> bool {
        self.hosts.iter().all(Host::is_loopback)
    }

    /// As they are named in errors.
    pub(super) fn server(&self) -> String {
        hosts::listed(&self.hosts)
    }

    /// One of the servers that carry.
    pub(super) fn of(&self, host: &Host) -> RedisAddress {
        let Host { name, port } = host.clone();
        RedisAddress { tls: self.tls, host: name, port, login: self.login.clone(), database: 0 }
    }
}

impl fmt::Display for RedisSeveralAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(if self.kind == Kind::Cluster { "+cluster://" } else { "+sentinel://" })?;
        let asker = match &self.kind {
            Kind::Cluster => None,
            Kind::Sentinels { login, .. } => login.as_ref(),
        };
        match (&self.login, asker) {
            (None, None) => {}
            (Some(login), None) => write!(f, "{login}@")?,
            (None, Some(asker)) => write!(f, ",{asker}@")?,
            (Some(login), Some(asker)) => write!(f, "{login},{asker}@")?,
        }
        f.write_str(&self.server())?;
        match &self.kind {
            Kind::Cluster => Ok(()),
            Kind::Sentinels { master, .. } => write!(f, "/{master}"),
        }
    }
}

impl fmt::Debug for RedisSeveralAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_nodes_or_sentinels() {
        for (url, shown) in [
            ("redis+cluster://a,b:1", "redis+cluster://a:6379,b:1"),
            ("rediss+cluster://:hush@[::1]/", "rediss+cluster://default:***@[::1]:6379"),
            ("redis+sentinel://a,b:1/m", "redis+sentinel://a:26379,b:1/m"),
            (
                "rediss+sentinel://us%2Fer:hush@a/my%2Dmaster",
                "rediss+sentinel://us%2Fer:***@a:26379/my-master",
            ),
            ("redis+sentinel://:hush,s:hush@a/m", "redis+sentinel://default:***,s:***@a:26379/m"),
            ("redis+sentinel://,:hu%2Csh@a/m", "redis+sentinel://,default:***@a:26379/m"),
        ] {
            let address = RedisSeveralAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        for url in [
            "",
            "redis://a",
            "redis+cluster",
            "redis+cluster://",
            "redis+cluster://a/1",
            "redis+cluster://a?x=hush",
            "redis+cluster://hush@a",
            "redis+cluster://:hush@a:port",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a/b/c",
            "redis+sentinel://:hu#sh@a/m",
            "redis+sentinel://:hush,@a/m",
            "redis+sentinel://:hush,hush@a/m",
            "redis+sentinel://hush,:hush@a/m",
        ] {
            let error = RedisSeveralAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
