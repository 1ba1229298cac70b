//! What logins cost with each directory: prints the table of `docs/directories.md`.

use tieline_core::broker::MemoryExchange;

use super::*;
use crate::conformance::directory::{self as suite, Cost};

/// The variable by which the test of all costs has a process of its own measure one.
const MEASURED: &str = "TIELINE_MEASURED_DIRECTORY";

/// Measures one directory, as the variable says: `kind nodes`. Does nothing without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cost() {
    let Ok(what) = std::env::var(MEASURED) else { return };
    let (kind, nodes) = what.split_once(' ').unwrap();
    let nodes = nodes.parse().unwrap();
    let exchange = MemoryExchange::links();
    let on = async |server: Engine, shelf: fn(&Engine) -> Shelf| {
        suite::cost(&exchange, &shelf(&server), nodes, false).await
    };
    let Cost { bytes, envelopes_alone, envelopes_at_once, requests, envelopes_if_sent_to } = match kind {
        "replicated" => suite::cost(&exchange, &suite::Replicated, nodes, false).await,
        "redis" => on(Engine::redis().start().unwrap(), Shelf::redis).await,
        "hazelcast" => on(Engine::hazelcast().start().unwrap(), Shelf::hazelcast).await,
        "ring" => suite::cost(&exchange, &suite::Ringed, nodes, true).await,
        "ring-anywhere" => suite::cost(&exchange, &suite::Ringed, nodes, false).await,
        other => panic!("{other}"),
    };
    println!(
        "| {kind} | {nodes} | {bytes:.0} | {envelopes_alone:.1} | {envelopes_at_once:.2} | {requests:.1} | {envelopes_if_sent_to:.1} |"
    );
}

/// Prints the table, each line measured in a process of its own.
#[test]
#[ignore = "it prints what logins cost: cargo test -p tieline-backends --features full,conformance --release costs -- --ignored --nocapture"]
fn costs() {
    println!(
        "| directory | nodes | bytes for each user and node | envelopes for each login | at once | requests | if all send to it |"
    );
    for kind in ["replicated", "redis", "hazelcast", "ring", "ring-anywhere"] {
        for nodes in [3, 10] {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["directory::tests::costs::one_cost", "--exact", "--nocapture"])
                .env(MEASURED, format!("{kind} {nodes}"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
            let line = said.lines().find_map(|line| line.find("| ").map(|at| &line[at..]));
            println!("{}", line.expect("it prints a line"));
        }
    }
}
