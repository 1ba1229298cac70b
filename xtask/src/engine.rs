//! A real server, started for a test or by hand, and gone without a trace afterwards.
//!
//! A kind of server is a [`Kind`], one file each in `engine/`. An [`Engine`] is one running instance of a kind. It is
//! owned by whoever started it: tests hold it in a variable, `cargo xtask engines up` leaves it with a supervisor
//! process (`engine/supervisor.rs`). Tested by `engine/tests.rs` against real servers.

mod account;
pub(crate) mod child;
#[cfg(test)]
mod compose;
pub mod hazelcast;
mod java;
pub mod kafka;
mod mariadb;
pub mod nacos;
pub mod nats;
pub(crate) mod package;
mod postgres;
pub mod rabbitmq;
pub mod redis;
pub mod redis_cluster;
mod rocketmq;
pub mod sentinel;
pub mod supervisor;
#[cfg(test)]
mod tests;
mod zookeeper;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use child::Child;
use nix::sys::signal::Signal;

/// How long a server may take until it answers in its own protocol. Generous, because machines under load need
/// several times what a quiet one does; nobody waits longer than the server needs.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Longest wait for one answer of a server that starts.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two questions whether the server is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How often another port is tried when somebody took the chosen one before the server could.
const PORT_ATTEMPTS: u32 = 5;

/// Lines of a failed server's log that are repeated in the error.
const LOG_TAIL: usize = 20;

/// Every kind of server the keeper knows.
pub const KINDS: &[&dyn Kind] = &[
    &redis::Redis,
    &nats::PLAIN,
    &redis_cluster::PLAIN,
    &sentinel::PLAIN,
    &kafka::Kafka,
    &postgres::Postgres,
    &mariadb::MariaDb,
    &zookeeper::ZooKeeper,
    &nacos::Nacos,
    &rabbitmq::RabbitMq,
    &hazelcast::ALONE,
    &rocketmq::RocketMq,
];

/// What must be known about one kind of server in order to keep an instance of it.
pub trait Kind: Send + Sync {
    /// The name on the command line and in folder names.
    fn name(&self) -> &'static str;

    /// The environment variable that names a server to be used in place of a private one.
    fn variable(&self) -> &'static str;

    /// Where the server comes from.
    fn source(&self) -> Source;

    /// Where its other ports are, counted from the first.
    fn further_ports(&self) -> &'static [i32] {
        &[]
    }

    /// The user who runs the server where we are root, if it refuses root.
    fn account(&self) -> Option<&'static str> {
        None
    }

    /// What has to be run once in an empty folder before the server can be started.
    fn preparation(&self, _folder: &Path) -> Option<Command> {
        None
    }

    /// Writes what the server reads as it starts.
    fn configure(&self, _folder: &Path, _port: u16) -> io::Result<()> {
        Ok(())
    }

    /// How an instance is started in the foreground. Its data must be in `folder`, its listener on 127.0.0.1 alone.
    fn command(&self, folder: &Path, port: u16) -> Command;

    /// How the processes are started that belong to it beside the first one.
    fn companions(&self, _folder: &Path, _port: u16) -> Vec<Command> {
        Vec::new()
    }

    /// Makes its processes know each other, once, after they were started for the first time. False where they are not ready for
    /// that.
    fn assemble(&self, _port: u16) -> bool {
        true
    }

    /// Whether the server answers in its own protocol; an open port is not yet a server that works.
    fn is_ready(&self, port: u16) -> bool;

    /// The address clients are given.
    fn url(&self, port: u16) -> String;
}

/// Where the server of a kind comes from.
pub enum Source {
    /// Debian has it.
    Package {
        /// The package.
        name: &'static str,
        /// Whether its program is there.
        is_there: fn() -> bool,
    },
    /// It is a Java program, of jars from a registry.
    Jars(&'static java::Jars),
}

/// The kind with this name.
pub fn kind(name: &str) -> Result<&'static dyn Kind, Error> {
    KINDS.iter().find(|kind| kind.name() == name).copied().ok_or_else(|| Error::UnknownKind {
        name: name.into(),
        known: KINDS.iter().map(|kind| kind.name()).collect(),
    })
}

/// Gets the kind's server, if it is not there: packages from Debian, jars from a registry.
pub fn install(kind: &dyn Kind) -> Result<(), Error> {
    package::install(kind)
}

/// Why an engine cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name on the command line is none of ours.
    #[error("there is no engine called `{name}`; known are: {}", known.join(", "))]
    UnknownKind {
        /// What was asked for.
        name: String,
        /// What could have been.
        known: Vec<&'static str>,
    },
    /// The package could not be installed.
    #[error(
        "cannot install {packages}: {reason}\nInstall it by hand, or name a running server in {variable}."
    )]
    Install {
        /// The packages, as given to apt-get.
        packages: String,
        /// What apt-get said.
        reason: String,
        /// The way out.
        variable: &'static str,
    },
    /// What no package brings could not be had either.
    #[error("{program} failed, which gets a server for tests:\n{said}")]
    Fetch {
        /// Which program.
        program: String,
        /// All that it said.
        said: String,
    },
    /// The server ended, or did not answer in time.
    #[error("{name} did not become ready: {reason}\nThe end of {}:\n{tail}", log.display())]
    NotReady {
        /// Which kind.
        name: &'static str,
        /// Ended or silent.
        reason: String,
        /// The whole log, which is kept.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server was named by the environment, so it is not ours to kill.
    #[error("{variable} names the server, and a server that was not started here is not killed here")]
    NotOurs {
        /// The variable that named it.
        variable: &'static str,
    },
    /// A supervisor holds this engine, or should and does not.
    #[error("{0}")]
    Supervisor(String),
    /// Something about files, sockets or processes.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        source: io::Error,
    },
}

impl Error {
    fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// One running server. Dropped, it is killed and its folder removed; after a panic its log is kept.
pub struct Engine {
    kind: &'static dyn Kind,
    url: String,
    /// None when the environment names the server.
    own: Option<Instance>,
}

/// What an engine started here has beside its address.
struct Instance {
    folder: PathBuf,
    port: u16,
    /// The processes, the first one first. None between a kill and a restart.
    children: Vec<Option<Child>>,
}

/// An engine that is about to be started.
pub struct Builder {
    kind: &'static dyn Kind,
}

impl Engine {
    /// A private Redis with an append-only file, so that its data outlive [`Engine::kill`].
    pub fn redis() -> Builder {
        Builder { kind: &redis::Redis }
    }

    /// A private server of any kind.
    pub fn of(kind: &'static dyn Kind) -> Builder {
        Builder { kind }
    }

    /// The address to give to a client.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process of the server; none while it is killed, or when it was not started here.
    pub fn pid(&self) -> Option<u32> {
        self.pid_of(0)
    }

    /// How many processes it was started as; none when it was not started here.
    pub fn members(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.children.len())
    }

    /// One of the processes, counted from the first.
    pub fn pid_of(&self, member: usize) -> Option<u32> {
        self.own.as_ref()?.children.get(member)?.as_ref().map(Child::id)
    }

    /// Whether one of its processes is a Redis server that is a master now, by its own word. Each listens on the port behind that of the
    /// one before it.
    pub fn is_master(&self, member: usize) -> bool {
        self.own.as_ref().is_some_and(|own| redis::is_master(own.port + member as u16))
    }

    /// The server's processes and those that they have started, which do its work.
    pub fn pids(&self) -> Vec<u32> {
        let children = self.own.iter().flat_map(|own| own.children.iter().flatten());
        children.flat_map(|child| child::family(child.id())).collect()
    }

    /// A private PostgreSQL.
    pub fn postgres() -> Builder {
        Builder { kind: &postgres::Postgres }
    }

    /// A private MariaDB, with a database `test`.
    pub fn mariadb() -> Builder {
        Builder { kind: &mariadb::MariaDb }
    }

    /// A private ZooKeeper.
    pub fn zookeeper() -> Builder {
        Builder { kind: &zookeeper::ZooKeeper }
    }

    /// A private Nacos, whose user `nacos` has a password.
    pub fn nacos() -> Builder {
        Builder { kind: &nacos::Nacos }
    }

    /// A private NATS server.
    pub fn nats() -> Builder {
        Builder { kind: &nats::PLAIN }
    }

    /// A private Hazelcast of one member.
    pub fn hazelcast() -> Builder {
        Builder { kind: &hazelcast::ALONE }
    }

    /// A private RocketMQ, a name server and a broker, whose user has a password.
    pub fn rocketmq() -> Builder {
        Builder { kind: &rocketmq::RocketMq }
    }

    /// A private RabbitMQ, whose queues do not outlive [`Engine::kill`] unless they are durable.
    pub fn rabbitmq() -> Builder {
        Builder { kind: &rabbitmq::RabbitMq }
    }

    /// A private Redis Cluster of three masters, the first processes, and a replica of each.
    pub fn redis_cluster() -> Builder {
        Builder { kind: &redis_cluster::PLAIN }
    }

    /// A private Redis master, a replica of it, and a sentinel, in this order.
    pub fn sentinel() -> Builder {
        Builder { kind: &sentinel::PLAIN }
    }

    /// A private Kafka.
    pub fn kafka() -> Builder {
        Builder { kind: &kafka::Kafka }
    }

    /// Kills the server with SIGKILL, all of its processes, and waits until it is gone. The port and the data stay reserved for
    /// [`Engine::restart`]. Killing a killed server changes nothing.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.own()?.children.fill_with(|| None);
        Ok(())
    }

    /// Kills one of its processes, counted from the first, and waits until that is gone.
    pub fn kill_member(&mut self, member: usize) -> Result<(), Error> {
        self.own()?.children[member] = None;
        Ok(())
    }

    /// Keeps all its processes from running, by SIGSTOP; its sockets stay open.
    pub fn stand_still(&self) -> Result<(), Error> {
        child::signal(&self.pids(), Signal::SIGSTOP)
    }

    /// Lets them run on.
    pub fn go_on(&self) -> Result<(), Error> {
        child::signal(&self.pids(), Signal::SIGCONT)
    }

    /// Starts the server again on the same port and data, killing it first if it still runs, and returns when it
    /// answers.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill()?;
        let kind = self.kind;
        let own = self.own()?;
        own.children = start(kind, &own.folder, own.port, true)?;
        Ok(())
    }

    /// Starts one of its processes again, killing it first if it still runs. It may not answer yet.
    pub fn restart_member(&mut self, member: usize) -> Result<(), Error> {
        self.kill_member(member)?;
        let kind = self.kind;
        let own = self.own()?;
        let command = commands(kind, &own.folder, own.port).swap_remove(member);
        own.children[member] = Some(Child::spawn(command, &log_of(&own.folder))?);
        Ok(())
    }

    /// Waits until the server answers, with all of its processes: after [`Engine::restart_member`].
    pub fn until_ready(&mut self) -> Result<(), Error> {
        let kind = self.kind;
        let own = self.own()?;
        let deadline = Instant::now() + READY_WITHIN;
        while !kind.is_ready(own.port) {
            if Instant::now() > deadline {
                return Err(not_ready(kind, &log_of(&own.folder), silent()));
            }
            thread::sleep(ASK_EVERY);
        }
        Ok(())
    }

    fn own(&mut self) -> Result<&mut Instance, Error> {
        self.own.as_mut().ok_or(Error::NotOurs { variable: self.kind.variable() })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(own) = self.own.take() else { return };
        drop(own.children);
        let mut held = held();
        for port in ports(self.kind, own.port) {
            held.remove(&port);
        }
        drop(held);
        if thread::panicking() {
            eprintln!("the log of {} is kept: {}", self.kind.name(), log_of(&own.folder).display());
        } else if let Err(error) = fs::remove_dir_all(&own.folder) {
            eprintln!("{} stays behind: {error}", own.folder.display());
        }
    }
}

impl Builder {
    /// Starts a private instance on a free port in a folder of its own, installing the server if it is missing;
    /// or takes the server that the kind's environment variable names.
    pub fn start(self) -> Result<Engine, Error> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        if let Ok(url) = std::env::var(self.kind.variable()) {
            return Ok(Engine { kind: self.kind, url, own: None });
        }
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}", self.kind.name(), process::id());
        self.start_in(&folder().join(name))
    }

    /// Starts a private instance in this folder, which is emptied first: what is in it was left by a killed owner.
    fn start_in(self, folder: &Path) -> Result<Engine, Error> {
        package::install(self.kind)?;
        let mut attempt = 1;
        loop {
            if folder.exists() {
                fs::remove_dir_all(folder)
                    .map_err(|e| Error::io(format!("empty {}", folder.display()), e))?;
            }
            fs::create_dir_all(folder).map_err(|e| Error::io(format!("create {}", folder.display()), e))?;
            let port = free_port(self.kind.further_ports())?;
            prepare(self.kind, folder)?;
            match start(self.kind, folder, port, false) {
                Ok(children) => {
                    held().extend(ports(self.kind, port));
                    let own = Instance { folder: folder.to_path_buf(), port, children };
                    return Ok(Engine { kind: self.kind, url: self.kind.url(port), own: Some(own) });
                }
                Err(Error::NotReady { .. })
                    if attempt < PORT_ATTEMPTS && !are_free(port, self.kind.further_ports()) =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Makes the folder what the server wants to find.
fn prepare(kind: &dyn Kind, folder: &Path) -> Result<(), Error> {
    let given = account::give(kind.account(), folder);
    given.map_err(|e| Error::io(format!("give {} away", folder.display()), e))?;
    let Some(mut command) = kind.preparation(folder) else { return Ok(()) };
    let what = format!("run {command:?}");
    let output = command.current_dir(folder).output().map_err(|e| Error::io(what.clone(), e))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    Err(Error::io(what, io::Error::other(String::from_utf8_lossy(&text).into_owned())))
}

/// A connection to a server that may not be ready: nobody waits long for it.
fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Where all instances live.
fn folder() -> PathBuf {
    crate::workspace::target().join("engines")
}

/// What a server writes to its standard output and error.
fn log_of(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

/// Where servers listen: below the ports that Linux gives to connections (32768 and above, `ip_local_port_range`). One of those
/// could be somebody's when a server that was killed is to have its own again.
const PORTS: Range<u16> = 12_000..31_000;

/// A port that nobody listens on, nor on those so far from it, and that no connection is given. Somebody may take it before the server does:
/// an engine tries another one then.
///
/// # Errors
/// When there is none.
pub fn free_port(further: &[i32]) -> Result<u16, Error> {
    // Whoever else looks for one at this moment begins elsewhere.
    let seed = RandomState::new().hash_one(process::id());
    let first = (seed % u64::from(PORTS.end - PORTS.start)) as u16;
    let mut ports = (PORTS.start + first..PORTS.end).chain(PORTS.start..PORTS.start + first);
    let found = ports.find(|port| are_free(*port, further));
    found.ok_or_else(|| Error::io("find a free port", io::ErrorKind::AddrInUse.into()))
}

fn are_free(port: u16, further: &[i32]) -> bool {
    let held = held();
    let is_free = |far: &i32| {
        let port = u16::try_from(i32::from(port) + far);
        port.is_ok_and(|port| !held.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    [0].iter().chain(further).all(is_free)
}

/// The ports of this process's engines, those of killed ones among them: nobody listens there, and another engine must not.
fn held() -> MutexGuard<'static, HashSet<u16>> {
    static HELD: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ports of an engine.
fn ports(kind: &dyn Kind, port: u16) -> impl Iterator<Item = u16> {
    [0].iter().chain(kind.further_ports()).filter_map(move |far| u16::try_from(i32::from(port) + far).ok())
}

/// How all its processes are started.
fn commands(kind: &dyn Kind, folder: &Path, port: u16) -> Vec<Command> {
    let mut commands = vec![kind.command(folder, port)];
    commands.extend(kind.companions(folder, port));
    commands
}

/// Starts the server and returns when it answers.
fn start(
    kind: &'static dyn Kind,
    folder: &Path,
    port: u16,
    mut is_assembled: bool,
) -> Result<Vec<Option<Child>>, Error> {
    let log = log_of(folder);
    kind.configure(folder, port).map_err(|e| Error::io(format!("configure {}", kind.name()), e))?;
    let commands = commands(kind, folder, port).into_iter();
    let mut children = commands.map(|command| Child::spawn(command, &log)).collect::<Result<Vec<_>, _>>()?;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        // The children are asked first: another process may answer on a port that they failed to get.
        let mut ended = None;
        for child in &mut children {
            ended = ended.or(child.exit()?);
        }
        let reason = match ended {
            Some(status) => format!("it ended with {status}"),
            None => {
                is_assembled = is_assembled || kind.assemble(port);
                if is_assembled && kind.is_ready(port) {
                    return Ok(children.into_iter().map(Some).collect());
                }
                if Instant::now() <= deadline {
                    thread::sleep(ASK_EVERY);
                    continue;
                }
                silent()
            }
        };
        drop(children);
        return Err(not_ready(kind, &log, reason));
    }
}

/// Why a server is not ready that still runs.
fn silent() -> String {
    format!("it did not answer for {} s", READY_WITHIN.as_secs())
}

/// The error about a server that is not ready, with the end of its log.
fn not_ready(kind: &dyn Kind, log: &Path, reason: String) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
    Error::NotReady { name: kind.name(), reason, log: log.to_path_buf(), tail }
}
