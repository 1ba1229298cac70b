//! What every broker with a server in the middle is tried by: two nodes that are joined by it, an outage from before to after, and
//! starts that cannot succeed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::{Engine, left_out};

use crate::client::{Client, assert_ack, to_group, to_user};
use crate::processes::{Process, eventually, eventually_within, refusal};
use crate::support::PATIENCE;
use crate::support::http::call;
use crate::support::program::tieline;

/// For how long a server is killed.
pub(crate) const KILLED: Duration = Duration::from_secs(5);

/// For how long it stands still: longer than a lease.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(20);

/// How soon a silent server is noticed: three canaries, two seconds apart, and one to begin with.
pub(crate) const NOTICED: Duration = Duration::from_secs(9);

/// How soon another server has to have taken the place of one that died.
const REPLACED: Duration = Duration::from_secs(15);

/// What nine of ten sends within one node may take, with an ack.
const PROMPT: Duration = Duration::from_millis(700);

/// Whether the environment names servers, which must not be hurt: then that is said.
pub(crate) fn is_named(variable: &str, test: &str) -> bool {
    let is_named = std::env::var_os(variable).is_some();
    if is_named {
        left_out(test, &format!("{variable} names servers that were not started here"));
    }
    is_named
}

/// A node of a cluster of this process's own.
pub(crate) fn command(name: &str, broker: &str) -> Command {
    let mut command = tieline(&["serve", "--node", name, "--shards", "2", "--listen", "127.0.0.1:0"]);
    command.env("TIELINE_BROKER", broker).env("TIELINE_LIMITS_MESSAGE_RATE", "0");
    command.args(["--cluster", &format!("test-{}", std::process::id())]);
    command
}

/// Nodes `a` and `b` that reach each other. A server that has just been started may take longer for its first answers on a busy machine than
/// a node waits for them at its start: then the node is started again.
pub(crate) fn pair(mut command: impl FnMut(&str) -> Command) -> [Process; 2] {
    let deadline = Instant::now() + PATIENCE;
    let nodes = ["a", "b"].map(|name| {
        loop {
            match Process::try_spawn(name, command(name)) {
                Ok(node) => return node,
                Err(log) => {
                    let is_slow = log.contains("it does not answer") && Instant::now() < deadline;
                    assert!(is_slow, "{name} does not start: {log}");
                }
            }
        }
    });
    for node in &nodes {
        eventually(&format!("{} reaches both", node.name), || node.reaches() == ["a", "b"]);
    }
    nodes
}

/// What `/readyz` answers.
pub(crate) fn readiness(node: &Process) -> Value {
    let answer = call(node.address, "GET", "/readyz", "", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A message to a user of the other node, in both directions.
pub(crate) fn exchange(anna: &mut Client, ben: &mut Client, data: &str) {
    send_to(anna, ben, "ben", data);
    send_to(ben, anna, "anna", data);
}

fn send_to(sender: &mut Client, receiver: &mut Client, user: &str, data: &str) {
    // On a busy machine the answer may take longer than a node waits for it; the message comes all the same.
    eventually("an answer that came in time", || {
        let ack = sender.ask(to_user(user, data));
        assert_eq!(receiver.next_data(), data);
        let is_known = !ack["delivered"].is_null();
        if is_known {
            assert_ack(&ack, 1, 0);
        }
        is_known
    });
}

/// A message to the others in the room.
fn to_others(data: &str) -> Value {
    let mut frame = to_group("room", data);
    frame["noEcho"] = true.into();
    frame
}

/// The server is killed, and back after five seconds. `returned` is how soon messages must flow then.
pub(crate) fn killed(mut server: Engine, returned: Duration) {
    let kill = |server: &mut Engine| server.kill().unwrap();
    outage(&mut server, KILLED, returned, returned, kill, |server| server.restart().unwrap());
}

/// The first process of servers is killed, and another one takes its place: messages flow as before, by nodes that were not started anew.
pub(crate) fn replaced(mut servers: Engine) {
    let url = servers.url().to_owned();
    let nodes = pair(|name| command(name, &url));
    let incarnations = nodes[0].nodes();
    let (mut anna, mut ben) = (nodes[0].connect("h", "anna"), nodes[1].connect("h", "ben"));
    exchange(&mut anna, &mut ben, "before");
    servers.kill_member(0).unwrap();
    let killed = Instant::now();
    for client in [&mut anna, &mut ben] {
        client.gaps = 0;
    }
    flows_again(&mut anna, &mut ben, "ben", killed);
    flows_again(&mut ben, &mut anna, "anna", killed);
    for node in &nodes {
        eventually_within(REPLACED, "the node is ready", || readiness(node)["status"] == "ok");
    }
    exchange(&mut anna, &mut ben, "after");
    assert_eq!(nodes[0].nodes(), incarnations, "a node was forgotten, or started anew");
}

/// Sends until something arrives, in time, and then waits for the last that was sent.
fn flows_again(from: &mut Client, to: &mut Client, user: &str, killed: Instant) {
    let mut number = 0;
    let mut data = Value::Null;
    while data.is_null() {
        assert!(killed.elapsed() < REPLACED, "nothing flows after {:?}", killed.elapsed());
        number += 1;
        assert_eq!(from.ask(to_user(user, number))["success"], true);
        data = to
            .next_within(Duration::from_millis(20))
            .map_or(Value::Null, |mut message| message["data"].take());
    }
    while data != number {
        data = to.next_data();
    }
}

/// The server stands still for longer than a lease.
pub(crate) fn standing(mut server: Engine, returned: Duration) {
    let stop = |server: &mut Engine| server.stand_still().unwrap();
    outage(&mut server, STANDSTILL, NOTICED, returned, stop, |server| server.go_on().unwrap());
}

/// Takes the server away for a while, and back.
fn outage(
    server: &mut Engine,
    length: Duration,
    noticed: Duration,
    returned: Duration,
    take_away: impl Fn(&mut Engine),
    bring_back: impl Fn(&mut Engine),
) {
    let url = server.url().to_owned();
    let nodes = pair(|name| command(name, &url));
    let incarnations = nodes[0].nodes();
    let mut anna = nodes[0].connect("h", "anna");
    let mut alma = nodes[0].connect("h", "alma");
    let mut ben = nodes[1].connect("h", "ben");
    for client in [&mut anna, &mut ben] {
        client.join("room");
    }
    exchange(&mut anna, &mut ben, "before");
    // A join is answered after a second also where the other node is too busy to have read of it.
    eventually("ben's group is known", || anna.ask(to_others("before"))["delivered"] == 1);
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
    let (mut round, mut slow) = (0, 0);
    while gone.elapsed() < length {
        round += 1;
        let asked = Instant::now();
        assert_ack(&anna.ask(to_user("alma", round)), 1, 0);
        assert_eq!(alma.next_data(), round);
        slow += u64::from(asked.elapsed() > PROMPT);
        // The other node's user is out of reach, but nobody thinks that he is gone.
        let ack = anna.ask(to_user("ben", "lost"));
        assert_ack(&ack, 0, 0);
        assert_eq!(ack["unreachable"], 1, "{ack}");
        assert_eq!(readiness(&nodes[1])["status"], "degraded");
        // Nothing comes; looking for it is the pause between two rounds.
        assert_eq!(ben.next_within(Duration::from_millis(20)), None);
    }
    assert!(round > 10);
    assert!(slow * 10 < round, "{slow} of {round} sends within the node took more than {PROMPT:?}");
    for client in [&mut anna, &mut alma, &mut ben] {
        client.gaps = 0;
    }

    bring_back(server);
    let back = Instant::now();
    let mut data = Value::Null;
    let mut sent = 0;
    // Whoever sends from the moment of the return is heard in time, without any connection or node begun anew.
    while data.is_null() {
        assert!(back.elapsed() < returned, "nothing flows after {:?}", back.elapsed());
        sent += 1;
        let ack = anna.ask(to_user("ben", sent));
        // Of two nodes one is back first; what it sends before the other is, nobody answers for. But nobody is forgotten.
        assert!(ack["success"] == true && ack["unknown"] != 1, "{ack}");
        data = ben
            .next_within(Duration::from_millis(20))
            .map_or(Value::Null, |mut message| message["data"].take());
    }
    assert_eq!(data, sent, "what is lost is lost: nothing old arrives");
    eventually_within(returned, "ben's node reaches anna's", || nodes[1].reaches() == ["a", "b"]);
    assert!(back.elapsed() < returned, "both ways flow after {:?}", back.elapsed());
    exchange(&mut anna, &mut ben, "after");
    assert_ack(&ben.ask(to_others("after")), 1, 0);
    assert_eq!(anna.next_data(), "after");
    for node in &nodes {
        eventually("the node is ready", || readiness(node)["status"] == "ok");
    }
    for client in [&mut anna, &mut alma, &mut ben] {
        client.expect_nothing();
        assert!(client.gaps > 0, "nobody told {} of a gap", client.id);
    }
    assert_eq!(nodes[0].nodes(), incarnations, "no node was started anew");
}

/// A start that must fail soon, with these words and without the secret.
pub(crate) fn expect_refused(url: &str, words: &str) {
    let (status, told) = refusal(&mut command("n", url));
    assert!(status.code().is_some_and(|code| code > 0), "{url}: {status}, {told}");
    assert!(told.contains(words) && !told.contains("hush"), "{url}: {told}");
}

/// A key and a certificate of its own, for `localhost`, as the files `key` and `cert`.
pub(crate) fn certificate() -> Folder {
    let folder = Folder(std::env::temp_dir().join(format!(
        "tieline-tls-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    )));
    fs::create_dir_all(&folder.0).unwrap();
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
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout", &folder.file("key"), "-out", &folder.file("cert")])
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

/// A folder that is removed in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Two nodes that trust the server's certificate exchange messages; one that does not is told so at its start.
pub(crate) fn only_who_trusts_is_joined(url: &str, folder: &Folder) {
    let trusting = |name: &str| {
        let mut command = command(name, url);
        command.env("SSL_CERT_FILE", folder.file("cert"));
        command
    };
    let nodes = pair(trusting);
    let (mut anna, mut ben) = (nodes[0].connect("h", "anna"), nodes[1].connect("h", "ben"));
    exchange(&mut anna, &mut ben, "secretly");
    let large = "x".repeat(900_000);
    exchange(&mut anna, &mut ben, &large);
    // The same server is not trusted where its certificate is not.
    let mut stranger = command("n", url);
    let (status, told) = refusal(&mut stranger);
    assert!(!status.success(), "{told}");
    assert!(told.contains("certificate") && !told.contains("hush"), "{told}");
}
