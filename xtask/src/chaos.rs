//! `cargo xtask chaos`: real nodes and servers, senders and receivers, and a nemesis that breaks what it can. Afterwards
//! everything is mended, everybody catches up, and the judge (`tieline-judge`) holds what was sent against what was heard.
//!
//! `chaos/options.rs` is the command line, `chaos/nodes.rs` what runs, `chaos/nemesis.rs` what is broken, `chaos/stage.rs` what
//! the clients share, `chaos/sender.rs` and `chaos/receiver.rs` the two kinds of clients, `link.rs` their connection.
//! What happens follows from the seed; when it happens does not, so a failure may need several runs to come again.

mod nemesis;
mod nodes;
mod options;
mod receiver;
mod sender;
mod stage;

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tieline_judge::{Dice, History, Receiver, Sender, judge};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::{engine, node};
use nemesis::Nemesis;
use nodes::Cluster;
pub use options::USAGE;
use options::{Broker, Options, Store};
use receiver::Listener;
use sender::Speaker;
use stage::{Phase, Stage};

/// How long receivers may take to be let in everywhere, before anything is broken.
const PRESENT_WITHIN: Duration = Duration::from_secs(30);

/// For how long messages are sent before the first fault, and after everything is whole again.
const CALM: Duration = Duration::from_secs(4);

/// From when on everything is whole, as nodes that reach each other know it: a beat of 5 s, and what a busy machine adds.
const SETTLED: Duration = Duration::from_secs(7);

/// How long sends may take until they have their answer, when everything is whole.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// How long receivers may take to get the last messages.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

/// How long after a hole its notice may come: a beat of 5 s, one notice a second, and what a busy machine adds.
const NOTICE_WITHIN: Duration = Duration::from_secs(9);

/// Pause between two looks at clients.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a run came to no good end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A server could not be had.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The program could not be built.
    #[error("`cargo build -p tieline` failed")]
    Build,
    /// A node does not do what every node has to.
    #[error("{name} {what}; its log is {}", log.display())]
    Node {
        /// The node.
        name: String,
        /// What is wrong with it.
        what: &'static str,
        /// What it has to say itself.
        log: PathBuf,
    },
    /// A server is at an address that no proxy can be put in front of.
    #[error("{0} names no address that a proxy could stand in front of")]
    Address(String),
    /// Clients did not come to where they had to, although nothing was broken.
    #[error("{0}")]
    Stuck(String),
    /// What was promised was not kept. The report has been printed.
    #[error("seed {seed} broke a promise. Logs of the nodes, and all that was said and heard: {}\nAgain: {again}", folder.display())]
    Broken {
        /// What the run followed from.
        seed: u64,
        /// Where the logs are.
        folder: PathBuf,
        /// The command that runs it again.
        again: String,
    },
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

/// Runs what the words behind `chaos` ask for.
pub fn run(words: &[&str]) -> Result<(), Error> {
    let options = Options::parse(words).map_err(Error::Usage)?;
    let program = match &options.binary {
        Some(binary) => std::path::absolute(binary).map_err(|error| Error::io("find the program", error))?,
        None => build(&options)?,
    };
    let folder = crate::workspace::target().join("chaos").join(std::process::id().to_string());
    println!("{}", options.again());
    if options.broker.is_several() {
        println!(
            "of the broker one master at a time is broken, and no links to it: clients follow the addresses that servers tell"
        );
    } else if !options.broker.takes_proxies() {
        println!("no links to the broker are broken: clients follow the address that the server tells");
    }
    let history = play(&options, &program, &folder)?;
    let verdict = judge(&history);
    println!("{}", verdict.report(&history));
    if !verdict.is_kept() {
        write_down(&history, &folder).map_err(|error| Error::io("write the history down", error))?;
        return Err(Error::Broken { seed: options.seed, folder, again: options.again() });
    }
    std::fs::remove_dir_all(&folder).map_err(|error| Error::io("remove the folder of the run", error))
}

/// Leaves everything that was said and heard beside the logs of the nodes.
fn write_down(history: &History, folder: &Path) -> io::Result<()> {
    let write = |name: &str, lines: &mut dyn Iterator<Item = String>| {
        let mut file = io::BufWriter::new(File::create(folder.join(format!("{name}.txt")))?);
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.flush()
    };
    for (number, sender) in history.senders.iter().enumerate() {
        write(&sender.name, &mut history.said(number))?;
    }
    for (number, receiver) in history.receivers.iter().enumerate() {
        write(&receiver.name, &mut history.heard(number))?;
    }
    Ok(())
}

fn build(options: &Options) -> Result<PathBuf, Error> {
    // What is not in the default build is built in where it is asked for.
    let mut features = Vec::new();
    match &options.store {
        Store::Server(name) if name == "postgres" => features.push("postgres"),
        Store::Server(name) if name == "mariadb" => features.push("mysql"),
        _ => {}
    }
    match options.broker {
        Broker::Mesh | Broker::Server("redis" | "redis-cluster" | "sentinel") => {}
        Broker::Server(name) => features.push(name),
    }
    let built = node::build(&features).map_err(|error| Error::io("start cargo", error))?;
    built.ok_or(Error::Build)
}

/// The clients of a run.
struct Clients {
    senders: Vec<JoinHandle<Sender>>,
    receivers: Vec<JoinHandle<Receiver>>,
    /// Each receiver's, and how many durable targets it has.
    progress: Vec<(Arc<receiver::Progress>, usize)>,
    /// Each sender's: raised when it has nothing more to say and all answers.
    done: Vec<Arc<std::sync::atomic::AtomicBool>>,
}

/// The whole play, up to what was sent and heard.
fn play(options: &Options, program: &Path, folder: &Path) -> Result<History, Error> {
    let mut dice = Dice::new(options.seed);
    let stage = Arc::new(Stage::new(options));
    let mut cluster = Cluster::start(options, program, folder, &stage)?;
    cluster.wait_until_whole()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::io("start a runtime", error))?;
    let nemesis =
        Nemesis::new(&stage, &mut dice.split(), Duration::from_secs(options.seconds.into()), &options.store);
    let clients = start_clients(&runtime, &stage, options, &mut dice);
    let teller = runtime.spawn(tell(Arc::clone(&stage)));
    let watch = runtime.spawn(Arc::clone(&stage).watch_machine());
    let is_present =
        |clients: &Clients| clients.progress.iter().all(|(one, _)| one.is_present.load(Ordering::Relaxed));
    until("receivers are let in", PRESENT_WITHIN, || is_present(&clients))?;

    let mut calm = Vec::new();
    stage.phase.send_replace(Phase::Talking);
    let begun = stage.now();
    thread::sleep(CALM);
    calm.push(begun..stage.now());
    if options.is_calm {
        thread::sleep(Duration::from_secs(options.seconds.into()));
    } else {
        nemesis.rage(&mut cluster)?;
    }
    cluster.wait_until_whole()?;
    thread::sleep(SETTLED);
    let begun = stage.now();
    thread::sleep(CALM);

    stage.phase.send_replace(Phase::Settling);
    let are_done = || clients.done.iter().all(|done| done.load(Ordering::Relaxed));
    until("sends have their answers", ANSWERED_WITHIN, are_done)?;
    let last = Speaker::last_words(&stage, options.senders as u16, dice.split());
    let last = runtime.block_on(last.run());
    calm.push(begun..stage.now());
    stage.phase.send_replace(Phase::Draining);
    let is_drained =
        || clients.progress.iter().all(|(one, targets)| one.finished.load(Ordering::Relaxed) >= *targets);
    if until("", DRAINED_WITHIN, is_drained).is_err() {
        // Who did not get the last messages has lost them, and the judge will say so.
        println!("not drained within {} s", DRAINED_WITHIN.as_secs());
    }
    cluster.look_at_all()?;
    let end = stage.now();
    stage.phase.send_replace(Phase::Over);
    teller.abort();
    watch.abort();
    let collect = async {
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for sender in clients.senders {
            senders.push(sender.await.expect("a sender does not panic"));
        }
        for receiver in clients.receivers {
            receivers.push(receiver.await.expect("a receiver does not panic"));
        }
        senders.push(last);
        (senders, receivers)
    };
    let (senders, receivers) = runtime.block_on(collect);
    let stalls = stage.stalls();
    let stood_still: u32 = stalls.iter().map(|stall| stall.end - stall.start).sum();
    let notice_within = NOTICE_WITHIN.as_millis() as u32 + stood_still;
    let calm = calm.into_iter().flat_map(|calm| without(calm, &stalls)).collect();
    let targets = stage.targets.clone();
    let store_lost = options.store == Store::Memory;
    Ok(History { targets, senders, receivers, calm, store_lost, end, notice_within })
}

/// The parts of a time in which the machine ran.
fn without(time: Range<u32>, stalls: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut parts = Vec::new();
    let mut from = time.start;
    for stall in stalls {
        parts.push(from..stall.start.clamp(from, time.end));
        from = stall.end.clamp(from, time.end);
    }
    parts.push(from..time.end);
    parts.retain(|part| !part.is_empty());
    parts
}

fn start_clients(runtime: &Runtime, stage: &Arc<Stage>, options: &Options, dice: &mut Dice) -> Clients {
    let mut clients =
        Clients { senders: Vec::new(), receivers: Vec::new(), progress: Vec::new(), done: Vec::new() };
    for number in 0..options.receivers {
        let listener = Listener::new(stage, number, options.senders as u16, dice.split());
        clients.progress.push((Arc::clone(&listener.progress), listener.durable.len()));
        clients.receivers.push(runtime.spawn(listener.run()));
    }
    let pace = Duration::from_secs(1) * options.senders as u32 / options.rate as u32;
    for number in 0..options.senders as u16 {
        let speaker = Speaker::new(stage, number, dice.split(), pace);
        clients.done.push(Arc::clone(&speaker.is_done));
        clients.senders.push(runtime.spawn(speaker.run()));
    }
    clients
}

/// Waits until something is so.
fn until(what: &str, limit: Duration, is_so: impl Fn() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(Error::Stuck(format!("waited {} s until {what}", limit.as_secs())));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Says each second what has happened in it.
async fn tell(stage: Arc<Stage>) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = [0; 7];
    loop {
        seconds.tick().await;
        let tally = &stage.tally;
        let of = [
            &tally.sent,
            &tally.acked,
            &tally.refused,
            &tally.repeated,
            &tally.heard,
            &tally.gaps,
            &tally.opened,
        ];
        let now = of.map(|count: &AtomicU64| count.load(Ordering::Relaxed));
        let [sent, acked, refused, repeated, heard, gaps, opened] =
            std::array::from_fn(|at| now[at] - before[at]);
        before = now;
        println!(
            "{:>8} {:?}: {sent} sent, {acked} acked, {refused} refused, {repeated} said again, {heard} heard, \
             {gaps} gaps, {opened} connections",
            stage.now() / 1000,
            *stage.phase.borrow(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn a_time_without_its_standstills_is_what_is_left() {
        let parts = |stalls: &[(u32, u32)]| {
            let stalls: Vec<_> = stalls.iter().map(|(from, to)| *from..*to).collect();
            without(10..20, &stalls).into_iter().map(|part| (part.start, part.end)).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[]), [(10, 20)]);
        assert_eq!(parts(&[(0, 5), (12, 14), (18, 30)]), [(10, 12), (14, 18)]);
        assert_eq!(parts(&[(5, 11)]), [(11, 20)]);
        assert_eq!(parts(&[(0, 40)]), []);
        assert_eq!(parts(&[(30, 40)]), [(10, 20)]);
    }
}
