//! Entering logs: a connection that joins a group with a history, or asks for its user's inbox, gets what it missed first and
//! then what follows, without a hole or an overlap.
//!
//! That is exact because everything of a log comes from the clerk: it posts pages to the connection until no more is missing,
//! then that the connection is in, and only then the next message of the log, all into the same mailbox. Pages are read once for
//! all who want the same one, only so many at a time, and remembered for a moment (`logs/pages.rs`); the next one for a connection
//! is given when it has read the one before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tieline_proto::reply::Recovered;
use tieline_proto::{CloseCode, HubName, Position, UserId};
use tieline_switchboard::{Address, Slot};
use tokio::time::Instant;

use super::audience::Membership;
use super::clerk::{Clerk, Told};
use super::enrolling::{Asked, Enrolled};
use super::feed::{Item, NOTHING_YET};
use super::pages::{self, Pages};
use super::{Enrolment, Entry, KeepError, Reader, Wish, entry, places};
use crate::command::{Command, Then};
use crate::store::{Gap, LogKey, Page, PageLimit, Refusal, StoreError};

/// Messages that a connection is given at once, at most: more is not recovered, and its client reads the history.
const MOST_CAUGHT_UP: u64 = 100_000;

/// How long a connection waits for a store that does not answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection that waits for nothing else may take nothing of what it was given: then it is closed as a slow reader,
/// because pings, which find those who are gone, are not sent to who is not read.
const STALL: Duration = Duration::from_secs(30);

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
    /// From the place that is kept for it, and whatever of what follows there still is.
    Kept {
        /// Whose place it is.
        reader: Reader,
        /// What the connection has already.
        behind: Option<Position>,
    },
    /// The same, where that place was listed: this one, if nothing newer is known here.
    Listed {
        /// Whose place it is.
        reader: Reader,
        /// The place.
        place: Position,
    },
    /// From the place of the membership that its [`Entering::enrolment`] makes or finds.
    Membership {
        /// Whether one that is found is given back, in [`Admission::memberships`], in place of entering: by a connection whose
        /// client waits until it is in.
        comes_later: bool,
    },
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
    /// What is to be done about its user's stored memberships before that. Where memberships are listed, and cannot be, the
    /// connection goes on without.
    pub(crate) enrolment: Option<Enrolment>,
}

/// How a connection is in.
#[derive(Debug)]
pub struct Admission {
    /// What became of its wish for what it missed; none where it had none.
    pub(crate) recovered: Option<Recovered>,
    /// What it has, or need not have, of the first log.
    pub(crate) position: Option<Position>,
    /// The stored memberships that it asked for.
    pub(crate) memberships: Option<Vec<Membership>>,
    /// Why it is not in.
    pub(crate) error: Option<KeepError>,
    /// Until this is dropped, which is when the connection's shard knows that it is in.
    pub(crate) pass: Option<Pass>,
}

impl Admission {
    /// It is not in.
    pub(crate) fn refused(error: KeepError) -> Self {
        Admission { recovered: None, position: None, memberships: None, error: Some(error), pass: None }
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
    Place { reader: Reader, behind: Option<Position> },
    /// That it has what it missed.
    Walk(Walk),
    /// Nothing but that its logs are followed.
    Begin,
}

/// How far a connection is on its way to a log's end.
#[derive(Debug)]
struct Walk {
    /// It has everything up to here.
    at: Position,
    /// Where a part is not to be had, whether it wants the rest.
    takes_rest: bool,
    /// Why it does not have a part that it wanted.
    lacks: Option<Recovered>,
    is_reading: bool,
    /// Whether it was given a page, and has not said that it read it.
    is_full: bool,
    /// Whether the log's end was looked at because it is behind that.
    has_looked: bool,
    /// How much it had coming when it was last asked, and since when.
    coming: Option<(usize, Instant)>,
}

impl Walk {
    fn from(at: Position, takes_rest: bool) -> Self {
        Walk {
            at,
            takes_rest,
            lacks: None,
            is_reading: false,
            is_full: false,
            has_looked: false,
            coming: None,
        }
    }
}

/// A connection that is not in yet.
#[derive(Debug)]
pub(super) struct Entrant {
    address: Address,
    then: Then,
    logs: SmallVec<[LogKey; 1]>,
    stage: Stage,
    /// The memberships that it waits for, and what is wished to come of them.
    enrolling: Enrolling,
    /// Whether it has just become a stored member, and so has missed nothing and asked for nothing.
    is_new_member: bool,
    /// When it last got ahead.
    since: Instant,
}

/// How far an entrant is with its enrolment.
#[derive(Debug)]
enum Enrolling {
    /// It has none.
    No,
    /// The store was asked.
    Asked {
        /// Whether it is entering from the place of the membership.
        is_from_place: bool,
        /// See [`Since::Membership`].
        comes_later: bool,
        /// Whether memberships are listed, rather than made or ended.
        lists: bool,
    },
    /// These were listed.
    Listed(Vec<Membership>),
}

/// All of them, and the pages that they wait for.
#[derive(Default)]
pub(super) struct Entrants {
    last: u64,
    waiting: HashMap<u64, Entrant>,
    /// Who wants which page.
    wanted: HashMap<(LogKey, Position), Vec<u64>>,
    /// Pages that wait for others to be read.
    queue: VecDeque<(LogKey, Position)>,
    reading: usize,
    /// What was read for others a moment ago.
    pages: Pages,
}

impl Clerk {
    pub(super) async fn enter(&mut self, entering: Entering) {
        let Entering { address, then, logs, since, enrolment } = entering;
        if self.logs.engine.is_none() {
            // Nobody would ever answer.
            return self.let_go(address, then, Admission::refused(KeepError::NoStore)).await;
        }
        self.entrants.last += 1;
        let number = self.entrants.last;
        let enrolling = match &enrolment {
            None => Enrolling::No,
            Some(Enrolment { wish, .. }) => Enrolling::Asked {
                is_from_place: matches!(since, Since::Membership { .. }),
                comes_later: matches!(since, Since::Membership { comes_later: true }),
                lists: matches!(wish, Wish::List(_)),
            },
        };
        let stage = match since {
            Since::Now | Since::Membership { .. } => Stage::Begin,
            Since::Listed { reader, place } => {
                let place = self.places.latest(&reader, Some(place)).unwrap_or(place);
                Stage::Walk(Walk::from(place, true))
            }
            Since::After(at) => Stage::Walk(Walk::from(at, false)),
            Since::Kept { reader, behind } => {
                self.read_place(number, &reader);
                Stage::Place { reader, behind }
            }
        };
        for log in &logs {
            self.follow(log, Some(number));
        }
        let (is_new_member, since) = (false, Instant::now());
        let entrant = Entrant { address, then, logs, stage, enrolling, is_new_member, since };
        self.entrants.waiting.insert(number, entrant);
        if let Some(enrolment) = enrolment
            && let Err((error, _)) = self.enrol(enrolment, Asked::Entrant(number))
        {
            return self.not_enrolled(number, error).await;
        }
        self.step(number).await;
    }

    /// An entrant's memberships are what it wished, or cannot be.
    pub(super) async fn entrant_enrolled(
        &mut self,
        number: u64,
        hub: &HubName,
        user: &UserId,
        result: Result<Enrolled, KeepError>,
    ) {
        let Enrolled { mut memberships, is_new, .. } = match result {
            Ok(enrolled) => enrolled,
            Err(error) => return self.not_enrolled(number, error).await,
        };
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        let Enrolling::Asked { is_from_place, comes_later, lists } = entrant.enrolling else { return };
        entrant.since = Instant::now();
        entrant.enrolling = Enrolling::No;
        if lists {
            memberships.retain(|membership| self.logs.rules().stores_members(&membership.group));
            for membership in &memberships {
                // It enters them one after the other; that they end somewhere is asked at once.
                self.follow(&LogKey::Group(hub.clone(), membership.group.clone()), None);
            }
            if let Some(entrant) = self.entrants.waiting.get_mut(&number) {
                entrant.enrolling = Enrolling::Listed(memberships);
            }
        } else if comes_later && !is_new {
            let memberships = Some(memberships);
            let admission =
                Admission { recovered: None, position: None, memberships, error: None, pass: None };
            return self.end(number, admission).await;
        } else if let Some(membership) = memberships.pop().filter(|_| is_from_place) {
            let reader = Reader::of_member(hub.clone(), membership.group, user.clone());
            let place = self.places.latest(&reader, Some(membership.place)).unwrap_or(membership.place);
            entrant.stage = Stage::Walk(Walk::from(place, true));
            entrant.is_new_member = is_new;
        }
        self.step(number).await;
    }

    async fn not_enrolled(&mut self, number: u64, error: KeepError) {
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        if matches!(entrant.enrolling, Enrolling::Asked { lists: true, .. }) {
            entrant.enrolling = Enrolling::No;
            return self.step(number).await;
        }
        self.end(number, Admission::refused(error)).await;
    }

    /// Lets a connection into a log no longer: it gets nothing more of what it missed.
    pub(super) async fn stop_entering(&mut self, address: Address, log: &LogKey) {
        let is_it = |entrant: &Entrant| entrant.address == address && entrant.logs.first() == Some(log);
        let waiting = self.entrants.waiting.iter().filter(|(_, entrant)| is_it(entrant));
        let numbers: Vec<u64> = waiting.map(|(number, _)| *number).collect();
        for number in numbers {
            self.end(number, Admission::refused(KeepError::Store(Refusal::Closed.into()))).await;
        }
    }

    /// A connection's place was read.
    pub(super) async fn placed(&mut self, number: u64, stored: Option<Position>) {
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        let Stage::Place { reader, behind } = &entrant.stage else { return };
        let place = places::later(self.places.latest(reader, stored), *behind);
        // Nobody but the node knows of this place, so nobody could ask for the rest.
        entrant.stage = Stage::Walk(Walk::from(place.unwrap_or(NOTHING_YET), true));
        entrant.since = Instant::now();
        self.step(number).await;
    }

    /// Looks whether a connection can go on.
    pub(super) async fn step(&mut self, number: u64) {
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        if matches!(entrant.enrolling, Enrolling::Asked { .. }) {
            return;
        }
        let Some(log) = entrant.logs.first().cloned() else { return self.admit(number, None).await };
        if entrant
            .logs
            .iter()
            .any(|log| self.feeds.get(log).is_none_or(|followed| followed.feed.at().is_none()))
        {
            return;
        }
        let Stage::Walk(walk) = &mut entrant.stage else {
            if matches!(entrant.stage, Stage::Begin) {
                self.admit(number, None).await;
            }
            return;
        };
        if walk.is_reading || walk.is_full {
            return;
        }
        let Some(followed) = self.feeds.get_mut(&log) else { return };
        let Some(end) = followed.feed.at() else { return };
        if walk.at == NOTHING_YET {
            walk.at.epoch = end.epoch;
        }
        // A log without messages has no place behind any.
        if walk.at.epoch != end.epoch || (end.epoch == NOTHING_YET.epoch && walk.at.offset > 0) {
            if !walk.takes_rest {
                return self.admit(number, Some(Recovered::Epoch)).await;
            }
            // Another log: it has nothing of this one.
            walk.lacks = Some(Recovered::Epoch);
            walk.at = Position { epoch: end.epoch, offset: 0 };
        }
        let most = self.page_bytes;
        let recent = followed.feed.recent_since(walk.at).map(|recent| portion(recent, end, most));
        let page = match recent {
            Some(page) => Some(page),
            None => self.entrants.pages.after(&log, walk.at).map(|page| portion(page.iter(), end, most)),
        };
        if let Some(page) = page.filter(|page| !page.is_empty() || walk.at.offset == end.offset) {
            return self.give(number, &log, page, end).await;
        }
        if walk.at.offset > end.offset {
            // It has seen more than this node, or says so: the log's end tells.
            if !std::mem::replace(&mut walk.has_looked, true) {
                followed.feed.look();
            } else if followed.feed.is_at_rest() {
                if !walk.takes_rest {
                    return self.admit(number, Some(Recovered::Epoch)).await;
                }
                // The log has lost what was read of it, and what has these offsets now was not.
                walk.lacks = Some(Recovered::Epoch);
                walk.at.offset = 0;
                return Box::pin(self.step(number)).await;
            }
            followed.waiting.push(number);
            return self.ask(&log);
        }
        if !walk.takes_rest && end.offset - walk.at.offset > MOST_CAUGHT_UP {
            return self.admit(number, Some(Recovered::Limit)).await;
        }
        walk.is_reading = true;
        let page = (log, walk.at);
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
                self.store_failed(&error);
                for number in wanted {
                    if let Some(Entrant { stage: Stage::Walk(walk), .. }) =
                        self.entrants.waiting.get_mut(&number)
                    {
                        walk.is_reading = false;
                        self.entrants_to_step.push(number);
                    }
                }
                return;
            }
        };
        self.store_answered();
        self.logs.counters.pages.fetch_add(1, Ordering::Relaxed);
        let epoch = after.epoch;
        let messages: pages::Messages = page
            .messages
            .iter()
            .map(|stored| {
                let position = Position { epoch, offset: stored.offset };
                (stored.offset, Entry::of_log(stored.id, position, &stored.body))
            })
            .collect();
        if !messages.is_empty() {
            self.entrants.pages.keep(log.clone(), epoch, Arc::clone(&messages), Instant::now());
        }
        for number in wanted {
            let Some(entrant) = self.entrants.waiting.get_mut(&number) else { continue };
            let Stage::Walk(walk) = &mut entrant.stage else { continue };
            walk.is_reading = false;
            entrant.since = Instant::now();
            match page.gap {
                Some(Gap::Trimmed) if walk.takes_rest => {
                    // Who has nothing of it yet has no place in it that was trimmed.
                    walk.lacks = walk.lacks.or((walk.at.offset > 0).then_some(Recovered::Trimmed));
                    walk.at.offset = page.head.map_or(walk.at.offset, |head| head.first - 1);
                    self.entrants_to_step.push(number);
                }
                Some(Gap::Trimmed) => self.admit(number, Some(Recovered::Trimmed)).await,
                Some(Gap::Epoch | Gap::Ahead) => {
                    // Its feed finds out what became of the log, and then it goes on.
                    if let Some(followed) = self.feeds.get_mut(&log) {
                        followed.feed.look();
                        followed.waiting.push(number);
                    }
                    self.ask(&log);
                }
                None => {
                    // It never gets ahead of what the log's other connections have.
                    let end = self.feeds.get(&log).and_then(|followed| followed.feed.at());
                    let page = end.filter(|end| end.epoch == epoch);
                    let page = page.map(|end| (portion(messages.iter(), end, self.page_bytes), end));
                    match page {
                        Some((page, end)) if !page.is_empty() => self.give(number, &log, page, end).await,
                        _ => self.entrants_to_step.push(number),
                    }
                }
            }
        }
        self.step_again().await;
    }

    /// Gives what follows of a log to a connection, and lets it in when that is all.
    async fn give(&mut self, number: u64, log: &LogKey, page: Vec<(u64, Entry)>, end: Position) {
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        let Stage::Walk(walk) = &mut entrant.stage else { return };
        let is_all = page.last().is_none_or(|(offset, _)| *offset == end.offset);
        if let Some((last, _)) = page.last() {
            walk.at.offset = *last;
            // A connection that comes from another node has nobody yet who could read: it is given all, as if it had come while it
            // was cut.
            walk.is_full = !is_all && !matches!(entrant.then, Then::Return { .. });
            walk.coming = None;
            entrant.since = Instant::now();
            let address = entrant.address;
            let count = page.len() as u64;
            self.logs.counters.caught_up.fetch_add(count, Ordering::Relaxed);
            let hub = self.node.hubs().get_or_make(entry::target(log).0);
            let tells_lag = walk.is_full.then_some(number);
            let goes_on = !is_all && !walk.is_full;
            let entries: Arc<[Entry]> = page.into_iter().map(|(_, entry)| entry).collect();
            let command = || {
                let (hub, entries) = (Arc::clone(&hub), Arc::clone(&entries));
                Command::CatchUp { address, hub, log: log.clone(), entries, tells_lag }
            };
            self.post(address.shard, command).await;
            if goes_on {
                self.entrants_to_step.push(number);
            }
        }
        if is_all {
            self.admit(number, Some(Recovered::Whole)).await;
        }
    }

    /// A connection told how much it has coming.
    pub(super) async fn lagging(&mut self, number: u64, bytes: Option<usize>) {
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        let Stage::Walk(walk) = &mut entrant.stage else { return };
        match bytes {
            None => self.admit(number, None).await,
            Some(bytes) if bytes > self.page_bytes => {
                // A client that reads slowly is not one that waits for the store.
                entrant.since = Instant::now();
                let (address, now) = (entrant.address, entrant.since);
                let Some((before, since)) = walk.coming.replace((bytes, now)) else {
                    // It told so in the round in which it was given the page: by now most of that is written.
                    return self.post(address.shard, || Command::TellLag(address, number)).await;
                };
                if before == bytes && since.elapsed() < STALL {
                    walk.coming = Some((bytes, since));
                }
                self.lagging.push(number);
                if before == bytes && since.elapsed() >= STALL {
                    self.post(address.shard, || close_stalled(address)).await;
                }
            }
            Some(_) => {
                walk.is_full = false;
                self.step(number).await;
            }
        }
    }

    /// Lets a connection in. What follows in its logs goes to it as well from now on.
    async fn admit(&mut self, number: u64, recovered: Option<Recovered>) {
        let Some(entrant) = self.entrants.waiting.get_mut(&number) else { return };
        let memberships = match std::mem::replace(&mut entrant.enrolling, Enrolling::No) {
            Enrolling::Listed(memberships) => Some(memberships),
            _ => None,
        };
        let recovered = match &entrant.stage {
            Stage::Walk(Walk { lacks: Some(lacks), .. }) if recovered == Some(Recovered::Whole) => {
                Some(*lacks)
            }
            _ => recovered.filter(|_| !entrant.is_new_member),
        };
        let first = entrant.logs.first();
        let position = first.and_then(|log| self.feeds.get(log)).and_then(|followed| followed.feed.at());
        let (shard, is_in) = (entrant.address.shard, Arc::new(AtomicBool::new(false)));
        for log in &entrant.logs {
            if let Some(followed) = self.feeds.get_mut(log) {
                followed.admitting.push(Admitting { shard, is_in: Arc::clone(&is_in) });
            }
        }
        let pass = Some(Pass(is_in));
        self.end(number, Admission { recovered, position, memberships, error: None, pass }).await;
    }

    async fn end(&mut self, number: u64, admission: Admission) {
        let Some(entrant) = self.entrants.waiting.remove(&number) else { return };
        self.let_go(entrant.address, entrant.then, admission).await;
    }

    /// Tells a connection that waits how it is in, or why it is not.
    async fn let_go(&mut self, address: Address, then: Then, admission: Admission) {
        let mut wanted = (then, Some(admission));
        while let Err(refused) = self.node.go_on(address, wanted.0, wanted.1) {
            wanted = *refused;
            super::clerk::wait_for_room().await;
        }
    }

    /// Looks after those who wait: asks the store again, and ends what takes too long.
    pub(super) async fn tend_entrants(&mut self) {
        let mut late = Vec::new();
        for (number, entrant) in &self.entrants.waiting {
            let is_slow_itself = matches!(entrant.stage, Stage::Walk(Walk { is_full: true, .. }));
            if !is_slow_itself && entrant.since.elapsed() >= PATIENCE {
                late.push(*number);
            }
        }
        for number in late {
            let enrolling = self.entrants.waiting.get(&number).map(|entrant| &entrant.enrolling);
            let silence = "it does not answer".to_owned();
            let error = match enrolling {
                Some(Enrolling::Asked { lists: false, .. }) => StoreError::Unknown(silence),
                _ => Refusal::Failed(silence).into(),
            };
            self.end(number, Admission::refused(error.into())).await;
        }
        for number in std::mem::take(&mut self.lagging) {
            if let Some(address) = self.entrants.waiting.get(&number).map(|entrant| entrant.address) {
                self.post(address.shard, || Command::TellLag(address, number)).await;
            }
        }
        self.entrants.pages.tend(Instant::now());
        self.step_again().await;
    }

    pub(super) async fn step_again(&mut self) {
        for number in std::mem::take(&mut self.entrants_to_step) {
            Box::pin(self.step(number)).await;
        }
    }
}

/// As much of what follows in a log as a connection is given at once: a message at least, and nothing behind the log's end as far
/// as it is known here.
fn portion<'a>(
    messages: impl Iterator<Item = &'a (u64, Entry)>,
    end: Position,
    most: usize,
) -> Vec<(u64, Entry)> {
    let mut bytes = 0;
    let fits = |(_, entry): &&(u64, Entry)| {
        bytes += entry.bytes();
        bytes <= most || bytes == entry.bytes()
    };
    messages.take_while(|(offset, _)| *offset <= end.offset).take_while(fits).cloned().collect()
}

/// Closes a connection that is not read and does not read itself.
fn close_stalled(address: Address) -> Command {
    Command::Run(Box::new(move |operator, shard| {
        // Who is read is found by pings, and who was cut has its time to come back.
        let stalled = |slot: &Slot| shard.is_parked(*slot) && !shard.is_detached(*slot);
        if let Some(slot) = shard.find(address).filter(stalled) {
            operator.hang_up(shard, slot, CloseCode::SlowConsumer, CloseCode::SlowConsumer.text());
        }
    }))
}
