//! `/metrics`: what the node has counted, in the text format of Prometheus.
//!
//! One table, `metrics/table.rs`, says what there is; `docs/metrics.md` is printed from the same table. No label ever holds what
//! a client sent: their values come from tables of this program. Tested by `metrics/tests.rs`, and in `tests/program/metrics.rs`,
//! which reads those of running nodes.

mod document;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::{Display, Write};
use std::sync::Arc;

use tieline_core::broker::BrokerStats;
use tieline_core::cluster::Peer;
use tieline_core::latency::{BOUNDS_US, Latency};
use tieline_core::registry::SharedView;
use tieline_core::tally::Tally;
use tieline_core::{Cluster, Node};
use tieline_switchboard::Counters;

pub use document::markdown;

use crate::http::HttpTally;
use crate::rebalance::RebalanceTally;
use crate::reload::ReloadTally;
use crate::rest::RestTally;
use crate::routes::Station;
use crate::upstream::UpstreamTally;
use table::{FAMILIES, Family, Kind};

/// All that is counted, as of one moment.
struct View<'a> {
    node: &'a Node,
    counters: Counters,
    tally: Tally,
    http: &'a HttpTally,
    rest: &'a RestTally,
    upstream: &'a UpstreamTally,
    rebalance: &'a RebalanceTally,
    reloads: &'a ReloadTally,
    /// None where the node is alone.
    cluster: Option<ClusterView<'a>>,
    /// What the registry shows, where there is one.
    placement: Option<SharedView>,
}

/// What a member of a cluster has beside.
struct ClusterView<'a> {
    cluster: &'a Arc<Cluster>,
    peers: Vec<Peer>,
    broker: BrokerStats,
}

/// The whole text.
pub fn render(station: &Station) -> String {
    let Station { node, http, rest, upstream, rebalance, reloads, .. } = station;
    let cluster = node.cluster().map(|cluster| ClusterView {
        cluster,
        peers: cluster.peers(),
        broker: cluster.broker_stats(),
    });
    let placement = station.view();
    let (counters, tally) = (node.counters(), node.tally());
    let view = View { node, counters, tally, http, rest, upstream, rebalance, reloads, cluster, placement };
    let mut text = String::with_capacity(16 * 1024);
    for family in FAMILIES {
        family.write(&view, &mut text);
    }
    text
}

impl Family {
    /// Writes the family with all its samples; nothing where the node has no part in it.
    fn write(&self, view: &View<'_>, text: &mut String) {
        let start = text.len();
        let (name, kind, help) = (self.name, self.kind.name(), self.help);
        write!(text, "# HELP tieline_{name} {help}\n# TYPE tieline_{name} {kind}\n")
            .expect("a string takes all text");
        let head = text.len();
        (self.read)(view, &mut Samples { name, labels: self.labels, text });
        if self.is_clusters && view.cluster.is_none() && text.len() == head {
            text.truncate(start);
        }
    }
}

/// Writes the samples of one family.
struct Samples<'a> {
    name: &'static str,
    /// The names of its labels.
    labels: &'static [&'static str],
    text: &'a mut String,
}

impl Samples<'_> {
    /// The only sample of a family without labels.
    fn value(&mut self, value: u64) {
        self.labelled(&[], value);
    }

    /// The sample with these values of the labels.
    fn labelled(&mut self, values: &[&dyn Display], value: impl Display) {
        self.line("", values, None, value);
    }

    /// The samples of a histogram.
    fn latency(&mut self, values: &[&dyn Display], latency: &Latency) {
        let read = latency.read();
        for (bound, up_to) in BOUNDS_US.iter().zip(read.up_to) {
            let seconds = *bound as f64 / 1e6;
            self.line("_bucket", values, Some(&seconds), up_to);
        }
        self.line("_bucket", values, Some(&"+Inf"), read.count);
        self.line("_sum", values, None, read.sum.as_secs_f64());
        self.line("_count", values, None, read.count);
    }

    fn line(
        &mut self,
        suffix: &str,
        values: &[&dyn Display],
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        assert_eq!(self.labels.len(), values.len(), "the table names the labels of tieline_{}", self.name);
        let mut labels: Vec<String> =
            self.labels.iter().zip(values).map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        labels.extend(bound.map(|bound| format!("le=\"{bound}\"")));
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.text, "tieline_{}{suffix}{labels} {value}", self.name)
            .expect("a string takes all text");
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds => "histogram",
        }
    }
}
