//! [`Pair`]: servers of clients, two in general, joined by a broker, and what is in the middle.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use crate::engine::child::Child;
use crate::engine::{self, Engine};
use crate::node;

/// Time in which nodes have to find each other, and what each of them adds to it on a busy machine.
const JOINED_WITHIN: Duration = Duration::from_secs(60);
const JOINED_EACH: Duration = Duration::from_secs(3);

/// Pause between two looks whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Clock ticks in a second, by which Linux tells programs processor time on every machine.
const TICKS: f64 = 100.0;

/// Servers, with a broker between them.
pub(super) struct Pair {
    /// The server in the middle; none where they link each other.
    middle: Option<Engine>,
    servers: Vec<(Child, SocketAddr)>,
    /// What their clients speak.
    pub(super) protocol: &'static str,
    /// Where clients of a server connect, behind its address.
    path: &'static str,
}

impl Pair {
    /// So many nodes, joined by the broker of this name, with further words for each.
    pub(super) fn nodes(
        binary: &Path,
        name: &str,
        count: usize,
        words: &[&str],
        folder: &Path,
    ) -> Result<Pair, Error> {
        fs::create_dir_all(folder)?;
        let middle = if name == "mesh" { None } else { Some(Engine::of(engine::kind(name)?).start()?) };
        let cluster = format!("brokers-{}", id());
        let mut servers: Vec<(Child, SocketAddr)> = Vec::new();
        let mut seeds = Vec::new();
        for number in 0..count {
            let node = format!("n{number}");
            let mut command = node::command(binary);
            command.env("TIELINE_LIMITS_MESSAGE_RATE", "0").current_dir(folder);
            command.args(["serve", "--node", &node, "--shards", "1", "--listen", "127.0.0.1:0"]);
            command.args(words).args(["--cluster", &cluster, "--broker"]);
            match &middle {
                Some(middle) => command.arg(middle.url()),
                None => {
                    command.arg(format!("mesh://{}", seeds.join(","))).args(["--peer-listen", "127.0.0.1:0"])
                }
            };
            let log = folder.join(format!("{node}.log"));
            let what = || "a node does not start".to_owned();
            let started = node::start(command, &log, middle.is_none())?;
            let started = started.ok_or_else(|| Error::Server { what: what(), log: log.clone() })?;
            // Three are enough to find all others by.
            seeds.extend(started.peers.map(|peers| peers.to_string()).filter(|_| number < 3));
            servers.push((started.child, started.listen));
        }
        let deadline = Instant::now() + JOINED_WITHIN + JOINED_EACH * count as u32;
        for (_, listen) in &servers {
            let is_alive = |node: &&serde_json::Value| node["state"] == "alive";
            while node::nodes(*listen).iter().filter(is_alive).count() < servers.len() {
                if Instant::now() > deadline {
                    let what = "nodes do not find each other".to_owned();
                    return Err(Error::Server { what, log: folder.join("n0.log") });
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(Pair { middle, servers, protocol: "tieline.v1", path: "/client/hubs/bench" })
    }

    /// Two of socket.io's servers, joined by its Redis adapter.
    pub(super) fn socketio(program: &Path, folder: &Path) -> Result<Pair, Error> {
        fs::create_dir_all(folder)?;
        let middle = Engine::redis().start()?;
        let mut servers = Vec::new();
        for name in ["a", "b"] {
            // Free now, and nobody else is likely to take it meanwhile.
            let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut command = Command::new("node");
            command.arg(program.join("server.js")).args(["--listen", &listen.to_string()]);
            command.args(["--redis", middle.url()]);
            let log: PathBuf = folder.join(format!("{name}.log"));
            let child = Child::spawn(command, &log)?;
            let deadline = Instant::now() + JOINED_WITHIN;
            while !fs::read_to_string(&log).unwrap_or_default().contains("listens on") {
                if Instant::now() > deadline {
                    return Err(Error::Server { what: "socket.io does not start".to_owned(), log });
                }
                thread::sleep(LOOK_EVERY);
            }
            servers.push((child, listen));
        }
        Ok(Pair { middle: Some(middle), servers, protocol: "socket.io", path: "/socket.io/" })
    }

    /// Where clients of each server connect.
    pub(super) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(|(_, listen)| format!("ws://{listen}{}", self.path)).collect()
    }

    /// Where the servers listen for clients.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|(_, listen)| *listen).collect()
    }

    /// The processes of the servers.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(|(child, _)| child.id()).collect()
    }

    /// Processor time that what is in the middle has taken so far, in microseconds.
    pub(super) fn middle_cpu(&self) -> f64 {
        let pids = self.middle.as_ref().map(Engine::pids).unwrap_or_default();
        pids.into_iter().map(cpu).sum()
    }
}

/// Processor time of a process so far, in microseconds; nothing of one that is gone.
fn cpu(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have anything in it, user and system time are the 12th and 13th words.
    let words = text.rsplit_once(')').map_or("", |(_, behind)| behind).split_whitespace();
    let ticks: f64 = words.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / TICKS * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_told_of_processes_that_live() {
        let begin = Instant::now();
        let before = cpu(id());
        let mut number = 1u64;
        while begin.elapsed() < Duration::from_millis(200) {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(cpu(id()) > before, "{number}");
        assert_eq!(cpu(u32::MAX), 0.0);
    }
}
