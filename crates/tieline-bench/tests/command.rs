//! The whole program against a small server of the tests' own: what it counts, what it notices, what a person sees.
//! The program is this crate's example. `cargo test -p tieline-bench` builds it first; `--test command` alone does not.

#![allow(
    clippy::unwrap_used,
    reason = "the lint's exception for tests does not reach the functions that they share"
)]

#[path = "command/reference.rs"]
mod reference;

use reference::{Fault, Reference, start};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// Runs the load tool against `url` with the words of `line`; `URL` in it stands for the url.
fn bench(url: &str, line: &str) -> Output {
    let mut program: PathBuf = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    program.push("examples/bench");
    let words = line.split_whitespace().map(|word| if word == "URL" { url } else { word });
    Command::new(program).args(words).env_remove("TIELINE_ACCESS_KEY").output().unwrap()
}

/// The client URL of a reference server.
fn url(reference: &Arc<Mutex<Reference>>) -> String {
    format!("ws://{}/client/hubs/bench", reference.lock().unwrap().address)
}

/// Runs against a faultless server with `--json` and gives the report.
fn report(line: &str) -> (Value, Arc<Mutex<Reference>>) {
    let server = start(Fault::None);
    let output = bench(&url(&server), &format!("{line} --json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), server)
}

/// Runs against a server with `fault` and gives the error that the tool ends with.
fn error(fault: Fault, line: &str) -> String {
    let server = start(fault);
    let output = bench(&url(&server), line);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    text
}

/// A short fan-out.
const FANOUT: &str = "fanout URL --subscribers 5 --messages 40 --warm-up 0.001";

#[test]
fn a_fanout_counts_every_delivery_and_answers_pings() {
    for protocol in ["tieline.v1", "json.webpubsub.azure.v1"] {
        let (report, server) = report(&format!("{FANOUT} --window 16 --protocol {protocol}"));
        assert_eq!(report["protocol"], protocol);
        let run = &report["server"][0];
        assert_eq!((&run["messages"], &run["count"]), (&40.into(), &200.into()));
        let data = 128;
        let envelope = r#"{"type":"message","from":"group","dataType":"json","data":}"#.len();
        assert_eq!(run["frame_bytes"], data + envelope + 4);
        assert_eq!(server.lock().unwrap().pongs, 5);
    }
}

#[test]
fn groups_and_unicast_count_their_deliveries() {
    let (groups, _) = report("groups URL --users 20 --groups 8 --size 5 --messages 30 --warm-up 0.001");
    assert_eq!(groups["server"][0]["count"], 30 * 4);
    let (unicast, _) = report("unicast URL --users 10 --messages 50 --warm-up 0.001 --payload 500");
    assert_eq!(unicast["server"][0]["count"], 50);
    assert!(unicast["server"][0]["frame_bytes"].as_u64().unwrap() > 500);
}

#[test]
fn a_rate_measures_latency() {
    let (report, _) = report("unicast URL --users 4 --rate 500 --messages 60 --warm-up 0.001");
    let run = &report["server"][0];
    assert_eq!(run["count"], 60);
    assert!(run["seconds"].as_f64().unwrap() >= 59.0 / 500.0, "{run}");
    let (p50, p99) = (run["p50_us"].as_f64().unwrap(), run["p99_us"].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99, "{run}");
}

#[test]
fn the_reliable_load_acknowledges_each_connection_once_a_second() {
    let (report, server) = report("reliable URL --subscribers 8 --seconds 1.2 --warm-up 0.001 --window 1");
    assert!(report["server"][0]["count"].as_u64().unwrap() > 8);
    let acknowledgements = server.lock().unwrap().acknowledgements;
    assert!((6..=24).contains(&acknowledgements), "{acknowledgements}");
}

#[test]
fn wrong_deliveries_end_the_run() {
    for (fault, words) in [
        (Fault::Lose(50), "came while 1 before it"),
        (Fault::Double(50), "came"),
        (Fault::Overtake(50), "came while 1 before it"),
        (Fault::Misdirect(50), "meant for others"),
    ] {
        let error = error(fault, FANOUT);
        assert!(error.contains("wrong delivery") && error.contains(words), "{error}");
    }
    let error = error(Fault::Gap(50), &FANOUT.replace("fanout", "reliable"));
    assert!(error.contains("sequenceId"), "{error}");
}

#[test]
fn a_server_that_stands_still_or_goes_away_ends_the_run() {
    for (fault, words) in [
        (Fault::Stall(50), "did not arrive"),
        (Fault::Close(50, 1008), "with code 1008: go away"),
        (Fault::Cut(50), "without a close frame"),
    ] {
        // Short only where it is to be reached, so that a slow machine is not taken for a fault.
        let limit = if matches!(fault, Fault::Stall(_)) { 0.3 } else { 10.0 };
        let error = error(fault, &format!("{FANOUT} --stall-limit {limit}"));
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_server_that_refuses_is_quoted() {
    for (fault, words) in [
        (Fault::Refuse, "HTTP 401: Unauthorized bad signature"),
        (Fault::Forbid, "Forbidden"),
        (Fault::NoSubprotocol, "no subprotocol"),
    ] {
        let error = error(fault, FANOUT);
        assert!(error.contains(words), "{error}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = bench(&format!("ws://{closed}/"), FANOUT);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("cannot connect to {closed}")) && error.contains("refused"), "{error}");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let output = bench(&format!("ws://{address}/"), &format!("{FANOUT} --time-limit 0.2"));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("0 of 6 connections were ready"), "{error}");
}

#[test]
fn the_floor_alternates_with_the_server_in_frames_of_its_size() {
    let own = std::process::id();
    let line = format!("{FANOUT} --pid {own} --floor --pairs 3 --window 1");
    let (report, _) = report(&line);
    let (server, floor) = (report["server"].as_array().unwrap(), report["floor"].as_array().unwrap());
    assert_eq!((server.len(), floor.len()), (3, 3));
    for (server, floor) in server.iter().zip(floor) {
        assert_eq!((&floor["count"], &floor["frame_bytes"]), (&server["count"], &server["frame_bytes"]));
        assert!(floor["cpu_us"].as_f64().unwrap() > 0.0);
    }
    let cpu = &report["measures"][0];
    assert!(cpu["ratio"]["median"].as_f64().unwrap() > 0.0);
    for load in ["groups URL --users 20 --groups 4 --size 5", "unicast URL --users 10"] {
        let (report, _) =
            self::report(&format!("{load} --messages 30 --warm-up 0.001 --pid {own} --floor --pairs 1"));
        assert_eq!(report["floor"][0]["count"], report["server"][0]["count"]);
        assert_eq!(report["floor"][0]["frame_bytes"], report["server"][0]["frame_bytes"]);
    }
}

#[test]
fn connections_and_idle_memory_are_measured_against_the_floor() {
    let own = std::process::id();
    let (connect, server) = report(&format!("connect URL --count 20 --pid {own} --floor --pairs 2"));
    assert_eq!(connect["counted"], "connections");
    assert_eq!(
        (connect["server"].as_array().unwrap().len(), connect["floor"].as_array().unwrap().len()),
        (2, 2)
    );
    assert!(server.lock().unwrap().targets.iter().any(|target| target.ends_with("?user=u0")));
    let (idle, _) = report(&format!("idle URL --connections 20 --settle 0.05 --pid {own} --floor"));
    assert!(idle["server"]["before"].as_u64().unwrap() > 0 && idle["floor"]["after"].as_u64().unwrap() > 0);
}

#[test]
fn an_access_key_puts_a_token_into_each_url() {
    let (_, server) = report("connect URL --count 3 --access-key secret");
    let targets = server.lock().unwrap().targets.clone();
    assert!(targets.iter().all(|target| target.contains("?access_token=ey")), "{targets:?}");
}

#[test]
fn impossible_wishes_are_refused_before_anything_is_opened() {
    for (line, words) in [
        ("fanout URL --floor", "--pid"),
        ("idle URL", "--pid"),
        ("unicast URL --protocol json.webpubsub.azure.v1", "messages to users"),
        ("groups URL --users 10 --size 3", "cannot be cut"),
        ("fanout URL --pid 999999999", "999999999"),
        ("fanout URL --pin-client 5000", "CPU 5000"),
        ("connect URL --count 1000000", "open files"),
    ] {
        let error = error(Fault::None, line);
        assert!(error.contains(words), "{line}: {error}");
    }
    let output = bench("http://127.0.0.1/", "fanout URL");
    assert!(String::from_utf8_lossy(&output.stderr).contains("must begin with ws://"));
}

#[test]
fn a_suite_whose_server_does_not_start_shows_why_and_fails() {
    let output = bench("", "suite --server-cmd false --pairs 1 --seconds 0.1");
    assert_eq!(output.status.code(), Some(1));
    let (table, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(table.matches("failed: false ended with").count(), 11, "{table}");
    assert!(error.contains("9 rows failed"), "{error}");
    let output = bench("", "suite --server-cmd /nonexistent --pairs 1 --json");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results[0]["server"], "tieline");
    assert!(results[0]["rows"][8]["failed"].as_str().unwrap().contains("cannot start /nonexistent"));
}

#[test]
fn the_table_is_for_people_and_progress_comes_when_asked_for() {
    let server = start(Fault::None);
    let output = bench(&url(&server), &format!("{FANOUT} --progress --pid {}", std::process::id()));
    let (table, progress) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(table.starts_with("fan-out 1:5, 16 outstanding, tieline.v1\n200 deliveries in "), "{table}");
    assert!(table.contains("server CPU, µs") && table.contains("all right"), "{table}");
    assert!(progress.contains("opening: "), "{progress}");
}
