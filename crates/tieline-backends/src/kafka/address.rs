//! Where a Kafka cluster is, as a URL names it, and as whom it is spoken to. Not how nodes use it: that is `settings.rs`.
//!
//! Tested here by tables of good and bad URLs.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::KafkaError;

/// The port of a server that names none.
const PORT: u16 = 9092;

/// How a password is proved. PLAIN shows it to the server, and to the network where there is no TLS.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// The servers to begin with, and as whom they are spoken to. It never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaAddress {
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// `host:port` of the servers that are asked where the others are; one that is there is enough.
    pub(super) servers: Vec<String>,
    /// Whom to authenticate as.
    pub(super) login: Option<Login>,
    /// The file with the certificates that are trusted; the system's, if there is none.
    pub(super) ca: Option<String>,
    /// The files with the certificate and the key that this node proves itself by.
    pub(super) certificate: Option<(String, String)>,
    /// On how many servers the topics are kept that a node makes; what the servers do by default, if it is not said.
    pub(super) replicas: Option<i32>,
}

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
    /// One of [`MECHANISMS`].
    pub(super) mechanism: &'static str,
}

impl KafkaAddress {
    /// Reads `kafka://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][?…]`, or `kafka+ssl://…` for TLS. Behind `?` come, joined by `&`,
    /// `mechanism=PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; `replicas=N`; and with TLS `ca=FILE`, `certificate=FILE` and
    /// `key=FILE`. In user and password everything but letters, digits and `-._~` is written as `%` and two hexadecimal digits.
    ///
    /// # Errors
    /// [`KafkaError::Url`], which repeats nothing of what was written: there may be a password in it; and [`KafkaError::NoTls`]
    /// where what it needs was not built in.
    pub fn parse(url: &str) -> Result<Self, KafkaError> {
        let bad = KafkaError::Url;
        if url.contains('#') {
            // So that it means the same as in every other URL, where what is behind it would be dropped.
            return Err(bad("`#` is written as `%23`"));
        }
        let (scheme, rest) = url.split_once("://").ok_or(bad("it is not `kafka://HOST:PORT`"))?;
        let tls = match scheme {
            "kafka" => false,
            "kafka+ssl" => true,
            _ => return Err(bad("it begins with `kafka://` or `kafka+ssl://`")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.strip_suffix('/').unwrap_or(place);
        let (login, hosts) = match place.rsplit_once('@') {
            Some((login, hosts)) => (Some(Login::parse(login)?), hosts),
            None => (None, place),
        };
        let servers = hosts.split(',').map(server).collect::<Result<_, _>>()?;
        let mut address = KafkaAddress { tls, servers, login, ca: None, certificate: None, replicas: None };
        address.follow(query)?;
        if !cfg!(feature = "kafka-tls") && address.needs_openssl() {
            return Err(KafkaError::NoTls);
        }
        Ok(address)
    }

    /// Takes in the parameters.
    fn follow(&mut self, query: &str) -> Result<(), KafkaError> {
        let bad = KafkaError::Url;
        let (mut certificate, mut key) = (None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(bad("a parameter is `NAME=VALUE`"))?;
            let value =
                percent_decode_str(value).decode_utf8().map_err(|_| bad("a parameter is not UTF-8"))?;
            match name {
                "mechanism" => {
                    let login =
                        self.login.as_mut().ok_or(bad("a mechanism is for a user with a password"))?;
                    let known = MECHANISMS.into_iter().find(|known| *known == value);
                    login.mechanism =
                        known.ok_or(bad("the mechanisms are PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"))?;
                }
                "replicas" => {
                    let replicas =
                        value.parse().ok().filter(|replicas| (1..=i32::from(i16::MAX)).contains(replicas));
                    self.replicas = Some(replicas.ok_or(bad("`replicas` is a number of servers"))?);
                }
                "ca" | "certificate" | "key" if !self.tls => {
                    return Err(bad("certificates are for `kafka+ssl://`"));
                }
                "ca" => self.ca = Some(value.into_owned()),
                "certificate" => certificate = Some(value.into_owned()),
                "key" => key = Some(value.into_owned()),
                _ => return Err(bad("the parameters are mechanism, replicas, ca, certificate and key")),
            }
        }
        self.certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(bad("a certificate needs its key")),
        };
        Ok(())
    }

    /// Whether it asks for what OpenSSL does.
    fn needs_openssl(&self) -> bool {
        self.tls || self.login.as_ref().is_some_and(|login| login.mechanism != "PLAIN")
    }

    /// Whether all servers are reached on this machine alone.
    pub fn is_loopback(&self) -> bool {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.servers.iter().all(|server| {
            let host = server.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse().is_ok_and(is_loopback)
        })
    }

    /// The servers, as they are dialled and named in errors.
    pub(super) fn server(&self) -> String {
        self.servers.join(",")
    }
}

/// A server's address, with its port.
fn server(text: &str) -> Result<String, KafkaError> {
    let bad = KafkaError::Url;
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(bad("an IPv6 address ends with `]`"))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad("within brackets is an IPv6 address"))?;
            (format!("[{host}]"), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            if !is_name(host) {
                return Err(bad("a host is missing, or is no name of one"));
            }
            (host.to_owned(), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => PORT,
        port => {
            let port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0);
            port.ok_or(bad("a port is a number from 1 to 65535"))?
        }
    };
    Ok(format!("{host}:{port}"))
}

impl Login {
    fn parse(text: &str) -> Result<Self, KafkaError> {
        let (user, password) = text.split_once(':').ok_or(KafkaError::Url("a user needs a password"))?;
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| KafkaError::Url("user or password is not UTF-8"))
        };
        if user.is_empty() {
            return Err(KafkaError::Url("a password needs a user"));
        }
        Ok(Login { user: decode(user)?, password: decode(password)?, mechanism: MECHANISMS[0] })
    }
}

impl fmt::Display for KafkaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "kafka+ssl://" } else { "kafka://" })?;
        if let Some(login) = &self.login {
            write!(f, "{}:***@", utf8_percent_encode(&login.user, NON_ALPHANUMERIC))?;
        }
        f.write_str(&self.server())
    }
}

impl fmt::Debug for KafkaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers_and_user() {
        let cases = [
            ("kafka://a", "a:9092", None, "kafka://a:9092"),
            ("kafka://a:1/", "a:1", None, "kafka://a:1"),
            ("kafka://a,b:2,[::1]:3,[fe80::1]", "a:9092,b:2,[::1]:3,[fe80::1]:9092", None, ""),
            ("kafka://u:hush@a,b", "a:9092,b:9092", Some(("u", "hush")), "kafka://u:***@a:9092,b:9092"),
            (
                "kafka://us%2Fer:p%40ss%3A%2F%23%3F@a?mechanism=PLAIN&replicas=3",
                "a:9092",
                Some(("us/er", "p@ss:/#?")),
                "kafka://us%2Fer:***@a:9092",
            ),
            ("kafka://u:a:b@h", "h:9092", Some(("u", "a:b")), "kafka://u:***@h:9092"),
        ];
        for (url, servers, login, shown) in cases {
            let address = KafkaAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            let found = address.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()));
            assert_eq!((address.server().as_str(), found), (servers, login), "{url}");
            assert!(
                shown.is_empty() || [address.to_string(), format!("{address:?}")] == [shown; 2],
                "{address}"
            );
        }
        assert_eq!(KafkaAddress::parse("kafka://a?replicas=3").unwrap().replicas, Some(3));
        assert!(KafkaAddress::parse("kafka://127.0.0.1,[::1]:5,localhost").unwrap().is_loopback());
        assert!(!KafkaAddress::parse("kafka://127.0.0.1,b").unwrap().is_loopback());
    }

    #[test]
    fn tls_and_scram_are_there_or_it_is_said_how_to_get_them() {
        let urls = [
            "kafka+ssl://a?ca=/etc/ca.pem",
            "kafka+ssl://u:hush@a?mechanism=SCRAM-SHA-512&certificate=c&key=k",
            "kafka://u:hush@a?mechanism=SCRAM-SHA-256",
        ];
        for url in urls {
            let parsed = KafkaAddress::parse(url);
            #[cfg(feature = "kafka-tls")]
            assert_eq!(parsed.unwrap().tls, url.starts_with("kafka+ssl"));
            #[cfg(not(feature = "kafka-tls"))]
            assert!(parsed.is_err_and(|error| error.to_string().contains("kafka-tls")), "{url}");
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        for url in [
            "",
            "kafka",
            "kafka:",
            "kafka://",
            "kafka:///x",
            "redis://a:1",
            "kafka://a,",
            "kafka://,a",
            "kafka://u:hush@",
            "kafka://a:",
            "kafka://a:0",
            "kafka://a:65536",
            "kafka://a/topic",
            "kafka://a b",
            "kafka://[::1",
            "kafka://[::1]x",
            "kafka://[hush]:1",
            "kafka://:hush@a",
            "kafka://hush@a",
            "kafka://u:hu#sh@a",
            "kafka://u:%ff@a",
            "kafka://u:hush@a?mechanism=MD5",
            "kafka://a?mechanism=PLAIN",
            "kafka://a?replicas=0",
            "kafka://a?replicas=hush",
            "kafka://a?ca=hush",
            "kafka+ssl://a?key=hush",
            "kafka+ssl://a?hush=1",
            "kafka://a?hush",
        ] {
            let error = KafkaAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
