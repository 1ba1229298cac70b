//! Where a load goes: the `ws://` URL taken apart, and the addresses that connections come from.
//! No TLS: the targets that this tool measures are those of plain sockets. Tested here.

use crate::error::BenchError;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};

/// Connections made from one loopback address before the next is taken. The kernel has about 28,000 ports for each
/// pair of addresses, and those of closed connections rest for a minute.
const PER_SOURCE: usize = 10_000;
/// How many loopback addresses are used in turn, from 127.0.0.2 on.
const SOURCES: usize = 200;

/// A `ws://` URL that has been resolved.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// Host and port as the URL has them, for the `Host` header and the token's audience.
    pub(crate) authority: String,
    /// Path, beginning with a slash.
    pub(crate) path: String,
    /// What stands behind the question mark, or empty.
    pub(crate) query: String,
}

impl Endpoint {
    /// Takes `url` apart and resolves its host; the first address is used.
    pub(crate) fn parse(url: &str) -> Result<Self, BenchError> {
        let wrong = |reason: &str| BenchError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let rest = match url.split_once("://") {
            Some(("ws", rest)) => rest,
            Some(("wss", _)) => return Err(wrong("TLS is not spoken here; use ws://")),
            _ => return Err(wrong("it must begin with ws://")),
        };
        let (authority, tail) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        if authority.is_empty() || authority.contains('@') {
            return Err(wrong("it needs a host and takes no user name"));
        }
        if !tail.bytes().all(|byte| byte.is_ascii_graphic()) || tail.contains('#') {
            return Err(wrong("its path must be percent-encoded and without a fragment"));
        }
        let has_port =
            authority.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let named = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let address = named
            .to_socket_addrs()
            .map_err(|error| wrong(&format!("its host does not resolve: {error}")))?
            .next()
            .ok_or_else(|| wrong("its host has no address"))?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { address, authority: authority.to_owned(), path: path.to_owned(), query: query.to_owned() })
    }

    /// Begins to connect without blocking. `made` counts the connections begun by this process and chooses the source address.
    pub(crate) fn connect(&self, made: usize) -> Result<TcpStream, BenchError> {
        self.begin(made).map_err(|source| BenchError::Connect { address: self.address.to_string(), source })
    }

    /// The socket of [`Self::connect`], with plain errors.
    fn begin(&self, made: usize) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = self.source(made) {
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        Ok(socket.into())
    }

    /// The source address of connection `made`: the system's choice at first and for all that is not IPv4 loopback.
    fn source(&self, made: usize) -> Option<Ipv4Addr> {
        match self.address.ip() {
            IpAddr::V4(ip) if ip.is_loopback() && made >= PER_SOURCE => {
                Some(Ipv4Addr::new(127, 0, 0, 2 + ((made / PER_SOURCE - 1) % SOURCES) as u8))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let endpoint = Endpoint::parse("ws://127.0.0.1:7800/client/hubs/bench?a=b").unwrap();
        assert_eq!(endpoint.address, "127.0.0.1:7800".parse().unwrap());
        assert_eq!(endpoint.authority, "127.0.0.1:7800");
        assert_eq!((endpoint.path.as_str(), endpoint.query.as_str()), ("/client/hubs/bench", "a=b"));
        let short = Endpoint::parse("ws://[::1]").unwrap();
        assert_eq!((short.address, short.path.as_str()), ("[::1]:80".parse().unwrap(), "/"));
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_the_reason() {
        for (url, reason) in [
            ("http://127.0.0.1/", "ws://"),
            ("wss://127.0.0.1/", "TLS"),
            ("ws:///x", "host"),
            ("ws://user@127.0.0.1/", "user name"),
            ("ws://127.0.0.1/a b", "percent-encoded"),
            ("ws://127.0.0.1:port/", "resolve"),
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn loopback_connections_are_spread_over_source_addresses() {
        let endpoint = Endpoint::parse("ws://127.0.0.1:7800/").unwrap();
        assert_eq!(endpoint.source(9_999), None);
        assert_eq!(endpoint.source(10_000), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(endpoint.source(2_009_999), Some(Ipv4Addr::new(127, 0, 0, 201)));
        assert_eq!(endpoint.source(2_010_000), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(Endpoint::parse("ws://192.0.2.1/").unwrap().source(50_000), None);
    }
}
