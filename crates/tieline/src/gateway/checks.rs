//! Whether nodes are well, asked by the gateway itself: `GET /readyz`, every few seconds.
//!
//! Any answer but a 5xx says that a server is there; what a registry says of a node is not doubted by it. What the node asks of
//! strangers is read from the same answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::Request;
use hyper::header::HOST;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Gateway;
use super::nodes::{Found, Node, Said};
use crate::admission::Access;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Checks that go on at once.
const AT_ONCE: usize = 64;

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// What is read of an answer. Programs that say nothing of the kind say nothing.
#[derive(Default, Deserialize)]
struct Answer {
    access: Option<Access>,
}

/// Checks all nodes for ever, and whenever there are others.
pub(super) async fn run(gateway: Arc<Gateway>, every: Duration) {
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = gateway.followed.notified() => {}
        }
        all(&gateway).await;
    }
}

/// Checks all nodes once.
pub(super) async fn all(gateway: &Arc<Gateway>) {
    let mut checks = JoinSet::new();
    for (node, _) in &gateway.nodes.table().takers {
        if checks.len() >= AT_ONCE {
            checks.join_next().await;
        }
        checks.spawn(check(Arc::clone(gateway), Arc::clone(node)));
    }
    while checks.join_next().await.is_some() {}
}

async fn check(gateway: Arc<Gateway>, node: Arc<Node>) {
    let request = Request::get(format!("http://{}/readyz", node.authority))
        .header(HOST, &node.authority)
        .body(Body::empty());
    // An authority that makes no address was refused when the registry named it.
    let Ok(request) = request else { return };
    let asked = async {
        let response = gateway.client.request(request).await.ok()?;
        let is_ready = !response.status().is_server_error();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map(Collected::to_bytes);
        let answer: Answer =
            body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        Some(Found { is_ready, access: answer.access })
    };
    let says_otherwise = node.checked(timeout(ANSWER_TIME, asked).await.ok().flatten());
    if says_otherwise && !gateway.chooser.admits(&node) {
        let why = match node.access() {
            Said::Access(access) => access.meaning(),
            Said::Unasked | Said::Nothing => "it does not say whether it wants a token of everybody",
        };
        tracing::warn!(
            node = %node.name(),
            why,
            "A node is given no clients, because clients from elsewhere reach this gateway: give it an access key, or let everybody in by `--allow-anonymous`."
        );
    }
}
