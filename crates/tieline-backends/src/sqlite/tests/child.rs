//! Another process that has the store open: started, read from, stopped, killed by the tests beside this file.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tieline_core::store::{Refusal, Store, StoreError};

use super::{SqliteStore, append};

/// What the child is to do, in its environment.
const ROLE: &str = "TIELINE_TEST_STORE_ROLE";

/// The file, in its environment.
const FILE: &str = "TIELINE_TEST_STORE_FILE";

/// A process that is killed at the end of its test.
pub(super) struct Neighbour {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Neighbour {
    /// Starts this test program once more; `before` are words in front of its command, such as `unshare`.
    pub(super) fn start(role: &str, file: &Path, before: &[&str]) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut words: Vec<&str> = before.to_vec();
        let own = own.to_str().unwrap();
        words.extend([own, "--exact", "sqlite::tests::child::be_one", "--nocapture", "--test-threads=1"]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env(ROLE, role).env(FILE, file);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Neighbour { child, lines }
    }

    /// The next line that it says to its parent; none when it is gone.
    pub(super) fn next(&mut self) -> Option<String> {
        loop {
            // A line that was cut off by its death was not said.
            let line = self.lines.next()?.ok()?;
            if let Some(said) = line.split_once("> ").and_then(|(_, said)| said.strip_suffix(" .")) {
                return Some(said.to_owned());
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Everything that it said and nobody has read yet, after its end.
    pub(super) fn kill_and_hear(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the parent, marked at both ends: the test program says things of its own.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "> {text} .").and_then(|()| out.flush());
}

/// The child's whole program. In an ordinary run of the tests it does nothing.
#[test]
fn be_one() {
    let (Ok(role), Some(file)) = (std::env::var(ROLE), std::env::var_os(FILE)) else { return };
    let file = Path::new(&file);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    match &*role {
        "hold" => hold(file),
        "append" => runtime.block_on(append_for_ever(file)),
        "fill" => runtime.block_on(fill(file)),
        role => panic!("there is no role {role}"),
    }
}

/// Takes the lock and keeps it.
fn hold(file: &Path) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    say("held");
    let _ = std::io::stdin().lines().next();
}

/// Appends from eight tasks to three logs, and says each that was acknowledged: log, epoch, offset, body.
async fn append_for_ever(file: &Path) {
    let store = Arc::new(SqliteStore::open(file).unwrap());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for turn in 0.. {
                    let log = ["a", "b", "c"][(task + turn) % 3];
                    let body = format!("{}-{task}-{turn}", std::process::id());
                    match store.append(append(log, body.as_bytes())).await {
                        Ok(appended) => {
                            say(&format!(
                                "{log} {} {} {body}",
                                appended.position.epoch, appended.position.offset
                            ));
                        }
                        Err(StoreError::Refused(Refusal::Busy)) => say("busy"),
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Mounts a disk of 2 MiB over the file's folder, where nobody else sees it, fills it, makes room, and goes on.
async fn fill(file: &Path) {
    let folder = file.parent().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(folder).status();
    if !mount.is_ok_and(|status| status.success()) {
        return say("no mount");
    }
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![0; 512 << 10]).unwrap();
    let store = SqliteStore::open(file).unwrap();
    let mut acknowledged = 0;
    let mut refusal = None;
    // More than the disk can hold, twice.
    for _ in 0..200 {
        match store.append(append("a", &[7; 20_000])).await {
            Ok(appended) => acknowledged = appended.position.offset,
            Err(error) => {
                refusal = Some(error);
                break;
            }
        }
    }
    let refusal = refusal.map_or_else(|| "it was never full".to_owned(), |error| error.to_string());
    say(&format!("after {acknowledged}: {refusal}"));
    let read = async || store.read(super::group("a"), None, super::ALL).await.unwrap().messages.len();
    say(&format!("kept {}", read().await));
    std::fs::remove_file(&ballast).unwrap();
    let appended = store.append(append("a", b"room again")).await;
    say(&format!("then {:?}", appended.map(|appended| appended.position.offset)));
    drop(store);
    let store = SqliteStore::open(file).unwrap();
    let kept = store.read(super::group("a"), None, super::ALL).await.unwrap().messages.len();
    say(&format!("kept {kept}"));
}
