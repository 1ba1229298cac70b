//! [`Link`]: one connection to a server, and the few ways in which a store speaks to it. All that differs between the two
//! drivers is here; what differs in the texts of statements is in `dialect.rs`. Tested by the conformance suites.

use std::io;
use std::str::FromStr;
use std::time::Duration;

#[cfg(feature = "mysql")]
use sqlx::mysql::{MySql, MySqlConnectOptions, MySqlConnection, MySqlRow};
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row as _};
use tokio::time::timeout;

use super::dialect::{Dialect, Table};

/// Rows that one statement has at most where their number is in the statement's text.
#[cfg(feature = "mysql")]
const MOST_ROWS: usize = 512;

/// Room in a packet for what is not a body.
pub(super) const PACKET_MARGIN: usize = 64 << 10;

/// How long a server may take for one step before it is thought to be silent.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

pub(super) type Result<T> = std::result::Result<T, sqlx::Error>;

/// How long it may take where so many bytes have to go with it: a server that takes 4 MiB a second is slow, but not silent.
pub(super) fn patience(bytes: usize) -> Duration {
    SILENCE + Duration::from_secs(1).mul_f64(bytes.min(MOST_BYTES) as f64 / f64::from(4 << 20))
}

/// More bytes are not waited for longer.
const MOST_BYTES: usize = 16 << 20;

/// A step that ends in time, or in an error that [`is_silent`](super::fault::is_silent).
async fn in_time<T>(patience: Duration, step: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(patience, step).await.unwrap_or_else(|_| {
        let text = format!("the server has not answered for {} s", patience.as_secs());
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
    })
}

/// Where a server is and who connects, as its driver wants to know it.
#[derive(Clone)]
pub(super) enum Options {
    #[cfg(feature = "postgres")]
    Postgres(PgConnectOptions),
    #[cfg(feature = "mysql")]
    MySql(MySqlConnectOptions),
}

impl Options {
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", _)) => {
                let options = PgConnectOptions::from_str(text)?.application_name("tieline");
                Ok(Options::Postgres(options.disable_statement_logging()))
            }
            #[cfg(feature = "mysql")]
            Some(("mysql" | "mariadb", _)) => {
                Ok(Options::MySql(MySqlConnectOptions::from_str(text)?.disable_statement_logging()))
            }
            _ => Err(sqlx::Error::Configuration("another engine".into())),
        }
    }

    /// Scheme, user, host and port.
    pub(super) fn server(&self) -> (&'static str, &str, &str, u16) {
        match self {
            #[cfg(feature = "postgres")]
            Options::Postgres(o) => ("postgres", o.get_username(), o.get_host(), o.get_port()),
            #[cfg(feature = "mysql")]
            Options::MySql(o) => ("mysql", o.get_username(), o.get_host(), o.get_port()),
        }
    }

    pub(super) fn database(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "postgres")]
            Options::Postgres(options) => options.get_database(),
            #[cfg(feature = "mysql")]
            Options::MySql(options) => options.get_database(),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self {
            #[cfg(feature = "postgres")]
            Options::Postgres(_) => Dialect::Postgres,
            #[cfg(feature = "mysql")]
            Options::MySql(_) => Dialect::MySql,
        }
    }

    /// Connects, and makes the session what a store wants.
    pub(super) async fn connect(&self) -> Result<Link> {
        let wire = match self {
            #[cfg(feature = "postgres")]
            Options::Postgres(options) => {
                Wire::Postgres(Box::new(PgConnection::connect_with(options).await?))
            }
            #[cfg(feature = "mysql")]
            Options::MySql(options) => Wire::MySql(Box::new(MySqlConnection::connect_with(options).await?)),
        };
        let mut link = Link { wire, dialect: self.dialect(), packet: usize::MAX, patience: SILENCE };
        for text in link.dialect.session() {
            link.run(text).await?;
        }
        if let Some(text) = link.dialect.packet() {
            let rows = link.rows(text, &[]).await?;
            link.packet = rows.first().map_or(Ok(0), |row| row.int(0))? as usize;
        }
        Ok(link)
    }
}

/// What a statement is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

/// The values of one column of many rows.
pub(super) enum Column<'a> {
    Ints(Vec<i64>),
    /// Numbers, where there may be none.
    MaybeInts(Vec<Option<i64>>),
    Bytes(Vec<&'a [u8]>),
}

impl Column<'_> {
    fn len(&self) -> usize {
        match self {
            Column::Ints(values) => values.len(),
            Column::MaybeInts(values) => values.len(),
            Column::Bytes(values) => values.len(),
        }
    }

    #[cfg(feature = "postgres")]
    fn type_name(&self) -> &'static str {
        match self {
            Column::Ints(_) | Column::MaybeInts(_) => "bigint",
            Column::Bytes(_) => "bytea",
        }
    }

    #[cfg(feature = "mysql")]
    fn size(&self, row: usize) -> usize {
        if let Column::Bytes(values) = self { values[row].len() + 9 } else { 9 }
    }
}

/// A row of an answer.
pub(super) enum Row {
    #[cfg(feature = "postgres")]
    Postgres(PgRow),
    #[cfg(feature = "mysql")]
    MySql(MySqlRow),
}

impl Row {
    pub(super) fn int(&self, column: usize) -> Result<i64> {
        match self {
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => row.try_get(column),
            #[cfg(feature = "mysql")]
            Row::MySql(row) => row.try_get(column),
        }
    }

    /// A number that is never below 0.
    pub(super) fn number(&self, column: usize) -> Result<u64> {
        self.int(column).map(|value| value as u64)
    }

    pub(super) fn bytes(&self, column: usize) -> Result<&[u8]> {
        match self {
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => row.try_get(column),
            #[cfg(feature = "mysql")]
            Row::MySql(row) => row.try_get(column),
        }
    }

    /// Bytes of which there are always so many.
    pub(super) fn exactly<const N: usize>(&self, column: usize) -> Result<[u8; N]> {
        let bytes = self.bytes(column)?;
        bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{N} bytes were expected").into()))
    }
}

enum Wire {
    #[cfg(feature = "postgres")]
    Postgres(Box<PgConnection>),
    #[cfg(feature = "mysql")]
    MySql(Box<MySqlConnection>),
}

/// A connection. After an error that is not the server's own it is of no use any more.
pub(super) struct Link {
    wire: Wire,
    pub(super) dialect: Dialect,
    /// The largest statement that the server takes, in bytes.
    pub(super) packet: usize,
    /// How long one step may take.
    pub(super) patience: Duration,
}

macro_rules! bound {
    ($database:ty, $text:expr, $args:expr) => {
        $args.iter().fold(sqlx::query::<$database>(AssertSqlSafe($text)), |query, arg| match arg {
            Arg::Int(value) => query.bind(*value),
            Arg::Bytes(value) => query.bind(*value),
        })
    };
}

impl Link {
    /// Runs a text without arguments, which may be several statements.
    pub(super) async fn run(&mut self, text: &str) -> Result<()> {
        let text = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        match &mut self.wire {
            #[cfg(feature = "postgres")]
            Wire::Postgres(wire) => in_time(self.patience, text.execute(&mut **wire)).await.map(drop),
            #[cfg(feature = "mysql")]
            Wire::MySql(wire) => in_time(self.patience, text.execute(&mut **wire)).await.map(drop),
        }
    }

    /// Says good-bye, so that the server does not note a connection that broke off.
    pub(super) async fn close(self) {
        let _ = match self.wire {
            #[cfg(feature = "postgres")]
            Wire::Postgres(wire) => in_time(self.patience, wire.close()).await,
            #[cfg(feature = "mysql")]
            Wire::MySql(wire) => in_time(self.patience, wire.close()).await,
        };
    }

    /// Rows of a query, whose arguments are `?` in the text.
    pub(super) async fn rows(&mut self, text: &str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        let text = self.dialect.numbered(text);
        match &mut self.wire {
            #[cfg(feature = "postgres")]
            Wire::Postgres(wire) => {
                let rows =
                    in_time(self.patience, bound!(Postgres, text, args).fetch_all(&mut **wire)).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
            #[cfg(feature = "mysql")]
            Wire::MySql(wire) => {
                let rows = in_time(self.patience, bound!(MySql, text, args).fetch_all(&mut **wire)).await?;
                Ok(rows.into_iter().map(Row::MySql).collect())
            }
        }
    }

    /// How many rows a statement has changed or taken away.
    pub(super) async fn execute(&mut self, text: &str, args: &[Arg<'_>]) -> Result<u64> {
        let text = self.dialect.numbered(text);
        match &mut self.wire {
            #[cfg(feature = "postgres")]
            Wire::Postgres(wire) => {
                Ok(in_time(self.patience, bound!(Postgres, text, args).execute(&mut **wire))
                    .await?
                    .rows_affected())
            }
            #[cfg(feature = "mysql")]
            Wire::MySql(wire) => Ok(in_time(self.patience, bound!(MySql, text, args).execute(&mut **wire))
                .await?
                .rows_affected()),
        }
    }

    /// Takes away at most `most` rows of the table, and tells how many.
    pub(super) async fn delete_some(
        &mut self,
        table: &Table,
        condition: &str,
        args: &[Arg<'_>],
        most: usize,
    ) -> Result<u64> {
        let args: Vec<Arg<'_>> = match self.dialect {
            // The condition is there twice: once to find rows, and once to see that they are still such.
            Dialect::Postgres => [args, &[Arg::Int(most as i64)], args].concat(),
            Dialect::MySql => [args, &[Arg::Int(most as i64)]].concat(),
        };
        let text = self.dialect.delete_some(table, condition);
        self.execute(&text, &args).await
    }

    /// Takes away the rows with these keys.
    pub(super) async fn delete(&mut self, table: &Table, keys: &[&[u8]]) -> Result<()> {
        self.of_keys(&format!("DELETE FROM {}", table.name), table.key, keys, "").await.map(drop)
    }

    /// Rows whose column is one of the keys. `select` ends in front of the condition, `rest` stands behind it.
    pub(super) async fn of_keys(
        &mut self,
        select: &str,
        column: &str,
        keys: &[&[u8]],
        rest: &str,
    ) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        match &mut self.wire {
            #[cfg(feature = "postgres")]
            Wire::Postgres(wire) => {
                let text = format!("{select} WHERE {column} = ANY($1) {rest}");
                let query = sqlx::query::<Postgres>(AssertSqlSafe(text)).bind(keys);
                found.extend(
                    in_time(self.patience, query.fetch_all(&mut **wire))
                        .await?
                        .into_iter()
                        .map(Row::Postgres),
                );
            }
            #[cfg(feature = "mysql")]
            Wire::MySql(wire) => {
                for keys in keys.chunks(MOST_ROWS) {
                    // Few numbers of places, so that few texts are prepared: the last key fills those that are left.
                    let places = keys.len().next_power_of_two();
                    let text = format!("{select} WHERE {column} IN (?{}) {rest}", ", ?".repeat(places - 1));
                    let mut query = sqlx::query::<MySql>(AssertSqlSafe(text));
                    for place in 0..places {
                        query = query.bind(keys[place.min(keys.len() - 1)]);
                    }
                    found.extend(
                        in_time(self.patience, query.fetch_all(&mut **wire))
                            .await?
                            .into_iter()
                            .map(Row::MySql),
                    );
                }
            }
        }
        Ok(found)
    }

    /// Puts rows into the table, in this order. Of rows that are there, the columns in `sets` become what is given, and the others
    /// stay; with none of them such a row is an error. Rows that are there are locked by this.
    pub(super) async fn put(&mut self, table: &Table, sets: &[&str], columns: &[Column<'_>]) -> Result<()> {
        let rows = columns.first().map_or(0, Column::len);
        if rows == 0 {
            return Ok(());
        }
        match &mut self.wire {
            #[cfg(feature = "postgres")]
            Wire::Postgres(wire) => {
                let types: Vec<&str> = columns.iter().map(Column::type_name).collect();
                let text = self.dialect.put_arrays(table, sets, &types);
                let mut query = sqlx::query::<Postgres>(AssertSqlSafe(text));
                for column in columns {
                    query = match column {
                        Column::Ints(values) => query.bind(values),
                        Column::MaybeInts(values) => query.bind(values),
                        Column::Bytes(values) => query.bind(values),
                    };
                }
                in_time(self.patience, query.execute(&mut **wire)).await?;
            }
            #[cfg(feature = "mysql")]
            Wire::MySql(wire) => {
                let mut begin = 0;
                while begin < rows {
                    let count = rows_that_fit(columns, begin, self.packet / 2);
                    let text = self.dialect.put_rows(table, sets, count);
                    let mut query = sqlx::query::<MySql>(AssertSqlSafe(text));
                    for row in begin..begin + count {
                        for column in columns {
                            query = match column {
                                Column::Ints(values) => query.bind(values[row]),
                                Column::MaybeInts(values) => query.bind(values[row]),
                                Column::Bytes(values) => query.bind(values[row]),
                            };
                        }
                    }
                    in_time(self.patience, query.execute(&mut **wire)).await?;
                    begin += count;
                }
            }
        }
        Ok(())
    }
}

/// How many rows from `begin` on go into one statement of so many bytes: a power of two, so that few texts are prepared,
/// and at least one.
#[cfg(feature = "mysql")]
fn rows_that_fit(columns: &[Column<'_>], begin: usize, bytes: usize) -> usize {
    let most = (columns[0].len() - begin).min(MOST_ROWS);
    let (mut size, mut count) = (0, 0);
    while count < most {
        size += columns.iter().map(|column| column.size(begin + count)).sum::<usize>();
        if size > bytes {
            break;
        }
        count += 1;
    }
    1 << count.max(1).ilog2()
}

#[cfg(all(test, feature = "mysql"))]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_few_numbers_and_within_a_packet() {
        let body = [0; 91];
        let columns = [Column::Ints(vec![0; 1000]), Column::Bytes(vec![&body; 1000])];
        let fit = |begin, bytes| rows_that_fit(&columns, begin, bytes);
        assert_eq!([fit(0, usize::MAX), fit(512, usize::MAX), fit(997, usize::MAX)], [512, 256, 2]);
        // A row takes 109 bytes.
        assert_eq!([fit(0, 1), fit(0, 218), fit(0, 800), fit(0, 872)], [1, 2, 4, 8]);
    }
}
