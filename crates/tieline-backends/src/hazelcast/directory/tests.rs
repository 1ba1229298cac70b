//! The directory against real members: the suite, outages, what is left in the map, lost maps, two members, two clusters on one, and
//! the official client.

use std::pin::Pin;
use std::sync::atomic::AtomicU32;

use tieline_core::broker::MemoryExchange;
use tieline_core::directory::{Beside, Choice, Directory, Fellow};
use tieline_proto::{HubName, NodeId, UserId};
use xtask::Engine;
use xtask::engine::hazelcast::Hazelcast;

use super::*;
use crate::conformance::directory::{self as suite, Directories, DirectoryEngine, Opened};
use crate::conformance::private::{self, nobody, stranger};

mod official;

/// Directories of one cluster on one Hazelcast cluster.
struct Shelf {
    url: String,
    cluster: String,
}

impl Shelf {
    fn new(url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Another run may use the same member at the same time.
        let cluster = format!("shelf-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Shelf { url: url.to_owned(), cluster }
    }

    async fn open_one(&self, me: u64, lease: Duration) -> HazelcastDirectory {
        let address = HazelcastAddress::parse(&self.url).unwrap();
        let settings =
            HazelcastDirectorySettings { lease, ..HazelcastDirectorySettings::new(address, &self.cluster) };
        HazelcastDirectory::open(settings, Incarnation(me)).await.unwrap()
    }

    /// A client of the map, which is no node.
    async fn map(&self) -> Link {
        let address = HazelcastAddress::parse(&self.url).unwrap();
        let greeted = connection::greet(&address.members[0], &address, "tests", 1).await.unwrap();
        Link::new(greeted, &format!("tieline:{}:directory", topics::plain(&self.cluster)))
    }
}

impl DirectoryEngine for HazelcastDirectory {
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(HazelcastDirectory::close(self))
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

/// Whether the members are ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    private::is_private("TIELINE_TEST_HAZELCAST", "the Hazelcast directory", test)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::hazelcast().start().unwrap();
    suite::suite_of(&Shelf::new(engine.url()), MemoryExchange::links).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    if is_private("outages") {
        let mut server = Engine::hazelcast().start().unwrap();
        let shelf = Shelf::new(server.url());
        suite::outlives_its_server(&MemoryExchange::links(), &shelf, &mut server).await;
    }
}

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn fellow(node: u64) -> Fellow {
    Fellow {
        name: format!("n{node}").into(),
        node: Incarnation(node),
        weight: 1,
        directory: Some("hazelcast".into()),
    }
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(Duration::from_secs(30), waiting).await.is_ok(), "it never came to be so: {what}");
}

/// The text of an entry.
async fn text(map: &mut Link, key: &str) -> Option<String> {
    match map.ask(&[MapCall::Get(key)], ANSWER).await.unwrap().pop() {
        Some(Reply::Value(value)) => value.map(|value| read_text(&value).unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

/// The nodes that one knows to hold a user. It has to be the one that came last, and so knows the others.
async fn found(node: &HazelcastDirectory, name: &str) -> Vec<u64> {
    let mut found = node.asked().find(&hub(), name);
    until("an answer", async || {
        found = node.asked().find(&hub(), name);
        found.beside == Beside::Nobody
    })
    .await;
    found.holders.iter().map(|holder| holder.node.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_dead_node_is_left_soon_after_its_lease() {
    let engine = Engine::hazelcast().start().unwrap();
    let shelf = Shelf::new(engine.url());
    let mut map = shelf.map().await;
    let lease = Duration::from_secs(4);
    let [dead, lives] = [shelf.open_one(7, lease).await, shelf.open_one(8, lease).await];
    let keys: Vec<String> = (0..50).map(|n| format!("user/hub/u{n}")).collect();
    for n in 0..50 {
        dead.asked().claim(&hub(), &user(&format!("u{n}")));
    }
    lives.asked().claim(&hub(), &user("u0"));
    for key in &keys {
        until("all users to be there", async || {
            text(&mut map, key).await.is_some_and(|text| text.contains("0000000000000007."))
        })
        .await;
    }
    // It is gone without a word, as a killed one is.
    drop(dead);
    for key in &keys[1..] {
        until("nothing to be left", async || text(&mut map, key).await.is_none()).await;
    }
    until("the roll to have forgotten it", async || {
        text(&mut map, ROLL).await.is_some_and(|roll| !roll.contains("0000000000000007."))
    })
    .await;
    // What others hold as well is weeded by who changes it next.
    until("the dead one to be taken out", async || {
        lives.asked().claim(&hub(), &user("u0"));
        text(&mut map, &keys[0]).await.is_some_and(|text| !text.contains("0000000000000007."))
    })
    .await;
    // Who says goodbye leaves nothing at once.
    lives.close().await;
    assert_eq!((text(&mut map, &keys[0]).await, text(&mut map, ROLL).await), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_on_one_member_do_not_meet() {
    let engine = Engine::hazelcast().start().unwrap();
    let (one, other) = (Shelf::new(engine.url()), Shelf::new(engine.url()));
    let lease = Duration::from_secs(600);
    let nodes = [one.open_one(1, lease).await, one.open_one(2, lease).await, other.open_one(3, lease).await];
    nodes[1].asked().meet(&[fellow(1)], 1, &mut |_| {});
    nodes[0].asked().claim(&hub(), &user("u"));
    nodes[2].asked().claim(&hub(), &user("u"));
    let mut maps = [one.map().await, other.map().await];
    for (map, node) in maps.iter_mut().zip([1, 3]) {
        until("the claim to be there", async || text(map, "user/hub/u").await.is_some()).await;
        let text = text(map, "user/hub/u").await.unwrap();
        assert!(text.starts_with(&format!("{node:016x}.")) && text.ends_with("=1"), "{text}");
    }
    assert_eq!(found(&nodes[1], "u").await, [1]);
    // What is no entry of a node is no harm, and does not stay.
    let garbage = MapCall::PutIfAbsent("user/hub/v", "what is this=~");
    maps[0].ask(&[garbage], ANSWER).await.unwrap();
    nodes[0].asked().claim(&hub(), &user("v"));
    until("the garbage to be gone", async || {
        text(&mut maps[0], "user/hub/v").await.is_some_and(|text| text.starts_with("0000000000000001."))
    })
    .await;
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_somebody_cleared_is_made_anew() {
    let engine = Engine::hazelcast().start().unwrap();
    let shelf = Shelf::new(engine.url());
    let lose = async || {
        let mut map = shelf.map().await;
        map.ask(&[MapCall::RemoveAll(".*")], ANSWER).await.unwrap();
    };
    suite::a_lost_table_is_made_anew(&MemoryExchange::links(), &shelf, lose).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_die_and_a_map_that_has_lost_a_part_is_made_whole() {
    if !is_private("dead members") {
        return;
    }
    let one = Engine::hazelcast().start().unwrap();
    let mut others = [0, 1].map(|_| Engine::of(Hazelcast::beside(one.url())).start().unwrap());
    let shelf = Shelf::new(one.url());
    // Each entry is on two of three members, and so many of them are on the two that die alone.
    let lose = async || others.iter_mut().for_each(|member| member.kill().unwrap());
    suite::a_lost_table_is_made_anew(&MemoryExchange::links(), &shelf, lose).await;
}

/// What is wrong with members, found in time.
async fn trouble(url: &str) -> Trouble {
    let settings = HazelcastDirectorySettings::new(HazelcastAddress::parse(url).unwrap(), "c");
    let began = Instant::now();
    let Err(error) = HazelcastDirectory::open(settings, Incarnation(1)).await else {
        panic!("{url} is fine")
    };
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}: {error}", began.elapsed());
    assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    let HazelcastError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

#[tokio::test]
async fn a_beginning_that_cannot_be_says_why() {
    let nowhere = trouble(&format!("hazelcast://u:hush@{}", nobody())).await;
    assert!(matches!(nowhere, Trouble::Connect(_)), "{nowhere}");
    let silent = trouble(&format!("hazelcast://u:hush@{}", stranger(b""))).await;
    assert!(matches!(silent, Trouble::Silent), "{silent}");
    let garbage =
        trouble(&format!("hazelcast://u:hush@{}", stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n"))).await;
    assert!(matches!(garbage, Trouble::Garbage), "{garbage}");
    let engine = Engine::hazelcast().start().unwrap();
    let place = engine.url().split('?').next().unwrap();
    let other = trouble(&format!("{place}?cluster=other")).await;
    assert!(matches!(&other, Trouble::Login { cluster } if cluster == "other"), "{other}");
    let settings = HazelcastDirectorySettings::new(HazelcastAddress::parse(place).unwrap(), "");
    assert!(matches!(HazelcastDirectory::open(settings, Incarnation(1)).await, Err(HazelcastError::Cluster)));
}

/// The variable by which the test of all costs has a process of its own measure one.
const MEASURED: &str = "TIELINE_MEASURED_NODES";

/// Measures so many nodes, as the variable says. Does nothing without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cost() {
    let Ok(nodes) = std::env::var(MEASURED) else { return };
    let engine = Engine::hazelcast().start().unwrap();
    let shelf = Shelf::new(engine.url());
    let cost = suite::cost(&MemoryExchange::links(), &shelf, nodes.parse().unwrap(), false).await;
    println!(
        "| hazelcast | {nodes} | {:.0} | {:.1} | {:.2} | {:.1} | {:.1} |",
        cost.bytes, cost.envelopes_alone, cost.envelopes_at_once, cost.requests, cost.envelopes_if_sent_to
    );
}

/// Prints this directory's lines for the table of `docs/directories.md`, each measured in a process of its own.
#[test]
#[ignore = "it prints what logins cost: cargo test -p tieline-backends --features hazelcast,conformance costs -- --ignored --nocapture"]
fn costs() {
    for nodes in ["3", "10"] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["hazelcast::directory::tests::one_cost", "--exact", "--nocapture"])
            .env(MEASURED, nodes)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
        let line = said.lines().find_map(|line| line.find("| ").map(|at| &line[at..]));
        println!("{}", line.expect("it prints a line"));
    }
}
