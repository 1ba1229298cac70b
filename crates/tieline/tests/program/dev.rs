//! `tieline dev`: a cluster in one process that keeps messages with nothing beside it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tieline_websocket::ClientRequest;

use crate::support::PATIENCE;
use crate::support::program::tieline;
use crate::support::socket::Socket;

/// A running `tieline dev`, killed at the test's end if it has not ended by then.
struct Dev {
    child: Child,
    nodes: Vec<SocketAddr>,
}

impl Dev {
    /// Starts two nodes whose temporary files are in `folder`.
    fn start(folder: &PathBuf, args: &[&str]) -> Dev {
        let mut command = tieline(&["dev", "--nodes", "2", "--port", "0"]);
        let mut child = command.args(args).env("TMPDIR", folder).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map_while(Result::ok);
        let address = |line: String| {
            let rest = line.split_once(": listening on http://")?.1.to_owned();
            Some(rest.split(' ').next().unwrap().parse().unwrap())
        };
        let nodes = lines.filter_map(address).take(2).collect();
        Dev { child, nodes }
    }

    /// Ends it as Ctrl-C does.
    fn end(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    fn connect(&self, node: usize, user: &str) -> Socket {
        let path = format!("/client/hubs/demo?user={user}");
        let address = self.nodes[node];
        let request = ClientRequest::new(&address.to_string(), &path).unwrap().protocol("tieline.v1");
        let mut socket = Socket::open(address, request).unwrap();
        assert_eq!(socket.json()["event"], "connected");
        socket
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a socket is answered.
fn ask(socket: &mut Socket, frame: Value) -> Value {
    socket.send(&frame.to_string());
    socket.json()
}

/// Waits until this client's node knows whom the other one holds: it has said where it listens, and may still have to read of the other.
/// Before that it cannot tell that a user is nowhere.
fn await_other_node(socket: &mut Socket) {
    let deadline = Instant::now() + PATIENCE;
    for number in 1_000_000.. {
        let frame = json!({"type": "sendToUser", "user": "nobody", "data": number, "ackId": number});
        let ack = ask(socket, frame);
        if ack["queued"] == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "{ack}");
    }
}

/// Everything in a folder.
fn entries(folder: &PathBuf) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tieline-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn messages_are_kept_at_all_nodes_with_nothing_beside_them_and_nothing_stays_behind() {
    let folder = folder("dev-alone");
    let dev = Dev::start(&folder, &[]);
    assert_eq!(entries(&folder).len(), 1, "one folder");
    let mut alice = dev.connect(0, "alice");
    await_other_node(&mut alice);
    let ack = ask(&mut alice, json!({"type": "sendToUser", "user": "bob", "data": "mail", "ackId": 1}));
    assert_eq!((&ack["success"], &ack["queued"]), (&json!(true), &json!(1)), "{ack}");
    let ack = ask(&mut alice, json!({"type": "sendToGroup", "group": "room", "data": "news", "ackId": 2}));
    assert_eq!(ack["success"], true, "{ack}");
    let mut bob = dev.connect(1, "bob");
    let mail = ask(&mut bob, json!({"type": "hello", "ackId": 1}));
    assert_eq!((&mail["data"], &mail["position"]["offset"]), (&json!("mail"), &json!(1)), "{mail}");
    assert_eq!(bob.json()["ackId"], 1);
    let nothing = json!({"epoch": 0, "offset": 0});
    let news = ask(&mut bob, json!({"type": "joinGroup", "group": "room", "since": nothing, "ackId": 2}));
    assert_eq!((&news["data"], &news["position"]["offset"]), (&json!("news"), &json!(1)), "{news}");
    assert_eq!(bob.json()["recovered"], true);
    // Who is on is said every few seconds, and is of no use later.
    assert_eq!(
        ask(&mut bob, json!({"type": "joinGroup", "group": "demo:people", "ackId": 3}))["success"],
        true
    );
    let live = json!({"type": "sendToGroup", "group": "demo:people", "data": "here", "ackId": 3});
    assert_eq!(ask(&mut alice, live)["delivered"], 1);
    let here = bob.json();
    assert_eq!((&here["data"], here.get("position")), (&json!("here"), None), "{here}");
    drop((alice, bob));
    dev.end();
    assert_eq!(entries(&folder), [] as [PathBuf; 0]);
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_store_that_is_named_outlasts_the_nodes() {
    let folder = folder("dev-store");
    let url = format!("sqlite://{}/s.db", folder.display());
    let first = Dev::start(&folder, &["--store", &url]);
    let send = json!({"type": "sendToUser", "user": "bob", "data": "mail", "ackId": 1});
    let mut alice = first.connect(0, "alice");
    await_other_node(&mut alice);
    assert_eq!(ask(&mut alice, send)["queued"], 1);
    drop(alice);
    first.end();
    let second = Dev::start(&folder, &["--store", &url]);
    assert_eq!(ask(&mut second.connect(1, "bob"), json!({"type": "hello"}))["data"], "mail");
    second.end();
    assert!(entries(&folder).iter().all(|path| path.is_file()), "no folder of its own");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_wrong_address_of_a_store_is_told_without_its_password() {
    for (url, reason) in [("sqlite://s.db", "the file's path is absolute"), ("redis://u:hush@", "--store: ")]
    {
        let output = tieline(&["dev", "--store", url]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(reason) && !stderr.contains("hush"), "{stderr}");
    }
}
