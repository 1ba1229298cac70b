//! [`Attendant`]: the cluster's one task. It knows who is there, reads what the others state, tells them what this
//! node states, and lets those go on who waited for that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tieline_proto::envelope::{Beat, Change, Held, Rare};
use tieline_proto::{HubName, Incarnation, NodeId};
use tieline_switchboard::Address;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::copies::{Copy, Tables, Taken};
use super::peers::{Peer, Peers};
use super::roster::{Roster, Stated};
use super::{Cluster, lock};
use crate::broker::To;
use crate::command::{Command, Then};
use crate::directory::{Fellow, Until};
use crate::node::Node;
use crate::registry::{
    Due, Hearers, Heartbeat, MAX_WEIGHT, Met, Neighbour, Neighbours, NodeState, Registration, Registry, Sign,
    Standing,
};

/// How often times are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Words that are taken in a row before the rest of the work has its turn.
const WORDS_PER_TURN: usize = 1024;

/// Changes and entries in one envelope: some hundred bytes each, far below what brokers carry.
const CHANGES_PER_ENVELOPE: usize = 5_000;

/// A statement that was not read for so long is brought to mind by a beat.
const NUDGE: Duration = Duration::from_millis(200);

/// Asks of other nodes that are answered at once.
const ASKS: usize = 1024;

/// Least time between two gap notices. What is found to be missing sooner is told then.
const GAP_NOTICE: Duration = Duration::from_secs(1);

/// Least time between two lines in the log about a name that two nodes have.
const OUTNAMED_NOTICE: Duration = Duration::from_secs(60);

/// What the task hears.
pub(super) enum Word {
    Reachable(Incarnation),
    Unreachable(Incarnation),
    Beat(Incarnation, Hearers, Beat),
    Changes(Incarnation, u64, Vec<Change>),
    Read(Incarnation, u64),
    RosterWanted(Incarnation),
    Roster(Incarnation, u64, u32, Vec<Stated>),
    Ask(Incarnation, u64, HubName, String),
    Wish(Incarnation, u64, String),
    Goodbye(Incarnation),
    Wait(Until, Address, Then),
}

/// A connection that waits for the others to know of it.
struct Wait {
    until: Until,
    since: Instant,
    address: Address,
    then: Then,
}

/// The task's own memory.
pub(super) struct Attendant {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    /// Whether the broker tells who is reached; otherwise beats do.
    reports_peers: bool,
    /// Whether the broker was away when that was last looked at.
    is_away: bool,
    /// Who is there as far as deliveries go, and what feeds it: the cluster follows what it says by `members` alone.
    heartbeat: Arc<Heartbeat>,
    members: watch::Receiver<Neighbours>,
    /// What the members state.
    copies: HashMap<Incarnation, Copy>,
    /// Connections that wait, the longest first.
    waits: Vec<Wait>,
    /// The version that each of these nodes is still to read, where somebody went on without them: what they send until then, by what
    /// they knew before, may not come here, and no number tells of it.
    late: HashMap<Incarnation, u64>,
    /// Nodes whose roster was read further than they were told.
    to_confirm: HashSet<Incarnation>,
    /// Whether what everybody sees of the peers is old.
    peers_changed: bool,
    /// Whether a member told of its store, or is gone.
    stores_changed: bool,
    /// When clients were last told that messages may be missing.
    gap_told: Option<Instant>,
    /// Whether more is missing since.
    is_gap_owed: bool,
    last_nudge: Instant,
    told_tails: HashMap<Incarnation, u64>,
    /// Asks of other nodes that are being answered.
    answering: JoinSet<()>,
    /// The node of a name that another has too, and when that was last logged.
    outnamed: Option<(Incarnation, Instant)>,
}

impl Attendant {
    pub(super) fn new(cluster: Arc<Cluster>, node: Arc<Node>, heartbeat: Arc<Heartbeat>) -> Self {
        Attendant {
            reports_peers: cluster.broker().reports_peers(),
            cluster,
            node,
            is_away: false,
            members: heartbeat.neighbours(),
            heartbeat,
            copies: HashMap::new(),
            waits: Vec::new(),
            late: HashMap::new(),
            to_confirm: HashSet::new(),
            peers_changed: false,
            stores_changed: false,
            gap_told: None,
            is_gap_owed: false,
            last_nudge: Instant::now(),
            told_tails: HashMap::new(),
            answering: JoinSet::new(),
            outnamed: None,
        }
    }

    pub(super) async fn run(mut self, mut heard: mpsc::Receiver<Word>, stop: Arc<Notify>) {
        let cluster = Arc::clone(&self.cluster);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look_at_broker();
        // Before anything is said: who is stopped before its first tick says goodbye too.
        self.heartbeat.register(self.node.registration());
        loop {
            tokio::select! {
                () = stop.notified() => break,
                Some(word) = heard.recv() => {
                    self.take(word);
                    for _ in 0..WORDS_PER_TURN {
                        let Ok(word) = heard.try_recv() else { break };
                        self.take(word);
                    }
                }
                () = cluster.statements.changed.notified() => {}
                _ = ticks.tick() => self.tick(),
                Some(_) = self.answering.join_next() => {}
            }
            self.look_at_broker();
            self.follow_members();
            self.node.end_displaced();
            self.compare_stores();
            self.say_due();
            self.tell_stale();
            self.tell_changes();
            // Whoever finds a node among the peers has it waited for.
            let read = self.look_who_read();
            self.show_peers();
            // Whoever is told that this node knows it is sent to.
            self.confirm();
            self.let_go_on(read);
            self.look_who_is_late();
            self.tell_gap();
        }
        drop(self.heartbeat.deregister());
        self.say_due();
        cluster.broker().close();
    }

    fn take(&mut self, word: Word) {
        let now = Instant::now();
        match word {
            Word::Reachable(node) => {
                self.heartbeat.reachable(node, now);
                self.look_at_logs();
            }
            Word::Unreachable(node) => self.heartbeat.unreachable(node, now),
            Word::Goodbye(node) => self.heartbeat.goodbye(node, now),
            Word::Beat(node, hearers, beat) => return self.beat(node, hearers, beat),
            Word::Changes(node, version, changes) => return self.changes(node, version, &changes),
            Word::Read(node, version) => {
                if let Some(copy) = self.copies.get_mut(&node) {
                    copy.read = copy.read.max(Some(version));
                }
                return;
            }
            Word::RosterWanted(node) => return self.tell_roster(node),
            Word::Roster(node, version, left, part) => {
                part.iter().for_each(|(_, what, _)| self.doubt(what));
                let tables = Tables {
                    interest: &self.cluster.interest,
                    users: self.cluster.directory.as_ref(),
                    logins: self.node.logins(),
                    presence: self.node.presence(),
                };
                let copy = self.copies.get_mut(&node);
                let taken = copy.map(|copy| copy.take_part(node, (version, left), part, tables));
                self.peers_changed = true;
                return self.taken(node, taken.unwrap_or(Taken::Old));
            }
            Word::Ask(node, number, hub, ask) => {
                // Beyond the limit an ask is not answered, and its node tells its caller to try again.
                if self.answering.len() < ASKS {
                    let cluster = Arc::clone(&self.cluster);
                    self.answering.spawn(async move { cluster.answer_ask(node, number, hub, ask).await });
                }
                return;
            }
            Word::Wish(node, number, wish) => {
                if self.answering.len() < ASKS {
                    let cluster = Arc::clone(&self.cluster);
                    self.answering.spawn(async move { cluster.answer_wish(node, number, wish).await });
                }
                return;
            }
            Word::Wait(until, address, then) => {
                return self.waits.push(Wait { until, since: Instant::now(), address, then });
            }
        }
        self.follow_members();
    }

    /// Who has come is listened to from now on, and who has gone is forgotten.
    fn follow_members(&mut self) {
        if !self.members.has_changed().unwrap_or(false) {
            return;
        }
        let members = Arc::clone(&self.members.borrow_and_update());
        let mut gone: HashSet<Incarnation> = self.copies.keys().copied().collect();
        for member in members.iter() {
            gone.remove(&member.id.incarnation);
            self.node.presence().meet(&member.id);
            let copy = self.copies.entry(member.id.incarnation).or_default();
            // It may forget this node meanwhile.
            if member.standing != Standing::Reached {
                copy.read = None;
            }
        }
        gone.into_iter().for_each(|node| self.forget(node));
        self.peers_changed = true;
    }

    fn forget(&mut self, node: Incarnation) {
        let Some(copy) = self.copies.remove(&node) else { return };
        copy.forget(node, &self.cluster.interest, self.node.presence());
        self.node.presence().part(node);
        self.cluster.directory.forget(node);
        self.node.logins().forget(node);
        self.cluster.end_waits_of(&self.node, node);
        lock(&self.cluster.seen).forget(node);
        lock(&self.cluster.numbers).forget(node);
        self.told_tails.remove(&node);
        self.to_confirm.remove(&node);
        self.stores_changed = true;
        self.look_at_logs();
        tracing::info!(%node, "A node is gone.");
    }

    /// Whether the broker went or came since the last turn.
    fn look_at_broker(&mut self) {
        let is_away = !self.cluster.is_broker_up();
        if std::mem::replace(&mut self.is_away, is_away) == is_away {
            return;
        }
        let now = Instant::now();
        if is_away {
            tracing::warn!("The broker carries nothing; this node serves its own clients meanwhile.");
            return self.heartbeat.away(self.cluster.keeps(), now);
        }
        tracing::info!("The broker carries again.");
        self.heartbeat.back(now);
        self.look_at_logs();
        // What a broker has kept is late, and not lost; numbers tell if it is.
        if !self.reports_peers && !self.cluster.keeps() {
            self.is_gap_owed = true;
        }
    }

    fn beat(&mut self, node: Incarnation, hearers: Hearers, beat: Beat) {
        let name = beat.name.clone();
        let sign = Sign {
            name: beat.name,
            registration: Registration {
                client_url: beat.client_url,
                peer_url: beat.peer_url,
                connections: beat.connections,
                weight: beat.weight.clamp(1, MAX_WEIGHT),
                capacity: beat.capacity,
                version: beat.program,
                placement: beat.placement,
                state: if beat.draining { NodeState::Draining } else { NodeState::Up },
            },
            reaches: beat.reaches,
            wants_answer: beat.wants_answer,
        };
        let met = self.heartbeat.signed(node, sign, hearers, Instant::now());
        self.follow_members();
        if met == Met::Outnamed {
            self.tell_outnamed(NodeId { name, incarnation: node });
        }
        if let Some(copy) = self.copies.get_mut(&node) {
            copy.store = Some(beat.store);
            copy.announced = Some((beat.version, beat.directory));
            self.stores_changed = true;
            let taken = copy.compare(beat.version, beat.digest);
            self.peers_changed = true;
            self.taken(node, taken);
        }
    }

    /// Two nodes that live have one name, which a person has to mend.
    fn tell_outnamed(&mut self, node: NodeId) {
        self.cluster.counters.outnamed.fetch_add(1, Ordering::Relaxed);
        let is_told =
            |(of, at): (Incarnation, Instant)| of == node.incarnation && at.elapsed() < OUTNAMED_NOTICE;
        if !self.outnamed.is_some_and(is_told) {
            self.outnamed = Some((node.incarnation, Instant::now()));
            tracing::error!(%node, "A younger node has the same name, so this one is taken for dead. Names must differ.");
        }
    }

    fn changes(&mut self, node: Incarnation, version: u64, changes: &[Change]) {
        let Some(copy) = self.copies.get_mut(&node) else { return };
        let tables = Tables {
            interest: &self.cluster.interest,
            users: self.cluster.directory.as_ref(),
            logins: self.node.logins(),
            presence: self.node.presence(),
        };
        let taken = copy.follow(node, version, changes, tables);
        changes.iter().filter(|change| change.held).for_each(|change| self.doubt(&change.what));
        self.taken(node, taken);
    }

    /// Another node holds something. Where that is a connection that this one thinks it holds, its record is looked at.
    fn doubt(&self, what: &Held) {
        let Held::Connection(id) = *what else { return };
        let node = &self.node;
        if let Some(address) = node.settlers().find(id).or_else(|| node.first_address(id)) {
            let doubt = Command::Run(Box::new(move |operator, shard| operator.doubt(shard, id)));
            // A shard without room looks when its record is renewed.
            let _ = node.post(address.shard, doubt);
        }
    }

    fn taken(&mut self, node: Incarnation, taken: Taken) {
        match taken {
            Taken::Old => {}
            Taken::Followed => {
                self.to_confirm.insert(node);
            }
            Taken::Lacking => {
                self.peers_changed = true;
                if self.copies.get_mut(&node).is_some_and(Copy::is_to_be_asked_for) {
                    let _ = self.cluster.say(To::One(node), &Rare::RosterWanted.into());
                }
            }
        }
    }

    /// What was stored and not heard of is found in the store.
    fn look_at_logs(&self) {
        if let Some(logs) = self.node.logs() {
            logs.look();
        }
    }

    /// Whether all members have this node's store.
    fn compare_stores(&mut self) {
        if std::mem::take(&mut self.stores_changed)
            && let Some(logs) = self.node.logs()
        {
            let own = logs.store().map(|store| store.id().to_string());
            let differs = |copy: &Copy| copy.store.as_ref().is_some_and(|store| *store != own);
            logs.set_divided(self.copies.values().any(differs));
        }
    }

    fn tick(&mut self) {
        let times = self.cluster.times;
        let now = Instant::now();
        self.heartbeat.register(self.node.registration());
        if !self.reports_peers {
            let mut seen = lock(&self.cluster.seen);
            for node in self.copies.keys().filter(|node| seen.take_heard(**node)) {
                self.heartbeat.heard(*node, now);
            }
        }
        self.heartbeat.tick(now);
        self.cluster.has_namesake.store(self.heartbeat.has_namesake(now), Ordering::Relaxed);
        self.cluster.end_waits(&self.node);
        if let Some(asked) = self.cluster.asked() {
            asked.tick(now);
        }
        self.cluster.look_after_travellers(&self.node, now);
        for settled in self.cluster.receipts.give_up(times.receipt) {
            self.node.settle(settled);
        }
        let waiting = self.waits.first().is_some_and(|wait| wait.since.elapsed() >= NUDGE);
        if waiting && self.last_nudge.elapsed() >= NUDGE {
            self.last_nudge = Instant::now();
            self.say_beat(To::All, false);
        }
    }

    fn reached(&self) -> Vec<Incarnation> {
        let members = self.members.borrow();
        let reached = members.iter().filter(|member| member.standing == Standing::Reached);
        reached.map(|member| member.id.incarnation).collect()
    }

    // ---- telling ----

    /// Says what the registry wants said, and with each beat the last numbers of the channels it does not go by.
    fn say_due(&mut self) {
        for due in self.heartbeat.due() {
            match due {
                Due::Beat(To::All, wants_answer) => {
                    self.say_beat(To::All, wants_answer);
                    self.reached().into_iter().for_each(|node| self.tell_tail(node));
                }
                Due::Beat(To::One(node), wants_answer) => {
                    self.say_beat(To::One(node), wants_answer);
                    self.tell_tail(node);
                }
                Due::Goodbye => {
                    let _ = self.cluster.say(To::All, &Rare::Goodbye.into());
                }
            }
        }
    }

    fn say_beat(&self, to: To, wants_answer: bool) {
        // A beat must not be ahead of what was told: its readers would ask for what is on its way.
        let (version, digest) = self.once_told(|roster| (roster.version(), roster.digest()));
        let sign = self.heartbeat.sign(wants_answer);
        let beat = Beat {
            name: sign.name,
            client_url: sign.registration.client_url,
            peer_url: sign.registration.peer_url,
            weight: sign.registration.weight,
            capacity: sign.registration.capacity,
            program: sign.registration.version,
            placement: sign.registration.placement,
            draining: sign.registration.state == NodeState::Draining,
            directory: self.cluster.directory.name(),
            last_to_all: lock(&self.cluster.numbers).last(To::All),
            version,
            digest,
            connections: sign.registration.connections,
            reaches: sign.reaches,
            wants_answer,
            store: self.node.logs().and_then(|logs| logs.store()).map(|store| store.id().to_string()),
        };
        let _ = self.cluster.say(to, &Rare::Beat(beat).into());
    }

    /// Looks at this node's roster when all of it was told.
    fn once_told<T>(&self, look: impl Fn(&Roster) -> T) -> T {
        loop {
            self.tell_changes();
            if let Some(seen) = self.cluster.statements.when_told(&look) {
                return seen;
            }
        }
    }

    /// Tells a node the number of the last envelope to it alone, if that is news.
    fn tell_tail(&mut self, node: Incarnation) {
        let last = lock(&self.cluster.numbers).last(To::One(node));
        if last > 0 && self.told_tails.get(&node) != Some(&last) {
            // One that was not taken is told again with the next beat.
            if self.cluster.say(To::One(node), &Rare::Tail(last).into()).is_ok() {
                self.told_tails.insert(node, last + 1);
            }
        }
    }

    fn tell_changes(&self) {
        let (version, changes) = self.cluster.statements.take_untold();
        let mut told = version - changes.len() as u64;
        for part in changes.chunks(CHANGES_PER_ENVELOPE) {
            told += part.len() as u64;
            let _ = self.cluster.say(To::All, &Rare::Changes(told, part.to_vec()).into());
        }
    }

    fn tell_roster(&self, node: Incarnation) {
        let (version, entries) =
            self.once_told(|roster| (roster.version(), roster.entries().collect::<Vec<_>>()));
        let mut left = entries.len().div_ceil(CHANGES_PER_ENVELOPE).max(1) as u32;
        let mut parts = entries.chunks(CHANGES_PER_ENVELOPE);
        while left > 0 {
            left -= 1;
            let part = parts.next().unwrap_or_default().to_vec();
            let _ = self.cluster.say(To::One(node), &Rare::Roster(version, left, part).into());
        }
    }

    fn confirm(&mut self) {
        for node in self.to_confirm.drain() {
            if let Some(copy) = self.copies.get(&node) {
                let _ = self.cluster.say(To::One(node), &Rare::Read(copy.version()).into());
            }
        }
    }

    fn show_peers(&mut self) {
        if !std::mem::take(&mut self.peers_changed) {
            return;
        }
        let members = self.members.borrow().clone();
        let directory = Arc::clone(&self.cluster.directory);
        let mut show = |own: &str| {
            let peer = |member: &Neighbour| {
                let copy = self.copies.get(&member.id.incarnation);
                let complete = copy.is_some_and(|copy| copy.is_complete);
                // One that has not said what its directory is has no users yet that others should know of, but for a ring, which is
                // another one as soon as it is there.
                let is_apart = match copy.and_then(Copy::directory) {
                    Some(name) => name != own,
                    None => directory.goes_by_members(),
                };
                let kind = |name: &str| name.split(' ').next().map(str::to_owned);
                let is_other = copy.and_then(Copy::directory).is_some_and(|name| kind(name) != kind(own));
                Peer::new(member, complete, [is_apart, is_other])
            };
            let peers = members.iter().map(peer).collect();
            let mut shown = self.cluster.peers.write().unwrap_or_else(PoisonError::into_inner);
            *shown = Arc::new(Peers::new(peers));
        };
        let fellows: Vec<Fellow> = members.iter().map(|member| self.fellow(member)).collect();
        if directory.meet(&fellows, self.node.registration().weight, &mut show) {
            // Who goes by another ring from now on says so at once.
            self.say_beat(To::All, false);
        }
    }

    /// A member, as the directory has to know it.
    fn fellow(&self, member: &Neighbour) -> Fellow {
        let node = member.id.incarnation;
        Fellow {
            name: member.id.name.as_str().into(),
            node,
            weight: member.registration.weight,
            directory: self.copies.get(&node).and_then(Copy::directory).map(Into::into),
        }
    }

    /// Tells other nodes that what they remember of users is old.
    fn tell_stale(&self) {
        let Some(asked) = self.cluster.asked() else { return };
        for (node, word) in asked.words() {
            // One that cannot be told is told later, or is not a member any more.
            let _ = self.cluster.say(node.map_or(To::All, To::One), &word.into());
        }
    }

    /// Tells clients that messages may be missing, if they are and it was not told a moment ago.
    fn tell_gap(&mut self) {
        if self.cluster.has_gap.swap(false, Ordering::AcqRel) {
            self.is_gap_owed = true;
            self.look_at_logs();
        }
        if self.is_gap_owed && self.gap_told.is_none_or(|told| told.elapsed() >= GAP_NOTICE) {
            self.is_gap_owed = false;
            self.gap_told = Some(Instant::now());
            self.cluster.counters.gaps.fetch_add(1, Ordering::Relaxed);
            self.node.announce_gap();
        }
    }

    /// Looks how far those that can be reached have read. Returns what [`Statements::were_read`] does.
    ///
    /// [`Statements::were_read`]: super::Statements::were_read
    fn look_who_read(&self) -> Option<u64> {
        let read = |node: &Incarnation| self.copies.get(node).and_then(|copy| copy.read);
        // Nobody reads anything while the broker is away.
        let reached = if self.is_away { Vec::new() } else { self.reached() };
        self.cluster.statements.were_read(reached.iter().map(read))
    }

    /// Lets those go on whose statements were read by all that can be reached, or who waited long enough.
    fn let_go_on(&mut self, read: Option<u64>) {
        let cluster = Arc::clone(&self.cluster);
        let asked = cluster.asked().map(Arc::as_ref);
        // Nobody is waited for in an outage. What a broker loses in it is told at its end; where it keeps all, nothing tells who was sent past.
        let is_kept = self.is_away && cluster.keeps();
        for wait in std::mem::take(&mut self.waits) {
            let is_read = wait.until.is_over(read, asked);
            if !is_read && wait.since.elapsed() < cluster.times.read {
                self.waits.push(wait);
                continue;
            }
            if !is_read || is_kept {
                self.note_late(wait.until.read);
            }
            let Wait { since, address, then, .. } = wait;
            match self.node.go_on(address, then, None) {
                Ok(()) => {
                    let counters = &cluster.counters;
                    counters.read_wait.record(since.elapsed());
                    counters.unread.fetch_add(u64::from(!is_read), Ordering::Relaxed);
                }
                // Its shard has no room now: tried again with the next turn.
                Err(refused) => {
                    let (then, _) = *refused;
                    self.waits.push(Wait { until: wait.until, since, address, then });
                }
            }
        }
    }

    /// Somebody went on without the nodes that have not read this version. Says whether there are any.
    fn note_late(&mut self, version: u64) -> bool {
        let mut is_any = false;
        for (node, _) in self.copies.iter().filter(|(_, copy)| copy.read.is_none_or(|read| read < version)) {
            let late = self.late.entry(*node).or_default();
            *late = version.max(*late);
            is_any = true;
        }
        is_any
    }

    /// Tells of a gap when a node has read what somebody did not wait for. One that is forgotten sends nothing more.
    fn look_who_is_late(&mut self) {
        if let Some(version) = self.cluster.statements.take_late()
            && !self.note_late(version)
        {
            // They have read it meanwhile.
            self.is_gap_owed = true;
        }
        if self.is_away {
            return;
        }
        let (copies, is_gap_owed) = (&self.copies, &mut self.is_gap_owed);
        self.late.retain(|node, version| {
            let read = copies.get(node).map(|copy| copy.read);
            let has_read = read.flatten().is_some_and(|read| *version <= read);
            *is_gap_owed |= has_read;
            read.is_some() && !has_read
        });
    }
}
