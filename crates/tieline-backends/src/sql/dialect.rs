//! [`Dialect`]: what the same statement is called by different servers. Every text that one server would not understand
//! is here, and nothing else. Tested by the conformance suites on both.

/// Whose words are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(all(feature = "postgres", feature = "mysql")), allow(dead_code))]
pub(super) enum Dialect {
    Postgres,
    /// MySQL and MariaDB: nothing is said that they take differently.
    MySql,
}

/// A table as rows are put into it.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The column that tells rows apart where rows are put over others.
    pub(super) key: &'static str,
    /// All columns, in the order in which they are given.
    pub(super) columns: &'static [&'static str],
}

pub(super) const LOGS: Table = Table {
    name: "tieline_logs",
    key: "hash",
    columns: &[
        "hash",
        "name",
        "log",
        "epoch",
        "first",
        "last",
        "swept",
        "bytes",
        "newest_ms",
        "keep_count",
        "keep_bytes",
        "keep_ms",
        "due_ms",
    ],
};

pub(super) const MESSAGES: Table =
    Table { name: "tieline_messages", key: "log", columns: &["log", "number", "id", "size", "body"] };

pub(super) const APPENDS: Table =
    Table { name: "tieline_appends", key: "said", columns: &["said", "log", "number", "slot"] };

pub(super) const DROPPED: Table = Table { name: "tieline_dropped", key: "log", columns: &["log"] };

pub(super) const RECORDS: Table =
    Table { name: "tieline_records", key: "name", columns: &["name", "version", "value", "ends_ms"] };

impl Dialect {
    /// What each new session is told, one text after the other.
    ///
    /// A node that stands still must not hold rows for ever: the server ends its transaction (MySQL itself knows only
    /// connections that say nothing). Locks are not waited for as
    /// long as a step may take, so that the server's own answer comes first. Of `synchronous_commit` only what is
    /// less than a flush of the own disk and of the standby is raised.
    pub(super) fn session(self) -> &'static [&'static str] {
        match self {
            Dialect::Postgres => &["SET default_transaction_isolation = 'read committed'; \
                 SET lock_timeout = '1500ms'; SET idle_in_transaction_session_timeout = '5s'; \
                 SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"],
            Dialect::MySql => &[
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET SESSION innodb_lock_wait_timeout = 1, SESSION autocommit = 1 \
                 /*!80000 , SESSION wait_timeout = 10 */ /*M! , SESSION idle_transaction_timeout = 5 */",
            ],
        }
    }

    /// What the sweeper's session is told beside that: nobody waits for what it does to reach the disk, and when its
    /// process stands still another one sweeps.
    pub(super) fn sweeping(self) -> &'static [&'static str] {
        match self {
            Dialect::Postgres => &["SET synchronous_commit = off; \
                 SELECT set_config(name, '10s', false) FROM pg_settings WHERE name = 'idle_session_timeout'"],
            Dialect::MySql => &[],
        }
    }

    /// Asks for the largest statement that is taken.
    pub(super) fn packet(self) -> Option<&'static str> {
        match self {
            Dialect::Postgres => None,
            Dialect::MySql => Some("SELECT CAST(@@max_allowed_packet AS SIGNED)"),
        }
    }

    /// Asks for settings with which a server loses what it has acknowledged: each row is such a one.
    pub(super) fn unsafe_settings(self) -> &'static str {
        match self {
            Dialect::Postgres => {
                "SELECT convert_to(name || ' = ' || setting, 'UTF8') FROM pg_settings \
                 WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'"
            }
            Dialect::MySql => {
                "SELECT CAST('innodb_flush_log_at_trx_commit is not 1' AS BINARY) FROM dual \
                 WHERE @@innodb_flush_log_at_trx_commit <> 1 \
                 UNION ALL SELECT CAST('sync_binlog is not 1' AS BINARY) FROM dual \
                 WHERE @@log_bin = 1 AND @@sync_binlog <> 1"
            }
        }
    }

    /// Asks whether the store's first table is there.
    pub(super) fn is_there(self) -> &'static str {
        match self {
            Dialect::Postgres => "SELECT 1::bigint WHERE to_regclass('tieline_store') IS NOT NULL",
            Dialect::MySql => {
                "SELECT CAST(1 AS SIGNED) FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name = 'tieline_store'"
            }
        }
    }

    /// Waits until nobody else changes the schema. The answer is 1, or the wait was too long.
    pub(super) fn lock_schema(self) -> &'static str {
        match self {
            Dialect::Postgres => {
                "SELECT 1::bigint FROM (SELECT set_config('lock_timeout', '30s', false), \
                 pg_advisory_lock(1952607603, 1)) AS locked"
            }
            Dialect::MySql => "SELECT CAST(GET_LOCK(CONCAT('tieline.', MD5(DATABASE())), 30) AS SIGNED)",
        }
    }

    /// Lets others change the schema.
    pub(super) fn unlock_schema(self) -> &'static str {
        match self {
            Dialect::Postgres => "SELECT pg_advisory_unlock(1952607603, 1); SET lock_timeout = '1500ms'",
            Dialect::MySql => "DO RELEASE_LOCK(CONCAT('tieline.', MD5(DATABASE())))",
        }
    }

    /// Makes this session the one that sweeps, as long as it lives. The answer is 1, or another one is it.
    pub(super) fn lock_sweeping(self) -> &'static str {
        match self {
            Dialect::Postgres => "SELECT pg_try_advisory_lock(1952607603, 2)::int::bigint",
            Dialect::MySql => "SELECT CAST(GET_LOCK(CONCAT('tieline.s.', MD5(DATABASE())), 0) AS SIGNED)",
        }
    }

    /// The server's clock in Unix milliseconds, at the beginning of a statement.
    pub(super) fn now_ms(self) -> &'static str {
        match self {
            Dialect::Postgres => "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS bigint)",
            Dialect::MySql => "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
        }
    }

    /// The text with its arguments as the server names them.
    pub(super) fn numbered(self, text: &str) -> String {
        match self {
            Dialect::MySql => text.to_owned(),
            Dialect::Postgres => {
                let mut parts = text.split('?');
                let mut numbered = parts.next().unwrap_or_default().to_owned();
                for (index, part) in parts.enumerate() {
                    numbered.push_str(&format!("${}{part}", index + 1));
                }
                numbered
            }
        }
    }

    pub(super) fn delete_some(self, table: &Table, condition: &str) -> String {
        let name = table.name;
        match self {
            Dialect::Postgres => format!(
                "DELETE FROM {name} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {name} WHERE {condition} LIMIT ?)) \
                 AND {condition}"
            ),
            Dialect::MySql => format!("DELETE FROM {name} WHERE {condition} LIMIT ?"),
        }
    }

    /// Puts rows that are given as one array for each column.
    #[cfg(feature = "postgres")]
    pub(super) fn put_arrays(self, table: &Table, sets: &[&str], types: &[&str]) -> String {
        let arrays: Vec<String> =
            types.iter().zip(1..).map(|(name, place)| format!("${place}::{name}[]")).collect();
        let mut text = format!(
            "INSERT INTO {} ({}) SELECT * FROM UNNEST({})",
            table.name,
            table.columns.join(", "),
            arrays.join(", ")
        );
        if !sets.is_empty() {
            let sets: Vec<String> =
                sets.iter().map(|column| format!("{column} = EXCLUDED.{column}")).collect();
            text.push_str(&format!(" ON CONFLICT ({}) DO UPDATE SET {}", table.key, sets.join(", ")));
        }
        text
    }

    /// Puts so many rows that are given one after the other.
    #[cfg(feature = "mysql")]
    pub(super) fn put_rows(self, table: &Table, sets: &[&str], count: usize) -> String {
        let row = format!("(?{})", ", ?".repeat(table.columns.len() - 1));
        let mut text = format!(
            "INSERT INTO {} ({}) VALUES {row}{}",
            table.name,
            table.columns.join(", "),
            format!(", {row}").repeat(count - 1)
        );
        if !sets.is_empty() {
            let sets: Vec<String> =
                sets.iter().map(|column| format!("{column} = VALUES({column})")).collect();
            text.push_str(&format!(" ON DUPLICATE KEY UPDATE {}", sets.join(", ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_numbered_where_the_server_wants_it() {
        let text = "a = ? AND b IN (?, ?)";
        assert_eq!(Dialect::Postgres.numbered(text), "a = $1 AND b IN ($2, $3)");
        assert_eq!(Dialect::MySql.numbered(text), text);
    }
}
