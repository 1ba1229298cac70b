//! [`Asked`]: the directory whose users are in a table on a server, so that a node has memory of its own users, and of those that
//! it sends to.
//!
//! An *engine*, a task of whoever has the table, [takes](Asked::take) what is to be asked of it and gives the
//! [answers](Asked::answered); nobody else waits for the server. What was looked up is remembered, at most [`CAPACITY`] users, and the
//! table knows that: whoever claims a user is told by the table who remembers where that user was, and is done only when those have
//! said that they have forgotten it. So what is remembered is right. Who is not known is looked up, and until the answer is there a
//! message for that user goes to all nodes, which sort out.
//!
//! A claim that is not [settled](Asked::is_settled) within [`PATIENCE`], or is made while the table is away, is stated to all nodes like
//! in a replicated directory, until it is. While the table is away this node remembers nothing, and sends to all. Nodes that the
//! table does not list as present (they have lost it, or it has forgotten them) may hold anybody, and may remember anything: what is
//! looked up is then not relied on, and they are told of each claim.
//!
//! Bounded: what is remembered and what is asked by [`CAPACITY`], what is not settled by this node's own users.
//! Without I/O. Tested in `directory/asked/tests.rs` with a table in memory, under seeds, and in the conformance suite with a server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tieline_proto::envelope::{Held, Rare};
use tieline_proto::{HubName, Incarnation, UserId};
use tokio::sync::{Notify, watch};

use super::claims::{Claim, Claims};
use super::replicated::number;
use super::{Beside, Claimed, Directory, Fellow, Holder, Holders, Until, Whereabouts, place};
use crate::cluster::Statements;
use cache::{Cache, Found, Look};
use desk::Desk;

mod cache;
mod desk;

/// Users that are remembered, about 200 bytes each. Past it messages for others go to all nodes until some are forgotten that were not
/// sent to for a while.
pub const CAPACITY: usize = 65_536;

/// How long a claim waits for the table and for those who remember its user, before it is stated to all.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// Users in one word to another node.
const WORDS: usize = 1_000;

/// What is asked of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// This node claims a user.
    Claim {
        /// The namespace.
        hub: HubName,
        /// Whom.
        user: UserId,
        /// The claim's number, as far as this node knows the others.
        number: u64,
        /// Whether the number stays as it is; otherwise the table raises it above the claims of all others.
        is_exact: bool,
    },
    /// It does no longer.
    Release {
        /// The namespace.
        hub: HubName,
        /// Whom.
        user: UserId,
    },
    /// Where is a user? This node will remember the answer.
    Look {
        /// The namespace.
        hub: HubName,
        /// Whom.
        user: UserId,
    },
    /// This node has forgotten where a user is.
    Forget {
        /// The namespace.
        hub: HubName,
        /// Whom.
        user: UserId,
    },
}

impl Request {
    /// Whom it is about.
    pub fn key(&self) -> (&HubName, &UserId) {
        match self {
            Request::Claim { hub, user, .. }
            | Request::Release { hub, user }
            | Request::Look { hub, user }
            | Request::Forget { hub, user } => (hub, user),
        }
    }
}

/// What the table answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The number that a claim has now.
    pub number: u64,
    /// The other nodes that the table lists as present. With each for a look the number of its claim, for a claim or a release
    /// 1 if it remembers where the user was; else 0.
    pub nodes: Vec<(Incarnation, u64)>,
}

/// What a directory has asked, for who counts it.
#[derive(Debug, Default)]
pub struct AskedCounters {
    /// Requests that were given to the engine.
    pub requests: AtomicU64,
    /// Users whose whereabouts were remembered when they were asked for.
    pub remembered: AtomicU64,
    /// Those that were not: the message went to all.
    pub unknown: AtomicU64,
    /// Claims that were stated to all nodes, because the table did not settle them in time.
    pub stated: AtomicU64,
}

/// The directory that asks.
pub struct Asked {
    me: Incarnation,
    /// What the engine is called between nodes.
    name: Box<str>,
    /// This node's claims, and those that others state to all.
    claims: Claims<UserId>,
    cache: Cache,
    /// Taken after the lock of a claim, never before it.
    desk: Mutex<Desk>,
    /// What the other nodes are told; none before this node is a member.
    statements: OnceLock<Arc<Statements>>,
    /// The other nodes that have the same directory.
    fellows: RwLock<Arc<[Incarnation]>>,
    /// Whether the table answers, and has all of this node's settled claims.
    is_up: AtomicBool,
    /// Wakes the engine.
    wanted: Notify,
    /// How many looks were answered, for who waits for one.
    found: watch::Sender<u64>,
    counters: AskedCounters,
}

impl Asked {
    /// A directory for a node, which asks once an engine serves it.
    pub fn new(me: Incarnation, name: &str) -> Self {
        Asked {
            me,
            name: name.into(),
            claims: Claims::new(me),
            cache: Cache::new(CAPACITY),
            desk: Mutex::default(),
            statements: OnceLock::new(),
            fellows: RwLock::new(Arc::from([])),
            is_up: AtomicBool::new(false),
            wanted: Notify::new(),
            found: watch::Sender::default(),
            counters: AskedCounters::default(),
        }
    }

    /// What was counted.
    pub fn counters(&self) -> &AskedCounters {
        &self.counters
    }

    /// Users whose whereabouts are remembered.
    pub fn remembered(&self) -> usize {
        self.cache.len()
    }

    /// Whether the table answers, and has all that it should of this node.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    // ---- the engine ----

    /// Waits until there is something to ask.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// What is to be asked next, so much at most. Each is to be answered, in any order, unless the table goes [away](Asked::away).
    pub fn take(&self, most: usize) -> Vec<Request> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(wish) = self.desk().next() else { break };
            taken.push(match wish {
                desk::Wish::Look(hub, user) => Request::Look { hub, user },
                desk::Wish::Forget(hub, user) => Request::Forget { hub, user },
                // Read after it was noted as asked: who changes it from now on has it asked again.
                desk::Wish::Settle(hub, user, is_exact) => self.as_it_is(hub, user, is_exact),
            });
        }
        self.counters.requests.fetch_add(taken.len() as u64, Ordering::Relaxed);
        taken
    }

    fn as_it_is(&self, hub: HubName, user: UserId, is_exact: bool) -> Request {
        let mut own = None;
        self.claims.revise(&hub, &user, |newest, _| {
            own = newest;
            None
        });
        match own {
            Some(number) => Request::Claim { hub, user, number, is_exact },
            None => Request::Release { hub, user },
        }
    }

    /// What this node claims, for a table that has none of it: an engine puts that there before it says that it has
    /// [entered](Asked::entered), and has nobody answered.
    pub fn own_claims(&self) -> Vec<Request> {
        let all = self.claims.all_own();
        let requests = all.into_iter().map(|(hub, user)| self.as_it_is(hub, user, true));
        requests.filter(|request| matches!(request, Request::Claim { .. })).collect()
    }

    /// The table has all of this node's claims, and lists it as present.
    pub fn entered(&self) {
        self.desk().enter();
        self.is_up.store(true, Ordering::Release);
        self.wanted.notify_one();
        self.wake();
    }

    /// The table does not answer any more: whatever was not answered was not asked.
    pub fn away(&self) {
        self.is_up.store(false, Ordering::Release);
        let mut desk = self.desk();
        self.cache.clear();
        desk.leave();
        drop(desk);
        self.found.send_modify(|found| *found += 1);
        self.wake();
    }

    /// The table has answered.
    pub fn answered(&self, request: &Request, answer: &Answer) {
        let (hub, user) = request.key();
        match request {
            Request::Look { .. } => self.found(hub, user, answer),
            Request::Forget { .. } => {}
            Request::Release { .. } => {
                let rememberers = answer.nodes.iter().filter(|(_, remembers)| *remembers != 0);
                let rememberers: Vec<Incarnation> = rememberers.map(|(node, _)| *node).collect();
                if self.desk().released(hub, user, &rememberers) {
                    self.settle(hub, user);
                }
                self.wake();
            }
            Request::Claim { number, .. } => {
                if answer.number != *number {
                    self.claims.renumber(hub, user, *number, answer.number);
                }
                let fellows = self.fellows();
                let is_quiet = |node: &Incarnation| answer.nodes.contains(&(*node, 0));
                let remembers = |(node, remembers): &(Incarnation, u64)| (*remembers != 0).then_some(*node);
                let mut to_tell: Vec<Incarnation> = answer.nodes.iter().filter_map(remembers).collect();
                to_tell.extend(fellows.iter().filter(|node| !is_quiet(node)));
                to_tell.sort_unstable();
                to_tell.dedup();
                if self.desk().claimed(hub, user, &to_tell, Instant::now()) {
                    self.settle(hub, user);
                }
                self.wake();
            }
        }
        if self.desk().has_wishes() {
            self.wanted.notify_one();
        }
    }

    /// Where a user is, as far as is remembered. Of one that is not, the table is asked.
    fn look(&self, hub: &HubName, user: &str) -> Look {
        let look = self.cache.look(hub, user);
        let (Look::Absent, Ok(user)) = (&look, UserId::new(user)) else { return look };
        let mut desk = self.desk();
        // The table may have gone away meanwhile, and another thread may have been faster.
        if self.is_up() && self.cache.begin(hub, &user) {
            desk.look(hub, &user);
            self.wanted.notify_one();
        }
        drop(desk);
        self.cache.look(hub, &user)
    }

    /// Whether it is not known where a user is, and soon will be.
    pub(crate) fn is_sought(&self, hub: &HubName, user: &str) -> bool {
        self.is_up()
            && !self.fellows().is_empty()
            && matches!(self.look(hub, user), Look::Unknown { is_soon: true })
    }

    fn found(&self, hub: &HubName, user: &UserId, answer: &Answer) {
        let mut holders = Holders::new();
        for (node, claim) in answer.nodes.iter().filter(|(_, claim)| *claim > 0) {
            place(&mut holders, *node, Some(*claim));
        }
        let is_listed = |node: &Incarnation| answer.nodes.iter().any(|(listed, _)| listed == node);
        let is_certain = self.fellows().iter().all(is_listed);
        match self.cache.found(hub, user, is_certain.then_some(holders)) {
            Found::Kept => {}
            Found::Void => self.desk().look(hub, user),
            Found::Uncertain => self.desk().look_later(hub, user),
        }
        self.found.send_modify(|found| *found += 1);
    }

    // ---- the cluster ----

    pub(crate) fn state_by(&self, statements: Arc<Statements>) {
        self.statements.set(statements).ok().expect("a node becomes a member once");
    }

    /// Wakes the cluster's task, which tells other nodes, and those who wait.
    fn wake(&self) {
        if let Some(statements) = self.statements.get() {
            statements.wake();
        }
    }

    /// Whether all who have to know of what was asked under a number do, given the version of this node's statements that they have
    /// read.
    pub fn is_settled(&self, number: u64, read: u64) -> bool {
        number == 0 || self.desk().is_settled(number, read)
    }

    /// The same for all up to a number.
    pub(crate) fn are_settled(&self, number: u64, read: u64) -> bool {
        self.desk().are_settled(number, read)
    }

    /// The last number that was given.
    pub(crate) fn last_number(&self) -> u64 {
        self.desk().last()
    }

    /// Tells how many looks were answered, to who waits for one.
    pub(crate) fn answers(&self) -> watch::Receiver<u64> {
        self.found.subscribe()
    }

    /// What is late is stated to all, what nobody has heard is asked again, and what was long not needed is forgotten.
    pub(crate) fn tick(&self, now: Instant) {
        let late = self.desk().late(now, self.is_up());
        for (hub, user) in late {
            self.state(&hub, &user);
        }
        let is_up = self.is_up();
        let mut desk = self.desk();
        desk.tick(now);
        if is_up {
            for (hub, user) in self.cache.sweep(now) {
                desk.forget(hub, user);
            }
            if desk.has_wishes() {
                self.wanted.notify_one();
            }
        }
    }

    /// States a claim that is not settled to all nodes.
    fn state(&self, hub: &HubName, user: &UserId) {
        let Some(statements) = self.statements.get() else { return };
        self.claims.revise(hub, user, |newest, _| {
            if let Some(number) = newest {
                let mut desk = self.desk();
                if desk.is_to_be_stated(hub, user) {
                    let version = statements.claim(hub, Held::User(user.clone()), number);
                    desk.stated(hub, user, version);
                    self.counters.stated.fetch_add(1, Ordering::Relaxed);
                }
            }
            None
        });
    }

    /// Everybody who has to know of a claim does.
    fn settle(&self, hub: &HubName, user: &UserId) {
        self.claims.revise(hub, user, |_, _| {
            if self.desk().settle(hub, user)
                && let Some(statements) = self.statements.get()
            {
                statements.restate(hub, Held::User(user.clone()), None);
            }
            None
        });
    }

    /// What other nodes are to be told, each alone, or all.
    pub(crate) fn words(&self) -> Vec<(Option<Incarnation>, Rare)> {
        let mut desk = self.desk();
        let mut words = Vec::new();
        if desk.take_everything() {
            words.push((None, Rare::Stale(Vec::new())));
        }
        for (node, stale) in desk.take_words() {
            words.extend(stale.chunks(WORDS).map(|part| (Some(node), Rare::Stale(part.to_vec()))));
        }
        words
    }

    /// Another node says that what is remembered of these users is old; of all, if it names none. Returns what is to be answered.
    pub(crate) fn hear_stale(&self, stale: &[(u64, HubName, UserId)]) -> Option<Rare> {
        let mut desk = self.desk();
        if stale.is_empty() {
            self.cache.forget_all().into_iter().for_each(|(hub, user)| desk.forget(hub, user));
        }
        for (_, hub, user) in stale {
            if self.cache.forget(hub, user) {
                desk.forget(hub.clone(), user.clone());
            }
        }
        if desk.has_wishes() {
            self.wanted.notify_one();
        }
        drop(desk);
        let numbers: Vec<u64> =
            stale.iter().map(|(number, ..)| *number).filter(|number| *number > 0).collect();
        (!numbers.is_empty()).then_some(Rare::Forgotten(numbers))
    }

    /// Another node has forgotten what it was told is old.
    pub(crate) fn hear_forgotten(&self, node: Incarnation, numbers: &[u64]) {
        let heard = self.desk().heard(node, numbers);
        if !heard.is_empty() {
            heard.iter().for_each(|(hub, user)| self.settle(hub, user));
            self.wake();
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other nodes that this one knows to have the same directory.
    pub fn fellows(&self) -> Arc<[Incarnation]> {
        Arc::clone(&self.fellows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Directory for Asked {
    fn name(&self) -> Box<str> {
        self.name.clone()
    }

    fn claim(&self, hub: &HubName, user: &UserId) -> Claimed {
        let remembered = self.cache.peek(hub, user).and_then(|holders| holders.first().copied());
        let number = |newest: Option<&Holder>| {
            let newest = newest.copied().into_iter().chain(remembered).min_by_key(Holder::rank);
            number(self.me, newest.as_ref())
        };
        let state = |number, claim: Claim<'_>| {
            let mut desk = self.desk();
            let settled = desk.claim(hub, user, claim.is_first, Instant::now());
            let Some(statements) = self.statements.get().filter(|_| settled > 0) else {
                return Until::default();
            };
            if desk.is_stated(hub, user) || !self.is_up() {
                let read = statements.claim(hub, Held::User(user.clone()), number);
                desk.stated(hub, user, read);
                return Until { read, settled: 0 };
            }
            Until { read: 0, settled }
        };
        let (number, until) = self.claims.claim(hub, user, number, state);
        self.wanted.notify_one();
        Claimed { number, until }
    }

    fn release(&self, hub: &HubName, user: &UserId, number: u64) {
        self.claims.release(hub, user, number, |newest, _| {
            let mut desk = self.desk();
            let is_stated = desk.is_stated(hub, user);
            // The end of an older connection changes nothing for others.
            if newest.is_none_or(|newest| newest < number) {
                desk.change(hub, user, Instant::now());
            }
            if is_stated && let Some(statements) = self.statements.get() {
                statements.restate(hub, Held::User(user.clone()), newest);
            }
        });
        self.wanted.notify_one();
    }

    fn find(&self, hub: &HubName, user: &str) -> Whereabouts {
        let mut holders = self.claims.holders(hub, user);
        let fellows = self.fellows();
        if fellows.is_empty() {
            return Whereabouts { holders, beside: Beside::Nobody };
        }
        if !self.is_up() {
            return Whereabouts { holders, beside: Beside::Anybody };
        }
        match self.look(hub, user) {
            Look::Known(found) => {
                self.counters.remembered.fetch_add(1, Ordering::Relaxed);
                for one in found {
                    // The table may believe longer in a node that is dead. What a node states itself is newer.
                    if fellows.contains(&one.node) && holders.iter().all(|holder| holder.node != one.node) {
                        place(&mut holders, one.node, Some(one.claim));
                    }
                }
                Whereabouts { holders, beside: Beside::Nobody }
            }
            Look::Unknown { .. } | Look::Absent => {
                self.counters.unknown.fetch_add(1, Ordering::Relaxed);
                Whereabouts { holders, beside: Beside::Anybody }
            }
        }
    }

    fn is_claimed(&self, hub: &HubName, user: &str) -> bool {
        self.claims.is_own(hub, user)
    }

    fn stated(&self, hub: &HubName, user: &UserId, node: Incarnation, claim: Option<u64>) {
        self.claims.stated(hub, user, node, claim);
    }

    fn forget(&self, node: Incarnation) {
        self.claims.forget(node);
        let heard = self.desk().forget_node(node);
        heard.iter().for_each(|(hub, user)| self.settle(hub, user));
    }

    fn meet(&self, fellows: &[Fellow], _: u32, show: &mut dyn FnMut(&str)) -> bool {
        // One that has not said yet what its directory is may have the same.
        let same = |fellow: &&Fellow| fellow.directory.as_ref().is_none_or(|name| *name == self.name);
        let fellows: Arc<[Incarnation]> = fellows.iter().filter(same).map(|fellow| fellow.node).collect();
        *self.fellows.write().unwrap_or_else(PoisonError::into_inner) = fellows;
        show(&self.name);
        false
    }
}

#[cfg(test)]
mod tests;
