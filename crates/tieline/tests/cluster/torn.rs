//! A node that is killed amid appends, and whose file then lacks an end that had been acknowledged, or is damaged: it serves what is
//! there, and says so where something is not.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::client::to_group;
use crate::keepers::{Folder, ask_history, command, history, join_since};
use crate::processes::{Process, eventually};

/// Clients that send at a time.
const SENDERS: usize = 4;

/// Messages that are acknowledged before the kill.
const ACKED: usize = 200;

fn start(folder: &Folder, store: &Path) -> Process {
    Process::spawn("one", command("one", &folder.rules(), store, None))
}

/// Copies a store without what SQLite makes anew.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in ["store.db", "store.db-wal"] {
        let (from, to) = (from.join(name), to.join(name));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// Sends until the node is killed; returns what was acknowledged.
fn fill_and_kill(mut node: Process) -> Vec<Value> {
    let (acked, count) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    let clients: Vec<_> = (0..SENDERS).map(|sender| node.connect("h", &format!("sender-{sender}"))).collect();
    thread::scope(|scope| {
        for (sender, mut client) in clients.into_iter().enumerate() {
            let (acked, count) = (&acked, &count);
            scope.spawn(move || {
                for turn in 0.. {
                    let data = json!(format!("{sender}-{turn}"));
                    match client.try_ask(to_group("kept", data.clone())) {
                        Some(ack) if ack["success"] == true => acked.lock().unwrap().push(data),
                        Some(ack) => panic!("{ack}"),
                        None => return,
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("enough is acknowledged", || count.load(Ordering::Relaxed) >= ACKED);
        node.kill();
    });
    acked.into_inner().unwrap()
}

#[test]
fn after_a_torn_end_what_is_before_it_is_there_and_positions_behind_it_are_refused() {
    let folder = Folder::new();
    let store = folder.store();
    let acked = fill_and_kill(start(&folder, &store));
    let whole = folder.0.join("whole");
    copy(&store, &whole);
    let (epoch, all) = history(&start(&folder, &whole));
    assert!(
        all.len() >= acked.len() && acked.iter().all(|data| all.contains(data)),
        "what was acknowledged is there"
    );
    let written = std::fs::read(store.join("store.db-wal")).unwrap();
    let mut kept = Vec::new();
    for part in 0..=6 {
        let torn = folder.0.join(format!("torn-{part}"));
        copy(&store, &torn);
        // Where anything is missing, half a page in front of it came to the disk as something else.
        let mut tail = written[..written.len() * part / 6].to_vec();
        let end = tail.len();
        if part < 6 {
            tail[end.saturating_sub(1500)..].fill(0x55);
        }
        std::fs::write(torn.join("store.db-wal"), tail).unwrap();
        let node = start(&folder, &torn);
        let (found_epoch, found) = history(&node);
        assert_eq!(found, all[..found.len()], "a part of what there was, from its beginning on");
        let is_whole = found.len() == all.len();
        assert!(found.is_empty() || found_epoch == epoch);
        // Who has seen the end is told whether it is still the end, and is given nothing else for it.
        let mut carol = node.connect("h", "carol");
        let (missed, ack) = join_since(&mut carol, epoch, all.len() as u64);
        assert_eq!((missed.len(), &ack["recovered"]), (0, &json!(is_whole)), "{ack}");
        if !is_whole {
            assert_eq!(
                (&ack["reason"], &ack["position"]["offset"]),
                (&json!("epoch"), &json!(found.len())),
                "{ack}"
            );
        }
        // Who was behind gets what is there.
        let mut dora = node.connect("h", "dora");
        let (missed, ack) = join_since(&mut dora, epoch, 1);
        assert_eq!(ack["recovered"], !found.is_empty(), "{ack}");
        assert!(missed.iter().map(|message| &message["data"]).eq(found.iter().skip(1)));
        let mut alice = node.connect("h", "alice");
        let ack = alice.ask(to_group("kept", "new"));
        assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(2)), "{ack}");
        for member in [&mut carol, &mut dora] {
            let new = member.next();
            assert_eq!((&new["data"], &new["position"]["offset"]), (&json!("new"), &json!(found.len() + 1)));
        }
        let answer = ask_history(&node, &format!("&after={epoch}:{}", all.len()));
        assert_eq!(answer.status, if is_whole { 200 } else { 410 }, "{answer:?}");
        kept.push(found.len());
    }
    assert!(kept.is_sorted() && kept[0] == 0 && kept[6] == all.len(), "{kept:?}");
}

#[test]
fn a_damaged_file_is_refused_or_says_what_it_had() {
    let folder = Folder::new();
    let store = folder.store();
    let acked = fill_and_kill(start(&folder, &store));
    // A node that ends well leaves everything in the file itself.
    let mut node = start(&folder, &store);
    let (_, all) = history(&node);
    assert!(all.len() >= acked.len());
    node.end();
    let written = std::fs::read(store.join("store.db")).unwrap();
    let mut outcomes = Vec::new();
    for page in 0..written.len() / 4096 {
        let damaged = folder.0.join(format!("damaged-{page}"));
        std::fs::create_dir(&damaged).unwrap();
        let mut bytes = written.clone();
        bytes[page * 4096..][..4096].fill(0x55);
        std::fs::write(damaged.join("store.db"), bytes).unwrap();
        match Process::try_spawn("one", command("one", &folder.rules(), &damaged, None)) {
            Err(log) => {
                assert!(
                    log.contains("error: the store ") && log.contains(" cannot be opened: it is "),
                    "{log}"
                );
                outcomes.push("not opened");
            }
            Ok(node) => {
                let answer = ask_history(&node, "");
                if answer.status == 200 {
                    assert_eq!(history(&node).1, all, "page {page}");
                    outcomes.push("whole");
                } else {
                    assert_eq!((answer.status, &*answer.code()), (503, "StoreUnavailable"), "page {page}");
                    outcomes.push("refused");
                }
                // Whatever became of the file, it does not end the node.
                let mut alice = node.connect("h", "alice");
                // Where the damage is in what an inbox needs, the client is told by a gap, which it counts.
                assert_eq!(alice.ask(to_group("live", 1))["success"], true);
            }
        }
    }
    assert_eq!(outcomes[0], "not opened");
    assert!(outcomes.contains(&"refused"), "{outcomes:?}");
}
