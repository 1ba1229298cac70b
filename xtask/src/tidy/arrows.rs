//! Which crate may know which. Cargo forbids circles; this forbids the arrows that are no circle and still wrong.
//!
//! Only what is linked into a crate counts: dependencies for tests are free.

use std::path::Path;

use toml::{Table, Value};

use super::Finding;

/// A crate, the workspace's crates it may be built upon, and the outside crates it must do without.
struct Rule {
    name: &'static str,
    upon: &'static [&'static str],
    without: &'static [&'static str],
}

/// `websocket ← switchboard ← core`, `proto ← core ← backends ← tieline`, `websocket, proto ← bench ← tieline`: a
/// crate may be built upon all that lies behind it on these arrows.
const RULES: &[Rule] = &[
    Rule { name: "tieline-websocket", upon: &[], without: &["tokio", "mio", "serde", "serde_json"] },
    Rule {
        name: "tieline-switchboard",
        upon: &["tieline-websocket"],
        without: &["tokio", "serde", "serde_json"],
    },
    Rule { name: "tieline-proto", upon: &[], without: &["tokio", "mio"] },
    Rule {
        name: "tieline-core",
        upon: &["tieline-websocket", "tieline-switchboard", "tieline-proto"],
        without: &["mio", "hyper", "axum", "http"],
    },
    Rule {
        name: "tieline-backends",
        upon: &["tieline-websocket", "tieline-switchboard", "tieline-proto", "tieline-core"],
        without: &["mio", "axum"],
    },
    Rule {
        name: "tieline-bench",
        upon: &["tieline-websocket", "tieline-proto"],
        without: &["hyper", "axum"],
    },
    Rule {
        name: "tieline",
        upon: &[
            "tieline-websocket",
            "tieline-switchboard",
            "tieline-proto",
            "tieline-core",
            "tieline-backends",
            "tieline-bench",
        ],
        without: &[],
    },
    // Only tests and tasks are built upon it.
    Rule { name: "tieline-judge", upon: &[], without: &["tokio", "mio", "serde", "serde_json"] },
    // The errors' table is printed from the code that holds it.
    Rule { name: "xtask", upon: &["tieline-proto", "tieline-judge"], without: &[] },
];

/// Judges one manifest of the workspace.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::file(path, format!("not a manifest: {error}"))],
    };
    // A fuzz folder is a workspace of its own and ships nothing.
    if manifest.contains_key("workspace") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    if inherits != Some(true) {
        findings.push(Finding::file(path, "every crate says `[lints] workspace = true`"));
    }
    let name =
        manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str).unwrap_or("");
    let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
        findings.push(Finding::file(
            path,
            format!("`{name}` has no arrows yet: state them in xtask's tidy rules"),
        ));
        return findings;
    };
    for dependency in linked(&manifest) {
        let ours = dependency.starts_with("tieline") || dependency == "xtask";
        if ours && !rule.upon.contains(&&*dependency) {
            findings.push(Finding::file(path, format!("no arrow leads from {name} to {dependency}")));
        }
        if rule.without.contains(&&*dependency) {
            findings.push(Finding::file(path, format!("{name} does without {dependency}")));
        }
    }
    findings
}

/// The names of the crates that are linked in, on whatever platform and whether optional or not.
fn linked(manifest: &Table) -> Vec<String> {
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables =
        platforms.filter_map(|platform| platform.get("dependencies")).chain(manifest.get("dependencies"));
    let entries = tables.filter_map(Value::as_table).flatten();
    // A renamed dependency is known by its package.
    let package = |(name, value): (&String, &Value)| {
        value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned()
    };
    entries.map(package).collect()
}
