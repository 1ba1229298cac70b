//! Clients of real nodes behind a gateway.

use tieline_core::token::{Grant, Keys};
use tieline_core::unix_ms;
use tieline_proto::HubName;
use tieline_websocket::ClientRequest;

use super::front::Front;
use crate::rest::tokens::bearer;
use crate::server::Server;
use crate::support::http::{call, get};
use crate::support::socket::Socket;

const KEY: &str = "a key of these tests";

fn request(host: &str, target: &str) -> ClientRequest {
    ClientRequest::new(host, target).unwrap().protocol("json.webpubsub.azure.v1")
}

/// The status of a handshake.
fn status(address: std::net::SocketAddr, request: ClientRequest) -> u16 {
    Socket::open(address, request).map_or_else(|answer| answer.status, |_| 101)
}

/// A node without a key takes programs of its own machine for its user's. A gateway on that machine makes everybody come from
/// there, and nobody local.
#[test]
fn clients_of_a_gateway_are_never_local() {
    let node = Server::start("");
    let front = Front::start(&["--trusted-proxy", "127.0.0.0/8"], &[("a", node.address, true)]);
    for host in ["localhost", "127.0.0.1:7800"] {
        assert_eq!(status(node.address, request(host, "/client/hubs/h")), 101);
        assert_eq!(status(front.address, request(host, "/client/hubs/h")), 401);
        for claim in [
            ("X-Forwarded-For", ""),
            ("X-Forwarded-For", "127.0.0.1"),
            ("Connection", "X-Forwarded-For, Via"),
        ] {
            let request = request(host, "/client/hubs/h").header(claim.0, claim.1);
            assert_eq!(status(front.address, request), 401, "{claim:?}");
        }
        assert_eq!(status(front.address, request(host, "/client/alice")), 401);
    }
    for path in ["/metrics", "/api/v1/nodes", "/api/hubs/h/users/u"] {
        assert_ne!(call(node.address, "GET", path, "", "").status, 401, "{path}");
        let answer = call(front.address, "GET", path, "Connection: X-Forwarded-For\r\n", "");
        assert_eq!(answer.status, 401, "{path}");
    }
    let page = get(node.address, "/", "");
    assert_eq!((page.status, get(front.address, "/", "").status == page.status), (200, false));
}

#[test]
fn tokens_are_the_nodes_to_check_and_messages_flow() {
    let node = Server::start(&format!("access_key = [\"{KEY}\"]\nallow_anonymous = true"));
    let front = Front::start(&[], &[("a", node.address, true)]);
    let open = |user: &str| {
        let mut socket =
            Socket::open(front.address, request("localhost", &format!("/client/hubs/h?user={user}")))
                .unwrap();
        assert_eq!(socket.json()["userId"], user);
        socket
    };
    let (mut alice, mut bob) = (open("alice"), open("bob"));
    bob.send(r#"{"type":"joinGroup","group":"g","ackId":1}"#);
    assert_eq!(bob.json()["success"], true);
    alice.send(r#"{"type":"sendToGroup","group":"g","dataType":"text","data":"hello","ackId":1}"#);
    assert_eq!(alice.json()["success"], true);
    assert_eq!(bob.json()["data"], "hello");
    let path = "/api/hubs/h/users/bob/:send";
    let token = bearer(KEY, &format!("http://{}{path}", front.address));
    let send = |headers: &str| {
        call(front.address, "POST", path, &format!("{headers}Content-Type: text/plain\r\n"), "x")
    };
    assert_eq!(send(&token).status, 202);
    assert_eq!(bob.json()["data"], "x");
    assert_eq!(send("").status, 401);
    assert_eq!(send(&bearer("another key", &format!("http://{}{path}", front.address))).status, 401);
}

/// Who signs an address signs it as it is outside.
#[test]
fn signed_addresses_hold_behind_a_prefix() {
    let node = Server::start(&format!("access_key = [\"{KEY}\"]"));
    let front = Front::start(&["--strip-prefix", "/websocket"], &[("a", node.address, true)]);
    let grant = |endpoint: &str| Grant {
        endpoint: endpoint.to_owned(),
        hub: HubName::new("h").unwrap(),
        user: None,
        roles: vec![],
        groups: vec![],
        presence: None,
        lifetime: 60,
    };
    let token = |endpoint: &str| Keys::new([KEY]).sign_client(&grant(endpoint), unix_ms() / 1000).unwrap();
    let open = |endpoint: &str| {
        let target = format!("/websocket/client/hubs/h?access_token={}", token(endpoint));
        status(front.address, request("localhost", &target))
    };
    assert_eq!(open("https://chat.example.com/websocket"), 101);
    assert_eq!(open("https://chat.example.com"), 101);
    assert_eq!(open("https://chat.example.com/other"), 401);
    let path = "/websocket/api/hubs/h/users/u/:send";
    let send = |signed: &str| {
        let token = bearer(KEY, &format!("https://chat.example.com{signed}"));
        call(front.address, "POST", path, &format!("{token}Content-Type: text/plain\r\n"), "x").status
    };
    assert_eq!((send(path), send("/api/hubs/h/users/u/:send")), (202, 202));
    assert_eq!(
        (send("/other/api/hubs/h/users/u/:send"), send("/websocket/api/hubs/h/users/v/:send")),
        (401, 401)
    );
    // A token for something that is called so is none for what is there.
    let token = bearer(KEY, "http://h/api/hubs/h/groups/metrics");
    let claim = "X-Forwarded-Prefix: /api/hubs/h/groups\r\n";
    assert_eq!(call(node.address, "GET", "/metrics", &format!("{token}{claim}"), "").status, 401);
}
