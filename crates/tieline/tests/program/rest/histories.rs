//! What is kept, over HTTP: reading and removing it, sends that are said again, and stores that say no.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{HARD_PATH, send};
use crate::server::Server;
use crate::support::http::{Answer, call, post_json};
use crate::support::socket::Socket;
use tieline_websocket::ClientRequest;

const KEPT: &str = "store = \"memory:\"\n[inbox]\ncount = 1000\n[[group]]\nmatch = \"live*\"\n\
                    [[group]]\nmatch = \"*\"\nhistory = { count = 1000 }\n";

fn ask(server: &Server, method: &str, path: &str) -> Answer {
    call(server.address, method, &format!("/api/v1/hubs/h/{path}"), "", "")
}

/// A text with further headers.
fn say(server: &Server, path: &str, headers: &str, text: &str) -> Answer {
    let headers = format!("Content-Type: text/plain\r\n{headers}");
    call(server.address, "POST", &format!("/api/hubs/h{path}"), &headers, text)
}

fn data(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().map(|message| message["data"].as_str().unwrap()).collect()
}

fn tieline(server: &Server, user: &str) -> Socket {
    let path = format!("/client/hubs/h?user={user}");
    let request = ClientRequest::new(&server.address.to_string(), &path).unwrap().protocol("tieline.v1");
    let mut client = Socket::open(server.address, request).unwrap();
    assert_eq!(client.json()["event"], "connected");
    client
}

#[test]
fn a_history_is_read_page_by_page_and_removed() {
    let server = Server::start(KEPT);
    for path in [&*format!("groups/{HARD_PATH}/history"), "users/bob/inbox"] {
        let target = path.rsplit_once('/').unwrap().0;
        let read = |query: &str| ask(&server, "GET", &format!("{path}{query}"));
        let empty = json!({"epoch": 0, "first": 1, "last": 0, "messages": []});
        assert_eq!(read("").json(), empty, "no such log");
        assert_eq!(read("?after=0:0").json(), empty);
        for number in 1..=250 {
            assert_eq!(send(&server, &format!("/{target}/:send"), &format!("m{number}")).status, 202);
        }
        let first = read("").json();
        let epoch = first["epoch"].as_u64().unwrap();
        assert_eq!((&first["first"], &first["last"]), (&json!(1), &json!(250)));
        let message = &first["messages"][0];
        assert_eq!(message["position"], json!({"epoch": epoch, "offset": 1}));
        assert_eq!((&message["dataType"], &message["data"]), (&json!("text"), &json!("m1")));
        assert_eq!(message["id"].as_str().map(str::len), Some(26));
        assert!(message["time"].as_str().unwrap().ends_with('Z') && message.get("fromUserId").is_none());
        // Links are followed as they stand, without their host.
        let (mut all, mut sizes, mut page) = (BTreeSet::new(), Vec::new(), first);
        loop {
            sizes.push(data(&page).len());
            all.extend(data(&page).into_iter().map(str::to_owned));
            let Some(link) = page["nextLink"].as_str() else { break };
            let link = link.strip_prefix(&format!("http://{}", server.address)).expect("an absolute address");
            page = call(server.address, "GET", link, "", "").json();
        }
        assert_eq!((sizes, all.len()), (vec![100, 100, 50], 250));
        assert_eq!(data(&read("?limit=2&after=0:0").json()), ["m1", "m2"]);
        assert_eq!(data(&read(&format!("?after={epoch}:249&limit=1000")).json()), ["m250"]);
        assert_eq!(read(&format!("?after={epoch}:250")).json()["messages"], json!([]));
        // A part of it goes, then all.
        let through = |position: String| ask(&server, "DELETE", &format!("{path}?through={position}")).status;
        assert_eq!(through(format!("{}:200", epoch ^ 1)), 204, "of another log nothing is cut");
        assert_eq!(read("").json()["first"], 1);
        assert_eq!(through(format!("{epoch}:200")), 204);
        let page = read("").json();
        assert_eq!((&page["first"], data(&page).len()), (&json!(201), 50));
        let gone = |query: &str| {
            let answer = read(query);
            let (status, code) = (answer.status, answer.code());
            (status, code, answer.json()["inner"]["code"].as_str().map(str::to_owned))
        };
        let because = |reason: &str| (410, "HistoryGone".to_owned(), Some(reason.to_owned()));
        assert_eq!(gone(&format!("?after={epoch}:100")), because("trimmed"));
        assert_eq!(gone("?after=0:0"), because("trimmed"));
        assert_eq!(gone(&format!("?after={}:200", epoch ^ 1)), because("epoch"));
        assert_eq!(gone(&format!("?after={epoch}:251")), because("epoch"), "it has lost what it had given");
        assert_eq!(ask(&server, "DELETE", path).status, 204);
        assert_eq!(ask(&server, "DELETE", path).status, 204, "again");
        assert_eq!(read("").json(), empty);
        assert_eq!(gone(&format!("?after={epoch}:250")), because("epoch"));
    }
}

#[test]
fn members_go_on_in_a_log_that_was_removed() {
    let server = Server::start(KEPT);
    let mut bob = tieline(&server, "bob");
    bob.send(r#"{"type":"joinGroup","group":"room","ackId":1}"#);
    assert_eq!(bob.json()["success"], true);
    let mut epochs = BTreeSet::new();
    for round in 0..3 {
        for number in 0..3 {
            let text = format!("{round}/{number}");
            assert_eq!(send(&server, "/groups/room/:send", &text).status, 202);
            let message = bob.json();
            assert_eq!(
                (&message["data"], &message["position"]["offset"]),
                (&json!(text), &json!(number + 1))
            );
            epochs.insert(message["position"]["epoch"].as_u64().unwrap());
        }
        assert_eq!(ask(&server, "DELETE", "groups/room/history").status, 204);
    }
    assert_eq!(epochs.len(), 3);
}

#[test]
fn a_page_is_bounded_by_bytes_as_well() {
    let server = Server::start(KEPT);
    let text = "x".repeat(300 << 10);
    for _ in 0..5 {
        assert_eq!(send(&server, "/groups/room/:send", &text).status, 202);
    }
    let page = ask(&server, "GET", "groups/room/history?limit=1000").json();
    assert_eq!((data(&page).len(), &page["last"]), (3, &json!(5)));
    assert!(page["nextLink"].as_str().unwrap().contains(":3&limit=1000"));
}

#[test]
fn what_cannot_be_read_is_refused_with_a_sentence() {
    let server = Server::start(KEPT);
    for (method, path, status, code) in [
        ("GET", "groups/room/history?limit=0", 400, "InvalidRequest"),
        ("GET", "groups/room/history?limit=1001", 400, "InvalidRequest"),
        ("GET", "groups/room/history?limit=1e2", 400, "InvalidRequest"),
        ("GET", "groups/room/history?after=1", 400, "InvalidRequest"),
        ("GET", "groups/room/history?after=1:99999999999999999999", 400, "InvalidRequest"),
        ("GET", "groups/room/history?after=1:1&after=1:2", 400, "InvalidRequest"),
        ("GET", "groups/room/history?since=1:1", 400, "InvalidRequest"),
        ("GET", "users/bob/inbox?limit=%FF", 400, "InvalidRequest"),
        ("DELETE", "groups/room/history?after=1:1", 400, "InvalidRequest"),
        ("DELETE", "groups/room/history?through=all", 400, "InvalidRequest"),
        ("GET", "groups/live/history", 404, "NotFound"),
        ("DELETE", "groups/live-too/history", 404, "NotFound"),
        ("GET", "groups/%20/history", 400, "InvalidGroup"),
        ("PUT", "groups/room/history", 405, "MethodNotAllowed"),
    ] {
        let answer = ask(&server, method, path);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {path}");
    }
    let live = Server::start("");
    assert_eq!(ask(&live, "GET", "users/bob/inbox").code(), "NotFound");
    let none = Server::start(&KEPT.replace("store", "# store"));
    for answer in [
        ask(&none, "GET", "users/bob/inbox"),
        ask(&none, "DELETE", "groups/room/history"),
        send(&none, "/groups/room/:send", "x"),
        post_json(none.address, "/api/v1/hubs/h/:send", r#"{"to":{"users":["bob"]},"data":1}"#),
    ] {
        assert_eq!((answer.status, &*answer.code()), (501, "StoreMissing"));
        assert!(answer.json()["message"].as_str().unwrap().contains("--store"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(send(&none, "/groups/live/:send", "x").status, 202, "live messages go on");
    // A key is needed as for any other call.
    let locked = Server::start(&format!("access_key = [\"k\"]\n{KEPT}"));
    for method in ["GET", "DELETE"] {
        assert_eq!(ask(&locked, method, "groups/room/history").code(), "Unauthorized");
    }
    let url = format!("http://{}/api/v1/hubs/h/groups/room/history", locked.address);
    let token = super::tokens::bearer("k", &url);
    let page = call(locked.address, "GET", "/api/v1/hubs/h/groups/room/history?limit=1", &token, "");
    assert_eq!(page.status, 200, "a token without a query is good for any: {page:?}");
}

#[test]
fn a_send_that_is_said_again_is_stored_once() {
    let server = Server::start(KEPT);
    let mut bob = tieline(&server, "bob");
    bob.send(r#"{"type":"joinGroup","group":"live","ackId":1}"#);
    assert_eq!(bob.json()["success"], true);
    for path in ["/groups/room", "/users/carol"] {
        for (key, text) in [("k1", "a"), ("k1", "a"), ("k2", "b"), ("k1", "a")] {
            let header = format!("Idempotency-Key: {key}\r\n");
            assert_eq!(say(&server, &format!("{path}/:send"), &header, text).status, 202);
        }
    }
    // The same by the other call, and by the body's own id.
    let many = |id: &str, headers: &str| {
        let body = format!(
            r#"{{"to":{{"groups":["room","live"],"users":["carol"]}},"dataType":"text","data":"c"{id}}}"#
        );
        let headers = format!("Content-Type: application/json\r\n{headers}");
        let answer = call(server.address, "POST", "/api/v1/hubs/h/:send", &headers, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let fresh = json!({"delivered": 1, "queued": 1, "unknown": 0, "unreachable": 0});
    let again = json!({"delivered": null, "queued": 0, "unknown": null, "unreachable": null});
    assert_eq!(many(r#","messageId":"k3""#, ""), fresh);
    assert_eq!(bob.json()["data"], "c");
    assert_eq!(many("", "Idempotency-Key: k3\r\n"), again);
    assert_eq!(many(r#","messageId":"k3""#, "Idempotency-Key: k3\r\n"), again);
    for path in ["groups/room/history", "users/carol/inbox"] {
        assert_eq!(data(&ask(&server, "GET", path).json()), ["a", "b", "c"], "{path}");
    }
    // What is live was sent at most once.
    bob.send(r#"{"type":"ping"}"#);
    assert_eq!(bob.json()["type"], "pong");
    // Another hub's key is another key, and a malformed one is refused.
    let other = call(
        server.address,
        "POST",
        "/api/hubs/other/groups/room/:send",
        "Content-Type: text/plain\r\nIdempotency-Key: k1\r\n",
        "d",
    );
    assert_eq!(other.status, 202);
    let page = call(server.address, "GET", "/api/v1/hubs/other/groups/room/history", "", "").json();
    assert_eq!(data(&page), ["d"]);
    for header in ["Idempotency-Key: a b\r\n", "Idempotency-Key: a\r\nIdempotency-Key: a\r\n"] {
        assert_eq!(say(&server, "/groups/room/:send", header, "e").code(), "InvalidRequest");
    }
}

#[test]
fn a_store_that_does_not_take_a_message_gives_503_and_the_same_key_stores_it_once() {
    let folder = std::env::temp_dir().join(format!("tieline-histories-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("store.db");
    let server = Server::start(&KEPT.replace("memory:", &format!("sqlite://{}", file.display())));
    let say = || say(&server, "/groups/room/:send", "Idempotency-Key: k\r\n", "a");
    // Somebody who holds the file's lock and does not let go.
    let holder = rusqlite::Connection::open(&file).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = say();
    assert_eq!((refused.status, &*refused.code()), (503, "StoreUnavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(send(&server, "/groups/live/:send", "b").status, 202, "live messages go on");
    let empty = ask(&server, "GET", "groups/room/history");
    assert_eq!(empty.json()["messages"], json!([]), "readers do not wait for the lock");
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!((say().status, say().status), (202, 202));
    assert_eq!(data(&ask(&server, "GET", "groups/room/history").json()), ["a"]);
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
}
