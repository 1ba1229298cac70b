//! Two nodes joined by a private RocketMQ, a name server and a broker: while it is there, killed, and wrong.

use std::time::Duration;

use xtask::{Engine, left_out};

use crate::mediums::{expect_refused, killed};
use crate::processes::nobody;

/// How soon after the server's return messages must flow.
const RETURN: Duration = Duration::from_secs(3);

#[test]
fn a_killed_rocketmq_leaves_each_node_to_its_own_clients_and_joins_them_again() {
    if std::env::var_os("TIELINE_TEST_ROCKETMQ").is_some() {
        let why = "TIELINE_TEST_ROCKETMQ names a server that was not started here";
        left_out("nodes joined by RocketMQ", why);
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
