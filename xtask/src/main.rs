//! `cargo xtask`: reads the command line and calls the library.

use std::process::ExitCode;

use xtask::engine::{self, supervisor};
use xtask::{brokers, chaos, demo_ring, docs, tidy};

const USAGE: &str = "\
usage: cargo xtask tidy                          check sizes, names and the arrows between crates
       cargo xtask docs [--check]                write the documents that come from code, or compare them
       cargo xtask engines install|up|down|kill NAME…
                                                 keep private servers (kill: SIGKILL, then up again on its data)
       cargo xtask engines status [NAME…]        say where they are
       cargo xtask chaos OPTIONS                 break a cluster in every way, and judge what became of its messages
       cargo xtask demo-ring [--binary PATH]     show who moves when nodes come, are emptied, and are killed
       cargo xtask brokers OPTIONS               measure what messages between nodes cost over every broker";

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
        ["brokers", words @ ..] => brokers::run(words).map_err(|error| error.to_string()),
        ["demo-ring", words @ ..] => demo_ring::run(words).map_err(|error| error.to_string()),
        ["engines", command, names @ ..] => engines(command, names).map_err(|error| error.to_string())?,
        _ => Err(USAGE.into()),
    }
}

/// The outer error is the engine's, the inner one the command line's.
fn engines(command: &str, names: &[&str]) -> Result<Result<(), String>, engine::Error> {
    // All names are looked at before anything happens.
    let kinds: Vec<_> = names.iter().map(|name| engine::kind(name)).collect::<Result<_, _>>()?;
    let kinds = match command {
        "status" if kinds.is_empty() => engine::KINDS.to_vec(),
        _ if kinds.is_empty() => return Ok(Err(USAGE.into())),
        _ => kinds,
    };
    for kind in kinds {
        match command {
            "install" => engine::install(kind)?,
            "up" => println!("{}", supervisor::up(kind)?),
            "down" => supervisor::down(kind)?,
            "kill" => println!("{}", supervisor::kill(kind)?),
            "status" => println!("{}", supervisor::status(kind)?),
            // What `up` leaves behind; not for people.
            "supervise" => supervisor::supervise(kind)?,
            _ => return Ok(Err(USAGE.into())),
        }
    }
    Ok(Ok(()))
}
