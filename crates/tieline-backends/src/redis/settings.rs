//! What a Redis broker is told at its start: the settings, and the server's address as a URL names it.
//! Not how they are spelled in a configuration file: that is the binary's.
//!
//! Tested here by tables of good and bad URLs.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use percent_encoding::percent_decode_str;

use super::RedisError;
use crate::medium::Pace;

/// The port of a server whose URL names none.
pub(super) const PORT: u16 = 6379;

/// Where the server is, and as whom it is spoken to. It never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    /// The server's port.
    pub(super) port: u16,
    /// Whom to authenticate as, `default` where a URL names a password alone.
    pub(super) login: Option<Login>,
    /// The number of the database that is selected. Channels know no databases; one that is not there is refused.
    pub(super) database: u32,
}

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl RedisAddress {
    /// Reads `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…` for TLS. In user and password everything
    /// but letters, digits and `-._~` is written as `%` and two hexadecimal digits.
    ///
    /// # Errors
    /// [`RedisError::Url`], which repeats nothing of what was written: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, RedisError> {
        let bad = RedisError::Url;
        if url.contains('#') {
            // What is behind it would be dropped in silence, and with it half of a password.
            return Err(bad("`#` is written as `%23`"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("it is not `redis://HOST:PORT`"))?;
        let tls = match uri.scheme_str() {
            Some("redis") => false,
            Some("rediss") => true,
            _ => return Err(bad("it begins with `redis://` or `rediss://`")),
        };
        let authority = uri.authority().ok_or(bad("there is no host in it"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("there is no host in it"));
        }
        let behind_login = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match behind_login.strip_prefix(authority.host()).unwrap_or_default() {
            "" => PORT,
            port => {
                let port = port.trim_start_matches(':').parse().ok().filter(|port| *port > 0);
                port.ok_or(bad("a port is a number from 1 to 65535"))?
            }
        };
        let login = authority.as_str().rsplit_once('@').map(|(login, _)| Login::parse(login)).transpose()?;
        let database = match uri.path().trim_start_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_| bad("behind the host comes the number of a database"))?,
        };
        if uri.query().is_some() {
            return Err(bad("there are no parameters behind `?`"));
        }
        Ok(RedisAddress { tls, host, port, login, database })
    }

    /// Whether the server is reached on this machine alone.
    pub fn is_loopback(&self) -> bool {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }

    /// `host:port`, as it is dialled and named in errors.
    pub(super) fn server(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Login {
    pub(super) fn parse(text: &str) -> Result<Self, RedisError> {
        let (user, password) = text.split_once(':').ok_or(RedisError::Url("a user needs a password"))?;
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| RedisError::Url("user or password is not UTF-8"))
        };
        let user = if user.is_empty() { "default".to_owned() } else { decode(user)? };
        Ok(Login { user, password: decode(password)? })
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = percent_encoding::utf8_percent_encode(&self.user, percent_encoding::NON_ALPHANUMERIC);
        write!(f, "{user}:***")
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
        if let Some(login) = &self.login {
            write!(f, "{login}@")?;
        }
        f.write_str(&self.server())?;
        if self.database > 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a node uses a Redis server, a master with sentinels, or a cluster as its broker.
#[derive(Clone, Debug)]
pub struct RedisSettings<A = RedisAddress> {
    /// The cluster's name, which is in the names of its channels.
    pub cluster: String,
    /// Where the server is.
    pub address: A,
    /// How patient the node is with the server.
    pub pace: Pace,
}

impl<A> RedisSettings<A> {
    /// The defaults.
    pub fn new(cluster: &str, address: A) -> Self {
        RedisSettings { cluster: cluster.to_owned(), address, pace: Pace::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_server_user_and_database() {
        let login = |user: &str, password: &str| Some(Login { user: user.into(), password: password.into() });
        let cases = [
            ("redis://a", (false, "a:6379", None, 0), "redis://a:6379"),
            ("redis://a:1/", (false, "a:1", None, 0), "redis://a:1"),
            ("rediss://10.0.0.1:6380/15", (true, "10.0.0.1:6380", None, 15), "rediss://10.0.0.1:6380/15"),
            ("redis://[::1]:7/0", (false, "[::1]:7", None, 0), "redis://[::1]:7"),
            ("redis://:hush@a", (false, "a:6379", login("default", "hush"), 0), "redis://default:***@a:6379"),
            (
                "redis://us%2Fer:p%40ss%3A%2F%23@a/2",
                (false, "a:6379", login("us/er", "p@ss:/#"), 2),
                "redis://us%2Fer:***@a:6379/2",
            ),
            ("redis://u:a:b@h", (false, "h:6379", login("u", "a:b"), 0), "redis://u:***@h:6379"),
        ];
        for (url, (tls, server, login, database), shown) in cases {
            let address = RedisAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let found = (address.tls, address.server(), address.login.clone(), address.database);
            assert!(found == (tls, server.to_owned(), login, database), "{url} gave {address}");
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        for url in [
            "",
            "redis",
            "redis:",
            "redis://",
            "redis:///1",
            "mesh://a:1",
            "http://a",
            "redis://:hush@",
            "redis://a:",
            "redis://a:0",
            "redis://a:65536",
            "redis://:hush@a:port",
            "redis://a/x",
            "redis://a/1/2",
            "redis://a/-1",
            "redis://a?x=hush",
            "redis://hush@a",
            "redis://:hu#sh@a",
            "redis://:hu sh@a",
            "redis://:%ff@a",
        ] {
            let error = RedisAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
