//! The reconnection token of the reliable protocol: proves that a client is the one that was told it.
//!
//! It is a keyed digest of the connection's id under a secret of the node, so that nothing is kept per connection.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tieline_proto::ConnectionId;

/// Makes and checks the tokens of one node.
#[derive(Debug)]
pub(crate) struct Reconnection(hmac::Key);

impl Reconnection {
    /// With a secret of 32 bytes.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Reconnection(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The token of a connection: 43 characters.
    pub(crate) fn token(&self, id: ConnectionId) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, &id.to_bytes()))
    }

    /// Whether this is the token of that connection, compared in constant time.
    pub(crate) fn verify(&self, id: ConnectionId, token: &str) -> bool {
        let Ok(tag) = URL_SAFE_NO_PAD.decode(token) else { return false };
        hmac::verify(&self.0, &id.to_bytes(), &tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use tieline_proto::Incarnation;

    use super::*;

    #[test]
    fn only_the_token_of_this_connection_and_secret_is_accepted() {
        let (ours, theirs) = (Reconnection::new(&[1; 32]), Reconnection::new(&[2; 32]));
        let id = ConnectionId::new(Incarnation(7), 0, 1, 2, 3);
        let next = ConnectionId::new(Incarnation(7), 0, 1, 3, 3);
        let token = ours.token(id);
        assert!(ours.verify(id, &token));
        assert!(!ours.verify(next, &token));
        assert!(!theirs.verify(id, &token));
        for forged in ["", "a", "ü", &token[1..], &token.repeat(2)] {
            assert!(!ours.verify(id, forged), "{forged:?} was accepted");
        }
    }
}
