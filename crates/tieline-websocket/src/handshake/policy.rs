//! What a server agrees to when permessage-deflate is offered (RFC 7692, 7.1).
//!
//! Tested here by tables of offers and answers, and with the client's side in `offer.rs`.

use super::extensions::Extension;
use super::params::{DeflateParams, MAX_BITS, MIN_BITS, Named};

/// What a server agrees to. The default is made for many connections: no context takeover in either direction, so
/// that one inflater, and one compressed form of a message, serve them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflatePolicy {
    /// Compress each message by itself, asked or not (RFC 7692, 7.1.1.1 permits it).
    pub server_no_context_takeover: bool,
    /// Demand that clients compress each message by itself (7.1.1.2 permits it).
    pub client_no_context_takeover: bool,
    /// The window to compress with, 9 to 15; a client may ask for a smaller one.
    pub server_max_window_bits: u8,
    /// The window that clients may compress with, 9 to 15. A client that does not offer to be limited is not.
    pub client_max_window_bits: u8,
}

impl Default for DeflatePolicy {
    fn default() -> Self {
        Self {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: MAX_BITS,
            client_max_window_bits: MAX_BITS,
        }
    }
}

impl DeflatePolicy {
    /// The answer to one offer, or `None` to decline it: it has unknown, repeated or bad parameters, or asks for a
    /// server's window of 2^8 bytes, which zlib cannot make.
    pub(super) fn answer(&self, offer: &Extension<'_>) -> Option<DeflateParams> {
        let named = Named::parse(offer)?;
        let server_bits = match named.server_bits {
            Some(None) => return None,
            Some(Some(bits)) => Some(bits),
            None => None,
        };
        let server_max_window_bits =
            server_bits.unwrap_or(MAX_BITS).min(self.server_max_window_bits.clamp(MIN_BITS, MAX_BITS));
        if server_max_window_bits < MIN_BITS {
            return None;
        }
        let client_max_window_bits = match named.client_bits {
            None => MAX_BITS,
            Some(hint) => hint.unwrap_or(MAX_BITS).min(self.client_max_window_bits.clamp(MIN_BITS, MAX_BITS)),
        };
        Some(DeflateParams {
            server_no_context_takeover: self.server_no_context_takeover || named.server_no_takeover,
            client_no_context_takeover: self.client_no_context_takeover || named.client_no_takeover,
            server_max_window_bits,
            client_max_window_bits,
            names_server_window: server_bits.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::{InflateMode, Role};
    use crate::handshake::extensions::parse;
    use crate::handshake::params::NAME;

    fn answer(policy: DeflatePolicy, offer: &str) -> Option<String> {
        let extension = parse(offer.as_bytes()).next().unwrap().unwrap();
        policy.answer(&extension).map(|params| params.header_value())
    }

    /// A policy that demands nothing.
    const OPEN: DeflatePolicy = DeflatePolicy {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    #[test]
    fn a_server_answers_what_it_is_asked() {
        let cases = [
            ("", ""),
            ("; server_no_context_takeover", "; server_no_context_takeover"),
            ("; client_no_context_takeover", "; client_no_context_takeover"),
            ("; server_max_window_bits=15", "; server_max_window_bits=15"),
            ("; server_max_window_bits=9", "; server_max_window_bits=9"),
            ("; client_max_window_bits", ""),
            ("; client_max_window_bits=10", "; client_max_window_bits=10"),
            ("; client_max_window_bits=\"10\"", "; client_max_window_bits=10"),
            ("; client_max_window_bits=8", "; client_max_window_bits=8"),
        ];
        for (offer, expected) in cases {
            assert_eq!(answer(OPEN, &format!("{NAME}{offer}")), Some(format!("{NAME}{expected}")), "{offer}");
        }
    }

    #[test]
    fn a_server_declines_what_is_wrong_or_impossible() {
        for offer in [
            "; server_max_window_bits=8",
            "; server_max_window_bits",
            "; server_max_window_bits=16",
            "; server_max_window_bits=09",
            "; server_max_window_bits=+9",
            "; client_max_window_bits=7",
            "; client_max_window_bits=x",
            "; client_max_window_bits; client_max_window_bits=10",
            "; server_no_context_takeover; server_no_context_takeover",
            "; server_no_context_takeover=1",
            "; client_no_context_takeover=true",
            "; something_new",
        ] {
            assert_eq!(answer(OPEN, &format!("{NAME}{offer}")), None, "{offer}");
        }
    }

    #[test]
    fn a_policy_is_answered_even_where_nobody_asked() {
        assert_eq!(
            answer(DeflatePolicy::default(), NAME).unwrap(),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        );
        let small = DeflatePolicy { server_max_window_bits: 11, client_max_window_bits: 10, ..OPEN };
        assert_eq!(
            answer(small, "permessage-deflate; client_max_window_bits").unwrap(),
            "permessage-deflate; server_max_window_bits=11; client_max_window_bits=10"
        );
        // A client that does not offer to be limited must not be.
        assert_eq!(answer(small, NAME).unwrap(), "permessage-deflate; server_max_window_bits=11");
    }

    #[test]
    fn each_end_inflates_as_the_other_deflates() {
        let extension = parse(b"permessage-deflate; client_no_context_takeover; server_max_window_bits=10");
        let params = OPEN.answer(&extension.last().unwrap().unwrap()).unwrap();
        assert_eq!(params.inflate_mode(Role::Server), InflateMode::Shared);
        assert_eq!(params.inflate_mode(Role::Client), InflateMode::Own { window_bits: 10 });
    }
}
