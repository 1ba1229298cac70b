//! `cargo xtask demo-ring`: a thousand clients on three nodes behind a gateway, each where the ring has it; then a node is added, one
//! is emptied, one is killed. After each it says how many clients have moved, how many had to, and how many went from one node to
//! another that neither came nor left: none. Meanwhile messages are sent, and at the end they are counted.
//!
//! `demo_ring/town.rs` is what runs, `demo_ring/crowd.rs` what becomes of the clients, `demo_ring/client.rs` one of them,
//! `demo_ring/sender.rs` who writes, `demo_ring/ring.rs` who has to move, computed apart from the program.

mod client;
mod crowd;
mod ring;
mod sender;
mod town;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tieline_judge::Dice;
use tieline_proto::Incarnation;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::{engine, node};
use client::Client;
use crowd::{CLIENTS, Crowd, GROUPS};
use sender::{Sender, Sent};
use town::{NAMES, Town};

/// How `cargo xtask demo-ring` is called.
pub const USAGE: &str = "\
usage: cargo xtask demo-ring [--binary PATH]
  --binary  the program; without it, this workspace's is built, without optimisation";

/// How long everybody may take to be where the ring has them.
const PATIENCE: Duration = Duration::from_secs(60);

/// For so long messages are sent before anything changes, and after each change, when all have arrived: whoever moves without having
/// to would be seen.
const CALM: Duration = Duration::from_secs(3);

/// For so long live messages are counted with the kill that comes: those that were on their way are lost by it.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Between the beginnings of two clients.
const ENTER_EVERY: Duration = Duration::from_millis(3);

/// Nodes at the start.
const FIRST: usize = 3;

/// What is emptied, and what is killed. The first node is left alone: whoever writes is there.
const DRAINED: usize = 1;
const KILLED: usize = 2;

/// In which act the kill comes: before it no live message may be lost.
const KILL: usize = 3;

/// Why a demonstration came to no good end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(&'static str),
    /// The program could not be built.
    #[error("`cargo build -p tieline` failed")]
    Build,
    /// A process could not be started.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// Something did not come about.
    #[error("{0}")]
    Stuck(String),
    /// It has been printed which.
    #[error("promises were broken: {0}")]
    Broken(usize),
    /// Something about files and processes.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

impl Error {
    fn io(what: &'static str, source: io::Error) -> Error {
        Error::Io { what, source }
    }
}

/// Runs what the words behind `demo-ring` ask for.
pub fn run(words: &[&str]) -> Result<(), Error> {
    let program = match words {
        [] => node::build(&[]).map_err(|error| Error::io("start cargo", error))?.ok_or(Error::Build)?,
        ["--binary", path] => {
            std::path::absolute(path).map_err(|error| Error::io("find the program", error))?
        }
        _ => return Err(Error::Usage(USAGE)),
    };
    let began = Instant::now();
    let broken = play(program)?;
    println!("All is ended and cleared away, after {} s.", began.elapsed().as_secs());
    if broken == 0 { Ok(()) } else { Err(Error::Broken(broken)) }
}

/// The whole play. Returns how many promises were broken.
fn play(program: PathBuf) -> Result<usize, Error> {
    println!("Three nodes and a gateway start, joined by mesh, with one SQLite file.");
    let mut town = Town::start(&program, FIRST)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::io("start a runtime", error))?;
    let crowd = Arc::new(Crowd::new());
    let users: Vec<String> = (0..CLIENTS).map(Crowd::user).collect();
    let mut play = Play { crowd: Arc::clone(&crowd), users, nodes: (0..FIRST).collect(), broken: 0 };
    println!("{CLIENTS} clients come through the gateway.");
    enter(&runtime, &crowd, &town);
    play.wait_until_home(&town)?;
    println!("  {}", play.spread(&town));

    let act = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = watch::channel(false);
    let sender = Sender::new(Arc::clone(&act), stopped);
    // One whose owner is the first node, whatever becomes of the others.
    let is_at_home = |user: &String| ring::owners(&NAMES, std::slice::from_ref(user)) == [0];
    let writer =
        (0..).map(|number| format!("writer-{number}")).find(is_at_home).expect("the first node owns some");
    let sending = runtime.spawn(sender.run(town.address(0), writer));
    println!("100 kept messages a second to groups and 100 live ones to users are sent from now on.");
    thread::sleep(CALM);

    act.store(1, Ordering::Relaxed);
    println!("A fourth node, {}, comes.", NAMES[FIRST]);
    play.change(&mut town, &[0, 1, 2, 3], Town::add)?;
    act.store(2, Ordering::Relaxed);
    println!("{} is emptied (SIGTERM).", NAMES[DRAINED]);
    play.change(&mut town, &[0, 2, 3], |town| town.drain(DRAINED))?;
    act.store(KILL, Ordering::Relaxed);
    thread::sleep(ON_THE_WAY);
    println!("{} is killed (SIGKILL).", NAMES[KILLED]);
    play.change(&mut town, &[0, 3], |town| {
        town.kill(KILLED);
        Ok(())
    })?;

    stop.send_replace(true);
    let sent = runtime.block_on(sending).expect("the sender does not panic");
    let sent = sent.map_err(|_| Error::Stuck(format!("{} has cut the sender off", NAMES[0])))?;
    play.count(&sent);
    crowd.over.send_replace(true);
    Ok(play.broken)
}

/// Starts all clients.
fn enter(runtime: &Runtime, crowd: &Arc<Crowd>, town: &Town) {
    let mut dice = Dice::new(1);
    for who in 0..CLIENTS {
        let (crowd, gateway, dice) = (Arc::clone(crowd), town.gateway(), dice.split());
        runtime.spawn(Client { crowd, gateway, who, dice, position: None }.run());
        thread::sleep(ENTER_EVERY);
    }
}

/// What is looked at.
struct Play {
    crowd: Arc<Crowd>,
    users: Vec<String>,
    /// The nodes that take clients, by their numbers.
    nodes: Vec<usize>,
    broken: usize,
}

impl Play {
    /// Each client's node by the ring of these.
    fn owners(&self, nodes: &[usize]) -> Vec<usize> {
        let names: Vec<&str> = nodes.iter().map(|number| NAMES[*number]).collect();
        ring::owners(&names, &self.users).into_iter().map(|place| nodes[place]).collect()
    }

    /// How many clients are not connected to their owner.
    fn astray(&self, town: &Town) -> usize {
        let (homes, owners) = (self.crowd.homes(), self.owners(&self.nodes));
        homes.iter().zip(owners).filter(|(home, owner)| **home != Some(town.nodes[*owner].start)).count()
    }

    fn wait_until_home(&self, town: &Town) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while self.astray(town) > 0 {
            if Instant::now() > deadline {
                let text = format!("{} clients are not where the ring has them", self.astray(town));
                return Err(Error::Stuck(text));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// How many clients each node has.
    fn spread(&self, town: &Town) -> String {
        let homes = self.crowd.homes();
        let of = |start: Incarnation| homes.iter().filter(|home| **home == Some(start)).count();
        let counts =
            self.nodes.iter().map(|node| format!("{} {}", NAMES[*node], of(town.nodes[*node].start)));
        format!("Each is where the ring has it: {}.", counts.collect::<Vec<_>>().join(", "))
    }

    /// Changes the nodes, waits until everybody is where the ring has them then, and says who has moved.
    fn change(
        &mut self,
        town: &mut Town,
        nodes: &[usize],
        make: impl FnOnce(&mut Town) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (began, before) = (Instant::now(), self.owners(&self.nodes));
        self.crowd.take_moves();
        make(town)?;
        self.nodes = nodes.to_vec();
        self.wait_until_home(town)?;
        let took = began.elapsed();
        thread::sleep(CALM);
        let after = self.owners(nodes);
        let moves = self.crowd.take_moves();
        let had_to = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        // Of the two nodes of a move that has to be, one came or left.
        let needless = moves.iter().filter(|step| {
            let way = (town.nodes[before[step.who]].start, town.nodes[after[step.who]].start);
            before[step.who] == after[step.who] || way != (step.from, step.to)
        });
        let needless = needless.count();
        println!(
            "  {} clients moved, {had_to} had to; between old nodes {needless}. It took {:.1} s. {}",
            moves.len(),
            took.as_secs_f64(),
            self.spread(town)
        );
        self.expect(moves.len() == had_to, "exactly those move who have to");
        self.expect(needless == 0, "nobody goes from one old node to another");
        self.expect(self.astray(town) == 0, "everybody stays where the ring has them");
        Ok(())
    }

    /// Counts messages, once the last ones have had the time to arrive.
    fn count(&mut self, sent: &Sent) {
        let all: usize = (0..sent.kept).map(|number| readers(number).count()).sum();
        let deadline = Instant::now() + PATIENCE;
        let missing = loop {
            let has = |who: usize, number: u64| self.crowd.person(who).kept.contains(&number);
            let without = |number: u64| readers(number).filter(|who| !has(*who, number)).count();
            let missing: usize = (0..sent.kept).map(without).sum();
            if missing == 0 || Instant::now() > deadline {
                break missing;
            }
            thread::sleep(LOOK_EVERY);
        };
        println!(
            "Kept messages: {} were sent and stored, for {all} readings of {} clients each; {missing} lost.",
            sent.kept,
            CLIENTS / GROUPS
        );
        self.expect(missing == 0, "no kept message is lost");
        thread::sleep(CALM);
        let mut lost = [0; KILL + 1];
        for (number, (who, act)) in (0_u64..).zip(&sent.live) {
            lost[*act] += usize::from(!self.crowd.person(*who).live.contains(&number));
        }
        let before: usize = lost[..KILL].iter().sum();
        println!(
            "Live messages: {} were sent; {before} lost while a node came and one was emptied, {} with the one that was killed.",
            sent.live.len(),
            lost[KILL]
        );
        self.expect(before == 0, "no live message to a user who moves is lost");
    }

    fn expect(&mut self, is_kept: bool, promise: &str) {
        if !is_kept {
            self.broken += 1;
            println!("  BROKEN: {promise}.");
        }
    }
}

/// The clients that get a kept message.
fn readers(number: u64) -> impl Iterator<Item = usize> {
    (number as usize % GROUPS..CLIENTS).step_by(GROUPS)
}
