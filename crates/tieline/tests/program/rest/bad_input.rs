//! What no caller should send: each gets its answer, and the node serves on.

use super::{AZURE, ask, connect, expect_nothing, send};
use crate::server::Server;
use crate::support::http::{call, exchange, exchange_one};

const JSON: &str = "Content-Type: application/json\r\n";
const TEXT: &str = "Content-Type: text/plain\r\n";

#[test]
fn each_mistake_has_its_code() {
    let server = Server::start("");
    let (mut client, _) = connect(&server, AZURE, "alice");
    let long = format!("/api/hubs/h/users/{}/:send", "x".repeat(1025));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (method, target, headers, body, status, code) in [
        ("POST", "/api/hubs/h/:send?filter=userId%20eq", TEXT, "x", 400, "InvalidFilter"),
        ("POST", "/api/hubs/h/:send?filter=not%20length(userId)%20gt%205", TEXT, "x", 400, "InvalidFilter"),
        ("POST", "/api/hubs/h/:send?filter=%FF", TEXT, "x", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:send?filter=true&filter=true", TEXT, "x", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:send?messageTtlSeconds=301", TEXT, "x", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:send?messageTtlSeconds=-1", TEXT, "x", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:send?messageTtlSeconds=x", TEXT, "x", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:send", JSON, "{", 400, "InvalidData"),
        ("POST", "/api/hubs/h/:send", JSON, "", 400, "InvalidData"),
        ("POST", "/api/hubs/h/:send", JSON, "{} {}", 400, "InvalidData"),
        ("POST", "/api/hubs/h/:send", JSON, &*deep, 400, "InvalidData"),
        ("POST", "/api/hubs/h/:send", "", "x", 415, "UnsupportedMediaType"),
        ("POST", "/api/hubs/h/:send", "Content-Type: text/html\r\n", "x", 415, "UnsupportedMediaType"),
        (
            "POST",
            "/api/hubs/h/:send",
            "Content-Type: text/plain\r\nContent-Type: text/plain\r\n",
            "x",
            415,
            "UnsupportedMediaType",
        ),
        ("POST", "/api/hubs/1h/:send", TEXT, "x", 400, "InvalidHub"),
        ("POST", "/api/hubs//:send", TEXT, "x", 400, "InvalidHub"),
        ("POST", "/api/hubs/h/users//:send", TEXT, "x", 400, "InvalidUser"),
        ("POST", &*long, TEXT, "x", 400, "InvalidUser"),
        ("POST", "/api/hubs/h/groups/%20/:send", TEXT, "x", 400, "InvalidGroup"),
        ("POST", "/api/hubs/h/groups/%ZZ/:send", TEXT, "x", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:send/", TEXT, "x", 404, "NotFound"),
        ("POST", "/api/hubs/h/%3Asend", TEXT, "x", 404, "NotFound"),
        ("POST", "/api/hubs/h", TEXT, "x", 404, "NotFound"),
        ("POST", "/api/", TEXT, "x", 404, "NotFound"),
        ("GET", "/api/v2/nodes", "", "", 404, "NotFound"),
        ("POST", "/api/hubs/h/:addToGroups", JSON, "[]", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:addToGroups", JSON, "", 400, "InvalidRequest"),
        ("POST", "/api/hubs/h/:addToGroups", TEXT, r#"{"groups":["g"]}"#, 415, "UnsupportedMediaType"),
        ("POST", "/api/hubs/h/:addToGroups", JSON, r#"{"groups":[" "]}"#, 400, "InvalidGroup"),
        (
            "POST",
            "/api/hubs/h/:removeFromGroups",
            JSON,
            r#"{"groups":["g"],"filter":"x"}"#,
            400,
            "InvalidFilter",
        ),
        ("PUT", "/api/hubs/h/permissions/fly/connections/x", "", "", 400, "InvalidRequest"),
        (
            "PUT",
            "/api/hubs/h/permissions/sendToAll/connections/x?targetName=g",
            "",
            "",
            400,
            "InvalidRequest",
        ),
        (
            "PUT",
            "/api/hubs/h/permissions/sendToGroup/connections/x?targetName=%20",
            "",
            "",
            400,
            "InvalidRequest",
        ),
        ("GET", "/api/hubs/h/groups/g/connections?maxpagesize=0", "", "", 400, "InvalidRequest"),
        ("GET", "/api/hubs/h/groups/g/connections?maxpagesize=201", "", "", 400, "InvalidRequest"),
        ("GET", "/api/hubs/h/groups/g/connections?top=0", "", "", 400, "InvalidRequest"),
        ("GET", "/api/hubs/h/groups/g/connections?continuationToken=x", "", "", 400, "InvalidRequest"),
        ("POST", "/api/v1/hubs/h/:send", JSON, r#"{"to":{},"data":1}"#, 400, "InvalidRequest"),
        ("POST", "/api/v1/hubs/h/:send", JSON, r#"{"to":{"users":[""]},"data":1}"#, 400, "InvalidUser"),
        (
            "POST",
            "/api/v1/hubs/h/:send",
            JSON,
            r#"{"to":{"all":true},"filter":"x","data":1}"#,
            400,
            "InvalidFilter",
        ),
        ("POST", "/api/v1/hubs/h/:send", JSON, "", 400, "InvalidRequest"),
    ] {
        let answer = call(server.address, method, target, headers, body);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {target:.80} {}", answer.body);
    }
    let place = call(server.address, "POST", "/api/hubs/h/:send?filter=userId%20eq", TEXT, "x");
    assert!(place.body.contains("character 10"), "{}", place.body);
    let not_text = b"POST /api/hubs/h/:send HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n\xff";
    let answer = exchange(server.address, not_text);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    // Nothing of all this reached anybody.
    expect_nothing(&mut client);
    assert_eq!(send(&server, "/:send", "x").status, 202);
    assert_eq!(client.json()["data"], "x");
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let server = Server::start("");
    for (method, path, allow) in [
        ("GET", "/:send", "post"),
        ("PUT", "/:send", "post"),
        ("POST", "/users/:send", "head"),
        ("PUT", "/connections/x", "delete, head"),
        ("POST", "/groups/g/connections/x", "delete, put"),
        ("GET", "/permissions/sendToGroup/connections/x", "delete, head, put"),
        ("HEAD", "/groups/g/connections", "get"),
        ("OPTIONS", "/:send", "post"),
        ("NONSENSE", "/:send", "post"),
    ] {
        let answer = ask(&server, method, path);
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        if method != "HEAD" {
            assert_eq!(answer.code(), "MethodNotAllowed");
        }
    }
}

#[test]
fn a_body_is_announced_whole_and_bounded() {
    let server = Server::start("[limits]\nmax_message = \"2KiB\"\n");
    let (mut client, _) = connect(&server, AZURE, "alice");
    let start =
        format!("POST /api/hubs/h/:send HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{TEXT}", server.address);
    let most = "x".repeat(2048);
    assert_eq!(send(&server, "/:send", &most).status, 202);
    assert_eq!(client.json()["data"], most);
    let chunks = "4\r\nchun\r\n2\r\nks\r\n0\r\n\r\n";
    assert_eq!(
        exchange_one(server.address, &format!("{start}Transfer-Encoding: chunked\r\n\r\n{chunks}")).status,
        202
    );
    assert_eq!(client.json()["data"], "chunks");
    let awaited = format!("{start}Expect: 100-continue\r\nContent-Length: 4\r\n\r\nasks");
    let answer = String::from_utf8(exchange(server.address, awaited.as_bytes())).unwrap();
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n"), "{answer}");
    assert_eq!(client.json()["data"], "asks");

    let none = exchange_one(server.address, &format!("{start}\r\n"));
    assert_eq!((none.status, &*none.code()), (411, "LengthRequired"));
    for body in [most.clone() + "x", "x".repeat(3 << 20)] {
        let answer = send(&server, "/:send", &body);
        assert_eq!((answer.status, &*answer.code()), (413, "MessageTooLarge"), "{} bytes", body.len());
    }
    let endless =
        format!("{start}Transfer-Encoding: chunked\r\n\r\n{}", format!("800\r\n{most}\r\n").repeat(1000));
    assert_eq!(exchange_one(server.address, &format!("{endless}0\r\n\r\n")).code(), "MessageTooLarge");
    // Who asks first is refused before it sends.
    let asking = format!("{start}Expect: 100-continue\r\nContent-Length: 9999\r\n\r\n");
    assert_eq!(exchange_one(server.address, &asking).code(), "MessageTooLarge");
    let refused = send(&server, "/nothing", &"x".repeat(1 << 20));
    assert_eq!(refused.code(), "NotFound", "a refusal arrives although the body was not read");
    expect_nothing(&mut client);
}

#[test]
fn refusals_are_counted() {
    let server = Server::start("");
    assert_eq!(ask(&server, "GET", "/:send").status, 405);
    assert_eq!(ask(&server, "GET", "/nothing").status, 404);
    let metrics = call(server.address, "GET", "/metrics", "", "").body;
    for code in ["MethodNotAllowed", "NotFound"] {
        assert!(metrics.contains(&format!("tieline_http_refused_total{{code=\"{code}\"}} 1\n")), "{metrics}");
    }
}
