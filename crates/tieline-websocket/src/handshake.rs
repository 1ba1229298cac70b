//! The opening handshake (RFC 6455, 4) and the negotiation of permessage-deflate (RFC 7692, 7.1): the server's half on
//! headers that an HTTP library has parsed, the client's half on bytes.
//!
//! Tested in the files below it, with the RFC's own example, and by a public client and server over TCP in `tests/`.

mod accept;
#[cfg(feature = "client")]
mod client;
mod error;
mod extensions;
#[cfg(feature = "client")]
mod offer;
mod params;
mod policy;
mod server;

pub use accept::AcceptKey;
#[cfg(feature = "client")]
pub use client::{ClientAgreement, ClientRequest};
pub use error::HandshakeError;
#[cfg(feature = "client")]
pub use offer::DeflateOffer;
pub use params::DeflateParams;
pub use policy::DeflatePolicy;
pub use server::{Upgrade, response_head};

/// Whether `text` is a token of HTTP (RFC 9110, 5.6.2), as names of headers, subprotocols and extensions are.
pub(crate) fn is_token(text: &[u8]) -> bool {
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token_byte)
}

/// The elements of a comma-separated header, without the white space around them and without empty ones.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Whether a comma-separated header has `element`, whatever its case.
pub(crate) fn has_element(value: &[u8], element: &str) -> bool {
    elements(value).any(|found| found.eq_ignore_ascii_case(element.as_bytes()))
}
