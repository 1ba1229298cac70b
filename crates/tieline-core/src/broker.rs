//! [`Broker`]: how an envelope reaches all the other nodes, or one of them.
//!
//! A broker carries bytes and knows no more of them than their bounds. Numbering, gaps and duplicates are the
//! cluster's business; a broker only has to say truthfully whether it can carry.

use std::sync::Arc;

use tieline_proto::Incarnation;

mod memory;

pub use memory::{MemoryBroker, MemoryExchange};

/// Whom an envelope goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Every other node.
    All,
    /// This node alone.
    One(Incarnation),
}

/// Why an envelope was not taken. It is gone: whoever sent it counts it, and the numbers tell its receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The queue towards the receiver, or towards one of them, has no room.
    #[error("the broker's queue is full")]
    Full,
    /// There is no way to the receiver now.
    #[error("the broker has no way to the receiver")]
    Unreachable,
}

/// How a broker is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Bytes that were taken and are not handed to the network yet, towards all receivers together.
    pub queued_bytes: u64,
    /// Connections with peers, or with its server, that did not come about: how many for each reason, by words of the
    /// broker's own.
    pub refused: Vec<(&'static str, u64)>,
    /// Messages that came to nothing at its server, or that no node has sent: how many for each reason, by words of the broker's own.
    pub strays: Vec<(&'static str, u64)>,
}

/// Carries envelopes between the nodes of a cluster.
///
/// *Guarantee*: at most once, from this node to each receiver. *Ordering*: envelopes to one receiver arrive in the
/// order of the calls: those that went to it alone, and those that went to all, as long as the connection between the two
/// lasts; the two with each other only where [`orders_channels`](Broker::orders_channels) says so.
/// *Cancellation*: nothing waits, so nothing is cancelled. *Retries*: none for an envelope, except in a broker that
/// [keeps](Broker::keeps); the broker itself comes back from every outage, with backoff and jitter.
pub trait Broker: Send + Sync + 'static {
    /// Takes an envelope, without waiting.
    ///
    /// # Errors
    /// [`NotTaken`]; with [`To::All`] when at least one receiver does not get it, while the others do.
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken>;

    /// Whether it tells of each node when there is a way to it and when that is gone, as links do. A medium such as
    /// pub/sub does not: there a node is reached from its first sign of life until it says goodbye or its lease is
    /// over.
    fn reports_peers(&self) -> bool;

    /// Whether what went to all and what went to one arrives in the order of the calls, as over links. Where it does not, the
    /// cluster says with a message what has to arrive before it.
    fn orders_channels(&self) -> bool {
        false
    }

    /// Whether envelopes are taken while its server is away, and kept for it: what was taken before the outage and in it arrives afterwards,
    /// in order, unless the outage lasts so long that the broker gives them up. What the server had when it fell silent may come a second
    /// time, which its number tells. Where a broker does not keep, nothing is taken meanwhile, and what was on its way is lost.
    fn keeps(&self) -> bool {
        false
    }

    /// How it is doing, for metrics.
    fn stats(&self) -> BrokerStats;

    /// Begins to stop: what was taken is handed to the network for at most a second more, then its tasks end.
    fn close(&self);
}

/// What a broker hears. Its calls come from the broker's own tasks and never wait, least of all for a client.
pub trait Inbound: Send + Sync + 'static {
    /// An envelope arrived.
    fn envelope(&self, bytes: &[u8]);

    /// There is a way to this node from now on, and envelopes to it are taken.
    fn reachable(&self, node: Incarnation);

    /// The way to this node is gone. It may be back soon.
    fn unreachable(&self, node: Incarnation);

    /// The broker carries nothing from now on, to and from nobody: its server is gone or silent. Nobody is thought
    /// dead because of that. Where it [keeps](Broker::keeps) what it takes, that is late and not lost. Said again it changes nothing.
    fn away(&self);

    /// The broker carries again. Envelopes of the meantime may be lost, unless it [keeps](Broker::keeps) them; then the numbers
    /// alone tell of losses. Said again it changes nothing.
    fn back(&self);
}
