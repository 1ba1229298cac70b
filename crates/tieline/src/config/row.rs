//! The table of settings as data: what flags, the document, and the search for unknown keys are made from.

use super::table::{Deflate, GroupTable, HubTable, Inbox, Limits, Log, Server, Times};
use super::upstream::Upstream;

/// One setting.
#[derive(Clone, Debug)]
pub struct Row {
    /// The section of the file; empty above the first one, where every setting is also a flag.
    pub section: &'static str,
    /// The name within its section.
    pub name: &'static str,
    /// The path in the file: section, dot and name.
    pub key: String,
    /// Whether the section is a table that may stand several times, as `[[upstream]]`.
    pub repeats: bool,
    /// The environment variable; empty where the section repeats.
    pub variable: String,
    /// What it is for.
    pub text: String,
    /// What its number counts.
    pub unit: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// The default as it would stand in the file.
    pub default: String,
    /// Whether several values are taken.
    pub is_list: bool,
    /// Whether its flag stands without a value.
    pub is_switch: bool,
    /// Whether a change of it is applied by a node that runs.
    pub is_live: bool,
}

impl Row {
    /// The flag without its dashes, where the setting has one.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// Every setting, in the order of the document.
pub fn rows() -> Vec<Row> {
    let mut rows = Server::rows();
    rows.extend(Limits::rows());
    rows.extend(Times::rows());
    rows.extend(Inbox::rows());
    rows.extend(HubTable::rows());
    rows.extend(GroupTable::rows());
    rows.extend(Deflate::rows());
    rows.extend(Log::rows());
    rows.extend(Upstream::rows());
    rows
}
