//! The built program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A command of the program, without any setting of the environment that the tests run in.
pub(crate) fn tieline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIELINE_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Starts a server with these arguments and variables, and reads the address from its first line.
pub(crate) fn start(args: &[&str], variables: &[(&str, &str)]) -> (Child, SocketAddr) {
    let mut command = tieline(args);
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address =
        line.trim_end().strip_prefix("listening on http://").expect("the first line has the address");
    (child, address.parse().unwrap())
}
