//! Two nodes joined by a private NATS server: while it is there, killed, standing still, behind a password and TLS, and wrong.

use std::time::Duration;

use xtask::Engine;
use xtask::engine::nats::Nats;

use crate::mediums::{certificate, expect_refused, is_named, killed, only_who_trusts_is_joined, standing};
use crate::processes::nobody;

/// How soon after the server's return messages must flow.
const RETURN: Duration = Duration::from_secs(3);

/// Whether servers are started here, and not named by the environment.
fn are_private(test: &str) -> bool {
    !is_named("TIELINE_TEST_NATS", &format!("nodes joined by NATS: {test}"))
}

#[test]
fn a_killed_server_leaves_each_node_to_its_own_clients_and_joins_them_again() {
    if are_private("a killed server") {
        killed(Engine::nats().start().unwrap(), RETURN);
    }
}

#[test]
fn a_server_that_stands_still_for_longer_than_a_lease_is_an_outage_that_nobody_dies_of() {
    if are_private("a server that stands still") {
        standing(Engine::nats().start().unwrap(), RETURN);
    }
}

#[test]
fn passwords_and_tls_join_nodes_and_whatever_is_wrong_is_told_at_the_start() {
    if !are_private("passwords and TLS") {
        return;
    }
    let folder = certificate();
    let (key, cert) = (folder.file("key"), folder.file("cert"));
    let users = "authorization { users: [{ user: node, password: \"hush\" }] }";
    let tls = format!("{users}\ntls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}\n");
    let start = |lines: &str| Engine::of(Nats::with(lines.to_owned())).start().unwrap();
    let (plain, tls) = (start(users), start(&tls));
    let address = |engine: &Engine| engine.url().strip_prefix("nats://").unwrap().to_owned();
    let (plain, tls) = (address(&plain), address(&tls).replace("127.0.0.1", "localhost"));

    expect_refused(&format!("nats://node:hush2@{plain}"), "Authorization Violation");
    expect_refused(&format!("nats://{plain}"), "Authorization Violation");
    let nobody = nobody();
    expect_refused(&format!("nats://node:hush@{nobody}"), &format!("cannot use the NATS server at {nobody}"));
    expect_refused(&format!("tls://node:hush@{plain}"), "does not speak TLS");
    expect_refused("nats://node:hush@127.0.0.1:port", "takes the address of a broker");
    only_who_trusts_is_joined(&format!("tls://node:hush@{tls}"), &folder);
}
