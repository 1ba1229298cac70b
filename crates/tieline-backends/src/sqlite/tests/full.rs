//! A disk that is full, a real one: small, and made in a namespace of its own.

use std::io::Write;
use std::process::Command;

use super::Folder;
use super::child::Neighbour;

/// Where the test program tells what it could not run, for the report at the end of all suites.
fn leave_out(why: &str) {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/left-out.txt");
    eprintln!("LEFT OUT: {why}");
    if let Ok(mut list) = std::fs::OpenOptions::new().append(true).create(true).open(list) {
        let _ = writeln!(list, "the store on a full disk: {why}");
    }
}

#[test]
fn a_full_disk_is_a_refusal_and_room_ends_it() {
    let may = Command::new("unshare").args(["-rm", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return leave_out("`unshare -rm` is not allowed here");
    }
    let folder = Folder::new();
    let mut child = Neighbour::start("fill", &folder.file(), &["unshare", "-rm"]);
    let first = child.next().unwrap();
    if first == "no mount" {
        return leave_out("a file system in memory cannot be mounted here");
    }
    let (acknowledged, refusal) =
        first.strip_prefix("after ").and_then(|rest| rest.split_once(": ")).unwrap();
    let acknowledged: u64 = acknowledged.parse().unwrap();
    assert_eq!(refusal, "the store refuses: there is no room left");
    assert!(acknowledged > 10);
    assert_eq!(
        child.next().unwrap(),
        format!("kept {acknowledged}"),
        "readers go on, and find what was acknowledged"
    );
    // The refused one left no hole, and did not happen.
    assert_eq!(child.next().unwrap(), format!("then Ok({})", acknowledged + 1));
    assert_eq!(child.next().unwrap(), format!("kept {}", acknowledged + 1));
}
