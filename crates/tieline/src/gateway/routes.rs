//! What a gateway answers itself: is it alive, is it ready, and what has it counted.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use tieline_proto::ErrorCode;
use tieline_switchboard::PipesHandle;

use super::nodes::Lease;
use super::{Gateway, relay};
use crate::admission::Access;
use crate::http::{HttpTally, Refusal};
use crate::routes::METRICS_TYPE;

/// What the handlers of operators share.
pub(super) struct Desk {
    pub(super) gateway: Arc<Gateway>,
    pub(super) pipes: PipesHandle<Lease>,
    pub(super) http: Arc<HttpTally>,
}

/// The routes of the listener for clients: everything is a node's but the gateway's own health.
pub(super) fn public(gateway: &Arc<Gateway>) -> Router {
    Router::new()
        .route("/healthz", get(is_alive))
        .route("/readyz", get(is_ready))
        .fallback(relay::relay)
        .with_state(Arc::clone(gateway))
}

/// The routes of the listener for operators.
pub(super) fn admin(desk: Desk) -> Router {
    let gateway = Arc::clone(&desk.gateway);
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(desk));
    let health = Router::new().route("/healthz", get(is_alive)).route("/readyz", get(is_ready));
    health.with_state(gateway).merge(metrics).fallback(async || Refusal::from(ErrorCode::NotFound))
}

/// How the gateway is.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    /// Nodes that take clients, and of those how many seem well.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    well: Option<usize>,
    /// Nodes that take clients and are given none, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What clients meet at the least, for a gateway in front of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
}

/// Why nodes that take clients are given none.
const REFUSED: &str = "clients from elsewhere are brought only to nodes that want a token of everybody";

async fn is_alive() -> Response {
    let alive = Health { status: "ok", nodes: None, well: None, refused: None, reason: None, access: None };
    health(StatusCode::OK, alive)
}

async fn is_ready(State(gateway): State<Arc<Gateway>>) -> Response {
    let table = gateway.nodes.table();
    let (nodes, well) = (gateway.served(&table).count(), gateway.well(&table));
    let refused = Some(table.takers.len() - nodes).filter(|refused| *refused > 0);
    let (code, status) = if gateway.is_stopping.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if nodes == 0 {
        (StatusCode::SERVICE_UNAVAILABLE, "no nodes")
    } else if table.is_degraded || well < nodes || refused.is_some() {
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "ok")
    };
    let reason = refused.map(|_| REFUSED);
    let access = gateway.access(&table);
    health(code, Health { status, nodes: Some(nodes), well: Some(well), refused, reason, access })
}

fn health(code: StatusCode, health: Health) -> Response {
    let body = serde_json::to_string(&health).expect("text is always JSON");
    (code, [(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(desk): State<Arc<Desk>>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], render(&desk)).into_response()
}

/// One metric: its name without `tieline_gateway_`, its kind, and what it is.
pub(super) const METRICS: [(&str, &str, &str); 14] = [
    ("connections", "gauge", "WebSockets that are open."),
    ("kept_bytes", "gauge", "Bytes that are kept because an end does not take them."),
    ("from_clients_bytes_total", "counter", "Bytes of WebSockets from clients to nodes."),
    ("from_nodes_bytes_total", "counter", "Bytes of WebSockets from nodes to clients."),
    ("silent_total", "counter", "WebSockets that were closed because nothing went over them."),
    ("accepted_total", "counter", "Sockets accepted."),
    ("malformed_total", "counter", "Requests that were not HTTP, too large, or not complete in time."),
    ("joined_total", "counter", "WebSockets that were joined with a node's."),
    ("refused_by_node_total", "counter", "Requests for a WebSocket that a node refused."),
    ("relayed_total", "counter", "Other requests that a node answered."),
    ("retries_total", "counter", "Attempts at a further node."),
    ("failures_total", "counter", "Attempts that got no answer of a node."),
    (
        "nodes",
        "gauge",
        "Nodes, by state: `well`, `unwell`, `refused` for want of a key, `closed` to new clients, `unreachable` for want of an address.",
    ),
    ("node_connections", "gauge", "WebSockets to each node through this gateway."),
];

fn render(desk: &Desk) -> String {
    let Desk { gateway, pipes, http } = desk;
    let (table, counters, tally) = (gateway.nodes.table(), pipes.counters(), &gateway.tally);
    let (served, well) = (gateway.served(&table).count(), gateway.well(&table));
    let single = [
        counters.pairs,
        counters.kept,
        counters.bytes[0],
        counters.bytes[1],
        counters.silent,
        http.accepted.load(Ordering::Relaxed),
        http.malformed.load(Ordering::Relaxed),
        tally.joined.load(Ordering::Relaxed),
        tally.refused_by_node.load(Ordering::Relaxed),
        tally.relayed.load(Ordering::Relaxed),
        tally.retries.load(Ordering::Relaxed),
        tally.failures.load(Ordering::Relaxed),
    ];
    let mut text = String::new();
    for (index, (name, kind, help)) in METRICS.iter().enumerate() {
        write!(text, "# HELP tieline_gateway_{name} {help}\n# TYPE tieline_gateway_{name} {kind}\n")
            .expect("a string takes all text");
        let mut sample = |labels: &str, value: &dyn Display| {
            writeln!(text, "tieline_gateway_{name}{labels} {value}").expect("a string takes all text");
        };
        match (single.get(index), *name) {
            (Some(value), _) => sample("", value),
            (None, "nodes") => {
                for (state, count) in [
                    ("well", well),
                    ("unwell", served - well),
                    ("refused", table.takers.len() - served),
                    ("closed", table.others.len()),
                    ("unreachable", table.unreachable),
                ] {
                    sample(&format!("{{state=\"{state}\"}}"), &count);
                }
            }
            // Names of nodes have no characters that a label would have to escape.
            (None, _) => {
                let all = table.takers.iter().map(|(node, _)| node).chain(&table.others);
                all.for_each(|node| sample(&format!("{{node=\"{}\"}}", node.name()), &node.open()));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Args;

    use super::METRICS;
    use crate::gateway::GatewaySettings;

    #[test]
    fn the_document_has_every_metric_and_every_flag_has_a_variable() {
        let document =
            |name: &str| fs::read_to_string(format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let gateway = document("docs/gateway.md");
        for (name, kind, help) in METRICS {
            let row = format!("| `{name}` | {kind} | {help} |");
            assert!(gateway.contains(&row), "docs/gateway.md lacks: {row}");
        }
        let settings = GatewaySettings::augment_args(clap::Command::new("gateway"));
        for argument in settings.get_arguments() {
            assert!(argument.get_help().is_some() && argument.get_env().is_some(), "{argument:?}");
        }
    }
}
