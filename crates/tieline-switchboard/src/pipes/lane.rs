//! [`Lane`]: the thread of some pairs: readiness, their sockets, and time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use super::flow::{Ends, Flow, Turn};
use super::{Pair, PipeSettings, Shared};
use crate::switchboard::Error;

/// The waker's token; those of sockets are smaller.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// The buffer that all pairs of a lane are read into.
pub(super) const BUFFER: usize = 64 * 1024;

/// How often it is looked for silent pairs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The two sockets of a pair.
struct Sockets {
    streams: [TcpStream; 2],
    /// For each, whether the kernel tells when it takes bytes again. It does from the first time that one is full.
    told_of_room: [bool; 2],
}

/// A pair that is open.
struct Line<G> {
    sockets: Sockets,
    flow: Flow,
    /// When something last went over it, in milliseconds since the lane began; a pair may be open for 49 days in silence.
    last: u32,
    /// For each end, whether it is in the list of those that may have more to read.
    is_listed: [bool; 2],
    /// Dropped with the pair.
    _guard: G,
}

/// The sockets of a pair, and who watches them.
struct Watched<'a> {
    sockets: &'a mut Sockets,
    registry: &'a Registry,
    /// The token of its first end.
    token: usize,
}

impl Ends for Watched<'_> {
    fn read(&mut self, end: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.sockets.streams[end].read(buffer)
    }

    fn write(&mut self, end: usize, bytes: &[u8]) -> io::Result<usize> {
        let stream = &mut self.sockets.streams[end];
        let result = stream.write(bytes);
        if let Err(error) = &result
            && error.kind() == ErrorKind::WouldBlock
            && !mem::replace(&mut self.sockets.told_of_room[end], true)
        {
            // Should there be room by now, this says so too.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.registry.reregister(stream, Token(self.token + end), interest)?;
        }
        result
    }

    fn finish(&mut self, end: usize) {
        // It fails only when the peer is gone already, which the next read finds out.
        let _ = self.sockets.streams[end].shutdown(Shutdown::Write);
    }
}

/// The thread of some pairs.
pub(super) struct Lane<G> {
    poll: Poll,
    shared: Arc<Shared<G>>,
    settings: PipeSettings,
    /// By number; the ends of pair n have the tokens 2n and 2n + 1.
    lines: Vec<Option<Line<G>>>,
    /// Numbers without a pair.
    free: Vec<usize>,
    /// Ends, by their tokens, that may have more to read; each is there once.
    ready: VecDeque<usize>,
    buffer: Vec<u8>,
    /// What is kept for all pairs, in bytes.
    kept: usize,
    started: Instant,
    looked: Instant,
}

impl<G> Lane<G> {
    pub(super) fn new(poll: Poll, shared: Arc<Shared<G>>, settings: PipeSettings) -> Self {
        let started = Instant::now();
        Lane {
            poll,
            shared,
            settings,
            lines: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            buffer: vec![0; BUFFER],
            kept: 0,
            started,
            looked: started,
        }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(EVENTS);
        let mut longest = LOOK_EVERY;
        loop {
            let wait = if self.ready.is_empty() { longest } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Poll(error)),
            }
            let now = Instant::now();
            // What is put into the list meanwhile waits for the next round.
            for _ in 0..self.ready.len() {
                let Some(source) = self.ready.pop_front() else { break };
                if let Some(line) = self.lines.get_mut(source / 2).and_then(Option::as_mut) {
                    line.is_listed[source % 2] = false;
                }
                self.carry(source, now);
            }
            for event in &events {
                let token = event.token();
                if token == WAKE {
                    continue;
                }
                let has_hung_up = event.is_read_closed() || event.is_error();
                if event.is_readable() || has_hung_up {
                    if let Some(line) = self.lines.get_mut(token.0 / 2).and_then(Option::as_mut) {
                        line.flow.readable(token.0 % 2, has_hung_up);
                    }
                    self.carry(token.0, now);
                }
                if event.is_writable() {
                    self.carry(token.0 ^ 1, now);
                }
            }
            let (pairs, stop) = self.shared.take();
            for pair in pairs {
                self.open(pair, now);
            }
            if now - self.looked >= LOOK_EVERY {
                self.looked = now;
                self.close_silent(now);
            }
            let pairs = self.lines.len() - self.free.len();
            self.shared.published.kept.store(self.kept as u64, Ordering::Relaxed);
            if let Some(deadline) = stop {
                if pairs == 0 || now >= deadline {
                    return Ok(());
                }
                longest = LOOK_EVERY.min(deadline - now);
            }
        }
    }

    fn open(&mut self, pair: Pair<G>, now: Instant) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.lines.push(None);
            self.lines.len() - 1
        });
        let mut streams = pair.ends.map(TcpStream::from_std);
        let watched = streams.iter_mut().enumerate().try_for_each(|(end, stream)| {
            self.poll.registry().register(stream, Token(2 * number + end), Interest::READABLE)
        });
        let flow = Flow::new(pair.early);
        self.kept += flow.kept();
        let sockets = Sockets { streams, told_of_room: [false; 2] };
        let last = self.milliseconds(now);
        self.lines[number] = Some(Line { sockets, flow, last, is_listed: [false; 2], _guard: pair.guard });
        if let Err(error) = watched {
            tracing::warn!(%error, "A pair of sockets could not be watched.");
            return self.close(number);
        }
        self.carry(2 * number, now);
        self.carry(2 * number + 1, now);
    }

    /// Carries what one end says to the other, for one turn.
    fn carry(&mut self, source: usize, now: Instant) {
        let (number, end) = (source / 2, source % 2);
        let last = self.milliseconds(now);
        let Some(line) = self.lines.get_mut(number).and_then(Option::as_mut) else { return };
        let before = line.flow.kept();
        let registry = self.poll.registry();
        let mut ends = Watched { sockets: &mut line.sockets, registry, token: 2 * number };
        let Turn { read, written, has_more } = line.flow.carry(end, &mut ends, &mut self.buffer);
        self.kept = self.kept + line.flow.kept() - before;
        if read + written > 0 {
            line.last = last;
            self.shared.published.bytes[end].fetch_add(read as u64, Ordering::Relaxed);
        }
        if line.flow.is_over() {
            self.close(number);
        } else if has_more && !mem::replace(&mut line.is_listed[end], true) {
            self.ready.push_back(source);
        }
    }

    /// Closing a descriptor ends its registration too.
    fn close(&mut self, number: usize) {
        if let Some(line) = self.lines[number].take() {
            self.kept -= line.flow.kept();
            self.free.push(number);
            self.shared.published.pairs.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn close_silent(&mut self, now: Instant) {
        let now = self.milliseconds(now);
        for number in 0..self.lines.len() {
            let Some(line) = &self.lines[number] else { continue };
            let PipeSettings { idle, half_closed } = self.settings;
            let limit = if line.flow.is_half_closed() { half_closed.min(idle) } else { idle };
            if u128::from(now.wrapping_sub(line.last)) >= limit.as_millis() {
                self.shared.published.silent.fetch_add(1, Ordering::Relaxed);
                self.close(number);
            }
        }
    }

    /// Since the lane began. It begins anew every 49 days, which differences survive.
    fn milliseconds(&self, now: Instant) -> u32 {
        (now - self.started).as_millis() as u32
    }
}

impl<G> Drop for Lane<G> {
    /// However the thread ends, its pairs end with it, and those that nobody will open any more.
    fn drop(&mut self) {
        self.shared.close();
        self.shared.published.pairs.store(0, Ordering::Relaxed);
    }
}

/// What a pair costs while nothing is said, beside its sockets in the kernel.
#[cfg(test)]
pub(super) const fn size_of_pair<G>() -> usize {
    size_of::<Option<Line<G>>>()
}
