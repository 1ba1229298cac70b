//! What a shard counts. Each shard adds to plain integers of its own and publishes a copy once a round; whoever
//! reads metrics takes the copies and adds them up.

use std::ops::AddAssign;
use std::sync::Mutex;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the start of a shard, and gauges of its present state.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Counters) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Gauge: slots in use, cut and closing connections among them.
    connections,
    /// Gauge: connections that were cut and may be resumed.
    detached,
    /// Gauge: bytes of memory in the log.
    log_bytes,
    /// Gauge: bytes copied for laggards.
    copied_bytes,
    /// Connections opened.
    opened,
    /// Connections resumed on a new socket.
    resumed,
    /// Connections ended, for whatever cause.
    closed,
    /// Whole messages received.
    messages_in,
    /// Bytes read from sockets.
    bytes_in,
    /// Frames queued to connections, publications and direct ones.
    deliveries,
    /// Bytes written to sockets.
    bytes_out,
    /// Write system calls.
    sends,
    /// Connections ended because they did not read.
    ended_lag,
    /// Connections ended because copies for laggards took too much memory.
    ended_memory,
    /// Connections ended because nothing was heard from them.
    ended_silent,
    /// Connections ended for not sending anything of their own.
    ended_idle,
    /// Connections ended for breaking the protocol.
    ended_protocol,
    /// Publications dropped for a lagging connection, where the publication allowed it.
    dropped_lag,
    /// Times a connection's reading stood still because another shard's mailbox was full.
    parked,
}

/// A shard's counters as others see them: a copy that is at most one round old.
#[derive(Debug, Default)]
pub(crate) struct PublishedCounters(Mutex<Counters>);

impl PublishedCounters {
    pub(crate) fn publish(&self, counters: Counters) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = counters;
    }

    pub(crate) fn read(&self) -> Counters {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
