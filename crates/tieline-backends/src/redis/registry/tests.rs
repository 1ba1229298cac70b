//! The registry against real servers: the suite, outages, and entries that somebody else wrote.

use tieline_core::registry::{Member, View};
use tieline_proto::{Incarnation, NodeName};
use xtask::{Engine, left_out};

use super::*;
use crate::conformance::registry::{self as suite, Ground, Opening};

/// A server, and times that end within a test.
struct Yard {
    url: String,
}

fn settings(url: &str, cluster: &str, me: Option<NodeId>) -> RedisRegistrySettings {
    RedisRegistrySettings {
        lease: Duration::from_secs(3),
        refresh: Duration::from_secs(1),
        look: Duration::from_millis(300),
        hold: Duration::from_secs(3),
        ..RedisRegistrySettings::new(RedisAddress::parse(url).unwrap(), cluster, me)
    }
}

impl Ground for Yard {
    fn open(&self, cluster: &str, me: Option<NodeId>) -> Opening<'_> {
        let settings = settings(&self.url, cluster, me);
        Box::pin(async move {
            let registry: Arc<dyn Registry> = Arc::new(RedisRegistry::open(settings).await.unwrap());
            registry
        })
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn hold(&self) -> Duration {
        Duration::from_secs(3)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::redis().start().unwrap();
    suite::suite(&Yard { url: engine.url().to_owned() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        left_out(
            "the Redis registry: outages",
            "TIELINE_TEST_REDIS names a server that was not started here",
        );
        return;
    }
    let mut server = Engine::redis().start().unwrap();
    let yard = Yard { url: server.url().to_owned() };
    suite::outages(&yard, &mut server).await;
}

fn node(name: &str, incarnation: u64) -> NodeId {
    NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(incarnation) }
}

async fn until(registry: &RedisRegistry, is_met: impl Fn(&View) -> bool) -> SharedView {
    let mut view = registry.view();
    let found = timeout(Duration::from_secs(30), view.wait_for(|view| is_met(view))).await;
    Arc::clone(&found.expect("it never came to be so").unwrap())
}

/// Runs a command of Redis by a connection of its own.
async fn command(url: &str, words: &[&[u8]]) {
    let dialler = Arc::new(Dialler::new(RedisAddress::parse(url).unwrap(), "tests".to_owned()).unwrap());
    let (mut link, greetings) = Link::connect(&dialler).await.unwrap();
    link.say(words);
    link.send().await.unwrap();
    for _ in 0..=greetings {
        link.grant(|_| ()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_wrote_is_passed_over_and_counted() {
    let engine = Engine::redis().start().unwrap();
    let cluster = format!("strangers-{}", std::process::id());
    let key = format!("tieline:{cluster}:nodes");
    let far = "9999999999999 ";
    let good = |id: &NodeId| format!("{far}{}", words::write(&cluster, id, &Registration::default()));
    let (a, b) = (node("a", 1), node("b", 2));
    let long = format!("{far}{}", "x".repeat(5_000));
    let foreign = format!("{far}{}", words::write("other", &node("c", 3), &Registration::default()));
    let far_future = good(&b);
    for (field, value) in [
        ("", "x"),
        ("d/0000000000000004", "no lease"),
        ("e/0000000000000005", &long),
        ("c/0000000000000003", &foreign),
        // It has another's words, and its lease ends in a far future: it is taken out.
        ("b/0000000000000002", &far_future),
    ] {
        command(engine.url(), &[b"HSET", key.as_bytes(), field.as_bytes(), value.as_bytes()]).await;
    }
    let registry = RedisRegistry::open(settings(engine.url(), &cluster, Some(a.clone()))).await.unwrap();
    registry.register(Registration::default());
    let view = until(&registry, |view| view.strange > 0).await;
    assert_eq!((view.members.len(), view.is_degraded), (0, false));
    assert!(view.strange >= 2, "{view:?}");
    // The words of one node under the name of another make nobody a member.
    let soon = unix_ms() + 2_000;
    let liar = format!("{soon} {}", words::write(&cluster, &b, &Registration::default()));
    command(engine.url(), &[b"HSET", key.as_bytes(), b"f/0000000000000006", liar.as_bytes()]).await;
    let honest = format!("{soon} {}", words::write(&cluster, &node("g", 7), &Registration::default()));
    command(engine.url(), &[b"HSET", key.as_bytes(), b"g/0000000000000007", honest.as_bytes()]).await;
    command(engine.url(), &[b"HINCRBY", key.as_bytes(), b"version", b"1"]).await;
    let view = until(&registry, |view| !view.members.is_empty()).await;
    let ids: Vec<&NodeId> = view.members.iter().map(|member: &Member| &member.id).collect();
    assert_eq!(ids, [&node("g", 7)]);
    registry.deregister().await;
}

fn unix_ms() -> u64 {
    tieline_core::unix_ms()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_told_at_the_start() {
    let engine = Engine::redis().start().unwrap();
    let cluster = format!("starts-{}", std::process::id());
    let open = async |url: &str, cluster: &str| {
        RedisRegistry::open(settings(url, cluster, None)).await.err().map(|error| error.to_string())
    };
    assert_eq!(open(engine.url(), &cluster).await, None);
    assert!(open(engine.url(), "").await.unwrap().contains("cluster's name"));
    assert!(open("redis://127.0.0.1:1", &cluster).await.unwrap().contains("cannot connect"));
    let key = format!("tieline:{cluster}:nodes");
    command(engine.url(), &[b"SET", key.as_bytes(), b"something else"]).await;
    assert!(open(engine.url(), &cluster).await.unwrap().contains("WRONGTYPE"));
    command(engine.url(), &[b"DEL", key.as_bytes()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_behind_on_the_server() {
    let engine = Engine::redis().start().unwrap();
    let cluster = format!("ends-{}", std::process::id());
    let key = format!("tieline:{cluster}:nodes");
    let (a, b) = (node("a", 1), node("b", 2));
    let one = RedisRegistry::open(settings(engine.url(), &cluster, Some(a))).await.unwrap();
    let other = RedisRegistry::open(settings(engine.url(), &cluster, Some(b))).await.unwrap();
    one.register(Registration::default());
    other.register(Registration::default());
    until(&one, |view| view.members.len() == 1).await;
    other.deregister().await;
    drop(one);
    let dialler =
        Arc::new(Dialler::new(RedisAddress::parse(engine.url()).unwrap(), "tests".to_owned()).unwrap());
    let (mut link, greetings) = Link::connect(&dialler).await.unwrap();
    link.send().await.unwrap();
    for _ in 0..greetings {
        link.grant(|_| ()).await.unwrap();
    }
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        link.say(&[b"EXISTS", key.as_bytes()]);
        link.send().await.unwrap();
        if link.grant(|answer| *answer == Answer::Number(0)).await.unwrap() {
            return;
        }
        assert!(Instant::now() < end, "the key is still there");
    }
}
