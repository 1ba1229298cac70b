//! [`Forwarding`]: the headers that a node gets of a request.
//!
//! What a client says of itself in headers that only proxies may write is dropped, unless its address is one that the operator
//! trusts; then it is extended. A node always gets `X-Forwarded-For` and `Via`, so no client of a gateway is ever taken for a
//! program on the node's own machine. `Via` also tells a gateway that a request has come round to it again. Tested below, and
//! over sockets in `tests/program/gateway`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tieline_proto::ErrorCode;

use super::prefix::Prefix;
use crate::admission;
use crate::http::{Head, Refusal};

/// The most bytes of a header that is extended; what a trusted proxy sends beyond is cut off at its front.
const MOST: usize = 4096;

/// What concerns one connection alone, and is not for the next one.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The status of a request that has come round.
const LOOP_DETECTED: u16 = 508;

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address such as 10.0.0.1, or one with its number of bits, such as 10.0.0.0/8")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| NoNetwork)?;
        if bits > most { Err(NoNetwork) } else { Ok(Network { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u8| {
            let cut = u32::from(width - self.bits);
            one.checked_shr(cut) == other.checked_shr(cut)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

/// A header's name and value.
pub(super) type Header<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// Makes the headers that a node gets.
#[derive(Clone, Debug)]
pub(super) struct Forwarding {
    /// Whose word about whom they connect for is believed.
    pub(super) trusted: Vec<Network>,
    /// What this gateway is called in `Via`; new at each start.
    pub(super) id: String,
    pub(super) prefix: Prefix,
}

impl Forwarding {
    /// The headers for the node, those of the connection itself left out: `Host` as it was asked for, and what the client
    /// sent, and where it came from.
    ///
    /// # Errors
    /// When the request has been here before.
    pub(super) fn headers<'a>(
        &self,
        head: &Head<'a>,
        peer: IpAddr,
        host: &'a str,
    ) -> Result<Vec<Header<'a>>, Refusal> {
        let is_trusted = self.trusted.iter().any(|network| network.contains(peer));
        let mut own = Own::default();
        let named: Vec<&str> = head
            .headers()
            .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
            .flat_map(|(_, value)| std::str::from_utf8(value).unwrap_or("").split(',').map(str::trim))
            .collect();
        let mut headers: Vec<Header<'a>> = vec![("Host".into(), host.as_bytes().into())];
        for (name, value) in head.headers() {
            let lower = name.to_ascii_lowercase();
            if HOP_BY_HOP.contains(&&*lower) || named.iter().any(|named| named.eq_ignore_ascii_case(&lower)) {
                continue;
            }
            let is_forwarding = admission::is_forwarded(std::iter::once(&*lower));
            match own.place(&lower) {
                // Who is on the way is told by all, and believed for nothing but the end of a circle.
                Some(place) if is_trusted || lower == "via" => append(place, value),
                Some(_) => {}
                None if is_forwarding && !is_trusted => {}
                None => headers.push((name.into(), value.into())),
            }
        }
        if own.via.split(|byte| *byte == b',').any(|hop| hop.trim_ascii().ends_with(self.id.as_bytes())) {
            let message =
                "the request has come round to this gateway again: one of its nodes is a gateway, or itself";
            return Err(Refusal {
                status: LOOP_DETECTED,
                ..Refusal::new(ErrorCode::InvalidRequest, message)
            });
        }
        append(&mut own.r#for, peer.to_canonical().to_string().as_bytes());
        append(&mut own.via, format!("1.1 {}", self.id).as_bytes());
        if own.proto.is_empty() {
            own.proto = b"http".to_vec();
        }
        if own.host.is_empty() {
            own.host = host.as_bytes().to_vec();
        }
        own.prefix.extend_from_slice(self.prefix.stripped().as_bytes());
        for (name, value) in [
            ("X-Forwarded-For", own.r#for),
            ("X-Forwarded-Proto", own.proto),
            ("X-Forwarded-Host", own.host),
            ("X-Forwarded-Prefix", own.prefix),
            ("Via", own.via),
        ] {
            if !value.is_empty() {
                headers.push((name.into(), value.into()));
            }
        }
        Ok(headers)
    }
}

/// The headers that a gateway writes itself.
#[derive(Default)]
struct Own {
    r#for: Vec<u8>,
    proto: Vec<u8>,
    host: Vec<u8>,
    prefix: Vec<u8>,
    via: Vec<u8>,
}

impl Own {
    fn place(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        match name {
            "x-forwarded-for" => Some(&mut self.r#for),
            "x-forwarded-proto" => Some(&mut self.proto),
            "x-forwarded-host" => Some(&mut self.host),
            "x-forwarded-prefix" => Some(&mut self.prefix),
            "via" => Some(&mut self.via),
            _ => None,
        }
    }
}

/// Adds to a list with commas between, and keeps its end when it is too long: the last ones said are the ones nearest to us.
fn append(list: &mut Vec<u8>, value: &[u8]) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(value);
    let over = list.len().saturating_sub(MOST);
    list.drain(..over);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use hyper::Request;

    use super::*;

    fn forwarding(trusted: &[&str], strip: &str) -> Forwarding {
        Forwarding {
            trusted: trusted.iter().map(|network| network.parse().unwrap()).collect(),
            id: "gateway-1".to_owned(),
            prefix: Prefix::new(strip.to_owned(), String::new()),
        }
    }

    fn headers(
        forwarding: &Forwarding,
        peer: &str,
        sent: &[(&str, &str)],
    ) -> Result<HashMap<String, String>, Refusal> {
        let mut request = Request::get("/x");
        for (name, value) in sent {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let made = forwarding.headers(&Head::of(&request), peer.parse().unwrap(), "h:1")?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let count = made.len();
        let made: HashMap<_, _> =
            made.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), text(&value))).collect();
        assert_eq!(made.len(), count, "a header stands twice");
        Ok(made)
    }

    const CLAIMS: [(&str, &str); 7] = [
        ("x-forwarded-for", "10.0.0.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "elsewhere"),
        ("x-forwarded-port", "1"),
        ("x-real-ip", "10.0.0.9"),
        ("forwarded", "for=10.0.0.9"),
        ("accept", "all"),
    ];

    #[test]
    fn what_a_stranger_says_of_itself_is_replaced() {
        let made = headers(&forwarding(&["10.0.0.0/8"], ""), "192.0.2.1", &CLAIMS).unwrap();
        let expected = [
            ("host", "h:1"),
            ("accept", "all"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "h:1"),
            ("via", "1.1 gateway-1"),
        ];
        assert_eq!(made, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn what_a_trusted_proxy_says_is_extended() {
        let forwarding = forwarding(&["10.0.0.0/8"], "/ws");
        let sent = [&CLAIMS[..], &[("via", "1.1 proxy"), ("x-forwarded-prefix", "/a")]].concat();
        let made = headers(&forwarding, "::ffff:10.1.2.3", &sent).unwrap();
        for (name, value) in [
            ("x-forwarded-for", "10.0.0.9, 10.1.2.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "elsewhere"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "10.0.0.9"),
            ("forwarded", "for=10.0.0.9"),
            ("x-forwarded-prefix", "/a/ws"),
            ("via", "1.1 proxy, 1.1 gateway-1"),
        ] {
            assert_eq!(made[name], value, "{name}");
        }
        let long = "1.2.3.4, ".repeat(1000);
        let made = headers(&forwarding, "10.1.2.3", &[("x-forwarded-for", &long)]).unwrap();
        assert!(made["x-forwarded-for"].len() == MOST && made["x-forwarded-for"].ends_with(", 10.1.2.3"));
    }

    #[test]
    fn what_is_of_one_connection_alone_stays_there() {
        let sent = [
            ("connection", "Upgrade, X-Secret"),
            ("upgrade", "websocket"),
            ("x-secret", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic eDp4"),
            ("transfer-encoding", "chunked"),
            ("sec-websocket-key", "k"),
        ];
        let made = headers(&forwarding(&[], ""), "192.0.2.1", &sent).unwrap();
        let mut names: Vec<_> = made.keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected =
            ["host", "sec-websocket-key", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_circle_is_found() {
        let refused = headers(&forwarding(&[], ""), "192.0.2.1", &[("via", "1.1 other, 1.1 gateway-1")]);
        assert_eq!(refused.unwrap_err().status, 508);
        assert!(headers(&forwarding(&[], ""), "192.0.2.1", &[("via", "1.1 gateway-11")]).is_ok());
    }

    #[test]
    fn networks_are_their_first_bits() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network:?} {address}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8", "host", "10.0.0.1/"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
