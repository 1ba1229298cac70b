//! [`ConnectionId`]: the address of one WebSocket, readable without a table.
//!
//! It holds where the connection lives (incarnation of its node, shard, slot), which use of the slot it is
//! (generation), and random bits that make it hard to guess. It proves nothing by itself: a stale id is told
//! from a live one by comparing it with what the slot holds now.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{IdError, Incarnation, serde_as_text};

/// The largest slot number: slots have 24 bits.
const MAX_SLOT: u32 = (1 << 24) - 1;

/// One WebSocket connection: 20 bytes, as text 27 characters of base64url without padding.
///
/// Ordered by its parts, the incarnation first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId([u8; ConnectionId::BYTES]);

impl ConnectionId {
    /// Length of the binary form, in bytes.
    pub const BYTES: usize = 20;
    /// Length of the text form, in characters (all ASCII).
    pub const TEXT: usize = 27;
    /// The largest slot number an id can hold.
    pub const MAX_SLOT: u32 = MAX_SLOT;

    /// Puts an id together. `random` is drawn by the caller.
    ///
    /// # Panics
    /// When `slot` is above [`ConnectionId::MAX_SLOT`]: a shard bounds its slab far below that.
    #[must_use]
    pub const fn new(incarnation: Incarnation, shard: u8, slot: u32, generation: u32, random: u32) -> Self {
        assert!(slot <= MAX_SLOT, "a slot number has 24 bits");
        let i = incarnation.0.to_be_bytes();
        let s = slot.to_be_bytes();
        let g = generation.to_be_bytes();
        let r = random.to_be_bytes();
        ConnectionId([
            i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7], shard, s[1], s[2], s[3], g[0], g[1], g[2], g[3],
            r[0], r[1], r[2], r[3],
        ])
    }

    /// The incarnation of the node that made the connection.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        let b = self.0;
        Incarnation(u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }

    /// The shard that owns the connection's socket.
    #[must_use]
    pub const fn shard(self) -> u8 {
        self.0[8]
    }

    /// The place in the shard's slab.
    #[must_use]
    pub const fn slot(self) -> u32 {
        u32::from_be_bytes([0, self.0[9], self.0[10], self.0[11]])
    }

    /// How often the slot had been used when this connection took it.
    #[must_use]
    pub const fn generation(self) -> u32 {
        u32::from_be_bytes([self.0[12], self.0[13], self.0[14], self.0[15]])
    }

    /// The bits that make the id hard to guess.
    #[must_use]
    pub const fn random(self) -> u32 {
        u32::from_be_bytes([self.0[16], self.0[17], self.0[18], self.0[19]])
    }

    /// The binary form, most significant byte of each part first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0
    }

    /// Reads the binary form. Every 20 bytes are an id.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        ConnectionId(bytes)
    }

    /// The text form, without an allocation.
    #[must_use]
    pub fn to_text(self) -> [u8; Self::TEXT] {
        let mut text = [0; Self::TEXT];
        URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).expect("20 bytes take 27 characters");
        text
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).expect("base64 is ASCII"))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConnectionId {
    type Err = IdError;

    /// Only the one text that [`ConnectionId`] itself prints is accepted: two texts must never mean one
    /// connection.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0; Self::BYTES];
        // The engine refuses padding, foreign letters, and spare bits that are not zero.
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(Self::BYTES) => Ok(ConnectionId(bytes)),
            _ => Err(IdError("connection id")),
        }
    }
}

serde_as_text!(ConnectionId);
