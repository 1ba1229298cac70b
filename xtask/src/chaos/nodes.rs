//! [`Cluster`]: nodes as processes, the servers they use, and a proxy on each way between any two of these and to the clients.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Error;
use super::options::{Broker, Options, Store};
use super::stage::Stage;
use crate::engine::child::{self, Child};
use crate::engine::{self, Engine};
use crate::node;
use crate::proxy::Proxy;

/// How long after the last fault nodes may take until each reaches all.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// Pause between two looks at a node.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a node's log says when one of its threads has failed.
const PANIC: &str = "panicked at";

/// A node, node or killed.
pub(super) struct Node {
    name: String,
    /// None while it is killed.
    child: Option<Child>,
    /// How often it was started: each start has a log of its own.
    starts: u32,
    /// Where clients' and peers' proxies find it. Kept over its starts.
    listen: SocketAddr,
    peers: SocketAddr,
    /// In front of it, for clients, from its first start on.
    door: Option<Proxy>,
    /// Between it and the broker, or each node of a lower number, which it connects to. None to a broker that takes no proxies.
    ways: Vec<Proxy>,
    /// Between it and the store.
    store: Option<Proxy>,
}

/// Everything that runs.
pub(super) struct Cluster {
    options: Options,
    program: PathBuf,
    folder: PathBuf,
    stage: Arc<Stage>,
    pub(super) nodes: Vec<Node>,
    pub(super) broker: Option<Engine>,
    pub(super) store: Option<Engine>,
}

/// What can be killed and frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// The node of this number.
    Node(usize),
    Broker,
    /// Of a broker of several servers, the one of this number.
    Server(usize),
    Store,
}

/// What can be cut, delayed and lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Of the ways from a node to its peers or its broker, the one of this number.
    Way(usize, usize),
    /// Between a node and the store.
    Store(usize),
    /// Between a node and its clients.
    Door(usize),
}

fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The address of a server that a proxy stands in front of.
fn address_in(url: &str) -> Result<SocketAddr, Error> {
    let behind = url.split_once("://").map_or(url, |(_, rest)| rest);
    let behind = behind.rsplit_once('@').map_or(behind, |(_, rest)| rest);
    let address = behind.split(['/', '?']).next().unwrap_or_default();
    address.parse().map_err(|_| Error::Address(url.to_owned()))
}

/// The address of a server, as it is found through a proxy.
fn behind(url: &str, proxy: &Proxy) -> Result<String, Error> {
    Ok(url.replace(&address_in(url)?.to_string(), &proxy.address.to_string()))
}

impl Cluster {
    /// Starts the servers and as many nodes as are wanted.
    pub(super) fn start(
        options: &Options,
        program: &Path,
        folder: &Path,
        stage: &Arc<Stage>,
    ) -> Result<Cluster, Error> {
        fs::create_dir_all(folder).map_err(|error| Error::io("create the folder of the run", error))?;
        let server = |name: &str| Ok::<_, Error>(Some(Engine::of(engine::kind(name)?).start()?));
        let broker = if let Broker::Server(name) = options.broker { server(name)? } else { None };
        let store = if let Store::Server(name) = &options.store { server(name)? } else { None };
        let mut cluster = Cluster {
            options: options.clone(),
            program: program.to_path_buf(),
            folder: folder.to_path_buf(),
            stage: Arc::clone(stage),
            nodes: Vec::new(),
            broker,
            store,
        };
        for number in 0..options.nodes {
            cluster.add()?;
            cluster.restart(number)?;
        }
        Ok(cluster)
    }

    /// Makes one more node, which does not run yet.
    pub(super) fn add(&mut self) -> Result<Party, Error> {
        let number = self.nodes.len();
        let ways = match &self.broker {
            Some(_) if !self.options.broker.takes_proxies() => Vec::new(),
            Some(broker) => vec![Proxy::before(address_in(broker.url())?)],
            None => self.nodes.iter().map(|node| Proxy::before(node.peers)).collect(),
        };
        let store = match &self.store {
            Some(store) => Some(Proxy::before(address_in(store.url())?)),
            None => None,
        };
        self.nodes.push(Node {
            name: format!("n{number}"),
            child: None,
            starts: 0,
            listen: any(),
            peers: any(),
            door: None,
            ways,
            store,
        });
        Ok(Party::Node(number))
    }

    /// Starts a node that does not run, where it was before if it was, and lets clients connect to it.
    pub(super) fn restart(&mut self, number: usize) -> Result<(), Error> {
        let log = |node: &Node| self.folder.join(format!("{}.{}.log", node.name, node.starts));
        let mut command = self.command(&self.nodes[number])?;
        let node = &mut self.nodes[number];
        node.starts += 1;
        let log = log(node);
        command.current_dir(&self.folder);
        let Some(started) = node::start(command, &log, self.options.broker == Broker::Mesh)? else {
            return Err(Error::Node { name: node.name.clone(), what: "does not start", log });
        };
        (node.listen, node.peers) = (started.listen, started.peers.unwrap_or_else(any));
        node.child = Some(started.child);
        if node.door.is_none() {
            let door = Proxy::before(started.listen);
            self.stage.open_door(door.address);
            node.door = Some(door);
        }
        Ok(())
    }

    fn command(&self, node: &Node) -> Result<Command, Error> {
        let mut command = node::command(&self.program);
        command.env("TIELINE_LIMITS_MESSAGE_RATE", "0");
        command.args(["serve", "--node", &node.name, "--shards", "2", "--listen", &node.listen.to_string()]);
        if let Some(server) = &self.broker {
            let broker = match node.ways.first() {
                Some(way) => behind(server.url(), way)?,
                None => server.url().to_owned(),
            };
            // Clusters that share a server are kept apart by their names.
            command.args(["--broker", &broker, "--cluster", &format!("chaos-{}", std::process::id())]);
        } else {
            let seeds: Vec<_> = node.ways.iter().map(|way| way.address.to_string()).collect();
            command.args(["--broker", &format!("mesh://{}", seeds.join(","))]);
            // No node is where it says that it is, so that there is no way around the proxies.
            command.args(["--peer-listen", &node.peers.to_string(), "--peer-advertise", "127.0.0.1:1"]);
            command.args(["--cluster-secret", "the secret of a cluster that is tried"]);
        }
        let store = match &self.options.store {
            Store::Absent => return Ok(command),
            Store::Memory => "memory:".to_owned(),
            Store::Sqlite => format!("sqlite://{}", self.folder.join("store.sqlite").display()),
            Store::Server(_) => {
                let (Some(server), Some(proxy)) = (&self.store, &node.store) else {
                    return Err(Error::Address("a store that was not started".to_owned()));
                };
                behind(server.url(), proxy)?
            }
        };
        let file = self.folder.join("tieline.toml");
        fs::write(&file, CONFIGURATION).map_err(|error| Error::io("write the configuration", error))?;
        command.args(["--store", &store, "--config"]).arg(file);
        Ok(command)
    }

    /// What stands on a way; none where there is no such way.
    pub(super) fn proxy(&self, wire: Wire) -> Option<&Proxy> {
        match wire {
            Wire::Way(node, number) => self.nodes.get(node)?.ways.get(number),
            Wire::Store(node) => self.nodes.get(node)?.store.as_ref(),
            Wire::Door(node) => self.nodes.get(node)?.door.as_ref(),
        }
    }

    /// All ways that there are.
    pub(super) fn wires(&self) -> Vec<Wire> {
        let of = |(number, node): (usize, &Node)| {
            let ways = (0..node.ways.len()).map(move |way| Wire::Way(number, way));
            let store = node.store.is_some().then_some(Wire::Store(number));
            let door = node.door.is_some().then_some(Wire::Door(number));
            ways.chain(store).chain(door).collect::<Vec<_>>()
        };
        self.nodes.iter().enumerate().flat_map(of).collect()
    }

    /// Everybody who can be killed.
    pub(super) fn parties(&self) -> Vec<Party> {
        let broker = match &self.broker {
            Some(broker) if self.options.broker.is_several() => {
                (0..broker.members()).map(Party::Server).collect()
            }
            Some(_) => vec![Party::Broker],
            None => Vec::new(),
        };
        let store = self.store.as_ref().map(|_| Party::Store);
        (0..self.nodes.len()).map(Party::Node).chain(broker).chain(store).collect()
    }

    /// Who is meant by a victim: of several servers none but a master, because the others carry nothing. None where there is no master
    /// at the moment.
    pub(super) fn meant(&self, party: Party) -> Option<Party> {
        let (Party::Server(number), Some(broker)) = (party, &self.broker) else { return Some(party) };
        let mut turn = (0..broker.members()).map(|further| (number + further) % broker.members());
        turn.find(|number| broker.is_master(*number)).map(Party::Server)
    }

    fn engine(&mut self, party: Party) -> Option<&mut Engine> {
        match party {
            Party::Node(_) => None,
            Party::Broker | Party::Server(_) => self.broker.as_mut(),
            Party::Store => self.store.as_mut(),
        }
    }

    /// Ends a party without a word.
    pub(super) fn kill(&mut self, party: Party) -> Result<(), Error> {
        if let Party::Node(number) = party {
            self.look_at(number)?;
            self.nodes[number].child = None;
        } else if let Some(engine) = self.engine(party) {
            match party {
                Party::Server(number) => engine.kill_member(number)?,
                _ => engine.kill()?,
            }
        }
        Ok(())
    }

    /// Starts a killed party again. One of several servers may not answer yet.
    pub(super) fn revive(&mut self, party: Party) -> Result<(), Error> {
        if let Party::Node(number) = party {
            return self.restart(number);
        }
        if let Some(engine) = self.engine(party) {
            match party {
                Party::Server(number) => engine.restart_member(number)?,
                _ => engine.restart()?,
            }
        }
        Ok(())
    }

    /// Sends a party's processes a signal: SIGSTOP keeps them from node, their sockets stay open.
    pub(super) fn signal(&mut self, party: Party, signal: Signal) -> Result<(), Error> {
        let pids: Vec<u32> = match party {
            Party::Node(number) => self.nodes[number].child.iter().map(Child::id).collect(),
            Party::Server(number) => {
                self.engine(party).and_then(|engine| engine.pid_of(number)).into_iter().collect()
            }
            _ => self.engine(party).map(|engine| engine.pids()).unwrap_or_default(),
        };
        Ok(child::signal(&pids, signal)?)
    }

    /// A node that runs as it should has neither ended by itself nor lost a thread.
    fn look_at(&mut self, number: usize) -> Result<(), Error> {
        let node = &mut self.nodes[number];
        let log = self.folder.join(format!("{}.{}.log", node.name, node.starts));
        let Some(child) = &mut node.child else { return Ok(()) };
        let what = match child.exit()? {
            Some(_) => "has ended by itself",
            None if fs::read_to_string(&log).unwrap_or_default().contains(PANIC) => "has panicked",
            None => return Ok(()),
        };
        Err(Error::Node { name: node.name.clone(), what, log })
    }

    /// Waits until all servers answer, and each node reaches all by them.
    pub(super) fn wait_until_whole(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + WHOLE_WITHIN;
        if let Some(broker) = self.broker.as_mut().filter(|_| self.options.broker.is_several()) {
            broker.until_ready()?;
        }
        for number in 0..self.nodes.len() {
            loop {
                self.look_at(number)?;
                let node = &self.nodes[number];
                // A node that was killed may still be remembered as another one: all that matters is that ours are reached.
                if reached(node.listen) >= self.nodes.len() && node::is_broker_up(node.listen) {
                    break;
                }
                if Instant::now() > deadline {
                    let log = self.folder.join(format!("{}.{}.log", node.name, node.starts));
                    return Err(Error::Node {
                        name: node.name.clone(),
                        what: "does not find the others again",
                        log,
                    });
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Looks at all nodes once more.
    pub(super) fn look_at_all(&mut self) -> Result<(), Error> {
        (0..self.nodes.len()).try_for_each(|number| self.look_at(number))
    }
}

/// How many nodes one says that it reaches, itself among them; 0 when it does not answer.
fn reached(address: SocketAddr) -> usize {
    node::nodes(address).iter().filter(|node| node["state"] == "alive").count()
}

/// What is kept, and of what: so much that nothing of a run is trimmed.
const CONFIGURATION: &str = r#"
[[group]]
match = "kept:*"
history = { count = 10000000, age = "24h", bytes = "4GiB" }

[inbox]
count = 10000000
age = "24h"
bytes = "4GiB"
"#;
