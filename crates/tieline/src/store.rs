//! [`StoreUrl`]: which store is meant, and how it is opened. Tested here.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tieline_backends::{SqliteError, SqliteStore};
use tieline_core::store::{MemoryStore, Store};

/// The address of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:`, which nothing outlives.
    Memory,
    /// `sqlite:///path/to/file.db`.
    Sqlite(PathBuf),
}

/// Text that is no address of a store. It is not repeated: addresses of servers have passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Nothing that is known.
    #[error("known are `sqlite:///path/to/file.db` and `memory:`")]
    Unknown,
    /// A file by no absolute path.
    #[error("the file's path is absolute, with three slashes: `sqlite:///path/to/file.db`")]
    Relative,
    /// Something behind the path that is no part of it.
    #[error("a path has no `?`, `#` or `%` here")]
    Parameters,
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        if text == "memory:" {
            return Ok(StoreUrl::Memory);
        }
        let path = text.strip_prefix("sqlite:").ok_or(StoreUrlError::Unknown)?;
        let path = path.strip_prefix("//").filter(|path| path.starts_with('/') && !path.ends_with('/'));
        let path = path.ok_or(StoreUrlError::Relative)?;
        if path.contains(['?', '#', '%']) {
            return Err(StoreUrlError::Parameters);
        }
        Ok(StoreUrl::Sqlite(PathBuf::from(path)))
    }
}

impl StoreUrl {
    /// Opens the store, or makes it. It waits for the disk.
    ///
    /// # Errors
    /// With the path and the reason.
    pub fn open(&self) -> Result<Arc<dyn Store>, SqliteError> {
        Ok(match self {
            StoreUrl::Memory => Arc::new(MemoryStore::new()),
            StoreUrl::Sqlite(path) => Arc::new(SqliteStore::open(path)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let file = |path: &str| Ok(StoreUrl::Sqlite(PathBuf::from(path)));
        for (text, wanted) in [
            ("memory:", Ok(StoreUrl::Memory)),
            ("sqlite:///a/b c.db", file("/a/b c.db")),
            ("", Err(StoreUrlError::Unknown)),
            ("memory", Err(StoreUrlError::Unknown)),
            ("redis://h", Err(StoreUrlError::Unknown)),
            ("sqlite", Err(StoreUrlError::Unknown)),
            ("sqlite:a.db", Err(StoreUrlError::Relative)),
            ("sqlite://a.db", Err(StoreUrlError::Relative)),
            ("sqlite:///", Err(StoreUrlError::Relative)),
            ("sqlite:///a.db?mode=ro", Err(StoreUrlError::Parameters)),
        ] {
            assert_eq!(text.parse(), wanted, "{text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let url: StoreUrl = "sqlite:///does/not/exist/s.db".parse().unwrap();
        let text = url.open().map(drop).unwrap_err().to_string();
        assert_eq!(
            text,
            "the store /does/not/exist/s.db cannot be opened: there is no folder /does/not/exist"
        );
    }
}
