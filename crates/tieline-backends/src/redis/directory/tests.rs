//! The directory against real servers: the suite, outages, what is left on the server, and two clusters on one.

use std::pin::Pin;
use std::sync::atomic::AtomicU32;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tieline_core::broker::MemoryExchange;
use tieline_core::directory::{Beside, Choice, Directory};
use tieline_proto::{HubName, NodeId, UserId};
use xtask::{Engine, left_out};

use super::*;
use crate::conformance::directory::{self as suite, Directories, DirectoryEngine, Opened};
use crate::conformance::outage::Server;

/// Directories of one cluster on one server.
struct Shelf {
    url: String,
    cluster: String,
}

impl Shelf {
    fn new(url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Another run may use the same server at the same time.
        let cluster = format!("shelf-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Shelf { url: url.to_owned(), cluster }
    }

    fn settings(&self, lease: Duration) -> RedisDirectorySettings {
        RedisDirectorySettings {
            lease,
            refresh: (lease / 5).min(Duration::from_secs(1)),
            ..RedisDirectorySettings::new(RedisAddress::parse(&self.url).unwrap(), &self.cluster)
        }
    }

    async fn open_one(&self, me: u64, lease: Duration) -> RedisDirectory {
        RedisDirectory::open(self.settings(lease), Incarnation(me)).await.unwrap()
    }
}

impl DirectoryEngine for RedisDirectory {
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(RedisDirectory::close(self))
    }
}

impl Directories for Shelf {
    fn open(&self, me: NodeId, lease: Duration) -> Pin<Box<dyn Future<Output = Opened> + Send + '_>> {
        Box::pin(async move {
            let engine = self.open_one(me.incarnation.0, lease).await;
            Opened { choice: Choice::Asked(Arc::clone(engine.asked())), engine: Some(Box::new(engine)) }
        })
    }
}

/// A private server.
struct Private(Engine);

impl Private {
    fn signal(&self, signal: Signal) {
        let pid = self.0.pid().expect("it runs");
        kill(Pid::from_raw(pid as i32), signal).unwrap();
    }
}

impl Server for Private {
    fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    fn restart(&mut self) {
        self.0.restart().unwrap();
    }

    fn stand_still(&mut self) {
        self.signal(Signal::SIGSTOP);
    }

    fn go_on(&mut self) {
        self.signal(Signal::SIGCONT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_links() {
    let engine = Engine::redis().start().unwrap();
    suite::suite_of(&Shelf::new(engine.url()), MemoryExchange::links).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_a_medium() {
    let engine = Engine::redis().start().unwrap();
    suite::suite_of(&Shelf::new(engine.url()), MemoryExchange::medium).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        left_out(
            "the Redis directory: outages",
            "TIELINE_TEST_REDIS names a server that was not started here",
        );
        return;
    }
    let mut server = Private(Engine::redis().start().unwrap());
    let shelf = Shelf::new(server.0.url());
    suite::outlives_its_server(&MemoryExchange::links(), &shelf, &mut server).await;
}

/// Has a server run one command, by a connection of its own, and gives what it answers as texts.
async fn command(url: &str, words: &[&[u8]]) -> Vec<String> {
    let dialler = Arc::new(Dialler::new(RedisAddress::parse(url).unwrap(), "tests".to_owned()).unwrap());
    let (mut link, greetings) = Link::connect(&dialler).await.unwrap();
    link.say(words);
    link.send().await.unwrap();
    for _ in 0..greetings {
        link.grant(|_| ()).await.unwrap();
    }
    let text = |answer: &resp::Answer<'_>| match answer {
        resp::Answer::Text(text) => String::from_utf8_lossy(text).into_owned(),
        resp::Answer::Number(number) => number.to_string(),
        _ => String::new(),
    };
    link.grant(|answer| match answer {
        resp::Answer::Many(all) => all.iter().map(text).collect(),
        one => vec![text(one)],
    })
    .await
    .unwrap()
}

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Waits until something is so on the server.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(Duration::from_secs(20), waiting).await.is_ok(), "it never came to be so: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_dead_node_is_left_after_its_lease() {
    let engine = Engine::redis().start().unwrap();
    let shelf = Shelf::new(engine.url());
    let node = shelf.open_one(7, Duration::from_secs(4)).await;
    for n in 0..50 {
        node.asked().claim(&hub(), &user(&format!("u{n}")));
    }
    let pattern = format!("tieline:{}:directory*", shelf.cluster);
    let users = format!("tieline:{}:directory/users/{:016x}", shelf.cluster, 7);
    until("all users to be there", async || {
        command(engine.url(), &[b"HLEN", users.as_bytes()]).await == ["51"]
    })
    .await;
    // It is gone without a word, as a killed one is.
    drop(node);
    assert_eq!(command(engine.url(), &[b"EXISTS", users.as_bytes()]).await, ["1"]);
    until("nothing to be left", async || {
        command(engine.url(), &[b"KEYS", pattern.as_bytes()]).await.is_empty()
    })
    .await;
    // Who says goodbye leaves nothing at once.
    let node = shelf.open_one(8, Duration::from_secs(600)).await;
    node.asked().claim(&hub(), &user("u"));
    node.close().await;
    assert!(command(engine.url(), &[b"KEYS", pattern.as_bytes()]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_on_one_server_do_not_meet_and_a_lost_table_is_made_anew() {
    let engine = Engine::redis().start().unwrap();
    let (one, other) = (Shelf::new(engine.url()), Shelf::new(engine.url()));
    let lease = Duration::from_secs(5);
    let nodes = [one.open_one(1, lease).await, one.open_one(2, lease).await, other.open_one(3, lease).await];
    let fellow = |node: u64| tieline_core::directory::Fellow {
        name: format!("n{node}").into(),
        node: Incarnation(node),
        weight: 1,
        directory: Some("redis".into()),
    };
    nodes[0].asked().meet(&[fellow(2)], 1, &mut |_| {});
    nodes[1].asked().meet(&[fellow(1)], 1, &mut |_| {});
    nodes[0].asked().claim(&hub(), &user("u"));
    nodes[2].asked().claim(&hub(), &user("u"));
    let found = async |at: usize| {
        let mut found = nodes[at].asked().find(&hub(), "u");
        until("an answer", async || {
            found = nodes[at].asked().find(&hub(), "u");
            found.beside == Beside::Nobody
        })
        .await;
        found.holders.iter().map(|holder| holder.node.0).collect::<Vec<u64>>()
    };
    until("the claim to be found", async || found(1).await == [1]).await;
    // Somebody empties the server, which still runs.
    command(engine.url(), &[b"FLUSHALL"]).await;
    let users = format!("tieline:{}:directory/users/{:016x}", one.cluster, 1);
    until("the users to be there again", async || {
        command(engine.url(), &[b"HLEN", users.as_bytes()]).await == ["2"]
    })
    .await;
    until("the claim to be found again", async || found(1).await == [1]).await;
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test]
async fn a_beginning_without_a_server_says_why() {
    let settings =
        RedisDirectorySettings::new(RedisAddress::parse("redis://:hush@127.0.0.1:1").unwrap(), "c");
    let Err(error) = RedisDirectory::open(settings, Incarnation(1)).await else { panic!("nobody is there") };
    let error = error.to_string();
    assert!(
        error.contains("127.0.0.1:1") && error.contains("cannot connect") && !error.contains("hush"),
        "{error}"
    );
}

/// The variable by which the test of all costs has a process of its own measure one.
const MEASURED: &str = "TIELINE_MEASURED_DIRECTORY";

/// Measures one directory, as the variable says: `kind nodes`. Does nothing without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cost() {
    let Ok(what) = std::env::var(MEASURED) else { return };
    let (kind, nodes) = what.split_once(' ').unwrap();
    let nodes = nodes.parse().unwrap();
    let server = (kind == "redis").then(|| Engine::redis().start().unwrap());
    let shelf = server.as_ref().map(|server| Shelf::new(server.url()));
    let (directories, is_placed): (&dyn Directories, bool) = match kind {
        "replicated" => (&suite::Replicated, false),
        "redis" => (shelf.as_ref().unwrap(), false),
        "ring" => (&suite::Ringed, true),
        _ => (&suite::Ringed, false),
    };
    let cost = suite::cost(&MemoryExchange::links(), directories, nodes, is_placed).await;
    println!(
        "| {kind} | {nodes} | {:.0} | {:.1} | {:.2} | {:.1} | {:.1} |",
        cost.bytes, cost.envelopes_alone, cost.envelopes_at_once, cost.requests, cost.envelopes_if_sent_to
    );
}

/// Prints the table of `docs/directories.md`, each line measured in a process of its own.
#[test]
#[ignore = "it prints what logins cost: cargo test -p tieline-backends --features redis,conformance --release costs -- --ignored --nocapture"]
fn costs() {
    println!(
        "| directory | nodes | bytes for each user and node | envelopes for each login | at once | requests | if all send to it |"
    );
    for kind in ["replicated", "redis", "ring", "ring, not placed"] {
        for nodes in [3, 10] {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["redis::directory::tests::one_cost", "--exact", "--nocapture"])
                .env(MEASURED, format!("{} {nodes}", kind.replace(", not placed", "-anywhere")))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
            let line = said.lines().find_map(|line| line.find("| ").map(|at| &line[at..]));
            println!("{}", line.expect("it prints a line"));
        }
    }
}
