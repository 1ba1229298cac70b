//! Two nodes of one name: the later one is turned away as long as the earlier one answers, and takes its place when it does not;
//! the earlier one, when it goes on, sends its clients away and ends.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use xtask::Engine;

use crate::processes::{Process, SECRET, any, eventually};
use crate::support::program::tieline;

/// How long a client waits for the end of its connection: beats come every five seconds, and two of them are waited for.
const END: Duration = Duration::from_secs(25);

/// For longer than this a node that has just been started does not give way.
const PROBATION: Duration = Duration::from_millis(2_500);

/// A node of this name, in a cluster that no other test has.
fn node(test: &str, name: &str, flags: &[&str]) -> Command {
    let mut command = tieline(&["serve", "--node", name, "--shards", "1", "--listen", "127.0.0.1:0"]);
    command.args(["--cluster", &format!("{test}-{}", std::process::id())]).args(flags);
    command
}

/// The later one ends by itself because the earlier one lives, which notices nothing.
fn is_turned_away(first: &Process, mut second: Process) {
    let mut client = first.connect("h", "anna");
    second.wait_for_log("is called `a` and answers");
    assert_eq!(second.exit_code(), Some(1));
    client.expect_nothing();
    assert_eq!(client.ask(serde_json::json!({"type": "joinGroup", "group": "g"}))["success"], true);
}

/// The earlier one stands still, and the later one is there in its place; when the earlier one goes on, it ends.
fn takes_the_place(mut first: Process, start: impl FnOnce() -> Process) {
    let mut client = first.connect("h", "anna");
    first.signal(Signal::SIGSTOP);
    let second = start();
    let mut other = second.connect("h", "ben");
    let since = Instant::now();
    eventually("it has stayed for longer than it would give way", || {
        second.reaches() == ["a"] && since.elapsed() > PROBATION
    });
    first.signal(Signal::SIGCONT);
    // It is told that it may come back: to another node.
    let close = client.next_within(END).expect("nobody ended the connection");
    assert_eq!((&close["type"], &close["code"]), (&"close".into(), &1001.into()), "{close}");
    first.wait_for_log("started later is called `a`");
    assert_eq!(first.exit_code(), Some(1));
    other.expect_nothing();
    assert_eq!(other.ask(serde_json::json!({"type": "joinGroup", "group": "g"}))["success"], true);
    eventually("the one that is left is alone under its name", || second.reaches() == ["a"]);
}

#[test]
fn with_a_registry_a_name_in_use_is_refused_before_anybody_notices() {
    let server = Engine::redis().start().unwrap();
    let flags = ["--registry", server.url()];
    let first = Process::spawn("a", node("used", "a", &flags));
    let key = format!("tieline:used-{}:nodes", std::process::id());
    let is_registered = || xtask::engine::redis::ask(server.url(), &format!("EXISTS {key}")).unwrap() == ":1";
    eventually("it is registered", is_registered);
    let refused = node("used", "a", &flags).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{told}");
    assert!(told.contains(&format!("is called `a` and answers at ws://{}", first.address)), "{told}");
    assert!(told.contains("--node"), "{told}");
    // Another name is none of its business, and a name whose holder is dead is free.
    drop(Process::spawn("b", node("used", "b", &flags)));
    drop(first);
    drop(Process::spawn("a", node("used", "a", &flags)));
}

#[test]
fn with_a_registry_a_node_that_stands_still_loses_its_name() {
    let server = Engine::redis().start().unwrap();
    let flags = ["--registry", server.url()];
    let first = Process::spawn("a", node("still", "a", &flags));
    let key = format!("tieline:still-{}:nodes", std::process::id());
    let is_registered = || xtask::engine::redis::ask(server.url(), &format!("EXISTS {key}")).unwrap() == ":1";
    eventually("it is registered", is_registered);
    takes_the_place(first, || Process::spawn("a", node("still", "a", &flags)));
}

#[test]
fn over_redis_beats_tell_of_a_name_in_use() {
    let server = Engine::redis().start().unwrap();
    let flags = ["--broker", server.url()];
    let first = Process::spawn("a", node("beats", "a", &flags));
    is_turned_away(&first, Process::spawn("a", node("beats", "a", &flags)));
    takes_the_place(first, || Process::spawn("a", node("beats", "a", &flags)));
}

#[test]
fn over_links_beats_tell_of_a_name_in_use() {
    let start = |seeds: &[std::net::SocketAddr]| {
        Process::start("a", any(), any(), seeds, &["--cluster-secret", SECRET], &[])
    };
    let first = start(&[]);
    let peers = first.peers;
    is_turned_away(&first, start(&[peers]));
    takes_the_place(first, || start(&[peers]));
}
