//! [`ZooKeeperAddress`]: an ensemble as a URL names it. Tested by tables of good and bad URLs.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::ZooKeeperError;
use crate::registry::is_loopback;

/// The port of a server whose URL names none.
const PORT: u16 = 2181;

/// The folder of clusters where a URL names none.
const PATH: &str = "/tieline";

/// The most bytes of the path.
const MAX_PATH: usize = 256;

/// Where the servers are, as whom they are spoken to, and below which path. It never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperAddress {
    /// Each `host:port`, in the order of the URL.
    servers: Vec<String>,
    /// User and password with a colon between, as the scheme `digest` wants them. The nodes are that user's alone then.
    pub(super) login: Option<String>,
    /// Begins with a slash and does not end with one.
    pub(super) path: String,
}

impl ZooKeeperAddress {
    /// Reads `zookeeper://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/PATH]`. In user and password everything but letters,
    /// digits and `-._~` is written as `%` and two hexadecimal digits.
    ///
    /// # Errors
    /// [`ZooKeeperError::Url`], which repeats nothing of what was written: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, ZooKeeperError> {
        let bad = ZooKeeperError::Url;
        let rest = url.strip_prefix("zookeeper://").ok_or(bad("it begins with `zookeeper://`"))?;
        if rest.contains(['?', '#']) {
            return Err(bad("there is no `?` or `#` in it; in a password they are `%3F` and `%23`"));
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad("there is no space in it"));
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(decode(login)?), hosts),
            None => (None, authority),
        };
        let servers = hosts.split(',').map(server).collect::<Result<_, _>>()?;
        let path = path.trim_end_matches('/');
        let is_name = |name: &str| !["", ".", ".."].contains(&name);
        if path.len() > MAX_PATH || !path.is_empty() && !path[1..].split('/').all(is_name) {
            return Err(bad("its path has names between single slashes, 256 bytes at most"));
        }
        let path = if path.is_empty() { PATH } else { path };
        Ok(ZooKeeperAddress { servers, login, path: path.to_owned() })
    }

    /// Whether all servers are on this machine, and can be reached from it alone.
    pub fn is_loopback(&self) -> bool {
        self.servers.iter().all(|server| is_loopback(server))
    }

    /// All servers, with commas between.
    pub(super) fn servers(&self) -> String {
        self.servers.join(",")
    }
}

fn decode(login: &str) -> Result<String, ZooKeeperError> {
    let (user, password) = login.split_once(':').ok_or(ZooKeeperError::Url("a user needs a password"))?;
    let text = |text| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map_err(|_| ZooKeeperError::Url("user or password is not UTF-8"))
    };
    let (user, password) = (text(user)?, text(password)?);
    if user.is_empty() || user.contains(':') {
        return Err(ZooKeeperError::Url("a user has a name without a colon"));
    }
    Ok(format!("{user}:{password}"))
}

fn server(text: &str) -> Result<String, ZooKeeperError> {
    let bad = ZooKeeperError::Url;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_literal = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host.contains([':', '[', ']']) && !is_literal {
        return Err(bad("each host is a name, an address, or one of IPv6 in brackets"));
    }
    let port = match port {
        None => PORT,
        Some(port) => {
            let port = port.parse().ok().filter(|port| *port > 0);
            port.ok_or(bad("a port is a number from 1 to 65535"))?
        }
    };
    Ok(format!("{host}:{port}"))
}

impl fmt::Display for ZooKeeperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = if self.login.is_some() { "***@" } else { "" };
        write!(f, "zookeeper://{login}{}{}", self.servers(), self.path)
    }
}

impl fmt::Debug for ZooKeeperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers_user_and_path() {
        for (url, shown, login) in [
            ("zookeeper://a", "zookeeper://a:2181/tieline", None),
            ("zookeeper://a:1,b,[::1]:3,[::2]/x/y/", "zookeeper://a:1,b:2181,[::1]:3,[::2]:2181/x/y", None),
            ("zookeeper://u:p%40%2Fs@10.0.0.1/x", "zookeeper://***@10.0.0.1:2181/x", Some("u:p@/s")),
            ("zookeeper://u:a:b@h", "zookeeper://***@h:2181/tieline", Some("u:a:b")),
        ] {
            let address = ZooKeeperAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((address.to_string().as_str(), address.login.as_deref()), (shown, login), "{url}");
            assert_eq!(format!("{address:?}"), shown);
        }
        for (url, expected) in [
            ("zookeeper://127.0.0.1,localhost:1,[::1]", true),
            ("zookeeper://127.0.0.1,10.0.0.1", false),
            ("zookeeper://h", false),
        ] {
            assert_eq!(ZooKeeperAddress::parse(url).unwrap().is_loopback(), expected, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        for url in [
            "",
            "zookeeper",
            "zookeeper://",
            "zookeeper:///x",
            "redis://a",
            "zookeeper://a,",
            "zookeeper://a,,b",
            "zookeeper://a:0",
            "zookeeper://a:65536",
            "zookeeper://a:x",
            "zookeeper://::1",
            "zookeeper://a//x",
            "zookeeper://a/x/../y",
            "zookeeper://a/./y",
            "zookeeper://a?hush",
            "zookeeper://hush@a",
            "zookeeper://:hush@a",
            "zookeeper://u%3A:hush@a",
            "zookeeper://u:hush#@a",
            "zookeeper://u:hu sh@a",
            "zookeeper://u:hush%ff@a",
        ] {
            let error = ZooKeeperAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
