//! Threads that read, each on a connection of its own: none waits for a writer's locks. A page is read by two statements, the
//! head and then its messages; what is swept between the two is found missing at the page's beginning, and the page is read
//! anew. Tested by the conformance suite and in `sql/tests`.

use std::collections::HashMap;
use std::sync::Arc;

use tieline_core::records::{MAX_LIST, Record, RecordKey, Version};
use tieline_core::store::{Head, LogKey, Page, PageLimit, Refusal, StoreError, Stored};
use tieline_proto::{MessageId, Position};
use tokio::runtime::Runtime;

use super::facts;
use super::fault;
use super::link::{Arg, Link, Result, Row, SILENCE, patience};
use super::logs::hash;
use super::session::Session;
use crate::backlog::Bounds;
use crate::requests::{Queue, Read, Taken};

/// How often a page is read whose beginning was swept meanwhile. A log whose messages go faster than that has readers that
/// are late in any case.
const ATTEMPTS: u32 = 10;

/// The messages of a page: bodies are fetched only of those that fit.
const MESSAGES: &str = "SELECT m.number, m.id, m.body FROM (SELECT number, total FROM \
    (SELECT number, SUM(size) OVER (ORDER BY number) AS total FROM \
    (SELECT number, size FROM tieline_messages WHERE log = ? AND number >= ? AND number <= ? \
    ORDER BY number LIMIT ?) AS near) AS summed WHERE total <= ? OR number = ?) AS fit \
    JOIN tieline_messages m ON m.log = ? AND m.number = fit.number ORDER BY m.number";

/// Reads what comes through the queue until it is closed and empty.
pub(super) fn run(runtime: &Runtime, session: Session, queue: &Arc<Queue<Read>>) {
    let mut reader = Reader { session };
    while let Taken::Jobs(reads) = queue.take(Bounds { count: 1, bytes: 0 }, None) {
        for read in reads {
            runtime.block_on(reader.answer(read));
        }
    }
    runtime.block_on(reader.session.close());
}

struct Reader {
    session: Session,
}

impl Reader {
    async fn answer(&mut self, read: Read) {
        match read {
            Read::Page(log, after, limit, sender) => {
                let page = self.ask(async |link| page(link, &log, after, limit).await).await;
                let _ = sender.send(page.and_then(|page| page));
            }
            Read::Heads(logs, sender) => {
                let _ = sender.send(self.ask(async |link| heads(link, &logs).await).await);
            }
            Read::Get(key, sender) => {
                let _ = sender.send(self.ask(async |link| get(link, &key).await).await);
            }
            Read::List { prefix, after, count, sender } => {
                let listed = self.ask(async |link| list(link, &prefix, after.as_ref(), count).await).await;
                let _ = sender.send(listed);
            }
        }
    }

    /// Asks once more where the connection was lost while nobody used it.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFn(&mut Link) -> Result<T>,
    ) -> std::result::Result<T, StoreError> {
        let mut is_second = false;
        loop {
            let was_used = self.session.is_used();
            let link = self.session.link().await?;
            link.patience = SILENCE;
            let error = match question(link).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_broken = self.session.judge(&error);
            if is_second || !is_broken || !was_used || fault::is_silent(&error) {
                return Err(fault::refusal(&error).into());
            }
            is_second = true;
        }
    }
}

/// A log's number and head.
async fn head(link: &mut Link, log: &LogKey) -> Result<Option<(i64, Head)>> {
    let text = "SELECT log, epoch, first, last FROM tieline_logs WHERE hash = ?";
    let rows = link.rows(text, &[Arg::Bytes(&hash(log))]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let head = Head { epoch: row.number(1)?, first: row.number(2)?, last: row.number(3)? };
    Ok(Some((row.int(0)?, head)))
}

/// As a number that servers can hold.
fn clamped(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn page(
    link: &mut Link,
    key: &LogKey,
    after: Option<Position>,
    limit: PageLimit,
) -> Result<std::result::Result<Page, StoreError>> {
    link.patience = patience(limit.bytes);
    let mut before = None;
    for _ in 0..ATTEMPTS {
        let found = head(link, key).await?;
        let head = found.map(|(_, head)| head);
        let start = match Head::start(head, after) {
            Ok(start) => start,
            Err(gap) => return Ok(Ok(Page { head, gap: Some(gap), messages: Vec::new() })),
        };
        let Some((number, at)) = found.filter(|(_, head)| start <= head.last) else {
            return Ok(Ok(Page { head, gap: None, messages: Vec::new() }));
        };
        let (log, from, to) = (Arg::Int(number), Arg::Int(start as i64), Arg::Int(at.last as i64));
        let (count, bytes) = (Arg::Int(clamped(limit.count.max(1))), Arg::Int(clamped(limit.bytes)));
        let rows = link.rows(MESSAGES, &[log, from, to, count, bytes, from, log]).await?;
        let mut messages = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = MessageId(u128::from_be_bytes(row.exactly(1)?));
            messages.push(Stored { offset: row.number(0)?, id, body: row.bytes(2)?.into() });
        }
        let is_whole = messages.iter().map(|message| message.offset).eq(start..start + messages.len() as u64);
        if is_whole && !messages.is_empty() {
            return Ok(Ok(Page { head, gap: None, messages }));
        }
        // What is missing was swept meanwhile, if the log's first offset has moved; a hole that stays is damage.
        if before == Some((number, at.first)) {
            break;
        }
        before = Some((number, at.first));
    }
    Ok(Err(Refusal::Damaged("a log has a hole".to_owned()).into()))
}

async fn heads(link: &mut Link, logs: &[LogKey]) -> Result<Vec<Option<Head>>> {
    if logs.is_empty() {
        return Ok(Vec::new());
    }
    let hashes: Vec<_> = logs.iter().map(hash).collect();
    let keys: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
    let rows = link.of_keys("SELECT hash, epoch, first, last FROM tieline_logs", "hash", &keys, "").await?;
    let mut found = HashMap::new();
    for row in rows {
        let head = Head { epoch: row.number(1)?, first: row.number(2)?, last: row.number(3)? };
        found.insert(row.exactly::<32>(0)?, head);
    }
    Ok(hashes.iter().map(|hash| found.get(hash).copied()).collect())
}

async fn get(link: &mut Link, key: &RecordKey) -> Result<Option<Record>> {
    let (ends, now_ms) = (facts::ENDS, link.dialect.now_ms());
    let text = format!("SELECT version, value FROM tieline_records WHERE name = ? AND {ends} > {now_ms}");
    let rows = link.rows(&text, &[Arg::Bytes(key.as_str().as_bytes())]).await?;
    let record = |row: &Row| Ok(Record { version: Version(row.number(0)?), value: row.bytes(1)?.into() });
    rows.first().map(record).transpose()
}

async fn list(
    link: &mut Link,
    prefix: &str,
    after: Option<&RecordKey>,
    count: usize,
) -> Result<Vec<(RecordKey, Record)>> {
    // A prefix of text is never the last of all bytes, so a key begins with it if it is below the prefix and 0xff.
    let end = [prefix.as_bytes(), &[0xff]].concat();
    let after = after.map_or(&b""[..], |key| key.as_str().as_bytes());
    let (ends, now_ms) = (facts::ENDS, link.dialect.now_ms());
    let text = format!(
        "SELECT version, value, name FROM tieline_records WHERE name > ? AND name >= ? AND name < ? \
         AND {ends} > {now_ms} ORDER BY name LIMIT ?"
    );
    let count = Arg::Int(clamped(count.min(MAX_LIST)));
    let args = [Arg::Bytes(after), Arg::Bytes(prefix.as_bytes()), Arg::Bytes(&end), count];
    let mut found = Vec::new();
    for row in link.rows(&text, &args).await? {
        let Some(key) = facts::key(row.bytes(2)?) else { continue };
        found.push((key, Record { version: Version(row.number(0)?), value: row.bytes(1)?.into() }));
    }
    Ok(found)
}
