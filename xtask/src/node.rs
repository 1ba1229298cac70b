//! What every run of real nodes needs: the program, a process of it whose addresses are read, and who it says that there is.
//! Tested by those runs, `chaos.rs` and `demo_ring.rs`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine;
use crate::engine::child::Child;

/// How long a process may take until it serves, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks at a log.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a node may take to say how it sees the others.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Builds the program, without optimisation, with some features beside those of the default.
///
/// # Errors
/// When cargo cannot be started. None where the build fails.
pub(crate) fn build(features: &[&str]) -> io::Result<Option<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "tieline"]).current_dir(crate::root());
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    let is_built = command.status()?.success();
    Ok(is_built.then(|| crate::workspace::target().join("debug/tieline")))
}

/// A command of the program that the variables of whoever runs this have no part in.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIELINE_")) {
        command.env_remove(name);
    }
    command
}

/// A process that serves.
pub(crate) struct Started {
    pub(crate) child: Child,
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Where other nodes connect, if they do.
    pub(crate) peers: Option<SocketAddr>,
}

/// Starts a process, and waits until it has said where it listens; for other nodes too, where `has_peers`. None where it does not,
/// or has ended: its log says why.
pub(crate) fn start(command: Command, log: &Path, has_peers: bool) -> Result<Option<Started>, engine::Error> {
    let mut child = Child::spawn(command, log)?;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let address = |label: &str| text.lines().find_map(|line| line.strip_prefix(label)?.parse().ok());
        let peers = address("peers on ");
        if let Some(listen) = address("listening on http://").filter(|_| peers.is_some() || !has_peers) {
            return Ok(Some(Started { child, listen, peers }));
        }
        if child.exit()?.is_some() || Instant::now() > deadline {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The nodes that one knows, itself among them, as `/api/v1/nodes` has it; none when it does not answer.
pub(crate) fn nodes(node: SocketAddr) -> Vec<Value> {
    match json(node, "/api/v1/nodes")["nodes"].take() {
        Value::Array(nodes) => nodes,
        _ => Vec::new(),
    }
}

/// Whether a node says that its broker carries; not when it does not answer.
pub(crate) fn is_broker_up(node: SocketAddr) -> bool {
    json(node, "/readyz")["broker_up"] == true
}

/// What a node answers there; null when it does not.
fn json(node: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&text(node, path)).unwrap_or_default()
}

/// The text that a node answers there; empty when it does not.
pub(crate) fn text(node: SocketAddr, path: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&node, ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        io::Result::Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}
