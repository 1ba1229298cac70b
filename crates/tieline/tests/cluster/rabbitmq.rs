//! Two nodes joined by a private RabbitMQ: while it is there, killed, standing still, behind a password and TLS, and wrong; and what is left of them there.

use std::time::Duration;

use xtask::Engine;
use xtask::engine::rabbitmq::{configure, control};

use crate::mediums::{
    certificate, command, expect_refused, is_named, killed, only_who_trusts_is_joined, pair, standing,
};
use crate::processes::{eventually_within, nobody};

/// How soon after the server's return messages must flow.
const RETURN: Duration = Duration::from_secs(10);

/// Two leases: what is left of a node that is gone must be gone by then.
const TWO_LEASES: Duration = Duration::from_secs(30);

/// A private server, or none where the environment names one.
fn private(test: &str) -> Option<Engine> {
    let is_named = is_named("TIELINE_TEST_RABBITMQ", &format!("nodes joined by RabbitMQ: {test}"));
    (!is_named).then(|| Engine::rabbitmq().start().expect("a server starts"))
}

#[test]
fn a_killed_server_leaves_each_node_to_its_own_clients_and_joins_them_again() {
    if let Some(server) = private("a killed server") {
        killed(server, RETURN);
    }
}

#[test]
fn a_server_that_stands_still_for_longer_than_a_lease_is_an_outage_that_nobody_dies_of() {
    if let Some(server) = private("a server that stands still") {
        standing(server, RETURN);
    }
}

#[test]
fn passwords_and_tls_join_nodes_and_of_killed_nodes_nothing_is_left() {
    let Some(mut server) = private("passwords and TLS") else { return };
    let folder = certificate();
    let (key, cert) = (folder.file("key"), folder.file("cert"));
    let tls = xtask::engine::free_port(&[]).unwrap();
    let settings = [
        format!("listeners.ssl.1 = 127.0.0.1:{tls}"),
        format!("ssl_options.cacertfile = {cert}\nssl_options.certfile = {cert}"),
        format!("ssl_options.keyfile = {key}\nssl_options.verify = verify_none\n"),
    ];
    configure(&server, &settings.join("\n")).unwrap();
    server.restart().unwrap();
    let ours = "^tieline\\.";
    for words in [&["add_user", "node", "hush"][..], &["set_permissions", "node", ours, ours, ours]] {
        control(&server, words).unwrap();
    }

    let plain = server.url().strip_prefix("amqp://").unwrap().to_owned();
    expect_refused(&format!("amqp://guest:hush@{plain}"), "ACCESS_REFUSED");
    let nobody = nobody();
    expect_refused(
        &format!("amqp://node:hush@{nobody}"),
        &format!("cannot use the RabbitMQ server at {nobody}"),
    );
    expect_refused(&format!("amqp://node:hush@127.0.0.1:{tls}"), "cannot use the RabbitMQ server");
    expect_refused(&format!("amqps://node:hush@{plain}"), "cannot use the RabbitMQ server");
    expect_refused("amqp://node:hush@127.0.0.1:port", "takes the address of a broker");
    only_who_trusts_is_joined(&format!("amqps://node:hush@localhost:{tls}"), &folder);

    let queues = || {
        let listed = control(&server, &["list_queues", "--no-table-headers", "name"]).unwrap();
        listed.lines().filter(|name| name.starts_with("tieline.")).count()
    };
    eventually_within(TWO_LEASES, "nothing is left of those nodes", || queues() == 0);
    let [survivor, mut killed] = pair(|name| command(name, &format!("amqp://node:hush@{plain}")));
    assert_eq!(queues(), 2);
    killed.kill();
    eventually_within(TWO_LEASES, "the killed node's queue is gone", || queues() == 1);
    drop(survivor);
    let is_nothing_left = || {
        let exchanges = control(&server, &["list_exchanges", "--no-table-headers", "name"]).unwrap();
        queues() == 0 && !exchanges.contains("tieline.")
    };
    eventually_within(TWO_LEASES, "nothing of the cluster is left", is_nothing_left);
}
