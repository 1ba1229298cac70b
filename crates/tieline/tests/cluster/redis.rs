//! Two nodes joined by a private Redis server: while it is there, killed, standing still, behind a password and TLS, and wrong.

use std::net::TcpListener;
use std::time::Duration;

use xtask::engine::redis::ask;
use xtask::{Engine, left_out};

use crate::mediums::{
    Folder, certificate, expect_refused, killed, only_who_trusts_is_joined, replaced, standing,
};

/// How soon after the server's return messages must flow.
const RETURN: Duration = Duration::from_secs(5);

/// A private server, or none where the environment names one, which is then said.
fn private(test: &str) -> Option<Engine> {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        left_out(
            &format!("nodes joined by Redis: {test}"),
            "TIELINE_TEST_REDIS names a server that was not started here",
        );
        return None;
    }
    Some(Engine::redis().start().unwrap())
}

#[test]
fn a_killed_server_leaves_each_node_to_its_own_clients_and_joins_them_again() {
    let Some(server) = private("a killed server") else { return };
    killed(server, RETURN);
}

#[test]
fn a_server_that_stands_still_for_longer_than_a_lease_is_an_outage_that_nobody_dies_of() {
    let Some(server) = private("a server that stands still") else { return };
    standing(server, RETURN);
}

#[test]
fn a_master_that_dies_is_replaced_and_nodes_follow_it() {
    for (kind, variable) in
        [("sentinel", "TIELINE_TEST_SENTINEL"), ("redis-cluster", "TIELINE_TEST_REDIS_CLUSTER")]
    {
        if std::env::var_os(variable).is_some() {
            left_out(
                &format!("nodes joined by {kind}"),
                &format!("{variable} names servers that were not started here"),
            );
            continue;
        }
        replaced(Engine::of(xtask::engine::kind(kind).unwrap()).start().unwrap());
    }
}

/// Makes the server speak TLS on another port, with a certificate of its own, and gives that port and the certificate.
fn speak_tls(server: &Engine) -> (u16, Folder) {
    let folder = certificate();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (key, cert) = (folder.file("key"), folder.file("cert"));
    for setting in [
        format!("tls-cert-file {cert} tls-key-file {key} tls-ca-cert-file {cert}"),
        "tls-auth-clients no".to_owned(),
        format!("tls-port {port}"),
    ] {
        assert_eq!(ask(server.url(), &format!("CONFIG SET {setting}")).unwrap(), "+OK", "{setting}");
    }
    (port, folder)
}

#[test]
fn passwords_and_tls_join_nodes_and_whatever_is_wrong_is_told_at_the_start() {
    let Some(server) = private("passwords and TLS") else { return };
    let (tls, folder) = speak_tls(&server);
    let plain = server.url().strip_prefix("redis://").unwrap().to_owned();
    assert_eq!(ask(server.url(), "CONFIG SET requirepass hush").unwrap(), "+OK");

    expect_refused(&format!("redis://:hush2@{plain}"), "WRONGPASS");
    expect_refused(&format!("redis://{plain}"), "NOAUTH");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    expect_refused(&format!("redis://:hush@{nobody}"), &format!("cannot use the Redis server at {nobody}"));
    expect_refused(&format!("redis://:hush@127.0.0.1:{tls}"), "cannot use the Redis server");
    expect_refused(&format!("rediss://:hush@{plain}"), "cannot use the Redis server");
    expect_refused("redis://:hush@127.0.0.1:port", "takes the address of a broker");

    only_who_trusts_is_joined(&format!("rediss://:hush@localhost:{tls}"), &folder);
}
