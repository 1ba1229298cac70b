//! One load on one fleet: sends by a pace, checks what arrives, and says what it cost.
//! Opening and closing belong to the fleet, right and wrong to the ledger, comparing to `pairing`.
//! Tested by `tests/command.rs`.

use crate::connection::{Incoming, Outbox};
use crate::dialect::{self, Dialect};
use crate::error::BenchError;
use crate::fleet::{Fleet, Service};
use crate::ledger::Ledger;
use crate::plan::{Dice, Plan};
use crate::process;
use crate::progress::Progress;
use crate::stamp::Stamp;
use crate::statistics::Histogram;
use memchr::memmem;
use std::time::{Duration, Instant};
use tieline_websocket::Opcode;

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// When fewer than so many are outstanding.
    Window(usize),
    /// So many a second, whatever arrives.
    Rate(f64),
}

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Length {
    /// So many messages.
    Messages(u64),
    /// So long; what is outstanding then is still awaited and counted.
    Time(Duration),
}

/// Limits of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For opening all connections, and for one run.
    pub(crate) time: Duration,
    /// For a run with messages outstanding and nothing arriving.
    pub(crate) stall: Duration,
}

/// What one run measured.
#[derive(Clone)]
pub(crate) struct Sample {
    /// Messages sent.
    pub(crate) messages: u64,
    /// Frames that arrived, all of them right.
    pub(crate) deliveries: u64,
    /// Bytes of those frames on the wire.
    pub(crate) bytes: u64,
    /// From the first send to the last delivery.
    pub(crate) wall: Duration,
    /// Processor time of the processes watched; `None` when there were none.
    pub(crate) cpu: Option<Duration>,
    /// Processor time of the generator itself.
    pub(crate) own_cpu: Duration,
    /// From when a message was due to each of its deliveries; only at a rate.
    pub(crate) latency: Option<Histogram>,
}

impl Sample {
    /// Processor time of the server per delivery, in microseconds.
    pub(crate) fn cpu_per_delivery(&self) -> Option<f64> {
        let cpu = self.cpu?;
        (self.deliveries > 0).then(|| cpu.as_secs_f64() * 1e6 / self.deliveries as f64)
    }

    /// Bytes of a delivery on the wire, on the average.
    pub(crate) fn frame_bytes(&self) -> usize {
        (self.bytes as f64 / self.deliveries.max(1) as f64).round() as usize
    }
}

/// The number that the reliable protocol gives each message of a connection, and what has been acknowledged of it.
#[derive(Clone, Copy, Default)]
struct Sequence {
    /// The last number that arrived.
    last: u64,
    /// The last number that was acknowledged.
    acknowledged: u64,
}

/// One load on one fleet.
pub(crate) struct Course {
    /// Its sockets.
    fleet: Fleet,
    /// What arrives at it.
    account: Account,
    /// The choices of senders and receivers.
    dice: Dice,
    /// Messages sent since the course began.
    sent: u64,
    /// What fills a payload up.
    filler: String,
    /// A message being written; kept for its memory.
    text: String,
    /// The reliable protocol's acknowledgement that is due next, as a count since the course began.
    acknowledged: u64,
    /// The processes whose processor time is the server's.
    pub(crate) processes: Vec<u32>,
}

/// What arrives: the part of a course that reading a socket needs.
struct Account {
    /// Who sends to whom.
    plan: Plan,
    /// Right and wrong.
    ledger: Ledger,
    /// The clock that stamps refer to.
    clock: Instant,
    /// What the frames mean.
    dialect: Dialect,
    /// Where the last stamp was found.
    hint: usize,
    /// By connection; empty unless the protocol is the reliable one.
    sequences: Vec<Sequence>,
    /// Bytes of deliveries.
    bytes: u64,
    /// Latencies, while they are wanted.
    latency: Option<Histogram>,
}

impl Course {
    /// Opens the connections that `plan` needs. `payload` is the length of the JSON payload, or for the floor of the
    /// whole text of a message.
    pub(crate) fn open(
        service: Service,
        plan: Plan,
        payload: usize,
        processes: Vec<u32>,
        limits: Limits,
        progress: &mut Progress,
    ) -> Result<Self, BenchError> {
        let dialect = service.dialect;
        let seats = plan.seats();
        let fleet = Fleet::open(service, &seats, limits.time, progress)?;
        let sequences = if dialect == Dialect::Reliable { seats.len() } else { 0 };
        Ok(Self {
            fleet,
            account: Account {
                ledger: Ledger::new(&plan),
                plan,
                clock: Instant::now(),
                dialect,
                hint: 0,
                sequences: vec![Sequence::default(); sequences],
                bytes: 0,
                latency: None,
            },
            dice: Dice::new(),
            sent: 0,
            filler: match dialect {
                Dialect::Floor => dialect::floor_filler(payload),
                _ => dialect::filler(payload),
            },
            text: String::new(),
            acknowledged: 0,
            processes,
        })
    }

    /// Bytes of the text of the last message sent, without its frame header.
    pub(crate) fn message_bytes(&self) -> usize {
        self.text.len()
    }

    /// Sends and receives for `length`, then until everything has arrived.
    pub(crate) fn run(
        &mut self,
        pace: Pace,
        length: Length,
        limits: Limits,
        progress: &mut Progress,
    ) -> Result<Sample, BenchError> {
        let own = [std::process::id()];
        let (deliveries, bytes) = (self.account.ledger.deliveries, self.account.bytes);
        self.account.latency = matches!(pace, Pace::Rate(_)).then(Histogram::default);
        let cpu = self.cpu()?;
        let own_cpu = process::cpu_time(&own)?;
        let started = Instant::now();
        let (mut last_progress, mut last_count) = (started, deliveries);
        let mut messages = 0;
        let ended = loop {
            let now = Instant::now();
            let elapsed = now - started;
            let more = |messages: u64| match length {
                Length::Messages(count) => messages < count,
                Length::Time(time) => elapsed < time,
            };
            match pace {
                Pace::Window(window) => {
                    while self.account.ledger.outstanding() < window && more(messages) {
                        self.publish(now)?;
                        messages += 1;
                    }
                }
                Pace::Rate(rate) => {
                    while more(messages) {
                        let due = Duration::from_secs_f64(messages as f64 / rate);
                        if due > elapsed {
                            break;
                        }
                        self.publish(started + due)?;
                        messages += 1;
                    }
                }
            }
            self.acknowledge(now)?;
            self.fleet.flush()?;
            if self.account.ledger.outstanding() == 0 && !more(messages) {
                break now;
            }
            let count = self.account.ledger.deliveries;
            if count > last_count {
                (last_progress, last_count) = (now, count);
            } else if now - last_progress > limits.stall && self.account.ledger.outstanding() > 0 {
                return Err(BenchError::TimedOut {
                    what: self.account.ledger.missing(),
                    after: limits.stall,
                });
            }
            if elapsed > limits.time {
                return Err(BenchError::TimedOut { what: self.account.ledger.missing(), after: limits.time });
            }
            progress.show(|| format!("{messages} messages, {} deliveries", count - deliveries));
            // Never asleep: the send that wakes a receiver pays for it, a few µs on a virtual machine, and a faster server, which
            // keeps the generator awake, would pay less often. So the waking is in nobody's cost, nor in the latencies.
            let account = &mut self.account;
            self.fleet.round(Some(Duration::ZERO), |number, outbox, incoming| {
                account.receive(number, outbox, incoming)
            })?;
        };
        let cpu = self.cpu()?.zip(cpu).map(|(after, before)| after.saturating_sub(before));
        Ok(Sample {
            messages,
            deliveries: self.account.ledger.deliveries - deliveries,
            bytes: self.account.bytes - bytes,
            wall: ended - started,
            cpu,
            own_cpu: process::cpu_time(&own)?.saturating_sub(own_cpu),
            latency: self.account.latency.take(),
        })
    }

    /// Sends nothing for `time` and answers what the server asks.
    pub(crate) fn rest(&mut self, time: Duration) -> Result<(), BenchError> {
        let started = Instant::now();
        while let Some(left) = time.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            let account = &mut self.account;
            self.fleet
                .round(Some(left), |number, outbox, incoming| account.receive(number, outbox, incoming))?;
        }
        Ok(())
    }

    /// Closes the connections in good order.
    pub(crate) fn close(self) -> Result<(), BenchError> {
        self.fleet.close()
    }

    /// Processor time of the server so far.
    fn cpu(&self) -> Result<Option<Duration>, BenchError> {
        (!self.processes.is_empty()).then(|| process::cpu_time(&self.processes)).transpose()
    }

    /// Queues the next message, due at `due`.
    fn publish(&mut self, due: Instant) -> Result<(), BenchError> {
        let account = &mut self.account;
        let sending = account.plan.next(&mut self.dice, self.sent);
        self.sent += 1;
        let number = account.ledger.send(&account.plan, sending)?;
        let stamp = Stamp { number, due_ns: (due - account.clock).as_nanos() as u64 };
        account.dialect.publish(&mut self.text, sending.to, stamp, &self.filler);
        let opcode = if account.dialect == Dialect::Floor { Opcode::Binary } else { Opcode::Text };
        self.fleet.queue(sending.sender, opcode, self.text.as_bytes());
        Ok(())
    }

    /// Acknowledges for as many connections as are due: each once a second, spread evenly over it.
    fn acknowledge(&mut self, now: Instant) -> Result<(), BenchError> {
        let connections = self.account.sequences.len() as u64;
        if connections == 0 {
            return Ok(());
        }
        let due = ((now - self.account.clock).as_secs_f64() * connections as f64) as u64;
        // After a pause, such as the other half of a pair, one turn is enough for all.
        self.acknowledged = self.acknowledged.max(due.saturating_sub(connections));
        while self.acknowledged < due {
            let number = (self.acknowledged % connections) as usize;
            self.acknowledged += 1;
            let sequence = &mut self.account.sequences[number];
            if sequence.acknowledged < sequence.last {
                sequence.acknowledged = sequence.last;
                let text = format!(r#"{{"type":"sequenceAck","sequenceId":{}}}"#, sequence.last);
                self.fleet.queue(number, Opcode::Text, text.as_bytes());
            }
        }
        Ok(())
    }
}

impl Account {
    /// Treats what arrived on connection `number`.
    fn receive(
        &mut self,
        number: usize,
        outbox: &mut Outbox,
        incoming: Incoming<'_>,
    ) -> Result<(), BenchError> {
        let Incoming::Frame { payload, wire, .. } = incoming else { return Ok(()) };
        let Some(stamp) = Stamp::find(payload, &mut self.hint) else {
            return self.receive_other(number, outbox, payload);
        };
        self.ledger.deliver(&self.plan, stamp.number, number)?;
        self.bytes += wire as u64;
        if let Some(latency) = &mut self.latency {
            let now = self.clock.elapsed().as_nanos() as u64;
            latency.add(now.saturating_sub(stamp.due_ns));
        }
        if let Some(sequence) = self.sequences.get_mut(number) {
            let id = sequence_id(payload);
            if id != Some(sequence.last + 1) {
                let found = id.map_or("none".to_owned(), |id| id.to_string());
                return Err(BenchError::Delivery(format!(
                    "connection {number} got sequenceId {found} after {}",
                    sequence.last
                )));
            }
            sequence.last += 1;
        }
        Ok(())
    }

    /// Treats a frame that is no delivery.
    fn receive_other(&self, number: usize, outbox: &mut Outbox, payload: &[u8]) -> Result<(), BenchError> {
        match self.dialect.understand(payload) {
            dialect::Word::Answer(text) => outbox.push(Opcode::Text, text.as_bytes()),
            dialect::Word::Refused(detail) => {
                return Err(BenchError::Protocol { connection: number, detail });
            }
            _ => {}
        }
        Ok(())
    }
}

/// The number in a message of the reliable protocol.
fn sequence_id(payload: &[u8]) -> Option<u64> {
    const NAME: &[u8] = br#""sequenceId":"#;
    let digits = &payload[memmem::find(payload, NAME)? + NAME.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_ids_are_read_wherever_they_stand() {
        assert_eq!(sequence_id(br#"{"sequenceId":17,"type":"message"}"#), Some(17));
        assert_eq!(sequence_id(br#"{"type":"message","sequenceId":300}"#), Some(300));
        assert_eq!(sequence_id(br#"{"type":"message"}"#), None);
        assert_eq!(sequence_id(br#"{"sequenceId":"1"}"#), None);
    }

    #[test]
    fn cost_per_delivery_and_frame_size_are_averages() {
        let sample = Sample {
            messages: 2,
            deliveries: 1000,
            bytes: 200_400,
            wall: Duration::from_secs(1),
            cpu: Some(Duration::from_millis(4)),
            own_cpu: Duration::ZERO,
            latency: None,
        };
        assert_eq!(sample.cpu_per_delivery(), Some(4.0));
        assert_eq!(sample.frame_bytes(), 200);
        assert_eq!(Sample { deliveries: 0, ..sample }.cpu_per_delivery(), None);
    }
}
