//! The thread of one shard: readiness, sockets and time around its station.
//!
//! A round: wait for events, read what is readable, take the mailbox, flush for a while, hand commands to
//! the other shards. Sockets are registered edge-triggered, for reading; for writing too from the first time on that
//! one is full, so that a new one is not told at once to be writable.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::application::Application;
use crate::flush::Sockets;
use crate::mailbox::{Adoption, Delivery};
use crate::station::Station;
use crate::{Slot, switchboard};

/// The waker's token; slots are smaller.
pub(crate) const WAKE: Token = Token(usize::MAX);

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// The buffer that all connections of a shard are read into.
const READ_BUFFER: usize = 64 * 1024;

/// Reads of one connection in a row before the next has its turn.
const READS_PER_TURN: usize = 4;

/// A flush stops after so many connections or so much time to look for input: otherwise a run to thousands of
/// members would hold up every direct message.
const FLUSH_CONNECTIONS: u32 = 256;
const FLUSH_TIME: Duration = Duration::from_millis(1);

/// Longest wait for events: the clock ticks once a second.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Longest time that stopping waits for clients to answer close frames.
const STOP_TIME: Duration = Duration::from_secs(3);

/// One shard's station with its sockets and its thread's buffer.
pub(crate) struct Reactor<A: Application> {
    poll: Poll,
    station: Station<A>,
    sockets: SocketTable,
    read_buffer: Vec<u8>,
    started: Instant,
    /// Set while the shard stops: when to give up waiting for the clients.
    stopping: Option<Instant>,
}

/// One socket.
struct Socket {
    stream: TcpStream,
    /// The kernel tells when it takes bytes again.
    told_of_room: bool,
}

/// The sockets by slot.
struct SocketTable {
    sockets: Vec<Option<Socket>>,
    registry: Registry,
}

impl SocketTable {
    fn get_mut(&mut self, slot: Slot) -> Option<&mut Socket> {
        self.sockets.get_mut(slot as usize)?.as_mut()
    }

    /// Puts a socket into a slot, and watches it. The one that it replaces is closed: of two, the newer wins.
    fn put(&mut self, slot: Slot, mut stream: TcpStream) -> io::Result<()> {
        if self.sockets.len() <= slot as usize {
            self.sockets.resize_with(slot as usize + 1, || None);
        }
        let watched = self.registry.register(&mut stream, Token(slot as usize), Interest::READABLE);
        self.sockets[slot as usize] = Some(Socket { stream, told_of_room: false });
        watched
    }
}

impl Sockets for SocketTable {
    fn send(&mut self, slot: Slot, bytes: &[u8]) -> io::Result<usize> {
        let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Err(ErrorKind::NotConnected.into());
        };
        let written = socket.stream.write(bytes);
        let full = match &written {
            Ok(written) => *written < bytes.len(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if full && !socket.told_of_room {
            // Should there be room by now, this says so too.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.registry.reregister(&mut socket.stream, Token(slot as usize), interest)?;
            socket.told_of_room = true;
        }
        written
    }

    fn end_of_stream(&mut self, slot: Slot) {
        if let Some(socket) = self.get_mut(slot) {
            // It fails only when the peer is gone already, which the next read finds out.
            let _ = socket.stream.shutdown(Shutdown::Write);
        }
    }
}

impl<A: Application> Reactor<A> {
    pub(crate) fn new(poll: Poll, registry: Registry, station: Station<A>, started: Instant) -> Self {
        let sockets = SocketTable { sockets: Vec::new(), registry };
        Reactor { poll, station, sockets, read_buffer: vec![0; READ_BUFFER], started, stopping: None }
    }

    /// Runs until it is told to stop, and every connection is closed.
    pub(crate) fn run(mut self) -> Result<(), switchboard::Error> {
        let mut events = Events::with_capacity(EVENTS);
        let mut busy = false;
        loop {
            let wait = if busy { Duration::ZERO } else { self.longest_wait() };
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(switchboard::Error::Poll(error)),
            }
            let elapsed = self.started.elapsed().as_millis() as u64;
            self.station.advance(elapsed);
            for event in &events {
                if event.token() == WAKE {
                    continue;
                }
                let slot = event.token().0 as Slot;
                if event.is_writable() {
                    self.station.writable(slot);
                }
                // The end of the stream is told once: then the socket is read until that is found.
                let ended = event.is_read_closed() || event.is_error();
                if event.is_readable() || ended {
                    self.read(slot, ended);
                }
            }
            // Those that are put back into the list meanwhile wait for the next round. What the kernel told about
            // them may be long past, so their sockets are read until they are empty.
            for slot in self.station.take_readable() {
                self.read(slot, true);
            }
            self.take_mailbox();
            let until = Instant::now() + FLUSH_TIME;
            let mut flushed = 0;
            let more = self.station.flush(&mut self.sockets, || {
                flushed += 1;
                flushed >= FLUSH_CONNECTIONS || (flushed % 16 == 0 && Instant::now() >= until)
            });
            self.drop_sockets();
            self.station.hand_over();
            busy = more || !self.station.shard.readable.is_empty();
            if let Some(deadline) = self.stopping
                && (self.station.shard.counters().connections == 0 || Instant::now() >= deadline)
            {
                return Ok(());
            }
        }
    }

    /// Until the next second of the clock, or the end of stopping.
    fn longest_wait(&self) -> Duration {
        let past = self.started.elapsed().as_millis() as u64 % 1000;
        let to_tick = LONGEST_WAIT - Duration::from_millis(past);
        let to_stop = self.stopping.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        to_stop.map_or(to_tick, |to_stop| to_stop.min(to_tick))
    }

    /// Reads what a socket has, for as long as it is this connection's turn. A short read says that the socket was
    /// emptied, and the kernel tells when there is more; but not when it `ended` already.
    fn read(&mut self, slot: Slot, ended: bool) {
        if self.station.shard.is_parked(slot) {
            return;
        }
        self.station.receive_kept(slot);
        for _ in 0..READS_PER_TURN {
            if self.station.shard.is_parked(slot) {
                return;
            }
            let Some(socket) = self.sockets.get_mut(slot) else { return };
            match socket.stream.read(&mut self.read_buffer) {
                Ok(0) => return self.station.end_of_input(slot),
                Ok(read) => {
                    let input = &mut self.read_buffer[..read];
                    self.station.receive(slot, input);
                    if read < READ_BUFFER && !ended {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.station.lose_socket(slot),
            }
        }
        self.station.shard.readable.push_back(slot);
    }

    fn take_mailbox(&mut self) {
        let Delivery { adoptions, commands, stop } = self.station.take_mailbox();
        for adoption in adoptions {
            self.adopt(adoption);
        }
        self.station.carry_out(commands);
        if let Some((code, reason)) = stop
            && self.stopping.is_none()
        {
            self.station.stop(code, reason);
            self.stopping = Some(Instant::now() + STOP_TIME);
        }
    }

    fn adopt(&mut self, adoption: Adoption<A::Arrival>) {
        let Adoption { stream, head, mut leftover, format, inflate, arrival } = adoption;
        let slot = if self.stopping.is_some() {
            self.station.shard.refuse(&head, 1001, "The server stops.")
        } else {
            self.station.adopt(&head, format, inflate, arrival)
        };
        let Some(slot) = slot else {
            tracing::warn!("A connection was turned away: the shard's table is full.");
            return self.station.settle();
        };
        // The slot's former socket goes before the new one is put into its place.
        self.drop_sockets();
        if let Err(error) = self.sockets.put(slot, TcpStream::from_std(stream)) {
            tracing::warn!(%error, "A socket could not be watched.");
            return self.station.lose_socket(slot);
        }
        if !leftover.is_empty() {
            self.station.receive(slot, &mut leftover);
        }
        self.station.settle();
    }

    /// Lets go of sockets whose connections ended or were cut. Closing a descriptor ends its registration too.
    fn drop_sockets(&mut self) {
        for slot in self.station.sockets_to_drop() {
            if let Some(socket) = self.sockets.sockets.get_mut(slot as usize) {
                *socket = None;
            }
        }
    }
}
