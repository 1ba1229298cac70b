//! What each call does, and that its success is exactly the one that the official libraries expect.

use serde_json::json;

use super::{AZURE, HARD_NAME, HARD_PATH, RELIABLE, ask, connect, expect_nothing, send};
use crate::server::Server;
use crate::support::http::{call, post_json};
use crate::support::socket::{Frame, Socket};

#[test]
fn every_call_has_its_exact_success() {
    let server = Server::start("");
    for name in [HARD_PATH, ":send", "%3Asend", "connections", "a..b"] {
        let (_client, id) = connect(&server, AZURE, name);
        let text =
            |path: &str| send(&server, &format!("{path}?api-version=2024-12-01&messageTtlSeconds=300"), "x");
        let groups = r#"{"groups":["g"],"filter":"userId ne null"}"#;
        let change = |path: &str| {
            post_json(server.address, &format!("/api/hubs/h/{path}?api-version=2024-12-01"), groups)
        };
        let ask =
            |method: &str, path: &str| ask(&server, method, &format!("{path}?x=y&api-version=2024-12-01"));
        for (what, answer, status) in [
            ("send", text("/:send"), 202),
            ("user", text(&format!("/users/{name}/:send")), 202),
            ("nobody", text("/users/nobody/:send"), 202),
            ("connection", text(&format!("/connections/{id}/:send")), 202),
            ("no connection", text("/connections/x/:send"), 202),
            ("group", text(&format!("/groups/{name}/:send")), 202),
            ("connection exists", ask("HEAD", &format!("/connections/{id}")), 200),
            ("no connection exists", ask("HEAD", "/connections/x"), 404),
            ("user exists", ask("HEAD", &format!("/users/{name}")), 200),
            ("no user exists", ask("HEAD", "/users/nobody"), 404),
            ("no group exists", ask("HEAD", &format!("/groups/{name}")), 404),
            ("join", ask("PUT", &format!("/groups/{name}/connections/{id}")), 200),
            ("join again", ask("PUT", &format!("/groups/{name}/connections/{id}")), 200),
            ("nobody joins", ask("PUT", &format!("/groups/{name}/connections/x")), 404),
            ("group exists", ask("HEAD", &format!("/groups/{name}")), 200),
            ("leave", ask("DELETE", &format!("/groups/{name}/connections/{id}")), 204),
            ("leave again", ask("DELETE", &format!("/groups/{name}/connections/{id}")), 204),
            ("nobody leaves", ask("DELETE", &format!("/groups/{name}/connections/x")), 204),
            ("group is gone", ask("HEAD", &format!("/groups/{name}")), 404),
            ("user joins", ask("PUT", &format!("/users/{name}/groups/{name}")), 200),
            ("no user joins", ask("PUT", &format!("/users/nobody/groups/{name}")), 200),
            ("group is back", ask("HEAD", &format!("/groups/{name}")), 200),
            ("user leaves", ask("DELETE", &format!("/users/{name}/groups/{name}")), 204),
            ("group is gone again", ask("HEAD", &format!("/groups/{name}")), 404),
            ("add", change(":addToGroups"), 200),
            ("they are in", ask("HEAD", "/groups/g"), 200),
            ("remove", change(":removeFromGroups"), 200),
            ("they are out", ask("HEAD", "/groups/g"), 404),
            ("add once more", change(":addToGroups"), 200),
            ("user leaves all", ask("DELETE", &format!("/users/{name}/groups")), 204),
            ("it is out", ask("HEAD", "/groups/g"), 404),
            ("connection leaves all", ask("DELETE", &format!("/connections/{id}/groups")), 204),
            ("no connection leaves all", ask("DELETE", "/connections/x/groups"), 204),
            ("grant", ask("PUT", &format!("/permissions/sendToGroup/connections/{id}")), 200),
            ("grant to nobody", ask("PUT", "/permissions/sendToGroup/connections/x"), 404),
            ("holds", ask("HEAD", &format!("/permissions/sendToGroup/connections/{id}")), 200),
            ("revoke", ask("DELETE", &format!("/permissions/sendToGroup/connections/{id}")), 204),
            ("holds no more", ask("HEAD", &format!("/permissions/sendToGroup/connections/{id}")), 404),
            ("revoke from nobody", ask("DELETE", "/permissions/sendToGroup/connections/x"), 204),
            ("nobody's", ask("POST", "/users/nobody/:closeConnections"), 204),
            ("empty group's", ask("POST", "/groups/empty/:closeConnections"), 204),
            ("user's", ask("POST", &format!("/users/{name}/:closeConnections")), 204),
            ("it is gone", ask("HEAD", &format!("/connections/{id}")), 404),
            ("close", ask("DELETE", &format!("/connections/{id}")), 204),
            ("close all", ask("POST", "/:closeConnections"), 204),
        ] {
            assert_eq!(answer.status, status, "{what} of {name}: {}", answer.body);
            if status < 300 {
                assert_eq!(answer.body, "", "{what}");
            } else {
                assert_eq!(answer.header("x-ms-error-code"), Some("notfound"), "{what}");
            }
        }
    }
}

#[test]
fn a_message_keeps_its_kind_and_tells_how_it_came() {
    let server = Server::start("");
    let (mut client, id) = connect(&server, AZURE, HARD_PATH);
    assert_eq!(ask(&server, "PUT", &format!("/users/{HARD_PATH}/groups/{HARD_PATH}")).status, 200);
    let group = format!("/groups/{HARD_PATH}/:send");
    for (path, content_type, body, data_type, data) in [
        ("/:send", "text/plain", "a \"text\"", "text", json!("a \"text\"")),
        ("/:send", "text/plain", "", "text", json!("")),
        ("/:send", "text/plain; charset=utf-8", "ü𝄞", "text", json!("ü𝄞")),
        ("/:send", "application/json", "\"a json string\"", "json", json!("a json string")),
        (
            "/:send",
            "Application/JSON;charset=UTF-8",
            r#" {"a": [1, null]} "#,
            "json",
            json!({"a": [1, null]}),
        ),
        ("/:send", "application/octet-stream", "\u{7f}\n\0", "binary", json!("fwoA")),
        (&*format!("/users/{HARD_PATH}/:send"), "text/plain", "user", "text", json!("user")),
        (&*format!("/connections/{id}/:send"), "text/plain", "connection", "text", json!("connection")),
        (&*group, "text/plain", "group", "text", json!("group")),
    ] {
        let headers = format!("Content-Type: {content_type}\r\n");
        let answer = call(server.address, "POST", &format!("/api/hubs/h{path}"), &headers, body);
        assert_eq!(answer.status, 202, "{content_type} {}", answer.body);
        let mut expected = json!({"type": "message", "from": "server", "dataType": data_type, "data": data});
        if path == group {
            expected["from"] = "group".into();
            expected["group"] = HARD_NAME.into();
        }
        assert_eq!(client.json(), expected, "{content_type}");
    }
    expect_nothing(&mut client);
}

#[test]
fn exclusion_and_filter_choose() {
    let server = Server::start("");
    let mut clients: Vec<(Socket, String)> = ["a", "b", "c"].map(|user| connect(&server, AZURE, user)).into();
    let ids: Vec<String> = clients.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(post_json(server.address, "/api/hubs/h/:addToGroups", r#"{"groups":["g"]}"#).status, 200);
    let excluded = format!("excluded={}&excluded={}&excluded=nobody", ids[0], ids[2]);
    for (path, reached) in [
        (format!("/:send?{excluded}"), vec![1]),
        (format!("/groups/g/:send?api-version=x&{excluded}&filter=true"), vec![1]),
        ("/:send?filter=userId%20ne%20%27a%27".to_owned(), vec![1, 2]),
        ("/groups/g/:send?filter=userId+in+(%27a%27)".to_owned(), vec![0]),
        ("/users/a/:send?filter='nowhere'%20in%20groups".to_owned(), vec![]),
        (format!("/:send?filter=&excluded={}", ids[1]), vec![0, 2]),
    ] {
        let answer = send(&server, &path, &path);
        assert_eq!(answer.status, 202, "{path} {}", answer.body);
        for (n, (client, _)) in clients.iter_mut().enumerate() {
            if reached.contains(&n) {
                assert_eq!(client.json()["data"], *path);
            } else {
                expect_nothing(client);
            }
        }
    }
}

#[test]
fn a_send_to_many_says_what_became_of_it() {
    let server = Server::start("");
    let (mut alice, a) = connect(&server, "tieline.v1", "alice");
    let (mut bob, b) = connect(&server, AZURE, "bob");
    assert_eq!(ask(&server, "PUT", "/users/alice/groups/g").status, 200);
    let send = |body: serde_json::Value| {
        let answer = post_json(server.address, "/api/v1/hubs/h/:send", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let to = json!({"users": ["alice", "nobody"], "groups": ["g", "empty"], "connections": [a]});
    let answer = send(json!({"to": to, "dataType": "text", "data": "once", "messageId": "m"}));
    assert_eq!(answer, json!({"delivered": 1, "queued": 0, "unknown": 1, "unreachable": 0}));
    assert_eq!(alice.json()["data"], "once");
    let answer = send(json!({"to": {"all": true, "excluded": [b]}, "data": [1]}));
    assert_eq!(answer, json!({"delivered": 1, "queued": 0, "unknown": 0, "unreachable": 0}));
    assert_eq!(alice.json()["data"], json!([1]));
    let answer = send(json!({"to": {"all": true}, "filter": "userId eq 'bob'", "data": 2}));
    assert_eq!(answer, json!({"delivered": 1, "queued": 0, "unknown": 0, "unreachable": 0}));
    assert_eq!(bob.json()["data"], 2);
    expect_nothing(&mut alice);
    let unused =
        post_json(server.address, "/api/v1/hubs/unused/:send", r#"{"to":{"users":["alice"]},"data":1}"#);
    assert_eq!(unused.json(), json!({"delivered": 0, "queued": 0, "unknown": 1, "unreachable": 0}));
}

#[test]
fn who_is_closed_is_told_why_and_cannot_come_back_as_who_it_was() {
    let server = Server::start("");
    let (mut stays, excluded) = connect(&server, AZURE, "alice");
    for (protocol, code) in [(AZURE, 4403), (RELIABLE, 1008), ("tieline.v1", 4403)] {
        let (mut client, id) = connect(&server, protocol, "alice");
        let path = format!("/users/alice/:closeConnections?reason=because%3A%20%C3%BC&excluded={excluded}");
        assert_eq!(ask(&server, "POST", &path).status, 204);
        let told = json!({"type": "system", "event": "disconnected", "message": "because: ü"});
        assert_eq!(client.json(), told, "{protocol}");
        assert_eq!(client.next(), Frame::Close(code, "because: ü".into()), "{protocol}");
        assert_eq!(ask(&server, "HEAD", &format!("/connections/{id}")).status, 404);
    }
    expect_nothing(&mut stays);
    let path = format!("/connections/{excluded}?reason={}", "long".repeat(100));
    assert_eq!(ask(&server, "DELETE", &path).status, 204);
    assert_eq!(stays.json()["message"], "long".repeat(100));
    assert!(matches!(stays.next(), Frame::Close(4403, reason) if reason.len() <= 123));
    let (mut silent, _) = connect(&server, AZURE, "alice");
    assert_eq!(ask(&server, "POST", "/groups/g/:closeConnections").status, 204);
    assert_eq!(ask(&server, "POST", "/:closeConnections").status, 204);
    assert_eq!(silent.json()["message"], "The application closed the connection.");
}

#[test]
fn a_cut_connection_is_there_until_it_is_closed_and_then_for_good() {
    let server = Server::start("");
    let path = "/client/hubs/h?user=alice";
    let request = |path: &str| {
        tieline_websocket::ClientRequest::new(&server.address.to_string(), path).unwrap().protocol(RELIABLE)
    };
    let mut client = Socket::open(server.address, request(path)).unwrap();
    let connected = client.json();
    let (id, token) =
        (connected["connectionId"].as_str().unwrap(), connected["reconnectionToken"].as_str().unwrap());
    drop(client);
    assert_eq!(ask(&server, "HEAD", &format!("/connections/{id}")).status, 200);
    assert_eq!(ask(&server, "PUT", &format!("/groups/g/connections/{id}")).status, 200);
    assert_eq!(send(&server, "/groups/g/:send", "meanwhile").status, 202);
    let back = format!("{path}&awps_connection_id={id}&awps_reconnection_token={token}");
    let mut client = Socket::open(server.address, request(&back)).unwrap();
    assert_eq!(client.json()["connectionId"], id);
    let message = client.json();
    assert_eq!((&message["data"], &message["sequenceId"]), (&json!("meanwhile"), &json!(1)));
    drop(client);
    assert_eq!(ask(&server, "DELETE", &format!("/connections/{id}")).status, 204);
    assert_eq!(ask(&server, "HEAD", "/users/alice").status, 404);
    let mut client = Socket::open(server.address, request(&back)).unwrap();
    assert!(matches!(client.next(), Frame::Close(1008, _)));
}

#[test]
fn permissions_are_for_a_target_or_for_all() {
    let server = Server::start("");
    let (mut client, id) = connect(&server, AZURE, "alice");
    let right = |method: &str, permission: &str, query: &str| {
        ask(&server, method, &format!("/permissions/{permission}/connections/{id}{query}")).status
    };
    // Who comes without a token has every role.
    assert_eq!(right("DELETE", "sendToGroup", ""), 204);
    assert_eq!(right("PUT", "sendToGroup", &format!("?targetName={HARD_PATH}")), 200);
    assert_eq!(right("HEAD", "sendToGroup", &format!("?targetName={HARD_PATH}")), 200);
    assert_eq!(right("HEAD", "sendToGroup", "?targetName=other"), 404);
    assert_eq!(right("HEAD", "sendToGroup", ""), 404);
    assert_eq!(right("HEAD", "joinLeaveGroup", ""), 200);
    for (group, success) in [(HARD_NAME, true), ("other", false)] {
        let frame = json!({"type": "sendToGroup", "group": group, "dataType": "text", "data": "x", "ackId": group.len()});
        client.send(&frame.to_string());
        assert_eq!(client.json()["success"], success, "{group}");
    }
    assert_eq!(right("DELETE", "sendToGroup", &format!("?targetName={HARD_PATH}")), 204);
    assert_eq!(right("HEAD", "sendToGroup", &format!("?targetName={HARD_PATH}")), 404);
    assert_eq!(right("PUT", "sendToAll", ""), 200, "ours as well");
}

#[test]
fn nodes_tell_of_this_one() {
    let server = Server::start("node = \"one\"\nadmin_listen = \"127.0.0.1:0\"");
    for address in [server.address, server.admin.unwrap()] {
        let nodes = call(address, "GET", "/api/v1/nodes", "", "").json();
        let [node] = &nodes["nodes"].as_array().unwrap()[..] else { panic!("{nodes}") };
        assert_eq!(
            (&node["name"], &node["self"], &node["state"]),
            (&json!("one"), &json!(true), &json!("alive"))
        );
        assert_eq!(node["incarnation"].as_str().map(str::len), Some(16));
    }
}
