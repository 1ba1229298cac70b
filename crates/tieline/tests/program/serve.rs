//! `tieline serve`: who gets in, on which wire, and what operators see.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tieline_core::token::{Grant, Keys};
use tieline_proto::{GroupName, HubName, UserId};
use tieline_websocket::ClientRequest;

use crate::server::Server;
use crate::support::http::{ask, exchange, get};
use crate::support::socket::{Frame, Socket};

const KEY: &str = "a key of this test";

/// Most tests only connect, so they share a server that wants tokens and one that does not.
static WITH_KEY: LazyLock<Server> = LazyLock::new(|| {
    Server::start(&format!(
        "access_key = [\"an older key\", \"{KEY}\"]\nallow_origin = [\"https://app.example.com\"]"
    ))
});
static WITHOUT_KEY: LazyLock<Server> = LazyLock::new(|| Server::start(""));

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn grant(hub: &str, user: Option<&str>) -> Grant {
    Grant {
        endpoint: "http://elsewhere.example.com".into(),
        hub: HubName::new(hub).unwrap(),
        user: user.map(|user| UserId::new(user).unwrap()),
        roles: vec!["webpubsub.joinLeaveGroup".into(), "webpubsub.sendToGroup".into()],
        groups: vec![],
        presence: None,
        lifetime: 60,
    }
}

fn token(hub: &str, user: Option<&str>) -> String {
    Keys::new([KEY]).sign_client(&grant(hub, user), now()).unwrap()
}

fn request(server: &Server, path: &str) -> ClientRequest {
    ClientRequest::new(&server.address.to_string(), path).unwrap()
}

fn tieline(server: &Server, path: &str) -> ClientRequest {
    request(server, path).protocol("tieline.v1")
}

/// The user of a connection that is let in, or the status and the code of the refusal.
fn user(server: &Server, request: ClientRequest) -> Result<Option<String>, (u16, String)> {
    match Socket::open(server.address, request) {
        Ok(mut client) => {
            let connected = client.json();
            assert_eq!(connected["event"], "connected");
            Ok(connected["userId"].as_str().map(str::to_owned))
        }
        Err(answer) => Err((answer.status, answer.code())),
    }
}

fn refused(status: u16, code: &str) -> Result<Option<String>, (u16, String)> {
    Err((status, code.to_owned()))
}

#[test]
fn a_token_opens_its_hub() {
    let server = &*WITH_KEY;
    let alice = token("chat", Some("a/b ?#%ü"));
    let expected = Ok(Some("a/b ?#%ü".to_owned()));
    assert_eq!(user(server, tieline(server, &format!("/client/hubs/chat?access_token={alice}"))), expected);
    assert_eq!(user(server, tieline(server, &format!("/client/?hub=chat&access_token={alice}"))), expected);
    assert_eq!(
        user(server, tieline(server, &format!("/client/hubs/%63hat?x=y&access_token={alice}"))),
        expected
    );
    let bearer = tieline(server, "/client/hubs/chat").header("Authorization", &format!("Bearer {alice}"));
    assert_eq!(user(server, bearer), expected);
    // Whom the query names does not matter beside a token.
    let named = tieline(server, &format!("/client/hubs/chat?user=mallory&access_token={alice}"));
    assert_eq!(user(server, named), expected);
    let nobody = token("chat", None);
    assert_eq!(user(server, tieline(server, &format!("/client/hubs/chat?access_token={nobody}"))), Ok(None));
}

#[test]
fn bad_tokens_open_nothing() {
    let server = &*WITH_KEY;
    let good = token("chat", None);
    let wrong_key = Keys::new(["another"]).sign_client(&grant("chat", None), now()).unwrap();
    let expired = Keys::new([KEY]).sign_client(&grant("chat", None), now() - 3600).unwrap();
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    let unauthorized = refused(401, "Unauthorized");
    for (what, token) in [
        ("another hub's", &*token("other", None)),
        ("wrong key", &wrong_key),
        ("expired", &expired),
        ("alg none", &none),
        ("garbage", "x"),
        ("empty", ""),
    ] {
        let path = format!("/client/hubs/chat?access_token={token}");
        assert_eq!(user(server, tieline(server, &path)), unauthorized, "{what}");
    }
    assert_eq!(user(server, tieline(server, "/client/hubs/chat")), unauthorized);
    assert_eq!(user(server, tieline(server, "/client/hubs/chat?user=alice")), unauthorized);
    assert_eq!(user(server, request(server, "/client/alice")), unauthorized);
    let basic = tieline(server, "/client/hubs/chat").header("Authorization", "Basic YTpi");
    assert_eq!(user(server, basic), unauthorized);
    // Where there is no key, no token is right, and one that is given is not ignored.
    let server = &*WITHOUT_KEY;
    let given = tieline(server, &format!("/client/hubs/chat?user=alice&access_token={good}"));
    assert_eq!(user(server, given), unauthorized);
}

#[test]
fn on_this_machine_no_token_is_needed_where_there_is_no_key() {
    let server = &*WITHOUT_KEY;
    let alice = Ok(Some("alice".to_owned()));
    assert_eq!(user(server, tieline(server, "/client/hubs/chat?user=alice")), alice);
    assert_eq!(user(server, tieline(server, "/client/?user=alice")), alice);
    assert_eq!(user(server, tieline(server, "/client/hubs/chat")), Ok(None));
    assert_eq!(
        user(server, tieline(server, "/client/hubs/chat?user=a%2Fb+%C3%BC")),
        Ok(Some("a/b ü".to_owned()))
    );
    let localhost = ClientRequest::new("localhost:1", "/client/?user=alice").unwrap().protocol("tieline.v1");
    assert_eq!(user(server, localhost), alice);
    // A page of the node itself, and one of a site that only calls itself so.
    let origin = |host: &str, origin: &str| {
        ClientRequest::new(host, "/client/?user=alice")
            .unwrap()
            .protocol("tieline.v1")
            .header("Origin", origin)
    };
    let own = server.address.to_string();
    assert_eq!(user(server, origin(&own, &format!("http://{own}"))), alice);
    assert_eq!(
        user(server, origin("evil.example.com", "http://evil.example.com")),
        refused(401, "Unauthorized")
    );
    for proxy in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
        let forwarded = tieline(server, "/client/?user=alice").header(proxy, "192.0.2.1");
        assert_eq!(user(server, forwarded), refused(401, "Unauthorized"), "{proxy}");
    }
}

#[test]
fn everybody_may_come_where_that_is_asked_for_in_words() {
    let server = Server::start(&format!("access_key = \"{KEY}\"\nallow_anonymous = true"));
    let far = ClientRequest::new("chat.example.com", "/client/?user=alice").unwrap().protocol("tieline.v1");
    let far = far.header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(user(&server, far.clone()), Ok(Some("alice".to_owned())));
    assert_eq!(
        user(&server, far.header("Origin", "https://evil.example.com")),
        refused(403, "OriginRefused")
    );
    let bad = tieline(&server, "/client/?user=alice&access_token=x");
    assert_eq!(user(&server, bad), refused(401, "Unauthorized"));
}

#[test]
fn pages_of_other_sites_are_refused_unless_they_are_listed() {
    let server = &*WITH_KEY;
    let path = format!("/client/hubs/chat?access_token={}", token("chat", Some("u")));
    let from = |origin: &str| user(server, tieline(server, &path).header("Origin", origin));
    let own = server.address;
    for good in ["https://app.example.com", "HTTPS://APP.example.com", &format!("http://{own}")] {
        assert_eq!(from(good), Ok(Some("u".to_owned())), "{good}");
    }
    for bad in [
        "https://example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "null",
        "http://localhost:1",
    ] {
        assert_eq!(from(bad), refused(403, "OriginRefused"), "{bad}");
    }
    let two = tieline(server, &path)
        .header("Origin", "https://app.example.com")
        .header("Origin", "https://x.example.com");
    assert_eq!(user(server, two), refused(403, "OriginRefused"));
}

#[test]
fn the_first_known_subprotocol_is_spoken() {
    let server = &*WITHOUT_KEY;
    let path = "/client/hubs/chat?user=u";
    let open = |request| Socket::open(server.address, request).unwrap();
    let mut client = open(
        request(server, path).protocol("stomp").protocol("json.webpubsub.azure.v1").protocol("tieline.v1"),
    );
    assert_eq!(client.protocol.as_deref(), Some("json.webpubsub.azure.v1"));
    assert!(client.json().get("reconnectionToken").is_none());
    let mut client = open(request(server, path).protocol("json.reliable.webpubsub.azure.v1"));
    assert!(client.json()["reconnectionToken"].is_string());
    // A socket that asks for nothing speaks plain JSON, as the user in its path.
    let mut alice = open(request(server, "/client/alice"));
    assert_eq!(alice.protocol, None);
    let mut bob = open(request(server, "/client/b%C3%B6b"));
    // Whoever gets an answer to a request is connected for all others.
    bob.send("nonsense");
    assert!(bob.json()["error"].is_string());
    alice.send(r#"{"receiver":"böb","msg":"hi"}"#);
    let message = bob.json();
    assert_eq!((&message["sender"], &message["msg"]), (&"alice".into(), &"hi".into()));
}

#[test]
fn groups_of_the_token_are_joined_and_messages_flow() {
    let server = &*WITH_KEY;
    let group = GroupName::new("room").unwrap();
    let signed = |user| Grant { groups: vec![group.clone()], ..grant("flow", Some(user)) };
    let open = |user| {
        let token = Keys::new([KEY]).sign_client(&signed(user), now()).unwrap();
        let request = request(server, &format!("/client/hubs/flow?access_token={token}"));
        let mut client = Socket::open(server.address, request.protocol("json.webpubsub.azure.v1")).unwrap();
        assert_eq!(client.json()["userId"], user);
        client
    };
    let (mut alice, mut bob) = (open("alice"), open("bob"));
    alice.send(
        r#"{"type":"sendToGroup","group":"room","noEcho":true,"dataType":"text","data":"hi","ackId":1}"#,
    );
    assert_eq!(alice.json()["success"], true);
    let message = bob.json();
    assert_eq!((&message["data"], &message["fromUserId"]), (&"hi".into(), &"alice".into()));
}

#[test]
fn a_cut_connection_is_recovered_by_its_own_token_alone() {
    let server = &*WITH_KEY;
    let reliable = |query: &str| {
        request(server, &format!("/client/hubs/chat?{query}")).protocol("json.reliable.webpubsub.azure.v1")
    };
    let mut client =
        Socket::open(server.address, reliable(&format!("access_token={}", token("chat", Some("u")))))
            .unwrap();
    let connected = client.json();
    let (id, secret) =
        (connected["connectionId"].as_str().unwrap(), connected["reconnectionToken"].as_str().unwrap());
    drop(client);
    // The access token is not looked at: it may have expired.
    let query = format!("access_token=expired&awps_connection_id={id}&awps_reconnection_token={secret}");
    let mut client = Socket::open(server.address, reliable(&query)).unwrap();
    assert_eq!(
        (&client.json()["connectionId"], client.protocol.as_deref()),
        (&connected["connectionId"], Some("json.reliable.webpubsub.azure.v1"))
    );
    for query in [
        format!("awps_connection_id={id}&awps_reconnection_token=forged"),
        "awps_connection_id=nonsense&awps_reconnection_token=x".to_owned(),
    ] {
        let mut client = Socket::open(server.address, reliable(&query)).unwrap();
        assert!(matches!(client.next(), Frame::Close(1008, _)));
    }
    // On another protocol these parameters mean nothing.
    assert_eq!(
        user(server, tieline(server, &format!("/client/hubs/chat?{query}"))),
        refused(401, "Unauthorized")
    );
}

#[test]
fn a_device_is_named_where_the_user_is_and_reads_for_itself() {
    let server = Server::start("store = \"memory:\"\n[inbox]\ncount = 10\n");
    let open = |query: &str| {
        let mut client =
            Socket::open(server.address, tieline(&server, &format!("/client/hubs/h?{query}"))).unwrap();
        assert_eq!(client.json()["event"], "connected");
        client
    };
    for query in ["user=bob&device=", &format!("user=bob&device={}", "x".repeat(257))] {
        let request = tieline(&server, &format!("/client/hubs/h?{query}"));
        assert_eq!(user(&server, request), refused(400, "InvalidRequest"), "{query}");
    }
    let mut alice = open("user=alice");
    alice.send(r#"{"type":"sendToUser","user":"bob","dataType":"text","data":"hi","ackId":1}"#);
    assert_eq!(alice.json()["queued"], 1);
    let mut phone = open("user=bob&device=phone");
    phone.send(r#"{"type":"hello","device":"tablet","ackId":1}"#);
    assert_eq!(phone.json()["error"]["name"], "Forbidden");
    // The same on every dialect; what one of them reads the other has still to read.
    phone.send(r#"{"type":"hello","ackId":2}"#);
    assert_eq!((phone.json()["data"].clone(), phone.json()["recovered"].clone()), ("hi".into(), true.into()));
    phone.send(r#"{"type":"inboxAck","offset":1}"#);
    phone.send(r#"{"type":"ping"}"#);
    assert_eq!(phone.json()["type"], "pong");
    let plain = |device: &str| {
        let request = request(&server, &format!("/client/bob?hub=h&device={device}"));
        Socket::open(server.address, request).unwrap()
    };
    assert_eq!(plain("tablet").json()["msg"], "hi");
    let mut again = plain("phone");
    alice.send(r#"{"type":"sendToUser","user":"bob","dataType":"text","data":"you","ackId":2}"#);
    assert_eq!(again.json()["msg"], "you");
}

#[test]
fn the_limit_of_connections_is_kept() {
    let server = Server::start("[limits]\nconnections = 2\n");
    let open = || Socket::open(server.address, tieline(&server, "/client/?user=u"));
    let (mut first, mut second) = (open().unwrap(), open().unwrap());
    assert_eq!((&first.json()["event"], &second.json()["event"]), (&"connected".into(), &"connected".into()));
    // The shards have counted them by the time both are greeted and answer again.
    for client in [&mut first, &mut second] {
        client.send(r#"{"type":"ping"}"#);
        assert_eq!(client.json()["type"], "pong");
    }
    let answer = open().err().expect("a third one is refused");
    assert_eq!(
        (answer.status, &*answer.code(), answer.header("retry-after")),
        (429, "TooManyConnections", Some("5"))
    );
}

#[test]
fn health_and_readiness_are_told() {
    let server = &*WITHOUT_KEY;
    for path in ["/healthz", "/readyz"] {
        let answer = get(server.address, path, "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["status"], "ok");
    }
    // As load balancers ask that speak HTTP/1.0.
    assert_eq!(ask(server.address, "GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    let head = exchange(server.address, b"HEAD /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n") && head.ends_with(b"\r\n\r\n"));
}

#[test]
fn metrics_are_for_operators() {
    let server = &*WITH_KEY;
    let metrics = get(server.address, "/metrics", "");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.body.contains("\ntieline_connections "), "{}", metrics.body);
    for header in ["X-Forwarded-For: 192.0.2.1\r\n", "Origin: https://app.example.com\r\n"] {
        assert_eq!(get(server.address, "/metrics", header).code(), "Unauthorized", "{header}");
    }
    let rebound = ask(server.address, "GET /metrics HTTP/1.1\r\nHost: evil.example.com\r\n\r\n");
    assert_eq!(rebound.code(), "Unauthorized");

    let server = Server::start("admin_listen = \"127.0.0.1:0\"");
    let admin = server.admin.unwrap();
    assert_eq!(get(server.address, "/metrics", "").code(), "NotFound");
    assert_eq!(get(admin, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n").status, 200);
    assert_eq!(get(admin, "/healthz", "").status, 200);
    assert_eq!(get(admin, "/client/hubs/chat", "").code(), "NotFound");
}

#[test]
fn stopping_says_goodbye() {
    let mut server = Server::start("");
    let mut client = Socket::open(server.address, tieline(&server, "/client/?user=u")).unwrap();
    assert_eq!(client.json()["event"], "connected");
    let reader = std::thread::spawn(move || {
        let frame = client.next();
        client.close(1001);
        frame
    });
    server.stop();
    assert!(matches!(reader.join().unwrap(), Frame::Close(1001, _)));
    assert!(std::net::TcpStream::connect(server.address).is_err(), "nobody listens any more");
}
