//! What a RabbitMQ broker is told at its start: the settings, and the server's address as a URL names it.
//! Not how they are spelled in a configuration file: that is the binary's.
//!
//! Tested here by tables of good and bad URLs.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::RabbitMqError;
use crate::medium::Pace;

/// The port of a server whose URL names none.
const PORT: u16 = 5672;

/// The same with TLS.
const TLS_PORT: u16 = 5671;

/// Whom a server of its first settings lets in, from its own machine alone.
const GUEST: &str = "guest";

/// The most bytes of a virtual host's name.
const MAX_VHOST: usize = 255;

/// Where the server is, and as whom it is spoken to. It never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RabbitMqAddress {
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    /// The server's port.
    pub(super) port: u16,
    /// Whom to authenticate as.
    pub(super) user: String,
    pub(super) password: String,
    /// The virtual host, within which names are looked up and permissions are given.
    pub(super) vhost: String,
}

impl RabbitMqAddress {
    /// Reads `amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST]`, or `amqps://…` for TLS. In user, password and virtual host everything
    /// but letters, digits and `-._~` is written as `%` and two hexadecimal digits. Without a virtual host it is `/`.
    ///
    /// # Errors
    /// [`RabbitMqError::Url`], which repeats nothing of what was written: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, RabbitMqError> {
        let bad = RabbitMqError::Url;
        if url.contains('#') {
            // What is behind it would be dropped in silence, and with it half of a password.
            return Err(bad("`#` is written as `%23`"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("it is not `amqp://HOST:PORT`"))?;
        let tls = match uri.scheme_str() {
            Some("amqp") => false,
            Some("amqps") => true,
            _ => return Err(bad("it begins with `amqp://` or `amqps://`")),
        };
        let authority = uri.authority().ok_or(bad("there is no host in it"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("there is no host in it"));
        }
        let (login, place) = match authority.as_str().rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority.as_str()),
        };
        let port = match place.strip_prefix(authority.host()).unwrap_or_default() {
            "" if tls => TLS_PORT,
            "" => PORT,
            port => {
                let port = port.trim_start_matches(':').parse().ok().filter(|port| *port > 0);
                port.ok_or(bad("a port is a number from 1 to 65535"))?
            }
        };
        let (user, password) = match login {
            Some(login) => {
                let (user, password) = login.split_once(':').ok_or(bad("a user needs a password"))?;
                (decode(user)?, decode(password)?)
            }
            None => (GUEST.to_owned(), GUEST.to_owned()),
        };
        if user.contains('\0') || password.contains('\0') {
            return Err(bad("there is a zero in user or password"));
        }
        let vhost = match uri.path().trim_start_matches('/') {
            "" => "/".to_owned(),
            name if name.contains('/') => return Err(bad("`/` in a virtual host is written as `%2F`")),
            name => decode(name)?,
        };
        if vhost.len() > MAX_VHOST {
            return Err(bad("the name of a virtual host has at most 255 bytes"));
        }
        if uri.query().is_some() {
            return Err(bad("there are no parameters behind `?`"));
        }
        Ok(RabbitMqAddress { tls, host, port, user, password, vhost })
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

fn decode(text: &str) -> Result<String, RabbitMqError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| RabbitMqError::Url("user, password or virtual host is not UTF-8"))
}

impl fmt::Display for RabbitMqAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "amqps://" } else { "amqp://" })?;
        if (self.user.as_str(), self.password.as_str()) != (GUEST, GUEST) {
            write!(f, "{}:***@", utf8_percent_encode(&self.user, NON_ALPHANUMERIC))?;
        }
        f.write_str(&self.server())?;
        if self.vhost != "/" {
            write!(f, "/{}", utf8_percent_encode(&self.vhost, NON_ALPHANUMERIC))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RabbitMqAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a node uses a RabbitMQ server as its broker.
#[derive(Clone, Debug)]
pub struct RabbitMqSettings {
    /// The cluster's name, which is in the names of its exchanges and queues.
    pub cluster: String,
    /// Where the server is.
    pub address: RabbitMqAddress,
    /// How patient the node is with the server.
    pub pace: Pace,
    /// The most bytes that the server keeps for this node while it does not read. Past it the server drops the oldest.
    pub backlog: u32,
}

impl RabbitMqSettings {
    /// The defaults.
    pub fn new(cluster: &str, address: RabbitMqAddress) -> Self {
        RabbitMqSettings { cluster: cluster.to_owned(), address, pace: Pace::default(), backlog: 64 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_server_user_and_virtual_host() {
        let cases = [
            ("amqp://a", (false, "a:5672", "guest", "guest", "/"), "amqp://a:5672"),
            ("amqps://a", (true, "a:5671", "guest", "guest", "/"), "amqps://a:5671"),
            ("amqp://guest:guest@a:1/", (false, "a:1", "guest", "guest", "/"), "amqp://a:1"),
            ("amqp://[::1]:7/%2F", (false, "[::1]:7", "guest", "guest", "/"), "amqp://[::1]:7"),
            ("amqp://guest:hush@a", (false, "a:5672", "guest", "hush", "/"), "amqp://guest:***@a:5672"),
            ("amqp://:hush@a/v", (false, "a:5672", "", "hush", "v"), "amqp://:***@a:5672/v"),
            (
                "amqps://us%2Fer:p%40ss%3A%2F%23@10.0.0.1:2/v%2Fh",
                (true, "10.0.0.1:2", "us/er", "p@ss:/#", "v/h"),
                "amqps://us%2Fer:***@10.0.0.1:2/v%2Fh",
            ),
        ];
        for (url, (tls, server, user, password, vhost), shown) in cases {
            let address = RabbitMqAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let found =
                (address.tls, &*address.server(), &*address.user, &*address.password, &*address.vhost);
            assert!(found == (tls, server, user, password, vhost), "{url} gave {address}");
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        let long = format!("amqp://u:hush@a/{}", "v".repeat(256));
        for url in [
            "",
            "amqp",
            "amqp:",
            "amqp://",
            "amqp:///v",
            "redis://a:1",
            "http://a",
            "amqp://u:hush@",
            "amqp://a:",
            "amqp://a:0",
            "amqp://a:65536",
            "amqp://u:hush@a:port",
            "amqp://a/1/2",
            "amqp://a?heartbeat=hush",
            "amqp://hush@a",
            "amqp://u:hu#sh@a",
            "amqp://u:hu sh@a",
            "amqp://u:%ff@a",
            "amqp://u:hush%00@a",
            &long,
        ] {
            let error = RabbitMqAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
