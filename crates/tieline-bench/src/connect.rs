//! What opening a connection costs the server: TCP, upgrade, token, and the protocol's greeting.
//! The connections of a run stay open until its processor time is read, so closing them is not in it.
//! Tested by `tests/command.rs`.

use crate::args::{Connect, Measuring};
use crate::child::Server;
use crate::course::Pace;
use crate::dialect::Seat;
use crate::error::BenchError;
use crate::fleet::{Fleet, Service};
use crate::floor::Mode;
use crate::process;
use crate::progress::Progress;
use crate::report::{Report, Run};
use crate::scenario::{floor_service, limits, pairs};
use std::time::{Duration, Instant};

/// Bytes of the floor's frames, of which it sends none here.
const FLOOR_FRAME: usize = 200;
/// Files that this process needs besides its sockets.
const OTHER_FILES: u64 = 64;
/// How often the server's processor time is read to see whether it has dealt with the closes.
const QUIET: Duration = Duration::from_millis(20);
/// Longest wait for that.
const QUIET_LIMIT: Duration = Duration::from_secs(2);
/// Processor time in [`QUIET`] below which a server counts as quiet: its timers may run.
const QUIET_CPU: Duration = Duration::from_micros(500);

/// Opens connections in runs, in turns with the floor when that is wanted.
pub(crate) fn run(
    options: &Connect,
    service: Service,
    files: u64,
    progress: &mut Progress,
) -> Result<Report, BenchError> {
    let measuring = &options.measuring;
    if measuring.floor && measuring.pid.is_empty() {
        return Err(BenchError::arguments("--floor compares processor time: give the server's --pid"));
    }
    enough_files(options.count, files)?;
    let title = format!("connect, {} at a time kept open", options.count);
    let seats: Vec<Seat> = (0..options.count).map(|user| Seat { user, ..Seat::default() }).collect();
    let floor = match measuring.floor {
        true => Some(Server::floor(FLOOR_FRAME, Mode::Direct, measuring.pin_server)?),
        false => None,
    };
    let (mut server_runs, mut floor_runs) = (Vec::new(), Vec::new());
    let runs = if floor.is_some() { pairs(measuring, Pace::Window(1)) } else { 1 };
    // The first round of each is the warm-up.
    for pair in 0..=runs {
        if let Some(floor) = &floor {
            progress.label(format!("{title}, floor, {pair} of {runs}"));
            let run = open(floor_service(floor)?, &seats, &[floor.id()], measuring, progress)?;
            floor_runs.extend((pair > 0).then_some(run));
        }
        progress.label(format!("{title}, server, {pair} of {runs}"));
        let run = open(service.clone(), &seats, &measuring.pid, measuring, progress)?;
        server_runs.extend((pair > 0).then_some(run));
    }
    progress.clear();
    let protocol = service.dialect.name();
    Ok(Report::new(title, protocol, "connections", server_runs, floor_runs))
}

/// Refuses more connections than this process may have open.
pub(crate) fn enough_files(connections: u32, files: u64) -> Result<(), BenchError> {
    if u64::from(connections) + OTHER_FILES > files {
        return Err(BenchError::arguments(format!(
            "{connections} connections do not fit into this system's limit of {files} open files per process"
        )));
    }
    Ok(())
}

/// One run: opens all seats, then closes them and waits until the server has dealt with that.
fn open(
    service: Service,
    seats: &[Seat],
    processes: &[u32],
    measuring: &Measuring,
    progress: &mut Progress,
) -> Result<Run, BenchError> {
    let own = [std::process::id()];
    let own_before = process::cpu_time(&own)?;
    let before = process::cpu_time(processes)?;
    let started = Instant::now();
    let fleet = Fleet::open(service, seats, limits(measuring).time, progress)?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = process::cpu_time(processes)?.saturating_sub(before);
    let own_cpu = process::cpu_time(&own)?.saturating_sub(own_before);
    fleet.close()?;
    wait_until_quiet(processes)?;
    let count = seats.len() as u64;
    Ok(Run {
        count,
        seconds,
        per_second: count as f64 / seconds,
        cpu_us: (!processes.is_empty()).then(|| cpu.as_secs_f64() * 1e6 / count as f64),
        generator_busy: own_cpu.as_secs_f64() / seconds,
        ..Run::default()
    })
}

/// Waits until the processes hardly use their processor.
fn wait_until_quiet(processes: &[u32]) -> Result<(), BenchError> {
    let started = Instant::now();
    let mut before = process::cpu_time(processes)?;
    while !processes.is_empty() && started.elapsed() < QUIET_LIMIT {
        std::thread::sleep(QUIET);
        let now = process::cpu_time(processes)?;
        if now.saturating_sub(before) < QUIET_CPU {
            break;
        }
        before = now;
    }
    Ok(())
}
