//! Several servers in one URL: `SCHEME://[LOGIN@]HOST[:PORT],HOST[:PORT]…[/PATH][?QUERY]`. What login, path and query mean is the
//! engine's business.
//!
//! Nothing that is said of a mistake repeats what was written: there may be a password in it. Tested here by tables.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

/// The most servers that one URL names.
const MAX_HOSTS: usize = 64;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    /// A name, or an IP address without brackets.
    pub(crate) name: String,
    /// The server's port.
    pub(crate) port: u16,
}

impl Host {
    /// Reads `HOST[:PORT]`, where an IPv6 address has brackets.
    pub(crate) fn parse(text: &str, port: u16) -> Result<Host, &'static str> {
        let (name, rest) = match text.strip_prefix('[') {
            Some(text) => {
                let (name, rest) = text.split_once(']').ok_or("a bracket is not closed")?;
                if name.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err("what is in brackets is an IPv6 address");
                }
                (name, rest)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        if name.is_empty() {
            return Err("there is no host in it");
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte)) {
            return Err("a host is a name or an IP address");
        }
        let port = match rest {
            "" => port,
            rest => {
                let digits =
                    rest.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
                let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port > 0);
                port.ok_or("a port is a number from 1 to 65535")?
            }
        };
        Ok(Host { name: name.to_owned(), port })
    }

    /// Whether it is on this machine alone.
    pub(crate) fn is_loopback(&self) -> bool {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.name == "localhost" || self.name.parse().is_ok_and(is_loopback)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// What is before `@`, as it was written.
    pub(crate) login: Option<&'a str>,
    /// At least one.
    pub(crate) hosts: Vec<Host>,
    /// What is behind the first `/`, as it was written.
    pub(crate) path: &'a str,
    /// What is behind `?`, by names, as it was written.
    pub(crate) query: Vec<(&'a str, &'a str)>,
}

/// Takes what is behind `://` apart. `port` is that of hosts that name none.
pub(crate) fn parts(text: &str, port: u16) -> Result<Parts<'_>, &'static str> {
    if text.contains('#') {
        // What is behind it would be dropped in silence, and with it half of a password.
        return Err("`#` is written as `%23`");
    }
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let hosts = hosts.split(',').map(|host| Host::parse(host, port)).collect::<Result<Vec<_>, _>>()?;
    if hosts.len() > MAX_HOSTS {
        return Err("these are too many servers");
    }
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs
        .map(|pair| pair.split_once('=').ok_or("a parameter is NAME=VALUE"))
        .collect::<Result<_, _>>()?;
    Ok(Parts { login, hosts, path, query })
}

/// A part of a URL without its `%`.
pub(crate) fn decoded(text: &str) -> Result<String, &'static str> {
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err("spaces and control characters are written as `%` and two hexadecimal digits");
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| "what stands behind `%` is not UTF-8")
}

/// Several servers, as they are named in messages.
pub(crate) fn listed(hosts: &[Host]) -> String {
    hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_read() {
        let cases = [
            ("a", (None, "a:7", "", "")),
            ("a:1,[::1],b.c:2/", (None, "a:1,[::1]:7,b.c:2", "", "")),
            ("u:p,@x@a/0/1?b=c&d=e%20", (Some("u:p,@x"), "a:7", "0/1", "b=c d=e%20")),
            ("@127.0.0.1:65535?", (Some(""), "127.0.0.1:65535", "", "")),
        ];
        for (text, (login, hosts, path, query)) in cases {
            let parts = parts(text, 7).unwrap_or_else(|error| panic!("{text}: {error}"));
            let pairs: Vec<_> = parts.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(
                (parts.login, listed(&parts.hosts).as_str(), parts.path, pairs.join(" ").as_str()),
                (login, hosts, path, query),
                "{text}"
            );
        }
    }

    #[test]
    fn mistakes_are_told() {
        for text in [
            "", ":1", "a,", "a:", "a:0", "a:65536", "a:+1", "a:x", "a b", "a\n", "[::1", "[::1]x", "[a]",
            "a#b", "a?b", "ä",
        ] {
            assert!(parts(text, 7).is_err(), "{text:?} was taken");
        }
        assert!(parts(&vec!["a"; MAX_HOSTS + 1].join(","), 7).is_err());
        assert!(decoded("%ff").is_err() && decoded("a b").is_err());
        assert_eq!(decoded("%2F%c3%a4+").as_deref(), Ok("/ä+"));
    }

    #[test]
    fn loopback_is_known() {
        let is_loopback = |text| Host::parse(text, 1).unwrap().is_loopback();
        assert!(is_loopback("localhost") && is_loopback("127.8.9.1:5") && is_loopback("[::1]"));
        assert!(!is_loopback("10.0.0.1") && !is_loopback("a"));
    }
}
