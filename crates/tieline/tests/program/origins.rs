//! Pages that come from somewhere: the node's own, another node's, or another site's.

use std::net::SocketAddr;

use tieline_websocket::ClientRequest;

use crate::member::{eventually, member};
use crate::server::Server;
use crate::support::http::get;
use crate::support::socket::Socket;

/// The status that a page of an origin gets when it opens a WebSocket, and when it asks the REST API.
fn page(address: SocketAddr, origin: &str, more: &[(&str, &str)]) -> (u16, u16) {
    let headers = [&[("Origin", origin)], more].concat();
    let request = ClientRequest::new(&address.to_string(), "/client/hubs/h?user=a").unwrap();
    let request = request.protocol("tieline.v1");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let opened = Socket::open(address, request).map_or_else(
        |answer| {
            assert!(answer.status != 403 || answer.code() == "OriginRefused");
            answer.status
        },
        |_| 101,
    );
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    (opened, get(address, "/api/v1/nodes", &headers).status)
}

#[test]
fn the_page_of_a_node_may_move_to_another_one_and_outlives_its_own() {
    let first = member("first", None);
    let mut second = member("second", Some(&first));
    let theirs = second.address;
    let url = format!("\"clientUrl\":\"ws://{theirs}\"");
    let listed = eventually(first.address, "/api/v1/nodes", |body| body.contains(&url));
    assert!(listed.contains(&format!("\"clientUrl\":\"ws://{}\"", first.address)), "{listed}");
    let origins = [format!("http://{theirs}"), format!("http://localhost:{}", theirs.port())];
    // It is learned within a second.
    let known = (0..10_000).any(|_| page(first.address, &origins[0], &[]) == (101, 200));
    assert!(known, "the page of a member may connect");
    // The same machine under another name, and this node's own page too.
    assert_eq!(page(first.address, &origins[1], &[]), (101, 200));
    let own = format!("http://localhost:{}", first.address.port());
    assert_eq!(page(first.address, &own, &[]), (101, 200));

    let own = &*own;
    for (foreign, more) in [
        ("http://evil.example.com".to_owned(), &[][..]),
        (format!("https://{theirs}"), &[]),
        (format!("http://evil.localhost:{}", theirs.port()), &[]),
        // The rule's other conditions hold for a member's page as well.
        (origins[0].clone(), &[("X-Forwarded-For", "203.0.113.9")]),
        (origins[0].clone(), &[("Origin", own)]),
    ] {
        assert_eq!(page(first.address, &foreign, more), (403, 401), "{foreign} {more:?}");
    }

    second.stop();
    eventually(first.address, "/api/v1/nodes", |body| !body.contains("second"));
    assert_eq!(page(first.address, &origins[0], &[]), (101, 200), "a page outlives its node");
}

#[test]
fn a_members_page_with_a_token_is_judged_by_its_origin_as_well() {
    let server = Server::start("access_key = [\"k\"]\nclient_url = \"ws://node.example.com:7800\"\n");
    let origin = "http://node.example.com:7800";
    // It may come, but this server wants a token.
    assert_eq!(page(server.address, origin, &[]), (401, 401));
    assert_eq!(page(server.address, origin, &[("Via", "1.1 proxy")]), (403, 401));
}
