//! What the two ends have agreed on for permessage-deflate (RFC 7692, 7.1), and the parameters as they are written.
//! How they come to agree is in `policy.rs` and `offer.rs`, and so are the tests.

use super::extensions::Extension;
use crate::decoder::{InflateMode, Role};
use crate::deflate::Deflater;

/// The extension's name on the wire.
pub(super) const NAME: &str = "permessage-deflate";

pub(super) const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
pub(super) const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
pub(super) const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
pub(super) const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The largest window, which is meant where none is named.
pub(super) const MAX_BITS: u8 = 15;

/// The smallest window that zlib can compress with; RFC 7692 also knows 8.
pub(super) const MIN_BITS: u8 = 9;

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
    pub(super) names_server_window: bool,
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

/// The parameters of an offer or an answer, as they are written.
#[derive(Default)]
pub(super) struct Named {
    /// `server_no_context_takeover` is named.
    pub(super) server_no_takeover: bool,
    /// `client_no_context_takeover` is named.
    pub(super) client_no_takeover: bool,
    /// The server's window; outer: whether it is named; inner: its value, if it has one.
    pub(super) server_bits: Option<Option<u8>>,
    /// The same for the client's window.
    pub(super) client_bits: Option<Option<u8>>,
}

impl Named {
    /// `None` for unknown or repeated parameters and for bad values (RFC 7692, 7).
    pub(super) fn parse(extension: &Extension<'_>) -> Option<Self> {
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
