//! Redis with a sentinel: a master, its replica, and one sentinel, which makes the replica the master soon after the master's death.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::redis::{self, Tls, ask};
use super::{Kind, Source};

/// What the sentinel calls the master.
const MASTER: &str = "mymaster";

/// A master, its replica and a sentinel.
pub struct Sentinel {
    tls: Option<Tls>,
}

/// One without TLS.
pub(super) static PLAIN: Sentinel = Sentinel { tls: None };

impl Sentinel {
    /// A kind whose servers speak TLS with each other, and with clients [`Sentinel::TLS`] ports further. It is never given back, as it is for
    /// tests.
    pub fn with_tls(key: &str, certificate: &str) -> &'static dyn Kind {
        Box::leak(Box::new(Sentinel { tls: Some(Tls::new(key, certificate)) }))
    }

    /// How far the ports for clients that speak TLS are from those of the others.
    pub const TLS: u16 = Tls::BESIDE;

    /// The port that servers find each other by.
    fn own_port(&self, port: u16) -> u16 {
        if self.tls.is_some() { port + Self::TLS } else { port }
    }

    fn server(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new(redis::PROGRAM);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
        command.args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        command.args(self.tls.iter().flat_map(|tls| tls.words(port)));
        command
    }
}

impl Kind for Sentinel {
    fn name(&self) -> &'static str {
        "sentinel"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_SENTINEL"
    }

    fn source(&self) -> Source {
        redis::PACKAGE
    }

    fn further_ports(&self) -> &'static [i32] {
        &[1, 2, 20, 21, 22]
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        let file = folder.join("sentinel.conf");
        // The sentinel writes into it who is the master now.
        if file.exists() {
            return Ok(());
        }
        let tls = self.tls.iter().flat_map(|tls| tls.settings(port + 2));
        let tls: Vec<String> = tls.map(|(name, value)| format!("{name} {value}")).collect();
        let lines = format!(
            "port {}\nbind 127.0.0.1\ndir {}\n{}\nsentinel monitor {MASTER} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 3000\n",
            port + 2,
            folder.display(),
            tls.join("\n"),
            self.own_port(port),
        );
        fs::write(file, lines)
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        self.server(folder, port)
    }

    fn companions(&self, folder: &Path, port: u16) -> Vec<Command> {
        let mut replica = self.server(folder, port + 1);
        replica.args(["--replicaof", "127.0.0.1", &self.own_port(port).to_string()]);
        let mut sentinel = Command::new("redis-server");
        sentinel.arg(folder.join("sentinel.conf")).arg("--sentinel");
        vec![replica, sentinel]
    }

    fn is_ready(&self, port: u16) -> bool {
        // The sentinel knows of a replica that is fit to be the master: without one there is no fail-over.
        let says = |port: u16, command: &str, text: &str| {
            ask(&format!("redis://127.0.0.1:{port}"), command).is_ok_and(|answer| answer.contains(text))
        };
        says(port + 2, &format!("SENTINEL CKQUORUM {MASTER}"), "+OK")
            && says(port + 2, &format!("SENTINEL REPLICAS {MASTER}"), "*1")
    }

    fn url(&self, port: u16) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{MASTER}", port + 2)
    }
}
