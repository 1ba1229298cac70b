//! The floor: a plain epoll loop that writes pre-encoded frames of a given size and does nothing else.
//!
//! It is the physical limit that servers are measured against: no JSON, no names, no limits, no metrics. It upgrades
//! connections, whose URL says which user they are and which groups they are in, reads binary frames that begin with
//! a target's number and a stamp, and copies that stamp into the frame that goes out. [`Mode::Direct`] sends at once,
//! one `send` for each recipient and message; [`Mode::Gather`] sends once for each recipient what all the frames read
//! in one round have for it. One thread. It trusts its clients, so it belongs on loopback during a measurement.
//! Tested here by talking to it, and by every paired run.

use crate::dialect::TARGET_DIGITS;
use crate::error::BenchError;
use crate::frame;
use crate::stamp::{self, read_hex};
use crate::upgrade;
use clap::ValueEnum;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use tieline_websocket::{Opcode, encode};

/// Bytes of the read buffer; a frame must fit.
const READ_BUFFER: usize = 256 * 1024;
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Users and groups have numbers below this.
const MOST_NUMBERS: usize = 1 << 20;
/// Unsent bytes that a connection may have before it is cut off; a load that is checked reads all it is sent.
const MOST_UNSENT: usize = 16 << 20;
/// The listener's token; connections have the numbers of their seats.
const LISTENER: Token = Token(usize::MAX);

/// When the floor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// One `send` for each message and recipient, at once.
    Direct,
    /// One `send` for each recipient after each round of reading.
    Gather,
}

/// One connection.
struct Seat {
    /// Its socket.
    stream: TcpStream,
    /// The beginning of a request or frame whose end has not arrived.
    tail: Vec<u8>,
    /// Whether frames are spoken already.
    upgraded: bool,
    /// Its number as a user.
    user: usize,
    /// The groups it is in.
    groups: Vec<usize>,
    /// Ranges of the round's log that it is to get, adjacent ones joined; emptied after each round.
    pending: Vec<(usize, usize)>,
    /// What the socket did not take, up to [`MOST_UNSENT`].
    unsent: Vec<u8>,
}

/// The floor server.
pub(crate) struct Floor {
    /// Its poll.
    poll: Poll,
    /// Where it listens.
    listener: TcpListener,
    /// Connections; a token is an index. Closed ones leave a hole that is taken again.
    seats: Vec<Option<Seat>>,
    /// The holes.
    free: Vec<usize>,
    /// Seat of each user.
    users: Vec<Option<usize>>,
    /// Seats of each group.
    groups: Vec<Vec<usize>>,
    /// When it writes.
    mode: Mode,
    /// The frame that goes out, ready but for the stamp.
    template: Vec<u8>,
    /// Where the stamp goes in it.
    stamp_at: usize,
    /// Frames of this round, one after another.
    log: Vec<u8>,
    /// Seats with something pending.
    dirty: Vec<usize>,
    /// Where several ranges are put together.
    scratch: Vec<u8>,
}

impl Floor {
    /// Listens on `address`. Frames that go out have `frame_bytes` bytes, header included.
    pub(crate) fn bind(address: SocketAddr, frame_bytes: usize, mode: Mode) -> Result<Self, BenchError> {
        let payload = frame::payload_within(frame_bytes);
        if !(stamp::LENGTH..=frame::LONGEST).contains(&payload) {
            return Err(BenchError::arguments(format!("frames of {frame_bytes} bytes are not possible")));
        }
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut template = Vec::new();
        encode(&mut template, Opcode::Text, &vec![b'x'; payload]);
        Ok(Self {
            poll,
            listener,
            seats: Vec::new(),
            free: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
            mode,
            stamp_at: template.len() - payload,
            template,
            log: Vec::new(),
            dirty: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr, BenchError> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the process ends or polling fails.
    pub(crate) fn serve(mut self) -> Result<(), BenchError> {
        let mut events = Events::with_capacity(EVENTS);
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let number = event.token().0;
                let Some(seat) = self.seats[number].as_mut() else { continue };
                if event.is_writable() && !seat.unsent.is_empty() {
                    let bytes = std::mem::take(&mut seat.unsent);
                    seat.send(&bytes);
                }
                if event.is_readable() && !self.read(number, &mut buffer, event.is_read_closed()) {
                    self.remove(number);
                }
            }
            self.flush();
        }
    }

    /// Takes all connections that wait.
    fn accept(&mut self) -> Result<(), BenchError> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let number = self.free.pop().unwrap_or(self.seats.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(number), interest)?;
            let seat = Seat {
                stream,
                tail: Vec::new(),
                upgraded: false,
                user: 0,
                groups: Vec::new(),
                pending: Vec::new(),
                unsent: Vec::new(),
            };
            match self.seats.get_mut(number) {
                Some(hole) => *hole = Some(seat),
                None => self.seats.push(Some(seat)),
            }
        }
    }

    /// Reads what a connection has sent and treats its frames. `false`: the connection has ended.
    fn read(&mut self, number: usize, buffer: &mut [u8], to_end: bool) -> bool {
        loop {
            let Some(seat) = self.seats[number].as_mut() else { return false };
            let kept = seat.tail.len();
            if kept == buffer.len() {
                return false;
            }
            buffer[..kept].copy_from_slice(&seat.tail);
            let filled = match seat.stream.read(&mut buffer[kept..]) {
                Ok(0) => return false,
                Ok(count) => kept + count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            seat.tail.clear();
            let head = if seat.upgraded { Some(0) } else { self.greet(number, &buffer[..filled]) };
            let used = head.and_then(|head| Some(head + self.frames(number, &buffer[head..filled])?));
            let Some(used) = used else { return false };
            let Some(seat) = self.seats[number].as_mut() else { return false };
            seat.tail.extend_from_slice(&buffer[used..filled]);
            if filled < buffer.len() && !to_end {
                return true;
            }
        }
    }

    /// Answers the upgrade when the request is whole. Gives the bytes used; `None`: it is no upgrade.
    fn greet(&mut self, number: usize, bytes: &[u8]) -> Option<usize> {
        match upgrade::serve(bytes) {
            None => Some(0),
            Some(Ok((target, answer, head))) => self.seat(number, &target, &answer).then_some(head),
            Some(Err(_)) => None,
        }
    }

    /// Treats all whole frames, if frames are spoken yet. Gives the bytes used; `None`: the connection has ended.
    fn frames(&mut self, number: usize, bytes: &[u8]) -> Option<usize> {
        let mut used = 0;
        if !self.seats[number].as_ref()?.upgraded {
            return Some(used);
        }
        while let Some(head) = frame::skim(&bytes[used..]).ok()? {
            let payload = &bytes[used + head.header..used + head.total()];
            used += head.total();
            let goes_on = match head.opcode {
                Opcode::Close => self.answer_close(number, payload),
                Opcode::Binary => self.publish(number, payload),
                _ => true,
            };
            if !goes_on {
                return None;
            }
        }
        Some(used)
    }

    /// Makes the upgraded connection the user and the member that its URL names.
    fn seat(&mut self, number: usize, target: &str, answer: &str) -> bool {
        let Some((user, groups)) = roles(target) else { return false };
        if self.users.len() <= user {
            self.users.resize(user + 1, None);
        }
        self.users[user] = Some(number);
        for group in &groups {
            if self.groups.len() <= *group {
                self.groups.resize(group + 1, Vec::new());
            }
            self.groups[*group].push(number);
        }
        let Some(seat) = self.seats[number].as_mut() else { return false };
        (seat.upgraded, seat.user, seat.groups) = (true, user, groups);
        seat.send(answer.as_bytes())
    }

    /// Sends the frame on, or notes that it is to be sent. `false`: it is no frame that a load sends.
    fn publish(&mut self, sender: usize, payload: &[u8]) -> bool {
        let Some((target, rest)) = payload.split_at_checked(TARGET_DIGITS) else { return false };
        let (Some(target), Some(stamp)) = (read_hex(target), rest.get(..stamp::LENGTH)) else { return false };
        let target = target as usize;
        self.template[self.stamp_at..self.stamp_at + stamp::LENGTH].copy_from_slice(stamp);
        let start = self.log.len();
        if self.mode == Mode::Gather {
            self.log.extend_from_slice(&self.template);
        }
        let range = (start, self.log.len());
        // A load has groups or users, never both.
        if self.groups.is_empty() {
            if let Some(Some(receiver)) = self.users.get(target) {
                deliver(&mut self.seats, &mut self.dirty, *receiver, self.mode, range, &self.template);
            }
        } else if let Some(members) = self.groups.get(target) {
            for receiver in members.iter().filter(|member| **member != sender) {
                deliver(&mut self.seats, &mut self.dirty, *receiver, self.mode, range, &self.template);
            }
        }
        true
    }

    /// Sends what this round gathered, one `send` for each recipient.
    fn flush(&mut self) {
        for number in self.dirty.drain(..) {
            let Some(seat) = self.seats[number].as_mut() else { continue };
            let mut pending = std::mem::take(&mut seat.pending);
            if let [(start, end)] = pending[..] {
                seat.send(&self.log[start..end]);
            } else {
                self.scratch.clear();
                pending
                    .iter()
                    .for_each(|(start, end)| self.scratch.extend_from_slice(&self.log[*start..*end]));
                seat.send(&self.scratch);
            }
            pending.clear();
            seat.pending = pending;
        }
        self.log.clear();
    }

    /// Answers a close frame; the connection is then over.
    fn answer_close(&mut self, number: usize, payload: &[u8]) -> bool {
        // Masked with zero by the generator; any other client gets its bytes back as they came, which is a close too.
        let mut bytes = Vec::new();
        encode(&mut bytes, Opcode::Close, payload);
        if let Some(seat) = self.seats[number].as_mut() {
            seat.send(&bytes);
        }
        false
    }

    /// Forgets a connection.
    fn remove(&mut self, number: usize) {
        let Some(seat) = self.seats[number].take() else { return };
        for group in seat.groups {
            self.groups[group].retain(|member| *member != number);
        }
        if seat.upgraded && self.users[seat.user] == Some(number) {
            self.users[seat.user] = None;
        }
        self.free.push(number);
        self.dirty.retain(|dirty| *dirty != number);
    }
}

impl Seat {
    /// Sends `bytes` behind what is unsent; keeps what the socket does not take. `false`: there is too much of that,
    /// or the socket is gone, which its next event tells as well.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while self.unsent.is_empty() && !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if self.unsent.len() + rest.len() > MOST_UNSENT {
            // The socket's next event finds it closed and removes the seat.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
            return false;
        }
        self.unsent.extend_from_slice(rest);
        true
    }
}

/// Sends to one receiver, or notes the range for it.
fn deliver(
    seats: &mut [Option<Seat>],
    dirty: &mut Vec<usize>,
    receiver: usize,
    mode: Mode,
    range: (usize, usize),
    frame: &[u8],
) {
    let Some(seat) = seats[receiver].as_mut() else { return };
    if mode == Mode::Direct {
        seat.send(frame);
        return;
    }
    match seat.pending.last_mut() {
        Some(last) if last.1 == range.0 => last.1 = range.1,
        Some(_) => seat.pending.push(range),
        None => {
            seat.pending.push(range);
            dirty.push(receiver);
        }
    }
}

/// User and groups of a target such as `/?user=4&groups=1,2`.
fn roles(target: &str) -> Option<(usize, Vec<usize>)> {
    let number = |text: &str| text.parse().ok().filter(|number| *number < MOST_NUMBERS);
    let (_, query) = target.split_once('?')?;
    let value = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let user = number(value("user")?)?;
    let groups =
        value("groups")?.split(',').filter(|text| !text.is_empty()).map(number).collect::<Option<_>>()?;
    Some((user, groups))
}

/// Ends this process when its standard input does: whoever started the floor is then gone.
pub(crate) fn end_with_standard_input() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

#[cfg(test)]
mod tests;
