//! What a server's errors mean for those who asked: whether something may have happened, and why it did not. Tested here, and by
//! the real things in `sql/tests`.

use std::io;

use sqlx::Error;
use tieline_core::store::{Refusal, StoreError};

/// The server's own code for what it did not do: five letters of PostgreSQL, or MySQL's number.
fn code(error: &Error) -> Option<String> {
    let error = error.as_database_error()?;
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return Some(error.number().to_string());
    }
    error.code().map(|code| code.into_owned())
}

/// Whether the same transaction, begun anew, may well succeed: it met another one.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01" | "1213"))
}

/// Whether the connection is of no use any more. A server that says no goes on to listen, unless it ends.
pub(super) fn is_broken(error: &Error) -> bool {
    match code(error).as_deref() {
        None => true,
        // It shuts down, or has cut us off; or it has become one that only reads, while another one writes now.
        Some(code) => {
            code.starts_with("57P")
                || matches!(code, "25P03" | "25006" | "1053" | "1927" | "1290" | "1836" | "4031")
        }
    }
}

/// Whether the server has not answered in time: the next one would wait as long.
pub(super) fn is_silent(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Of an error before the commit: nothing happened, because a transaction that is not committed is nothing.
pub(super) fn refusal(error: &Error) -> Refusal {
    match code(error).as_deref() {
        Some("25006" | "1290" | "1792" | "1836") => Refusal::ReadOnly,
        Some("53100" | "1021" | "1114") => Refusal::NoRoom,
        Some("55P03" | "1205") => Refusal::Busy,
        Some("XX001" | "XX002" | "1034" | "1194") => Refusal::Damaged(text(error)),
        _ => Refusal::Failed(text(error)),
    }
}

/// Of a commit that failed. Only where the server itself says that it has undone the transaction, nothing happened.
pub(super) fn of_commit(error: &Error) -> StoreError {
    match code(error).as_deref() {
        Some("40001" | "40P01" | "25006" | "1213" | "1205") => refusal(error).into(),
        _ => StoreError::Unknown(text(error)),
    }
}

/// What is said of an error.
pub(super) fn text(error: &Error) -> String {
    match error {
        Error::Database(error) => error.message().to_owned(),
        Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}
