//! Two servers that are nodes of one cluster: what they say of each other.

use std::time::Instant;

use serde_json::Value;

use crate::server::Server;
use crate::support::PATIENCE;
use crate::support::http::{ask, get};

/// A node of the tests' cluster.
pub(crate) fn member(name: &str, seed: Option<&Server>) -> Server {
    let seed = seed.and_then(|seed| seed.peers).map(|peers| peers.to_string()).unwrap_or_default();
    let broker = format!("broker = \"mesh://{seed}\"\npeer_listen = \"127.0.0.1:0\"\n");
    Server::start(&format!("{broker}cluster_secret = \"the tests' own\"\nnode = \"{name}\"\n"))
}

/// Asks again and again until the answer is so.
pub(crate) fn eventually(address: std::net::SocketAddr, path: &str, so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = get(address, path, "").body;
        if so(&body) {
            return body;
        }
        assert!(Instant::now() < deadline, "{path} never came to be so: {body}");
    }
}

#[test]
fn nodes_list_and_count_each_other() {
    let first = member("first", None);
    let mut second = member("second", Some(&first));
    for (server, own, other) in [(&first, "first", "second"), (&second, "second", "first")] {
        let listed = eventually(server.address, "/api/v1/nodes", |body| body.contains(other));
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let nodes = listed["nodes"].as_array().unwrap();
        let names: Vec<&str> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["first", "second"]);
        for node in nodes {
            assert_eq!(node["self"], node["name"] == own);
            assert_eq!(node["state"], "alive");
        }
    }
    let other = second.address.to_string();
    eventually(first.address, "/api/v1/nodes", |body| body.contains(&format!("ws://{other}")));
    let metrics =
        eventually(first.address, "/metrics", |body| body.contains("tieline_peers{state=\"reached\"} 1"));
    assert!(metrics.contains("tieline_envelopes_malformed_total 0"));
    assert!(get(first.address, "/readyz", "").body.contains("\"status\":\"ok\""));

    // A send that reaches nobody there is answered by both, and so known.
    let body = r#"{"to":{"users":["nobody"]},"dataType":"text","data":"x"}"#;
    let head = "POST /api/v1/hubs/chat/:send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (nowhere, deadline) =
        (r#"{"delivered":0,"queued":0,"unknown":1,"unreachable":0}"#, Instant::now() + PATIENCE);
    loop {
        let answer = ask(first.address, &request);
        assert_eq!(answer.status, 200, "{answer:?}");
        if answer.body == nowhere {
            break;
        }
        // A node that is reached may still have to say that it holds nobody.
        assert!(Instant::now() < deadline, "{answer:?}");
    }

    // Who says goodbye is gone at once, without a lease.
    second.stop();
    eventually(first.address, "/api/v1/nodes", |body| !body.contains("second"));
}
