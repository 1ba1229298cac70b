//! The server's half: is this request a WebSocket request, and how is it answered? Reading HTTP is the caller's; so
//! are the host, the origin and who may connect.
//!
//! Tested here by removing and spoiling one header after the other.

use super::accept::{AcceptKey, is_key};
use super::error::HandshakeError;
use super::params::{DeflateParams, NAME};
use super::policy::DeflatePolicy;
use super::{elements, extensions, has_element, is_token};

/// A client's request to open a WebSocket, found valid.
#[derive(Clone, Debug)]
pub struct Upgrade<'a> {
    /// The value of `Sec-WebSocket-Key`: 24 characters.
    key: &'a [u8],
    /// The values of `Sec-WebSocket-Protocol`, in order.
    protocols: Vec<&'a [u8]>,
    /// The values of `Sec-WebSocket-Extensions`, in order.
    extensions: Vec<&'a [u8]>,
}

impl<'a> Upgrade<'a> {
    /// Validates a request. `http_minor` is the x of HTTP/1.x. The headers may come from any HTTP library, as names and
    /// values in their order; how many there may be is for that library to bound.
    ///
    /// # Errors
    /// In the order in which they are looked at: method, HTTP version, upgrade, WebSocket version, key.
    pub fn from_request(
        method: &str,
        http_minor: u8,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, HandshakeError> {
        if method != "GET" {
            return Err(HandshakeError::Method);
        }
        if http_minor < 1 {
            return Err(HandshakeError::HttpVersion);
        }
        let (mut upgrade, mut connection) = (false, false);
        let (mut versions, mut is_13) = (0, false);
        let (mut keys, mut key) = (0, &b""[..]);
        let (mut protocols, mut extensions) = (Vec::new(), Vec::new());
        for (name, value) in headers {
            // By length first: most headers of a browser are none of these.
            match name.len() {
                7 if name.eq_ignore_ascii_case("upgrade") => upgrade |= has_element(value, "websocket"),
                10 if name.eq_ignore_ascii_case("connection") => connection |= has_element(value, "upgrade"),
                17 if name.eq_ignore_ascii_case("sec-websocket-key") => {
                    keys += 1;
                    key = value.trim_ascii();
                }
                21 if name.eq_ignore_ascii_case("sec-websocket-version") => {
                    versions += 1;
                    is_13 = value.trim_ascii() == b"13";
                }
                22 if name.eq_ignore_ascii_case("sec-websocket-protocol") => protocols.push(value),
                24 if name.eq_ignore_ascii_case("sec-websocket-extensions") => extensions.push(value),
                _ => {}
            }
        }
        if !upgrade {
            return Err(HandshakeError::NoUpgrade);
        }
        if !connection {
            return Err(HandshakeError::NoConnectionUpgrade);
        }
        if versions != 1 || !is_13 {
            return Err(HandshakeError::Version);
        }
        if keys != 1 || !is_key(key) {
            return Err(HandshakeError::Key);
        }
        Ok(Self { key, protocols, extensions })
    }

    /// The value of `Sec-WebSocket-Accept` for the answer.
    pub fn accept_key(&self) -> AcceptKey {
        AcceptKey::of(self.key)
    }

    /// The subprotocols that the client offers, best first. What is no token is left out.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> {
        let all = self.protocols.iter().flat_map(|value| elements(value));
        all.filter(|name| is_token(name)).filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// The parameters for the first offer of permessage-deflate that can be accepted; `None` means no compression.
    ///
    /// The answer must carry [`DeflateParams::header_value`], or the client will not know.
    pub fn negotiate_deflate(&self, policy: &DeflatePolicy) -> Option<DeflateParams> {
        let offers = self.extensions.iter().flat_map(|value| extensions::parse(value).map_while(Result::ok));
        offers.filter(|offer| offer.name == NAME).find_map(|offer| policy.answer(&offer))
    }
}

/// The whole answer that accepts a request, for servers that write HTTP by hand.
///
/// `protocol` must be one of [`Upgrade::protocols`], which are tokens and so cannot break out of their header.
pub fn response_head(accept: AcceptKey, protocol: Option<&str>, deflate: Option<&DeflateParams>) -> String {
    let mut head = String::with_capacity(320);
    head.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    head.push_str("Sec-WebSocket-Accept: ");
    head.push_str(accept.as_str());
    head.push_str("\r\n");
    if let Some(protocol) = protocol {
        debug_assert!(is_token(protocol.as_bytes()), "{protocol:?} was not offered");
        head.push_str("Sec-WebSocket-Protocol: ");
        head.push_str(protocol);
        head.push_str("\r\n");
    }
    if let Some(deflate) = deflate {
        head.push_str("Sec-WebSocket-Extensions: ");
        head.push_str(&deflate.header_value());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 8] = [
        ("Host", "server.example.com"),
        ("UPGRADE", "h2c, WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", " dGhlIHNhbXBsZSBub25jZQ== "),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Version", "13"),
        ("sec-websocket-protocol", " , not a token,last"),
        ("Sec-WebSocket-Extensions", "x, permessage-deflate; server_max_window_bits=8, permessage-deflate"),
    ];

    fn parse<'a>(headers: &[(&'a str, &'a str)]) -> Result<Upgrade<'a>, HandshakeError> {
        Upgrade::from_request("GET", 1, headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    /// The good request with the header `name` replaced, or removed.
    fn changed(name: &str, value: Option<&'static str>) -> Result<(), HandshakeError> {
        let mut headers: Vec<_> =
            GOOD.iter().copied().filter(|(n, _)| !n.eq_ignore_ascii_case(name)).collect();
        assert!(headers.len() < GOOD.len());
        headers.extend(value.map(|value| ("Upgrade", value)).filter(|_| name == "upgrade"));
        headers.extend(value.map(|value| ("Connection", value)).filter(|_| name == "connection"));
        headers.extend(value.map(|v| ("Sec-WebSocket-Key", v)).filter(|_| name == "sec-websocket-key"));
        headers
            .extend(value.map(|v| ("Sec-WebSocket-Version", v)).filter(|_| name == "sec-websocket-version"));
        parse(&headers).map(|_| ())
    }

    #[test]
    fn a_good_request_gives_key_protocols_and_deflate() {
        let upgrade = parse(&GOOD).unwrap();
        assert_eq!(upgrade.accept_key().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["chat", "superchat", "last"]);
        // The first offer of deflate asks for a window that cannot be had; the second does.
        let params = upgrade.negotiate_deflate(&DeflatePolicy::default()).unwrap();
        assert_eq!(params.server_max_window_bits, 15);
        assert_eq!(
            response_head(upgrade.accept_key(), Some("chat"), Some(&params)),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover\r\n\r\n"
        );
    }

    #[test]
    fn each_thing_missing_or_wrong_has_its_error_and_status() {
        let cases = [
            ("upgrade", None, HandshakeError::NoUpgrade, 426),
            ("upgrade", Some("websockets"), HandshakeError::NoUpgrade, 426),
            ("connection", None, HandshakeError::NoConnectionUpgrade, 400),
            ("connection", Some("close"), HandshakeError::NoConnectionUpgrade, 400),
            ("sec-websocket-version", None, HandshakeError::Version, 426),
            ("sec-websocket-version", Some("8"), HandshakeError::Version, 426),
            ("sec-websocket-key", None, HandshakeError::Key, 400),
            ("sec-websocket-key", Some("c2hvcnQ="), HandshakeError::Key, 400),
        ];
        for (name, value, error, status) in cases {
            assert_eq!(changed(name, value), Err(error.clone()), "{name}: {value:?}");
            assert_eq!(error.status(), status);
        }
        assert_eq!(HandshakeError::Version.header(), Some(("sec-websocket-version", "13")));
    }

    #[test]
    fn method_and_http_version_come_first() {
        let headers = || GOOD.iter().map(|(name, value)| (*name, value.as_bytes()));
        let post = Upgrade::from_request("POST", 1, headers()).unwrap_err();
        assert_eq!((post.status(), post.header()), (405, Some(("allow", "GET"))));
        let old = Upgrade::from_request("GET", 0, headers()).unwrap_err();
        assert_eq!(old, HandshakeError::HttpVersion);
    }

    #[test]
    fn a_second_key_is_refused() {
        let mut headers = GOOD.to_vec();
        headers.push(GOOD[3]);
        assert_eq!(parse(&headers).unwrap_err(), HandshakeError::Key);
    }
}
