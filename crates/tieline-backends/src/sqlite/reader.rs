//! Threads that read, each on a connection of its own: a reader never waits for the writer, nor the writer for it.
//! Tested by the conformance suite.

use rusqlite::{Connection, OptionalExtension, Result, Statement};
use tieline_core::records::{Record, RecordKey};
use tieline_core::store::{Gap, Head, LogKey, Page, PageLimit, Refusal, StoreError, Stored};
use tieline_core::unix_ms;
use tieline_proto::{MessageId, Position};

use super::facts;
use super::fault;
use crate::backlog::Bounds;
use crate::requests::{Queue, Read, Taken};

/// Reads what comes through the queue until it is closed and empty.
pub(super) fn run(connection: &Connection, queue: &Queue<Read>) {
    let mut reader = Reader::new(connection);
    while let Taken::Jobs(reads) = queue.take(Bounds { count: 1, bytes: 0 }, None) {
        for read in reads {
            match &mut reader {
                Ok(reader) => reader.answer(read),
                Err(error) => read.refuse(fault::refusal(error)),
            }
        }
    }
}

struct Reader<'c> {
    connection: &'c Connection,
    log: Statement<'c>,
    messages: Statement<'c>,
    get: Statement<'c>,
    list: Statement<'c>,
}

impl<'c> Reader<'c> {
    fn new(connection: &'c Connection) -> Result<Self> {
        Ok(Reader {
            connection,
            log: connection.prepare("SELECT log, epoch, first, last FROM logs WHERE name = ?")?,
            messages: connection.prepare(
                "SELECT number, id, body FROM messages WHERE log = ? AND number >= ? ORDER BY number",
            )?,
            get: connection.prepare(facts::GET)?,
            // A prefix of text is never the last of all bytes, so a key begins with it if it is below the prefix and 0xff.
            list: connection.prepare(
                "SELECT version, value, key FROM records WHERE key > ?1 AND key >= ?2 AND key < ?3 \
                 AND (ends_ms IS NULL OR ends_ms > ?4) ORDER BY key LIMIT ?5",
            )?,
        })
    }

    fn answer(&mut self, read: Read) {
        match read {
            Read::Page(log, after, limit, sender) => {
                let page = self.at_one_moment(|reader| reader.page(&log, after, limit));
                let whole = page.and_then(|page| {
                    let is_whole = page.messages.windows(2).all(|pair| pair[0].offset + 1 == pair[1].offset);
                    let hole = || Refusal::Damaged("a log has a hole".to_owned()).into();
                    if is_whole { Ok(page) } else { Err(hole()) }
                });
                let _ = sender.send(whole);
            }
            Read::Heads(logs, sender) => {
                let heads =
                    |reader: &mut Self| logs.iter().map(|log| reader.head(log)).collect::<Result<Vec<_>>>();
                let heads = self.at_one_moment(heads);
                let _ = sender.send(
                    heads.map(|heads| heads.into_iter().map(|head| head.map(|(_, head)| head)).collect()),
                );
            }
            Read::Get(key, sender) => {
                let now_ms = unix_ms() as i64;
                let record = self.get.query_row((facts::key(&key), now_ms), facts::record).optional();
                let _ = sender.send(record.map_err(|error| fault::refusal(&error).into()));
            }
            Read::List { prefix, after, count, sender } => {
                let list = self.list(&prefix, after.as_ref(), count);
                let _ = sender.send(list.map_err(|error| fault::refusal(&error).into()));
            }
        }
    }

    /// Several statements that see the same state of the file.
    fn at_one_moment<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> std::result::Result<T, StoreError> {
        let moment = self.connection.unchecked_transaction();
        let result = moment.and_then(|moment| {
            let found = work(self)?;
            moment.commit()?;
            Ok(found)
        });
        result.map_err(|error| fault::refusal(&error).into())
    }

    fn head(&mut self, log: &LogKey) -> Result<Option<(i64, Head)>> {
        let number = |value: i64| value as u64;
        let row = self.log.query_row([log.to_text()], |row| {
            let head =
                Head { epoch: number(row.get(1)?), first: number(row.get(2)?), last: number(row.get(3)?) };
            Ok((row.get(0)?, head))
        });
        row.optional()
    }

    fn page(&mut self, log: &LogKey, after: Option<Position>, limit: PageLimit) -> Result<Page> {
        let found = self.head(log)?;
        let head = found.map(|(_, head)| head);
        let start = match Head::start(head, after) {
            Ok(start) => start,
            Err(gap) => return Ok(Page { head, gap: Some(gap), messages: Vec::new() }),
        };
        let mut messages: Vec<Stored> = Vec::new();
        if let Some((log, head)) = found.filter(|(_, head)| start <= head.last) {
            let mut bytes = 0;
            let mut rows = self.messages.query((log, start as i64))?;
            while let Some(row) = rows.next()? {
                let body = row.get_ref(2)?.as_blob()?;
                bytes += body.len();
                if messages.len() >= limit.count.max(1) || (bytes > limit.bytes && !messages.is_empty()) {
                    break;
                }
                let offset = row.get::<_, i64>(0)? as u64;
                messages.push(Stored {
                    offset,
                    id: MessageId(u128::from_be_bytes(row.get(1)?)),
                    body: body.into(),
                });
            }
            // Said as a gap it would be a lie: these messages were not trimmed.
            if messages.first().is_none_or(|first| first.offset != start) {
                let text = format!("a log of {} messages does not have its {start}th", head.last);
                let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
                return Err(rusqlite::Error::SqliteFailure(corrupt, Some(text)));
            }
        }
        Ok(Page { head, gap: None::<Gap>, messages })
    }

    fn list(
        &mut self,
        prefix: &str,
        after: Option<&RecordKey>,
        count: usize,
    ) -> Result<Vec<(RecordKey, Record)>> {
        let end = [prefix.as_bytes(), &[0xff]].concat();
        let after = after.map_or(&b""[..], facts::key);
        let count = count.min(tieline_core::records::MAX_LIST) as i64;
        let rows = self.list.query_map((after, prefix.as_bytes(), end, unix_ms() as i64, count), |row| {
            let key = String::from_utf8_lossy(row.get_ref(2)?.as_blob()?).into_owned();
            Ok((RecordKey::new(&key), facts::record(row)?))
        })?;
        rows.filter_map(|row| row.map(|(key, record)| Some((key.ok()?, record))).transpose()).collect()
    }
}
