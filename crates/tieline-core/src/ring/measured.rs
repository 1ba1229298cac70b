//! What rings come to, for 100,000 users: the tables in `docs/placement.md`, which has to hold what is computed here.
//! `TIELINE_WRITE_DOCS=1 cargo test -p tieline-core ring` writes them.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use super::{Ring, RingHash};

const USERS: usize = 100_000;

/// Where the tables stand in the document.
const BEGIN: &str = "<!-- Computed in crates/tieline-core/src/ring/measured.rs: -->\n";
const END: &str = "<!-- End of what is computed. -->\n";

fn ring(hash: RingHash, nodes: usize) -> Ring {
    let names: Vec<String> = (1..=nodes).map(|number| format!("10.0.0.{number}:7800")).collect();
    Ring::new(hash, names.iter().map(|name| (&**name, 1)))
}

fn users() -> impl Iterator<Item = String> {
    (0..USERS).map(|number| format!("user-{number}"))
}

/// The smallest and the largest share of a node, in units of the mean.
fn balance(ring: &Ring) -> (f64, f64) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for user in users() {
        *counts.entry(ring.owner(&user).unwrap().to_owned()).or_default() += 1;
    }
    let mean = USERS as f64 / ring.nodes().len() as f64;
    let least = *counts.values().min().unwrap() as f64;
    let most = *counts.values().max().unwrap() as f64;
    assert_eq!(counts.len(), ring.nodes().len(), "a node without users");
    (least / mean, most / mean)
}

/// The largest share where no node is to have more than `factor` times the mean, and how many users are not with their owner.
fn bounded(ring: &Ring, factor: f64) -> (f64, f64) {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut elsewhere = 0;
    for user in users() {
        let node = ring.place(&user, factor, |name| counts.get(name).copied().unwrap_or(0)).unwrap();
        elsewhere += usize::from(Some(node) != ring.owner(&user));
        *counts.entry(node.to_owned()).or_default() += 1;
    }
    let mean = USERS as f64 / ring.nodes().len() as f64;
    (*counts.values().max().unwrap() as f64 / mean, elsewhere as f64 / USERS as f64)
}

/// The shares of users that a sixth node gets, and that change between the other five.
fn moved(hash: RingHash) -> (f64, f64) {
    let (five, six) = (ring(hash, 5), ring(hash, 6));
    let (mut to_new, mut between) = (0, 0);
    for user in users() {
        let (before, after) = (five.owner(&user).unwrap(), six.owner(&user).unwrap());
        if before != after {
            *(if five.weight(after) == 0 { &mut to_new } else { &mut between }) += 1;
        }
    }
    (to_new as f64 / USERS as f64, between as f64 / USERS as f64)
}

fn tables() -> String {
    let mut text = "\n| hash | points | 3 nodes | 5 nodes | 50 nodes |\n|---|---|---|---|---|\n".to_owned();
    for hash in RingHash::ALL {
        write!(text, "| `{hash}` | {}", ring(hash, 1).points.len()).unwrap();
        for nodes in [3, 5, 50] {
            let (least, most) = balance(&ring(hash, nodes));
            write!(text, " | {least:.2} to {most:.2}").unwrap();
        }
        text.push_str(" |\n");
    }
    text.push_str(
        "\n| hash | moved to the sixth node (ideal 16.7 %) | moved between the other five |\n|---|---|---|\n",
    );
    for hash in RingHash::ALL {
        let (to_new, between) = moved(hash);
        writeln!(text, "| `{hash}` | {:.1} % | {:.1} % |", to_new * 100.0, between * 100.0).unwrap();
    }
    text.push_str(
        "\n| bound, 50 nodes, `tieline` | largest share | users not with their owner |\n|---|---|---|\n",
    );
    for factor in [1.1, 1.25] {
        let (most, elsewhere) = bounded(&ring(RingHash::Tieline, 50), factor);
        writeln!(text, "| {factor} | {most:.2} | {:.1} % |", elsewhere * 100.0).unwrap();
    }
    text.push('\n');
    text
}

#[test]
fn the_document_says_what_is_measured() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/placement.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (stated, after) = rest.split_once(END).unwrap();
    let measured = tables();
    if env::var_os("TIELINE_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{measured}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(stated, measured, "docs/placement.md is stale; run the tests with TIELINE_WRITE_DOCS=1");
}

#[test]
fn shares_are_near_the_mean_and_nothing_moves_between_those_that_stay() {
    let (least, most) = balance(&ring(RingHash::Tieline, 5));
    assert!(least > 0.8 && most < 1.2, "{least} {most}");
    for hash in RingHash::ALL {
        let (_, between) = moved(hash);
        assert_eq!(between, 0.0, "{hash}");
    }
}
