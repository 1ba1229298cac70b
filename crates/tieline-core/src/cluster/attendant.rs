//! [`Attendant`]: the cluster's one task. It knows who is there, reads what the others state, tells them what this
//! node states, and lets those go on who waited for that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tieline_proto::envelope::{Beat, Change, Rare};
use tieline_proto::{HubName, Incarnation, NodeId, NodeName};
use tieline_switchboard::Address;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::peers::{Peer, Peers};
use super::roster::{Entry, Roster};
use super::sequence::Channel;
use super::{Cluster, lock};
use crate::broker::To;
use crate::command::Then;
use crate::node::Node;

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

/// Least time between two gap notices for one origin.
const GAP_NOTICE: Duration = Duration::from_secs(1);

/// What the task hears.
pub(super) enum Word {
    Reachable(Incarnation),
    Unreachable(Incarnation),
    Beat(Incarnation, Beat),
    Changes(Incarnation, u64, Vec<Change>),
    Read(Incarnation, u64),
    RosterWanted(Incarnation),
    Roster(Incarnation, u64, u32, Vec<Entry>),
    Ask(Incarnation, u64, HubName, String),
    Gap(Incarnation),
    Goodbye(Incarnation),
    Wait(u64, Address, Then),
}

/// What is known of another node.
struct Known {
    peer: Peer,
    /// On a medium: when anything of it was last known to have arrived, or the medium came back.
    heard: Instant,
    roster: Roster,
    /// The version of this node's roster that it has read.
    read: u64,
    /// Parts of its whole roster that have arrived, all of one version.
    parts: (u64, Vec<Entry>),
    /// When it was last asked for its whole roster.
    wanted: Option<Instant>,
    gap_notice: Option<Instant>,
}

/// A connection that waits for the others to have read a version.
struct Wait {
    version: u64,
    since: Instant,
    address: Address,
    then: Then,
}

/// The task's own memory.
pub(super) struct Attendant {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    client_url: String,
    /// Whether the broker tells who is reached; otherwise beats do.
    reports_peers: bool,
    /// Whether the broker was away when that was last looked at.
    is_away: bool,
    known: HashMap<Incarnation, Known>,
    /// On a medium: nodes that have said goodbye, so that a beat which comes late does not bring them back.
    departed: HashMap<Incarnation, Instant>,
    /// Connections that wait, the longest first.
    waits: Vec<Wait>,
    /// Nodes whose roster was read further than they were told.
    to_confirm: HashSet<Incarnation>,
    /// Whether what everybody sees of the peers is old.
    peers_changed: bool,
    last_beat: Option<Instant>,
    last_nudge: Instant,
    told_tails: HashMap<Incarnation, u64>,
    /// Asks of other nodes that are being answered.
    answering: JoinSet<()>,
}

impl Attendant {
    pub(super) fn new(cluster: Arc<Cluster>, node: Arc<Node>, client_url: String) -> Self {
        Attendant {
            reports_peers: cluster.broker().reports_peers(),
            cluster,
            node,
            client_url,
            is_away: false,
            known: HashMap::new(),
            departed: HashMap::new(),
            waits: Vec::new(),
            to_confirm: HashSet::new(),
            peers_changed: false,
            last_beat: None,
            last_nudge: Instant::now(),
            told_tails: HashMap::new(),
            answering: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self, mut heard: mpsc::Receiver<Word>, stop: Arc<Notify>) {
        let cluster = Arc::clone(&self.cluster);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                () = cluster.changed.notified() => {}
                _ = ticks.tick() => self.tick(),
                Some(_) = self.answering.join_next() => {}
            }
            self.look_at_broker();
            self.tell_changes();
            self.confirm();
            self.show_peers();
            self.let_go_on();
        }
        let _ = cluster.say(To::All, &Rare::Goodbye.into());
        cluster.broker().close();
    }

    fn take(&mut self, word: Word) {
        match word {
            Word::Reachable(node) => self.reachable(node),
            Word::Unreachable(node) => {
                if let Some(known) = self.known.get_mut(&node) {
                    known.peer.lost = Some(Instant::now());
                    self.peers_changed = true;
                }
            }
            Word::Beat(node, beat) => self.beat(node, beat),
            Word::Changes(node, version, changes) => self.changes(node, version, &changes),
            Word::Read(node, version) => {
                if let Some(known) = self.known.get_mut(&node) {
                    known.read = known.read.max(version);
                }
            }
            Word::RosterWanted(node) => self.tell_roster(node),
            Word::Roster(node, version, left, part) => self.roster_part(node, version, left, part),
            Word::Ask(node, number, hub, ask) => {
                // Beyond the limit an ask is not answered, and its node tells its caller to try again.
                if self.answering.len() < ASKS {
                    let cluster = Arc::clone(&self.cluster);
                    self.answering.spawn(async move { cluster.answer_ask(node, number, hub, ask).await });
                }
            }
            Word::Gap(node) => self.gap(node),
            Word::Goodbye(node) => {
                self.forget(node);
                if !self.reports_peers {
                    self.departed.insert(node, Instant::now());
                }
            }
            Word::Wait(version, address, then) => {
                self.waits.push(Wait { version, since: Instant::now(), address, then });
            }
        }
    }

    fn reachable(&mut self, node: Incarnation) {
        let known = self.known.entry(node).or_insert_with(|| Known {
            peer: Peer {
                // Its name comes with its first beat.
                id: NodeId { name: unnamed(node), incarnation: node },
                client_url: String::new(),
                connections: 0,
                lost: None,
                complete: false,
            },
            heard: Instant::now(),
            roster: Roster::default(),
            read: 0,
            parts: (0, Vec::new()),
            wanted: None,
            gap_notice: None,
        });
        known.peer.lost = None;
        self.peers_changed = true;
        self.answer_with_beat(node);
    }

    /// Whether the broker went or came since the last turn. While it is away nobody is reached and no lease runs;
    /// when it is back everybody has a fresh one, and what was missed is asked for at once.
    fn look_at_broker(&mut self) {
        let is_away = !self.cluster.is_broker_up();
        if std::mem::replace(&mut self.is_away, is_away) == is_away {
            return;
        }
        let now = Instant::now();
        if is_away {
            tracing::warn!("The broker carries nothing; this node serves its own clients meanwhile.");
        } else {
            tracing::info!("The broker carries again.");
        }
        self.peers_changed = true;
        if self.reports_peers {
            return;
        }
        for known in self.known.values_mut() {
            known.peer.lost = is_away.then_some(now);
            known.heard = now;
            known.gap_notice = Some(now);
        }
        if !is_away {
            // Told once for all peers; the numbers that follow tell it again only where more is lost later.
            self.announce_gap();
            self.hail();
        }
    }

    /// A beat that asks everybody for theirs, and the tails.
    fn hail(&mut self) {
        self.last_beat = Some(Instant::now());
        self.say_beat(To::All, true);
        let reached: Vec<_> = self.reached().collect();
        reached.into_iter().for_each(|node| self.tell_tail(node));
    }

    fn answer_with_beat(&mut self, node: Incarnation) {
        self.say_beat(To::One(node), false);
        self.tell_tail(node);
    }

    /// On a medium a beat makes its origin known. One that is late, of a node that said goodbye or was started again
    /// since, does not.
    fn meet(&mut self, node: Incarnation, beat: &Beat) -> bool {
        let is_former = |known: (&Incarnation, &Known)| *known.0 > node && known.1.peer.id.name == beat.name;
        if self.reports_peers
            || self.is_away
            || self.known.contains_key(&node)
            || self.departed.contains_key(&node)
            || self.known.iter().any(is_former)
        {
            return false;
        }
        self.reachable(node);
        true
    }

    fn beat(&mut self, node: Incarnation, beat: Beat) {
        self.cluster.note_tail(node, Channel::All, beat.last_to_all);
        if !self.meet(node, &beat) && beat.wants_answer && self.known.contains_key(&node) {
            self.answer_with_beat(node);
        }
        let Some(known) = self.known.get_mut(&node) else { return };
        known.peer.id.name = beat.name;
        known.peer.client_url = beat.client_url;
        known.peer.connections = beat.connections;
        let same = known.roster.version() == beat.version && known.roster.digest() == beat.digest;
        // A roster that is ahead of the beat was read after the beat was written.
        let ahead = known.roster.version() > beat.version;
        if same {
            known.peer.complete = true;
            self.to_confirm.insert(node);
        } else if !ahead {
            self.want_roster(node);
        }
        self.peers_changed = true;
        self.forget_former_self(node);
    }

    /// A node that was started again under the same name is another node: its former self is dead.
    fn forget_former_self(&mut self, node: Incarnation) {
        let Some(name) = self.known.get(&node).map(|known| known.peer.id.name.clone()) else { return };
        let former =
            |(id, known): (&Incarnation, &Known)| (known.peer.id.name == name && *id < node).then_some(*id);
        let former: Vec<_> = self.known.iter().filter_map(former).collect();
        former.into_iter().for_each(|id| self.forget(id));
    }

    fn want_roster(&mut self, node: Incarnation) {
        let Some(known) = self.known.get_mut(&node) else { return };
        known.peer.complete = false;
        self.peers_changed = true;
        if known.wanted.is_none_or(|wanted| wanted.elapsed() >= NUDGE) {
            known.wanted = Some(Instant::now());
            let _ = self.cluster.say(To::One(node), &Rare::RosterWanted.into());
        }
    }

    fn changes(&mut self, node: Incarnation, version: u64, changes: &[Change]) {
        let Some(known) = self.known.get_mut(&node) else { return };
        if known.roster.version() >= version {
            return;
        }
        if !known.roster.follow(version, changes) {
            return self.want_roster(node);
        }
        for change in changes {
            if change.held {
                self.cluster.routes.add(&change.hub, &change.what, node);
            } else {
                self.cluster.routes.remove(&change.hub, &change.what, node);
            }
        }
        self.to_confirm.insert(node);
    }

    /// Parts come in order; of a roster that was begun anew only the new parts count. One with a part missing has
    /// another digest than the next beat, and is asked for again.
    fn roster_part(&mut self, node: Incarnation, version: u64, left: u32, part: Vec<Entry>) {
        let Some(known) = self.known.get_mut(&node) else { return };
        let (of, entries) = &mut known.parts;
        if *of != version {
            *of = version;
            entries.clear();
        }
        entries.extend(part);
        if left == 0 {
            let (_, entries) = std::mem::take(&mut known.parts);
            self.roster(node, version, entries);
        }
    }

    fn roster(&mut self, node: Incarnation, version: u64, entries: Vec<Entry>) {
        let Some(known) = self.known.get_mut(&node) else { return };
        known.wanted = None;
        let fresh = Roster::copy(version, entries);
        let before = std::mem::replace(&mut known.roster, fresh);
        known.peer.complete = true;
        // Added before the others are removed: what stays is never missing.
        for (hub, what) in known.roster.entries() {
            self.cluster.routes.add(hub, what, node);
        }
        for (hub, what) in before.entries() {
            if !known.roster.holds(hub, what) {
                self.cluster.routes.remove(hub, what, node);
            }
        }
        self.peers_changed = true;
        self.to_confirm.insert(node);
    }

    fn gap(&mut self, node: Incarnation) {
        let Some(known) = self.known.get_mut(&node) else { return };
        if known.gap_notice.is_none_or(|noticed| noticed.elapsed() >= GAP_NOTICE) {
            known.gap_notice = Some(Instant::now());
            self.announce_gap();
        }
    }

    fn forget(&mut self, node: Incarnation) {
        let Some(known) = self.known.remove(&node) else { return };
        for (hub, what) in known.roster.entries() {
            self.cluster.routes.remove(hub, what, node);
        }
        lock(&self.cluster.seen).forget(node);
        lock(&self.cluster.numbers).forget(node);
        self.told_tails.remove(&node);
        self.to_confirm.remove(&node);
        self.peers_changed = true;
        tracing::info!(node = %known.peer.id, "A node is gone.");
    }

    fn tick(&mut self) {
        let times = self.cluster.times;
        if self.last_beat.is_none_or(|beat| beat.elapsed() >= times.beat) {
            let is_first = self.last_beat.is_none();
            self.last_beat = Some(Instant::now());
            self.say_beat(To::All, is_first && !self.reports_peers);
            let reached: Vec<_> = self.reached().collect();
            reached.into_iter().for_each(|node| self.tell_tail(node));
        }
        let expired = self.expired(times.lease);
        expired.into_iter().for_each(|node| self.forget(node));
        for settled in self.cluster.receipts.give_up(times.receipt) {
            self.node.settle(settled);
        }
        let waiting = self.waits.first().is_some_and(|wait| wait.since.elapsed() >= NUDGE);
        if waiting && self.last_nudge.elapsed() >= NUDGE {
            self.last_nudge = Instant::now();
            self.say_beat(To::All, false);
        }
    }

    /// Nodes whose lease is over. On a medium it runs from the last envelope, and not while the medium is away.
    fn expired(&mut self, lease: Duration) -> Vec<Incarnation> {
        if self.reports_peers {
            let is_over = |known: &Known| known.peer.lost.is_some_and(|lost| lost.elapsed() >= lease);
            return self.known.iter().filter(|(_, known)| is_over(known)).map(|(id, _)| *id).collect();
        }
        self.departed.retain(|_, since| since.elapsed() < lease);
        if self.is_away {
            return Vec::new();
        }
        let mut seen = lock(&self.cluster.seen);
        let mut expired = Vec::new();
        for (id, known) in &mut self.known {
            if seen.take_heard(*id) {
                known.heard = Instant::now();
            } else if known.heard.elapsed() >= lease {
                expired.push(*id);
            }
        }
        expired
    }

    fn reached(&self) -> impl Iterator<Item = Incarnation> {
        self.known.iter().filter(|(_, known)| known.peer.is_reached()).map(|(id, _)| *id)
    }

    // ---- telling ----

    fn say_beat(&self, to: To, wants_answer: bool) {
        let (version, digest) = loop {
            // A beat must not be ahead of what was told: its readers would ask for what is on its way.
            self.tell_changes();
            let own = lock(&self.cluster.own);
            if own.untold.is_empty() {
                break (own.roster.version(), own.roster.digest());
            }
        };
        let node = &self.node;
        let beat = Beat {
            name: node.id().name.clone(),
            client_url: self.client_url.clone(),
            last_to_all: lock(&self.cluster.numbers).last(To::All),
            version,
            digest,
            connections: node.counters().connections,
            wants_answer,
        };
        let _ = self.cluster.say(to, &Rare::Beat(beat).into());
    }

    /// Tells a node the number of the last envelope to it alone, if that is news.
    fn tell_tail(&mut self, node: Incarnation) {
        let last = lock(&self.cluster.numbers).last(To::One(node));
        if last > 0 && self.told_tails.get(&node) != Some(&last) {
            let _ = self.cluster.say(To::One(node), &Rare::Tail(last).into());
            self.told_tails.insert(node, last + 1);
        }
    }

    fn tell_changes(&self) {
        let (version, changes) = {
            let mut own = lock(&self.cluster.own);
            (own.roster.version(), std::mem::take(&mut own.untold))
        };
        let mut told = version - changes.len() as u64;
        for part in changes.chunks(CHANGES_PER_ENVELOPE) {
            told += part.len() as u64;
            let _ = self.cluster.say(To::All, &Rare::Changes(told, part.to_vec()).into());
        }
    }

    fn tell_roster(&self, node: Incarnation) {
        let (version, entries) = loop {
            self.tell_changes();
            let own = lock(&self.cluster.own);
            if own.untold.is_empty() {
                break (own.roster.version(), own.roster.entries().cloned().collect::<Vec<Entry>>());
            }
        };
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
            if let Some(known) = self.known.get(&node) {
                let _ = self.cluster.say(To::One(node), &Rare::Read(known.roster.version()).into());
            }
        }
    }

    fn show_peers(&mut self) {
        if std::mem::take(&mut self.peers_changed) {
            let peers = self.known.values().map(|known| known.peer.clone()).collect();
            let mut shown = self.cluster.peers.write().unwrap_or_else(PoisonError::into_inner);
            *shown = Arc::new(Peers::new(peers));
        }
    }

    fn announce_gap(&self) {
        self.cluster.counters.gaps.fetch_add(1, Ordering::Relaxed);
        self.node.announce_gap();
    }

    /// Lets those go on whose statements were read by all that can be reached, or who waited long enough.
    fn let_go_on(&mut self) {
        let reached =
            self.known.values().filter(|known| known.peer.is_reached()).map(|known| known.read).min();
        let read = {
            let mut own = lock(&self.cluster.own);
            own.read = reached.unwrap_or(own.roster.version());
            own.read
        };
        self.cluster.read.send_if_modified(|shown| std::mem::replace(shown, read) != read);
        let limit = self.cluster.times.read;
        for wait in std::mem::take(&mut self.waits) {
            let is_read = wait.version <= read;
            if !is_read && wait.since.elapsed() < limit {
                self.waits.push(wait);
                continue;
            }
            let Wait { since, address, then, .. } = wait;
            match self.node.go_on(address, then) {
                Ok(()) => {
                    let counters = &self.cluster.counters;
                    counters.read_wait.record(since.elapsed());
                    counters.unread.fetch_add(u64::from(!is_read), Ordering::Relaxed);
                }
                // Its shard has no room now: tried again with the next turn.
                Err(then) => self.waits.push(Wait { version: wait.version, since, address, then }),
            }
        }
    }
}

/// A name for a node that has not said its own.
fn unnamed(node: Incarnation) -> NodeName {
    NodeName::new(&node.to_string()).expect("hexadecimal digits are a name")
}
