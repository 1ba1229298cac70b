//! What a RocketMQ broker is told at its start: the settings, and the name servers' addresses as a URL names them.
//! Not how they are spelled in a configuration file: that is the binary's.
//!
//! Tested here by tables of good and bad URLs.

use std::fmt;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::RocketMqError;
use crate::hosts::{self, Host, Parts, decoded};
use crate::medium::Pace;

/// The port of a name server whose URL names none.
const PORT: u16 = 9876;

/// The bound that pauses grow to before connecting again. Short, because an attempt on a broker that is not there costs next to
/// nothing, and its clients come back one after the other.
const RETRY_MAX: Duration = Duration::from_millis(200);

/// Where the name servers are, and as whom requests are signed. It never shows its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct RocketMqAddress {
    /// In the order of the URL.
    pub(super) servers: Vec<Host>,
    /// Whom requests are signed as.
    pub(super) login: Option<Login>,
}

/// An access key, which is a user's name, and the secret that goes with it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) key: String,
    pub(super) secret: String,
}

impl RocketMqAddress {
    /// Reads `rocketmq://[ACCESSKEY:SECRETKEY@]HOST[:PORT][,HOST[:PORT]…]`. In the keys everything but letters, digits and
    /// `-._~` is written as `%` and two hexadecimal digits.
    ///
    /// # Errors
    /// [`RocketMqError::Url`], which repeats nothing of what was written: there may be a secret in it.
    pub fn parse(url: &str) -> Result<Self, RocketMqError> {
        let bad = RocketMqError::Url;
        let rest = url.strip_prefix("rocketmq://").ok_or(bad("it begins with `rocketmq://`"))?;
        let Parts { login, hosts, path, query } = hosts::parts(rest, PORT).map_err(bad)?;
        if !path.is_empty() || !query.is_empty() {
            return Err(bad("nothing comes behind the name servers"));
        }
        let login = login.map(Login::parse).transpose()?;
        Ok(RocketMqAddress { servers: hosts, login })
    }

    /// Whether all name servers are on this machine, and can be reached from it alone.
    pub fn is_loopback(&self) -> bool {
        self.servers.iter().all(Host::is_loopback)
    }

    /// The name servers, as they are named in errors.
    pub(super) fn server(&self) -> String {
        hosts::listed(&self.servers)
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, RocketMqError> {
        let bad = RocketMqError::Url;
        let (key, secret) = text.split_once(':').ok_or(bad("an access key needs a secret key"))?;
        let login = Login { key: decoded(key).map_err(bad)?, secret: decoded(secret).map_err(bad)? };
        if login.key.is_empty() || login.secret.is_empty() {
            return Err(bad("access key and secret key are not empty"));
        }
        Ok(login)
    }
}

impl fmt::Display for RocketMqAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rocketmq://")?;
        if let Some(login) = &self.login {
            write!(f, "{}:***@", utf8_percent_encode(&login.key, NON_ALPHANUMERIC))?;
        }
        f.write_str(&self.server())
    }
}

impl fmt::Debug for RocketMqAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a node uses a RocketMQ cluster as its broker.
#[derive(Clone, Debug)]
pub struct RocketMqSettings {
    /// The cluster's name, which is in the name of its topic.
    pub cluster: String,
    /// Where the name servers are.
    pub address: RocketMqAddress,
    /// How patient the node is with the server.
    pub pace: Pace,
}

impl RocketMqSettings {
    /// The defaults.
    pub fn new(cluster: &str, address: RocketMqAddress) -> Self {
        let pace = Pace { retry_max: RETRY_MAX, ..Pace::default() };
        RocketMqSettings { cluster: cluster.to_owned(), address, pace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers_and_keys() {
        let cases = [
            ("rocketmq://a", vec!["a:9876"], None, "rocketmq://a:9876"),
            (
                "rocketmq://a:1,b,10.0.0.1:2/",
                vec!["a:1", "b:9876", "10.0.0.1:2"],
                None,
                "rocketmq://a:1,b:9876,10.0.0.1:2",
            ),
            (
                "rocketmq://[::1]:7,[fe80::1]",
                vec!["[::1]:7", "[fe80::1]:9876"],
                None,
                "rocketmq://[::1]:7,[fe80::1]:9876",
            ),
            ("rocketmq://k:hush@a", vec!["a:9876"], Some(("k", "hush")), "rocketmq://k:***@a:9876"),
            (
                "rocketmq://k%2F:p%40s:%23,@a",
                vec!["a:9876"],
                Some(("k/", "p@s:#,")),
                "rocketmq://k%2F:***@a:9876",
            ),
        ];
        for (url, servers, login, shown) in cases {
            let address = RocketMqAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let login =
                login.map(|(key, secret): (&str, &str)| Login { key: key.into(), secret: secret.into() });
            assert!(address.server() == servers.join(",") && address.login == login, "{url} gave {address}");
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for (url, is_loopback) in
            [("rocketmq://localhost,[::1]:1,127.1.2.3", true), ("rocketmq://localhost,a", false)]
        {
            assert_eq!(RocketMqAddress::parse(url).unwrap().is_loopback(), is_loopback, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        for url in [
            "",
            "rocketmq",
            "rocketmq:a",
            "rocketmq://",
            "redis://k:hush@a",
            "rocketmq:///hush",
            "rocketmq://k:hush@",
            "rocketmq://k:hush@a,",
            "rocketmq://a:",
            "rocketmq://a:0",
            "rocketmq://a:+1",
            "rocketmq://k:hush@a:65536",
            "rocketmq://k:hush@a:port",
            "rocketmq://k:hush@a/topic",
            "rocketmq://k:hush@a?x",
            "rocketmq://hush@a",
            "rocketmq://:hush@a",
            "rocketmq://k:@a",
            "rocketmq://k:hu#sh@a",
            "rocketmq://k:hush @a",
            "rocketmq://k:hush%ff@a",
            "rocketmq://[::1",
            "rocketmq://[x]:1",
            "rocketmq://::1",
        ] {
            let error = RocketMqAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
