//! `cargo xtask`: reads the command line and calls the library.

use std::process::ExitCode;

use xtask::engine::{self, supervisor};
use xtask::{chaos, demo_ring, docs, tidy};

const USAGE: &str = "\
usage: cargo xtask tidy                          check sizes, names and the arrows between crates
       cargo xtask docs [--check]                write the documents that come from code, or compare them
       cargo xtask engines up|down|kill NAME     keep a private server (kill: SIGKILL, then up again on its data)
       cargo xtask engines status [NAME]         say where it is
       cargo xtask chaos OPTIONS                 break a cluster in every way, and judge what became of its messages
       cargo xtask demo-ring [--binary PATH]     show who moves when nodes come, are emptied, and are killed";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    match words {
        ["tidy"] => {
            let findings = tidy::check(&xtask::root()).map_err(|error| error.to_string())?;
            if findings.is_empty() {
                return Ok(());
            }
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Err(format!("{}\n{} findings", lines.join("\n"), lines.len()))
        }
        ["docs"] => docs::write(&xtask::root()).map_err(|error| error.to_string()),
        ["docs", "--check"] => docs::check(&xtask::root()).map_err(|error| error.to_string()),
        ["chaos", words @ ..] => chaos::run(words).map_err(|error| error.to_string()),
        ["demo-ring", words @ ..] => demo_ring::run(words).map_err(|error| error.to_string()),
        ["engines", command, names @ ..] => engines(command, names).map_err(|error| error.to_string())?,
        _ => Err(USAGE.into()),
    }
}

/// The outer error is the command line's, the inner one the engine's.
fn engines(command: &str, names: &[&str]) -> Result<Result<(), String>, engine::Error> {
    match (command, names) {
        ("up", [name]) => println!("{}", supervisor::up(engine::kind(name)?)?),
        ("down", [name]) => supervisor::down(engine::kind(name)?)?,
        ("kill", [name]) => println!("{}", supervisor::kill(engine::kind(name)?)?),
        ("status", [name]) => println!("{}", supervisor::status(engine::kind(name)?)?),
        ("status", []) => {
            for kind in engine::KINDS {
                println!("{}", supervisor::status(*kind)?);
            }
        }
        // What `up` leaves behind; not for people.
        ("supervise", [name]) => supervisor::supervise(engine::kind(name)?)?,
        _ => return Ok(Err(USAGE.into())),
    }
    Ok(Ok(()))
}
