//! Two nodes joined by a private Redis server: while it is there, killed, standing still, behind a password and TLS, and wrong.

use std::time::Duration;

use xtask::Engine;
use xtask::engine::redis::ask;
use xtask::engine::redis_cluster::RedisCluster;
use xtask::engine::sentinel::Sentinel;

use crate::mediums::{
    Folder, certificate, command, exchange, expect_refused, is_named, killed, only_who_trusts_is_joined,
    pair, replaced, standing,
};
use crate::processes::{eventually_within, nobody};

/// How soon after the server's return messages must flow.
const RETURN: Duration = Duration::from_secs(5);

/// How soon nothing of a killed node may be left.
const TWO_LEASES: Duration = Duration::from_secs(30);

/// A private server, or none where the environment names one.
fn private(test: &str) -> Option<Engine> {
    let is_named = is_named("TIELINE_TEST_REDIS", &format!("nodes joined by Redis: {test}"));
    (!is_named).then(|| Engine::redis().start().unwrap())
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
        if !is_named(variable, &format!("nodes joined by {kind}")) {
            replaced(Engine::of(xtask::engine::kind(kind).unwrap()).start().unwrap());
        }
    }
}

#[test]
fn of_killed_nodes_nothing_is_left() {
    let Some(server) = private("what is left") else { return };
    nothing_is_left(server.url(), &[server.url().to_owned()], "CHANNELS");
    if is_named("TIELINE_TEST_REDIS_CLUSTER", "nodes joined by Redis Cluster: what is left") {
        return;
    }
    let servers = Engine::redis_cluster().start().unwrap();
    let first: u16 = servers.url().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
    // The URL names the first two.
    let masters: Vec<String> =
        (first - 1..first + 2).map(|port| format!("redis://127.0.0.1:{port}")).collect();
    nothing_is_left(servers.url(), &masters, "SHARDCHANNELS");
}

/// Two nodes, of which one and then the other is killed: the servers know channels of the living, and no keys.
fn nothing_is_left(url: &str, servers: &[String], channels: &str) {
    let count = |command: &str, mark: &str| -> usize {
        let counts = servers.iter().map(|server| {
            let answer = ask(server, command).unwrap();
            answer.strip_prefix(mark).and_then(|count| count.parse::<usize>().ok()).expect(command)
        });
        counts.sum()
    };
    let channels = || count(&format!("PUBSUB {channels} tieline:*"), "*");
    let [survivor, mut killed] = pair(|name| command(name, url));
    let both = channels();
    killed.kill();
    eventually_within(TWO_LEASES, "the killed node's channels are gone", || channels() < both);
    let (mut anna, mut ben) = (survivor.connect("h", "anna"), survivor.connect("h", "ben"));
    exchange(&mut anna, &mut ben, "alone");
    let one = channels();
    assert!((1..both).contains(&one), "{one} of {both}");
    drop((anna, ben));
    drop(survivor);
    eventually_within(TWO_LEASES, "no channels are left", || channels() == 0);
    assert_eq!(count("DBSIZE", ":"), 0);
}

/// Makes the server speak TLS on another port, with a certificate of its own, and gives that port and the certificate.
fn speak_tls(server: &Engine) -> (u16, Folder) {
    let folder = certificate();
    let port = xtask::engine::free_port(&[]).unwrap();
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
fn a_master_and_its_sentinels_are_proved_by_tls() {
    if is_named("TIELINE_TEST_SENTINEL", "nodes joined by Redis with a sentinel: TLS") {
        return;
    }
    let folder = certificate();
    let servers = Engine::of(Sentinel::with_tls(&folder.file("key"), &folder.file("cert"))).start().unwrap();
    let place = servers.url().rsplit(':').next().and_then(|place| place.split_once('/'));
    let (plain, master) = place.map(|(port, master)| (port.parse::<u16>().unwrap(), master)).unwrap();
    let tls = plain + Sentinel::TLS;
    expect_refused(&format!("redis+sentinel://127.0.0.1:{tls}/{master}"), "cannot use the Redis");
    expect_refused(&format!("rediss+sentinel://127.0.0.1:{plain}/{master}"), "cannot use the Redis");
    only_who_trusts_is_joined(&format!("rediss+sentinel://localhost:{tls}/{master}"), &folder);
}

#[test]
fn a_cluster_of_servers_is_proved_by_tls() {
    if is_named("TIELINE_TEST_REDIS_CLUSTER", "nodes joined by Redis Cluster: TLS") {
        return;
    }
    let folder = certificate();
    let kind = RedisCluster::with_tls(&folder.file("key"), &folder.file("cert"));
    let servers = Engine::of(kind).start().unwrap();
    let second: u16 = servers.url().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
    let tls = second + RedisCluster::TLS;
    for port in second - 1..second + 5 {
        let command =
            "ACL SETUSER node on >hush resetchannels &tieline:* +@connection +@pubsub +cluster|slots";
        assert_eq!(ask(&format!("redis://127.0.0.1:{port}"), command).unwrap(), "+OK");
    }
    expect_refused(&format!("redis+cluster://node:hush@127.0.0.1:{tls}"), "cannot use the Redis");
    expect_refused(&format!("rediss+cluster://node:hush@127.0.0.1:{second}"), "cannot use the Redis");
    only_who_trusts_is_joined(&format!("rediss+cluster://node:hush@localhost:{tls}"), &folder);
}

#[test]
fn passwords_and_tls_join_nodes_and_whatever_is_wrong_is_told_at_the_start() {
    let Some(server) = private("passwords and TLS") else { return };
    let (tls, folder) = speak_tls(&server);
    let plain = server.url().strip_prefix("redis://").unwrap().to_owned();
    assert_eq!(ask(server.url(), "CONFIG SET requirepass hush").unwrap(), "+OK");

    expect_refused(&format!("redis://:hush2@{plain}"), "WRONGPASS");
    expect_refused(&format!("redis://{plain}"), "NOAUTH");
    let nobody = nobody();
    expect_refused(&format!("redis://:hush@{nobody}"), &format!("cannot use the Redis server at {nobody}"));
    expect_refused(&format!("redis://:hush@127.0.0.1:{tls}"), "cannot use the Redis server");
    expect_refused(&format!("rediss://:hush@{plain}"), "cannot use the Redis server");
    expect_refused("redis://:hush@127.0.0.1:port", "takes the address of a broker");

    only_who_trusts_is_joined(&format!("rediss://:hush@localhost:{tls}"), &folder);
}
