//! [`TestCluster`]: nodes as processes of their own, which can be killed, restarted, stopped and continued.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::client::Client;
use crate::support::PATIENCE;
use crate::support::http::{Answer, call, post_json};
use crate::support::program::tieline;
use xtask::proxy::{Direction, Proxy, Way};

/// Time between two looks at something that takes time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The secret of a cluster that has no other.
pub(crate) const SECRET: &str = "a secret of the cluster under test";

/// Arguments of a node that is where nobody listens, as the others are told, so that all come through its proxies.
const BEHIND_PROXIES: [&str; 4] = ["--cluster-secret", SECRET, "--peer-advertise", "127.0.0.1:1"];

/// A node's process. Dropped, it is killed, and what it logged is printed if the test has failed.
pub(crate) struct Process {
    pub(crate) name: String,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Where it is asked how it is.
    operators: SocketAddr,
    /// Where other nodes connect; port 0 if they do not.
    pub(crate) peers: SocketAddr,
    child: Child,
    log: mpsc::Receiver<String>,
    logged: Vec<String>,
}

impl Process {
    /// Starts a node. `listen` and `peers` are its addresses, `args` come after all others and prevail, as do
    /// `variables`.
    pub(crate) fn start(
        name: &str,
        listen: SocketAddr,
        peers: SocketAddr,
        seeds: &[SocketAddr],
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Process {
        let seeds: Vec<_> = seeds.iter().map(SocketAddr::to_string).collect();
        let mut command = tieline(&["serve", "--node", name, "--shards", "2"]);
        command.env("TIELINE_LIMITS_MESSAGE_RATE", "0").envs(variables.iter().copied());
        command.args(["--listen", &listen.to_string(), "--peer-listen", &peers.to_string()]);
        command.args(["--broker", &format!("mesh://{}", seeds.join(","))]).args(args);
        Process::spawn(name, command)
    }

    /// Starts a node by a command.
    pub(crate) fn spawn(name: &str, command: Command) -> Process {
        Process::try_spawn(name, command).unwrap_or_else(|log| panic!("{name} does not start: {log}"))
    }

    /// The same; the error is what a node logged that ended before it listened.
    pub(crate) fn try_spawn(name: &str, mut command: Command) -> Result<Process, String> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = mpsc::channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut address = |label: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            match line.trim_end().strip_prefix(label) {
                Some(address) => Ok(address.parse().unwrap()),
                None => {
                    // A node that goes on although it did not say so would never end its log.
                    let _ = child.kill();
                    let _ = child.wait();
                    Err(format!(
                        "{line:?} in place of {label:?}: {}",
                        log.iter().collect::<Vec<_>>().join("\n")
                    ))
                }
            }
        };
        let has = |flag: &str| command.get_args().any(|argument| argument == flag);
        let clients = address("listening on http://")?;
        let operators = if has("--admin-listen") { address("operators on http://")? } else { clients };
        let peers = if has("--peer-listen") { address("peers on ")? } else { any() };
        let logged = Vec::new();
        Ok(Process { name: name.to_owned(), address: clients, operators, peers, child, log, logged })
    }

    /// Waits for a line of the log that contains a text.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.logged.iter().any(|line| line.contains(text)) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => self.logged.push(line),
                Err(_) => panic!("{} does not log {text:?}", self.name),
            }
        }
    }

    /// What the node says of the cluster: name, state and incarnation of every node.
    pub(crate) fn nodes(&self) -> Vec<(String, String, String)> {
        let answer = call(self.operators, "GET", "/api/v1/nodes", "", "").json();
        let text = |node: &Value, key: &str| node[key].as_str().unwrap().to_owned();
        let nodes = answer["nodes"].as_array().unwrap();
        nodes
            .iter()
            .map(|node| (text(node, "name"), text(node, "state"), text(node, "incarnation")))
            .collect()
    }

    /// The names of the nodes that it reaches, in order, itself among them.
    pub(crate) fn reaches(&self) -> Vec<String> {
        let alive = |(name, state, _): (String, String, String)| (state == "alive").then_some(name);
        self.nodes().into_iter().filter_map(alive).collect()
    }

    /// The value of a metric, whose labels are a part of its name.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = call(self.operators, "GET", "/metrics", "", "").body;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().unwrap()
    }

    /// Waits until a metric has a value. What a shard counts it tells of when it has written, so a client may know it first.
    #[track_caller]
    pub(crate) fn await_metric(&self, name: &str, value: u64) {
        eventually(&format!("{name} of {} is {value}", self.name), || self.metric(name) == value);
    }

    pub(crate) fn connect(&self, hub: &str, user: &str) -> Client {
        Client::connect(self.address, hub, user)
    }

    /// A client of the hub `h` that is in the group `room`.
    pub(crate) fn connect_to_room(&self, user: &str) -> Client {
        let mut client = self.connect("h", user);
        client.join("room");
        client
    }

    /// A request to the REST API for the hub `h`, without a body.
    pub(crate) fn call(&self, method: &str, path: &str) -> Answer {
        call(self.address, method, &format!("/api/hubs/h{path}"), "", "")
    }

    /// Sends a JSON value to what a path of the hub `h` names.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        post_json(self.address, &format!("/api/hubs/h{path}"), &body.to_string())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits until it ends by itself, and says with which code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually(&format!("{} ends by itself", self.name), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Ends it well.
    pub(crate) fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it without a word, as by SIGKILL.
    pub(crate) fn kill(&mut self) {
        // A process that has ended already is as good as killed.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            // The log ends with the process, and so does this.
            self.logged.extend(self.log.iter());
            println!("{} at {}:\n{}\n", self.name, self.address, self.logged.join("\n"));
        }
    }
}

/// Nodes `n0`, `n1` … of one cluster; the first is the others' seed.
pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<Process>,
    /// What stands between each two nodes, where anything does; the node of the higher number connects.
    links: HashMap<(usize, usize), Proxy>,
    /// What each node is given besides.
    args: Vec<String>,
}

impl TestCluster {
    /// Starts so many nodes and waits until each reaches all.
    pub(crate) fn start(count: usize) -> TestCluster {
        TestCluster::start_with(count, &[], &[])
    }

    /// The same with more arguments and variables for each node.
    pub(crate) fn start_with(count: usize, args: &[&str], variables: &[(&str, &str)]) -> TestCluster {
        let own = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut cluster = TestCluster { nodes: Vec::new(), links: HashMap::new(), args: own };
        for index in 0..count {
            let seeds: Vec<_> = cluster.nodes.first().map(|node| node.peers).into_iter().collect();
            let args = [&["--cluster-secret", SECRET], args].concat();
            cluster.nodes.push(Process::start(&format!("n{index}"), any(), any(), &seeds, &args, variables));
        }
        cluster.wait_for_all();
        cluster
    }

    /// The same with a proxy between each two nodes. No node is where it says that it is, so there is no way around them.
    pub(crate) fn start_with_proxies(count: usize) -> TestCluster {
        TestCluster::start_behind_proxies(count, &[])
    }

    /// The same with more variables for each node.
    pub(crate) fn start_behind_proxies(count: usize, variables: &[(&str, &str)]) -> TestCluster {
        let mut cluster = TestCluster { nodes: Vec::new(), links: HashMap::new(), args: Vec::new() };
        for index in 0..count {
            for (lower, node) in cluster.nodes.iter().enumerate() {
                cluster.links.insert((index, lower), Proxy::before(node.peers));
            }
            let (name, seeds) = (format!("n{index}"), cluster.proxies(index));
            let node = Process::start(&name, any(), any(), &seeds, &BEHIND_PROXIES, variables);
            cluster.nodes.push(node);
        }
        cluster.wait_for_all();
        cluster
    }

    /// Where a node finds those that it connects to.
    fn proxies(&self, index: usize) -> Vec<SocketAddr> {
        (0..index).map(|lower| self.links[&(index, lower)].address).collect()
    }

    /// What stands between two nodes.
    pub(crate) fn link(&self, one: usize, other: usize) -> &Proxy {
        &self.links[&(one.max(other), one.min(other))]
    }

    /// What becomes of what one node says to another.
    pub(crate) fn set_way(&self, from: usize, to: usize, way: Way) {
        self.link(from, to).set(TestCluster::direction(from, to), way);
    }

    /// How one node's words go through the proxy to another.
    pub(crate) fn direction(from: usize, to: usize) -> Direction {
        if from > to { Direction::There } else { Direction::Back }
    }

    /// Waits until every node reaches all.
    pub(crate) fn wait_for_all(&self) {
        let names: Vec<_> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for node in &self.nodes {
            eventually(&format!("{} reaches all", node.name), || node.reaches() == names);
        }
    }

    /// Ends a node without a word, as by SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Starts a killed node again: same name, same addresses, and the next node as its seed, or the proxies that it had.
    pub(crate) fn restart(&mut self, index: usize) {
        let former = &self.nodes[index];
        let (seeds, args) = if self.links.is_empty() {
            let next = &self.nodes[(index + 1) % self.nodes.len()];
            (vec![next.peers], &["--cluster-secret", SECRET][..])
        } else {
            (self.proxies(index), &BEHIND_PROXIES[..])
        };
        let args: Vec<&str> = args.iter().copied().chain(self.args.iter().map(String::as_str)).collect();
        self.nodes[index] = Process::start(&former.name, former.address, former.peers, &seeds, &args, &[]);
    }

    /// Keeps a node from running; its sockets stay open.
    pub(crate) fn stop(&self, index: usize) {
        self.nodes[index].signal(Signal::SIGSTOP);
    }

    /// Lets a stopped node run on.
    pub(crate) fn cont(&self, index: usize) {
        self.nodes[index].signal(Signal::SIGCONT);
    }

    /// Asserts that a killed node is gone.
    pub(crate) fn expect_closed(&self, index: usize) {
        assert!(TcpStream::connect(self.nodes[index].address).is_err(), "somebody listens");
    }
}

/// A free port of this machine.
pub(crate) fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Where nobody listens: no connection is given this port, and no server of a test.
pub(crate) fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// How long a start may take that cannot succeed.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

/// How a program ends that cannot start, and all that it says, which comes in time. A busy machine has three attempts.
#[track_caller]
pub(crate) fn refusal(command: &mut Command) -> (ExitStatus, String) {
    let mut took = Vec::new();
    loop {
        let began = Instant::now();
        let Output { status, stderr, stdout } = command.output().unwrap();
        took.push(began.elapsed());
        let told = String::from_utf8_lossy(&stderr) + String::from_utf8_lossy(&stdout);
        if took.last().is_some_and(|took| *took < REFUSED_WITHIN) {
            return (status, told.into_owned());
        }
        assert!(took.len() < 3, "it took {took:?}: {told}");
    }
}

/// Looks until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, is_so);
}

/// The same with more patience, or less.
#[track_caller]
pub(crate) fn eventually_within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::park_timeout(LOOK_EVERY);
    }
}
