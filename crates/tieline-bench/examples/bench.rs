//! The load tool by itself, without the product's binary around it.

use clap::Parser;
use std::process::ExitCode;

/// Measures a WebSocket server.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: tieline_bench::Args,
}

fn main() -> ExitCode {
    match tieline_bench::run(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
