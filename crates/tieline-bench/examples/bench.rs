//! The load tool by itself, without the product's binary around it.

use clap::Parser;

/// Measures a WebSocket server.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: tieline_bench::Args,
}

fn main() -> Result<(), tieline_bench::BenchError> {
    tieline_bench::run(Cli::parse().args)
}
