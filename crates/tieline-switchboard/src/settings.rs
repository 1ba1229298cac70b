//! Limits and times of a shard, with the defaults that keep a server safe.

use std::time::Duration;

use tieline_websocket::Limits;

/// What bounds a shard and its connections. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of inbound frames and messages. Default: messages of 1 MiB.
    pub inbound: Limits,
    /// Largest sum of bytes that one connection may have coming: unsent frames, and for a numbered connection
    /// the plain bodies that it has not acknowledged, with 32 bytes more for each of them. A publication that would pass it ends the connection, or
    /// is dropped for it, as the publication says. Default 4 MiB.
    pub max_lag: usize,
    /// Largest sum of bytes copied for lagging connections of one shard. Past it the connection that asks for
    /// the next copy is ended. Default 128 MiB.
    pub max_copied: usize,
    /// Largest size of the shard's log; past it the oldest chunk is retired, and what laggards still want of
    /// it is copied for each. Default 16 MiB.
    pub max_log: usize,
    /// Bytes of commands that may wait for one shard before senders are held up. Default 16 MiB.
    pub max_mailbox: usize,
    /// Time between two pings to a connection. Default 25 s.
    pub ping_every: Duration,
    /// Pings in a row that may stay without any byte in return before the connection is taken for dead.
    /// Default 2.
    pub ping_misses: u8,
    /// A connection that sends no message for so long is closed, when it would be pinged next. Default: never.
    pub idle: Option<Duration>,
    /// How long the peer may take to answer a close frame. Default 5 s.
    pub close_timeout: Duration,
    /// How long a resumable connection lives after it was cut. Default 60 s.
    pub resume_window: Duration,
    /// What stands before and behind the sequence number in a frame of a numbered connection. The frame's
    /// body, as [`Encode`](crate::Encode) writes it, follows. Numbered frames are texts. At most 64 bytes together.
    pub numbering: (&'static [u8], &'static [u8]),
    /// First sequence number of a numbered connection. Default 1.
    pub first_sequence: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            inbound: Limits { max_frame: 1 << 20, max_message: 1 << 20, max_fragments: 4096 },
            max_lag: 4 << 20,
            max_copied: 128 << 20,
            max_log: 16 << 20,
            max_mailbox: 16 << 20,
            ping_every: Duration::from_secs(25),
            ping_misses: 2,
            idle: None,
            close_timeout: Duration::from_secs(5),
            resume_window: Duration::from_secs(60),
            numbering: (b"", b""),
            first_sequence: 1,
        }
    }
}
