//! Two members of one Hazelcast cluster: nodes on both, and what becomes of them when one dies. And what is left on a member of
//! nodes that are gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tieline_core::broker::To;
use tokio::time::timeout;
use xtask::engine::hazelcast::{Hazelcast, state};

use super::*;
use crate::conformance::{Heard, Joined, Recorder, fresh_node, join};

/// How soon nodes whose member died must be joined again by another one.
const RETURN: Duration = Duration::from_secs(5);

/// Nodes of one cluster, every second of which begins with the other member.
struct Across {
    settings: [HazelcastSettings; 2],
    is_second: AtomicBool,
}

impl Across {
    fn new(members: [&str; 2]) -> Across {
        let place = |url: &str| url.trim_start_matches("hazelcast://").split('?').next().unwrap().to_owned();
        let [one, other] = members.map(place);
        let settings = settings(&format!("hazelcast://{one},{other}?cluster=tieline"));
        let turned = HazelcastAddress::parse(&format!("hazelcast://{other},{one}?cluster=tieline")).unwrap();
        let turned = HazelcastSettings { address: turned, ..settings.clone() };
        Across { settings: [settings, turned], is_second: AtomicBool::new(false) }
    }
}

impl Fabric for Across {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        let settings = &self.settings[usize::from(self.is_second.fetch_xor(true, Ordering::Relaxed))];
        Box::pin(async move {
            let broker = HazelcastBroker::start(settings.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

fn pair() -> [Engine; 2] {
    let one = Engine::hazelcast().start().unwrap();
    let other = Engine::of(Hazelcast::beside(one.url())).start().unwrap();
    let seen = state(one.url()).unwrap();
    let port = other.url().rsplit(':').next().unwrap().split('?').next().unwrap();
    assert!(seen.contains(&format!("\"127.0.0.1:{port}\"")), "the second is no member: {seen}");
    [one, other]
}

/// Sends from each to all and to each, and waits until everything is there.
async fn everybody_hears_everybody(nodes: &[Joined], word: &str) {
    for from in nodes {
        let bytes: Arc<[u8]> = format!("{word} of {}", from.node).into_bytes().into();
        assert_eq!(from.broker.send(To::All, &bytes), Ok(()));
        for to in nodes.iter().filter(|to| to.node != from.node) {
            assert_eq!(from.broker.send(To::One(to.node.incarnation), &bytes), Ok(()));
        }
    }
    for to in nodes {
        for from in nodes.iter().filter(|from| from.node != to.node) {
            let wanted = Heard::Envelope(format!("{word} of {}", from.node).into_bytes());
            let is_there = |heard: &[Heard]| heard.iter().filter(|heard| **heard == wanted).count() == 2;
            to.recorder.until("what was sent to all and to one", is_there).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_two_members_conform_and_go_on_by_one() {
    if !is_private("two members") {
        return;
    }
    let [mut one, other] = pair();
    conformance::broker(|| Across::new([one.url(), other.url()])).await;

    let across = Across::new([one.url(), other.url()]);
    let nodes = join(&across, &["a", "b", "c"]).await;
    everybody_hears_everybody(&nodes, "before").await;
    one.kill().unwrap();
    let killed = Instant::now();
    // The first and the third were on the member that died.
    for node in [&nodes[0], &nodes[2]] {
        let back = node.recorder.until("to be back", |heard| heard.contains(&Heard::Back));
        timeout(RETURN, back).await.expect("another member carries soon");
    }
    println!("joined again by another member after {:?}", killed.elapsed());
    nodes[1].recorder.with(|heard| assert!(!heard.contains(&Heard::Away), "its own member lives: {heard:?}"));
    everybody_hears_everybody(&nodes, "after").await;
}

/// The clients of a member, by the names of their nodes, and the topics that it knows of.
fn left(url: &str, names: &[&str]) -> (usize, usize) {
    let seen = state(url).unwrap();
    let clients = names.iter().filter(|name| seen.contains(&format!("\"tieline-{name}\""))).count();
    (clients, seen.matches("\"tieline:").count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_nodes_that_are_gone() {
    if !is_private("what is left on a member") {
        return;
    }
    let engine = Engine::hazelcast().start().unwrap();
    let settings = settings(engine.url());
    // Each start of a node is another incarnation, and all of them use every second of the inboxes or so.
    let heard = Recorder::new();
    for round in 0..100 {
        let node = fresh_node("gone");
        let broker = HazelcastBroker::start(settings.clone(), &node, Arc::clone(&heard) as Arc<dyn Inbound>)
            .await
            .unwrap();
        if round == 0 {
            assert_eq!(left(engine.url(), &["gone"]).0, 1, "the member names its clients as they are told");
        }
        drop(broker);
    }
    let deadline = Instant::now() + conformance::PATIENCE;
    loop {
        let (clients, topics) = left(engine.url(), &["gone"]);
        assert!(topics <= 65, "{topics} topics");
        if clients == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "a node that is gone is still a client");
        tokio::task::yield_now().await;
    }
}
