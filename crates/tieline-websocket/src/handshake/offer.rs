//! What a client offers for permessage-deflate, and whether an answer is one to that (RFC 7692, 7.1).
//!
//! Tested here by tables of answers, and against the server's policy with every combination.

use super::extensions::Extension;
use super::params::{DeflateParams, MAX_BITS, MIN_BITS, NAME, Named, SERVER_MAX_WINDOW_BITS};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateOffer {
    /// Ask the server to compress each message by itself.
    pub server_no_context_takeover: bool,
    /// Say that the client will compress each message by itself.
    pub client_no_context_takeover: bool,
    /// Ask the server for a window of at most 2^this many bytes, 8 to 15; 15 asks for nothing.
    pub server_max_window_bits: u8,
    /// The client's own window, 9 to 15; the server may ask for a smaller one.
    pub client_max_window_bits: u8,
}

impl Default for DeflateOffer {
    /// The largest windows, context taken over: the least bytes on the wire, the most memory.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: MAX_BITS,
            client_max_window_bits: MAX_BITS,
        }
    }
}

impl DeflateOffer {
    /// The value of `Sec-WebSocket-Extensions` in a client's request.
    pub fn header_value(&self) -> String {
        let mut value = String::from(NAME);
        if self.server_no_context_takeover {
            value.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            value.push_str("; client_no_context_takeover");
        }
        let (server, client) = self.windows();
        if server < MAX_BITS {
            value.push_str(&format!("; {SERVER_MAX_WINDOW_BITS}={server}"));
        }
        value.push_str("; client_max_window_bits");
        if client < MAX_BITS {
            value.push_str(&format!("={client}"));
        }
        value
    }

    /// The windows as they are offered, server's first: within what the protocol and zlib can do.
    fn windows(&self) -> (u8, u8) {
        (
            self.server_max_window_bits.clamp(8, MAX_BITS),
            self.client_max_window_bits.clamp(MIN_BITS, MAX_BITS),
        )
    }

    /// What an answer of a server to this offer means, or `None` when it is no answer to it.
    pub(super) fn agree(&self, answer: &Extension<'_>) -> Option<DeflateParams> {
        let named = Named::parse(answer)?;
        let (server_offer, client_offer) = self.windows();
        // In an answer both windows have a value.
        let server_bits = named.server_bits.map_or(Some(MAX_BITS), |bits| bits)?;
        let client_bits = named.client_bits.map_or(Some(client_offer), |bits| bits)?;
        // A server that accepts must stay within what it was asked; and a window of 2^8 cannot be made here.
        let keeps_takeover = named.server_no_takeover || !self.server_no_context_takeover;
        if !keeps_takeover
            || server_bits > server_offer
            || client_bits > client_offer
            || client_bits < MIN_BITS
        {
            return None;
        }
        Some(DeflateParams {
            server_no_context_takeover: named.server_no_takeover,
            client_no_context_takeover: named.client_no_takeover || self.client_no_context_takeover,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
            names_server_window: named.server_bits.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::DeflatePolicy;
    use crate::handshake::extensions::parse;

    /// A policy that demands nothing.
    const OPEN: DeflatePolicy = DeflatePolicy {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    #[test]
    fn both_ends_agree_on_every_combination() {
        let bools = [false, true];
        for (server, client) in (8..=15).flat_map(|server| (9..=15).map(move |client| (server, client))) {
            for (a, b) in bools.into_iter().flat_map(|a| bools.map(|b| (a, b))) {
                let offer = DeflateOffer {
                    server_no_context_takeover: a,
                    client_no_context_takeover: b,
                    server_max_window_bits: server,
                    client_max_window_bits: client,
                };
                for policy in
                    [OPEN, DeflatePolicy::default(), DeflatePolicy { client_max_window_bits: 12, ..OPEN }]
                {
                    let header = offer.header_value();
                    let extension = parse(header.as_bytes()).next().unwrap().unwrap();
                    let Some(at_server) = policy.answer(&extension) else {
                        assert_eq!(server, 8, "{header} was declined");
                        continue;
                    };
                    let header = at_server.header_value();
                    let extension = parse(header.as_bytes()).next().unwrap().unwrap();
                    let at_client = offer.agree(&extension).expect("an answer to the offer");
                    assert_eq!(at_client, at_server, "{offer:?} and {policy:?}");
                }
            }
        }
    }

    #[test]
    fn a_client_refuses_what_it_did_not_offer() {
        let offer = DeflateOffer {
            server_no_context_takeover: true,
            server_max_window_bits: 12,
            client_max_window_bits: 12,
            ..DeflateOffer::default()
        };
        let agree = |answer: &str| offer.agree(&parse(answer.as_bytes()).next().unwrap().unwrap());
        let good = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12";
        let params = agree(good).unwrap();
        assert_eq!((params.server_max_window_bits, params.client_max_window_bits), (12, 12));
        for bad in [
            "permessage-deflate; server_max_window_bits=12",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits",
        ] {
            assert_eq!(agree(bad), None, "{bad}");
        }
        for bad in ["client_max_window_bits=13", "client_max_window_bits", "client_max_window_bits=8"] {
            assert_eq!(agree(&format!("{good}; {bad}")), None, "{bad}");
        }
    }
}
