//! What a node is told by its operator: one table of settings, read from a TOML file, overridden by `TIELINE_…` variables,
//! overridden by flags.
//!
//! The text of settings comes from a [`Source`], a file or a server, and [`Given`] is all that is read. The way of a value:
//! [`Layers`] gathers what was written, each value with the place it came from; [`Settings::read`] turns it, once, into checked
//! values of the types the program works with. Every mistake is reported, with its place, not only the first. What a node that
//! runs does with changes is in `reload.rs` of this crate. Tested by `config/tests.rs`, which also compares the table with `docs/configuration.md`.

mod document;
mod error;
mod given;
mod keeping;
mod kind;
mod last_good;
mod layers;
mod row;
mod source;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod upstream;

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use tieline_core::logs::{GroupRule, LogRules};
use tieline_core::presence::PresenceRules;
use tieline_core::store::Retention;
use tieline_core::token::Keys;
use tieline_core::{HubRule, Limits as SessionLimits};

pub use document::markdown;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use given::{Checked, Given};
pub use keeping::{History, Members, SlowConsumer};
pub use kind::{Demo, LogFormat, Masked, Rebalance, Size};
pub use last_good::{COPY_VARIABLE, LastGood};
pub use layers::Layers;
pub use row::{Row, rows};
pub use source::{Document, Source, SourceError};
pub use table::{Change, Deflate, GroupTable, HubTable, Inbox, Limits, Log, Server, Times};
pub use upstream::Upstream;

/// The variable that names the configuration file, or its address, where the flag `--config` does not.
pub const CONFIG_VARIABLE: &str = "TIELINE_CONFIG";

/// The checked configuration of a node.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What stands above the sections of the file; each is also a flag.
    pub server: Server,
    /// How much of anything there may be.
    pub limits: Limits,
    /// How long anything may take.
    pub times: Times,
    /// What is kept of the messages to each user.
    pub inbox: Inbox,
    /// What holds for hubs, by their names.
    pub hubs: Vec<HubTable>,
    /// What holds for groups, by their names.
    pub groups: Vec<GroupTable>,
    /// Compression of messages.
    pub deflate: Deflate,
    /// The program's own log.
    pub log: Log,
    /// The application's endpoints for events.
    pub upstream: Vec<Upstream>,
}

impl Settings {
    /// Checks what was gathered.
    ///
    /// # Errors
    /// Every value that is not what its setting takes.
    pub fn read(layers: &Layers) -> Result<Settings, ConfigErrors> {
        let mut errors = Vec::new();
        let settings = Settings {
            server: Server::read(layers, &mut errors),
            limits: Limits::read(layers, &mut errors),
            times: Times::read(layers, &mut errors),
            inbox: Inbox::read(layers, &mut errors),
            hubs: HubTable::read(layers, &mut errors),
            groups: GroupTable::read(layers, &mut errors),
            deflate: Deflate::read(layers, &mut errors),
            log: Log::read(layers, &mut errors),
            upstream: Upstream::read(layers, &mut errors),
        };
        let drops_history =
            |table: &GroupTable| table.history.is_some() && table.slow_consumer == SlowConsumer::Drop;
        for (table, origin) in settings.groups.iter().zip(layers.tables("group")) {
            if drops_history(table) {
                errors.push(ConfigError::DropsHistory { origin: origin.clone() });
            }
            if table.members == Members::Stored && table.history.is_none() {
                errors.push(ConfigError::MembersWithoutHistory { origin: origin.clone() });
            }
        }
        ConfigErrors::none_or(errors).map(|()| settings)
    }

    /// The settings that have another value in `other`. Of tables that may stand several times the section is named.
    pub fn changes(&self, other: &Settings) -> Vec<Change> {
        let Settings { server, limits, times, inbox, hubs, groups, deflate, log, upstream } = self;
        let mut changes = server.changes(&other.server);
        changes.extend(limits.changes(&other.limits));
        changes.extend(times.changes(&other.times));
        changes.extend(inbox.changes(&other.inbox));
        changes.extend(deflate.changes(&other.deflate));
        changes.extend(log.changes(&other.log));
        let tables = [
            ("hub", *hubs != other.hubs),
            ("group", *groups != other.groups),
            ("upstream", *upstream != other.upstream),
        ];
        let changed = tables.into_iter().filter(|(_, is_changed)| *is_changed);
        changes.extend(changed.map(|(key, _)| Change { key: key.to_owned(), is_live: false }));
        changes
    }

    /// What the sessions of a node may do.
    pub fn session_limits(&self) -> SessionLimits {
        let limits = &self.limits;
        SessionLimits {
            groups_per_connection: limits.groups_per_connection,
            connections_per_user: limits.connections_per_user,
            messages_per_second: limits.message_rate,
            message_burst: limits.message_burst,
            faults: limits.faults,
            hello: self.times.hello,
        }
    }

    /// What holds for hubs.
    pub fn hub_rules(&self) -> Vec<HubRule> {
        let rule = |table: &HubTable| HubRule {
            pattern: table.r#match.clone(),
            per_user: table.connections_per_user,
        };
        self.hubs.iter().map(rule).collect()
    }

    /// Which messages are kept.
    pub fn log_rules(&self) -> LogRules {
        let rule = |table: &GroupTable| GroupRule {
            pattern: table.r#match.clone(),
            history: table.history.map(|History(kept)| kept),
            drops: table.slow_consumer == SlowConsumer::Drop,
            stores_members: table.members == Members::Stored,
        };
        let Inbox { count, age, bytes } = self.inbox;
        let inbox = Retention { count: count as u64, age, bytes: bytes.0 as u64 };
        LogRules { groups: self.groups.iter().map(rule).collect(), inbox: (count > 0).then_some(inbox) }
    }

    /// Where it is told who is present.
    pub fn presence_rules(&self) -> PresenceRules {
        PresenceRules {
            hubs: self.hubs.iter().map(|table| (table.r#match.clone(), table.presence)).collect(),
            groups: self.groups.iter().map(|table| (table.r#match.clone(), table.presence)).collect(),
            grace: self.times.presence_grace,
        }
    }

    /// The access keys, those in files too. Each line of a file that is not blank is a key.
    ///
    /// # Errors
    /// When a file cannot be read, or has no key in it.
    pub fn keys(&self) -> Result<Keys, ConfigErrors> {
        let mut texts: Vec<String> = self.server.access_key.iter().map(|key| key.0.clone()).collect();
        let mut errors = Vec::new();
        for path in &self.server.access_key_file {
            match fs::read_to_string(path) {
                Ok(text) => {
                    let before = texts.len();
                    texts.extend(
                        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned),
                    );
                    if texts.len() == before {
                        errors.push(ConfigError::NoKey { path: path.clone() });
                    }
                }
                Err(source) => errors.push(ConfigError::File { path: path.clone(), source }),
            }
        }
        ConfigErrors::none_or(errors).map(|()| Keys::new(texts))
    }

    /// The effective configuration as a TOML file, secrets masked, each value that is no default with its origin.
    pub fn show(&self, layers: &Layers) -> String {
        let mut text = String::new();
        let sections = [
            ("", self.server.show()),
            ("limits", self.limits.show()),
            ("times", self.times.show()),
            ("inbox", self.inbox.show()),
            ("deflate", self.deflate.show()),
            ("log", self.log.show()),
        ];
        for (name, values) in sections {
            if !name.is_empty() {
                writeln!(text, "\n[{name}]").expect("a string takes all text");
            }
            let path = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            values
                .iter()
                .for_each(|(key, value)| show_value(&mut text, key, value, layers.origin(&path(key))));
        }
        let hubs = self.hubs.iter().map(HubTable::show).zip(layers.tables("hub")).map(|of| ("hub", of));
        let groups = self.groups.iter().map(GroupTable::show).zip(layers.tables("group"));
        for (section, (table, origin)) in hubs.chain(groups.map(|of| ("group", of))) {
            writeln!(text, "\n[[{section}]] # {origin}").expect("a string takes all text");
            for (name, value) in table.into_iter().filter(|(_, value)| value != kind::ABSENT) {
                writeln!(text, "{name} = {value}").expect("a string takes all text");
            }
        }
        for (index, upstream) in self.upstream.iter().enumerate() {
            text.push_str("\n[[upstream]]\n");
            for (key, value) in upstream.show() {
                show_value(&mut text, key, &value, layers.origin(&layers::table_key("upstream", index, key)));
            }
        }
        text
    }
}

/// Writes a setting, and where its value comes from. TOML has no word for nothing, so one without a value is a comment.
fn show_value(text: &mut String, key: &str, value: &str, origin: Option<&Origin>) {
    let absent = if value == kind::ABSENT { "# " } else { "" };
    let origin = origin.map(|origin| format!(" # {origin}")).unwrap_or_default();
    writeln!(text, "{absent}{key} = {value}{origin}").expect("a string takes all text");
}

/// Reads a duration such as `25s`.
///
/// # Errors
/// With what is taken instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    kind::duration(text).ok_or_else(|| format!("expected {}", kind::DURATION))
}
