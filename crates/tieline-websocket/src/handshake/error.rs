//! Why a handshake fails, with the status and the headers that tell a client so.

use thiserror::Error;

/// Why a handshake fails.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The request is not a GET.
    #[error("the method of a WebSocket request must be GET")]
    Method,
    /// The request is older than HTTP/1.1.
    #[error("WebSocket needs HTTP/1.1")]
    HttpVersion,
    /// The request does not ask for an upgrade to WebSocket.
    #[error("this address is for WebSocket: the request lacks `Upgrade: websocket`")]
    NoUpgrade,
    /// The request's Connection header does not name the upgrade.
    #[error("the Connection header does not contain `upgrade`")]
    NoConnectionUpgrade,
    /// The request asks for a version other than 13, or for none.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// The key is missing, there twice, or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be there once, with 16 bytes in base64")]
    Key,
    /// What a client is about to send is not a valid request line or header.
    #[error("the {0} of the request cannot be sent as it is")]
    Unsendable(&'static str),
    /// The operating system has no randomness for a client's key.
    #[error("the operating system gives no random bytes")]
    Random,
    /// The server's answer is not HTTP, or its head is longer than a client reads.
    #[error("the server's answer is not a valid HTTP head of acceptable size")]
    Response,
    /// The server answers with another status than 101.
    #[error("the server answered with status {0}")]
    Refused(u16),
    /// The server's answer says 101, but not that it speaks WebSocket.
    #[error("the server's answer lacks `Upgrade: websocket` or `Connection: upgrade`")]
    NotUpgraded,
    /// The server's answer does not prove that it read the key.
    #[error("Sec-WebSocket-Accept does not match the key")]
    Accept,
    /// The server chose a subprotocol that was not offered.
    #[error("the server chose a subprotocol that was not offered")]
    Protocol,
    /// The server agreed to an extension that was not offered, or to parameters that were not.
    #[error("the server agreed to an extension as it was not offered")]
    Extension,
}

impl HandshakeError {
    /// The HTTP status a server answers a bad request with; 502 for what a client finds wrong with a server.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Method => 405,
            Self::HttpVersion => 505,
            Self::NoUpgrade | Self::Version => 426,
            Self::NoConnectionUpgrade | Self::Key => 400,
            Self::Unsendable(_) | Self::Random => 500,
            _ => 502,
        }
    }

    /// The header that goes with [`status`](Self::status), where HTTP asks for one: name and value.
    pub const fn header(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Method => Some(("allow", "GET")),
            Self::NoUpgrade => Some(("upgrade", "websocket")),
            Self::Version => Some(("sec-websocket-version", "13")),
            _ => None,
        }
    }
}
