//! Two nodes joined by a private Redis server: while it is there, killed, standing still, behind a password and TLS, and wrong.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xtask::engine::redis::ask;
use xtask::{Engine, left_out};

use crate::client::{Client, assert_ack, to_group, to_user};
use crate::processes::{Process, eventually, eventually_within};
use crate::support::http::call;
use crate::support::program::tieline;

/// For how long the server is killed.
const KILLED: Duration = Duration::from_secs(5);

/// For how long it stands still: longer than a lease.
const STANDSTILL: Duration = Duration::from_secs(20);

/// How soon after the server's return messages must flow.
const RETURN: Duration = Duration::from_secs(5);

/// How soon a silent server is noticed: three canaries, two seconds apart, and one to begin with.
const NOTICED: Duration = Duration::from_secs(9);

/// What a send within one node may take, with an ack, on a busy machine.
const PROMPT: Duration = Duration::from_millis(700);

/// How long a start may take that cannot succeed.
const SOON: Duration = Duration::from_secs(5);

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

fn command(name: &str, broker: &str) -> Command {
    let mut command = tieline(&["serve", "--node", name, "--shards", "2", "--listen", "127.0.0.1:0"]);
    command.env("TIELINE_BROKER", broker).env("TIELINE_LIMITS_MESSAGE_RATE", "0");
    command.args(["--cluster", &format!("test-{}", std::process::id())]);
    command
}

/// Nodes `a` and `b` that reach each other.
fn pair(mut command: impl FnMut(&str) -> Command) -> [Process; 2] {
    let nodes = ["a", "b"].map(|name| Process::spawn(name, command(name)));
    for node in &nodes {
        eventually(&format!("{} reaches both", node.name), || node.reaches() == ["a", "b"]);
    }
    nodes
}

fn readiness(node: &Process) -> Value {
    let answer = call(node.address, "GET", "/readyz", "", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A message to a user of the other node, in both directions.
fn exchange(anna: &mut Client, ben: &mut Client, data: &str) {
    assert_ack(&anna.ask(to_user("ben", data)), 1, 0);
    assert_eq!(ben.next_data(), data);
    assert_ack(&ben.ask(to_user("anna", data)), 1, 0);
    assert_eq!(anna.next_data(), data);
}

/// A message to the others in the room.
fn to_others(data: &str) -> Value {
    let mut frame = to_group("room", data);
    frame["noEcho"] = true.into();
    frame
}

#[test]
fn a_killed_server_leaves_each_node_to_its_own_clients_and_joins_them_again() {
    let Some(mut server) = private("a killed server") else { return };
    outage(
        server.url().to_owned(),
        &mut server,
        KILLED,
        RETURN,
        |server| server.kill().unwrap(),
        |server| {
            server.restart().unwrap();
        },
    );
}

#[test]
fn a_server_that_stands_still_for_longer_than_a_lease_is_an_outage_that_nobody_dies_of() {
    let Some(mut server) = private("a server that stands still") else { return };
    let signal = |server: &Engine, signal| kill(Pid::from_raw(server.pid().unwrap() as i32), signal).unwrap();
    outage(
        server.url().to_owned(),
        &mut server,
        STANDSTILL,
        NOTICED,
        |server| signal(server, Signal::SIGSTOP),
        |server| signal(server, Signal::SIGCONT),
    );
}

/// Takes the server away for a while, and back.
fn outage(
    url: String,
    server: &mut Engine,
    length: Duration,
    noticed: Duration,
    take_away: impl Fn(&mut Engine),
    bring_back: impl Fn(&mut Engine),
) {
    let nodes = pair(|name| command(name, &url));
    let incarnations = nodes[0].nodes();
    let mut anna = nodes[0].connect("h", "anna");
    let mut alma = nodes[0].connect("h", "alma");
    let mut ben = nodes[1].connect("h", "ben");
    for client in [&mut anna, &mut ben] {
        client.join("room");
    }
    exchange(&mut anna, &mut ben, "before");
    assert_ack(&anna.ask(to_others("before")), 1, 0);
    assert_eq!(ben.next_data(), "before");
    assert_eq!(readiness(&nodes[0])["status"], "ok");

    take_away(server);
    let gone = Instant::now();
    for node in &nodes {
        eventually_within(noticed, "the outage is noticed", || {
            let readiness = readiness(node);
            readiness["status"] == "degraded" && readiness["broker_up"] == false
        });
    }
    let mut round = 0;
    while gone.elapsed() < length {
        round += 1;
        let asked = Instant::now();
        assert_ack(&anna.ask(to_user("alma", round)), 1, 0);
        assert_eq!(alma.next_data(), round);
        assert!(asked.elapsed() < PROMPT, "a send within the node took {:?}", asked.elapsed());
        // The other node's user is out of reach, but nobody thinks that he is gone.
        let ack = anna.ask(to_user("ben", "lost"));
        assert_ack(&ack, 0, 0);
        assert_eq!(ack["unreachable"], 1, "{ack}");
        assert_eq!(readiness(&nodes[1])["status"], "degraded");
        // Nothing comes; looking for it is the pause between two rounds.
        assert_eq!(ben.next_within(Duration::from_millis(20)), None);
    }
    assert!(round > 10);
    for client in [&mut anna, &mut alma, &mut ben] {
        client.gaps = Some(0);
    }

    bring_back(server);
    let back = Instant::now();
    let mut data = Value::Null;
    let mut sent = 0;
    // Whoever sends from the moment of the return is heard in time, without any connection or node begun anew.
    while data.is_null() {
        assert!(back.elapsed() < RETURN, "nothing flows after {:?}", back.elapsed());
        sent += 1;
        let ack = anna.ask(to_user("ben", sent));
        // Of two nodes one is back first; what it sends before the other is, nobody answers for. But nobody is forgotten.
        assert!(ack["success"] == true && ack["unknown"] != 1, "{ack}");
        data = ben
            .next_within(Duration::from_millis(20))
            .map_or(Value::Null, |mut message| message["data"].take());
    }
    assert_eq!(data, sent, "what is lost is lost: nothing old arrives");
    eventually_within(RETURN, "ben's node reaches anna's", || nodes[1].reaches() == ["a", "b"]);
    assert!(back.elapsed() < RETURN, "both ways flow after {:?}", back.elapsed());
    exchange(&mut anna, &mut ben, "after");
    assert_ack(&ben.ask(to_others("after")), 1, 0);
    assert_eq!(anna.next_data(), "after");
    for node in &nodes {
        eventually("the node is ready", || readiness(node)["status"] == "ok");
    }
    for client in [&mut anna, &mut alma, &mut ben] {
        client.expect_nothing();
        assert!(client.gaps > Some(0), "nobody told {} of a gap", client.id);
    }
    assert_eq!(nodes[0].nodes(), incarnations, "no node was started anew");
}

/// A start that must fail soon, with these words and without the secret.
fn expect_refused(url: &str, words: &str) {
    let began = Instant::now();
    let Output { status, stderr, stdout } = command("n", url).output().unwrap();
    let took = began.elapsed();
    let told = String::from_utf8_lossy(&stderr) + String::from_utf8_lossy(&stdout);
    assert!(status.code().is_some_and(|code| code > 0), "{url}: {status}, {told}");
    assert!(told.contains(words) && !told.contains("hush"), "{url}: {told}");
    assert!(took < SOON, "{url} took {took:?}");
}

/// Makes the server speak TLS on another port, with a certificate of its own, and gives that port and the certificate.
fn speak_tls(server: &Engine) -> (u16, Folder) {
    let folder = Folder(std::env::temp_dir().join(format!("tieline-tls-{}", std::process::id())));
    fs::create_dir_all(&folder.0).unwrap();
    let file = |name: &str| folder.0.join(name).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=tieline test", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            &file("key"),
            "-out",
            &file("cert"),
        ])
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for setting in [
        format!(
            "tls-cert-file {} tls-key-file {} tls-ca-cert-file {}",
            file("cert"),
            file("key"),
            file("cert")
        ),
        "tls-auth-clients no".to_owned(),
        format!("tls-port {port}"),
    ] {
        assert_eq!(ask(server.url(), &format!("CONFIG SET {setting}")).unwrap(), "+OK", "{setting}");
    }
    (port, folder)
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn passwords_and_tls_join_nodes_and_whatever_is_wrong_is_told_at_the_start() {
    let Some(server) = private("passwords and TLS") else { return };
    let (tls, folder) = speak_tls(&server);
    let plain = server.url().strip_prefix("redis://").unwrap().to_owned();
    assert_eq!(ask(server.url(), "CONFIG SET requirepass hush").unwrap(), "+OK");

    expect_refused(&format!("redis://:hush2@{plain}"), "WRONGPASS");
    expect_refused(&format!("redis://{plain}"), "NOAUTH");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    expect_refused(&format!("redis://:hush@{nobody}"), &format!("cannot use the Redis server at {nobody}"));
    expect_refused(&format!("redis://:hush@127.0.0.1:{tls}"), "cannot use the Redis server");
    expect_refused(&format!("rediss://:hush@{plain}"), "cannot use the Redis server");
    expect_refused("redis://:hush@127.0.0.1:port", "takes the address of a broker");

    let url = format!("rediss://:hush@localhost:{tls}");
    let trusting = |name: &str| {
        let mut command = command(name, &url);
        command.env("SSL_CERT_FILE", folder.0.join("cert"));
        command
    };
    let nodes = pair(trusting);
    let (mut anna, mut ben) = (nodes[0].connect("h", "anna"), nodes[1].connect("h", "ben"));
    exchange(&mut anna, &mut ben, "secretly");
    let large = "x".repeat(900_000);
    exchange(&mut anna, &mut ben, &large);
    // The same server is not trusted where its certificate is not.
    let mut stranger = command("n", &url);
    let began = Instant::now();
    let refused = stranger.output().unwrap();
    assert!(!refused.status.success() && began.elapsed() < SOON);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("certificate") && !told.contains("hush"), "{told}");
}
