//! [`Subprotocol`]: what a connection speaks, and how the switchboard is told.

use tieline_proto::Dialect;
use tieline_proto::reply::Wire;
use tieline_switchboard::Format;

/// What stands before and behind the sequence number in a frame of the reliable protocol: the switchboard joins
/// them with the number and the tail that all recipients share.
pub const NUMBERING: (&[u8], &[u8]) = (b"{\"sequenceId\":", b",");

/// The language of one connection, chosen in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subprotocol {
    /// `json.webpubsub.azure.v1`.
    Azure,
    /// `json.reliable.webpubsub.azure.v1`.
    AzureReliable,
    /// `tieline.v1`.
    Tieline,
    /// None was asked for: plain chat JSON.
    Plain,
}

impl Subprotocol {
    /// The dialect of its requests; plain JSON has a parser of its own.
    pub fn dialect(self) -> Option<Dialect> {
        match self {
            Subprotocol::Azure => Some(Dialect::Azure),
            Subprotocol::AzureReliable => Some(Dialect::AzureReliable),
            Subprotocol::Tieline => Some(Dialect::Tieline),
            Subprotocol::Plain => None,
        }
    }

    /// How frames to such a connection are encoded, `deflate` being the negotiated window in bits or 0.
    pub fn format(self, deflate: u8) -> Format {
        let (wire, numbered) = match self {
            Subprotocol::Azure => (Wire::Azure, false),
            Subprotocol::AzureReliable => (Wire::Azure, true),
            Subprotocol::Tieline => (Wire::Tieline, false),
            Subprotocol::Plain => (Wire::Plain, false),
        };
        Format { wire: number(wire), numbered, deflate }
    }
}

impl From<Dialect> for Subprotocol {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Azure => Subprotocol::Azure,
            Dialect::AzureReliable => Subprotocol::AzureReliable,
            Dialect::Tieline => Subprotocol::Tieline,
        }
    }
}

/// The switchboard knows encodings by number.
fn number(wire: Wire) -> u8 {
    match wire {
        Wire::Azure => 0,
        Wire::Tieline => 1,
        Wire::Plain => 2,
    }
}

/// The encoding of a number that [`Subprotocol::format`] gave out.
pub(crate) fn wire(number: u8) -> Wire {
    match number {
        0 => Wire::Azure,
        1 => Wire::Tieline,
        _ => Wire::Plain,
    }
}
