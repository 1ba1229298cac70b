//! [`StoreUrl`]: which store is meant, and how it is opened. Tested here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tieline_backends::{
    RedisError, RedisStore, RedisStoreError, RedisStoreSettings, SqliteError, SqliteStore,
};
#[cfg(any(feature = "postgres", feature = "mysql"))]
use tieline_backends::{SqlAddress, SqlAddressError, SqlError, SqlStore};
use tieline_core::logs::Engine;
use tieline_core::records::MemoryRecords;
use tieline_core::store::MemoryStore;

/// The address of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:`, which nothing outlives.
    Memory,
    /// `sqlite:///path/to/file.db`.
    Sqlite(PathBuf),
    /// `redis://host`, or `rediss://host` for TLS.
    Redis(RedisStoreSettings),
    /// `postgres://…` or `mysql://…`.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    Sql(SqlAddress),
}

/// Schemes of servers that SQL is spoken to.
const SQL: &[&str] = &["postgres://", "postgresql://", "mysql://", "mariadb://"];

/// Text that is no address of a store. It is not repeated: addresses of servers have passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Nothing that is known.
    #[error(
        "known are `sqlite:///path/to/file.db`, `redis://HOST`, `postgres://USER:PASSWORD@HOST/DATABASE`, `mysql://…` and `memory:`"
    )]
    Unknown,
    /// No address of a server, or one of an engine that is not built in.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[error(transparent)]
    Sql(#[from] SqlAddressError),
    /// An engine that is known, but not in this program.
    #[cfg(not(any(feature = "postgres", feature = "mysql")))]
    #[error(
        "PostgreSQL and MySQL are not built into this program: build it with `cargo build --release -p tieline --features full`"
    )]
    NotBuilt,
    /// A file by no absolute path.
    #[error("the file's path is absolute, with three slashes: `sqlite:///path/to/file.db`")]
    Relative,
    /// Something behind the path that is no part of it.
    #[error("a path has no `?`, `#` or `%` here")]
    Parameters,
    /// An address of a Redis server with a mistake in it, in the engine's words.
    #[error("{0}")]
    Redis(String),
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The file.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The Redis server.
    #[error(transparent)]
    Redis(#[from] RedisStoreError),
    /// A database of an SQL server.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        if text == "memory:" {
            return Ok(StoreUrl::Memory);
        }
        if text.starts_with("redis://") || text.starts_with("rediss://") {
            let wrong = |error: RedisError| StoreUrlError::Redis(error.to_string());
            return RedisStoreSettings::parse(text).map(StoreUrl::Redis).map_err(wrong);
        }
        if SQL.iter().any(|scheme| text.starts_with(scheme)) {
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            return Ok(StoreUrl::Sql(text.parse()?));
            #[cfg(not(any(feature = "postgres", feature = "mysql")))]
            return Err(StoreUrlError::NotBuilt);
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
    /// Opens the store, or makes it. With a file it waits for the disk, with an SQL server at most some
    /// seconds for the server, and holds up the thread meanwhile.
    ///
    /// # Errors
    /// With the path or the server, and the reason.
    pub async fn open(&self) -> Result<Engine, StoreOpenError> {
        Ok(match self {
            StoreUrl::Memory => {
                Engine { store: Arc::new(MemoryStore::new()), records: Arc::new(MemoryRecords::new()) }
            }
            StoreUrl::Sqlite(path) => Engine::of(Arc::new(SqliteStore::open(path)?)),
            StoreUrl::Redis(settings) => Engine::of(Arc::new(RedisStore::open(settings.clone()).await?)),
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            StoreUrl::Sql(address) => Engine::of(Arc::new(SqlStore::open(address)?)),
        })
    }

    /// What a setting takes, as it stands behind "takes" in an error.
    pub(crate) const TAKES: &'static str = "the address of a store; known are `sqlite:///path/to/file.db`, `redis://[[USER]:PASSWORD@]HOST[:PORT]`, `postgres://USER:PASSWORD@HOST/DATABASE` and `mysql://…` (built in by `cargo build --release -p tieline --features full`), and `memory:`";
}

impl fmt::Display for StoreUrl {
    /// Without anything secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Memory => f.write_str("memory:"),
            StoreUrl::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            StoreUrl::Redis(settings) => settings.address.fmt(f),
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            StoreUrl::Sql(address) => address.fmt(f),
        }
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
            ("redis", Err(StoreUrlError::Unknown)),
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
    fn a_password_is_never_shown() {
        let url: StoreUrl = "redis://u:hush@h/2?prefix=p".parse().unwrap();
        assert!(matches!(&url, StoreUrl::Redis(settings) if settings.prefix == "p"));
        assert!(!format!("{url:?}").contains("hush"), "{url:?}");
        for bad in ["redis://u:hush@h?prefix=", "redis://u:hush@", "rediss://u:hush@h/x"] {
            let error = bad.parse::<StoreUrl>().unwrap_err();
            assert!(matches!(error, StoreUrlError::Redis(_)), "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }

    #[test]
    fn addresses_of_servers_are_taken_where_their_engine_is_built_in() {
        for (text, is_built) in [
            ("postgres://me:hush@h/d", cfg!(feature = "postgres")),
            ("mysql://me:hush@h/d", cfg!(feature = "mysql")),
        ] {
            match text.parse::<StoreUrl>() {
                Ok(url) => assert!(is_built && !format!("{url:?}").contains("hush"), "{text}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        !is_built && error.contains("--features full") && !error.contains("hush"),
                        "{error}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_named() {
        let url: StoreUrl = "sqlite:///does/not/exist/s.db".parse().unwrap();
        let text = url.open().await.map(drop).unwrap_err().to_string();
        assert_eq!(
            text,
            "the store /does/not/exist/s.db cannot be opened: there is no folder /does/not/exist"
        );
    }
}
