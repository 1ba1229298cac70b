//! The tables, as steps from each version of the schema to the next. `docs/store.md` explains them to people. A step that
//! was released is never changed. Several nodes may start at once: one takes the steps, the others wait for it. Tested in
//! `sql/tests`.

use std::time::Duration;

use tieline_core::store::StoreId;

use super::dialect::Dialect;
use super::link::{Arg, Link};
use super::{SqlReason, fault};

/// Step n leads from version n to n + 1. A step that was begun and not ended is taken again, so each part of it is one
/// that may be taken twice: MySQL knows no transactions for tables.
const POSTGRES: &[&str] = &["
CREATE TABLE IF NOT EXISTS tieline_store (
    one      SMALLINT PRIMARY KEY CHECK (one = 1),
    version  BIGINT NOT NULL,
    id       BYTEA  NOT NULL,
    slot     BIGINT NOT NULL,
    since_ms BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS tieline_logs (
    hash       BYTEA  PRIMARY KEY,
    name       BYTEA  NOT NULL,
    log        BIGINT NOT NULL,
    epoch      BIGINT NOT NULL,
    first      BIGINT NOT NULL,
    last       BIGINT NOT NULL,
    swept      BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,
    newest_ms  BIGINT NOT NULL,
    keep_count BIGINT NOT NULL,
    keep_bytes BIGINT NOT NULL,
    keep_ms    BIGINT NOT NULL,
    due_ms     BIGINT NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS tieline_logs_due ON tieline_logs (due_ms);
CREATE TABLE IF NOT EXISTS tieline_messages (
    log    BIGINT NOT NULL,
    number BIGINT NOT NULL,
    id     BYTEA  NOT NULL,
    size   BIGINT NOT NULL,
    body   BYTEA  NOT NULL,
    PRIMARY KEY (log, number)
);
ALTER TABLE tieline_messages ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS tieline_appends (
    said   BYTEA  NOT NULL,
    log    BIGINT NOT NULL,
    number BIGINT NOT NULL,
    slot   BIGINT NOT NULL,
    PRIMARY KEY (said, log)
);
CREATE INDEX IF NOT EXISTS tieline_appends_slot ON tieline_appends (slot);
CREATE TABLE IF NOT EXISTS tieline_dropped (
    log BIGINT PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS tieline_records (
    name    BYTEA  PRIMARY KEY,
    version BIGINT NOT NULL,
    value   BYTEA  NOT NULL,
    ends_ms BIGINT
);
CREATE INDEX IF NOT EXISTS tieline_records_ends ON tieline_records (ends_ms) WHERE ends_ms IS NOT NULL;
"];

const MYSQL: &[&str] = &["
CREATE TABLE IF NOT EXISTS tieline_store (
    one      SMALLINT PRIMARY KEY,
    version  BIGINT NOT NULL,
    id       BINARY(16) NOT NULL,
    slot     BIGINT NOT NULL,
    since_ms BIGINT NOT NULL
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS tieline_logs (
    hash       BINARY(32) PRIMARY KEY,
    name       VARBINARY(8000) NOT NULL,
    log        BIGINT NOT NULL,
    epoch      BIGINT NOT NULL,
    first      BIGINT NOT NULL,
    last       BIGINT NOT NULL,
    swept      BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,
    newest_ms  BIGINT NOT NULL,
    keep_count BIGINT NOT NULL,
    keep_bytes BIGINT NOT NULL,
    keep_ms    BIGINT NOT NULL,
    due_ms     BIGINT NOT NULL,
    KEY tieline_logs_due (due_ms)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
CREATE TABLE IF NOT EXISTS tieline_messages (
    log    BIGINT NOT NULL,
    number BIGINT NOT NULL,
    id     BINARY(16) NOT NULL,
    size   BIGINT NOT NULL,
    body   LONGBLOB NOT NULL,
    PRIMARY KEY (log, number)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
CREATE TABLE IF NOT EXISTS tieline_appends (
    said   BINARY(16) NOT NULL,
    log    BIGINT NOT NULL,
    number BIGINT NOT NULL,
    slot   BIGINT NOT NULL,
    PRIMARY KEY (said, log),
    KEY tieline_appends_slot (slot)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS tieline_dropped (
    log BIGINT PRIMARY KEY
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS tieline_records (
    name    VARBINARY(1024) PRIMARY KEY,
    version BIGINT NOT NULL,
    value   LONGBLOB NOT NULL,
    ends_ms BIGINT,
    KEY tieline_records_ends (ends_ms)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
"];

/// How long one step may take: a busy disk takes its time for tables.
const STEP: Duration = Duration::from_secs(30);

/// Makes the schema what this program knows, and gives the store's id.
pub(super) async fn ready(link: &mut Link) -> Result<StoreId, SqlReason> {
    let steps = if link.dialect == Dialect::Postgres { POSTGRES } else { MYSQL };
    let known = steps.len();
    let (version, id) = match found(link).await? {
        Some((version, id)) if version == known => return Ok(id),
        found => found.unwrap_or((0, StoreId::fresh())),
    };
    if version > known {
        return Err(SqlReason::Newer);
    }
    let patience = std::mem::replace(&mut link.patience, STEP);
    let locked = link.rows(link.dialect.lock_schema(), &[]).await.map_err(failed)?;
    if locked.first().and_then(|row| row.int(0).ok()) != Some(1) {
        return Err(SqlReason::Failed(
            "another node changes its tables, and does not come to an end".to_owned(),
        ));
    }
    let taken = take(link, steps, id).await;
    link.patience = patience;
    link.run(link.dialect.unlock_schema()).await.map_err(failed)?;
    taken
}

/// Takes the steps that are still missing now that nobody else takes any.
async fn take(link: &mut Link, steps: &[&str], id: StoreId) -> Result<StoreId, SqlReason> {
    let (version, id) = found(link).await?.unwrap_or((0, id));
    if version > steps.len() {
        return Err(SqlReason::Newer);
    }
    for (step, text) in steps.iter().enumerate().skip(version) {
        link.run(text).await.map_err(failed)?;
        if step == 0 {
            let made = "INSERT INTO tieline_store (one, version, id, slot, since_ms) VALUES (1, ?, ?, 1, 0)";
            let id = id.0.to_be_bytes();
            link.execute(made, &[Arg::Int(1), Arg::Bytes(&id)]).await.map_err(failed)?;
        } else {
            let version = Arg::Int(step as i64 + 1);
            link.execute("UPDATE tieline_store SET version = ?", &[version]).await.map_err(failed)?;
        }
    }
    Ok(id)
}

/// Version and id, if there is a store.
async fn found(link: &mut Link) -> Result<Option<(usize, StoreId)>, SqlReason> {
    if link.rows(link.dialect.is_there(), &[]).await.map_err(failed)?.is_empty() {
        return Ok(None);
    }
    let rows = link.rows("SELECT version, id FROM tieline_store", &[]).await.map_err(failed)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let version = row.number(0).map_err(failed)? as usize;
    Ok(Some((version, StoreId(u128::from_be_bytes(row.exactly(1).map_err(failed)?)))))
}

fn failed(error: sqlx::Error) -> SqlReason {
    SqlReason::Failed(fault::refusal(&error).to_string())
}
