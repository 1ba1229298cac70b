//! The tables, as steps from each version of the schema to the next. `docs/store.md` explains them to people. A step that
//! was released is never changed. Tested in `sqlite/tests/files.rs`.

/// What `PRAGMA application_id` says of our files: "tlst".
pub(super) const APPLICATION_ID: i64 = 0x746c_7374;

/// Step n leads from version n to n + 1, which `PRAGMA user_version` tells.
pub(super) const STEPS: &[&str] = &["
CREATE TABLE store (
    only      INTEGER PRIMARY KEY CHECK (only = 1),
    id        BLOB    NOT NULL,
    slot      INTEGER NOT NULL,
    since_ms  INTEGER NOT NULL
) STRICT;

CREATE TABLE logs (
    log        INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT UNIQUE,
    epoch      INTEGER NOT NULL,
    first      INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    swept      INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    newest_ms  INTEGER NOT NULL,
    keep_count INTEGER NOT NULL,
    keep_bytes INTEGER NOT NULL,
    keep_ms    INTEGER NOT NULL
) STRICT;

CREATE TABLE messages (
    log      INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    id       BLOB    NOT NULL,
    body     BLOB    NOT NULL,
    PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE appends (
    slot     INTEGER NOT NULL,
    key      BLOB    NOT NULL,
    log      INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    PRIMARY KEY (slot, key, log)
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    key      BLOB    PRIMARY KEY,
    version  INTEGER NOT NULL,
    value    BLOB    NOT NULL,
    ends_ms  INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX records_ends ON records (ends_ms) WHERE ends_ms IS NOT NULL;
"];
