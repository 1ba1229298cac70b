//! The table of metrics as `docs/metrics.md`. `TIELINE_WRITE_DOCS=1 cargo test -p tieline metrics` writes it.

use std::fmt::Write;

use super::table::{FAMILIES, Family, Kind};

/// What stands above the tables.
const HEAD: &str = "\
# Metrics

<!-- Printed from the table in crates/tieline/src/metrics/table.rs; do not edit by hand. -->

`GET /metrics` answers in the text format of Prometheus, on the address of `--admin-listen` if there is one; if not, on that of the clients, for programs of the same machine and for whoever has a token of the REST API.

Every name begins with `tieline_`.
A counter grows from the start of the node; its rate is what to look at.
What switchboard and sessions count is at most a second old.
The values of labels come from tables of the program, never from a client: codes are those of [errors.md](errors.md).
A code, a call or an outcome has no sample before it first occurs.
A histogram, marked *seconds*, has `_bucket`, `_sum` and `_count`, with bounds from 0.0001 to 3.
";

/// What the calls and outcomes of the REST API are.
const REST: &str = "
`call` is what a path and a method asked for; `none` is a request that is no call, or that was not allowed to be one.
`outcome` is `done`, `absent` (404), `denied` (401, 403), `refused` (other mistakes of the caller), `overloaded` (429) or `failed` (the server's fault).
";

/// The document.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let (own, clusters): (Vec<_>, Vec<_>) = FAMILIES.iter().partition(|family| !family.is_clusters);
    section(&mut text, "Every node", &own);
    text.push_str(REST);
    section(&mut text, "Members of a cluster", &clusters);
    text
}

fn section(text: &mut String, title: &str, families: &[&Family]) {
    write!(text, "\n## {title}\n\n| metric | labels | kind | meaning |\n|---|---|---|---|\n")
        .expect("a string takes all text");
    for Family { name, kind, labels, help, .. } in families {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds => "seconds",
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{name}` | {} | {kind} | {help} |", labels.join(", "))
            .expect("a string takes all text");
    }
}
