//! What can be wrong with a configuration, told so that it can be put right: where, what, and what was expected.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::source::SourceError;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at this line.
    File {
        /// The file as it was named, or the address of a server's document.
        path: PathBuf,
        /// 1 for the first.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// In a flag, given without its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One mistake in a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no text of settings.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {message}", path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
    /// A key, section or variable that there is not.
    #[error("{origin}: there is no setting `{key}`{}", nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    Unknown {
        /// Where.
        origin: Origin,
        /// What was written.
        key: String,
        /// The known name that is most like it, if any is.
        nearest: Option<String>,
    },
    /// A value that its setting does not take.
    #[error("{origin}: `{key}` takes {expected}{}", found.as_ref().map(|found| format!(", not {found}")).unwrap_or_default())]
    Value {
        /// Where.
        origin: Origin,
        /// The setting.
        key: String,
        /// What it takes.
        expected: String,
        /// What was found; absent for secrets.
        found: Option<String>,
    },
    /// A table lacks a setting that has no default.
    #[error("{origin}: `{key}` has to be given")]
    Missing {
        /// Where the table begins.
        origin: Origin,
        /// The setting.
        key: String,
    },
    /// A group has a history that its members would miss messages of.
    #[error(
        "{origin}: a group with a history has `slow_consumer = \"close\"`: who is closed comes back and misses nothing"
    )]
    DropsHistory {
        /// Where the table begins.
        origin: Origin,
    },
    /// A group has stored members and nothing that they could be given on return.
    #[error(
        "{origin}: a group with `members = \"stored\"` needs a `history`: what comes while a member is offline has to be kept somewhere"
    )]
    MembersWithoutHistory {
        /// Where the table begins.
        origin: Origin,
    },
    /// A file of access keys is empty.
    #[error("{}: there is no access key in the file", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
}

/// All mistakes of a configuration, one a line.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Whether a copy of the text would be of no use: somebody has to mend where it is read from.
    pub(crate) fn is_final(&self) -> bool {
        self.0.iter().any(|error| matches!(error, ConfigError::Source(source) if !source.is_away()))
    }

    /// Turns a list into a result.
    pub(super) fn none_or(errors: Vec<ConfigError>) -> Result<(), ConfigErrors> {
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
