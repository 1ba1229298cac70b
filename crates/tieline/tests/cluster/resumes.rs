//! Clients of the reliable protocol whose nodes are killed, with everything that they get kept in one SQLite file: they go on at another
//! node, or at their own when it is started again, and miss nothing that was acknowledged.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::dialects::{Dialect, Heard, Speaker};
use crate::processes::{TestCluster, eventually, eventually_within};

/// How long a dead node is believed to live, and a little more; a node that stands still is also linked for as long.
const LEASE: Duration = Duration::from_secs(60);

/// A folder of its own for the store, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tieline-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let rules = "[[group]]\nmatch = \"kept*\"\nhistory = { count = 100000 }\n[inbox]\ncount = 1000\n";
        std::fs::write(path.join("rules.toml"), rules).unwrap();
        Folder(path)
    }

    fn start(&self, count: usize) -> TestCluster {
        let (rules, store) = (self.0.join("rules.toml"), self.0.join("store.db"));
        let store = format!("sqlite://{}", store.display());
        TestCluster::start_with(count, &["--config", rules.to_str().unwrap(), "--store", &store], &[])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends numbers to a group until it is to stop. Returns the last one; all of them are acknowledged.
fn send_on(sender: &mut Client, stop: &AtomicBool, read: &AtomicU64) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        if number > read.load(Ordering::Relaxed) + 300 {
            thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        number += 1;
        let frame = json!({"type": "sendToGroup", "group": "kept", "dataType": "json", "data": number});
        let ack = sender.ask(frame);
        assert_eq!(ack["success"], true, "{ack}");
    }
    number
}

/// Comes again until a node takes the client.
fn come_back(reader: &mut Speaker, cluster: &TestCluster, node: usize) {
    let mut codes = BTreeSet::new();
    eventually_within(LEASE, "it is taken", || match reader.recover(cluster.nodes[node].address, "h") {
        Ok(()) => true,
        Err(code) => {
            codes.insert(code);
            assert_eq!(codes, BTreeSet::from([1013]), "a client that can go on is told to start afresh");
            false
        }
    });
}

/// Reads and acknowledges until so many numbers have come and the node has written the client down anew.
fn read_on(
    reader: &mut Speaker,
    cluster: &TestCluster,
    node: usize,
    got: &mut BTreeSet<u64>,
    read: &AtomicU64,
) {
    let written = || cluster.nodes[node].metric("tieline_checkpoints_written_total");
    let (begun, goal) = (written(), got.len() + 200);
    let mut count = 0;
    loop {
        let number = match reader.next() {
            Heard::Message(number) => number as u64,
            other => panic!("{other:?}"),
        };
        got.insert(number);
        read.fetch_max(number, Ordering::Relaxed);
        count += 1;
        if count % 20 == 0 {
            reader.acknowledge();
            if got.len() >= goal && written() >= begun + 2 {
                return;
            }
        }
    }
}

#[test]
fn a_client_whose_nodes_are_killed_one_behind_the_other_gets_every_acknowledged_message() {
    let folder = Folder::new("resumes");
    let mut cluster = folder.start(3);
    let mut reader = Speaker::connect(cluster.nodes[0].address, Dialect::Reliable, "h", "reader");
    reader.join("kept");
    let mut sender = cluster.nodes[2].connect("h", "sender");
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut got = BTreeSet::new();
    let last = thread::scope(|scope| {
        let sending = scope.spawn(|| send_on(&mut sender, &stop, &read));
        read_on(&mut reader, &cluster, 0, &mut got, &read);
        cluster.kill(0);
        come_back(&mut reader, &cluster, 1);
        let Heard::Message(number) = reader.next() else { panic!("a number comes") };
        got.insert(number as u64);
        assert_eq!(reader.generation(), 1);
        // Before it can have written anything down of its own.
        cluster.kill(1);
        come_back(&mut reader, &cluster, 2);
        read_on(&mut reader, &cluster, 2, &mut got, &read);
        assert_eq!(reader.generation(), 2);
        stop.store(true, Ordering::Relaxed);
        sending.join().unwrap()
    });
    while got.len() < last as usize {
        match reader.next() {
            Heard::Message(number) => got.insert(number as u64),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(got, (1..=last).collect::<BTreeSet<u64>>());
    cluster.nodes[2].await_metric("tieline_resumed_total", 1);
}

#[test]
fn a_client_goes_on_at_its_own_node_as_soon_as_that_is_started_again() {
    let folder = Folder::new("restarted");
    let mut cluster = folder.start(2);
    let mut reader = Speaker::connect(cluster.nodes[0].address, Dialect::Reliable, "h", "reader");
    reader.join("kept");
    let mut sender = cluster.nodes[1].connect("h", "sender");
    let mut send = |number: u64| {
        let frame = json!({"type": "sendToGroup", "group": "kept", "dataType": "json", "data": number});
        assert_eq!(sender.ask(frame)["success"], true);
    };
    (1..=30).for_each(&mut send);
    for number in 1..=30 {
        assert_eq!(reader.next(), Heard::Message(number));
    }
    reader.acknowledge();
    let stored = || cluster.nodes[0].metric("tieline_checkpoints_written_total") >= 1;
    eventually_within(Duration::from_secs(10), "it is written down", stored);
    for round in 0..2 {
        cluster.kill(0);
        send(31 + round);
        cluster.restart(0);
        come_back(&mut reader, &cluster, 0);
        let mut got = Vec::new();
        while got.last() != Some(&(31 + round as usize)) {
            match reader.next() {
                Heard::Message(number) => got.push(number),
                other => panic!("{other:?}"),
            }
        }
        assert!(got.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{got:?}");
        assert_eq!(reader.generation(), round + 1);
    }
    // Who is in a live group besides is told to start afresh, and so is who has no proof.
    let mut live = Speaker::connect(cluster.nodes[0].address, Dialect::Reliable, "h", "live");
    live.join("kept");
    live.join("live");
    cluster.kill(0);
    cluster.restart(0);
    let mut last = Ok(());
    eventually_within(LEASE, "it is refused", || {
        last = live.recover(cluster.nodes[0].address, "h");
        last != Err(1013)
    });
    assert_eq!(last, Err(1008));
}

#[test]
fn a_node_that_stood_still_lets_go_of_a_client_that_went_on_elsewhere() {
    let folder = Folder::new("frozen");
    let cluster = folder.start(2);
    let mut old = Speaker::connect(cluster.nodes[0].address, Dialect::Reliable, "h", "reader");
    old.join("kept");
    let stored = || cluster.nodes[0].metric("tieline_checkpoints_written_total") >= 1;
    eventually_within(Duration::from_secs(10), "it is written down", stored);
    cluster.stop(0);
    let mut new = None;
    eventually_within(LEASE, "it is taken", || {
        new = old.recover_beside(cluster.nodes[1].address, "h").ok();
        new.is_some()
    });
    let mut new = new.unwrap();
    let mut sender = cluster.nodes[1].connect("h", "sender");
    let frame = json!({"type": "sendToGroup", "group": "kept", "dataType": "json", "data": 1});
    assert_eq!(sender.ask(frame.clone())["success"], true);
    assert_eq!(new.next(), Heard::Message(1));
    cluster.cont(0);
    // It hears that the other node holds the connection, and reads in the store that this is so.
    let end = std::iter::repeat_with(|| old.next()).find(|heard| !matches!(heard, Heard::Message(_)));
    // What the other one had asked for before it believed this one dead may be done first, and takes the socket away without a word.
    assert!(matches!(end, Some(Heard::Close(1008) | Heard::End)), "{end:?}");
    eventually("it is let go of", || cluster.nodes[0].metric("tieline_fenced_total") == 1);
    assert_eq!(sender.ask(frame)["success"], true);
    assert_eq!(new.next(), Heard::Message(1));
}
