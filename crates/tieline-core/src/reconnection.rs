//! The reconnection token of the reliable protocol: proves that a client is the one that was told it.
//!
//! It is a keyed digest of the connection's id, so that nothing is kept per connection. The secret is the store's, where there is
//! one that has told it, so that every node can check the tokens of one that is dead; else it is the node's own.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tieline_proto::ConnectionId;

/// Bytes of a secret.
pub(crate) const SECRET: usize = 32;

/// Makes and checks the tokens of one node.
#[derive(Debug)]
pub(crate) struct Reconnection {
    /// The node's own secret, of this start alone.
    own: hmac::Key,
    /// The secret of the store.
    shared: OnceLock<hmac::Key>,
}

impl Reconnection {
    /// With a secret of the node's own.
    pub(crate) fn new(secret: &[u8; SECRET]) -> Self {
        Reconnection { own: key(secret), shared: OnceLock::new() }
    }

    /// Makes tokens by the store's secret from now on. Those that were told before stay good at this node.
    pub(crate) fn share(&self, secret: &[u8; SECRET]) {
        // The store has one alone.
        let _ = self.shared.set(key(secret));
    }

    /// Whether the store's secret is known.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.get().is_some()
    }

    /// The token of a connection: 43 characters.
    pub(crate) fn token(&self, id: ConnectionId) -> String {
        let key = self.shared.get().unwrap_or(&self.own);
        URL_SAFE_NO_PAD.encode(hmac::sign(key, &id.to_bytes()))
    }

    /// Whether this is a token of that connection, compared in constant time.
    pub(crate) fn verify(&self, id: ConnectionId, token: &str) -> bool {
        self.verify_shared(id, token) || is_of(&self.own, id, token)
    }

    /// Whether it is one by the store's secret, whichever node has told it.
    pub(crate) fn verify_shared(&self, id: ConnectionId, token: &str) -> bool {
        self.shared.get().is_some_and(|key| is_of(key, id, token))
    }
}

fn key(secret: &[u8; SECRET]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn is_of(key: &hmac::Key, id: ConnectionId, token: &str) -> bool {
    let Ok(tag) = URL_SAFE_NO_PAD.decode(token) else { return false };
    hmac::verify(key, &id.to_bytes(), &tag).is_ok()
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

    #[test]
    fn tokens_by_the_secret_of_the_store_are_good_at_every_node() {
        let (one, two) = (Reconnection::new(&[1; 32]), Reconnection::new(&[2; 32]));
        let id = ConnectionId::new(Incarnation(7), 0, 1, 2, 3);
        let before = one.token(id);
        for node in [&one, &two] {
            assert!(!node.is_shared());
            node.share(&[3; 32]);
            assert!(node.is_shared());
        }
        let token = one.token(id);
        assert!(two.verify(id, &token) && two.verify_shared(id, &token));
        assert!(one.verify(id, &before) && !one.verify_shared(id, &before));
        assert!(!two.verify(id, &before));
    }
}
