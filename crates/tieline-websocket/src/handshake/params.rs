//! What the two ends agree on for permessage-deflate (RFC 7692, 7.1): a server's policy, a client's offer, and the
//! parameters that come of them.
//!
//! Tested here by tables of offers and answers.

use super::extensions::Extension;
use crate::decoder::{InflateMode, Role};
use crate::deflate::Deflater;

/// The extension's name on the wire.
pub(super) const NAME: &str = "permessage-deflate";

const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The largest window, which is meant where none is named.
const MAX_BITS: u8 = 15;

/// The smallest window that zlib can compress with; RFC 7692 also knows 8.
const MIN_BITS: u8 = 9;

/// What both ends have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateParams {
    /// The server compresses each message by itself.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself.
    pub client_no_context_takeover: bool,
    /// The server's window is at most 2^this many bytes: 9 to 15 at a server, 8 to 15 at a client.
    pub server_max_window_bits: u8,
    /// The client's window is at most 2^this many bytes: 8 to 15 at a server, 9 to 15 at a client.
    pub client_max_window_bits: u8,
    /// Whether the client offered a window for the server, and so must find one in the answer.
    names_server_window: bool,
}

impl DeflateParams {
    /// The value of `Sec-WebSocket-Extensions` in a server's answer.
    pub fn header_value(&self) -> String {
        let mut value = String::from(NAME);
        if self.server_no_context_takeover {
            value.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            value.push_str("; client_no_context_takeover");
        }
        if self.names_server_window || self.server_max_window_bits < MAX_BITS {
            value.push_str(&format!("; {SERVER_MAX_WINDOW_BITS}={}", self.server_max_window_bits));
        }
        // Below 15 only if the client offered it; otherwise it must not be in the answer (7.1.2.2).
        if self.client_max_window_bits < MAX_BITS {
            value.push_str(&format!("; {CLIENT_MAX_WINDOW_BITS}={}", self.client_max_window_bits));
        }
        value
    }

    /// How the decoder of `role` inflates.
    pub fn inflate_mode(&self, role: Role) -> InflateMode {
        let (no_context_takeover, window_bits) = match role {
            Role::Server => (self.client_no_context_takeover, self.client_max_window_bits),
            Role::Client => (self.server_no_context_takeover, self.server_max_window_bits),
        };
        if no_context_takeover { InflateMode::Shared } else { InflateMode::Own { window_bits } }
    }

    /// A compressor for the messages that `role` sends on this connection. Where it may not take over context, one
    /// [`Deflater::new`] with that window can serve many connections instead.
    pub fn deflater(&self, role: Role) -> Deflater {
        let (no_context_takeover, window_bits) = match role {
            Role::Server => (self.server_no_context_takeover, self.server_max_window_bits),
            Role::Client => (self.client_no_context_takeover, self.client_max_window_bits),
        };
        // A smaller window than agreed is always right, but 8 is not to be had: negotiation never lets it through.
        let window_bits = window_bits.clamp(MIN_BITS, MAX_BITS);
        if no_context_takeover {
            Deflater::new(window_bits)
        } else {
            Deflater::with_context_takeover(window_bits)
        }
    }
}

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
    #[cfg(feature = "client")]
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

/// The parameters of an offer or an answer, as they are written.
#[derive(Default)]
struct Named {
    server_no_takeover: bool,
    client_no_takeover: bool,
    /// Outer: whether it is named; inner: its value, if it has one.
    server_bits: Option<Option<u8>>,
    /// The same for the client's window.
    client_bits: Option<Option<u8>>,
}

impl Named {
    /// `None` for unknown or repeated parameters and for bad values (RFC 7692, 7).
    fn parse(extension: &Extension<'_>) -> Option<Self> {
        let mut named = Self::default();
        for &(name, value) in &extension.params {
            let repeated = match name {
                SERVER_NO_CONTEXT_TAKEOVER if value.is_none() => {
                    std::mem::replace(&mut named.server_no_takeover, true)
                }
                CLIENT_NO_CONTEXT_TAKEOVER if value.is_none() => {
                    std::mem::replace(&mut named.client_no_takeover, true)
                }
                SERVER_MAX_WINDOW_BITS => named.server_bits.replace(window_bits(value)?).is_some(),
                CLIENT_MAX_WINDOW_BITS => named.client_bits.replace(window_bits(value)?).is_some(),
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        Some(named)
    }
}

/// A window's value: absent, or 8 to 15 in decimal without leading zeros. `None` for anything else.
fn window_bits(value: Option<&str>) -> Option<Option<u8>> {
    let Some(value) = value else { return Some(None) };
    match value.parse() {
        Ok(bits @ 8..=MAX_BITS) if !value.starts_with(['0', '+']) => Some(Some(bits)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
