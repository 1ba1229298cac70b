//! Whether nodes are well, asked by the gateway itself: `GET /readyz`, every few seconds.
//!
//! Any answer but a 5xx says that a server is there; what a registry says of a node is not doubted by it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::header::HOST;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Gateway;
use super::nodes::Node;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Checks that go on at once.
const AT_ONCE: usize = 64;

/// Checks all nodes for ever.
pub(super) async fn run(gateway: Arc<Gateway>, every: Duration) {
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let mut checks = JoinSet::new();
        for (node, _) in &gateway.nodes.table().takers {
            if checks.len() >= AT_ONCE {
                checks.join_next().await;
            }
            checks.spawn(check(Arc::clone(&gateway), Arc::clone(node)));
        }
        while checks.join_next().await.is_some() {}
    }
}

async fn check(gateway: Arc<Gateway>, node: Arc<Node>) {
    let request = Request::get(format!("http://{}/readyz", node.authority))
        .header(HOST, &node.authority)
        .body(Body::empty());
    // An authority that makes no address was refused when the registry named it.
    let Ok(request) = request else { return };
    let answer = timeout(ANSWER_TIME, gateway.client.request(request)).await;
    node.checked(answer.ok().and_then(Result::ok).map(|response| !response.status().is_server_error()));
}
