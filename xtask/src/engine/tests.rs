//! The keeper against real servers: data that outlive a kill, nothing that outlives a drop.

use std::net::TcpListener;
use std::path::Path;

use super::redis::ask;
use super::{Builder, Engine, Error, Kind, Source, are_free, free_port, kind, rabbitmq, supervisor};
use crate::left_out;

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_killed_engine_comes_back_with_its_port_and_data() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        left_out("xtask: a killed engine", "TIELINE_TEST_REDIS names a server, which must not be killed");
        return;
    }
    let mut engine = Engine::redis().start().unwrap();
    let url = engine.url().to_owned();
    let first = engine.pid().unwrap();
    assert_eq!(ask(&url, "SET kept yes").unwrap(), "+OK");

    engine.kill().unwrap();
    assert_eq!(engine.pid(), None);
    assert!(!is_running(first), "a killed server must be reaped, not only signalled");
    assert!(ask(&url, "PING").is_err(), "nobody may answer on the port of a killed server");

    engine.restart().unwrap();
    assert_eq!(engine.url(), url);
    assert_ne!(engine.pid(), Some(first));
    assert_eq!(ask(&url, "GET kept").unwrap(), "yes");

    let last = engine.pid().unwrap();
    let folder = engine.own.as_ref().unwrap().folder.clone();
    assert!(folder.join("server.log").exists());
    drop(engine);
    assert!(!is_running(last));
    assert!(!folder.exists(), "a dropped engine leaves nothing behind");
}

#[test]
fn a_server_of_java_is_fetched_killed_and_started_again() {
    if std::env::var_os("TIELINE_TEST_ZOOKEEPER").is_some() {
        left_out(
            "xtask: a server of Java",
            "TIELINE_TEST_ZOOKEEPER names a server, which must not be killed",
        );
        return;
    }
    let kind = kind("zookeeper").unwrap();
    let mut engine = Engine::zookeeper().start().unwrap();
    assert!(kind.source().is_here(), "what was fetched once is not fetched again");
    let port = engine.own.as_ref().unwrap().port;
    assert!(kind.is_ready(port));
    engine.kill().unwrap();
    assert!(!kind.is_ready(port));
    engine.restart().unwrap();
    assert!(kind.is_ready(port));
}

#[test]
fn a_port_is_free_only_with_those_that_belong_to_it() {
    let port = free_port(&[1000, -1000]).unwrap();
    let beside = TcpListener::bind(("127.0.0.1", port + 1000)).unwrap();
    assert!(are_free(port, &[]) && !are_free(port, &[1000]));
    drop(beside);
    assert!(are_free(port, &[1000]));
    assert!(!are_free(65_000, &[1000]), "there is no such port");
}

#[test]
fn engines_of_one_kind_do_not_meet() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        left_out("xtask: two engines of one kind", "TIELINE_TEST_REDIS names one server for all");
        return;
    }
    let mut one = Engine::redis().start().unwrap();
    let two = Engine::redis().start().unwrap();
    assert_ne!(one.url(), two.url());
    assert_eq!(ask(one.url(), "SET whose one").unwrap(), "+OK");
    assert_eq!(ask(two.url(), "GET whose").unwrap(), "$-1", "the key must not be there");
    // What a killed one had is kept for it.
    let port = one.own.as_ref().unwrap().port;
    one.kill().unwrap();
    assert!(!are_free(port, &[]));
    drop(one);
    assert!(are_free(port, &[]));
}

/// A server that says why it cannot run, as a broken installation would.
struct Broken;

impl Kind for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn variable(&self) -> &'static str {
        "TIELINE_TEST_BROKEN"
    }
    fn source(&self) -> Source {
        Source::Package { name: "none", is_there: || true }
    }
    fn command(&self, _folder: &Path, _port: u16) -> std::process::Command {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo no room for data; exit 3"]);
        command
    }
    fn is_ready(&self, _port: u16) -> bool {
        false
    }
    fn url(&self, port: u16) -> String {
        format!("broken://127.0.0.1:{port}")
    }
}

#[test]
fn a_server_that_ends_is_reported_with_its_last_words() {
    let error = Builder { kind: &Broken }.start().err().expect("it cannot start");
    let text = error.to_string();
    assert!(text.contains("exit status: 3"), "{text}");
    assert!(text.contains("no room for data"), "{text}");
    let Error::NotReady { log, .. } = error else { panic!("{text}") };
    assert!(log.exists(), "the log of a failure is kept");
    std::fs::remove_dir_all(log.parent().unwrap()).unwrap();
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let error = kind("postgress").err().expect("there is no such engine").to_string();
    assert!(error.contains("postgress") && error.contains("redis"), "{error}");
}

#[test]
fn an_engine_nobody_started_is_down() {
    assert_eq!(supervisor::status(&Broken).unwrap(), "broken: down");
    assert!(supervisor::kill(&Broken).is_err());
    supervisor::down(&Broken).unwrap();
}

#[test]
fn a_rabbitmq_takes_its_name_service_along() {
    if std::env::var_os("TIELINE_TEST_RABBITMQ").is_some() {
        left_out("xtask: a RabbitMQ", "TIELINE_TEST_RABBITMQ names a server, which must not be killed");
        return;
    }
    let engine = Engine::rabbitmq().start().unwrap();
    assert!(rabbitmq::control(&engine, &["list_queues"]).is_ok(), "its tools find it");
    assert!(rabbitmq::control(&engine, &["list_cues"]).is_err());
    let port = engine.own.as_ref().unwrap().port;
    let pids = engine.pids();
    assert!(pids.len() > 1 && !are_free(port, &[1]));
    drop(engine);
    // What the server started itself is killed with it, and waited for by nobody here.
    let since = std::time::Instant::now();
    while pids.iter().any(|pid| is_running(*pid)) {
        assert!(since.elapsed() < std::time::Duration::from_secs(10), "its processes live on");
        std::thread::yield_now();
    }
    assert!(are_free(port, &[1, 2]));
}
