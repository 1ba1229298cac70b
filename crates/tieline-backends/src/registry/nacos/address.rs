//! [`NacosAddress`]: a server, a namespace and a service as a URL names them; and what such a URL has in common with that of a
//! document (`document.rs`). Tested by tables of good and bad URLs.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::NacosError;
use crate::registry::is_loopback;

/// The port of a server whose URL names none. That of gRPC is 1000 above.
const PORT: u16 = 8848;

/// The most bytes of a name.
const MAX_NAME: usize = 128;

/// Where the servers are, as whom they are spoken to, and which service is kept there. It never shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct NacosAddress {
    /// Each `host:port`, in the order of the URL.
    pub(super) servers: Vec<String>,
    /// Whom to log in as.
    pub(super) login: Option<Login>,
    pub(super) namespace: String,
    pub(super) group: String,
    pub(super) service: String,
}

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// What every URL of a Nacos server has.
pub(super) struct Parts {
    pub(super) servers: Vec<String>,
    pub(super) login: Option<Login>,
    pub(super) namespace: String,
    pub(super) group: String,
    /// What stands behind `?`, beside the group.
    pub(super) name: Option<String>,
}

impl Parts {
    /// Reads a URL whose last name is written as `KEY=NAME`. The errors are in the words of `bad`.
    pub(super) fn parse<E>(url: &str, key: &str, bad: fn(&'static str) -> E) -> Result<Self, E> {
        Parts::read(url, key).map_err(bad)
    }

    fn read(url: &str, key: &str) -> Result<Self, &'static str> {
        let rest = url.strip_prefix("nacos://").ok_or("it begins with `nacos://`")?;
        if rest.contains('#') {
            return Err("`#` is written as `%23`");
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("there is no space in it");
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, namespace) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(Login::parse(login)?), hosts),
            None => (None, authority),
        };
        let servers = hosts.split(',').map(server).collect::<Result<_, _>>()?;
        let (mut group, mut name) = ("DEFAULT_GROUP", None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("group", value)) => group = value,
                Some((word, value)) if word == key => name = Some(value),
                _ => return Err("something else stands behind `?`"),
            }
        }
        let namespace = if namespace.is_empty() { "public" } else { namespace };
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let is_name = |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_letter);
        if ![namespace, group].into_iter().chain(name).all(is_name) {
            return Err("each name has 1 to 128 letters, digits and `-_.:`");
        }
        let (namespace, group, name) = (namespace.to_owned(), group.to_owned(), name.map(str::to_owned));
        Ok(Parts { servers, login, namespace, group, name })
    }
}

impl NacosAddress {
    /// Reads `nacos://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/NAMESPACE][?group=GROUP&service=SERVICE]`; without them
    /// namespace, group and service are `public`, `DEFAULT_GROUP` and `tieline`. In user and password everything but letters,
    /// digits and `-._~` is written as `%` and two hexadecimal digits.
    ///
    /// # Errors
    /// [`NacosError::Url`], which repeats nothing of what was written: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, NacosError> {
        let Parts { servers, login, namespace, group, name } = Parts::parse(url, "service", NacosError::Url)?;
        let service = name.unwrap_or_else(|| "tieline".to_owned());
        Ok(NacosAddress { servers, login, namespace, group, service })
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

impl Login {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (user, password) = text.split_once(':').ok_or("a user needs a password")?;
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| "user or password is not UTF-8")
        };
        let (user, password) = (decode(user)?, decode(password)?);
        if user.is_empty() {
            return Err("a password needs a user");
        }
        Ok(Login { user, password })
    }
}

fn server(text: &str) -> Result<String, &'static str> {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if host.is_empty() || host.contains(['[', ']']) {
        return Err("each host is a name or an address of IPv4");
    }
    let port = match port {
        None => PORT,
        Some(port) => {
            // The port of gRPC is a port too.
            let port = port.parse().ok().filter(|port| (1..=u16::MAX - 1000).contains(port));
            port.ok_or("a port is a number from 1 to 64535")?
        }
    };
    Ok(format!("{host}:{port}"))
}

impl fmt::Display for NacosAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NacosAddress { namespace, group, service, .. } = self;
        let login = if self.login.is_some() { "***@" } else { "" };
        write!(f, "nacos://{login}{}/{namespace}?group={group}&service={service}", self.servers())
    }
}

impl fmt::Debug for NacosAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers_user_and_service() {
        for (url, shown) in [
            ("nacos://a", "nacos://a:8848/public?group=DEFAULT_GROUP&service=tieline"),
            ("nacos://a:1,10.0.0.1/n-1", "nacos://a:1,10.0.0.1:8848/n-1?group=DEFAULT_GROUP&service=tieline"),
            ("nacos://u:p@a/?service=s&group=g", "nacos://***@a:8848/public?group=g&service=s"),
        ] {
            let address = NacosAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), shown);
        }
        let login = NacosAddress::parse("nacos://us%2Fer:p%40:s@a").unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("us/er", "p@:s"));
    }

    #[test]
    fn bad_urls_are_told_without_their_secret() {
        for url in [
            "",
            "nacos",
            "nacos://",
            "nacos:///x",
            "redis://a",
            "nacos://a,",
            "nacos://a:0",
            "nacos://a:64536",
            "nacos://a:hush",
            "nacos://[::1]:8848",
            "nacos://a/x/y",
            "nacos://a/x?hush=1",
            "nacos://a?group=",
            "nacos://a?service=a@@b",
            "nacos://hush@a",
            "nacos://:hush@a",
            "nacos://u:hu#sh@a",
            "nacos://u:hush%ff@a",
        ] {
            let error = NacosAddress::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}
