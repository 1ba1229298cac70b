//! Sessions under a seeded scheduler: the real operators on the real shards, without threads, sockets and clocks. At
//! each step the dice choose which client writes, how much of it is read, which shard takes its mailbox, hands
//! over or flushes, how many bytes a socket takes, which socket is lost, and when a second passes. What clients hear is
//! held against the model in `ledger.rs` at every step and at the end, and then brought before the judge of the real clusters.
//!
//! A failing seed is printed with the command that runs it again. `TIELINE_SEEDS=from..to` runs those seeds
//! instead of the fixed ones, and `TIELINE_TRACE=1` writes down what happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod climate;
mod kept;
mod ledger;
mod net;
mod wire;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::World;

/// The seeds to run: those of the environment, or as many as the normal tests have time for.
fn seeds(count: u64) -> Range<u64> {
    let Ok(asked) = std::env::var("TIELINE_SEEDS") else { return 0..count };
    let bounds = asked.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to) = bounds.expect("TIELINE_SEEDS is two numbers: from..to");
    from..to
}

fn each(test: &str, count: u64, run: impl Fn(u64)) {
    for seed in seeds(count) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            let next = seed + 1;
            eprintln!(
                "Seed {seed} failed. Again: TIELINE_SEEDS={seed}..{next} cargo test -p tieline-core --test interleavings {test}"
            );
            resume_unwind(panic);
        }
    }
}

fn run(seed: u64, nodes: usize) {
    let mut world = World::new(seed, nodes);
    for _ in 0..world.climate.steps {
        world.step();
    }
    world.come_to_rest();
    world.ledger.balance();
    world.check_tables();
    world.stop();
}

#[test]
fn one_node() {
    each("one_node", 2_000, |seed| run(seed, 1));
}

#[test]
fn several_nodes() {
    each("several_nodes", 800, |seed| run(seed, 2 + (seed % 2) as usize));
}

#[test]
fn durable_messages() {
    each("durable_messages", 300, kept::run);
}
