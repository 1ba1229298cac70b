//! A file becomes a store: its connections, its schema, its id. Tested in `sqlite/tests/files.rs`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tieline_core::store::{Refusal, StoreId};
use tieline_core::unix_ms;

use super::busy;
use super::fault;
use super::schema::{APPLICATION_ID, STEPS};

/// What a connection for writing keeps of the file in memory, at most, in KiB.
const WRITER_CACHE_KIB: i64 = 64 << 10;

/// What a connection for reading keeps of the file in memory, at most, in KiB.
const READER_CACHE_KIB: i64 = 8 << 10;

/// Pages (of 4 KiB) that the log of writes may have before a commit moves them into the file. More make that rarer, and
/// the commit that does it longer.
const CHECKPOINT_PAGES: i64 = 4096;

/// Bytes that the log of writes is cut down to once it was emptied, after somebody had kept it from being so.
const WAL_LEFT: i64 = 64 << 20;

/// Why a file cannot be opened as a store.
#[derive(Debug, thiserror::Error)]
#[error("the store {path} cannot be opened: {reason}")]
pub struct SqliteError {
    /// Which file.
    pub path: PathBuf,
    /// Why, and what to do where that is known.
    pub reason: SqliteReason,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum SqliteReason {
    /// The folder is not there.
    #[error("there is no folder {0}")]
    NoFolder(PathBuf),
    /// The file, or a file beside it, cannot be made or written.
    #[error("it, or its folder, may not be written to")]
    ReadOnly,
    /// Another process holds it.
    #[error("another process has held it for {} s", busy::LIMIT.as_secs())]
    Busy,
    /// There is no room on the disk.
    #[error("there is no room left on its disk")]
    NoRoom,
    /// It is a file of something else.
    #[error("it is not a store of tieline")]
    Foreign,
    /// A later program made it.
    #[error("a newer tieline has made it (schema {found}; this one knows {known})")]
    Newer {
        /// Its version.
        found: i64,
        /// The last one that is known here.
        known: i64,
    },
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<rusqlite::Error> for SqliteReason {
    fn from(error: rusqlite::Error) -> Self {
        match fault::refusal(&error) {
            Refusal::Busy => SqliteReason::Busy,
            Refusal::NoRoom => SqliteReason::NoRoom,
            Refusal::ReadOnly => SqliteReason::ReadOnly,
            Refusal::Damaged(_) if is_foreign(&error) => SqliteReason::Foreign,
            Refusal::Damaged(text) => SqliteReason::Damaged(text),
            _ => SqliteReason::Failed(error.to_string()),
        }
    }
}

fn is_foreign(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase)
}

/// Opens or makes a store, and brings its schema up to date.
pub(super) fn writer(path: &Path) -> Result<(Connection, StoreId), SqliteReason> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(SqliteReason::NoFolder(folder.to_owned()));
    }
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    if connection.is_readonly("main")? {
        return Err(SqliteReason::ReadOnly);
    }
    check_owner(&connection)?;
    enter_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LEFT)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    let id = migrate(&mut connection)?;
    Ok((connection, id))
}

/// A connection that only reads, to a file that [`writer`] has opened.
pub(super) fn reader(path: &Path) -> Result<Connection, SqliteReason> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, SqliteReason> {
    // Each connection stays with its thread, so SQLite need not lock it.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_handler(Some(busy::wait))?;
    // Else SQLite plans a statement anew whenever the number behind its LIMIT is another one.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

fn number(connection: &Connection, pragma: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// Refuses the file of another program before anything in it is changed.
fn check_owner(connection: &Connection) -> Result<(), SqliteReason> {
    let (owner, version) = (number(connection, "application_id")?, number(connection, "user_version")?);
    let known = STEPS.len() as i64;
    if owner == APPLICATION_ID {
        return if version > known { Err(SqliteReason::Newer { found: version, known }) } else { Ok(()) };
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if owner != 0 || version != 0 || tables != 0 { Err(SqliteReason::Foreign) } else { Ok(()) }
}

/// Changing the way of writing needs the file alone for a moment, and SQLite does not wait for that by itself.
fn enter_wal(connection: &Connection) -> Result<(), SqliteReason> {
    let since = Instant::now();
    loop {
        let result =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match result.map_err(SqliteReason::from) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(SqliteReason::Failed(format!(
                    "its file system allows `{mode}` alone, and not WAL"
                )));
            }
            Err(SqliteReason::Busy) if since.elapsed() < busy::LIMIT => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(reason) => return Err(reason),
        }
    }
}

/// Takes the steps that are missing, in one transaction; of several processes that open a new file one takes them.
fn migrate(connection: &mut Connection) -> Result<StoreId, SqliteReason> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = number(&transaction, "user_version")?;
    let missing = usize::try_from(version).ok().and_then(|version| STEPS.get(version..)).unwrap_or_default();
    for step in missing {
        transaction.execute_batch(step)?;
    }
    if version == 0 {
        let id = StoreId::fresh().0.to_be_bytes();
        transaction.execute("INSERT INTO store VALUES (1, ?, 0, ?)", (id, unix_ms() as i64))?;
    }
    if !missing.is_empty() {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", STEPS.len() as i64)?;
    }
    let id: [u8; 16] = transaction.query_row("SELECT id FROM store", [], |row| row.get(0))?;
    transaction.commit()?;
    Ok(StoreId(u128::from_be_bytes(id)))
}
