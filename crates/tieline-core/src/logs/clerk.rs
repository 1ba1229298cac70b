//! [`Clerk`]: the task of the logs. It waits for requests, for the store's answers and for time, and for nothing else but room
//! in a shard's mailbox, which comes within milliseconds.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tieline_proto::{Position, UserId};
use tieline_switchboard::Address;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::enrolling::{Asked, Enrolled, Enrolment, Rolls};
use super::entering::{Admitting, Entering, Entrants};
use super::feed::{Feed, FeedPage, Question};
use super::health::Health;
use super::places::Places;
use super::publishing::{Pending, Publishing, Stored};
use super::{Entry, KeepError, Logs, Reader, entry};
use crate::cluster::ClusterTimes;
use crate::command::Command;
use crate::delivery::{Outcome, Receipt, Target};
use crate::hub::Hub;
use crate::node::Node;
use crate::store::{Head, LogKey, Page, StoreError};

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often the ends of all logs are compared, and those without connections let go.
const COMPARE: Duration = Duration::from_secs(5);

/// After so long, who waited for a log to be followed has made its connections members.
const SETTLED: Duration = Duration::from_secs(2);

/// Logs whose heads are asked for at once.
const HEADS: usize = 512;

/// How long a full mailbox is waited for before it is tried again.
const ROOM: Duration = Duration::from_millis(1);

/// How long the end waits for the store.
const ENDING: Duration = Duration::from_secs(2);

/// Requests taken before the rest is looked at.
const REQUESTS_PER_TURN: usize = 256;

/// What the clerk is asked for.
pub(super) enum Request {
    /// To have a message kept and delivered.
    Publish(Box<Publishing>),
    /// To deliver what another node had kept.
    Offer(LogKey, Position, Entry),
    /// To let a connection in.
    Enter(Box<Entering>),
    /// To follow logs.
    Follow(Vec<LogKey>, oneshot::Sender<Result<(), KeepError>>),
    /// To tell how far logs were handed to the shards.
    Ends(Vec<LogKey>, oneshot::Sender<Vec<(LogKey, Position)>>),
    /// The connection of an entrant tells how much it has coming; none when it is gone.
    Lag(u64, Option<usize>),
    /// To let a connection in no longer that is entering this log.
    StopEntering(Address, LogKey),
    /// To make or end stored memberships.
    Enrol(Box<Enrolment>, oneshot::Sender<Result<(), KeepError>>),
    /// A client has read a log up to here.
    Read(Reader, Position),
    /// To compare the ends of logs.
    Look,
}

/// A feed that asked: the log, and which life of its feed. What a former one asked is of no account to its successor.
pub(super) type Asker = (LogKey, u64);

/// What the store has answered.
pub(super) enum Told {
    Heads(Vec<Asker>, Result<Vec<Option<Head>>, StoreError>),
    /// To a feed.
    Read(Asker, Position, Result<Page, StoreError>),
    Renewed(Asker, Result<Option<Head>, StoreError>),
    /// To connections.
    Page(LogKey, Position, Result<Page, StoreError>),
    Place(u64, Result<Option<Position>, StoreError>),
    Placed(Reader, Position, Result<(), StoreError>),
    Enrolled(Asked, Enrolment, Result<Enrolled, KeepError>),
    /// The stored members of a group.
    Listed(LogKey, Result<Vec<UserId>, StoreError>),
}

/// Somebody's answer on its way.
pub(super) type Coming<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A log that this node holds connections of.
pub(super) struct Followed {
    pub(super) feed: Feed<Entry>,
    /// Distinguishes this feed from all that were before.
    life: u64,
    hub: Arc<Hub>,
    target: Target,
    /// Connections that wait for it to go on.
    pub(super) waiting: Vec<u64>,
    /// Others that wait for it to be followed.
    followers: Vec<Arc<Follower>>,
    /// Connections that were let in, and that their shards may not have counted yet.
    pub(super) admitting: Vec<Admitting>,
    /// When somebody last asked for it.
    since: Instant,
}

impl Followed {
    /// Whether a connection is in, or on its way in.
    fn has_connections(&mut self, node: &Node) -> bool {
        // In this order: who is on the way no longer is counted.
        self.admitting.retain(Admitting::is_on_its_way);
        !self.admitting.is_empty() || node.is_here(&self.hub, &self.target)
    }
}

/// Somebody who waits for several logs to be followed.
struct Follower {
    /// Told when the last handle is dropped, which is when all are.
    done: std::sync::Mutex<Option<oneshot::Sender<Result<(), KeepError>>>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(done) = self.done.get_mut().ok().and_then(Option::take) {
            // The follower may have given up.
            let _ = done.send(Ok(()));
        }
    }
}

/// The task's own memory.
pub(super) struct Clerk {
    pub(super) logs: Arc<Logs>,
    pub(super) node: Arc<Node>,
    /// Messages that the store was given.
    pub(super) storing: FuturesUnordered<Coming<Stored>>,
    /// Who waits for it, the longest first.
    pub(super) pending: VecDeque<Pending>,
    /// What else it was asked.
    pub(super) asking: FuturesUnordered<Coming<Told>>,
    pub(super) feeds: HashMap<LogKey, Followed>,
    /// Feeds that there were.
    lives: u64,
    pub(super) entrants: Entrants,
    pub(super) entrants_to_step: Vec<u64>,
    /// Entrants whose connections are asked again how much they have coming.
    pub(super) lagging: Vec<u64>,
    /// Bytes of a page for a connection.
    pub(super) page_bytes: usize,
    pub(super) places: Places,
    pub(super) rolls: Rolls,
    /// Logs whose heads are wanted.
    heads: Vec<Asker>,
    /// Logs to be looked at again because the store did not answer.
    again: HashSet<LogKey>,
    /// Receipts, the oldest first, each given up when its time is over.
    watched: VecDeque<(Instant, Arc<Receipt>)>,
    /// Whether the store did not answer the last time.
    is_in_trouble: bool,
    compared: Instant,
}

impl Clerk {
    pub(super) fn new(logs: Arc<Logs>, node: Arc<Node>) -> Self {
        let page_bytes = super::entering::page_bytes(node.max_lag());
        Clerk {
            logs,
            node,
            storing: FuturesUnordered::new(),
            pending: VecDeque::new(),
            asking: FuturesUnordered::new(),
            feeds: HashMap::new(),
            lives: 0,
            entrants: Entrants::default(),
            entrants_to_step: Vec::new(),
            lagging: Vec::new(),
            page_bytes,
            places: Places::default(),
            rolls: Rolls::default(),
            heads: Vec::new(),
            again: HashSet::new(),
            watched: VecDeque::new(),
            is_in_trouble: false,
            compared: Instant::now(),
        }
    }

    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Request>, stop: Arc<Notify>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticked = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.notified() => break,
                Some(stored) = self.storing.next() => self.stored(stored).await,
                Some(told) = self.asking.next() => self.told(told).await,
                Some(request) = asked.recv() => {
                    self.take(request).await;
                    for _ in 0..REQUESTS_PER_TURN {
                        let Ok(request) = asked.try_recv() else { break };
                        self.take(request).await;
                    }
                }
                _ = ticks.tick() => {}
            }
            // Looked at whatever came, so that time passes also while requests never end.
            let now = Instant::now();
            if now.duration_since(ticked) >= TICK {
                ticked = now;
                self.tick(now).await;
            }
            self.ask_heads();
        }
        // What clients have read is written once more; nothing else that the store was asked is waited for.
        self.asking.clear();
        self.write_places(Instant::now());
        let writing = async { while self.asking.next().await.is_some() {} };
        if tokio::time::timeout(ENDING, writing).await.is_err() {
            tracing::warn!(
                "The store did not take how far clients have read; they are given some of it again."
            );
        }
    }

    async fn take(&mut self, request: Request) {
        match request {
            Request::Publish(publishing) => self.publish(*publishing),
            Request::Offer(log, position, entry) => self.offer(log, position, entry).await,
            Request::Enter(entering) => self.enter(*entering).await,
            Request::Follow(logs, done) => self.follow_all(&logs, done),
            Request::Ends(logs, done) => {
                let end = |log: LogKey| {
                    let at = self.feeds.get(&log)?.feed.at()?;
                    Some((log, at))
                };
                // Who asked may have given up.
                let _ = done.send(logs.into_iter().filter_map(end).collect());
            }
            Request::Lag(entrant, bytes) => self.lagging(entrant, bytes).await,
            Request::StopEntering(address, log) => self.stop_entering(address, &log).await,
            Request::Enrol(enrolment, waiter) => {
                if let Err((error, Asked::Waiter(waiter))) = self.enrol(*enrolment, Asked::Waiter(waiter)) {
                    // Who asked may have given up.
                    let _ = waiter.send(Err(error));
                }
            }
            Request::Read(reader, position) => self.places.note(reader, position),
            Request::Look => self.look_at_all(),
        }
    }

    async fn told(&mut self, told: Told) {
        match told {
            Told::Heads(askers, Ok(heads)) => {
                self.store_answered();
                for (asker, head) in askers.into_iter().zip(heads) {
                    if let Some(feed) = self.asking_feed(&asker) {
                        feed.head(head);
                        self.turn(&asker.0).await;
                    }
                }
            }
            Told::Heads(askers, Err(error)) => self.not_answered(askers, &error),
            Told::Read(asker, after, Ok(page)) => {
                self.store_answered();
                self.logs.counters.pages.fetch_add(1, Ordering::Relaxed);
                if let Some(feed) = self.asking_feed(&asker) {
                    feed.page(feed_page(after, page));
                    self.turn(&asker.0).await;
                }
            }
            Told::Read(asker, _, Err(error)) | Told::Renewed(asker, Err(error)) => {
                self.not_answered(vec![asker], &error);
            }
            Told::Renewed(asker, Ok(head)) => {
                tracing::warn!(log = %asker.0.to_text(), "A log had lost messages; it has a new epoch now.");
                if let Some(feed) = self.asking_feed(&asker) {
                    feed.head(head);
                    self.turn(&asker.0).await;
                }
            }
            Told::Page(log, after, page) => self.paged(log, after, page).await,
            Told::Place(number, Ok(place)) => {
                self.store_answered();
                self.placed(number, place).await;
            }
            // Its connection waits in vain, and is told so.
            Told::Place(_, Err(error)) => self.store_failed(&error),
            Told::Placed(reader, position, result) => {
                match &result {
                    Ok(()) => self.store_answered(),
                    Err(error) => self.store_failed(error),
                }
                self.places.written(reader, position, result.is_ok(), Instant::now());
            }
            Told::Enrolled(asked, enrolment, result) => self.enrolled(asked, enrolment, result).await,
            Told::Listed(log, members) => self.listed(&log, members),
        }
    }

    /// The feed that asked, if it is still there.
    fn asking_feed(&mut self, (log, life): &Asker) -> Option<&mut Feed<Entry>> {
        self.feeds.get_mut(log).filter(|followed| followed.life == *life).map(|followed| &mut followed.feed)
    }

    fn not_answered(&mut self, askers: Vec<Asker>, error: &StoreError) {
        tracing::debug!(%error, "The store did not answer for a log.");
        self.store_failed(error);
        for asker in askers {
            if let Some(feed) = self.asking_feed(&asker) {
                feed.failed();
                self.again.insert(asker.0);
            }
        }
    }

    /// The store did not do what it was asked. Where that says nothing of what it has, no log has to be looked at again.
    pub(super) fn store_failed(&mut self, error: &StoreError) {
        if !Health::is_told_by(error) {
            return;
        }
        self.logs.health.unanswered();
        if !std::mem::replace(&mut self.is_in_trouble, true) {
            tracing::warn!("The store does not answer; durable messages are refused until it does.");
        }
    }

    /// It does again: whether it still has what it had is looked at before anything else of it is delivered.
    pub(super) fn store_answered(&mut self) {
        if std::mem::take(&mut self.is_in_trouble) {
            self.logs.health.answered();
            tracing::info!("The store answers again.");
            for (log, followed) in &mut self.feeds {
                followed.feed.doubt();
                self.again.insert(log.clone());
            }
        }
    }

    /// Whether this node holds connections of a log.
    pub(super) fn follows(&self, log: &LogKey) -> bool {
        self.feeds.contains_key(log)
    }

    /// Follows a log from now on, for somebody who waits for it.
    pub(super) fn follow(&mut self, log: &LogKey, waiting: Option<u64>) {
        let node = &self.node;
        let lives = &mut self.lives;
        let followed = self.feeds.entry(log.clone()).or_insert_with(|| {
            *lives += 1;
            let (hub, target) = entry::target(log);
            let hub = node.hubs().get_or_make(hub);
            Followed {
                feed: Feed::default(),
                life: *lives,
                hub,
                target,
                waiting: Vec::new(),
                followers: Vec::new(),
                admitting: Vec::new(),
                since: Instant::now(),
            }
        });
        if !followed.has_connections(node) {
            // A log that had no connections for a while may have gone on unheard: who comes now begins at its end. Not where
            // somebody waits for nothing but to be made a member.
            if followed.feed.at().is_some() && followed.since.elapsed() > SETTLED {
                self.lives += 1;
                (followed.feed, followed.life) = (Feed::default(), self.lives);
            }
            followed.feed.look();
        }
        followed.since = Instant::now();
        followed.waiting.extend(waiting);
        self.ask(log);
    }

    fn follow_all(&mut self, logs: &[LogKey], done: oneshot::Sender<Result<(), KeepError>>) {
        let follower = Arc::new(Follower { done: std::sync::Mutex::new(Some(done)) });
        for log in logs {
            self.follow(log, None);
            if let Some(followed) = self.feeds.get_mut(log)
                && followed.feed.at().is_none()
            {
                followed.followers.push(Arc::clone(&follower));
            }
        }
    }

    /// Takes a message that was stored.
    pub(super) async fn offer(&mut self, log: LogKey, position: Position, entry: Entry) {
        match self.feeds.get_mut(&log) {
            Some(followed) => {
                followed.feed.offer(position, entry);
                self.turn(&log).await;
            }
            None => {
                if let Some(receipt) = entry.receipt() {
                    self.add(receipt, Outcome::default());
                }
            }
        }
    }

    /// Delivers what is due of a log, and asks for what is missing.
    pub(super) async fn turn(&mut self, log: &LogKey) {
        let Some(followed) = self.feeds.get_mut(log) else { return };
        let (hub, target) = (Arc::clone(&followed.hub), followed.target.clone());
        let mut delivered = 0;
        while let Some((_, entry)) = self.feeds.get_mut(log).and_then(|followed| followed.feed.next()) {
            delivered += 1;
            self.deliver(log, &hub, &target, &entry).await;
        }
        self.logs.counters.delivered.fetch_add(delivered, Ordering::Relaxed);
        let Some(followed) = self.feeds.get_mut(log) else { return };
        if followed.feed.take_loss() {
            self.logs.counters.losses.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(log = %log.to_text(), "Messages were trimmed before this node had delivered them.");
            self.node.announce_gap();
        }
        if followed.feed.at().is_some() {
            followed.followers.clear();
            self.entrants_to_step.append(&mut followed.waiting);
        }
        self.ask(log);
        Box::pin(self.step_again()).await;
    }

    /// Asks the store what the feed of a log wants to know.
    pub(super) fn ask(&mut self, log: &LogKey) {
        let Some(followed) = self.feeds.get_mut(log) else { return };
        match followed.feed.question() {
            None => {}
            Some(Question::Head) => self.heads.push((log.clone(), followed.life)),
            Some(Question::Read(after)) => {
                let Some(engine) = &self.logs.engine else { return };
                let (asker, limit) = ((log.clone(), followed.life), Feed::<Entry>::page_limit());
                let answer = engine.store.read(log.clone(), Some(after), limit);
                self.asking.push(Box::pin(async move { Told::Read(asker, after, answer.await) }));
            }
            Some(Question::Renew(epoch)) => {
                let Some(engine) = &self.logs.engine else { return };
                let asker = (log.clone(), followed.life);
                let answer = engine.store.renew(log.clone(), epoch);
                self.asking.push(Box::pin(async move { Told::Renewed(asker, answer.await) }));
            }
        }
    }

    async fn deliver(&mut self, log: &LogKey, hub: &Arc<Hub>, target: &Target, entry: &Entry) {
        let receipt = entry.receipt();
        let Some(delivery) = entry.delivery(hub, target.clone(), true) else { return };
        let admitting = &mut self.feeds.get_mut(log).expect("what is delivered is followed").admitting;
        // In this order: who is on the way no longer is counted.
        admitting.retain(Admitting::is_on_its_way);
        let mut shards: Vec<u16> = admitting.iter().map(|admitting| admitting.shard).collect();
        shards.extend(self.node.places_of(&delivery).shards);
        shards.sort_unstable();
        shards.dedup();
        if let Some(receipt) = receipt {
            match shards.len() {
                0 => self.add(receipt, Outcome::default()),
                count => receipt.await_more(count - 1),
            }
        }
        let delivery = Arc::new(delivery);
        for shard in shards {
            self.post(shard, || Command::Deliver(Arc::clone(&delivery))).await;
        }
    }

    /// Hands a command to a shard, when it has room for it.
    pub(super) async fn post(&mut self, shard: u16, command: impl Fn() -> Command) {
        while self.node.post(shard, command()).is_err() {
            wait_for_room().await;
        }
    }

    /// Gives a receipt up when its time is over.
    pub(super) fn watch(&mut self, receipt: &Arc<Receipt>) {
        self.watched.push_back((Instant::now(), Arc::clone(receipt)));
    }

    /// A log's end may be further than is known here.
    pub(super) fn look_at(&mut self, hub: &Arc<Hub>, target: &Target) {
        if let Some(log) = super::log_of(hub.name(), target)
            && let Some(followed) = self.feeds.get_mut(&log)
        {
            followed.feed.look();
            self.again.insert(log);
        }
    }

    fn look_at_all(&mut self) {
        let logs: Vec<LogKey> = self.feeds.keys().cloned().collect();
        for log in logs {
            if let Some(followed) = self.feeds.get_mut(&log) {
                followed.feed.look();
            }
            self.ask(&log);
        }
    }

    fn ask_heads(&mut self) {
        if self.heads.is_empty() {
            return;
        }
        let askers = std::mem::take(&mut self.heads);
        let Some(engine) = self.logs.engine.as_ref() else {
            // Nothing is kept anywhere, so there is nothing to follow; who waits is told when its time is up.
            let forget = |asker: &Asker| self.asking_feed(asker).map(Feed::failed);
            return askers.iter().map(forget).for_each(drop);
        };
        for askers in askers.chunks(HEADS) {
            let askers = askers.to_vec();
            let answer = engine.store.heads(askers.iter().map(|(log, _)| log.clone()).collect());
            self.asking.push(Box::pin(async move { Told::Heads(askers, answer.await) }));
        }
    }

    async fn tick(&mut self, now: Instant) {
        let limit =
            self.node.cluster().map_or(ClusterTimes::default().receipt, |cluster| cluster.receipt_limit());
        while let Some((since, _)) = self.watched.front()
            && now.duration_since(*since) >= limit
        {
            let Some((_, receipt)) = self.watched.pop_front() else { break };
            if let Some(settled) = receipt.give_up() {
                self.node.settle(settled);
            }
        }
        self.give_up_waiting(now);
        self.watched.retain(|(_, receipt)| !receipt.is_done());
        for log in std::mem::take(&mut self.again) {
            self.turn(&log).await;
        }
        self.tend_entrants().await;
        if self.places.is_due(now) {
            self.write_places(now);
        }
        if now.duration_since(self.compared) >= COMPARE {
            self.compared = now;
            self.rolls.tend();
            let node = &self.node;
            self.feeds.retain(|_, followed| {
                let is_wanted = !followed.waiting.is_empty() || now.duration_since(followed.since) < COMPARE;
                is_wanted || followed.has_connections(node)
            });
            self.look_at_all();
        }
    }

    /// Reads where a client was in its inbox.
    pub(super) fn read_place(&mut self, number: u64, reader: &Reader) {
        let Some(engine) = &self.logs.engine else { return };
        let place = Places::read(&*engine.records, reader);
        self.asking.push(Box::pin(async move { Told::Place(number, place.await) }));
    }

    fn write_places(&mut self, now: Instant) {
        let Some(engine) = &self.logs.engine else { return };
        for (reader, position) in self.places.take(now) {
            let written = Places::write(engine, &reader, position);
            self.asking.push(Box::pin(async move { Told::Placed(reader, position, written.await) }));
        }
    }
}

/// Lets a shard work on what it has.
pub(super) async fn wait_for_room() {
    tokio::time::sleep(ROOM).await;
}

fn feed_page(after: Position, page: Page) -> FeedPage<Entry> {
    let epoch = after.epoch;
    let entry = |stored: &crate::store::Stored| {
        let position = Position { epoch, offset: stored.offset };
        (stored.offset, Entry::of_log(stored.id, position, &stored.body))
    };
    FeedPage { head: page.head, gap: page.gap, messages: page.messages.iter().map(entry).collect() }
}
