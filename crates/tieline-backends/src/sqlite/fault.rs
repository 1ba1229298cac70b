//! What SQLite's errors mean for those who asked: whether something may have happened, and why it did not. Tested by
//! the real things in `sqlite/tests`.

use rusqlite::{Error, ErrorCode, ffi};
use tieline_core::store::{Refusal, StoreError};

/// Of an error before the commit: nothing happened, because a transaction that is not committed is nothing.
pub(super) fn refusal(error: &Error) -> Refusal {
    let Error::SqliteFailure(failure, text) = error else {
        return Refusal::Damaged(error.to_string());
    };
    let text = || text.clone().unwrap_or_else(|| failure.to_string());
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            Refusal::Busy
        }
        ErrorCode::DiskFull => Refusal::NoRoom,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => Refusal::ReadOnly,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Refusal::Damaged(text()),
        _ => Refusal::Failed(text()),
    }
}

/// Of a commit that failed. The commit's mark is the last thing that is written, and then it is flushed: a write that
/// failed was before the mark was whole, so nothing happened. After a flush that failed nobody knows.
pub(super) fn of_commit(error: &Error) -> StoreError {
    let extended = error.sqlite_error().map(|failure| failure.extended_code);
    match refusal(error) {
        refusal @ (Refusal::NoRoom | Refusal::Busy | Refusal::ReadOnly) => refusal.into(),
        refusal if extended == Some(ffi::SQLITE_IOERR_WRITE) => refusal.into(),
        refusal => StoreError::Unknown(refusal.to_string()),
    }
}
