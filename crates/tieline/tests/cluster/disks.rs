//! A disk that is full while nodes use it, and one that they may not write to.

use std::fs::{Permissions, set_permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::left_out;

use crate::client::{Client, assert_ack, to_group};
use crate::keepers::{Folder, arguments, command, history, join_since, readiness};
use crate::processes::{Process, eventually};
use crate::support::program::tieline;

/// How long a refusal may take: less than the store waits for anything, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(4);

/// A small disk that only the nodes of the test see: a file system in memory, in a namespace which a process holds.
struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// Makes one in place of a folder; the error says why that cannot be done here.
    fn mount(folder: &Path, size: &str) -> Result<SmallDisk, &'static str> {
        let script = format!("mount -t tmpfs -o size={size} none \"$0\" && echo mounted && read -r _");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).arg(folder);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut holder = child.map_err(|_| "there is no `unshare`")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().expect("it is piped")).read_line(&mut line).unwrap();
        if line == "mounted\n" {
            return Ok(SmallDisk { holder, folder: folder.to_owned() });
        }
        holder.wait().unwrap();
        Err("`unshare -rm` or mounting in it is not allowed here")
    }

    /// The command, run where the disk is seen.
    fn inside(&self, arguments: &[String]) -> Command {
        let program = tieline(&[]);
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "-U", "-m", "-t", &self.holder.id().to_string()]);
        command.arg(program.get_program()).args(arguments);
        for (name, _) in program.get_envs() {
            command.env_remove(name);
        }
        command.env("TIELINE_LIMITS_MESSAGE_RATE", "0").stdin(Stdio::null());
        command
    }

    /// A file on it, as this process reaches it.
    fn path(&self, name: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").expect("it is absolute");
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(folder).join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Sends numbers to the group `kept`, and has those noted that were acknowledged.
fn send(client: &mut Client, acked: &mut Vec<Value>) -> Result<(), Value> {
    let number = json!(acked.len());
    let since = Instant::now();
    let ack = client.ask(to_group("kept", number.clone()));
    assert!(since.elapsed() < SOON, "it took {:?}: {ack}", since.elapsed());
    if ack["success"] == true {
        acked.push(number);
        return Ok(());
    }
    Err(ack["error"]["name"].clone())
}

/// The data of the next messages of `kept`, whose offsets must go on.
fn hear(client: &mut Client, from: usize, count: usize) -> Vec<Value> {
    let message = |offset| {
        let mut message = client.next();
        assert_eq!(message["position"]["offset"], offset, "{message}");
        message["data"].take()
    };
    (from + 1..=from + count).map(message).collect()
}

#[test]
fn while_the_disk_is_full_what_is_kept_is_refused_and_the_rest_goes_on() {
    let folder = Folder::new();
    let store = folder.store();
    let disk = match SmallDisk::mount(&store, "8m") {
        Ok(disk) => disk,
        Err(why) => return left_out("nodes on a full disk", why),
    };
    let ballast = disk.path("ballast");
    std::fs::write(&ballast, vec![1; 6 << 20]).unwrap();
    let start = |name: &str, seed: Option<&Process>| {
        Process::spawn(name, disk.inside(&arguments(name, &folder.rules(), &store, seed)))
    };
    let mut one = start("one", None);
    let mut two = start("two", Some(&one));
    eventually("the nodes reach each other", || one.reaches().len() == 2 && two.reaches().len() == 2);
    let (mut alice, mut ben) = (one.connect("h", "alice"), two.connect("h", "ben"));
    for group in ["kept", "live"] {
        ben.join(group);
    }
    assert_eq!(readiness(&one), ("ok".into(), Some(true)));
    let mut acked = Vec::new();
    let refusal = loop {
        if let Err(name) = send(&mut alice, &mut acked) {
            break name;
        }
        assert!(acked.len() < 5000, "it never was full");
    };
    assert!(refusal == "StoreUnavailable" && acked.len() > 20, "{refusal} after {}", acked.len());
    assert_eq!(hear(&mut ben, 0, acked.len()), acked);
    // At both nodes, by both doors, and each is told soon.
    let mut carl = two.connect("h", "carl");
    for _ in 0..3 {
        assert_eq!(send(&mut alice, &mut acked), Err(json!("StoreUnavailable")));
        assert_eq!(send(&mut carl, &mut acked), Err(json!("StoreUnavailable")));
        let answer = one.post("/groups/kept/:send", &json!("never"));
        assert_eq!((answer.status, &*answer.code()), (503, "StoreUnavailable"));
        // What is not kept goes on, and so do readers.
        assert_ack(&alice.ask(to_group("live", "live")), 1, 0);
        assert_eq!(ben.next_data(), "live");
        assert_eq!(history(&two).1, acked);
        let mut dora = two.connect("h", "dora");
        let (before, ack) = join_since(&mut dora, 0, 0);
        assert_eq!((before.len(), &ack["recovered"]), (acked.len(), &json!(true)), "{ack}");
    }
    for node in [&one, &two] {
        assert_eq!(readiness(node), ("degraded".into(), Some(false)), "{}", node.name);
        assert_eq!(node.metric("tieline_log_store_up"), 0);
        assert!(node.metric("tieline_log_refused_total") >= 3);
    }
    std::fs::remove_file(&ballast).unwrap();
    let before = acked.len();
    for _ in 0..20 {
        send(&mut alice, &mut acked).unwrap();
        send(&mut carl, &mut acked).unwrap();
    }
    for node in [&one, &two] {
        assert_eq!(readiness(node), ("ok".into(), Some(true)), "{}", node.name);
        assert_eq!(node.metric("tieline_log_store_up"), 1);
    }
    assert_eq!(hear(&mut ben, before, 40), acked[before..], "nothing of what was refused came");
    ben.expect_nothing();
    // Nor is anything lost with the nodes.
    drop((alice, ben, carl));
    (one, two) = {
        drop((one, two));
        let again = start("one", None);
        let other = start("two", Some(&again));
        (again, other)
    };
    assert_eq!(history(&one), history(&two));
    assert_eq!(history(&one).1, acked);
}

/// The command for somebody for whom permissions count: where the tests are root's, what root may do all the same is taken away.
fn ordinary(command: Command, folder: &Path) -> Command {
    if std::fs::metadata(folder).unwrap().uid() != 0 {
        return command;
    }
    let mut ordinary = Command::new("setpriv");
    ordinary.args(["--bounding-set", "-dac_override,-dac_read_search", "--"]);
    ordinary.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => ordinary.env(name, value),
            None => ordinary.env_remove(name),
        };
    }
    ordinary.stdin(Stdio::null());
    ordinary
}

/// Whether a folder and the files in it may be written to.
fn set_writable(folder: &Path, may: bool) {
    let mode = |mode: u32| Permissions::from_mode(if may { mode } else { mode & !0o222 });
    for entry in std::fs::read_dir(folder).unwrap() {
        set_permissions(entry.unwrap().path(), mode(0o644)).unwrap();
    }
    set_permissions(folder, mode(0o755)).unwrap();
}

#[test]
fn a_folder_that_may_not_be_written_to_is_told_when_a_node_starts_and_costs_nothing_that_is_there() {
    let folder = Folder::new();
    let store = folder.store();
    let node = || ordinary(command("one", &folder.rules(), &store, None), &store);
    if node().arg("--version").output().is_err() {
        return left_out("nodes in a folder that may not be written to", "there is no `setpriv`");
    }
    let one = Process::spawn("one", node());
    let mut alice = one.connect("h", "alice");
    let mut acked = Vec::new();
    for _ in 0..20 {
        send(&mut alice, &mut acked).unwrap();
    }
    // A node that has the file open may go on writing: nothing is refused, and nothing is lost.
    set_writable(&store, false);
    for _ in 0..20 {
        send(&mut alice, &mut acked).unwrap();
    }
    assert_eq!(history(&one).1, acked);
    drop((one, alice));
    let output = node().output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{stderr}");
    assert!(
        stderr.contains("store.db cannot be opened: it, or its folder, may not be written to"),
        "{stderr}"
    );
    set_writable(&store, true);
    let again = Process::spawn("one", node());
    assert_eq!(history(&again).1, acked);
    send(&mut again.connect("h", "alice"), &mut acked).unwrap();
    assert_eq!(history(&again).1, acked);
}
