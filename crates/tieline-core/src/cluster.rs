//! [`Cluster`]: this node among the others.
//!
//! Shards and brokers call it from their own threads, and none of its calls waits: envelopes are numbered and
//! handed to the broker, messages that arrive are handed to the shards. What takes memory of who is there (rosters,
//! waits, leases) belongs to one task, in `cluster/attendant.rs`, which hears of it through a bounded queue.
//!
//! Rules: a message is never forwarded again; a node drops its own echo and what it saw before; a number that is
//! missing is reported as a gap, at most once a second for each origin.

mod asks;
mod attendant;
mod peers;
mod receipts;
mod roster;
mod routes;
mod sequence;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use smallvec::SmallVec;
use tieline_proto::envelope::{Envelope, Header, Held, Message, Way};
use tieline_proto::filter::Filter;
use tieline_proto::{ConnectionId, GroupName, HubName, Incarnation, Payload, UserId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::ask::{Answer, Ask};
use crate::broker::{Broker, Inbound, NotTaken, To};
use crate::command::Then;
use crate::delivery::{Delivery, Outcome, Receipt, Target};
use crate::message;
use crate::node::{Node, Overloaded};
use asks::Asks;
use attendant::{Attendant, Word};
use peers::Peers;
use receipts::Receipts;
use roster::Roster;
pub(crate) use routes::Nodes;
use routes::Routes;
use sequence::{Arrived, Channel, Seen};
use tieline_switchboard::Address;

/// Words of other nodes, and waits, that the task has not come to. When it is full a word is dropped and counted:
/// the digest in the next beat finds what that lost.
const WORDS: usize = 65_536;

/// Times of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterTimes {
    /// Time between two signs of life.
    pub beat: Duration,
    /// How long a node that cannot be reached is still believed to hold what it held.
    pub lease: Duration,
    /// How long a join or a login waits for the other nodes to have read of it.
    pub read: Duration,
    /// How long an ask waits for the answers of the other nodes.
    pub ask: Duration,
    /// How long a send waits for the receipts of the other nodes.
    pub receipt: Duration,
}

impl Default for ClusterTimes {
    fn default() -> Self {
        ClusterTimes {
            beat: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            read: Duration::from_secs(1),
            ask: Duration::from_secs(3),
            receipt: Duration::from_secs(1),
        }
    }
}

/// What the cluster has counted since its start.
#[derive(Debug, Default)]
pub struct ClusterCounters {
    /// Envelopes handed to the broker.
    pub sent: AtomicU64,
    /// Envelopes that the broker did not take.
    pub not_taken: AtomicU64,
    /// Envelopes that arrived.
    pub received: AtomicU64,
    /// Envelopes that could not be read.
    pub malformed: AtomicU64,
    /// Envelopes that had been seen before.
    pub again: AtomicU64,
    /// Numbers that were missing.
    pub missing: AtomicU64,
    /// Messages of other nodes that a full shard did not take.
    pub dropped: AtomicU64,
    /// Words of other nodes that were dropped because the task was too far behind.
    pub words_dropped: AtomicU64,
    /// Joins and logins that were answered although not every node had read of them.
    pub unread: AtomicU64,
}

/// What was numbered last.
#[derive(Default)]
struct Numbers {
    to_all: u64,
    to_one: HashMap<Incarnation, u64>,
    /// Where a new channel to one node begins: not below the last number of any that was forgotten. A node that was
    /// forgotten here may remember what it has seen, and would take lower numbers for envelopes that come again.
    one_begins: u64,
}

impl Numbers {
    /// The next number on a channel.
    fn next(&mut self, to: To) -> u64 {
        let last = match to {
            To::All => &mut self.to_all,
            To::One(node) => self.to_one.entry(node).or_insert(self.one_begins),
        };
        *last += 1;
        *last
    }

    /// Forgets a node that is gone.
    fn forget(&mut self, node: Incarnation) {
        let last = self.to_one.remove(&node).unwrap_or(0);
        self.one_begins = self.one_begins.max(last);
    }
}

/// This node's place in the cluster.
pub struct Cluster {
    node: Arc<Node>,
    times: ClusterTimes,
    broker: OnceLock<Arc<dyn Broker>>,
    /// Held while an envelope is handed to the broker, so that numbers leave in order.
    numbers: Mutex<Numbers>,
    seen: Mutex<Seen>,
    own: Mutex<OwnRoster>,
    peers: RwLock<Arc<Peers>>,
    routes: Routes,
    receipts: Receipts,
    asks: Asks,
    /// The version of this node's roster that every node it reaches has read.
    read: watch::Sender<u64>,
    words: mpsc::Sender<Word>,
    /// Whether the broker carries nothing now. Kept apart from the words, so that it is never lost among them.
    is_away: AtomicBool,
    /// Wakes the task: there is something to tell, or the broker went or came.
    changed: Notify,
    counters: ClusterCounters,
}

/// What this node states, and what of it was not told yet.
#[derive(Default)]
struct OwnRoster {
    roster: Roster,
    untold: Vec<tieline_proto::envelope::Change>,
    /// The version that every live node has read.
    read: u64,
}

/// Whether the others know already what a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// They do, or there are none.
    Yes,
    /// They will when they have read this version.
    At(u64),
}

/// The cluster's task. Whoever started the cluster stops and joins it.
pub struct ClusterTask {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl ClusterTask {
    /// Says goodbye to the others and ends the task.
    pub async fn stop(self) {
        self.stop.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The cluster's task failed.");
        }
    }
}

impl Cluster {
    /// Makes a node a member of a cluster. `connect` starts the broker, given whom it tells what it hears.
    ///
    /// # Errors
    /// What `connect` gives.
    pub async fn start<E, F: Future<Output = Result<Arc<dyn Broker>, E>>>(
        node: Arc<Node>,
        times: ClusterTimes,
        client_url: String,
        connect: impl FnOnce(Arc<dyn Inbound>) -> F,
    ) -> Result<(Arc<Cluster>, ClusterTask), E> {
        let (words, heard) = mpsc::channel(WORDS);
        let cluster = Arc::new(Cluster {
            node: Arc::clone(&node),
            times,
            broker: OnceLock::new(),
            numbers: Mutex::default(),
            seen: Mutex::default(),
            own: Mutex::default(),
            peers: RwLock::default(),
            routes: Routes::default(),
            receipts: Receipts::default(),
            asks: Asks::default(),
            read: watch::Sender::new(0),
            words,
            is_away: AtomicBool::new(false),
            changed: Notify::new(),
            counters: ClusterCounters::default(),
        });
        let broker = connect(Arc::clone(&cluster) as Arc<dyn Inbound>).await?;
        cluster.broker.set(broker).ok().expect("a cluster is started once");
        node.set_cluster(Arc::clone(&cluster));
        let stop = Arc::new(Notify::new());
        let attendant = Attendant::new(Arc::clone(&cluster), client_url);
        let task = tokio::spawn(attendant.run(heard, Arc::clone(&stop)));
        Ok((cluster, ClusterTask { task, stop }))
    }

    /// What was counted.
    pub fn counters(&self) -> &ClusterCounters {
        &self.counters
    }

    /// The nodes that are reached, as they were a moment ago.
    pub fn peers(&self) -> Vec<Peer> {
        self.peer_view().all().to_vec()
    }

    /// Whether the broker carries envelopes, as it said last.
    pub fn is_broker_up(&self) -> bool {
        !self.is_away.load(Ordering::Acquire)
    }

    fn peer_view(&self) -> Arc<Peers> {
        Arc::clone(&self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }

    // ---- stating ----

    /// A connection of this node holds a user or a group from now on.
    pub(crate) fn hold(&self, hub: &HubName, what: Held) -> Known {
        let mut own = lock(&self.own);
        let (version, change) = own.roster.hold(hub, what);
        if let Some(change) = change {
            own.untold.push(change);
            self.changed.notify_one();
        }
        if version <= own.read || self.peer_view().is_alone() { Known::Yes } else { Known::At(version) }
    }

    /// A connection holds it no longer.
    pub(crate) fn release(&self, hub: &HubName, what: Held) {
        let mut own = lock(&self.own);
        if let Some(change) = own.roster.release(hub, what) {
            own.untold.push(change);
            self.changed.notify_one();
        }
    }

    /// Tells the connection's shard to go on when the others have read a version, or the time is up.
    ///
    /// # Errors
    /// What is to be done, when the task is too far behind to wait: then it is done without the promise, and
    /// counted.
    pub(crate) fn when_read(&self, version: u64, address: Address, then: Then) -> Result<(), Then> {
        match self.words.try_send(Word::Wait(version, address, then)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.counters.unread.fetch_add(1, Ordering::Relaxed);
                match error.into_inner() {
                    Word::Wait(_, _, then) => Err(then),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Waits until the nodes that are reached have read all that this one has stated so far, or the time is up, which
    /// is counted.
    pub(crate) async fn all_read(&self) {
        let version = lock(&self.own).roster.version();
        if self.is_alone() {
            return;
        }
        let mut read = self.read.subscribe();
        let all = read.wait_for(|read| *read >= version);
        if tokio::time::timeout(self.times.read, all).await.is_err() {
            self.counters.unread.fetch_add(1, Ordering::Relaxed);
        }
    }

    // ---- asking ----

    /// Asks the other nodes about connections of a hub, and merges what they answer with `own`, this node's answer.
    ///
    /// # Errors
    /// [`Overloaded`] when one of them did not answer in time, or could not: what it holds is not known. Asking again
    /// is harmless.
    pub(crate) async fn ask(&self, hub: &HubName, ask: &Ask, own: Answer) -> Result<Answer, Overloaded> {
        let peers = self.peer_view();
        let nodes: Nodes = match ask.connection() {
            Some(id) => Nodes::from_iter(peers.is_reached(id.incarnation()).then(|| id.incarnation())),
            None => {
                peers.all().iter().filter(|peer| peer.is_reached()).map(|peer| peer.id.incarnation).collect()
            }
        };
        if nodes.is_empty() {
            return Ok(own);
        }
        let text = serde_json::to_string(ask).map_err(|_| Overloaded)?;
        let mut open = self.asks.open(nodes.len());
        for node in &nodes {
            let envelope = Envelope::Ask(open.number, hub.clone(), text.clone());
            self.say(To::One(*node), &envelope).map_err(|_| Overloaded)?;
        }
        let gather = async {
            let mut answer = own;
            for _ in &nodes {
                let reply = open.replies.recv().await.flatten().ok_or(Overloaded)?;
                let theirs: Answer = serde_json::from_str(&reply).map_err(|_| Overloaded)?;
                answer = answer.merge(theirs);
            }
            Ok(answer)
        };
        tokio::time::timeout(self.times.ask, gather).await.map_err(|_| Overloaded)?
    }

    /// Answers another node's ask.
    async fn answer_ask(&self, origin: Incarnation, number: u64, hub: HubName, ask: String) {
        let answer = match serde_json::from_str(&ask) {
            Ok(ask) => self.node.answer(&hub, ask).await.ok(),
            Err(_) => None,
        };
        let answer = answer.and_then(|answer| serde_json::to_string(&answer).ok());
        let _ = self.say(To::One(origin), &Envelope::Answer(number, answer));
    }

    // ---- sending ----

    /// Numbers an envelope and hands it to the broker.
    fn say(&self, to: To, envelope: &Envelope<'_>) -> Result<(), NotTaken> {
        let mut bytes = Vec::with_capacity(256);
        let mut numbers = lock(&self.numbers);
        let number = numbers.next(to);
        let origin = self.node.id().incarnation;
        Header { origin, to_all: to == To::All, number }.write(&mut bytes);
        envelope.write(&mut bytes);
        let result = self.broker().send(to, &bytes.into());
        drop(numbers);
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            self.counters.not_taken.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn broker(&self) -> &Arc<dyn Broker> {
        self.broker.get().expect("nothing is said before the broker is there")
    }

    /// Whether a user or a group may be held by another node, so that a message to it has to be kept.
    pub(crate) fn may_hold_user(&self, hub: &HubName, user: &str) -> bool {
        let peers = self.peer_view();
        !peers.is_alone() && (!peers.complete() || !self.routes.user(hub, user).is_empty())
    }

    /// As [`Cluster::may_hold_user`], for a group.
    pub(crate) fn may_hold_group(&self, hub: &HubName, group: &str) -> bool {
        let peers = self.peer_view();
        !peers.is_alone() && (!peers.complete() || !self.routes.group(hub, group).is_empty())
    }

    /// Whether there are others at all.
    pub(crate) fn is_alone(&self) -> bool {
        self.peer_view().is_alone()
    }

    /// The nodes that a message has to go to, and how many of its named targets none of them holds as far as is
    /// known, `here` telling which this node holds.
    pub(crate) fn route(&self, delivery: &Delivery, here: impl Fn(&Target) -> bool) -> (Nodes, u64) {
        let peers = self.peer_view();
        let mut nodes = Nodes::new();
        let mut unknown = 0;
        let hub = delivery.hub.name();
        let mut add = |node: Incarnation| {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        };
        for target in &delivery.to {
            match target {
                Target::Everyone => peers.all().iter().for_each(|peer| add(peer.id.incarnation)),
                Target::Group(group) => {
                    self.routes.group(hub, group).into_iter().for_each(&mut add);
                    peers.incomplete().for_each(&mut add);
                }
                Target::User(user) => {
                    let holders = self.routes.user(hub, user);
                    if holders.is_empty() && !here(target) {
                        // Not found only where the view is complete; otherwise the others are asked.
                        peers.incomplete().for_each(&mut add);
                        unknown += u64::from(peers.complete());
                    }
                    holders.into_iter().for_each(&mut add);
                }
                Target::Connection(id) if peers.is_reached(id.incarnation()) => add(id.incarnation()),
                Target::Connection(_) => unknown += u64::from(!here(target)),
            }
        }
        nodes.retain(|node| peers.is_reached(*node));
        (nodes, unknown)
    }

    /// Hands a message to other nodes.
    pub(crate) fn forward(&self, delivery: &Delivery, nodes: &[Incarnation]) {
        let (mut groups, mut users, mut connections) = (Vec::new(), Vec::new(), Vec::new());
        let mut everyone = false;
        for target in &delivery.to {
            match target {
                Target::Everyone => everyone = true,
                Target::Group(group) => groups.push(group.as_str()),
                Target::User(user) => users.push(user.as_str()),
                Target::Connection(id) => connections.push(*id),
            }
        }
        let message = &delivery.message;
        let receipt = match &delivery.receipt {
            Some(receipt) => self.receipts.expect(receipt, nodes.len()),
            None => 0,
        };
        let envelope = Envelope::Message(Message {
            hub: delivery.hub.name(),
            way: match &message.way {
                message::Way::Group(group) => Way::Group(group),
                message::Way::Server => Way::Server,
                message::Way::User(user) => Way::User(user),
            },
            from_user: message.from_user.as_deref(),
            id: message.id,
            time_ms: message.time_ms,
            data_type: message.payload.as_data().data_type(),
            json: message.payload.as_data().json(),
            everyone,
            groups,
            users,
            connections,
            except: delivery.except.to_vec(),
            only_users: delivery.users.iter().map(UserId::as_str).collect(),
            filter: delivery.filter.as_ref().map(|filter| filter.source()),
            receipt,
        });
        // Where more than half of the nodes want it, one envelope to all costs the origin least.
        let all = self.peer_view().all().len();
        if nodes.len() == all || nodes.len() * 2 > all + 1 && receipt == 0 {
            // What was not taken is counted; the receivers see the gap.
            let _ = self.say(To::All, &envelope);
        } else {
            for node in nodes {
                let _ = self.say(To::One(*node), &envelope);
            }
        }
    }

    // ---- receiving ----

    fn hear(&self, bytes: &[u8]) -> Result<(), tieline_proto::envelope::EnvelopeError> {
        let (header, said) = Header::read(bytes)?;
        if header.origin == self.node.id().incarnation {
            return Ok(());
        }
        let channel = if header.to_all { Channel::All } else { Channel::One };
        if header.number > 0 {
            match lock(&self.seen).envelope(header.origin, channel, header.number) {
                Arrived::InOrder => {}
                Arrived::AfterGap(missing) => self.note_gap(header.origin, missing),
                Arrived::Again => {
                    self.counters.again.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
        match Envelope::read(said)? {
            Envelope::Message(message) => self.receive(header.origin, &message),
            Envelope::Receipt(number, delivered, unknown) => {
                if let Some(settled) = self.receipts.arrived(number, Outcome { delivered, unknown }) {
                    self.node.settle(settled);
                }
            }
            Envelope::Beat(beat) => self.tell(Word::Beat(header.origin, beat)),
            Envelope::Changes(version, changes) => self.tell(Word::Changes(header.origin, version, changes)),
            Envelope::Read(version) => self.tell(Word::Read(header.origin, version)),
            Envelope::RosterWanted => self.tell(Word::RosterWanted(header.origin)),
            Envelope::Roster(version, left, held) => {
                self.tell(Word::Roster(header.origin, version, left, held));
            }
            Envelope::Ask(number, hub, ask) => self.tell(Word::Ask(header.origin, number, hub, ask)),
            Envelope::Answer(number, answer) => self.asks.answered(number, answer),
            Envelope::Tail(number) => self.note_tail(header.origin, Channel::One, number),
            Envelope::Goodbye => self.tell(Word::Goodbye(header.origin)),
        }
        Ok(())
    }

    fn note_tail(&self, origin: Incarnation, channel: Channel, number: u64) {
        let missing = lock(&self.seen).last_number(origin, channel, number);
        if missing > 0 {
            self.note_gap(origin, missing);
        }
    }

    fn note_gap(&self, origin: Incarnation, missing: u64) {
        self.counters.missing.fetch_add(missing, Ordering::Relaxed);
        self.tell(Word::Gap(origin));
    }

    fn tell(&self, word: Word) {
        if self.words.try_send(word).is_err() {
            self.counters.words_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Delivers another node's message to connections of this one.
    fn receive(&self, origin: Incarnation, message: &Message<'_>) {
        let outcome = self.deliver(origin, message);
        if let (Some(outcome), true) = (outcome, message.receipt > 0) {
            self.answer(origin, message.receipt, outcome);
        }
    }

    /// Tells an origin what became of its message.
    pub(crate) fn answer(&self, origin: Incarnation, receipt: u64, outcome: Outcome) {
        let _ = self.say(To::One(origin), &Envelope::Receipt(receipt, outcome.delivered, outcome.unknown));
    }

    /// Hands a message to the shards that hold recipients. Returns what became of it when that is known at once;
    /// otherwise the last shard answers.
    fn deliver(&self, origin: Incarnation, message: &Message<'_>) -> Option<Outcome> {
        let nobody = Some(Outcome::default());
        let hub = HubName::new(message.hub).ok().and_then(|name| self.node.hubs().get(&name));
        // Nobody of this hub is here: there is nothing to do, and nothing wrong.
        let Some(hub) = hub else { return nobody };
        let way = match message.way {
            Way::Server => message::Way::Server,
            Way::Group(name) => message::Way::Group(GroupName::new(name).ok()?),
            Way::User(name) => message::Way::User(UserId::new(name).ok()?),
        };
        let mut to: SmallVec<[Target; 1]> = SmallVec::new();
        if message.everyone {
            to.push(Target::Everyone);
        }
        to.extend(message.groups.iter().filter_map(|group| GroupName::new(group).ok()).map(Target::Group));
        to.extend(message.users.iter().filter_map(|user| UserId::new(user).ok()).map(Target::User));
        let own = |id: &&ConnectionId| self.node.address(**id).is_some();
        to.extend(message.connections.iter().filter(own).copied().map(Target::Connection));
        let filter = match message.filter {
            None => None,
            // The origin has compiled it already, so that a filter is never dropped here and wider sent than asked.
            Some(text) => Some(Arc::new(Filter::parse(text).ok()?)),
        };
        let from_user = message.from_user.and_then(|user| UserId::new(user).ok());
        let payload = Payload::from_parts(message.data_type, message.json).ok()?;
        let mut delivery = Delivery {
            hub,
            message: message::Message::new(way, from_user, message.id, message.time_ms, payload),
            to,
            except: message.except.iter().copied().collect(),
            users: message.only_users.iter().filter_map(|user| UserId::new(user).ok()).collect(),
            filter,
            receipt: None,
        };
        let shards = self.node.shards_of(&delivery);
        if shards.is_empty() {
            return nobody;
        }
        if message.receipt > 0 {
            delivery.receipt = Some(Receipt::for_node(shards.len(), origin, message.receipt));
        }
        let refused = self.node.hand_to_shards(&shards, &Arc::new(delivery));
        self.counters.dropped.fetch_add(refused as u64, Ordering::Relaxed);
        None
    }
}

impl Inbound for Cluster {
    fn envelope(&self, bytes: &[u8]) {
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.hear(bytes) {
            self.counters.malformed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "An envelope could not be read.");
        }
    }

    fn reachable(&self, node: Incarnation) {
        self.tell(Word::Reachable(node));
    }

    fn unreachable(&self, node: Incarnation) {
        self.tell(Word::Unreachable(node));
    }

    fn away(&self) {
        self.is_away.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn back(&self) {
        self.is_away.store(false, Ordering::Release);
        self.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub use peers::Peer;
