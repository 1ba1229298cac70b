//! The broker on a real Redis Cluster of three masters with replicas: the conformance suite, masters that die, and clusters that are not
//! there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tieline_core::broker::Broker;
use tieline_proto::Incarnation;
use xtask::engine::redis::ask;
use xtask::{Engine, left_out};

use super::*;
use crate::conformance::private::{nobody, refused};
use crate::conformance::{self, Fabric, Heard, Joining, PATIENCE, Recorder, fresh_node, outage};

/// How soon after a master's death what it carried must flow again.
const REPLACED: Duration = Duration::from_secs(15);

fn settings(url: &str) -> RedisSettings<RedisSeveralAddress> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Another run may use the same servers at the same time.
    let cluster = format!("tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let address = RedisSeveralAddress::parse(url).unwrap();
    let pace = Pace { canary: Duration::from_millis(300), ..Pace::default() };
    RedisSettings { pace, ..RedisSettings::new(&cluster, address) }
}

/// Nodes of one cluster on one Redis Cluster.
struct Cluster(RedisSettings<RedisSeveralAddress>);

impl Fabric for Cluster {
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
        Box::pin(async move {
            let broker = RedisClusterBroker::start(self.0.clone(), &node, inbound).await.unwrap();
            let broker: Arc<dyn Broker> = Arc::new(broker);
            broker
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::redis_cluster().start().unwrap();
    conformance::broker(|| Cluster(settings(engine.url()))).await;
    conformance::heartbeat::suite(|| Cluster(settings(engine.url()))).await;
    conformance::directory::suite(|| Cluster(settings(engine.url()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_all_of_its_servers() {
    if are_private("servers that are all killed") {
        let mut servers = Engine::redis_cluster().start().unwrap();
        let cluster = Cluster(settings(servers.url()));
        outage::server_killed_and_back(&cluster, &mut servers).await;
    }
}

/// A node whose channel a certain master holds.
struct Placed {
    node: NodeId,
    broker: RedisClusterBroker,
    recorder: Arc<Recorder>,
}

impl Placed {
    async fn join(settings: &RedisSettings<RedisSeveralAddress>, master: usize) -> Placed {
        let node =
            (0..).map(|_| fresh_node("n")).find(|node| holder(&settings.cluster, node.incarnation) == master);
        let (node, recorder) = (node.unwrap(), Recorder::new());
        let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
        let broker = RedisClusterBroker::start(settings.clone(), &node, inbound).await.unwrap();
        Placed { node, broker, recorder }
    }

    fn send(&self, to: &Placed, text: &str) {
        // What is lost is lost.
        let _ = self.broker.send(To::One(to.node.incarnation), &Arc::from(text.as_bytes()));
    }

    fn has(&self, text: &str) -> bool {
        let envelope = Heard::Envelope(text.into());
        self.recorder.with(|heard| heard.contains(&envelope))
    }

    fn is_away(&self) -> bool {
        self.recorder.with(|heard| heard.contains(&Heard::Away))
    }
}

/// Which master holds a node's channel in a fresh cluster, whose three masters have a third of the slots each.
fn holder(cluster: &str, node: Incarnation) -> usize {
    third(slot(&[Channels::new(cluster, node, ChannelKind::Sharded).own().as_bytes()]))
}

fn third(slot: u16) -> usize {
    usize::from(slot > 5460) + usize::from(slot > 10922)
}

/// Whether the servers are ours to hurt. If not, that is said.
fn are_private(test: &str) -> bool {
    let is_named = std::env::var_os("TIELINE_TEST_REDIS_CLUSTER").is_some();
    if is_named {
        let why = "TIELINE_TEST_REDIS_CLUSTER names servers that were not started here";
        left_out(&format!("the broker on a Redis Cluster: {test}"), why);
    }
    !is_named
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_replaced_and_the_others_carry_on() {
    if !are_private("a killed master") {
        return;
    }
    let mut engine = Engine::redis_cluster().start().unwrap();
    let settings = settings(engine.url());
    let channels = Channels::new(&settings.cluster, Incarnation(0), ChannelKind::Sharded);
    let all = third(slot(&[channels.all().as_bytes()]));
    let (dying, third) = ((all + 1) % 3, (all + 2) % 3);
    let a = Placed::join(&settings, all).await;
    let b = Placed::join(&settings, third).await;
    let c = Placed::join(&settings, dying).await;
    a.send(&c, "before");
    c.recorder.until_count(1).await;

    engine.kill_member(dying).unwrap();
    let killed = Instant::now();
    let mut number = 0;
    // What the other masters carry arrives all the time, and what this one carried soon again.
    while !c.has("again") {
        assert!(killed.elapsed() < REPLACED, "nothing flows after {:?}", killed.elapsed());
        number += 1;
        a.send(&b, &format!("one {number}"));
        a.broker.send(To::All, &Arc::from(format!("all {number}").as_bytes())).unwrap();
        let both = |heard: &[Heard]| {
            [format!("one {number}"), format!("all {number}")]
                .map(|text| heard.contains(&Heard::Envelope(text.into())))
                == [true; 2]
        };
        let came = b.recorder.until("what the others carry", both);
        timeout(Duration::from_secs(2), came).await.expect("it does not stop");
        a.send(&c, "again");
        let again = c.recorder.until("a moment", |heard| heard.contains(&Heard::Envelope(b"again".to_vec())));
        let _ = timeout(Duration::from_millis(20), again).await;
    }
    assert!(!a.is_away() && !b.is_away() && c.is_away());
    // The killed one comes back as a replica, and nobody minds.
    engine.restart_member(dying).unwrap();

    // The master that everybody hears all by: all are away for a while.
    engine.kill_member(all).unwrap();
    let killed = Instant::now();
    for node in [&a, &b, &c] {
        let count = |heard: &[Heard], what: Heard| heard.iter().filter(|heard| **heard == what).count();
        let back = |heard: &[Heard]| {
            let outages = count(heard, Heard::Away);
            outages == 1 + usize::from(node.node == c.node) && count(heard, Heard::Back) == outages
        };
        node.recorder.until("everybody is back", back).await;
    }
    assert!(killed.elapsed() < REPLACED, "it took {:?}", killed.elapsed());
    for (from, to) in [(&a, &b), (&b, &c), (&c, &a)] {
        from.broker.send(To::All, &Arc::from(&b"whole"[..])).unwrap();
        to.recorder.until("it arrives", |heard| heard.contains(&Heard::Envelope(b"whole".to_vec()))).await;
    }
}

#[tokio::test]
async fn slots_that_move_are_followed() {
    if !are_private("slots that move") {
        return;
    }
    let engine = Engine::redis_cluster().start().unwrap();
    // A node that hears of moved slots from a master that it is subscribed at, begins anew; here that is b alone.
    let settings = loop {
        let settings = settings(engine.url());
        let channels = Channels::new(&settings.cluster, Incarnation(0), ChannelKind::Sharded);
        if third(slot(&[channels.all().as_bytes()])) != 1 {
            break settings;
        }
    };
    let (a, b) = (Placed::join(&settings, 0).await, Placed::join(&settings, 1).await);
    // The one slot of b's channel goes to the third master.
    let moved =
        slot(&[Channels::new(&settings.cluster, b.node.incarnation, ChannelKind::Sharded).own().as_bytes()]);
    let port = settings.address.hosts[0].port;
    let server = |number: u16| format!("redis://127.0.0.1:{}", port + number);
    let id = ask(&server(2), "CLUSTER MYID").unwrap();
    for number in [2, 1, 0] {
        assert_eq!(ask(&server(number), &format!("CLUSTER SETSLOT {moved} NODE {id}")).unwrap(), "+OK");
    }
    b.recorder.until("b is back", |heard| heard.contains(&Heard::Back)).await;
    let moved = Instant::now();
    while !b.has("there") {
        assert!(moved.elapsed() < PATIENCE, "nothing flows");
        a.send(&b, "there");
        let came = b.recorder.until("a moment", |heard| heard.contains(&Heard::Envelope(b"there".to_vec())));
        let _ = timeout(Duration::from_millis(50), came).await;
    }
    assert!(!a.is_away());
}

#[tokio::test]
async fn what_is_no_cluster_is_told() {
    let trouble = async |url: &str| {
        let error = refused(async || {
            RedisClusterBroker::start(settings(url), &fresh_node("n"), Recorder::new()).await
        })
        .await;
        let RedisError::Server { trouble, .. } = error else { panic!("{error}") };
        trouble
    };
    let nobody = nobody();
    assert!(matches!(
        trouble(&format!("redis+cluster://:hush@{nobody},{nobody}")).await,
        Trouble::Connect(_)
    ));
    if !are_private("servers that are none") {
        return;
    }
    let single = Engine::redis().start().unwrap();
    let server = single.url().strip_prefix("redis://").unwrap();
    match trouble(&format!("redis+cluster://{server}")).await {
        Trouble::Refused(text) => assert!(text.contains("cluster support disabled"), "{text}"),
        other => panic!("{other}"),
    }
    assert_eq!(ask(single.url(), "CONFIG SET requirepass hush").unwrap(), "+OK");
    match trouble(&format!("redis+cluster://:hush2@{server}")).await {
        Trouble::Refused(text) => assert!(text.contains("WRONGPASS"), "{text}"),
        other => panic!("{other}"),
    }
}
