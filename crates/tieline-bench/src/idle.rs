//! What a quiet connection costs the server in private memory, after it has had traffic.
//!
//! A first set of connections opens and talks, so that what the server allocates once for all is there. Then private
//! memory is read, the connections that count are opened, each joins a group of ten, sends to it, and receives from
//! the nine others; after a quiet time private memory is read again. The difference is divided by the connections.
//! The kernel's memory for sockets is not in it. Tested by `tests/command.rs`.

use crate::args::Idle;
use crate::child::Server;
use crate::connect::enough_files;
use crate::course::{Course, Length, Limits, Pace};
use crate::error::BenchError;
use crate::fleet::Service;
use crate::floor::Mode;
use crate::plan::Plan;
use crate::process;
use crate::progress::Progress;
use crate::scenario::{floor_service, limits};
use serde::Serialize;
use std::fmt::{self, Display};
use std::time::Duration;

/// Members of each group.
const GROUP: usize = 10;
/// Connections of the first set.
const FIRST: usize = 100;
/// Messages outstanding while everybody talks.
const WINDOW: usize = 16;
/// Bytes of a message's JSON data.
const PAYLOAD: usize = 128;
/// Bytes of the floor's frames.
const FLOOR_FRAME: usize = 300;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct IdleReport {
    /// The load, in words.
    pub(crate) load: String,
    /// The protocol spoken.
    pub(crate) protocol: String,
    /// The server.
    pub(crate) server: Memory,
    /// The floor, when it took part.
    pub(crate) floor: Option<Memory>,
}

/// Private memory of one server.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Bytes before the connections that count.
    pub(crate) before: u64,
    /// Bytes with them quiet.
    pub(crate) after: u64,
    /// Bytes for each of them.
    pub(crate) per_connection: f64,
}

impl Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}\n", self.load, self.protocol)?;
        writeln!(f, "{:<10}{:>20}{:>16}{:>16}", "", "bytes/connection", "before, KiB", "after, KiB")?;
        for (name, memory) in [("server", Some(self.server)), ("floor", self.floor)] {
            let Some(memory) = memory else { continue };
            let (before, after) = (memory.before / 1024, memory.after / 1024);
            writeln!(f, "{name:<10}{:>20.0}{before:>16}{after:>16}", memory.per_connection)?;
        }
        Ok(())
    }
}

/// Measures the server, and the floor when that is wanted.
pub(crate) fn run(
    options: &Idle,
    service: Service,
    files: u64,
    progress: &mut Progress,
) -> Result<IdleReport, BenchError> {
    let measuring = &options.measuring;
    if measuring.pid.is_empty() {
        return Err(BenchError::arguments("idle reads the server's memory: give its --pid"));
    }
    enough_files(options.connections + FIRST as u32, files)?;
    let load = format!("{} idle connections after traffic", options.connections);
    progress.label(&load);
    let protocol = service.dialect.name();
    let server = measure(options, service, PAYLOAD, &measuring.pid, progress)?;
    let floor = match measuring.floor {
        false => None,
        true => {
            progress.label(format!("{load}, floor"));
            let process = Server::floor(FLOOR_FRAME, Mode::Gather, measuring.pin_server)?;
            Some(measure(options, floor_service(&process)?, PAYLOAD, &[process.id()], progress)?)
        }
    };
    progress.clear();
    Ok(IdleReport { load, protocol, server, floor })
}

/// Measures one server.
fn measure(
    options: &Idle,
    service: Service,
    payload: usize,
    processes: &[u32],
    progress: &mut Progress,
) -> Result<Memory, BenchError> {
    let limits = limits(&options.measuring);
    let connections = options.connections as usize;
    let settle = Duration::from_secs_f64(options.settle);
    let mut first = talk(service.clone(), FIRST, options.each, payload, limits, progress)?;
    first.rest(settle)?;
    let before = process::private_memory(processes)?;
    let mut course = talk(service, connections, options.each, payload, limits, progress)?;
    course.rest(settle)?;
    let after = process::private_memory(processes)?;
    first.close()?;
    course.close()?;
    let per_connection = (after as f64 - before as f64) / connections as f64;
    Ok(Memory { before, after, per_connection })
}

/// Opens `connections` in groups of ten and lets each send `each` messages.
fn talk(
    service: Service,
    connections: usize,
    each: u16,
    payload: usize,
    limits: Limits,
    progress: &mut Progress,
) -> Result<Course, BenchError> {
    let plan = Plan::in_turn(connections, GROUP)?;
    let mut course = Course::open(service, plan, payload, Vec::new(), limits, progress)?;
    let messages = connections as u64 * u64::from(each);
    course.run(Pace::Window(WINDOW), Length::Messages(messages), limits, progress)?;
    Ok(course)
}
