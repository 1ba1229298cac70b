//! [`Town`]: the nodes and the gateway of the demonstration, as processes in a temporary folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tieline_proto::Incarnation;

use super::Error;
use crate::engine::child::Child;
use crate::node::{self, Started};

/// All nodes that there will be. The gateway is given the list of them from the start: who is not there yet, or not any more, does
/// not answer it.
pub(super) const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];

/// How long a node may take until all others know it, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is kept: the messages of some groups, all of them as long as this runs.
const CONFIGURATION: &str = r#"
placement = "ring"
[[group]]
match = "kept:*"
history = { count = 1000000, age = "1h", bytes = "1GiB" }
"#;

/// How long a node may take to empty itself.
const DRAIN: &str = "10s";

/// A node that was started.
pub(super) struct Node {
    /// None once it has ended.
    child: Option<Child>,
    listen: SocketAddr,
    peers: SocketAddr,
    /// How its connections' ids name it.
    pub(super) start: Incarnation,
}

/// Everything that runs. Dropped, it is all ended, and the folder is gone.
pub(super) struct Town {
    program: PathBuf,
    folder: PathBuf,
    /// Where each node will listen.
    addresses: Vec<SocketAddr>,
    pub(super) nodes: Vec<Node>,
    gateway: Option<(Child, SocketAddr)>,
}

/// Ports that nobody has now.
fn free_ports(count: usize) -> Result<Vec<SocketAddr>, Error> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held: Vec<TcpListener> =
        (0..count).map(bind).collect::<Result<_, _>>().map_err(|error| Error::io("bind a port", error))?;
    let addresses = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
    addresses.map_err(|error| Error::io("read a port", error))
}

impl Town {
    /// Starts the first nodes, and the gateway before all.
    pub(super) fn start(program: &Path, nodes: usize) -> Result<Town, Error> {
        let folder = std::env::temp_dir().join(format!("tieline-demo-ring-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| Error::io("make a folder", error))?;
        fs::write(folder.join("tieline.toml"), CONFIGURATION)
            .map_err(|error| Error::io("write the configuration", error))?;
        let addresses = free_ports(NAMES.len())?;
        let mut town =
            Town { program: program.to_owned(), folder, addresses, nodes: Vec::new(), gateway: None };
        for _ in 0..nodes {
            town.add()?;
        }
        let list = NAMES.iter().zip(&town.addresses).map(|(name, address)| format!("{name}=ws://{address}"));
        let list = format!("static://{}", list.collect::<Vec<_>>().join(","));
        let mut command = node::command(&town.program);
        command.args(["gateway", "--listen", "127.0.0.1:0", "--policy", "ring", "--registry", &list]);
        command.args(["--check-every", "200ms", "--tries", "4"]);
        let started = town.run("gateway", command, false)?;
        town.gateway = Some((started.child, started.listen));
        Ok(town)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn run(&self, name: &str, mut command: Command, has_peers: bool) -> Result<Started, Error> {
        command.current_dir(&self.folder);
        let log = self.log(name);
        match node::start(command, &log, has_peers)? {
            Some(started) => Ok(started),
            None => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                Err(Error::Stuck(format!("{name} does not start:\n{said}")))
            }
        }
    }

    /// Starts the next node, and waits until all know each other.
    pub(super) fn add(&mut self) -> Result<(), Error> {
        let number = self.nodes.len();
        let (name, listen) = (NAMES[number], self.addresses[number]);
        let seeds: Vec<String> = self.nodes.iter().map(|node| node.peers.to_string()).collect();
        let mut command = node::command(&self.program);
        command.args(["serve", "--node", name, "--shards", "1", "--listen", &listen.to_string()]);
        command.args(["--broker", &format!("mesh://{}", seeds.join(",")), "--peer-listen", "127.0.0.1:0"]);
        // Clients of a gateway are strangers to the nodes.
        command.args(["--allow-anonymous", "--config", "tieline.toml", "--store"]);
        command.arg(format!("sqlite://{}", self.folder.join("store.db").display()));
        command.env("TIELINE_TIMES_DRAIN", DRAIN).env("TIELINE_LIMITS_MESSAGE_RATE", "0");
        let Started { child, listen, peers } = self.run(name, command, true)?;
        let mut start = None;
        self.wait(&format!("{name} knows itself"), || {
            let own = node::nodes(listen).into_iter().find(|node| node["self"] == true);
            start = own.and_then(|own| u64::from_str_radix(own["incarnation"].as_str()?, 16).ok());
            start.is_some()
        })?;
        let peers = peers.unwrap_or(listen);
        let start = Incarnation(start.unwrap_or_default());
        self.nodes.push(Node { child: Some(child), listen, peers, start });
        let count = self.nodes.len();
        let knows_all = |node: &Node| {
            node::nodes(node.listen).iter().filter(|node| node["state"] == "alive").count() == count
        };
        self.wait(&format!("all know {name}"), || self.nodes.iter().all(knows_all))
    }

    /// Where clients connect.
    pub(super) fn gateway(&self) -> SocketAddr {
        self.gateway.as_ref().expect("a town has a gateway").1
    }

    /// Where a node itself listens.
    pub(super) fn address(&self, number: usize) -> SocketAddr {
        self.nodes[number].listen
    }

    /// Tells a node to stop, by SIGTERM, and waits until it has ended well.
    pub(super) fn drain(&mut self, number: usize) -> Result<(), Error> {
        let Some(mut child) = self.nodes[number].child.take() else { return Ok(()) };
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)
            .map_err(|error| Error::io("send a signal", error.into()))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match child.exit()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(Error::Stuck(format!("{} ended with {status}", NAMES[number]))),
                None if Instant::now() > deadline => {
                    return Err(Error::Stuck(format!("{} does not end", NAMES[number])));
                }
                None => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Ends a node without a word: SIGKILL.
    pub(super) fn kill(&mut self, number: usize) {
        self.nodes[number].child = None;
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > deadline {
                return Err(Error::Stuck(format!("waited {} s until {what}", PATIENCE.as_secs())));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        self.gateway = None;
        self.nodes.clear();
        // Nobody needs it any more; what cannot be removed lies in the folder for such things.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
