//! The registry against a real server: the suite but for what only a process can do, which is to die; outages; what operators and
//! programs of other makes see and do; and a wrong password.

use tieline_core::registry::View;
use tokio::task::spawn_blocking;
use xtask::engine::nacos::command;
use xtask::{Engine, left_out};

use super::*;
use crate::conformance::registry::{self as suite, Ground, Opening};
use crate::conformance::{PATIENCE, fresh_node};

/// A server, and times that end within a test.
struct Yard {
    url: String,
}

/// How long nobody is dropped: the library needs some seconds to find a server that is back.
const SHORT_HOLD: Duration = Duration::from_secs(10);

fn settings(url: &str, cluster: &str) -> NacosSettings {
    NacosSettings {
        refresh: Duration::from_secs(1),
        hold: SHORT_HOLD,
        ..NacosSettings::new(cluster, NacosAddress::parse(url).unwrap())
    }
}

impl Ground for Yard {
    fn open(&self, cluster: &str, me: Option<NodeId>) -> Opening<'_> {
        let settings = settings(&self.url, cluster);
        Box::pin(async move {
            let registry: Arc<dyn Registry> = Arc::new(NacosRegistry::start(settings, me).await.unwrap());
            registry
        })
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(6)
    }

    fn hold(&self) -> Duration {
        SHORT_HOLD
    }

    /// The library registers a node again when it has connected, before it can be told to take it out; it waits for up to 64 s
    /// between two attempts to connect (nacos-sdk 0.8.3), and the process that dies with the node is not there to stop it.
    fn linger(&self) -> Duration {
        Duration::from_secs(70)
    }
}

/// One server for everything, because it takes long to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server() {
    let mut engine = Engine::nacos().start().unwrap();
    let yard = Yard { url: engine.url().to_owned() };
    a_wrong_password_and_a_server_that_is_not_there_are_told_at_the_start(engine.url()).await;
    others_find_our_nodes_and_may_disable_them(engine.url()).await;
    suite::who_comes_is_seen_with_what_it_says(&yard).await;
    suite::who_leaves_is_gone_at_once(&yard).await;
    suite::who_is_started_again_is_another(&yard).await;
    suite::clusters_never_see_each_other(&yard).await;
    suite::fifty_see_each_other(&yard).await;
    if std::env::var_os("TIELINE_TEST_NACOS").is_some() {
        left_out(
            "the Nacos registry: outages",
            "TIELINE_TEST_NACOS names a server that was not started here",
        );
        return;
    }
    suite::outages(&yard, &mut engine).await;
}

async fn until(registry: &NacosRegistry, wish: &str, is_met: impl Fn(&View) -> bool) -> SharedView {
    let mut view = registry.view();
    let found = match timeout(PATIENCE, view.wait_for(|view| is_met(view))).await {
        Ok(found) => Some(Arc::clone(&found.unwrap())),
        Err(_) => None,
    };
    found.unwrap_or_else(|| panic!("waited in vain: {wish}; it shows {:?}", registry.view().borrow()))
}

/// What an operator does.
async fn operate(url: &str, method: &'static str, path: &'static str, form: String) -> String {
    let url = url.to_owned();
    spawn_blocking(move || command(&url, method, path, &form)).await.unwrap().unwrap()
}

/// Waits until programs of other makes, who look for a service, find what is wished.
async fn until_found(url: &str, path: String, is_met: impl Fn(&str) -> bool) {
    let looking = async {
        loop {
            let (url, path) = (url.to_owned(), path.clone());
            let found = spawn_blocking(move || command(&url, "GET", &path, "")).await.unwrap().unwrap();
            if is_met(&found) {
                return;
            }
        }
    };
    timeout(PATIENCE, looking).await.expect("others never found it");
}

fn cluster(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn at(host: &str) -> Registration {
    Registration { client_url: format!("wss://{host}.example"), weight: 3, ..Registration::default() }
}

async fn others_find_our_nodes_and_may_disable_them(server: &str) {
    let cluster = cluster("others");
    let url = format!("{server}?service={cluster}");
    let (a, b) = (fresh_node("a"), fresh_node("b"));
    let one = NacosRegistry::start(settings(&url, &cluster), Some(a.clone())).await.unwrap();
    let other = NacosRegistry::start(settings(&url, &cluster), Some(b.clone())).await.unwrap();
    let looking = NacosRegistry::start(settings(&url, &cluster), None).await.unwrap();
    one.register(at("a"));
    other.register(at("b"));
    until(&looking, "two members", |view| view.members.iter().filter(|m| m.takes_clients()).count() == 2)
        .await;

    let list = format!("/nacos/v3/client/ns/instance/list?serviceName={cluster}");
    let is_there = |found: &str, host: &str| {
        let node = format!("\"ip\":\"{host}.example\",\"port\":443,\"weight\":3.0,\"healthy\":true");
        found.contains(&node) && found.contains("\"secure\":\"true\"")
    };
    until_found(server, list.clone(), |found| is_there(found, "a") && is_there(found, "b")).await;

    // Somebody else's instance among the members is nobody's.
    let foreign = format!("serviceName={cluster}.members&ip=10.0.0.1&port=1&heartBeat=false&ephemeral=true");
    operate(server, "POST", "/nacos/v3/client/ns/instance", foreign).await;
    let view = until(&looking, "a stranger", |view| view.strange == 1).await;
    assert_eq!(view.members.len(), 2);

    // An operator disables a node: it stays a member, and gets no new clients.
    let switch = |is_on: bool| {
        format!("serviceName={cluster}&ip=b.example&port=443&enabled={is_on}&weight=3&ephemeral=true")
    };
    operate(server, "PUT", "/nacos/v3/admin/ns/instance", switch(false)).await;
    let is_enabled =
        |view: &View, id: &NodeId| view.members.iter().find(|m| m.id == *id).map(|m| m.is_enabled);
    for registry in [&one, &looking] {
        until(registry, "it to be disabled", |view| is_enabled(view, &b) == Some(false)).await;
    }
    assert_eq!(is_enabled(&looking.view().borrow(), &a), Some(true));
    operate(server, "PUT", "/nacos/v3/admin/ns/instance", switch(true)).await;
    until(&looking, "it to be enabled", |view| is_enabled(view, &b) == Some(true)).await;

    // Who drains is taken out for others, and stays a member for us.
    one.register(Registration { state: NodeState::Draining, ..at("a") });
    until_found(server, list.clone(), |found| !is_there(found, "a") && is_there(found, "b")).await;
    let is_draining = |view: &View| {
        let member = view.members.iter().find(|member| member.id == a);
        member.is_some_and(|member| !member.takes_clients() && member.is_enabled)
    };
    until(&looking, "it to drain", is_draining).await;
    one.register(at("a"));
    until_found(server, list, |found| is_there(found, "a") && is_there(found, "b")).await;
    one.deregister().await;
    other.deregister().await;
    until(&looking, "nobody", |view| view.members.is_empty()).await;
}

async fn a_wrong_password_and_a_server_that_is_not_there_are_told_at_the_start(server: &str) {
    let cluster = cluster("wrong");
    let (_, place) = server.split_once('@').unwrap();
    let wrong = settings(&format!("nacos://nacos:hush@{place}"), &cluster);
    let error = NacosRegistry::start(wrong, Some(fresh_node("a"))).await.err().expect("it is wrong");
    assert!(matches!(error, NacosError::Server { trouble: Trouble::Password, .. }), "{error}");
    assert!(!error.to_string().contains("hush"), "{error}");
    let nobody = settings("nacos://127.0.0.1:1", &cluster);
    let error = NacosRegistry::start(nobody, None).await.err().expect("nobody is there").to_string();
    assert!(error.contains("127.0.0.1:1"), "{error}");
}
