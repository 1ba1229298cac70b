//! All client sockets of one load on one `mio::Poll`: opening them, one round of events, closing them.
//!
//! One thread, edge-triggered, one read buffer. What a round makes the load send is written after the round, one
//! `send` per connection, so that messages due together reach the server together and wake it once.
//! It knows nothing of what a load measures. Tested by `tests/command.rs` against a small server of the tests' own.

use crate::connection::{Connection, Ended, Incoming, Outbox};
use crate::dialect::{Dialect, Seat, Word};
use crate::endpoint::Endpoint;
use crate::error::BenchError;
use crate::progress::Progress;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tieline_websocket::{ClientRequest, Opcode};

/// Bytes of the read buffer: more than the longest frame that is accepted, and sixteen deliveries many times over.
const READ_BUFFER: usize = 256 * 1024;
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Connections being opened at the same time. A listener's backlog is 128 at the least in common use.
const OPENING: usize = 64;
/// Longest wait for events while something is being set up or closed, so that limits are noticed.
const SETUP_WAIT: Duration = Duration::from_millis(100);
/// How long a close handshake may take before the socket is simply dropped.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Connections begun by this process, whatever fleet they belong to: the choice of source addresses goes by it.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// To whom a fleet talks, and how.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Where it listens.
    pub(crate) endpoint: Endpoint,
    /// Another node of the same cluster, for the seats that are far.
    pub(crate) other: Option<Endpoint>,
    /// What it speaks.
    pub(crate) dialect: Dialect,
    /// The access key that tokens are signed with; without it connections are anonymous.
    pub(crate) access_key: Option<String>,
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The answer to the upgrade is awaited.
    Upgrading,
    /// The server's first frame is awaited.
    Greeting,
    /// So many joins are not acknowledged yet.
    Joining(usize),
}

/// All client sockets of one load.
pub(crate) struct Fleet {
    /// Their poll.
    poll: Poll,
    /// The last round's events.
    events: Events,
    /// Where sockets are read into.
    buffer: Box<[u8]>,
    /// The sockets; a token is an index.
    connections: Vec<Connection>,
    /// Connections with output from this round, each once unless it was flushed meanwhile; at most one round's worth.
    dirty: Vec<usize>,
    /// To whom it talks.
    pub(crate) service: Service,
}

impl Fleet {
    /// A fleet without connections.
    fn empty(service: Service) -> Result<Self, BenchError> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            connections: Vec::new(),
            dirty: Vec::new(),
            service,
        })
    }

    /// Opens a connection for each seat and joins its groups. All are ready when this returns.
    pub(crate) fn open(
        service: Service,
        seats: &[Seat],
        limit: Duration,
        progress: &mut Progress,
    ) -> Result<Self, BenchError> {
        let dialect = service.dialect;
        let mut fleet = Self::empty(service)?;
        let mut stages: Vec<Stage> = Vec::with_capacity(seats.len());
        let mut ready = 0;
        let started = Instant::now();
        while ready < seats.len() {
            while stages.len() < seats.len() && stages.len() - ready < OPENING {
                fleet.begin(&seats[stages.len()])?;
                stages.push(Stage::Upgrading);
            }
            fleet.round(Some(SETUP_WAIT), |number, outbox, incoming| {
                let stage = &mut stages[number];
                let seat = &seats[number];
                let word = match incoming {
                    Incoming::Upgraded if dialect.greets() => {
                        *stage = Stage::Greeting;
                        return Ok(());
                    }
                    Incoming::Upgraded => Word::Greeted,
                    Incoming::Frame { payload, .. } => dialect.understand(payload),
                };
                match (word, *stage) {
                    (Word::Greeted, Stage::Upgrading | Stage::Greeting) => {
                        let joins =
                            seat.groups.iter().zip(1..).filter_map(|(group, ack)| dialect.join(*group, ack));
                        let mut left = 0;
                        for join in joins {
                            outbox.push(Opcode::Text, join.as_bytes());
                            left += 1;
                        }
                        *stage = Stage::Joining(left);
                        ready += usize::from(left == 0);
                    }
                    (Word::Joined, Stage::Joining(left @ 1..)) => {
                        *stage = Stage::Joining(left - 1);
                        ready += usize::from(left == 1);
                    }
                    (Word::Answer(text), _) => outbox.push(Opcode::Text, text.as_bytes()),
                    (Word::Refused(detail), _) => {
                        return Err(BenchError::Protocol { connection: number, detail });
                    }
                    _ => {}
                }
                Ok(())
            })?;
            progress.show(|| format!("opening: {ready} of {}", seats.len()));
            if started.elapsed() > limit {
                let what = format!("{ready} of {} connections were ready", seats.len());
                return Err(BenchError::TimedOut { what, after: limit });
            }
        }
        Ok(fleet)
    }

    /// Begins one connection.
    fn begin(&mut self, seat: &Seat) -> Result<(), BenchError> {
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let Service { endpoint, other, dialect, access_key } = &self.service;
        let endpoint = other.as_ref().filter(|_| seat.is_far).unwrap_or(endpoint);
        let target = dialect.target(endpoint, seat, access_key.as_deref())?;
        let mut stream = TcpStream::from_std(endpoint.connect(made)?);
        let number = self.connections.len();
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        // Any key serves, and one that counts needs no generator.
        let mut request = ClientRequest::with_key(&endpoint.authority, &target, (made as u128).to_be_bytes());
        if let Some(subprotocol) = dialect.subprotocol() {
            request = request.protocol(subprotocol);
        }
        let masked = *dialect != Dialect::Floor;
        let connection = Connection::new(stream, request, dialect.subprotocol().is_some(), masked)
            .map_err(|error| BenchError::arguments(error.to_string()))?;
        self.connections.push(connection);
        Ok(())
    }

    /// Queues a frame; [`Self::flush`] sends it.
    pub(crate) fn queue(&mut self, number: usize, opcode: Opcode, payload: &[u8]) {
        let connection = &mut self.connections[number];
        if !connection.has_output() {
            self.dirty.push(number);
        }
        connection.outbox.push(opcode, payload);
    }

    /// Sends what was queued, one `send` per connection.
    pub(crate) fn flush(&mut self) -> Result<(), BenchError> {
        for number in self.dirty.drain(..) {
            self.connections[number].flush().map_err(|error| lost(number, &error))?;
        }
        Ok(())
    }

    /// Waits for events and treats all of them. A connection that ends is an error.
    pub(crate) fn round(
        &mut self,
        wait: Option<Duration>,
        mut each: impl FnMut(usize, &mut Outbox, Incoming<'_>) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        self.round_with_ends(wait, &mut each, |number, ended| {
            Err(match ended {
                Ended::Close(code, reason) => {
                    let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                    BenchError::Closed { connection: number, code, reason }
                }
                Ended::Eof => BenchError::Disconnected { connection: number, detail: String::new() },
            })
        })
    }

    /// A round in which `end` decides what an ended connection means.
    fn round_with_ends(
        &mut self,
        wait: Option<Duration>,
        mut each: impl FnMut(usize, &mut Outbox, Incoming<'_>) -> Result<(), BenchError>,
        mut end: impl FnMut(usize, Ended) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let number = event.token().0;
            let connection = &mut self.connections[number];
            if event.is_error()
                && let Some(source) = connection.stream.take_error()?
            {
                // Only a connection that was there before can break; its peer's address is forgotten by then.
                let broken =
                    matches!(source.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
                if broken || connection.stream.peer_addr().is_ok() {
                    return Err(lost(number, &source));
                }
                let address = self.service.endpoint.address.to_string();
                return Err(BenchError::Connect { address, source });
            }
            if event.is_writable() && connection.has_output() {
                connection.flush().map_err(|error| lost(number, &error))?;
            }
            if event.is_readable() {
                let ended = connection.receive(
                    number,
                    &mut self.buffer,
                    event.is_read_closed(),
                    |outbox, incoming| each(number, outbox, incoming),
                )?;
                if connection.has_output() {
                    self.dirty.push(number);
                }
                if let Some(ended) = ended {
                    end(number, ended)?;
                }
            }
        }
        self.flush()
    }

    /// Closes every connection in good order. The server's answers are awaited for a while, then the sockets dropped.
    pub(crate) fn close(mut self) -> Result<(), BenchError> {
        for number in 0..self.connections.len() {
            self.queue(number, Opcode::Close, &1000u16.to_be_bytes());
        }
        let mut open = vec![true; self.connections.len()];
        let mut left = open.len();
        // A server may cut the connection while the frame is on its way: that is an end as well.
        let _ = self.flush();
        let started = Instant::now();
        while left > 0 && started.elapsed() < CLOSE_WAIT {
            let round = self.round_with_ends(
                Some(SETUP_WAIT),
                |_, _, _| Ok(()),
                |number, _| {
                    left -= usize::from(std::mem::take(&mut open[number]));
                    Ok(())
                },
            );
            match round {
                Ok(()) => {}
                Err(BenchError::Disconnected { connection, .. }) => {
                    left -= usize::from(std::mem::take(&mut open[connection]));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The error of a connection that the operating system has given up.
fn lost(connection: usize, error: &io::Error) -> BenchError {
    BenchError::Disconnected { connection, detail: format!(": {error}") }
}
