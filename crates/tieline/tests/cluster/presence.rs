//! Presence over real nodes: everybody knows the same, and of a node that was killed those have left who did not come back.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_core::unix_ms;
use tieline_proto::civil::push_rfc3339;

use crate::client::Client;
use crate::processes::{Process, SECRET, TestCluster, any, eventually};
use crate::support::PATIENCE;
use crate::support::endpoint::{Endpoint, Post, Reply};
use crate::support::http::call;

/// How long a node is believed to live that is not reached.
const LEASE: Duration = Duration::from_secs(15);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(10);

/// How long users are waited for.
const GRACE: Duration = Duration::from_secs(3);

/// A configuration by which it is told who is where, removed at the end.
struct Telling(PathBuf);

impl Telling {
    fn new(test: &str) -> Self {
        Telling::with(test, "")
    }

    /// The same with further tables.
    fn with(test: &str, tables: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tieline-{test}-{}.toml", std::process::id()));
        let text = format!(
            "[[hub]]\nmatch = \"h\"\npresence = true\n[[group]]\nmatch = \"room*\"\npresence = true\n\
                    [times]\npresence_grace = \"3s\"\n{tables}"
        );
        fs::write(&path, text).unwrap();
        Telling(path)
    }

    fn variables(&self) -> [(&str, &str); 1] {
        [("TIELINE_CONFIG", self.0.to_str().unwrap())]
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        // What is left in the temporary folder harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

fn page(node: &Process, path: &str) -> Value {
    call(node.address, "GET", &format!("/api/v1/hubs/h/{path}presence?limit=500"), "", "").json()
}

fn users(page: &Value) -> Vec<String> {
    let users = page["users"].as_array().unwrap();
    users.iter().map(|user| user["userId"].as_str().unwrap().to_owned()).collect()
}

/// The events of the next frame.
fn events(client: &mut Client) -> Vec<String> {
    let frame = client.next();
    assert_eq!((&frame["type"], &frame["group"]), (&json!("presence"), &json!("room")), "{frame}");
    let word = |event: &Value| {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        format!("{} {} {}", text("event"), text("userId"), text("node"))
    };
    frame["events"].as_array().unwrap().iter().map(word).collect()
}

#[test]
fn of_a_killed_node_those_leave_who_do_not_come_back_elsewhere() {
    let telling = Telling::new("presence");
    let mut cluster = TestCluster::start_with(3, &[], &telling.variables());
    let mut watcher = cluster.nodes[0].connect("h", "watcher");
    watcher.send(&json!({"type": "presence", "group": "room", "subscribe": true, "ackId": 1_000}));
    assert_eq!(watcher.next()["total"]["users"], 0);
    assert_eq!(watcher.next()["success"], true);
    let clients: Vec<Client> =
        (0..30).map(|n| cluster.nodes[2].connect_to_room(&format!("u{n:02}"))).collect();
    let mut joined = Vec::new();
    while joined.len() < 30 {
        joined.extend(events(&mut watcher));
    }
    assert_eq!(joined, (0..30).map(|n| format!("join u{n:02} n2")).collect::<Vec<_>>());

    cluster.kill(2);
    let killed = Instant::now();
    let _back: Vec<Client> =
        (0..10).map(|n| cluster.nodes[n % 2].connect_to_room(&format!("u{n:02}"))).collect();
    let left = events(&mut watcher);
    assert_eq!(left, (10..30).map(|n| format!("leave u{n} n2")).collect::<Vec<_>>(), "in one frame");
    let took = killed.elapsed();
    assert!(took >= GRACE && took < LEASE + GRACE + SLACK, "{took:?}");
    let stay: Vec<String> = (0..10).map(|n| format!("u{n:02}")).collect();
    for node in &cluster.nodes[..2] {
        let is_so = || users(&page(node, "groups/room/")) == stay;
        eventually("the others are gone at every node", is_so);
        let mut hub = stay.clone();
        hub.push("watcher".into());
        let total = json!({"users": 11, "connections": 11, "anonymous": 0});
        eventually("they are gone from the hub, too", || {
            let page = page(node, "");
            users(&page) == hub && page["total"] == total
        });
    }
    drop(clients);
    // A node that comes later learns it from the others.
    let (seeds, secret) = ([cluster.nodes[0].peers], ["--cluster-secret", SECRET]);
    let later = Process::start("n3", any(), any(), &seeds, &secret, &telling.variables());
    let knows = || page(&later, "")["total"] == json!({"users": 11, "connections": 11, "anonymous": 0});
    eventually("it knows who is there", knows);
}

#[test]
fn the_application_hears_once_who_has_left_with_a_killed_node() {
    const USERS: usize = 12;
    let endpoint = Endpoint::start(|_| Reply::status(200));
    let telling = Telling::with("told", &endpoint_of("*", &endpoint));
    let mut cluster = TestCluster::start_with(3, &[], &telling.variables());
    let mut clients: Vec<Client> =
        (0..USERS).map(|n| cluster.nodes[2].connect("h", &format!("u{n:02}"))).collect();
    let event = |post: &Post| {
        let body = post.json();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (text("event"), text("userId"), text("node"))
    };
    let users = |turn: &str, node: &str, from: usize| -> BTreeSet<(String, String, String)> {
        (from..USERS).map(|n| (turn.to_owned(), format!("u{n:02}"), node.to_owned())).collect()
    };
    let came: BTreeSet<_> = (0..USERS).map(|_| event(&endpoint.next_of("presence"))).collect();
    assert_eq!(came, users("join", "n2", 0));
    cluster.kill(2);
    clients.clear();
    // Two of them come back elsewhere in time, and were never away.
    let back: Vec<Client> = (0..2).map(|n| cluster.nodes[n].connect("h", &format!("u{n:02}"))).collect();
    let mut left = Vec::new();
    while left.len() < USERS - back.len() {
        let post = endpoint.next_within(LEASE + GRACE + SLACK);
        // What a node told shortly before it died may be told again.
        if post.event() == "presence" && event(&post).0 == "leave" {
            left.push(event(&post));
        }
    }
    assert_eq!(left.iter().cloned().collect::<BTreeSet<_>>(), users("leave", "n2", 2));
    let late = Instant::now() + GRACE + Duration::from_secs(1);
    while let Some(post) = endpoint.next_until(late) {
        let is_told = post.event() == "presence" && event(&post).0 == "leave";
        assert!(!is_told, "{:?} was told once more", event(&post));
    }
}

/// When nobody is left to tell who has gone the application is told to forget what it knows: once, and only then.
#[test]
fn the_application_is_told_to_forget_when_all_nodes_were_lost() {
    let endpoint = Endpoint::start(|_| Reply::status(200));
    let endpoints: String = ["*", "h", "other", "h"].map(|hub| endpoint_of(hub, &endpoint)).concat();
    let telling = Telling::with("lost", &endpoints);
    let began = unix_ms();
    let mut cluster = TestCluster::start_with(3, &["--config", telling.0.to_str().unwrap()], &[]);
    // Of endpoints that would hear of the same hub the first one does, and here that is the one of all hubs.
    let reset = |limit: Duration| {
        let post = endpoint.next_within(limit);
        assert_eq!((post.event(), post.header("ce-hub")), ("presence.reset", "*"));
        assert_eq!(
            (post.header("ce-source"), &*post.path),
            ("/hubs/*", "/app/%2A/presence.reset?code=SECRET")
        );
        let body = post.json();
        assert_eq!(body["event"], "reset");
        body["since"].as_str().unwrap().to_owned()
    };
    let text = |unix_ms: u64| {
        let mut text = Vec::new();
        push_rfc3339(&mut text, unix_ms);
        String::from_utf8(text).unwrap()
    };
    let nothing_for = |time: Duration| {
        let until = Instant::now() + time;
        while let Some(post) = endpoint.next_until(until) {
            assert_eq!(post.method, "OPTIONS", "{} was told", post.event());
        }
    };
    let first = reset(LEASE + PATIENCE);
    assert!(first >= text(began) && first < text(unix_ms() - 10_000), "{first}");
    // Two live on, and would tell who has left.
    cluster.kill(1);
    cluster.restart(1);
    nothing_for(LEASE + Duration::from_secs(3));

    (0..3).for_each(|index| cluster.kill(index));
    let killed = text(unix_ms());
    (0..3).for_each(|index| cluster.restart(index));
    cluster.wait_for_all();
    let second = reset(LEASE + PATIENCE);
    assert!(second > killed, "{second} is before {killed}");
    nothing_for(Duration::from_secs(3));
}

/// The table of an endpoint that hears of presence in a hub.
fn endpoint_of(hub: &str, endpoint: &Endpoint) -> String {
    let url = endpoint.url();
    format!(
        "[[upstream]]\nhub = \"{hub}\"\nurl = \"{url}\"\nuser_events = []\nsystem_events = [\"presence\"]\n"
    )
}
