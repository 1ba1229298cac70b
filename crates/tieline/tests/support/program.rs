//! The built program.

use std::process::{Command, Stdio};

/// A command of the program, without any setting of the environment that the tests run in.
pub(crate) fn tieline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIELINE_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}
