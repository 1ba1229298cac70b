//! What a NATS broker is told at its start: the settings, and the servers' address as a URL names it.
//! Not how they are spelled in a configuration file: that is the binary's.
//!
//! Tested here by tables of good and bad URLs.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::NatsError;
use crate::hosts::{self, Host, Parts, decoded};
use crate::medium::Pace;

/// The port of a server whose URL names none.
const PORT: u16 = 4222;

/// Where the servers are, and as whom they are spoken to. It never shows its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsAddress {
    /// Whether TLS is insisted on. Otherwise it is spoken with servers that do.
    pub(super) tls: bool,
    /// The servers of one NATS cluster, at least one.
    pub(super) hosts: Vec<Host>,
    pub(super) login: Login,
}

/// As whom a server is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// The server asks nobody.
    Nobody,
    /// A user and the password.
    User { user: String, password: String },
    /// One secret for all.
    Token(String),
    /// The file of a user's seed, which signs. The server knows the public half.
    Seed(PathBuf),
    /// The file of a user's token and seed, which some account has given.
    Credentials(PathBuf),
}

impl NatsAddress {
    /// Reads `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST…][?creds=FILE|?nkey=FILE]`, or `tls://…` where TLS is insisted on. In
    /// user, password and token everything but letters, digits and `-._~` is written as `%` and two hexadecimal digits.
    ///
    /// # Errors
    /// [`NatsError::Url`], which repeats nothing of what was written: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, NatsError> {
        let (scheme, rest) =
            url.split_once("://").ok_or(NatsError::Url("it begins with `nats://` or `tls://`"))?;
        let tls = match scheme {
            "nats" => false,
            "tls" | "nats+tls" => true,
            _ => return Err(NatsError::Url("it begins with `nats://` or `tls://`")),
        };
        let Parts { login, hosts, path, query } = hosts::parts(rest, PORT).map_err(NatsError::Url)?;
        if !path.is_empty() {
            return Err(NatsError::Url("there is nothing behind the last `/`"));
        }
        let mut login = login.map(Login::parse).transpose()?;
        for (name, value) in query {
            let file = PathBuf::from(decoded(value).map_err(NatsError::Url)?);
            let proof = match name {
                "creds" => Login::Credentials(file),
                "nkey" => Login::Seed(file),
                _ => return Err(NatsError::Url("behind `?` are `creds=FILE` or `nkey=FILE`")),
            };
            if login.replace(proof).is_some() {
                return Err(NatsError::Url("it names more than one proof of who this is"));
            }
        }
        Ok(NatsAddress { tls, hosts, login: login.unwrap_or(Login::Nobody) })
    }

    /// Whether the servers are reached on this machine alone.
    pub fn is_loopback(&self) -> bool {
        self.hosts.iter().all(Host::is_loopback)
    }

    /// `host:port,…`, as they are named in errors.
    pub(super) fn server(&self) -> String {
        hosts::listed(&self.hosts)
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, NatsError> {
        let decode = |text| decoded(text).map_err(NatsError::Url);
        match text.split_once(':') {
            Some(("", _)) => Err(NatsError::Url("a password needs a user")),
            Some((user, password)) => Ok(Login::User { user: decode(user)?, password: decode(password)? }),
            None if text.is_empty() => Err(NatsError::Url("a token is not empty")),
            None => Ok(Login::Token(decode(text)?)),
        }
    }

    /// What no text may repeat.
    pub(super) fn secret(&self) -> &str {
        match self {
            Login::User { password: secret, .. } | Login::Token(secret) => secret,
            Login::Nobody | Login::Seed(_) | Login::Credentials(_) => "",
        }
    }
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        f.write_str(if self.tls { "tls://" } else { "nats://" })?;
        match &self.login {
            Login::User { user, .. } => write!(f, "{}:***@", encoded(user))?,
            Login::Token(_) => f.write_str("***@")?,
            Login::Nobody | Login::Seed(_) | Login::Credentials(_) => {}
        }
        f.write_str(&self.server())?;
        match &self.login {
            Login::Seed(file) => write!(f, "?nkey={}", file.display()),
            Login::Credentials(file) => write!(f, "?creds={}", file.display()),
            Login::Nobody | Login::User { .. } | Login::Token(_) => Ok(()),
        }
    }
}

impl fmt::Debug for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a node uses NATS as its broker.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// The cluster's name, which is in the names of its subjects.
    pub cluster: String,
    /// Where the servers are.
    pub address: NatsAddress,
    /// How patient the node is with them.
    pub pace: Pace,
}

impl NatsSettings {
    /// The defaults.
    pub fn new(cluster: &str, address: NatsAddress) -> Self {
        NatsSettings { cluster: cluster.to_owned(), address, pace: Pace::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers_and_who_this_is() {
        let user = |user: &str, password: &str| Login::User { user: user.into(), password: password.into() };
        let cases = [
            ("nats://a", (false, "a:4222", Login::Nobody), "nats://a:4222"),
            ("tls://a:1/", (true, "a:1", Login::Nobody), "tls://a:1"),
            ("nats+tls://[::1],b:5", (true, "[::1]:4222,b:5", Login::Nobody), "tls://[::1]:4222,b:5"),
            ("nats://u:hush@a,b", (false, "a:4222,b:4222", user("u", "hush")), "nats://u:***@a:4222,b:4222"),
            (
                "nats://us%2Fer:p%40ss%3A%23@a",
                (false, "a:4222", user("us/er", "p@ss:#")),
                "nats://us%2Fer:***@a:4222",
            ),
            ("nats://hush%21@a", (false, "a:4222", Login::Token("hush!".into())), "nats://***@a:4222"),
            (
                "nats://a?creds=/x/y%20z",
                (false, "a:4222", Login::Credentials("/x/y z".into())),
                "nats://a:4222?creds=/x/y z",
            ),
            ("nats://a/?nkey=k", (false, "a:4222", Login::Seed("k".into())), "nats://a:4222?nkey=k"),
        ];
        for (url, (tls, server, login), shown) in cases {
            let address = NatsAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let found = (address.tls, address.server(), address.login.clone());
            assert!(found == (tls, server.to_owned(), login), "{url} gave {address}");
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        for url in [
            "",
            "nats",
            "nats:",
            "nats://",
            "mesh://a:1",
            "nats://u:hush@",
            "nats://@a",
            "nats://:hush@a",
            "nats://u:hush@a:port",
            "nats://a/hush",
            "nats://a?hush",
            "nats://a?x=hush",
            "nats://a?creds=hush&nkey=hush",
            "nats://u:p@a?creds=hush",
            "nats://u:hu#sh@a",
            "nats://u:hu sh@a",
            "nats://u:%ff@a",
        ] {
            let error = NatsAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
