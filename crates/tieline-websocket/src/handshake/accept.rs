//! The proof that a server read the client's key (RFC 6455, 4.2.2). Not a security measure: it only tells a WebSocket
//! server from an HTTP server that echoes.
//!
//! Tested with the RFC's example, and by a public client in `tests/`.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

/// Appended to every key before hashing.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Base64 with padding. The last symbol of a key has four bits to spare, and some clients fill all of their key's
/// characters at random, so those bits are not looked at.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The value of `Sec-WebSocket-Accept`: 28 characters, on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AcceptKey([u8; 28]);

impl AcceptKey {
    /// The answer to a value of `Sec-WebSocket-Key`.
    pub fn of(key: &[u8]) -> Self {
        let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
        let mut text = [0; 28];
        BASE64.encode_slice(digest, &mut text).expect("20 bytes are 28 characters of base64");
        Self(text)
    }

    /// The value of the header.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

impl std::fmt::Display for AcceptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for AcceptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AcceptKey").field(&self.as_str()).finish()
    }
}

/// Whether a key is 16 bytes in base64.
pub(super) fn is_key(key: &[u8]) -> bool {
    // The decoder may write three bytes for each four characters before it knows of the padding.
    let mut bytes = [0; 18];
    key.len() == 24 && BASE64.decode_slice(key, &mut bytes) == Ok(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        let accept = AcceptKey::of(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept.to_string(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept.as_str().len(), 28);
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_key(b"AAAAAAAAAAAAAAAAAAAAAB=="), "spare bits are not looked at");
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZWE=", "dGhlIHNhbXBsZSBub25j!Q=="] {
            assert!(!is_key(bad.as_bytes()), "{bad}");
        }
    }
}
