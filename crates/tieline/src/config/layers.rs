//! What was written, before anybody asks what it means: file, variables and flags, the later ones over the earlier ones.

use std::collections::HashMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::row::{Row, rows};

/// What all variables of the program begin with.
const PREFIX: &str = "TIELINE_";

/// Variables that are not settings of a node: the file's name, those of a gateway, and what tests and document printing use.
const OTHER_VARIABLES: &[&str] =
    &["TIELINE_CONFIG", "TIELINE_GATEWAY_", "TIELINE_TEST_", "TIELINE_WRITE_DOCS", "TIELINE_PYTHON27"];

/// A name is offered in place of an unknown one when at most a third of it differs.
const ALIKE: f64 = 0.6;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written {
    /// Text of a variable or flag, which may stand for any type.
    Loose(String),
    /// A string of the file.
    Text(String),
    /// An integer of the file.
    Integer(i64),
    /// `true` or `false` of the file.
    Boolean(bool),
    /// An array of the file, or a flag given several times.
    List(Vec<Written>),
    /// An inline table of the file, in its order.
    Table(Vec<(String, Written)>),
    /// What no setting takes, by its TOML name.
    Other(&'static str),
}

/// What was written, by key.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    values: HashMap<String, (Origin, Written)>,
    /// Of each kind of table that may stand several times, where each stands, in the order of the file. The values of the
    /// first `[[upstream]]` are kept under `upstream[0].` and their names.
    tables: HashMap<&'static str, Vec<Origin>>,
}

impl Layers {
    /// What stands for a setting, if anybody wrote it.
    pub(super) fn get(&self, key: &str) -> Option<&(Origin, Written)> {
        self.values.get(key)
    }

    /// Where a setting's value comes from; none when it has its default.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|(origin, _)| origin)
    }

    /// Where the tables of a kind stand that may stand several times.
    pub(super) fn tables(&self, section: &str) -> &[Origin] {
        self.tables.get(section).map_or(&[], Vec::as_slice)
    }

    /// Adds a file's settings and returns its mistakes.
    pub(crate) fn add_file(&mut self, path: &Path, text: &str) -> Vec<ConfigError> {
        self.add_text(path, text, &rows())
    }

    /// The same with the settings that there are.
    pub(super) fn add_text(&mut self, path: &Path, text: &str, rows: &[Row]) -> Vec<ConfigError> {
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let message = error.to_string().trim_end().to_owned();
                return vec![ConfigError::Toml { path: path.to_owned(), message }];
            }
        };
        let mut errors = Vec::new();
        let top = Section { name: "", table: None };
        self.add_table(&Place { path, text, rows }, &top, table.get_ref(), &mut errors);
        errors
    }

    fn add_table(
        &mut self,
        place: &Place<'_>,
        section: &Section<'_>,
        table: &DeTable<'_>,
        errors: &mut Vec<ConfigError>,
    ) {
        for (name, value) in table {
            let origin = place.origin(name.span().start);
            let name: &str = name.get_ref();
            let key = section.key(name);
            let row = place.rows.iter().find(|row| section.name.is_empty() && row.section == name);
            match (row, value.get_ref()) {
                (Some(row), DeValue::Table(inner)) if !row.repeats => {
                    self.add_table(place, &Section { name, table: None }, inner, errors);
                }
                (Some(row), DeValue::Array(tables)) if row.repeats => {
                    for (index, table) in tables.iter().enumerate() {
                        let origin = place.origin(table.span().start);
                        let DeValue::Table(inner) = table.get_ref() else {
                            errors.push(no_table(row, origin, table.get_ref()));
                            continue;
                        };
                        self.tables.entry(row.section).or_default().push(origin);
                        self.add_table(place, &Section { name, table: Some(index) }, inner, errors);
                    }
                }
                (Some(row), value) => errors.push(no_table(row, origin, value)),
                (None, value) if place.rows.iter().any(|row| row.key == key) => {
                    self.values.insert(section.place(name), (origin, written(value)));
                }
                (None, _) => {
                    let known = place.rows.iter().map(|row| row.key.as_str());
                    let sections = place.rows.iter().map(|row| row.section);
                    let sections = sections.filter(|name| !name.is_empty() && section.name.is_empty());
                    let nearest = nearest(&key, known.chain(sections));
                    errors.push(ConfigError::Unknown { origin, key, nearest });
                }
            }
        }
    }

    /// Adds the environment's settings and returns its mistakes.
    pub(super) fn add_variables(&mut self, variables: Vec<(String, String)>) -> Vec<ConfigError> {
        let rows = rows();
        let mut errors = Vec::new();
        for (name, text) in variables {
            if !name.starts_with(PREFIX) || is_foreign(&name) {
                continue;
            }
            let origin = Origin::Variable(name.clone());
            match rows.iter().find(|row| row.variable == name) {
                Some(row) => {
                    self.values.insert(row.key.clone(), (origin, Written::Loose(text)));
                }
                None => {
                    let known = rows.iter().map(|row| row.variable.as_str());
                    let nearest = nearest(&name, known.filter(|name| !name.is_empty()));
                    errors.push(ConfigError::Unknown { origin, key: name, nearest });
                }
            }
        }
        errors
    }

    /// Adds what was given by flags, by key.
    pub(super) fn add_flags(&mut self, flags: impl IntoIterator<Item = (&'static str, Vec<String>)>) {
        let rows = rows();
        for (key, mut texts) in flags {
            // A flag of a list is repeated, so a comma in it is only a comma.
            let is_list = rows.iter().any(|row| row.key == key && row.is_list);
            let written = match texts.pop() {
                Some(text) if !is_list => Written::Loose(text),
                Some(text) => {
                    texts.push(text);
                    Written::List(texts.into_iter().map(Written::Loose).collect())
                }
                None => continue,
            };
            self.values.insert(key.to_owned(), (Origin::Flag(key.replace('_', "-")), written));
        }
    }
}

/// What is wrong where a section should be.
fn no_table(row: &Row, origin: Origin, value: &DeValue<'_>) -> ConfigError {
    let key = row.section.to_owned();
    let expected = if row.repeats {
        format!("tables, each begun by a line `[[{key}]]`")
    } else {
        "settings of its own".to_owned()
    };
    ConfigError::Value { origin, key, expected, found: Some(format!("{} value", value.type_str())) }
}

/// The table that is being read.
struct Section<'a> {
    /// Empty above the first one.
    name: &'a str,
    /// Which one it is, of those that may stand several times.
    table: Option<usize>,
}

impl Section<'_> {
    /// The name of a setting as it is known and told.
    fn key(&self, name: &str) -> String {
        if self.name.is_empty() { name.to_owned() } else { format!("{}.{name}", self.name) }
    }

    /// Under what its value is kept.
    fn place(&self, name: &str) -> String {
        self.table.map_or_else(|| self.key(name), |index| table_key(self.name, index, name))
    }
}

/// Under what a value is kept of a table that may stand several times.
pub(super) fn table_key(section: &str, index: usize, name: &str) -> String {
    format!("{section}[{index}].{name}")
}

/// The file that is being read.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
    rows: &'a [Row],
}

impl Place<'_> {
    fn origin(&self, at: usize) -> Origin {
        let line = self.text[..at].matches('\n').count() + 1;
        Origin::File { path: self.path.to_owned(), line }
    }
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Boolean(boolean) => Written::Boolean(*boolean),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Written::Integer(integer),
            Err(_) => Written::Other("an integer beyond 64 bits"),
        },
        DeValue::Array(values) => Written::List(values.iter().map(Spanned::get_ref).map(written).collect()),
        DeValue::Float(_) => Written::Other("a number with a fraction"),
        DeValue::Datetime(_) => Written::Other("a date"),
        DeValue::Table(table) => {
            let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                (name.to_string(), written(value.get_ref()))
            };
            Written::Table(table.iter().map(entry).collect())
        }
    }
}

/// Whether a variable with our prefix is not meant for us. Kubernetes makes such variables for a service called
/// `tieline` (`TIELINE_SERVICE_HOST`, `TIELINE_PORT`, `TIELINE_PORT_80_TCP_ADDR`), and `tieline-…` alike.
fn is_foreign(name: &str) -> bool {
    let is_of_kubernetes = name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP")));
    is_of_kubernetes || OTHER_VARIABLES.iter().any(|other| name.starts_with(other))
}

/// The known name that is most like `name`: by its last part, and among equals by the whole path.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let last = |path: &'_ str| path.rsplit('.').next().unwrap_or(path).replace('-', "_");
    let likeness = |known: &str| {
        let part = strsim::normalized_damerau_levenshtein(&last(name), &last(known));
        part * 0.95 + strsim::normalized_damerau_levenshtein(name, known) * 0.05
    };
    let found = known.map(|known| (likeness(known), known));
    let best = found.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= ALIKE).then(|| best.1.to_owned())
}
