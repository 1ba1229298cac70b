//! [`Reads`]: requests that change nothing, on a connection of their own, many on their way at once. A long page is read in
//! parts, so that it holds up neither the server nor a short one. Tested by the conformance suites.

use std::sync::Arc;
use std::time::Instant;

use tieline_core::records::{Record, RecordKey};
use tieline_core::store::{Gap, Head, LogKey, Page, PageLimit, Refusal, StoreError, Stored};
use tieline_proto::{MessageId, Position};
use tokio::time::timeout;

use super::super::Trouble;
use super::super::link::{Link, Words, shown};
use super::super::resp::Answer;
use super::fault;
use super::known::Last;
use super::scripts::{LIST, PAGE};
use super::session::{LIMIT, Shared};
use super::write::{Reply, numbers, record};
use crate::backlog::Bounds;

/// What may wait to be read. Past it requests are refused.
pub(super) const WAITING: Bounds = Bounds { count: 4096, bytes: 16 << 20 };

/// Requests that are on their way at once.
const ACTIVE: usize = 32;

/// What one part of a page or a list has at most; a single larger message or record passes.
const PART_COUNT: usize = 512;
const PART_BYTES: usize = 256 << 10;

/// A request to the reader, with what it has found so far.
pub(super) enum Read {
    Page { log: LogKey, after: Option<Position>, limit: PageLimit, found: Option<Page>, reply: Reply<Page> },
    Heads { logs: Vec<LogKey>, found: Vec<Option<Head>>, reply: Reply<Vec<Option<Head>>> },
    Get { key: RecordKey, reply: Reply<Option<Record>> },
    List(List),
}

/// A list of records that is being read.
pub(super) struct List {
    pub(super) prefix: String,
    pub(super) after: Option<Vec<u8>>,
    /// Records that are still wanted.
    pub(super) left: usize,
    pub(super) found: Vec<(RecordKey, Record)>,
    pub(super) reply: Reply<Vec<(RecordKey, Record)>>,
}

impl Read {
    /// Bytes that it takes while it waits.
    pub(super) fn size(&self) -> usize {
        let many = if let Read::Heads { logs, .. } = self { logs.len() } else { 0 };
        size_of::<Read>() + many * size_of::<LogKey>()
    }

    pub(super) fn fail(self, error: StoreError) {
        match self {
            Read::Page { reply, .. } => drop(reply.send(Err(error))),
            Read::Heads { reply, .. } => drop(reply.send(Err(error))),
            Read::Get { reply, .. } => drop(reply.send(Err(error))),
            Read::List(list) => drop(list.reply.send(Err(error))),
        }
    }

    /// Asks for its next part.
    fn say(&self, prefix: &str, link: &mut Link) {
        match self {
            Read::Page { log, after, limit, found, .. } => {
                let name = log.to_text();
                let (log, messages) =
                    (format!("{prefix}:log:{{{name}}}"), format!("{prefix}:messages:{{{name}}}"));
                let mut words = Words::new(&[log.as_bytes(), messages.as_bytes()]);
                match found.as_ref().and_then(end).or(*after) {
                    Some(after) => {
                        words.push_number(after.epoch);
                        words.push_number(after.offset.min(tieline_proto::id::MAX_EXACT));
                    }
                    None => {
                        words.push(b"");
                        words.push(b"");
                    }
                }
                let (count, bytes) = found.as_ref().map_or((0, 0), size);
                words.push_number((limit.count.max(1) - count).min(PART_COUNT) as u64);
                words.push_number(limit.bytes.saturating_sub(bytes).min(PART_BYTES) as u64);
                link.run(&PAGE, &words);
            }
            Read::Heads { logs, found, .. } => {
                let part = logs[found.len()..].iter().take(PART_COUNT);
                let keys: Vec<String> =
                    part.map(|log| format!("{prefix}:log:{{{}}}", log.to_text())).collect();
                let mut words: Vec<&[u8]> = vec![b"MGET"];
                words.extend(keys.iter().map(|key| key.as_bytes()));
                link.say(&words);
            }
            Read::Get { key, .. } => link.say(&[b"GET", format!("{prefix}:record:{{{key}}}").as_bytes()]),
            Read::List(list) => {
                let mut words = Words::new(&[format!("{prefix}:records").as_bytes()]);
                words.push(prefix.as_bytes());
                match &list.after {
                    Some(after) if after.as_slice() >= list.prefix.as_bytes() => {
                        words.push_pieces(&[b"(", after])
                    }
                    _ if list.prefix.is_empty() => words.push(b"-"),
                    _ => words.push_pieces(&[b"[", list.prefix.as_bytes()]),
                }
                // A prefix of text is never the last of all bytes, so a key begins with it if it is below the prefix and 0xff.
                match list.prefix.as_bytes() {
                    b"" => words.push(b"+"),
                    prefix => words.push_pieces(&[b"(", prefix, &[0xff]]),
                }
                words.push_number(list.left.min(PART_COUNT) as u64);
                words.push_number(PART_BYTES as u64);
                link.run(&LIST, &words);
            }
        }
    }

    /// Takes in a part. The request goes on if there is more to read.
    fn hear(mut self, answer: &Answer<'_>, shared: &Shared) -> Option<Read> {
        if let Answer::Refused(reason) = answer {
            self.fail(fault::of_trouble(&Trouble::Refused(shown(reason))).into());
            return None;
        }
        let more = match &mut self {
            Read::Page { after, limit, found, .. } => hear_page(*after, *limit, found, answer),
            Read::Heads { logs, found, .. } => {
                let Answer::Many(parts) = answer else { return self.damaged("heads that are none") };
                parts.iter().map(head).collect::<Result<Vec<_>, _>>().map(|heads| {
                    found.extend(heads);
                    found.len() < logs.len()
                })
            }
            Read::Get { .. } => Ok(false),
            Read::List(list) => list.hear(answer),
        };
        match more {
            Ok(true) => return Some(self),
            Ok(false) => {}
            Err(text) => return self.damaged(text),
        }
        match self {
            Read::Page { log, found, reply, .. } => {
                let page = found.unwrap_or(Page { head: None, gap: None, messages: Vec::new() });
                if let (Some(last), Some(position), Some(life)) =
                    (page.messages.last(), end(&page), life(answer))
                {
                    shared.known().saw(&log, Last { position, life, id: last.id });
                }
                drop(reply.send(Ok(page)));
            }
            Read::Heads { found, reply, .. } => drop(reply.send(Ok(found))),
            Read::Get { reply, .. } => {
                let found = match answer {
                    Answer::Text(found) => record(found).map(Some),
                    _ => Ok(None),
                };
                drop(reply.send(found));
            }
            Read::List(list) => drop(list.reply.send(Ok(list.found))),
        }
        None
    }

    fn damaged(self, text: &str) -> Option<Read> {
        self.fail(Refusal::Damaged(text.to_owned()).into());
        None
    }
}

/// The position of a page's last message.
fn end(page: &Page) -> Option<Position> {
    Some(Position { epoch: page.head?.epoch, offset: page.messages.last()?.offset })
}

/// Messages of a page, and bytes of them.
fn size(page: &Page) -> (usize, usize) {
    (page.messages.len(), page.messages.iter().map(|message| message.body.len()).sum())
}

/// From what a log's key holds.
fn head(answer: &Answer<'_>) -> Result<Option<Head>, &'static str> {
    let Answer::Text(text) = answer else { return Ok(None) };
    let damaged = "a log is described otherwise";
    let mut numbers = std::str::from_utf8(text).map_err(|_| damaged)?.split(' ').map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(epoch)), Some(Ok(first)), Some(Ok(last))) => Ok(Some(Head { epoch, first, last })),
        _ => Err(damaged),
    }
}

/// The life of the log that a part of a page is of.
fn life(answer: &Answer<'_>) -> Option<u64> {
    let Answer::Many(parts) = answer else { return None };
    numbers(parts.get(3..4)?).first().copied()
}

/// Takes in a part of a page. Whether there is more.
fn hear_page(
    after: Option<Position>,
    limit: PageLimit,
    found: &mut Option<Page>,
    answer: &Answer<'_>,
) -> Result<bool, &'static str> {
    let parts: &[Answer<'_>] = if let Answer::Many(parts) = answer { parts } else { &[] };
    let head = match numbers(parts.get(..4).unwrap_or_default())[..] {
        [epoch, first, last, _] => Some(Head { epoch, first, last }),
        _ => None,
    };
    let messages = parts.get(4..).unwrap_or_default();
    let next = match found {
        // It was dropped, renewed or trimmed between two parts: the page ends here.
        Some(page) => match Head::start(head, end(page)) {
            Ok(next) => next,
            Err(_) => return Ok(false),
        },
        None => match Head::start(head, after) {
            Ok(next) => next,
            Err(gap) => {
                *found = Some(Page { head, gap: Some(gap), messages: Vec::new() });
                return Ok(false);
            }
        },
    };
    let is_first = found.is_none();
    let page = found.get_or_insert(Page { head, gap: None::<Gap>, messages: Vec::new() });
    page.head = head;
    let last = head.map_or(0, |head| head.last);
    if next <= last && messages.is_empty() {
        return Err("a log lacks its messages");
    }
    let mut bytes = size(page).1;
    for (offset, message) in (next..).zip(messages) {
        let Answer::Text(message) = message else { return Err("a message is none") };
        let (id, body) = message.split_first_chunk().ok_or("a message is too short")?;
        bytes += body.len();
        if bytes > limit.bytes && !(is_first && offset == next) {
            return Ok(false);
        }
        page.messages.push(Stored { offset, id: MessageId(u128::from_be_bytes(*id)), body: body.into() });
    }
    let is_full = page.messages.len() >= limit.count.max(1) || bytes >= limit.bytes;
    Ok(!is_full && end(page).is_some_and(|end| end.offset < last))
}

impl List {
    /// Takes in a part. Whether there is more.
    fn hear(&mut self, answer: &Answer<'_>) -> Result<bool, &'static str> {
        let Answer::Many(parts) = answer else { return Err("a list is none") };
        let (end, records) = parts.split_first().ok_or("a list is none")?;
        for pair in records.chunks(2) {
            let [Answer::Text(key), Answer::Text(value)] = pair else { return Err("a record is none") };
            let key = std::str::from_utf8(key).ok().and_then(|key| RecordKey::new(key).ok());
            let record = record(value).map_err(|_| "a record is too short")?;
            self.found.push((key.ok_or("a record's key is none")?, record));
            self.left = self.left.saturating_sub(1);
        }
        match end {
            Answer::Text(end) if self.left > 0 => {
                self.after = Some(end.to_vec());
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// What is being read, whichever connection it is read by.
pub(super) struct Reads {
    shared: Arc<Shared>,
    /// Each since its last part was asked for.
    active: Vec<(Read, Instant)>,
}

impl Reads {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Reads { shared: Arc::clone(shared), active: Vec::new() }
    }

    /// Reads what comes through the queue until it is closed and empty, or the connection fails.
    pub(super) async fn run(&mut self, link: &mut Link) -> Result<(), Trouble> {
        loop {
            let room = Bounds { count: ACTIVE - self.active.len(), bytes: usize::MAX };
            let taken = match room.count {
                0 => Vec::new(),
                _ if self.active.is_empty() => self.shared.reads.take(room).await,
                _ => self.shared.reads.take_now(room),
            };
            self.active.extend(taken.into_iter().map(|read| (read, Instant::now())));
            if self.active.is_empty() {
                return Ok(());
            }
            timeout(LIMIT, self.round(link)).await.unwrap_or(Err(Trouble::Silent))?;
        }
    }

    /// One part of each.
    async fn round(&mut self, link: &mut Link) -> Result<(), Trouble> {
        for (read, since) in &mut self.active {
            *since = Instant::now();
            read.say(&self.shared.settings.prefix, link);
        }
        link.send().await?;
        let mut is_unseen = false;
        let shared = Arc::clone(&self.shared);
        // Each leaves the front when its answer is here, so that none is lost when this is given up.
        for _ in 0..self.active.len() {
            let active = &mut self.active;
            link.answer(|answer| {
                let (read, since) = active.remove(0);
                let goes_on = match answer {
                    Answer::Refused(reason) if reason.starts_with(b"NOSCRIPT") => {
                        is_unseen = true;
                        Some(read)
                    }
                    answer => read.hear(answer, &shared),
                };
                active.extend(goes_on.map(|read| (read, since)));
            })
            .await?;
        }
        link.send_whole_scripts(is_unseen);
        Ok(())
    }

    /// Gives up those that have waited for too long.
    pub(super) fn expire(&mut self, refusal: &Refusal) {
        let over = self.active.extract_if(.., |(_, since)| since.elapsed() >= LIMIT);
        over.for_each(|(read, _)| read.fail(refusal.clone().into()));
    }

    /// Whether nothing is being read.
    pub(super) fn is_idle(&self) -> bool {
        self.active.is_empty()
    }
}
