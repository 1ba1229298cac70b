//! Entering logs: a connection that joins a group with a history, or asks for its user's inbox, gets what it missed first and
//! then what follows, without a hole or an overlap.
//!
//! That is exact because everything of a log comes from the clerk: it posts pages to the connection until no more is missing,
//! then that the connection is in, and only then the next message of the log, all into the same mailbox. Pages are read once for
//! all who want the same one, only so many at a time, and the next one for a connection is read when it has read the one before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tieline_proto::Position;
use tieline_proto::reply::Recovered;
use tieline_switchboard::Address;
use tokio::time::Instant;

use super::clerk::{Clerk, Told};
use super::feed::{Item, NOTHING_YET};
use super::{Entry, KeepError, Reader, entry};
use crate::command::{Command, Then};
use crate::store::{Gap, LogKey, Page, PageLimit, Refusal, StoreError};

/// Messages that a connection is given at once, at most: more is not recovered, and its client reads the history.
const MOST_CAUGHT_UP: u64 = 100_000;

/// How long a connection waits for a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pages that are read at a time; more wait.
const READS: usize = 16;

/// Bytes of a page, where connections may lag that far.
const PAGE: usize = 128 << 10;

/// Messages of a page.
const PAGE_MESSAGES: usize = 256;

/// How large a page may be for connections that may lag so far.
pub(super) fn page_bytes(max_lag: usize) -> usize {
    PAGE.min(max_lag / 4)
}

/// From where a connection wants what a log has.
#[derive(Clone, Debug)]
pub(crate) enum Since {
    /// From now on.
    Now,
    /// Behind this place.
    After(Position),
    /// From the place that was kept for it; everything where none was.
    Kept(Reader),
}

/// A connection that wants to be in logs.
#[derive(Debug)]
pub(crate) struct Entering {
    /// The connection.
    pub(crate) address: Address,
    /// What it does when it is in.
    pub(crate) then: Then,
    /// The logs; one alone where it wants what it missed, and the inbox first of several.
    pub(crate) logs: SmallVec<[LogKey; 1]>,
    /// From where on.
    pub(crate) since: Since,
}

/// How a connection is in.
#[derive(Debug)]
pub struct Admission {
    /// What became of its wish for what it missed; none where it had none.
    pub(crate) recovered: Option<Recovered>,
    /// What it has, or need not have, of the first log.
    pub(crate) position: Option<Position>,
    /// Why it is not in.
    pub(crate) error: Option<KeepError>,
    /// Until this is dropped, which is when the connection's shard knows that it is in.
    pub(crate) pass: Option<Pass>,
}

impl Admission {
    /// It is not in.
    pub(crate) fn refused(error: KeepError) -> Self {
        Admission { recovered: None, position: None, error: Some(error), pass: None }
    }
}

/// Kept by an admission on its way to a shard: what follows in the log has to go to that shard, although nobody is counted
/// there yet.
#[derive(Debug)]
pub(crate) struct Pass(Arc<AtomicBool>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The clerk's side of a [`Pass`].
pub(super) struct Admitting {
    pub(super) shard: u16,
    is_in: Arc<AtomicBool>,
}

impl Admitting {
    /// Whether the shard does not know of it yet.
    pub(super) fn is_on_its_way(&self) -> bool {
        !self.is_in.load(Ordering::Acquire)
    }
}

/// What a connection waits for.
#[derive(Debug)]
enum Stage {
    /// That its place is read.
    Place,
    /// That it has what it missed: it has everything up to here.
    Walk {
        at: Position,
        /// Whether it wants whatever is kept, however much was trimmed before.
        takes_all: bool,
        is_reading: bool,
        /// Whether it was given a page, and has not said that it read it.
        is_full: bool,
    },
    /// Nothing but that its logs are followed.
    Begin,
}

/// A connection that is not in yet.
#[derive(Debug)]
pub(super) struct Entrant {
    address: Address,
    then: Then,
    logs: SmallVec<[LogKey; 1]>,
    stage: Stage,
    /// When it last got ahead.
    since: Instant,
}

/// All of them, and the pages that they wait for.
#[derive(Default)]
pub(super) struct Entrants {
    last: u64,
    waiting: HashMap<u64, Entrant>,
    by_address: HashMap<Address, u64>,
    /// Who wants which page.
    wanted: HashMap<(LogKey, Position), Vec<u64>>,
    /// Pages that wait for others to be read.
    queue: VecDeque<(LogKey, Position)>,
    reading: usize,
}

impl Clerk {
    pub(super) async fn enter(&mut self, entering: Entering) {
        let Entering { address, then, logs, since } = entering;
        let stage = match since {
            Since::Now => Stage::Begin,
            Since::After(at) => Stage::Walk { at, takes_all: false, is_reading: false, is_full: false },
            Since::Kept(reader) => {
                self.read_place(self.entrants.last + 1, &reader);
                Stage::Place
            }
        };
        self.entrants.last += 1;
        let number = self.entrants.last;
        for log in &logs {
            self.follow(log, Some(number));
        }
        let entrant = Entrant { address, then, logs, stage, since: Instant::now() };
        self.entrants.waiting.insert(number, entrant);
        self.entrants.by_address.insert(address, number);
        self.step(number).await;
    }

    /// A connection's place was read.
    pub(super) async fn placed(&mut self, number: u64, place: Option<Position>) {
        if let Some(entrant) = self.entrants.waiting.get_mut(&number) {
            entrant.since = Instant::now();
            let (at, takes_all) = (place.unwrap_or(NOTHING_YET), place.is_none());
            entrant.stage = Stage::Walk { at, takes_all, is_reading: false, is_full: false };
            self.step(number).await;
        }
    }

    /// Looks whether a connection can go on.
    pub(super) async fn step(&mut self, number: u64) {
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        let Some(log) = entrant.logs.first().cloned() else { return self.admit(number, None).await };
        if entrant
            .logs
            .iter()
            .any(|log| self.feeds.get(log).is_none_or(|followed| followed.feed.at().is_none()))
        {
            return;
        }
        let Stage::Walk { at, takes_all, is_reading, is_full } = &mut entrant.stage else {
            if matches!(entrant.stage, Stage::Begin) {
                self.admit(number, None).await;
            }
            return;
        };
        if *is_reading || *is_full {
            return;
        }
        let Some(followed) = self.feeds.get_mut(&log) else { return };
        let Some(end) = followed.feed.at() else { return };
        if *at == NOTHING_YET {
            at.epoch = end.epoch;
        }
        if at.epoch != end.epoch {
            return self.admit(number, Some(Recovered::Epoch)).await;
        }
        let most = self.page_bytes;
        let page = followed.feed.recent_since(*at).map(|recent| {
            let mut bytes = 0;
            let page = recent.take_while(|(_, entry)| {
                bytes += entry.bytes();
                bytes <= most || bytes == entry.bytes()
            });
            page.cloned().collect::<Vec<(u64, Entry)>>()
        });
        if let Some(page) = page {
            let is_all = page.last().is_none_or(|(offset, _)| *offset == end.offset);
            if let Some((last, _)) = page.last() {
                at.offset = *last;
                *is_full = !is_all;
                entrant.since = Instant::now();
                let address = entrant.address;
                self.give(address, &log, page.into_iter().map(|(_, entry)| entry).collect(), !is_all).await;
            }
            if is_all {
                self.admit(number, Some(Recovered::Whole)).await;
            }
            return;
        }
        if at.offset > end.offset {
            // It has seen more than this node: the log's end tells whether that is still so.
            followed.feed.look();
            return self.turn(&log).await;
        }
        if !*takes_all && end.offset - at.offset > MOST_CAUGHT_UP {
            return self.admit(number, Some(Recovered::Limit)).await;
        }
        *is_reading = true;
        let page = (log, *at);
        let wanted = self.entrants.wanted.entry(page.clone()).or_default();
        wanted.push(number);
        if wanted.len() == 1 {
            self.entrants.queue.push_back(page);
            self.read_pages();
        }
    }

    /// Reads the pages that are wanted, so many at a time.
    fn read_pages(&mut self) {
        let Some(engine) = self.logs.engine.as_ref() else { return };
        while self.entrants.reading < READS
            && let Some((log, after)) = self.entrants.queue.pop_front()
        {
            self.entrants.reading += 1;
            let limit = PageLimit { count: PAGE_MESSAGES, bytes: self.page_bytes };
            let answer = engine.store.read(log.clone(), Some(after), limit);
            self.asking.push(Box::pin(async move { Told::Page(log, after, answer.await) }));
        }
    }

    /// A page is there, or is not to be had.
    pub(super) async fn paged(&mut self, log: LogKey, after: Position, page: Result<Page, StoreError>) {
        self.entrants.reading -= 1;
        self.read_pages();
        let wanted = self.entrants.wanted.remove(&(log.clone(), after)).unwrap_or_default();
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                // They ask again with the next tick, until their time is up.
                tracing::debug!(%error, "A page could not be read.");
                self.store_failed();
                for number in wanted {
                    if let Some(Entrant { stage: Stage::Walk { is_reading, .. }, .. }) =
                        self.entrants.waiting.get_mut(&number)
                    {
                        *is_reading = false;
                        self.entrants_to_step.push(number);
                    }
                }
                return;
            }
        };
        self.store_answered();
        self.logs.counters.pages.fetch_add(1, Ordering::Relaxed);
        let epoch = after.epoch;
        let entries: Vec<(u64, Entry)> = page
            .messages
            .iter()
            .map(|stored| {
                let position = Position { epoch, offset: stored.offset };
                (stored.offset, Entry::of_log(stored.id, position, &stored.body))
            })
            .collect();
        for number in wanted {
            let Some(entrant) = self.entrants.waiting.get_mut(&number) else { continue };
            let Stage::Walk { at, takes_all, is_reading, is_full } = &mut entrant.stage else { continue };
            *is_reading = false;
            entrant.since = Instant::now();
            match page.gap {
                Some(Gap::Trimmed) if *takes_all => {
                    at.offset = page.head.map_or(at.offset, |head| head.first - 1);
                    self.entrants_to_step.push(number);
                }
                Some(Gap::Trimmed) => self.admit(number, Some(Recovered::Trimmed)).await,
                Some(Gap::Epoch | Gap::Ahead) => {
                    if let Some(followed) = self.feeds.get_mut(&log) {
                        followed.feed.look();
                    }
                    self.turn(&log).await;
                }
                None => {
                    // It never gets ahead of what the log's other connections have.
                    let end = self.feeds.get(&log).and_then(|followed| followed.feed.at());
                    let known =
                        |offset: u64| end.is_some_and(|end| end.epoch == epoch && offset <= end.offset);
                    let page: Vec<Entry> = entries
                        .iter()
                        .filter(|(offset, _)| known(*offset))
                        .map(|(_, entry)| entry.clone())
                        .collect();
                    if let Some((last, _)) = entries.iter().rfind(|(offset, _)| known(*offset)) {
                        at.offset = *last;
                        *is_full = true;
                        let address = entrant.address;
                        self.give(address, &log, page, true).await;
                    } else {
                        self.entrants_to_step.push(number);
                    }
                }
            }
        }
        self.step_again().await;
    }

    /// Gives messages of a log to one connection.
    async fn give(&mut self, address: Address, log: &LogKey, entries: Vec<Entry>, tells_lag: bool) {
        let count = entries.len() as u64;
        self.logs.counters.caught_up.fetch_add(count, Ordering::Relaxed);
        let hub = self.node.hubs().get_or_make(entry::target(log).0);
        let entries: Arc<[Entry]> = entries.into();
        let command =
            || Command::CatchUp { address, hub: Arc::clone(&hub), entries: Arc::clone(&entries), tells_lag };
        self.post(address.shard, command).await;
    }

    /// A connection told how much it has coming.
    pub(super) async fn lagging(&mut self, address: Address, bytes: Option<usize>) {
        let Some(number) = self.entrants.by_address.get(&address).copied() else { return };
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        let Stage::Walk { is_full, .. } = &mut entrant.stage else { return };
        match bytes {
            None => self.admit(number, None).await,
            Some(bytes) if bytes > self.page_bytes => {
                // A client that reads slowly is not one that waits for the store.
                entrant.since = Instant::now();
                self.lagging.push(address);
            }
            Some(_) => {
                *is_full = false;
                self.step(number).await;
            }
        }
    }

    /// Lets a connection in. What follows in its logs goes to it as well from now on.
    async fn admit(&mut self, number: u64, recovered: Option<Recovered>) {
        let Some(entrant) = self.entrants.waiting.get(&number) else { return };
        let first = entrant.logs.first();
        let position = first.and_then(|log| self.feeds.get(log)).and_then(|followed| followed.feed.at());
        let (shard, is_in) = (entrant.address.shard, Arc::new(AtomicBool::new(false)));
        for log in &entrant.logs {
            if let Some(followed) = self.feeds.get_mut(log) {
                followed.admitting.push(Admitting { shard, is_in: Arc::clone(&is_in) });
            }
        }
        self.end(number, Admission { recovered, position, error: None, pass: Some(Pass(is_in)) }).await;
    }

    async fn end(&mut self, number: u64, admission: Admission) {
        let Some(entrant) = self.entrants.waiting.remove(&number) else { return };
        self.entrants.by_address.remove(&entrant.address);
        let (address, mut wanted) = (entrant.address, (entrant.then, Some(admission)));
        while let Err(refused) = self.node.go_on(address, wanted.0, wanted.1) {
            wanted = *refused;
            super::clerk::wait_for_room().await;
        }
    }

    /// Looks after those who wait: asks the store again, and ends what takes too long.
    pub(super) async fn tend_entrants(&mut self) {
        let mut late = Vec::new();
        for (number, entrant) in &self.entrants.waiting {
            let is_slow_itself = matches!(entrant.stage, Stage::Walk { is_full: true, .. });
            if !is_slow_itself && entrant.since.elapsed() >= PATIENCE {
                late.push(*number);
            }
        }
        for number in late {
            let error = KeepError::Store(Refusal::Failed("it does not answer".into()).into());
            self.end(number, Admission::refused(error)).await;
        }
        for address in std::mem::take(&mut self.lagging) {
            self.post(address.shard, || Command::TellLag(address)).await;
        }
        self.step_again().await;
    }

    pub(super) async fn step_again(&mut self) {
        for number in std::mem::take(&mut self.entrants_to_step) {
            Box::pin(self.step(number)).await;
        }
    }
}
