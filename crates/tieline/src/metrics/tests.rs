//! The table, how samples are written, and the document.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

#[test]
fn names_follow_the_rules_of_prometheus() {
    let mut names = HashSet::new();
    for Family { name, kind, labels, help, .. } in FAMILIES {
        assert!(names.insert(name), "{name} is there once");
        let allowed = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(allowed(name) && labels.iter().all(|label| allowed(label)), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), *kind == Kind::Seconds, "{name}");
        assert!(help.ends_with('.') && !help.contains(['\n', '\\', '|']), "{name}");
    }
}

#[test]
fn a_histogram_is_written_as_prometheus_reads_it() {
    let latency = Latency::default();
    latency.record(Duration::from_micros(200));
    latency.record(Duration::from_secs(60));
    let mut text = String::new();
    let mut samples = Samples { name: "x_seconds", labels: &["call"], text: &mut text };
    samples.latency(&[&"send"], &latency);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "tieline_x_seconds_bucket{call=\"send\",le=\"0.0001\"} 0");
    assert_eq!(lines[1], "tieline_x_seconds_bucket{call=\"send\",le=\"0.00025\"} 1");
    assert_eq!(
        lines[lines.len() - 4..],
        [
            "tieline_x_seconds_bucket{call=\"send\",le=\"3\"} 1",
            "tieline_x_seconds_bucket{call=\"send\",le=\"+Inf\"} 2",
            "tieline_x_seconds_sum{call=\"send\"} 60.0002",
            "tieline_x_seconds_count{call=\"send\"} 2",
        ]
    );
}

#[test]
fn the_document_is_what_the_table_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("TIELINE_WRITE_DOCS").is_some() {
        fs::write(&path, markdown()).unwrap();
    }
    let document = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        document == markdown(),
        "docs/metrics.md is not what the table prints; write it with TIELINE_WRITE_DOCS=1"
    );
}
