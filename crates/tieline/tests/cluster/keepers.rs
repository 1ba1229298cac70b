//! Nodes of real processes that keep messages in one file, for the tests of what may happen to it: a folder, the rules, and what a
//! node tells of its logs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::client::Client;
use crate::processes::{Process, SECRET};
use crate::support::http::{Answer, call, get};
use crate::support::program::tieline;

/// Rules of every node here: `live` alone is not kept.
const RULES: &str = "[[group]]\nmatch = \"live\"\n[[group]]\nmatch = \"*\"\nhistory = { count = 100000 }\n\
                     [inbox]\ncount = 1000\n";

/// A folder of its own, gone at the end of the test, with the nodes' rules in it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("tieline-keepers-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("node.toml"), RULES).unwrap();
        Folder(path)
    }

    pub(crate) fn rules(&self) -> PathBuf {
        self.0.join("node.toml")
    }

    /// Where the store is: a folder in it.
    pub(crate) fn store(&self) -> PathBuf {
        let store = self.0.join("store");
        std::fs::create_dir_all(&store).unwrap();
        store
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The arguments of a node that keeps messages in `store.db` of a folder.
pub(crate) fn arguments(name: &str, rules: &Path, store: &Path, seed: Option<&Process>) -> Vec<String> {
    let seed = seed.map(|node| node.peers.to_string()).unwrap_or_default();
    let (broker, store) = (format!("mesh://{seed}"), format!("sqlite://{}/store.db", store.display()));
    let rules = rules.to_str().unwrap();
    let free = "127.0.0.1:0";
    let arguments = [
        ["serve", "--shards=2"],
        ["--node", name],
        ["--config", rules],
        ["--store", &store],
        ["--listen", free],
        ["--peer-listen", free],
        ["--broker", &broker],
        ["--cluster-secret", SECRET],
    ];
    arguments.concat().into_iter().map(str::to_owned).collect()
}

/// The command of such a node.
pub(crate) fn command(name: &str, rules: &Path, store: &Path, seed: Option<&Process>) -> Command {
    let mut command = tieline(&[]);
    command.args(arguments(name, rules, store, seed)).env("TIELINE_LIMITS_MESSAGE_RATE", "0");
    command
}

/// A request for what is kept of the group `kept`.
pub(crate) fn ask_history(node: &Process, query: &str) -> Answer {
    call(node.address, "GET", &format!("/api/v1/hubs/h/groups/kept/history?limit=1000{query}"), "", "")
}

/// What a node finds of the group `kept`, from the first message on, with the log's epoch; the offsets must have no hole.
pub(crate) fn history(node: &Process) -> (u64, Vec<Value>) {
    let mut found = Vec::new();
    let mut epoch = 0;
    loop {
        let answer = ask_history(node, &format!("&after={epoch}:{}", found.len()));
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        epoch = page["epoch"].as_u64().unwrap();
        for message in page["messages"].as_array().unwrap() {
            assert_eq!(message["position"], json!({"epoch": epoch, "offset": found.len() + 1}));
            found.push(message["data"].clone());
        }
        if page.get("nextLink").is_none() {
            assert_eq!(page["last"], found.len());
            return (epoch, found);
        }
    }
}

/// Joins the group `kept` at a position, and returns what comes before the ack, and the ack.
pub(crate) fn join_since(client: &mut Client, epoch: u64, offset: u64) -> (Vec<Value>, Value) {
    let since = json!({"epoch": epoch, "offset": offset});
    let number = client.send_acked(json!({"type": "joinGroup", "group": "kept", "since": since}));
    let mut before = Vec::new();
    loop {
        let frame = client.next();
        if frame["type"] == "ack" {
            assert_eq!(frame["ackId"], number, "{frame}");
            return (before, frame);
        }
        before.push(frame);
    }
}

/// The word by which a node says whether it is ready, and whether it thinks that its store does what it is asked.
pub(crate) fn readiness(node: &Process) -> (String, Option<bool>) {
    let answer = get(node.address, "/readyz", "");
    assert_eq!(answer.status, 200, "it serves");
    let body = answer.json();
    (body["status"].as_str().unwrap().to_owned(), body["store_up"].as_bool())
}
