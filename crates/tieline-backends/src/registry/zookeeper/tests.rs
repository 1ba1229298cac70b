//! The registry against a real server: the suite, outages, sessions that are over, users, and what somebody else wrote.

use tieline_core::registry::{View, words};
use tieline_proto::{Incarnation, NodeName};
use tokio::time::timeout;
use xtask::{Engine, left_out};
use zookeeper_client::{Acls, Client, CreateMode};

use super::*;
use crate::conformance::registry::{self as suite, Ground, Opening};
use crate::conformance::{PATIENCE, fresh_node};

/// A server, and times that end within a test.
struct Yard {
    url: String,
}

fn settings(url: &str, cluster: &str) -> ZooKeeperSettings {
    ZooKeeperSettings {
        lease: Duration::from_secs(6),
        refresh: Duration::from_secs(1),
        hold: Duration::from_secs(5),
        limit: Duration::from_secs(3),
        ..ZooKeeperSettings::new(cluster, ZooKeeperAddress::parse(url).unwrap())
    }
}

impl Ground for Yard {
    fn open(&self, cluster: &str, me: Option<NodeId>) -> Opening<'_> {
        let settings = settings(&self.url, cluster);
        Box::pin(async move {
            let registry: Arc<dyn Registry> = Arc::new(ZooKeeperRegistry::start(settings, me).await.unwrap());
            registry
        })
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(6)
    }

    fn hold(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::zookeeper().start().unwrap();
    suite::suite(&Yard { url: engine.url().to_owned() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    if std::env::var_os("TIELINE_TEST_ZOOKEEPER").is_some() {
        left_out(
            "the ZooKeeper registry: outages",
            "TIELINE_TEST_ZOOKEEPER names a server that was not started here",
        );
        return;
    }
    let mut server = Engine::zookeeper().start().unwrap();
    let yard = Yard { url: server.url().to_owned() };
    suite::outages(&yard, &mut server).await;
}

async fn until(registry: &ZooKeeperRegistry, wish: &str, is_met: impl Fn(&View) -> bool) -> SharedView {
    let mut view = registry.view();
    let found = match timeout(PATIENCE, view.wait_for(|view| is_met(view))).await {
        Ok(found) => Some(Arc::clone(&found.unwrap())),
        Err(_) => None,
    };
    found.unwrap_or_else(|| panic!("waited in vain: {wish}; it shows {:?}", registry.view().borrow()))
}

/// A server of the tests, and a client of it that is nobody's registry, below the path of the tests.
async fn client(engine: &Engine) -> Client {
    Client::connect(engine.url().trim_start_matches("zookeeper://")).await.unwrap()
}

fn cluster(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_wrote_is_passed_over_and_counted() {
    let engine = Engine::zookeeper().start().unwrap();
    let cluster = cluster("strangers");
    let (a, b) = (fresh_node("a"), fresh_node("b"));
    let one = ZooKeeperRegistry::start(settings(engine.url(), &cluster), Some(a)).await.unwrap();
    one.register(Registration::default());
    let client = client(&engine).await;
    let own = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let words_of_b = words::write(&cluster, &b, &Registration::default());
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("binary", &[0xff; 3000]),
        // The words of a node that is another.
        ("c-0000000000000001", words_of_b.as_bytes()),
    ] {
        client.create(&format!("/tieline/{cluster}/{name}"), bytes, &own).await.unwrap();
    }
    until(&one, "three strangers", |view| view.strange == 3 && view.members.is_empty()).await;
    let other = ZooKeeperRegistry::start(settings(engine.url(), &cluster), Some(b.clone())).await.unwrap();
    other.register(Registration::default());
    let view = until(&one, "a member among them", |view| !view.members.is_empty()).await;
    assert_eq!((&view.members[0].id, view.strange), (&b, 3));
    other.deregister().await;
    one.deregister().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_somebody_removed_is_written_again() {
    let engine = Engine::zookeeper().start().unwrap();
    let cluster = cluster("removed");
    let (a, b) = (fresh_node("a:7800"), fresh_node("b"));
    let one = ZooKeeperRegistry::start(settings(engine.url(), &cluster), Some(a.clone())).await.unwrap();
    let other = ZooKeeperRegistry::start(settings(engine.url(), &cluster), Some(b)).await.unwrap();
    one.register(Registration::default());
    until(&other, "a member", |view| view.members.len() == 1).await;
    let client = client(&engine).await;
    let folder = format!("/tieline/{cluster}");
    let [entry] = &client.list_children(&folder).await.unwrap()[..] else { panic!("one is registered") };
    let path = format!("{folder}/{entry}");
    let (_, before) = client.get_data(&path).await.unwrap();
    client.delete(&path, None).await.unwrap();
    let again = async {
        loop {
            let (stat, watcher) = client.check_and_watch_stat(&path).await.unwrap();
            if let Some(stat) = stat {
                break stat;
            }
            watcher.changed().await;
        }
    };
    let after = timeout(PATIENCE, again).await.expect("it is written again");
    assert_ne!(after.czxid, before.czxid);
    let view = until(&other, "the same node", |view| view.members.iter().any(|member| member.id == a)).await;
    assert_eq!(view.namesake, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_not_there_are_passed_over_and_without_any_it_does_not_start() {
    let engine = Engine::zookeeper().start().unwrap();
    let cluster = cluster("hosts");
    let server = engine.url().trim_start_matches("zookeeper://");
    // Nobody listens on the first.
    let url = format!("zookeeper://127.0.0.1:1,{server}/some/where");
    let registry = ZooKeeperRegistry::start(settings(&url, &cluster), Some(fresh_node("a"))).await.unwrap();
    registry.register(Registration::default());
    let looking = ZooKeeperRegistry::start(settings(&url, &cluster), None).await.unwrap();
    until(&looking, "a member", |view| view.members.len() == 1).await;
    let elsewhere = ZooKeeperRegistry::start(settings(engine.url(), &cluster), None).await.unwrap();
    assert_eq!(elsewhere.view().borrow().members.len(), 0, "it is below another path");
    registry.deregister().await;

    let nobody = settings("zookeeper://127.0.0.1:1", &cluster);
    let error = ZooKeeperRegistry::start(nobody, None).await.err().expect("nobody is there").to_string();
    assert!(error.contains("127.0.0.1:1"), "{error}");
    let nameless = settings(engine.url(), "");
    assert!(matches!(ZooKeeperRegistry::start(nameless, None).await, Err(ZooKeeperError::Cluster)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_a_user_is_nobody_elses() {
    let engine = Engine::zookeeper().start().unwrap();
    let cluster = cluster("users");
    let server = engine.url().trim_start_matches("zookeeper://");
    let with = |login: &str| settings(&format!("zookeeper://{login}{server}/{cluster}"), &cluster);
    let me = || Some(NodeId { name: NodeName::new("a").unwrap(), incarnation: Incarnation(5) });
    let own = ZooKeeperRegistry::start(with("user:p%40ss@"), me()).await.unwrap();
    own.register(Registration::default());
    let looking = ZooKeeperRegistry::start(with("user:p%40ss@"), None).await.unwrap();
    until(&looking, "a member", |view| view.members.len() == 1).await;
    for login in ["", "user:other@"] {
        let error = ZooKeeperRegistry::start(with(login), None).await.err().expect("it is not theirs");
        assert!(error.to_string().contains("not authorized"), "{error}");
    }
    own.deregister().await;
}
