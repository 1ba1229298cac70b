//! `cargo xtask brokers`: one table of what messages between two nodes cost, over every broker, from one run.
//!
//! For each broker its server is started, and two nodes with one shard each; `tieline bench` sends from clients of one to clients
//! of the other. The nodes' processor time comes from it, the server's from the system, before and after. Each round goes over all
//! brokers in turn, so that a machine that others use as well is unkind to all alike; the table has medians. Not a test: nothing
//! is judged. Tested in its folder as far as it reads anything; the rest by whoever makes the table.
//!
//! `brokers/traffic.rs` counts instead what one message is on its way between the nodes of larger clusters.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, id};

use serde_json::Value;

use crate::engine;
use options::Options;
use pair::Pair;

mod options;
mod pair;
mod traffic;

/// What nodes can be joined by, in the table's order: the keeper's names, and the mesh.
const NAMES: &[&str] =
    &["mesh", "redis", "redis-cluster", "sentinel", "nats", "rabbitmq", "kafka", "rocketmq", "hazelcast"];

/// Members of the group that messages to many go to.
const MEMBERS: f64 = 1_000.0;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// A server in the middle does not start.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A server of clients does not start, or does not find the other.
    #[error("{what}; its log is {}", log.display())]
    Server {
        /// What went wrong.
        what: String,
        /// What it said.
        log: PathBuf,
    },
    /// The program that measures failed.
    #[error("`tieline bench` failed: {0}")]
    Bench(String),
    /// A client, or the tool that counts bytes.
    #[error("{0}")]
    Count(String),
    /// A file or a process.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What one round has given, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// Unicast with 64 outstanding: processor time for a message, of both nodes and of what is in the middle.
    unicast: f64,
    unicast_middle: f64,
    /// To 1,000, 16 outstanding: processor time of both nodes for a delivery, and of the middle for a message.
    fanout: f64,
    fanout_middle: f64,
    /// At 1,000 messages a second, from client to client.
    p50: f64,
    p99: f64,
}

/// Measures, and prints the table.
///
/// # Errors
/// When something does not start, or a measurement fails.
pub fn run(words: &[&str]) -> Result<(), Error> {
    let mut options = Options::parse(words).map_err(Error::Usage)?;
    // Nodes run in folders of their own.
    options.binary = fs::canonicalize(&options.binary)?;
    let folder = crate::workspace::target().join(format!("brokers-{}", id()));
    if let Some(counts) = &options.traffic {
        traffic::run(&options, counts, &folder)?;
        return Ok(fs::remove_dir_all(&folder)?);
    }
    let mut names: Vec<&str> = options.names.iter().map(String::as_str).collect();
    names.extend(options.socketio.as_ref().map(|_| "socket.io"));
    let mut results: Vec<Vec<Round>> = vec![Vec::new(); names.len()];
    for round in 1..=options.rounds {
        for (name, results) in names.iter().zip(&mut results) {
            eprintln!("{name}, round {round} of {}", options.rounds);
            let folder = folder.join(format!("{name}-{round}"));
            let pair = match &options.socketio {
                Some(program) if *name == "socket.io" => Pair::socketio(program, &folder)?,
                _ => Pair::nodes(&options.binary, name, 2, &[], &folder)?,
            };
            results.push(measure(&options, &pair)?);
        }
    }
    fs::remove_dir_all(&folder)?;
    print!("{}", table(&names, &results));
    Ok(())
}

fn measure(options: &Options, pair: &Pair) -> Result<Round, Error> {
    // Whatever is made at first use is made here.
    bench(options, pair, "unicast", &["--users", "200"], options.seconds / 2.0)?;
    let (unicast, unicast_middle) = loaded(options, pair, "unicast", &["--users", "200"])?;
    let (fanout, fanout_middle) = loaded(options, pair, "fanout", &["--subscribers", "1000"])?;
    let paced = bench(options, pair, "unicast", &["--users", "200", "--rate", "1000"], options.seconds)?;
    let run = &paced["server"][0];
    let micros = |key: &str| run[key].as_f64().unwrap_or(f64::NAN);
    let (p50, p99) = (micros("p50_us"), micros("p99_us"));
    Ok(Round { unicast, unicast_middle, fanout, fanout_middle, p50, p99 })
}

/// Processor time under load: of the nodes for a delivery, and of the middle for a message.
fn loaded(options: &Options, pair: &Pair, load: &str, words: &[&str]) -> Result<(f64, f64), Error> {
    let before = pair.middle_cpu();
    let report = bench(options, pair, load, words, options.seconds)?;
    let middle = pair.middle_cpu() - before;
    let run = &report["server"][0];
    let messages = run["messages"].as_f64().unwrap_or(f64::NAN);
    Ok((run["cpu_us"].as_f64().unwrap_or(f64::NAN), middle / messages))
}

/// One measurement from one server's clients to the other's.
fn bench(options: &Options, pair: &Pair, load: &str, words: &[&str], seconds: f64) -> Result<Value, Error> {
    let mut command = Command::new(&options.binary);
    let urls = pair.urls();
    command.args(["bench", load, &urls[0], "--other-url", &urls[1], "--protocol", pair.protocol]);
    // What is sent to warm up is in the middle's time and not among the messages, so there is next to nothing of it.
    command.args(["--json", "--warm-up", "0.01", "--seconds", &seconds.to_string()]).args(words);
    for pid in pair.pids() {
        command.args(["--pid", &pid.to_string()]);
    }
    let output = command.output()?;
    let parsed = serde_json::from_slice(&output.stdout);
    match parsed {
        Ok(report) if output.status.success() => Ok(report),
        _ => Err(Error::Bench(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The results as Markdown, medians.
fn table(names: &[&str], results: &[Vec<Round>]) -> String {
    let mut out = String::from(
        "| broker | unicast, µs of both nodes | of the server | fan-out 1:1000, µs of both nodes per message | of the server \
         | p50 at 1,000/s, ms | p99, ms |\n|---|---|---|---|---|---|---|\n",
    );
    for (name, rounds) in names.iter().zip(results) {
        let median = |value: fn(&Round) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let server = |micros: f64| if *name == "mesh" { "–".to_owned() } else { format!("{micros:.1}") };
        out += &format!(
            "| {name} | {:.1} | {} | {:.0} | {} | {:.2} | {:.2} |\n",
            median(|round| round.unicast),
            server(median(|round| round.unicast_middle)),
            median(|round| round.fanout) * MEMBERS,
            server(median(|round| round.fanout_middle)),
            median(|round| round.p50) / 1e3,
            median(|round| round.p99) / 1e3,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_no_server_for_a_mesh() {
        let rounds =
            [3.0, 1.0, 2.0].map(|unicast| Round { unicast, fanout: 0.5, p50: 1500.0, ..Round::default() });
        let table = table(&["mesh", "nats"], &[rounds.to_vec(), rounds.to_vec()]);
        assert!(table.contains("| mesh | 2.0 | – | 500 | – | 1.50 | 0.00 |"), "{table}");
        assert!(table.contains("| nats | 2.0 | 0.0 |"), "{table}");
    }
}
