//! `/metrics`: what the node has counted, in the text format of Prometheus.
//!
//! No label ever holds what a client sent: their values come from tables of this program. Tested in `tests/serve.rs`, which reads a
//! running node's.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tieline_core::cluster::ClusterCounters;
use tieline_core::{Cluster, Node};
use tieline_switchboard::Counters;

use crate::http::HttpTally;

/// Whether a metric only grows.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// A metric of the switchboard.
type Row = (&'static str, Kind, &'static str, Value);

/// How a metric is found among what the switchboard counted.
type Value = fn(&Counters) -> u64;

/// The switchboard's metrics: name, kind, meaning, value.
const SWITCHBOARD: &[Row] = &[
    ("connections", Kind::Gauge, "Connections, those that are cut or closing among them.", |c| c.connections),
    ("connections_cut", Kind::Gauge, "Connections that were cut and may be recovered.", |c| c.detached),
    ("log_bytes", Kind::Gauge, "Memory in the logs of what clients have coming.", |c| c.log_bytes),
    ("lag_bytes", Kind::Gauge, "Memory of what lagging clients have coming beside the logs.", |c| {
        c.copied_bytes
    }),
    ("connections_opened_total", Kind::Counter, "Connections opened.", |c| c.opened),
    ("connections_recovered_total", Kind::Counter, "Connections recovered on a new socket.", |c| c.resumed),
    ("connections_closed_total", Kind::Counter, "Connections ended, for whatever cause.", |c| c.closed),
    ("messages_received_total", Kind::Counter, "Messages from clients.", |c| c.messages_in),
    ("received_bytes_total", Kind::Counter, "Bytes read from clients.", |c| c.bytes_in),
    ("deliveries_total", Kind::Counter, "Frames queued to clients.", |c| c.deliveries),
    ("sent_bytes_total", Kind::Counter, "Bytes written to clients.", |c| c.bytes_out),
    ("sends_total", Kind::Counter, "System calls that wrote to clients.", |c| c.sends),
    (
        "parked_total",
        Kind::Counter,
        "Times a client was not read on because a shard had too much waiting.",
        |c| c.parked,
    ),
];

/// Why connections were ended or messages dropped by the switchboard itself.
const REASONS: &[(&str, Value)] = &[
    ("slow", |c| c.ended_lag),
    ("memory", |c| c.ended_memory),
    ("silent", |c| c.ended_silent),
    ("idle", |c| c.ended_idle),
    ("protocol", |c| c.ended_protocol),
];

/// A count of the cluster: name, meaning, value.
type ClusterRow = (&'static str, &'static str, fn(&ClusterCounters) -> &AtomicU64);

/// The cluster's counts.
const CLUSTER: &[ClusterRow] = &[
    ("envelopes_sent_total", "Envelopes handed to the broker.", |c| &c.sent),
    ("envelopes_not_taken_total", "Envelopes that the broker did not take for some receiver.", |c| {
        &c.not_taken
    }),
    ("envelopes_received_total", "Envelopes that arrived.", |c| &c.received),
    ("envelopes_malformed_total", "Envelopes that could not be read.", |c| &c.malformed),
    ("envelopes_again_total", "Envelopes that had been seen before and were dropped.", |c| &c.again),
    ("envelopes_missing_total", "Envelopes of other nodes that never arrived.", |c| &c.missing),
    ("cluster_dropped_total", "Messages of other nodes that a full shard did not take.", |c| &c.dropped),
    ("cluster_words_dropped_total", "Words of other nodes that this one was too busy to read.", |c| {
        &c.words_dropped
    }),
    ("cluster_unread_total", "Joins and logins answered before every other node had read of them.", |c| {
        &c.unread
    }),
];

/// The whole text.
pub fn render(node: &Node, http: &HttpTally) -> String {
    let mut text = String::with_capacity(8 * 1024);
    let version = env!("CARGO_PKG_VERSION");
    let name = node.id().name.as_str();
    head(&mut text, "info", Kind::Gauge, "The program and the node.");
    line(&mut text, "info", format_args!("{{version=\"{version}\",node=\"{name}\"}}"), 1);

    let counters = node.counters();
    for (name, kind, help, value) in SWITCHBOARD {
        head(&mut text, name, *kind, help);
        line(&mut text, name, "", value(&counters));
    }
    let ended = "connections_ended_total";
    head(&mut text, ended, Kind::Counter, "Connections that the server ended, by reason.");
    for (reason, value) in REASONS {
        line(&mut text, ended, format_args!("{{reason=\"{reason}\"}}"), value(&counters));
    }
    let dropped = "messages_dropped_total";
    head(&mut text, dropped, Kind::Counter, "Messages that a client missed, by reason.");
    line(&mut text, dropped, "{reason=\"slow\"}", counters.dropped_lag);

    let tally = node.tally();
    head(&mut text, "requests_total", Kind::Counter, "What clients asked for, by kind.");
    for (kind, count) in tally.counts() {
        line(&mut text, "requests_total", format_args!("{{kind=\"{kind}\"}}"), count);
    }
    head(&mut text, "errors_total", Kind::Counter, "Errors that clients were answered with, by code.");
    for (code, count) in tally.errors.counts() {
        line(&mut text, "errors_total", format_args!("{{code=\"{code}\"}}"), count);
    }

    for (name, help, count) in [
        ("http_accepted_total", "Sockets accepted.", &http.accepted),
        ("http_upgraded_total", "Sockets that became connections.", &http.upgraded),
        ("http_malformed_total", "Sockets that spoke no proper HTTP, or too slowly.", &http.malformed),
    ] {
        head(&mut text, name, Kind::Counter, help);
        line(&mut text, name, "", count.load(Ordering::Relaxed));
    }
    head(&mut text, "http_refused_total", Kind::Counter, "HTTP requests that were refused, by code.");
    for (code, count) in http.refused() {
        line(&mut text, "http_refused_total", format_args!("{{code=\"{code}\"}}"), count);
    }
    let headers = "proxy_headers_refused_total";
    head(
        &mut text,
        headers,
        Kind::Counter,
        "Connections closed for want of a proper header of the PROXY protocol, by reason.",
    );
    for (error, count) in http.header_refused() {
        line(&mut text, headers, format_args!("{{reason=\"{}\"}}", error.name()), count);
    }
    if let Some(cluster) = node.cluster() {
        render_cluster(&mut text, cluster);
    }
    text
}

/// What a member of a cluster has counted.
fn render_cluster(text: &mut String, cluster: &Cluster) {
    let peers = cluster.peers();
    let reached = peers.iter().filter(|peer| peer.is_reached()).count() as u64;
    head(text, "peers", Kind::Gauge, "Other nodes of the cluster, by whether there is a way to them.");
    line(text, "peers", "{state=\"reached\"}", reached);
    line(text, "peers", "{state=\"lost\"}", peers.len() as u64 - reached);
    head(text, "broker_up", Kind::Gauge, "Whether the broker carries envelopes: 1, or 0 while it is away.");
    line(text, "broker_up", "", u64::from(cluster.is_broker_up()));
    for (name, help, value) in CLUSTER {
        head(text, name, Kind::Counter, help);
        line(text, name, "", value(cluster.counters()).load(Ordering::Relaxed));
    }
}

fn head(text: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    write!(text, "# HELP tieline_{name} {help}\n# TYPE tieline_{name} {kind}\n")
        .expect("a string takes all text");
}

fn line(text: &mut String, name: &str, labels: impl Display, value: u64) {
    writeln!(text, "tieline_{name}{labels} {value}").expect("a string takes all text");
}
