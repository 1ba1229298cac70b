//! The client's half: the bytes of the request, and the check of the answer. Connecting and TLS are the caller's.
//!
//! Tested here against the server's half and by spoiled answers; against a public server in `tests/`.

use base64::Engine;

use super::accept::{AcceptKey, BASE64};
use super::error::HandshakeError;
use super::offer::DeflateOffer;
use super::params::{DeflateParams, NAME};
use super::{extensions, has_element, is_token};

/// The longest head of an answer that is waited for.
const MAX_HEAD: usize = 16 * 1024;

/// The most headers of an answer.
const MAX_HEADERS: usize = 64;

/// A request to open a WebSocket, with the key that its answer must prove to know.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// The Host header.
    host: String,
    /// The path with its query.
    path: String,
    /// The value of `Sec-WebSocket-Key`.
    key: String,
    /// What is offered, best first.
    protocols: Vec<String>,
    /// Headers of the caller.
    headers: Vec<(String, String)>,
    /// The compression that is offered.
    deflate: Option<DeflateOffer>,
}

/// What the server agreed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAgreement {
    /// The subprotocol it chose, one of those offered.
    pub protocol: Option<String>,
    /// The compression, if it agreed to any.
    pub deflate: Option<DeflateParams>,
}

impl ClientRequest {
    /// A request for `path` (with its query, `/` at least) at `host` (with its port unless it is the scheme's own), with
    /// a random key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new(host: &str, path: &str) -> Result<Self, HandshakeError> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|_| HandshakeError::Random)?;
        Ok(Self::with_key(host, path, key))
    }

    /// The same with a key of the caller's, for tests that compare bytes.
    pub fn with_key(host: &str, path: &str, key: [u8; 16]) -> Self {
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            key: BASE64.encode(key),
            protocols: Vec::new(),
            headers: Vec::new(),
            deflate: None,
        }
    }

    /// Offers a subprotocol, after those offered before.
    #[must_use]
    pub fn protocol(mut self, name: &str) -> Self {
        self.protocols.push(name.to_owned());
        self
    }

    /// Adds a header, such as `Origin` or `Authorization`.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Offers permessage-deflate.
    #[must_use]
    pub fn deflate(mut self, offer: DeflateOffer) -> Self {
        self.deflate = Some(offer);
        self
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// [`HandshakeError::Unsendable`] when a part would break out of its line, or is empty where it must not be.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HandshakeError> {
        let is_visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_value = |text: &str| text.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f);
        if !is_visible(&self.host) {
            return Err(HandshakeError::Unsendable("host"));
        }
        if !is_visible(&self.path) || !self.path.starts_with('/') {
            return Err(HandshakeError::Unsendable("path"));
        }
        if !self.protocols.iter().all(|name| is_token(name.as_bytes())) {
            return Err(HandshakeError::Unsendable("subprotocol"));
        }
        if !self.headers.iter().all(|(name, value)| is_token(name.as_bytes()) && is_value(value)) {
            return Err(HandshakeError::Unsendable("header"));
        }
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
            self.path, self.host, self.key
        );
        if !self.protocols.is_empty() {
            head.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", self.protocols.join(", ")));
        }
        if let Some(offer) = &self.deflate {
            head.push_str(&format!("Sec-WebSocket-Extensions: {}\r\n", offer.header_value()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    /// Checks the answer at the start of `bytes`, and says how many bytes its head took; `None` while it is incomplete:
    /// call again with more. What follows the head are the first frames.
    ///
    /// # Errors
    /// When the server refuses, or answers something else than it was asked.
    pub fn parse_response(&self, bytes: &[u8]) -> Result<Option<(ClientAgreement, usize)>, HandshakeError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let head_len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
            _ => return Err(HandshakeError::Response),
        };
        match response.code {
            Some(101) => {}
            code => return Err(code.map_or(HandshakeError::Response, HandshakeError::Refused)),
        }
        let values = |name: &'static str| {
            let found = response.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| header.value)
        };
        let upgraded = values("upgrade").any(|value| has_element(value, "websocket"));
        if !upgraded || !values("connection").any(|value| has_element(value, "upgrade")) {
            return Err(HandshakeError::NotUpgraded);
        }
        let expected = AcceptKey::of(self.key.as_bytes());
        let mut accepts = values("sec-websocket-accept");
        let accept = accepts.next().map(<[u8]>::trim_ascii);
        if accept != Some(expected.as_str().as_bytes()) || accepts.next().is_some() {
            return Err(HandshakeError::Accept);
        }
        let mut protocols = values("sec-websocket-protocol").map(<[u8]>::trim_ascii);
        let protocol = match (protocols.next(), protocols.next()) {
            (None, _) => None,
            (Some(chosen), None) => {
                let offered = self.protocols.iter().find(|name| name.as_bytes() == chosen);
                Some(offered.ok_or(HandshakeError::Protocol)?.clone())
            }
            _ => return Err(HandshakeError::Protocol),
        };
        let mut deflate = None;
        for extension in values("sec-websocket-extensions").flat_map(extensions::parse) {
            let extension = extension.map_err(|extensions::Malformed| HandshakeError::Extension)?;
            let offer = self.deflate.filter(|_| extension.name == NAME && deflate.is_none());
            let params = offer.and_then(|offer| offer.agree(&extension)).ok_or(HandshakeError::Extension)?;
            deflate = Some(params);
        }
        Ok(Some((ClientAgreement { protocol, deflate }, head_len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{DeflatePolicy, Upgrade, response_head};

    fn request() -> ClientRequest {
        ClientRequest::with_key("h:80", "/chat?x=1", *b"the sample nonce")
            .protocol("chat")
            .protocol("superchat")
            .header("Origin", "http://example.com")
            .deflate(DeflateOffer::default())
    }

    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn answered(more: &str) -> Result<Option<(ClientAgreement, usize)>, HandshakeError> {
        request().parse_response(format!("{ANSWER}{more}\r\n").as_bytes())
    }

    #[test]
    fn the_bytes_of_a_request() {
        let expected = "GET /chat?x=1 HTTP/1.1\r\nHost: h:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Protocol: chat, superchat\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
            Origin: http://example.com\r\n\r\n";
        assert_eq!(String::from_utf8(request().to_bytes().unwrap()).unwrap(), expected);
    }

    #[test]
    fn the_servers_half_accepts_it_and_the_answer_comes_back_at_every_cut() {
        let bytes = request().to_bytes().unwrap();
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(&bytes).unwrap().is_complete());
        let headers = parsed.headers.iter().map(|header| (header.name, header.value));
        let upgrade = Upgrade::from_request("GET", 1, headers).unwrap();
        let params = upgrade.negotiate_deflate(&DeflatePolicy::default()).unwrap();
        let head = response_head(upgrade.accept_key(), upgrade.protocols().nth(1), Some(&params));
        for cut in 0..head.len() {
            assert_eq!(request().parse_response(&head.as_bytes()[..cut]), Ok(None), "cut at {cut}");
        }
        let with_frame = format!("{head}\u{1}");
        let (agreement, used) = request().parse_response(with_frame.as_bytes()).unwrap().unwrap();
        assert_eq!(used, head.len());
        assert_eq!(agreement.protocol.as_deref(), Some("superchat"));
        assert_eq!(agreement.deflate, Some(params));
    }

    #[test]
    fn answers_to_another_question_are_refused() {
        assert_eq!(answered("").unwrap().unwrap().0, ClientAgreement::default());
        let cases = [
            ("Sec-WebSocket-Protocol: other\r\n", HandshakeError::Protocol),
            ("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n", HandshakeError::Protocol),
            ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", HandshakeError::Accept),
            ("Sec-WebSocket-Extensions: x-other\r\n", HandshakeError::Extension),
            ("Sec-WebSocket-Extensions: permessage-deflate; what\r\n", HandshakeError::Extension),
            (
                "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\n",
                HandshakeError::Extension,
            ),
            ("Sec-WebSocket-Extensions: permessage-deflate;;\r\n", HandshakeError::Extension),
        ];
        for (more, error) in cases {
            assert_eq!(answered(more), Err(error), "{more}");
        }
        let cases = [
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", HandshakeError::Refused(401)),
            ("SMTP\r\n\r\n", HandshakeError::Response),
            ("HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n", HandshakeError::NotUpgraded),
            ("HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n", HandshakeError::NotUpgraded),
            ("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", HandshakeError::Accept),
        ];
        for (answer, error) in cases {
            assert_eq!(request().parse_response(answer.as_bytes()), Err(error), "{answer}");
        }
    }

    #[test]
    fn an_endless_head_is_given_up() {
        let endless = format!("{ANSWER}X: {}", "a".repeat(MAX_HEAD));
        assert_eq!(request().parse_response(endless.as_bytes()), Err(HandshakeError::Response));
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let new = |host: &str, path: &str| ClientRequest::with_key(host, path, [0; 16]);
        let bad = [
            (new("", "/"), "host"),
            (new("h\r\nX: y", "/"), "host"),
            (new("h", "no-slash"), "path"),
            (new("h", "/a b"), "path"),
            (new("h", "/").protocol("a,b"), "subprotocol"),
            (new("h", "/").header("X", "a\r\nY: b"), "header"),
            (new("h", "/").header("X Y", "a"), "header"),
        ];
        for (request, part) in bad {
            assert_eq!(request.to_bytes(), Err(HandshakeError::Unsendable(part)), "{request:?}");
        }
    }

    #[test]
    fn keys_are_random() {
        let [a, b] = [(); 2].map(|()| ClientRequest::new("h", "/").unwrap().key);
        assert_ne!(a, b);
        assert_eq!(a.len(), 24);
    }
}
