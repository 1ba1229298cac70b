//! What can end a run, in words for the person who started it.
//! It holds no recovery: a load run that met one of these is over, and the process exits non-zero.
//! The tests of the modules that raise these check them; `tests/command.rs` checks what a person sees.

use std::io;
use std::time::Duration;

/// Why a load run could not be started or did not count as a result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The options contradict each other or the protocol chosen.
    #[error("{0}")]
    Arguments(String),
    /// The URL is not one that a load run can use.
    #[error("cannot use the URL {url:?}: {reason}")]
    Url {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TCP connection could not be made; the commonest cause is that no server listens there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where the connection was to go.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server answered the upgrade with something other than 101.
    #[error("the server refused the upgrade with HTTP {status}: {reason}")]
    Refused {
        /// The HTTP status, such as 401.
        status: u16,
        /// The reason phrase, or the beginning of the body.
        reason: String,
    },
    /// The server closed a connection in the middle of a run.
    #[error("the server closed connection {connection} with code {code}{reason}")]
    Closed {
        /// Number of the connection in this run, from 0.
        connection: usize,
        /// Close code, 1005 when the frame carried none.
        code: u16,
        /// Close reason, with a separator before it, or empty.
        reason: String,
    },
    /// A connection ended without a close frame.
    #[error("connection {connection} ended without a close frame{detail}")]
    Disconnected {
        /// Number of the connection in this run, from 0.
        connection: usize,
        /// The operating system's error with a separator before it, or empty at an orderly end of stream.
        detail: String,
    },
    /// Something did not happen within its limit.
    #[error("timed out after {after:?}: {what}")]
    TimedOut {
        /// What was waited for, with counts.
        what: String,
        /// The limit that passed.
        after: Duration,
    },
    /// A delivery was lost, doubled, out of order or at the wrong receiver.
    #[error("wrong delivery: {0}")]
    Delivery(String),
    /// The server said something that the protocol does not allow here.
    #[error("unexpected from the server on connection {connection}: {detail}")]
    Protocol {
        /// Number of the connection in this run, from 0.
        connection: usize,
        /// What was wrong.
        detail: String,
    },
    /// A process could not be measured, pinned or started.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused something that concerns no single connection.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl BenchError {
    /// An arguments error from anything that can be shown.
    pub(crate) fn arguments(text: impl Into<String>) -> Self {
        Self::Arguments(text.into())
    }

    /// A process error from nix's errno.
    pub(crate) fn process(what: impl Into<String>, errno: nix::errno::Errno) -> Self {
        Self::Process { what: what.into(), source: io::Error::from(errno) }
    }
}
