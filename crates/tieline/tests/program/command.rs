//! The program itself: its commands, what they print, and how they end.

use std::io::Read;
use std::process::{Child, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tieline_websocket::ClientRequest;

use crate::support::program::{start, tieline};
use crate::support::socket::{Frame, Socket};

fn output(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = tieline(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn a_signal_ends_the_server_well() {
    for (args, end) in [
        (&["serve", "--listen", "127.0.0.1:0"][..], Signal::SIGTERM),
        (&["echo", "--listen", "127.0.0.1:0"], Signal::SIGINT),
    ] {
        let (mut child, address) = start(args, &[]);
        let request = ClientRequest::new("localhost", "/client/?user=u").unwrap().protocol("tieline.v1");
        let mut client = match Socket::open(address, request.clone()) {
            Ok(client) => client,
            Err(answer) => panic!("{answer:?}"),
        };
        if args[0] == "serve" {
            assert_eq!(client.json()["event"], "connected");
        }
        signal(&child, end);
        assert!(matches!(client.next(), Frame::Close(1001, _)));
        client.close(1001);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (mut child, address) = start(&["serve", "--listen", "127.0.0.1:0"], &[]);
    let request = ClientRequest::new("localhost", "/client/?user=u").unwrap().protocol("tieline.v1");
    // This client does not answer the close frame, so a proper end would take seconds.
    let mut client = Socket::open(address, request).unwrap();
    assert_eq!(client.json()["event"], "connected");
    signal(&child, Signal::SIGTERM);
    assert!(matches!(client.next(), Frame::Close(1001, _)));
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn tokens_and_what_clients_send_stay_out_of_the_log() {
    let (mut child, address) =
        start(&["serve", "--listen", "127.0.0.1:0", "--access-key", "a secret key"], &[]);
    let request = ClientRequest::new("localhost", "/client/hubs/h?access_token=SECRET1&user=USER1").unwrap();
    assert!(Socket::open(address, request.protocol("tieline.v1")).is_err());
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("The node has started."), "{log}");
    for secret in ["SECRET1", "USER1", "a secret key"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stdout, stderr) = output(&["serve", "--listen", &address]);
    assert_eq!((code, &*stdout), (Some(1), ""));
    assert!(stderr.contains(&format!("error: cannot listen on {address}: ")), "{stderr}");
}

#[test]
fn mistakes_in_the_configuration_end_with_2() {
    for args in [
        &["serve", "--listen", "here"][..],
        &["check-config", "--broker", "redi://x"],
        &["check-config", "--config", "/does/not/exist.toml"],
        &["check-config", "--access-key-file", "/does/not/exist"],
        &["serve", "--lisen", "127.0.0.1:0"],
        &["nothing"],
        &[],
    ] {
        let (code, stdout, stderr) = output(args);
        assert_eq!((code, &*stdout), (Some(2), ""), "{args:?}: {stderr}");
        assert!(stderr.len() < 2000 && !stderr.is_empty(), "{stderr}");
    }
    let (_, _, stderr) = output(&["check-config", "--broker", "redi://user:secret@x"]);
    assert!(
        stderr.contains(
            "`broker` takes the address of a broker, not \"redi://***@x\": known are `memory:`, `mesh:"
        ) && !stderr.contains("secret"),
        "{stderr}"
    );
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_known_one_wherever_it_stands() {
    let file = std::env::temp_dir().join(format!("tieline-unknown-{}.toml", std::process::id()));
    std::fs::write(&file, "[limits]\nmax_mesage = \"1MiB\"\n").unwrap();
    let path = file.to_str().unwrap();
    for (args, variable, nearest) in [
        (&["check-config", "--config", path][..], None, "`limits.max_message`"),
        (&["serve", "--config", path], None, "`limits.max_message`"),
        (&["check-config"], Some("TIELINE_LIMITS_MAX_MESAGE"), "`TIELINE_LIMITS_MAX_MESSAGE`"),
        (&["serve"], Some("TIELINE_LISEN"), "`TIELINE_LISTEN`"),
        (&["serve", "--lisen", "127.0.0.1:0"], None, "'--listen'"),
        (&["check-config", "--acess-key", "k"], None, "'--access-key'"),
    ] {
        let mut command = tieline(args);
        command.envs(variable.map(|name| (name, "x")));
        let out = command.output().unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?} {variable:?}: {stderr}");
        assert!(stderr.contains(nearest), "{args:?} {variable:?}: {stderr}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_checked_configuration_shows_origins_and_no_secrets() {
    let mut command = tieline(&["check-config", "--access-key", "SECRET", "--shards", "3"]);
    let out = command.env("TIELINE_LIMITS_MAX_MESSAGE", "2MiB").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0));
    for line in [
        "access_key = [\"***\"] # --access-key",
        "shards = 3 # --shards",
        "max_message = \"2MiB\" # TIELINE_LIMITS_MAX_MESSAGE",
        "cluster = \"tieline\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("SECRET"));
    // What is shown is a configuration itself.
    toml::from_str::<toml::Table>(&text).unwrap();
}

#[test]
fn a_token_made_by_hand_opens_the_door() {
    let (mut child, address) = start(&["serve", "--listen", "127.0.0.1:0", "--access-key", "a key"], &[]);
    let url = format!("http://{address}/");
    let (code, stdout, _) = output(&[
        "token",
        "--access-key",
        "a key",
        "--hub",
        "h[1]",
        "--user",
        "ü",
        "--role",
        "webpubsub.sendToGroup.r",
        "--group",
        "g",
        "--expires",
        "5m",
        "--url",
        &url,
    ]);
    assert_eq!(code, Some(0));
    let path = stdout.trim_end().strip_prefix(&format!("ws://{address}")).unwrap();
    let request = ClientRequest::new(&address.to_string(), path).unwrap().protocol("tieline.v1");
    let mut client = Socket::open(address, request).unwrap();
    assert_eq!(client.json()["userId"], "ü");
    drop(client);
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for args in [
        &["token", "--access-key", "k", "--role", "sendToGroup"][..],
        &["token", "--access-key", "k", "--expires", "5"],
        &["token", "--access-key", "k", "--hub", "1"],
        &["token", "--access-key", "k", "--url", "ftp://x"],
        &["token", "--access-key", ","],
        &["token"],
    ] {
        assert_eq!(output(args).0, Some(2), "{args:?}");
    }
}
