//! Where the members are, and as whom they are spoken to, as a URL names it. Not how it is spelled in a configuration file: that
//! is the binary's. Tested here by tables of good and bad URLs.

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::HazelcastError;
use crate::hosts::{self, Host};

/// The port of a member whose URL names none.
const PORT: u16 = 5701;

/// The Hazelcast cluster where the URL names none: what members call it that were not told otherwise.
const CLUSTER: &str = "dev";

/// The most bytes of the Hazelcast cluster's name, user and password together: members read no more than 1,024 bytes of who has
/// not said yet who it is.
const MAX_LOGIN: usize = 600;

/// Where the members of a Hazelcast cluster are, and as whom they are spoken to. It never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct HazelcastAddress {
    /// At least one; they are tried in this order.
    pub(super) members: Vec<Host>,
    /// User and password.
    pub(super) login: Option<Login>,
    /// The name of the Hazelcast cluster, which members hold a client's word against.
    pub(super) cluster: String,
}

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl HazelcastAddress {
    /// Reads `hazelcast://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][?cluster=NAME]`. In user, password and name everything but
    /// letters, digits and `-._~` is written as `%` and two hexadecimal digits.
    ///
    /// # Errors
    /// [`HazelcastError::Url`], which repeats nothing of what was written: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, HazelcastError> {
        Self::read(url).map_err(HazelcastError::Url)
    }

    fn read(url: &str) -> Result<Self, &'static str> {
        let rest = url.strip_prefix("hazelcast://").ok_or("it begins with `hazelcast://`")?;
        let parts = hosts::parts(rest, PORT)?;
        if !parts.path.is_empty() {
            return Err("there is no path in it; `/` is written as `%2F`");
        }
        let login = parts.login.map(Login::read).transpose()?;
        let cluster = match parts.query[..] {
            [] => CLUSTER.to_owned(),
            [("cluster", name)] => hosts::decoded(name)?,
            _ => return Err("the one parameter behind `?` is `cluster`"),
        };
        let secrets = login.as_ref().map_or(0, |login| login.user.len() + login.password.len());
        if cluster.is_empty() || cluster.len() + secrets > MAX_LOGIN {
            return Err("cluster, user and password have at most 600 bytes, and the cluster at least one");
        }
        Ok(HazelcastAddress { members: parts.hosts, login, cluster })
    }

    /// Whether the members are reached on this machine alone.
    pub fn is_loopback(&self) -> bool {
        self.members.iter().all(Host::is_loopback)
    }
}

impl Login {
    fn read(text: &str) -> Result<Self, &'static str> {
        let (user, password) = text.split_once(':').ok_or("a user needs a password")?;
        Ok(Login { user: hosts::decoded(user)?, password: hosts::decoded(password)? })
    }
}

impl fmt::Display for HazelcastAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hazelcast://")?;
        if let Some(login) = &self.login {
            write!(f, "{}:***@", utf8_percent_encode(&login.user, NON_ALPHANUMERIC))?;
        }
        f.write_str(&hosts::listed(&self.members))?;
        if self.cluster != CLUSTER {
            write!(f, "?cluster={}", utf8_percent_encode(&self.cluster, NON_ALPHANUMERIC))?;
        }
        Ok(())
    }
}

impl fmt::Debug for HazelcastAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_members_user_and_cluster() {
        let login = |user: &str, password: &str| Some(Login { user: user.into(), password: password.into() });
        let cases = [
            ("hazelcast://a", ("a:5701", None, "dev"), "hazelcast://a:5701"),
            ("hazelcast://a:1/", ("a:1", None, "dev"), "hazelcast://a:1"),
            (
                "hazelcast://a,b:2,[::1]:3",
                ("a:5701,b:2,[::1]:3", None, "dev"),
                "hazelcast://a:5701,b:2,[::1]:3",
            ),
            ("hazelcast://[::1]?cluster=x", ("[::1]:5701", None, "x"), "hazelcast://[::1]:5701?cluster=x"),
            (
                "hazelcast://us%2Fer:p%40ss%3A%2F%23@a,b/?cluster=a%26b",
                ("a:5701,b:5701", login("us/er", "p@ss:/#"), "a&b"),
                "hazelcast://us%2Fer:***@a:5701,b:5701?cluster=a%26b",
            ),
            ("hazelcast://u:a:b@h", ("h:5701", login("u", "a:b"), "dev"), "hazelcast://u:***@h:5701"),
        ];
        for (url, (servers, login, cluster), shown) in cases {
            let address = HazelcastAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let found = (hosts::listed(&address.members), address.login.clone(), address.cluster.clone());
            assert!(found == (servers.to_owned(), login, cluster.to_owned()), "{url} gave {address}");
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn members_are_on_this_machine_only_if_all_are() {
        for (url, expected) in [
            ("hazelcast://localhost,127.0.0.1:1,[::1]", true),
            ("hazelcast://127.0.0.1,10.0.0.1", false),
            ("hazelcast://localhost.example", false),
        ] {
            assert_eq!(HazelcastAddress::parse(url).unwrap().is_loopback(), expected, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        let long = format!("hazelcast://u:hush{}@a", "x".repeat(600));
        let many = format!("hazelcast://u:hush@{}", ["a"; 65].join(","));
        for url in [
            "",
            "hazelcast",
            "hazelcast://",
            "hazelcast:///1",
            "redis://a:1",
            "hazelcast://u:hush@",
            "hazelcast://a:",
            "hazelcast://a:0",
            "hazelcast://a:65536",
            "hazelcast://a,,b",
            "hazelcast://a,",
            "hazelcast://[::1",
            "hazelcast://::1",
            "hazelcast://u:hush@a:port",
            "hazelcast://a/x",
            "hazelcast://a?cluster=",
            "hazelcast://a?name=hush",
            "hazelcast://a?cluster=a&b=hush",
            "hazelcast://hush@a",
            "hazelcast://u:hu#sh@a",
            "hazelcast://u:hu sh@a",
            "hazelcast://u:%ff@a",
            "hazelcast://u:hu/sh@a",
            &long,
            &many,
        ] {
            let error = HazelcastAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
