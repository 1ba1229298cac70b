//! The command line.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

/// Joins WebSocket servers into one: a client of any node reaches every user, every group and everybody.
#[derive(Debug, Parser)]
#[command(name = "tieline", version, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer each WebSocket message with itself, for conformance suites and load tools
    Echo(EchoArgs),
}

/// Flags of `tieline echo`.
#[derive(Debug, Args)]
pub struct EchoArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7801")]
    pub listen: SocketAddr,
    /// Agree to permessage-deflate
    #[arg(long)]
    pub deflate: bool,
    /// Largest message that is taken
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub max_message: usize,
}
