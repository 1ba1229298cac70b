//! The demo page over HTTP: who is shown it, with which headers, and what it asks its node. What it does in a browser is tried by
//! `tests/browser`.

use serde_json::Value;

use crate::member::{eventually, member};
use crate::server::Server;
use crate::support::http::{ask, exchange_one, get};

const FILES: [(&str, &str); 4] = [
    ("/", "text/html; charset=utf-8"),
    ("/demo/page.css", "text/css; charset=utf-8"),
    ("/demo/page.js", "text/javascript; charset=utf-8"),
    ("/demo/icon.svg", "image/svg+xml"),
];

#[test]
fn each_file_has_its_type_and_may_load_nothing_foreign() {
    let server = Server::start("");
    for (path, content_type) in FILES {
        let answer = get(server.address, path, "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        let policy = answer.header("content-security-policy").unwrap();
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'none'"]
        {
            assert!(policy.split("; ").any(|found| found == part), "{part} is not in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        // The same page is not sent twice.
        let tag = answer.header("etag").unwrap().to_owned();
        let again = get(server.address, path, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((again.status, &*again.body, again.header("etag")), (304, "", Some(&*tag)), "{path}");
        assert_eq!(get(server.address, path, "If-None-Match: \"another\"\r\n").status, 200);
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(exchange_one(server.address, &head).body, "");
        let post = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(ask(server.address, &post).code(), "MethodNotAllowed", "{path}");
    }
    let page = get(server.address, "/", "").body;
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick="), "{page}");
    assert!(page.matches("<script").count() == 1 && !page.contains("//"), "nothing inline, nothing foreign");
    let script = get(server.address, "/demo/page.js", "").body;
    for danger in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!script.contains(danger), "{danger}");
    }
}

#[test]
fn who_is_shown_the_page_is_a_setting() {
    let rebound =
        |server: &Server| ask(server.address, "GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n").status;
    let forwarded = "X-Forwarded-For: 203.0.113.9\r\n";
    let status = |server: &Server, headers: &str| {
        FILES.map(|(path, _)| path).into_iter().chain(["/demo/nodes"]).fold(None, |before, path| {
            let status = get(server.address, path, headers).status;
            assert!(before.is_none_or(|before| before == status), "{path}");
            Some(status)
        })
    };
    let local = Server::start("");
    assert_eq!((status(&local, ""), status(&local, forwarded), rebound(&local)), (Some(200), Some(404), 404));
    assert_eq!(get(local.address, "/demo", "").status, 404);
    let all = Server::start("demo = \"all\"\n");
    assert_eq!((status(&all, ""), status(&all, forwarded), rebound(&all)), (Some(200), Some(200), 200));
    let off = Server::start("demo = \"off\"\n");
    assert_eq!((status(&off, ""), status(&off, forwarded), rebound(&off)), (Some(404), Some(404), 404));
}

#[test]
fn the_page_is_told_the_nodes_and_whether_it_needs_a_token() {
    let anonymous = |server: &Server, headers: &str| {
        get(server.address, "/demo/nodes", headers).json()["anonymous"].as_bool().unwrap()
    };
    let forwarded = "Via: 1.1 proxy\r\n";
    let locked = Server::start("access_key = [\"k\"]\ndemo = \"all\"\n");
    assert!(!anonymous(&locked, "") && !anonymous(&locked, forwarded));
    let local = Server::start("demo = \"all\"\n");
    assert!(anonymous(&local, "") && !anonymous(&local, forwarded));
    let open = Server::start("access_key = [\"k\"]\nallow_anonymous = true\ndemo = \"all\"\n");
    assert!(anonymous(&open, "") && anonymous(&open, forwarded));

    let first = member("first", None);
    let second = member("second", Some(&first));
    let url = format!("ws://{}", second.address);
    let answer = eventually(first.address, "/demo/nodes", |body| body.contains(&url));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let listed = &get(first.address, "/api/v1/nodes", "").json()["nodes"];
    let incarnation = |name: &str| {
        listed.as_array().unwrap().iter().find(|node| node["name"] == name).unwrap()["incarnation"].clone()
    };
    let expected = serde_json::json!({
        "anonymous": true,
        "nodes": [
            {"name": "first", "incarnation": incarnation("first"), "self": true},
            {"name": "second", "incarnation": incarnation("second"), "clientUrl": url, "self": false},
        ],
    });
    assert_eq!(answer, expected);
}
