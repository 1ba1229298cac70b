//! Two nodes joined by a private RocketMQ, a name server and a broker: while it is there, killed, standing still, and wrong.

use std::time::Duration;

use xtask::Engine;

use crate::mediums::{expect_refused, is_named, killed, standing};
use crate::processes::nobody;

/// How soon after the server's return messages must flow.
const RETURN: Duration = Duration::from_secs(3);

/// Whether servers are started here, and not named by the environment.
fn are_private(test: &str) -> bool {
    !is_named("TIELINE_TEST_ROCKETMQ", &format!("nodes joined by RocketMQ: {test}"))
}

#[test]
fn a_killed_rocketmq_leaves_each_node_to_its_own_clients_and_joins_them_again() {
    if !are_private("a killed server") {
        return;
    }
    let server = Engine::rocketmq().start().unwrap();
    let (login, place) = server.url().strip_prefix("rocketmq://").unwrap().split_once('@').unwrap();
    let key = login.split_once(':').unwrap().0;
    expect_refused(&format!("rocketmq://{key}:hush@{place}"), "check signature failed");
    expect_refused(&format!("rocketmq://{place}"), "username cannot be null");
    let nobody = nobody();
    expect_refused(&format!("rocketmq://k:hush@{nobody}"), &format!("cannot connect to {nobody}"));
    expect_refused("rocketmq://k:hush@127.0.0.1:port", "a port is a number");
    killed(server, RETURN);
}

#[test]
fn a_rocketmq_that_stands_still_for_longer_than_a_lease_is_an_outage_that_nobody_dies_of() {
    if are_private("a server that stands still") {
        standing(Engine::rocketmq().start().unwrap(), RETURN);
    }
}
