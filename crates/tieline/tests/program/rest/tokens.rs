//! Who may call, and tokens made on request.

use std::time::{SystemTime, UNIX_EPOCH};

use tieline_core::token::{Grant, Keys};
use tieline_proto::HubName;
use tieline_websocket::ClientRequest;

use crate::server::Server;
use crate::support::http::{Answer, call, exchange_one};
use crate::support::socket::Socket;

const KEY: &str = "a key of these tests";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token for an address, signed at a time. Of the audience, what stands behind the number sign is no part of the address.
fn token(key: &str, url: &str, signed: u64) -> String {
    let grant = Grant {
        endpoint: format!("{url}#"),
        hub: HubName::new("h").unwrap(),
        user: None,
        roles: vec![],
        groups: vec![],
        presence: None,
        lifetime: 60,
    };
    Keys::new([key]).sign_client(&grant, signed).unwrap()
}

/// The header of a token for an address.
pub(crate) fn bearer(key: &str, url: &str) -> String {
    format!("Authorization: Bearer {}\r\n", token(key, url, now()))
}

fn send(server: &Server, target: &str, headers: &str) -> Answer {
    call(server.address, "POST", target, &format!("{headers}Content-Type: text/plain\r\n"), "x")
}

#[test]
fn a_token_opens_the_address_it_was_made_for() {
    let server =
        Server::start(&format!("access_key = [\"an older key\", \"{KEY}\"]\nallow_anonymous = true"));
    let target = "/api/hubs/h/users/a%2Fb/:send?api-version=2024-12-01&filter=userId%20eq%20%27a%27";
    let url = format!("http://{}{target}", server.address);
    let good = bearer(KEY, &url);
    for (what, header) in [
        ("as it is", good.clone()),
        ("another host, as behind a proxy", bearer(KEY, &format!("https://proxy.example.com{target}"))),
        ("without its query", bearer(KEY, url.split('?').next().unwrap())),
        ("of the older key", bearer("an older key", &url)),
        ("with other escapes", bearer(KEY, &url.replace("%2F", "%2f"))),
        ("in small letters", good.replace("Bearer", "bearer")),
    ] {
        assert_eq!(send(&server, target, &header).status, 202, "{what}");
    }
    let of_client = Keys::new([KEY]).sign_client(
        &Grant {
            endpoint: format!("http://{}", server.address),
            hub: HubName::new("h").unwrap(),
            user: None,
            roles: vec![],
            groups: vec![],
            presence: None,
            lifetime: 60,
        },
        now(),
    );
    let (head, rest) =
        token(KEY, &url, now()).split_once('.').map(|(h, r)| (h.to_owned(), r.to_owned())).unwrap();
    let payload = rest.split('.').next().unwrap();
    for (what, header) in [
        ("none", String::new()),
        ("another key", bearer("another", &url)),
        ("expired", format!("Authorization: Bearer {}\r\n", token(KEY, &url, now() - 3600))),
        ("another path", bearer(KEY, &url.replace("a%2Fb", "a"))),
        ("a slash that is one", bearer(KEY, &url.replace("%2F", "/"))),
        ("another query", bearer(KEY, &url.replace("%27a", "%27b"))),
        ("a client's", format!("Authorization: Bearer {}\r\n", of_client.unwrap())),
        ("alg none", format!("Authorization: Bearer eyJhbGciOiJub25lIn0.{payload}.\r\n")),
        ("no signature", format!("Authorization: Bearer {head}.{payload}.\r\n")),
        ("another scheme", "Authorization: Basic YTpi\r\n".to_owned()),
        ("garbage", "Authorization: x\r\n".to_owned()),
        ("two", good.repeat(2)),
    ] {
        let answer = send(&server, target, &header);
        assert_eq!((answer.status, &*answer.code()), (401, "Unauthorized"), "{what}");
    }
    // Who may not call learns nothing, not even what there is.
    for target in ["/api/nothing", "/api/hubs/1bad/:send", "/api/v1/nodes"] {
        assert_eq!(send(&server, target, "").code(), "Unauthorized", "{target}");
    }
}

#[test]
fn without_a_key_only_this_machine_may_call() {
    let server = Server::start("allow_anonymous = true");
    let target = "/api/hubs/h/:send";
    let own = format!("Origin: http://{}\r\n", server.address);
    for header in ["", &*own] {
        assert_eq!(send(&server, target, header).status, 202, "{header}");
    }
    for header in [
        "Origin: https://evil.example.com\r\n",
        "Origin: null\r\n",
        "X-Forwarded-For: 192.0.2.1\r\n",
        "Via: 1.1 proxy\r\n",
        "Authorization: Bearer a.b.c\r\n",
    ] {
        assert_eq!(send(&server, target, header).code(), "Unauthorized", "{header}");
    }
    let rebound = "POST /api/hubs/h/:send HTTP/1.1\r\nHost: evil.example.com\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(exchange_one(server.address, rebound).code(), "Unauthorized");
}

#[test]
fn a_request_gets_its_id_back() {
    let server = Server::start("");
    let id = "x-ms-client-request-id: 7f3f-ID\r\n";
    for target in ["/api/hubs/h/:send", "/api/hubs/h/:send?filter=x", "/api/hubs/h/nothing"] {
        let answer = send(&server, target, id);
        assert_eq!(answer.header("x-ms-client-request-id"), Some("7f3f-id"), "{target}");
    }
    assert_eq!(send(&server, "/api/hubs/h/:send", "").header("x-ms-client-request-id"), None);
}

#[test]
fn a_generated_token_carries_what_was_asked_for() {
    let server = Server::start(&format!("access_key = [\"{KEY}\"]"));
    let generate = |query: &str| {
        let target = format!("/api/hubs/h/:generateToken?api-version=2024-12-01{query}");
        let header = bearer(KEY, &format!("http://{}{target}", server.address));
        call(server.address, "POST", &target, &header, "")
    };
    let query = "&userId=a%2Fb&role=webpubsub.sendToGroup.one&role=webpubsub.joinLeaveGroup&group=one&group=t%20w%20o\
                 &minutesToExpire=5&clientType=Default&presence=%7B%22name%22%3A%22A%22%7D";
    let answer = generate(query).json();
    let token = answer["token"].as_str().unwrap();
    let claims = Keys::new([KEY]).verify_client(token, "h", now()).unwrap();
    assert_eq!(claims.user.as_deref(), Some("a/b"));
    assert_eq!(claims.groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(), ["one", "t w o"]);
    assert!(claims.roles.may_send_to_group("one") && !claims.roles.may_send_to_group("two"));
    assert_eq!(claims.details.unwrap().members(), "\"data\":{\"name\":\"A\"}");
    assert!((now() + 290..=now() + 300).contains(&claims.expires));
    let path = format!("/client/hubs/h?access_token={token}");
    let request = ClientRequest::new(&server.address.to_string(), &path).unwrap().protocol("tieline.v1");
    let mut client = Socket::open(server.address, request).unwrap();
    assert_eq!(client.json()["userId"], "a/b");

    let default = generate("").json();
    let claims = Keys::new([KEY]).verify_client(default["token"].as_str().unwrap(), "h", now()).unwrap();
    assert_eq!((claims.user, claims.groups.len()), (None, 0));
    assert!((now() + 3590..=now() + 3600).contains(&claims.expires));
    for (query, code) in [
        ("&minutesToExpire=0", "InvalidRequest"),
        ("&minutesToExpire=soon", "InvalidRequest"),
        ("&minutesToExpire=99999999999999999999", "InvalidRequest"),
        ("&clientType=MQTT", "InvalidRequest"),
        ("&role=webpubsub.fly", "InvalidRole"),
        ("&group=%20", "InvalidGroup"),
        ("&userId=a&userId=b", "InvalidRequest"),
        ("&presence=%7B", "InvalidRequest"),
        (&format!("&presence=%22{}%22", "x".repeat(1023)), "InvalidRequest"),
    ] {
        let answer = generate(query);
        assert_eq!((answer.status, &*answer.code()), (400, code), "{query}");
    }
    let keyless = Server::start("");
    let answer = call(keyless.address, "POST", "/api/hubs/h/:generateToken", "", "");
    assert_eq!((answer.status, &*answer.code()), (400, "InvalidRequest"));
}
