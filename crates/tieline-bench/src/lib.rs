//! The load tool behind `tieline bench`: talks like a client, cannot reach into the server.
//!
//! One thread opens all client sockets, sends a load, checks that each message reaches each of its receivers once and
//! in order, and reports what it cost: processor time of the server per delivery, latency, memory per connection.
//! With `--floor` every run is paired with one against a plain epoll loop that writes frames of the same size.
//!
//! The way of a run: [`Args`] → `scenario` → `course` (sends, checks, measures) over `fleet` (sockets) → `report`.

mod args;
mod child;
mod connect;
mod connection;
mod course;
mod dialect;
mod endpoint;
mod error;
mod fleet;
mod floor;
mod frame;
mod idle;
mod ledger;
mod plan;
mod process;
mod progress;
mod report;
mod scenario;
mod stamp;
pub mod statistics;
mod suite;
mod token;
mod upgrade;

pub use args::Args;
pub use error::BenchError;
pub use report::{Figure, Spread};

use args::{Command, Connecting, FloorServer, Measuring};
use dialect::Dialect;
use progress::Progress;
use scenario::Scenario;
use serde::Serialize;
use std::fmt::Display;
use std::io::Write;

/// Runs one command and prints its result to standard output.
pub fn run(args: Args) -> Result<(), BenchError> {
    match args.command {
        Command::Fanout(options) => {
            load(Scenario::fanout(&options), &options.connecting, &options.measuring, Dialect::Tieline)
        }
        Command::Reliable(options) => {
            load(Scenario::fanout(&options), &options.connecting, &options.measuring, Dialect::Reliable)
        }
        Command::Groups(options) => {
            load(Scenario::groups(&options), &options.connecting, &options.measuring, Dialect::Tieline)
        }
        Command::Unicast(options) => {
            load(Scenario::unicast(&options), &options.connecting, &options.measuring, Dialect::Tieline)
        }
        Command::Idle(options) => {
            let files = scenario::prepare(&options.measuring)?;
            let service = scenario::service(&options.connecting, Dialect::Tieline)?;
            let mut progress = Progress::new(options.measuring.progress);
            print(&idle::run(&options, service, files, &mut progress)?, options.measuring.json)
        }
        Command::Connect(options) => {
            let files = scenario::prepare(&options.measuring)?;
            let service = scenario::service(&options.connecting, Dialect::Tieline)?;
            let mut progress = Progress::new(options.measuring.progress);
            print(&connect::run(&options, service, files, &mut progress)?, options.measuring.json)
        }
        Command::Suite(options) => suite::run(&options),
        Command::FloorServer(options) => serve_floor(&options),
    }
}

/// Runs a load and prints its report.
fn load(
    scenario: Scenario,
    connecting: &Connecting,
    measuring: &Measuring,
    default: Dialect,
) -> Result<(), BenchError> {
    scenario::prepare(measuring)?;
    let mut progress = Progress::new(measuring.progress);
    let report = scenario.run(scenario::service(connecting, default)?, measuring, &mut progress);
    progress.clear();
    print(&report?, measuring.json)
}

/// Says where the floor listens, and serves.
fn serve_floor(options: &FloorServer) -> Result<(), BenchError> {
    process::raise_file_limit()?;
    if options.with_parent {
        floor::end_with_standard_input();
    }
    let floor = floor::Floor::bind(options.listen, options.frame_bytes, options.mode)?;
    let mut out = std::io::stdout();
    writeln!(out, "The floor listens on {}", floor.address()?)?;
    out.flush()?;
    floor.serve()
}

/// Prints a result for people or for machines.
fn print(result: &(impl Serialize + Display), json: bool) -> Result<(), BenchError> {
    let mut out = std::io::stdout();
    if json {
        serde_json::to_writer_pretty(&mut out, result).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{result}")?;
    }
    Ok(())
}
