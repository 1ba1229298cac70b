//! Configurations that change while a node runs: a file with SIGHUP, and a document of a real Nacos server, which dies and comes
//! back (its test is in `nacos.rs`); and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;
use tieline_core::token::{Grant, Keys};
use tieline_core::unix_ms;
use tieline_proto::HubName;
use xtask::Engine;

use crate::client::{Client, to_group};
use crate::keepers::Folder;
use crate::processes::{Process, eventually, refusal};
use crate::support::program::tieline;

fn serve() -> Command {
    tieline(&[
        "serve",
        "--node",
        "n",
        "--shards",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ])
}

/// Connects with a token of a key; the error is the status of the answer.
pub(crate) fn connect(node: &Process, key: &str) -> Result<Client, u16> {
    let grant = Grant {
        endpoint: "http://h".into(),
        hub: HubName::new("h").unwrap(),
        user: None,
        roles: ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"].map(String::from).into(),
        groups: vec![],
        presence: None,
        lifetime: 600,
    };
    let token = Keys::new([key]).sign_client(&grant, unix_ms() / 1000).unwrap();
    Client::enter(node.address, "h", &format!("access_token={token}")).map_err(|answer| answer.status)
}

#[track_caller]
fn assert_keys(node: &Process, good: &str, bad: &str) {
    assert!(connect(node, good).is_ok());
    assert_eq!(connect(node, bad).err(), Some(401));
}

fn changes(node: &Process) -> [u64; 2] {
    ["taken", "refused"]
        .map(|result| node.metric(&format!("tieline_config_changes_total{{result=\"{result}\"}}")))
}

#[track_caller]
fn await_changes(node: &Process, expected: [u64; 2]) {
    eventually(&format!("{expected:?} changes were taken and refused"), || changes(node) == expected);
}

#[test]
fn a_changed_file_is_applied_at_a_signal_and_one_with_a_mistake_is_not() {
    let folder = Folder::new();
    let (file, keys) = (folder.0.join("changing.toml"), folder.0.join("keys"));
    let write = |path: &Path, text: &str| fs::write(path, text).unwrap();
    let change = |node: &Process, text: &str| {
        write(&file, text);
        node.signal(Signal::SIGHUP);
    };
    write(&file, "access_key = [\"one\"]\n[log]\nfilter = \"warn\"\n");
    let mut command = serve();
    command.arg("--config").arg(&file).args(["--access-key-file", keys.to_str().unwrap()]);
    write(&keys, "filed\n");
    let mut node = Process::spawn("n", command);
    assert_keys(&node, "one", "two");
    assert_keys(&node, "filed", "two");
    let mut old = connect(&node, "one").unwrap();

    // What a running node can change is changed, for old connections too; the rest is named.
    change(
        &node,
        "access_key = [\"two\"]\nlisten = \"127.0.0.1:1\"\ndemo = \"off\"\n\
         [limits]\nmessage_rate = 1\nmessage_burst = 1\ngroups_per_connection = 2\n[times]\nidle = \"1h\"\n",
    );
    await_changes(&node, [1, 0]);
    // A line of the level that was off before.
    node.wait_for_log("changed=\"access_key, limits.groups_per_connection, limits.message_rate, limits.message_burst, log.filter\"");
    // The address is that of the flag.
    node.wait_for_log("settings=\"demo, times.idle\"");
    node.await_metric("tieline_config_waiting_settings", 2);
    assert_keys(&node, "two", "one");
    let answers: Vec<_> = (0..3).map(|_| old.ask(to_group("g", 1))["error"]["name"].take()).collect();
    assert!(answers.contains(&json!("RateLimited")), "{answers:?}");

    // With a mistake nothing counts.
    change(&node, "access_key = [\"three\"]\nlisen = \"x\"\n[times]\nidle = 7\n");
    await_changes(&node, [1, 1]);
    node.wait_for_log("did you mean `listen`?");
    assert_keys(&node, "two", "three");
    fs::remove_file(&file).unwrap();
    node.signal(Signal::SIGHUP);
    await_changes(&node, [1, 2]);
    assert_keys(&node, "two", "three");

    // Files of keys are read again, too; and what is as at the start waits for nothing.
    write(&keys, "filed anew\n");
    change(&node, "access_key = [\"one\"]\n");
    await_changes(&node, [2, 2]);
    assert_keys(&node, "filed anew", "filed");
    node.await_metric("tieline_config_waiting_settings", 0);
    write(&keys, "");
    node.signal(Signal::SIGHUP);
    await_changes(&node, [2, 3]);
    assert_keys(&node, "filed anew", "two");
    node.end();
}

/// A start that fails soon, with these words and without a password.
#[track_caller]
fn expect_refused(config: &str, words: &str) {
    for check in [false, true] {
        let mut command = if check { tieline(&["check-config"]) } else { serve() };
        let (status, told) = refusal(command.args(["--config", config]));
        assert_eq!(status.code(), Some(2), "{told}");
        assert!(told.contains(words) && !told.contains("hush"), "{told}");
    }
}

#[test]
fn an_address_of_nothing_is_told_at_once() {
    expect_refused("etcd://:hush@h/x", "there is no `etcd://`");
    expect_refused("/nowhere/tieline.toml", "/nowhere/tieline.toml");
    if cfg!(feature = "nacos") {
        expect_refused("nacos://u:hush@127.0.0.1:1/?dataId=x", "127.0.0.1:1");
        expect_refused("nacos://u:hush@127.0.0.1:1/", "dataId=NAME");
    } else {
        expect_refused("nacos://u:hush@127.0.0.1:1/?dataId=x", "--features nacos");
    }
}

/// A document of Nacos is followed, and outlives the server, which is killed and started again.
#[cfg_attr(not(feature = "nacos"), allow(dead_code))]
pub(crate) fn follow(server: &mut Engine) {
    let url = server.url().to_owned();
    let (_, place) = url.split_once('@').unwrap();
    let publish = |text: &str| {
        let text = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        let form = format!("dataId=node.toml&groupName=tieline&content={text}");
        xtask::engine::nacos::command(&url, "POST", "/nacos/v3/admin/cs/config", &form).unwrap();
    };
    // The server answers a tenth of a second before it gives what it was told to those who ask.
    let shows = || {
        let path = "/nacos/v3/client/cs/config?namespaceId=public&groupName=tieline&dataId=node.toml";
        let answer = xtask::engine::nacos::command(&url, "GET", path, "").unwrap();
        answer.contains("\"content\"")
    };
    let config = format!("{url}?group=tieline&dataId=node.toml");
    expect_refused(
        &format!("nacos://nacos:hush@{place}?dataId=node.toml"),
        "does not know this user and password",
    );
    expect_refused(&format!("nacos://{place}?dataId=node.toml"), "wants a user and a password");
    expect_refused(&config, "there is no such document");

    let good = "access_key = [\"one\"] # ü\n";
    publish(good);
    eventually("the document is there", shows);
    let output = tieline(&["check-config", "--config", &config]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        shown.contains(&format!(
            "access_key = [\"***\"] # nacos://***@{place}?group=tieline&dataId=node.toml, line 1"
        )),
        "{output:?}"
    );

    let folder = Folder::new();
    let copy = folder.0.join("state/copy.toml");
    let start = || {
        let mut command = serve();
        command.env("TIELINE_CONFIG", &config).env("TIELINE_CONFIG_COPY", &copy);
        Process::spawn("n", command)
    };
    let mut node = start();
    assert_keys(&node, "one", "two");
    let kept = || fs::read_to_string(&copy).unwrap_or_default();
    eventually("the copy is written", || kept() == good);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);

    let better = "access_key = [\"two\"]\nshards = 2\n[times]\nidle = \"1h\"\n";
    publish(better);
    await_changes(&node, [1, 0]);
    node.wait_for_log("settings=\"times.idle\"");
    assert_keys(&node, "two", "one");
    eventually("the copy is written", || kept() == better);
    publish("access_key = [\"three\"]\nlisen = 1\n");
    await_changes(&node, [1, 1]);
    node.wait_for_log("did you mean `listen`?");
    assert_keys(&node, "two", "three");
    assert_eq!(kept(), better);

    // The server dies, and the node after it.
    server.kill().unwrap();
    eventually("the outage is noticed", || node.metric("tieline_config_source_up") == 0);
    assert_keys(&node, "two", "three");
    node.kill();
    let mut node = start();
    node.wait_for_log("starts from the last good copy");
    assert_keys(&node, "two", "three");
    node.await_metric("tieline_config_source_up", 0);
    expect_refused(&config, "no server answers");
    server.restart().unwrap();
    // What it has is still no good.
    await_changes(&node, [0, 1]);
    node.await_metric("tieline_config_source_up", 1);
    publish(good);
    await_changes(&node, [1, 1]);
    assert_keys(&node, "one", "two");
    eventually("the copy is written", || kept() == good);
}
