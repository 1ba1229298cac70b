//! Who is present, as back ends read it.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};

use super::{AZURE, HARD_PATH, connect};
use crate::server::Server;
use crate::support::PATIENCE;
use crate::support::http::{Answer, call};

const CONFIG: &str = "[[hub]]\nmatch = \"h\"\npresence = true\n[[group]]\nmatch = \"dark*\"\n\
                      [[group]]\nmatch = \"*\"\npresence = true\n[times]\npresence_grace = \"50ms\"";

fn get(server: &Server, path: &str) -> Answer {
    call(server.address, "GET", &format!("/api/v1/hubs/{path}"), "", "")
}

/// As it may stand in a query.
fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_hub_and_its_groups_are_read_in_pages() {
    let server = Server::start(CONFIG);
    let names: BTreeSet<String> = (0..25).map(|n| format!("u{n:02} ü/?&")).collect();
    let clients: Vec<_> = names.iter().map(|name| connect(&server, AZURE, &encoded(name))).collect();
    for (_, id) in &clients {
        let path = format!("/api/hubs/h/groups/{HARD_PATH}/connections/{id}");
        assert_eq!(call(server.address, "PUT", &path, "", "").status, 200);
    }
    for path in ["h/presence", &format!("h/groups/{HARD_PATH}/presence")] {
        let mut seen = Vec::new();
        let mut target = format!("/api/v1/hubs/{path}?limit=10");
        loop {
            let page = call(server.address, "GET", &target, "", "").json();
            assert_eq!(page["total"], json!({"users": 25, "connections": 25, "anonymous": 0}));
            let users = page["users"].as_array().unwrap();
            seen.extend(users.iter().map(|user| user["userId"].as_str().unwrap().to_owned()));
            let Some(link) = page.get("nextLink").and_then(Value::as_str) else { break };
            let origin = format!("http://{}", server.address);
            target = link.strip_prefix(&origin).expect("an absolute address").to_owned();
        }
        assert_eq!(seen, names.iter().cloned().collect::<Vec<_>>(), "{path}");
    }
    drop(clients);
    let deadline = Instant::now() + PATIENCE;
    while get(&server, "h/presence").json()["total"] != json!({"users": 0, "connections": 0, "anonymous": 0})
    {
        assert!(Instant::now() < deadline, "they never leave");
    }
}

#[test]
fn where_it_is_not_told_the_answer_says_what_to_switch_on() {
    let server = Server::start(CONFIG);
    for path in ["other/presence", "h/groups/dark/presence", "other/groups/dark-2/presence"] {
        let answer = get(&server, path);
        assert_eq!((answer.status, &*answer.code()), (404, "NotFound"), "{path}");
        assert!(answer.body.contains("presence = true"), "{}", answer.body);
    }
    for path in ["h/presence?limit=501", "h/presence?limit=x", "h/presence?offset=1", "h/presence?after=%FF"]
    {
        let answer = get(&server, path);
        assert_eq!((answer.status, &*answer.code()), (400, "InvalidRequest"), "{path}");
    }
    assert_eq!(get(&server, "h/groups/nobody%20ever/presence").json()["users"], json!([]));
}
