//! Two nodes joined by private Hazelcast members: while they are there, killed, standing still, and wrong; and a node that is killed.

use std::time::Duration;

use xtask::Engine;
use xtask::engine::hazelcast::{Hazelcast, state};

use crate::mediums::{command, exchange, expect_refused, is_named, killed, pair, readiness, standing};
use crate::processes::{eventually, nobody};

/// How soon after the member's return messages must flow.
const RETURN: Duration = Duration::from_secs(5);

/// Whether members are started here, and not named by the environment.
fn are_private(test: &str) -> bool {
    !is_named("TIELINE_TEST_HAZELCAST", &format!("nodes joined by Hazelcast: {test}"))
}

/// Host and port of an address.
fn place(engine: &Engine) -> &str {
    let place = engine.url().strip_prefix("hazelcast://").and_then(|url| url.split('?').next());
    place.expect("the keeper's addresses are of this form")
}

#[test]
fn a_killed_member_leaves_each_node_to_its_own_clients_and_joins_them_again() {
    if are_private("a killed member") {
        killed(Engine::hazelcast().start().unwrap(), RETURN);
    }
}

#[test]
fn a_member_that_stands_still_for_longer_than_a_lease_is_an_outage_that_nobody_dies_of() {
    if are_private("a member that stands still") {
        standing(Engine::hazelcast().start().unwrap(), RETURN);
    }
}

#[test]
fn nodes_go_on_by_another_member_and_leave_nothing_when_they_are_killed() {
    if !are_private("several members") {
        return;
    }
    let mut first = Engine::hazelcast().start().unwrap();
    let second = Engine::of(Hazelcast::beside(first.url())).start().unwrap();
    let url = format!("hazelcast://{},{}?cluster=tieline", place(&first), place(&second));
    let [a, b] = pair(|name| command(name, &url));
    let (mut anna, mut ben) = (a.connect("h", "anna"), b.connect("h", "ben"));
    exchange(&mut anna, &mut ben, "by the first");
    first.kill().unwrap();
    let is_client = |name: &str| state(second.url()).unwrap().contains(&format!("\"tieline-{name}\""));
    eventually("both are clients of the second", || is_client("a") && is_client("b"));
    for node in [&a, &b] {
        eventually("the node is joined again", || readiness(node)["status"] == "ok");
    }
    for client in [&mut anna, &mut ben] {
        // What may have been lost meanwhile is told.
        client.gaps = 0;
    }
    exchange(&mut anna, &mut ben, "by the second");
    drop(b);
    eventually("the member forgets who was killed", || !is_client("b"));
    assert!(is_client("a"));

    let nobody = nobody();
    let cannot = "cannot use the Hazelcast cluster at";
    expect_refused(&format!("hazelcast://u:hush@{nobody}"), &format!("{cannot} {nobody}"));
    let wrong = format!("hazelcast://u:hush@{}?cluster=other", place(&second));
    expect_refused(&wrong, "its cluster is not called `other`");
    expect_refused("hazelcast://u:hush@127.0.0.1:port", "takes the address of a broker");
}
