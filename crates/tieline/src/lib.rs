//! The tieline server as a program: configuration, the HTTP edge, and the commands.
//!
//! What it is: the one crate that sees all others, and joins them. What it is not: nothing here knows a frame of the wire or
//! holds a connection; the edge hands each socket to the switchboard, and `tieline-core` decides what its messages mean. A
//! library beside the program, so that tests start a whole server in their own process.

pub mod admission;
pub mod cli;
pub mod config;
pub mod echo;
pub mod http;
pub mod log;
pub mod stop;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use config::ConfigErrors;

/// Why a command ended in failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration has mistakes.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The shards could not be started, or one of them failed.
    #[error(transparent)]
    Switchboard(#[from] tieline_switchboard::Error),
    /// The system does not hand out its signals.
    #[error("signals cannot be waited for: {0}")]
    Signals(#[source] io::Error),
    /// The runtime could not be started.
    #[error("the runtime could not be started: {0}")]
    Runtime(#[source] io::Error),
    /// Nobody reads what is printed.
    #[error("the standard output cannot be written to: {0}")]
    Output(#[source] io::Error),
}

impl Failure {
    fn bind(address: SocketAddr, source: io::Error) -> Self {
        Failure::Bind { address, source }
    }

    /// What the program's caller is told: 2 for mistakes in what it was asked, 1 for all else.
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Config(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// The whole program.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Echo(args) => run_async(echo::run(&args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("error: {line}");
            }
            failure.exit_code()
        }
    }
}

fn run_async(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    let result = runtime.block_on(command);
    // Sockets in the middle of a request had their grace already.
    runtime.shutdown_background();
    result
}
