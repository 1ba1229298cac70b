//! Beside the official Python client: it reads what a node has put into the map, and a node finds whom it has put there.

use std::process::{Command, Stdio};

use super::*;

/// The program that stands for another node.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hazelcast/other_holder.py");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`tests/run-hazelcast.sh` brings the official client"]
async fn the_official_client_reads_a_nodes_users_and_is_found_as_a_node() {
    let python =
        std::env::var_os("TIELINE_HAZELCAST_PYTHON").expect("the script names a Python with the client");
    let engine = Engine::hazelcast().start().unwrap();
    let shelf = Shelf::hazelcast(&engine);
    let lease = Duration::from_secs(600);
    let node = shelf.open_one(1, lease).await;
    node.asked().claim(&hub(), &user("ä/1"));
    let child = Command::new(python)
        .arg(PROGRAM)
        .args([engine.url(), &format!("tieline:{}:directory", shelf.cluster)])
        .args(["00000000000000aa", "user/hub/ä/1", "user/hub/theirs"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut map = map_of(&shelf).await;
    until("the other to hold a user", async || text(&mut map, "user/hub/theirs").await.is_some()).await;
    let last = shelf.open_one(2, lease).await;
    meet(&last, &[1, 0xaa]);
    assert_eq!(found(&last, "theirs").await, [0xaa]);
    assert_eq!(found(&last, "ä/1").await, [1]);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let [its, stay, both] = lines[..] else { panic!("{said}") };
    assert!(its.starts_with("0000000000000001.") && its.ends_with("=1"), "{its}");
    assert!(stay.starts_with("00000000000000aa."), "{stay}");
    assert!(both.starts_with(&format!("{stay}=7 0000000000000002.")) && both.ends_with('~'), "{both}");
    for node in [node, last] {
        node.close().await;
    }
}
