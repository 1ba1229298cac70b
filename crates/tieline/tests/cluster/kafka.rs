//! Two nodes joined by a private Kafka: while it is there, killed and started again or standing still under messages that are kept, behind a password,
//! and wrong.

use std::time::{Duration, Instant};

use xtask::Engine;
use xtask::engine::kafka::LOGIN;

use crate::client::{assert_ack, to_user};
use crate::mediums::{
    KILLED, NOTICED, STANDSTILL, command, exchange, expect_refused, is_named, pair, readiness,
};
use crate::processes::{eventually, eventually_within, nobody};

/// How soon after the server's return messages must flow. Of an outage by standing still, an eighth may come on top.
const RETURN: Duration = Duration::from_secs(3);

/// What nine of ten sends within one node may take, with an ack.
const PROMPT: Duration = Duration::from_millis(700);

/// Whether servers are started here, and not named by the environment.
fn are_private(test: &str) -> bool {
    !is_named("TIELINE_TEST_KAFKA", &format!("nodes joined by Kafka: {test}"))
}

#[test]
fn a_killed_server_leaves_no_gap_and_what_was_sent_meanwhile_arrives() {
    if are_private("a killed server") {
        outage(KILLED, RETURN, |server| server.kill().unwrap(), |server| server.restart().unwrap());
    }
}

#[test]
fn a_server_that_stands_still_for_longer_than_a_lease_leaves_no_gap_either() {
    if are_private("a server that stands still") {
        outage(
            STANDSTILL,
            RETURN + STANDSTILL / 8,
            |server| server.stand_still().unwrap(),
            |server| server.go_on().unwrap(),
        );
    }
}

/// Takes a server away for a while, and back, under messages that are kept meanwhile.
fn outage(
    length: Duration,
    returned: Duration,
    take_away: impl Fn(&mut Engine),
    bring_back: impl Fn(&mut Engine),
) {
    let mut server = Engine::kafka().start().expect("a server starts");
    let url = server.url().to_owned();
    let nodes = pair(|name| command(name, &url));
    let incarnations = nodes[0].nodes();
    let mut anna = nodes[0].connect("h", "anna");
    let mut alma = nodes[0].connect("h", "alma");
    let mut ben = nodes[1].connect("h", "ben");
    exchange(&mut anna, &mut ben, "before");
    for client in [&mut anna, &mut alma, &mut ben] {
        client.gaps = 0;
    }

    take_away(&mut server);
    let gone = Instant::now();
    let (mut sent, mut slow) = (0, 0);
    let mut is_noticed = false;
    while gone.elapsed() < length || !is_noticed {
        is_noticed |= nodes.iter().all(|node| readiness(node)["broker_up"] == false);
        assert!(is_noticed || gone.elapsed() < NOTICED, "the outage is not noticed");
        let asked = Instant::now();
        assert_ack(&anna.ask(to_user("alma", sent)), 1, 0);
        assert_eq!(alma.next_data(), sent);
        slow += u64::from(asked.elapsed() > PROMPT);
        sent += 1;
        anna.send(&to_user("ben", sent));
        assert_eq!(ben.next_within(Duration::from_millis(20)), None, "nothing comes without a server");
    }
    assert!(sent > 10);
    assert!(slow * 10 < sent, "{slow} of {sent} sends within the node took more than {PROMPT:?}");
    assert_eq!(readiness(&nodes[0])["status"], "degraded");

    bring_back(&mut server);
    let back = Instant::now();
    for number in 1..=sent {
        assert_eq!(ben.next_data(), number, "in order, and none is missing");
    }
    assert!(back.elapsed() < returned, "it flows after {:?}", back.elapsed());
    for node in &nodes {
        eventually("the node is ready", || readiness(node)["status"] == "ok");
    }
    eventually_within(returned, "both are reached", || nodes[1].reaches() == ["a", "b"]);
    exchange(&mut anna, &mut ben, "after");
    for client in [&mut anna, &mut alma, &mut ben] {
        client.expect_nothing();
        assert_eq!(client.gaps, 0, "{} was told of a gap", client.id);
    }
    assert_eq!(nodes[0].nodes(), incarnations, "no node was started anew");
}

#[test]
fn a_password_joins_nodes_and_whatever_is_wrong_is_told_at_the_start() {
    if !are_private("passwords") {
        return;
    }
    let server = Engine::kafka().start().unwrap();
    let (host, port) = server.url().strip_prefix("kafka://").unwrap().rsplit_once(':').unwrap();
    let behind_login = format!("{host}:{}", port.parse::<u16>().unwrap() + 1);
    let (user, password) = LOGIN;
    let url = format!("kafka://{user}:{}@{behind_login}", password.replace('/', "%2F"));
    let nodes = pair(|name| command(name, &url));
    let (mut anna, mut ben) = (nodes[0].connect("h", "anna"), nodes[1].connect("h", "ben"));
    exchange(&mut anna, &mut ben, "secretly");
    let large = "x".repeat(900_000);
    exchange(&mut anna, &mut ben, &large);

    expect_refused(&format!("kafka://{user}:hush2@{behind_login}"), "login failed");
    let nobody = nobody();
    expect_refused(&format!("kafka://u:hush@{nobody}"), &format!("cannot use the Kafka cluster at {nobody}"));
    expect_refused("kafka://u:hush@127.0.0.1:port", "takes the address of a broker");
    if !cfg!(feature = "kafka-tls") {
        expect_refused(&format!("kafka+ssl://u:hush@{behind_login}"), "kafka-tls");
    }
}
