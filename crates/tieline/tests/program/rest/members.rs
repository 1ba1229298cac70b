//! Stored members of groups, made and ended over HTTP, whether their users are connected or not; and what is counted and told of
//! those who are not.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::{AZURE, HARD_PATH, ask, connect, expect_nothing, send};
use crate::server::Server;
use crate::support::http::post_json;
use crate::support::socket::Socket;

const CLUBS: &str =
    "[[group]]\nmatch = \"live*\"\n[[group]]\nmatch = \"*\"\nhistory = {}\nmembers = \"stored\"\n";

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tieline-members-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// How many got it, and for how many it waits.
fn count(server: &Server, group: &str, text: &str) -> (u64, u64) {
    let body = json!({"to": {"groups": [group]}, "dataType": "text", "data": text}).to_string();
    let answer = post_json(server.address, "/api/v1/hubs/h/:send", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let numbers = answer.json();
    (numbers["delivered"].as_u64().unwrap(), numbers["queued"].as_u64().unwrap())
}

fn texts(client: &mut Socket, count: usize) -> Vec<String> {
    (0..count).map(|_| client.json()["data"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_user_who_is_offline_is_made_a_member_gets_what_was_sent_and_leaves() {
    let folder = folder("stay");
    let config = format!("store = \"sqlite://{}\"\n{CLUBS}", folder.join("s.db").display());
    {
        let server = Server::start(&config);
        for name in ["bob", HARD_PATH] {
            assert_eq!(ask(&server, "PUT", &format!("/users/{name}/groups/club")).status, 200);
            assert_eq!(ask(&server, "PUT", &format!("/users/{name}/groups/club")).status, 200, "again");
        }
        assert_eq!(ask(&server, "PUT", &format!("/users/bob/groups/{HARD_PATH}")).status, 200);
        assert_eq!(ask(&server, "PUT", "/users/bob/groups/live").status, 200);
        assert_eq!(count(&server, "club", "1"), (0, 2));
        assert_eq!(count(&server, "live", "x"), (0, 0));
        assert_eq!(send(&server, &format!("/groups/{HARD_PATH}/:send"), "2").status, 202);
    }
    // Another start of the node.
    let server = Server::start(&config);
    assert_eq!(ask(&server, "DELETE", &format!("/users/{HARD_PATH}/groups/club")).status, 204);
    assert_eq!(count(&server, "club", "3"), (0, 1));
    let (mut bob, _) = connect(&server, "tieline.v1", "bob");
    let mut got = texts(&mut bob, 3);
    got.sort_unstable();
    assert_eq!(got, ["1", "2", "3"]);
    expect_nothing(&mut bob);
    assert_eq!(count(&server, "club", "4"), (1, 0));
    assert_eq!(texts(&mut bob, 1), ["4"]);
    // On every dialect, and at once where the user is connected already.
    let (mut carol, _) = connect(&server, AZURE, "carol");
    assert_eq!(ask(&server, "PUT", "/users/carol/groups/club").status, 200);
    assert_eq!(count(&server, "club", "5"), (2, 0));
    assert_eq!((texts(&mut carol, 1), texts(&mut bob, 1)), (vec!["5".to_owned()], vec!["5".to_owned()]));
    assert_eq!(ask(&server, "DELETE", "/users/bob/groups").status, 204);
    assert_eq!(ask(&server, "DELETE", "/users/bob/groups").status, 204, "again");
    assert_eq!(count(&server, "club", "6"), (1, 0));
    expect_nothing(&mut bob);
    let (mut bob, _) = connect(&server, "tieline.v1", "bob");
    expect_nothing(&mut bob);
    drop(server);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn without_a_store_nobody_is_made_a_member_and_the_answer_says_what_to_choose() {
    let server = Server::start(CLUBS);
    for method in ["PUT", "DELETE"] {
        let answer = ask(&server, method, "/users/bob/groups/club");
        assert_eq!((answer.status, &*answer.code()), (501, "StoreMissing"), "{method} {answer:?}");
        assert!(answer.body.contains("--store"), "{answer:?}");
    }
    assert_eq!(ask(&server, "PUT", "/users/bob/groups/live").status, 200);
    assert_eq!(ask(&server, "DELETE", "/users/bob/groups/live").status, 204);
}

#[test]
fn a_store_that_cannot_write_is_told_and_heard_when_it_can() {
    let folder = folder("held");
    let file = folder.join("s.db");
    let server = Server::start(&format!("store = \"sqlite://{}\"\n{CLUBS}", file.display()));
    assert_eq!(ask(&server, "PUT", "/users/bob/groups/club").status, 200);
    let holder = rusqlite::Connection::open(&file).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    for (method, path) in [("PUT", "/users/carol/groups/club"), ("DELETE", "/users/bob/groups/club")] {
        let answer = ask(&server, method, path);
        assert_eq!(answer.status, 503, "{method} {answer:?}");
        assert!(["StoreUnavailable", "StoreUnknown"].contains(&&*answer.code()), "{answer:?}");
    }
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    assert_eq!(ask(&server, "DELETE", "/users/bob/groups/club").status, 204);
    assert_eq!(ask(&server, "PUT", "/users/carol/groups/club").status, 200);
    assert_eq!(count(&server, "club", "1"), (0, 1));
    drop(server);
    fs::remove_dir_all(&folder).unwrap();
}
