//! Events that nobody waits for: sent until they are taken, in their order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::support::endpoint::Closed;
use crate::support::http::call;
use crate::support::metrics::{await_sample, metrics, sample};
use crate::support::program::start;
use crate::support::socket::Frame;

const TOLD: &str = "user_events = []\nsystem_events = [\"connected\", \"disconnected\"]";

#[test]
fn an_event_is_sent_again_under_its_id_until_it_is_taken_and_in_its_order() {
    let asked = AtomicU32::new(0);
    let endpoint = Endpoint::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(500),
        1 => Reply::Close,
        2 => Reply::status(429),
        _ => Reply::status(200),
    });
    let server = server(&endpoint, TOLD);
    let (mut socket, _) = connect(&server, "tieline.v1").unwrap();
    socket.close(1000);
    let posts: Vec<Post> = (0..5).map(|_| endpoint.next()).collect();
    let names: Vec<&str> = posts.iter().map(Post::event).collect();
    assert_eq!(names, ["connected", "connected", "connected", "connected", "disconnected"]);
    let id = |post: &Post| (post.header("ce-id").to_owned(), post.header("ce-time").to_owned());
    assert!(posts[..4].iter().all(|post| id(post) == id(&posts[0])));
    assert_ne!(id(&posts[4]).0, id(&posts[0]).0);
    await_sample(server.address, "upstream_events_waiting", 0.0);
    await_sample(server.address, "upstream_events_total{event=\"connected\",outcome=\"retried\"}", 3.0);
    await_sample(server.address, "upstream_events_total{event=\"connected\",outcome=\"answered\"}", 1.0);
}

#[test]
fn what_an_endpoint_refuses_is_not_sent_again() {
    let endpoint = Endpoint::start(|post| Reply::status(if post.event() == "connected" { 400 } else { 200 }));
    let server = server(&endpoint, TOLD);
    let (mut socket, _) = connect(&server, "tieline.v1").unwrap();
    socket.close(1000);
    assert_eq!([endpoint.next().event(), endpoint.next().event()], ["connected", "disconnected"]);
}

#[test]
fn an_endpoint_that_was_away_gets_everything_when_it_is_back() {
    let closed = Closed::new();
    let address = closed.address;
    let server = Server::start(&format!(
        "access_key = [\"{}\"]\n[[upstream]]\nurl = \"http://{address}/\"\n{TOLD}",
        KEYS[0]
    ));
    let mut expected = Vec::new();
    for _ in 0..3 {
        let (mut socket, connected) = connect(&server, "json.webpubsub.azure.v1").unwrap();
        socket.close(1000);
        expected.push(connected["connectionId"].as_str().unwrap().to_owned());
    }
    while sample(&metrics(server.address), "upstream_events_total{event=\"connected\",outcome=\"retried\"}")
        == 0.0
    {
        std::thread::yield_now();
    }
    let endpoint = Endpoint::on(closed.open(), |_| Reply::allow("*"));
    let mut told: Vec<(String, String)> = (0..6)
        .map(|_| endpoint.next())
        .map(|post| (post.header("ce-connectionid").to_owned(), post.event().to_owned()))
        .collect();
    for id in &expected {
        let of: Vec<&str> = told.iter().filter(|(of, _)| of == id).map(|(_, event)| &**event).collect();
        assert_eq!(of, ["connected", "disconnected"]);
    }
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 6);
}

#[test]
fn a_node_that_stops_tells_of_every_connection_before_its_end() {
    let endpoint = Endpoint::start(|_| Reply::status(200));
    let mut server = server(&endpoint, TOLD);
    let sockets: Vec<_> = (0..20).map(|_| connect(&server, "tieline.v1").unwrap()).collect();
    drop(std::thread::spawn(move || {
        // They answer the close frame, so that the node need not wait for them.
        sockets.into_iter().for_each(|(mut socket, _)| {
            socket.next();
            socket.next();
            socket.close(1001);
        });
    }));
    server.stop();
    let posts = endpoint.so_far();
    let count = |event: &str| posts.iter().filter(|post| post.event() == event).count();
    assert_eq!((count("connected"), count("disconnected")), (20, 20));
    let last = posts.iter().rfind(|post| post.event() == "disconnected").unwrap();
    assert_eq!(last.json(), json!({"reason": "The node stops."}));
}

#[test]
fn a_node_that_is_started_again_goes_on_with_what_its_store_has() {
    let closed = Closed::new();
    let address = closed.address;
    let file = std::env::temp_dir().join(format!("tieline-events-{}.db", std::process::id()));
    let start = || {
        Server::start(&format!(
            "access_key = [\"{}\"]\nnode = \"n\"\nstore = \"sqlite://{}\"\n[[upstream]]\nurl = \"http://{address}/\"\n{TOLD}",
            KEYS[0],
            file.display()
        ))
    };
    let mut first = start();
    let (mut socket, connected) = connect(&first, "json.webpubsub.azure.v1").unwrap();
    socket.close(1000);
    while sample(&metrics(first.address), "upstream_events_total{event=\"connected\",outcome=\"retried\"}")
        == 0.0
    {
        std::thread::yield_now();
    }
    first.stop();
    let endpoint = Endpoint::on(closed.open(), |_| Reply::allow("*"));
    let second = start();
    for event in ["connected", "disconnected"] {
        let post = endpoint.next();
        assert_eq!(
            (post.event(), post.header("ce-connectionid")),
            (event, connected["connectionId"].as_str().unwrap())
        );
    }
    drop(second);
    for ending in ["", "-wal", "-shm", "-lock"] {
        let _ = std::fs::remove_file(format!("{}{ending}", file.display()));
    }
}

/// Longer than a dead node's lease and the time until others look for its events.
const TAKEOVER: Duration = Duration::from_secs(45);

#[test]
fn the_events_of_a_killed_node_are_sent_by_another_one_of_its_store() {
    let endpoint = Endpoint::start(|_| Reply::status(503));
    let folder = std::env::temp_dir().join(format!("tieline-takeover-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let node = |name: &str| {
        let file = folder.join(format!("{name}.toml"));
        let config = format!(
            "listen = \"127.0.0.1:0\"\nshards = 1\nnode = \"{name}\"\naccess_key = [\"{}\"]\nstore = \"sqlite://{}/s.db\"\n\
             [[upstream]]\nurl = \"{}\"\n{TOLD}",
            KEYS[0],
            folder.display(),
            endpoint.url()
        );
        std::fs::write(&file, config).unwrap();
        start(&["serve", "--config", file.to_str().unwrap()], &[])
    };
    let (mut dying, address) = node("dying");
    let (mut other, _) = node("other");
    // Thirty connections, of which ten end.
    let mut due = HashMap::new();
    let mut sockets = Vec::new();
    for number in 0..30 {
        let path = format!("/client/hubs/chat?access_token={}", token(Some("alice")));
        let request = ClientRequest::new(&address.to_string(), &path).unwrap().protocol("tieline.v1");
        let mut socket = Socket::open(address, request).unwrap();
        let id = socket.json()["connectionId"].as_str().unwrap().to_owned();
        let ends = number % 3 == 0;
        if ends {
            socket.close(1000);
            while !matches!(socket.next(), Frame::End) {}
        }
        due.insert(id, if ends { vec!["connected", "disconnected"] } else { vec!["connected"] });
        sockets.push(socket);
    }
    // What is in the store is not lost with the node.
    let asked = |name: &str| sample(&metrics(address), name);
    while asked("upstream_events_waiting") > 0.0
        || asked("upstream_events_total{event=\"connected\",outcome=\"retried\"}") == 0.0
    {
        std::thread::yield_now();
    }
    dying.kill().unwrap();
    dying.wait().unwrap();
    // Those that were refused do not count.
    drop(endpoint.so_far());
    endpoint.answer(|_| Reply::status(200));
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    while !due.iter().all(|(id, events)| told.get(id).is_some_and(|told| told == events)) {
        let post = endpoint.next_within(TAKEOVER);
        assert!(!post.header("ce-id").is_empty());
        let events = told.entry(post.header("ce-connectionid").to_owned()).or_default();
        // At least once: the same one again is no other event.
        if !events.iter().any(|event| event == post.event()) {
            events.push(post.event().to_owned());
        }
    }
    other.kill().unwrap();
    other.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_message_that_waits_for_a_user_is_told_once() {
    let endpoint = Endpoint::start(|_| Reply::status(200));
    let keys = KEYS.map(|key| format!("{key:?}")).join(", ");
    let server = Server::start(&format!(
        "access_key = [{keys}]\nstore = \"memory:\"\n[inbox]\ncount = 10\n[[upstream]]\nurl = \"{}\"\n\
         user_events = []\nsystem_events = [\"queued\"]\n",
        endpoint.url()
    ));
    let _alice = connect(&server, "tieline.v1").unwrap();
    let send = |user: &str, key: &str| {
        let path = format!("/api/hubs/chat/users/{user}/:send");
        let url = format!("http://{}{path}", server.address);
        let token = crate::rest::tokens::bearer(KEYS[0], &url);
        let headers = format!("{token}Content-Type: text/plain\r\nIdempotency-Key: {key}\r\n");
        assert_eq!(call(server.address, "POST", &path, &headers, "hi").status, 202);
    };
    send("alice", "1");
    send("bob", "2");
    send("bob", "2");
    send("carol", "3");
    let told = [endpoint.next(), endpoint.next()];
    let mut users: Vec<&str> = told.iter().map(|post| post.header("ce-userid")).collect();
    users.sort_unstable();
    assert_eq!(users, ["bob", "carol"], "who is connected is not told of, and the same message not again");
    for post in &told {
        let body = post.json();
        assert_eq!((post.event(), post.header("ce-type")), ("queued", "azure.webpubsub.sys.queued"));
        assert_eq!(body["messageId"].as_str().map(str::len), Some(26), "{body}");
        assert_eq!(body["fromUserId"], json!(null));
        assert_eq!(body["position"]["offset"], 1);
    }
    assert!(endpoint.so_far().is_empty());
}

#[test]
fn the_application_is_told_of_each_member_that_is_offline_with_the_group() {
    let endpoint = Endpoint::start(|_| Reply::status(200));
    let keys = KEYS.map(|key| format!("{key:?}")).join(", ");
    let server = Server::start(&format!(
        "access_key = [{keys}]\nstore = \"memory:\"\n[[group]]\nmatch = \"club\"\nhistory = {{}}\nmembers = \"stored\"\n[[upstream]]\nurl = \"{}\"\nuser_events = []\nsystem_events = [\"queued\"]\n",
        endpoint.url()
    ));
    let ask = |method: &str, path: &str, body: &str| {
        let path = format!("/api/hubs/chat/{path}");
        let token = crate::rest::tokens::bearer(KEYS[0], &format!("http://{}{path}", server.address));
        call(server.address, method, &path, &format!("{token}Content-Type: text/plain\r\n"), body).status
    };
    let _alice = connect(&server, "tieline.v1").unwrap();
    for user in ["alice", "bob", "carol"] {
        assert_eq!(ask("PUT", &format!("users/{user}/groups/club"), ""), 200);
    }
    assert_eq!(ask("POST", "groups/club/:send", "hi"), 202);
    let told = [endpoint.next(), endpoint.next()];
    let mut users: Vec<&str> = told.iter().map(|post| post.header("ce-userid")).collect();
    users.sort_unstable();
    assert_eq!(users, ["bob", "carol"]);
    for post in &told {
        let body = post.json();
        assert_eq!((post.event(), &body["group"]), ("queued", &json!("club")), "{body}");
        assert_eq!((&body["fromUserId"], &body["position"]["offset"]), (&json!(null), &json!(1)));
    }
    assert!(endpoint.so_far().is_empty());
}
