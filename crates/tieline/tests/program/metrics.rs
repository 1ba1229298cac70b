//! `/metrics` of running nodes: the text as Prometheus reads it, the table in the documents, and what calls and waits add to it.

use std::collections::BTreeMap;

use tieline_websocket::ClientRequest;

use crate::member::{eventually, member};
use crate::server::Server;
use crate::support::http::{call, exchange};
use crate::support::metrics::{await_sample, metrics, sample};
use crate::support::socket::Socket;

/// Every family that a node shows, with its kind, after checking each line.
fn families(text: &str) -> BTreeMap<String, String> {
    let mut families = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(type_of) = line.strip_prefix("# TYPE tieline_") {
            let (name, kind) = type_of.split_once(' ').unwrap();
            assert!(text.contains(&format!("\n# HELP tieline_{name} ")) || families.is_empty());
            assert_eq!(families.insert(name.to_owned(), kind.to_owned()), None, "{name} is there once");
            family = name.to_owned();
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let base = name.split('{').next().unwrap().strip_prefix("tieline_").unwrap();
            let suffix =
                base.strip_prefix(&*family).unwrap_or_else(|| panic!("{line} stands below {family}"));
            if families[&family] == "histogram" {
                assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            } else {
                assert!(suffix.is_empty() && value.parse::<u64>().is_ok(), "{line}");
            }
        }
    }
    families
}

/// The families in the document, with their kinds: of every node, and of members alone.
fn documented() -> [BTreeMap<String, String>; 2] {
    let document = include_str!("../../../../docs/metrics.md");
    let (own, members) = document.split_once("## Members of a cluster").unwrap();
    [own, members].map(|part| {
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), cells.get(3)?.replace("seconds", "histogram")))
        };
        part.lines().filter_map(row).collect()
    })
}

#[test]
fn the_document_has_what_nodes_show_and_nothing_else() {
    let [own, members] = documented();
    let alone = Server::start("");
    assert_eq!(families(&metrics(alone.address)), own);
    let first = member("first", None);
    let mut all = own;
    all.extend(members);
    assert_eq!(families(&metrics(first.address)), all);
}

#[test]
fn rest_calls_are_counted_by_what_they_ask_for_and_what_became_of_them() {
    let server = Server::start("");
    let call = |method: &str, path: &str, headers: &str, body: &str| {
        call(server.address, method, path, headers, body).status
    };
    let text = "Content-Type: text/plain\r\n";
    let secret = "a_name_that_must_not_be_told";
    assert_eq!(call("POST", &format!("/api/hubs/h/users/{secret}/:send"), text, "x"), 202);
    assert_eq!(call("POST", &format!("/api/hubs/{secret}/:send"), text, "x"), 202);
    assert_eq!(call("POST", "/api/hubs/h/:send", "", "x"), 415);
    assert_eq!(call("PUT", &format!("/api/hubs/h/groups/{secret}/connections/nobody"), "", ""), 404);
    assert_eq!(call("GET", "/api/v1/nodes", "", ""), 200);
    assert_eq!(call("GET", &format!("/api/{secret}"), "", ""), 404);
    assert_eq!(call("GET", "/api/v1/nodes", "Origin: http://evil.example.com\r\n", ""), 401);
    let text = metrics(server.address);
    for (labels, count) in [
        ("call=\"send\",outcome=\"done\"", 2.0),
        ("call=\"send\",outcome=\"refused\"", 1.0),
        ("call=\"join\",outcome=\"absent\"", 1.0),
        ("call=\"nodes\",outcome=\"done\"", 1.0),
        ("call=\"none\",outcome=\"absent\"", 1.0),
        ("call=\"none\",outcome=\"denied\"", 1.0),
    ] {
        assert_eq!(sample(&text, &format!("rest_calls_total{{{labels}}}")), count, "{labels}\n{text}");
    }
    assert_eq!(sample(&text, "rest_seconds_count{call=\"send\"}"), 3.0);
    assert_eq!(sample(&text, "rest_seconds_bucket{call=\"send\",le=\"+Inf\"}"), 3.0);
    assert!(sample(&text, "rest_seconds_sum{call=\"send\"}") > 0.0);
    assert!(!text.contains(secret), "{text}");
}

#[test]
fn waits_for_other_nodes_are_measured() {
    let first = member("first", None);
    let second = member("second", Some(&first));
    for (server, other) in [(&first, &second), (&second, &first)] {
        let url = other.address.to_string();
        eventually(server.address, "/api/v1/nodes", |body| body.contains(&url));
    }
    let open = |server: &Server, user: &str| {
        let path = format!("/client/hubs/h?user={user}");
        let request = ClientRequest::new("localhost", &path).unwrap().protocol("tieline.v1");
        let mut client = Socket::open(server.address, request).unwrap();
        assert_eq!(client.json()["event"], "connected");
        client
    };
    let mut alice = open(&first, "alice");
    let mut bob = open(&second, "bob");
    alice.send(r#"{"type":"sendToUser","user":"bob","dataType":"text","data":"x","ackId":1}"#);
    assert_eq!(alice.json()["delivered"], 1);
    assert_eq!(bob.json()["data"], "x");
    // Alice's login was read by the second node before she was told, and his receipt was awaited.
    let text = metrics(first.address);
    assert!(sample(&text, "cluster_read_seconds_count") >= 1.0, "{text}");
    assert_eq!(sample(&text, "receipt_seconds_count"), 1.0, "{text}");
    assert!(sample(&text, "receipt_seconds_sum") > 0.0);
    assert_eq!(sample(&text, "receipts_waiting"), 0.0);
    assert_eq!(sample(&text, "receipt_seconds_bucket{le=\"3\"}"), 1.0);
}

#[test]
fn refusals_at_the_door_are_counted() {
    let server = Server::start("access_key = [\"k\"]\n[times]\nhandshake = \"300ms\"\n");
    let open = |path: &str, origin: Option<&str>| {
        let mut request = ClientRequest::new("localhost", path).unwrap().protocol("tieline.v1");
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        Socket::open(server.address, request).err().expect("this is refused").status
    };
    assert_eq!(open("/client/hubs/h?access_token=forged", None), 401);
    assert_eq!(open("/client/hubs/h?user=alice", None), 401);
    assert_eq!(open("/client/hubs/h", Some("http://evil.example.com")), 403);
    assert_eq!(open("/client/hubs/1bad?access_token=forged", None), 400);
    let large = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(17 << 10));
    assert!(exchange(server.address, large.as_bytes()).starts_with(b"HTTP/1.1 431 "));
    let slow = exchange(server.address, b"GET /healthz HTTP/1.1\r\nHost: a\r\n");
    assert!(slow.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&slow));
    for (name, count) in [
        ("http_refused_total{code=\"Unauthorized\"}", 2.0),
        ("http_refused_total{code=\"OriginRefused\"}", 1.0),
        ("http_refused_total{code=\"InvalidHub\"}", 1.0),
        ("http_malformed_total", 2.0),
        ("connections", 0.0),
    ] {
        await_sample(server.address, name, count);
    }
}
