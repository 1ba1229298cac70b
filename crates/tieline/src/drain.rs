//! Emptying a node: it takes no new clients, sends away those that it has, a few at a time, and waits until they are gone.
//!
//! Whoever places connections is told by the registry and by `/readyz`, and a client that comes all the same by a 503. The connections
//! leave at a rate, so that the other nodes are not met by all of them at once; how each kind is sent, and what is held for its user
//! meanwhile, is in `tieline-core`. A deadline ends it. Tested with real processes, in `tests/cluster/drains.rs`.

pub mod order;

use std::time::Duration;

use tieline_core::Node;
use tokio::time::{Instant, MissedTickBehavior};

/// How often connections are sent away, and the rest is counted.
const STEP: Duration = Duration::from_millis(100);

/// How long what is held for users who have just left may take to follow them: no user is waited for longer than that.
const FOLLOW: Duration = Duration::from_secs(5);

/// Empties a node, until it has no connection, the time `limit` is over, or `hurry` is ready. A node that knows no other has nowhere to
/// send its clients, and leaves them to what comes next.
pub async fn run(node: &Node, limit: Duration, hurry: impl Future<Output = ()>) {
    let has_others = || {
        let peers = node.cluster().map(|cluster| cluster.peers()).unwrap_or_default();
        peers.iter().any(|peer| peer.is_reached())
    };
    if !has_others() {
        return;
    }
    node.set_draining();
    let began = Instant::now();
    let all = node.counters().connections;
    tracing::info!(connections = all, ?limit, "The node is being emptied.");
    let emptying = async {
        let mut steps = tokio::time::interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // All of them are sent within the first half of the time, so that the last ones have the other half to go.
        let rate = all as f64 / (limit.as_secs_f64() / 2.0).max(STEP.as_secs_f64());
        let mut sent = 0;
        loop {
            steps.tick().await;
            if node.counters().connections == 0 {
                return;
            }
            let due = (rate * (began.elapsed() + STEP).as_secs_f64()).ceil() as usize;
            if due > sent {
                // A shard that is too busy for it is asked again with the next step.
                sent += node.send_away(due - sent).await.unwrap_or(0);
            }
        }
    };
    let outcome = tokio::select! {
        biased;
        () = hurry => return,
        () = tokio::time::sleep(limit) => "its time is over",
        () = emptying => "all have gone",
    };
    let left = node.counters().connections;
    tracing::info!(left, took = ?began.elapsed(), "The node was emptied: {outcome}.");
    // What is held for those who have just left goes after them.
    let mut steps = tokio::time::interval(STEP);
    let ended = Instant::now();
    while node.has_travellers() && ended.elapsed() < FOLLOW {
        steps.tick().await;
    }
}
