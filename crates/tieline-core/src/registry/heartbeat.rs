//! [`Heartbeat`]: the registry over any broker. Every node says once a beat that it lives, and hears the others say so.
//!
//! Over links, which tell of each peer, a node is reached while there is a link; from its end a lease runs. A node whose
//! lease is over stays a member as long as a third one, which is reached, says in its beats that it reaches it: a link that
//! is cut between two does not make either dead. Over a medium a lease runs from the last envelope. It is the node's own
//! canary too: while the broker is away no lease runs, and when it is back everybody has a fresh one.
//!
//! Deliveries go by its [`neighbours`](Heartbeat::neighbours), with how each is reached; its [`View`] as a registry is the same
//! nodes, as far as they have said who they are.
//!
//! Without I/O and without a clock: whoever drives it (the cluster's task) tells it what was heard and what time it is, and
//! says what is [`Due`]. Tested below with times of its own making.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_proto::{Incarnation, NodeId, NodeName};
use tokio::sync::watch;

use super::{Done, Member, Neighbour, Neighbours, Registration, Registry, SharedView, Standing, View};
use crate::broker::To;

/// A sign of life, as its origin said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The origin's stable name.
    pub name: NodeName,
    /// What it says of itself.
    pub registration: Registration,
    /// The nodes that it reaches.
    pub reaches: Vec<Incarnation>,
    /// Whether it asks for a sign in return.
    pub wants_answer: bool,
}

/// Whom a sign of life was said to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearers {
    /// All other nodes.
    All,
    /// This node alone.
    ThisNode,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A sign of life, and whether everybody is asked for one in return.
    Beat(To, bool),
    /// That this node stops.
    Goodbye,
}

/// What a sign of life came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// A member.
    Member,
    /// Nobody who is believed to live: what it says does not count.
    Nobody,
    /// Another node that lives and has the same name as a younger one, by which it is taken for dead.
    Outnamed,
}

/// What is known of another node.
struct Known {
    member: Neighbour,
    /// When anything of it was last heard.
    heard: Instant,
    /// When its last sign of life was heard.
    signed: Option<Instant>,
    /// Whom it reaches, as it said then.
    reaches: Vec<Incarnation>,
}

struct State {
    registration: Registration,
    known: HashMap<Incarnation, Known>,
    /// Nodes that count as dead though something of them may still come: they said goodbye, or a younger node has their
    /// name. Over links until the link ends, over a medium for a lease.
    departed: HashMap<Incarnation, Departed>,
    due: Vec<Due>,
    next_beat: Instant,
    is_registered: bool,
    is_away: bool,
    /// Another node with this one's name.
    namesake: Option<Namesake>,
    /// Whether what everybody sees is old.
    is_changed: bool,
}

/// Another node with this one's name.
struct Namesake {
    member: Member,
    /// When a sign of life of it was first heard.
    first: Instant,
    /// And when last.
    heard: Instant,
    /// Whether it has said anything to this node.
    answers: bool,
}

#[derive(Clone, Copy)]
struct Departed {
    since: Instant,
    said_goodbye: bool,
}

/// The registry over a broker.
pub struct Heartbeat {
    me: NodeId,
    beat: Duration,
    lease: Duration,
    /// Whether the broker tells of each peer.
    over_links: bool,
    state: Mutex<State>,
    neighbours: watch::Sender<Neighbours>,
    view: watch::Sender<SharedView>,
}

impl Heartbeat {
    /// The registry of `me`. `over_links` says whether the broker reports peers.
    pub fn new(me: NodeId, beat: Duration, lease: Duration, over_links: bool, now: Instant) -> Self {
        let state = State {
            registration: Registration::default(),
            known: HashMap::new(),
            departed: HashMap::new(),
            due: Vec::new(),
            next_beat: now,
            is_registered: false,
            is_away: false,
            namesake: None,
            is_changed: false,
        };
        let (neighbours, view) = (watch::Sender::default(), watch::Sender::default());
        Heartbeat { me, beat, lease, over_links, state: Mutex::new(state), neighbours, view }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what has changed.
    fn show(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.is_changed) {
            let neighbours = state.known.values().map(|known| known.member.clone()).collect();
            self.neighbours.send_replace(Arc::new(neighbours));
            let view = state.view(&self.me, self.beat.mul_f64(0.8));
            self.view.send_if_modified(|shown| {
                let is_news = **shown != view;
                if is_news {
                    *shown = Arc::new(view);
                }
                is_news
            });
        }
    }

    /// The other nodes whose lease runs, with how they are reached, as of now and at each change.
    pub fn neighbours(&self) -> watch::Receiver<Neighbours> {
        self.neighbours.subscribe()
    }

    /// What this node says of itself in a beat.
    pub fn sign(&self, wants_answer: bool) -> Sign {
        let state = self.lock();
        let reached = |known: &&Known| self.over_links && known.member.standing == Standing::Reached;
        Sign {
            name: self.me.name.clone(),
            registration: state.registration.clone(),
            reaches: state.known.values().filter(reached).map(|known| known.member.id.incarnation).collect(),
            wants_answer,
        }
    }

    /// What is to be said now, in order. Asked once, it is taken as said.
    pub fn due(&self) -> Vec<Due> {
        std::mem::take(&mut self.lock().due)
    }

    /// Whether another node with this one's name was heard within a lease.
    pub fn has_namesake(&self, now: Instant) -> bool {
        self.lock().has_namesake(now, self.lease)
    }

    /// Over links: there is a way to a node.
    pub fn reachable(&self, node: Incarnation, now: Instant) {
        let mut state = self.lock();
        state.meet(node, now);
        self.show(state);
    }

    /// Over links: the way to it is gone. One that never said who it is is forgotten at once: nothing is known that it
    /// could hold, and started again it would not be recognized as the same node.
    pub fn unreachable(&self, node: Incarnation, now: Instant) {
        let mut state = self.lock();
        state.departed.remove(&node);
        state.is_changed |= state.known.contains_key(&node);
        match state.known.get_mut(&node) {
            Some(known) if known.signed.is_some() => known.member.standing = Standing::Lost(now),
            _ => drop(state.known.remove(&node)),
        }
        self.show(state);
    }

    /// A sign of life arrived, which was said to so many.
    pub fn signed(&self, node: Incarnation, sign: Sign, hearers: Hearers, now: Instant) -> Met {
        let mut state = self.lock();
        if sign.name == self.me.name {
            let id = NodeId { name: sign.name.clone(), incarnation: node };
            let member = Member { id, registration: sign.registration.clone(), is_enabled: true };
            let known = state.namesake.take().filter(|known| known.member.id == member.id);
            if known.is_none() {
                state.due.push(Due::Beat(To::One(node), true));
            }
            // What it said before its end may come late, also more than once. Who speaks to this node alone knows of it, and so has lived
            // since this one started.
            let (first, answers) = known.map_or((now, false), |known| (known.first, known.answers));
            let answers = answers || hearers == Hearers::ThisNode;
            state.namesake = Some(Namesake { member, first, heard: now, answers });
            state.is_changed = true;
        }
        let is_younger = |known: &Known| {
            known.member.id.name == sign.name && known.member.id.incarnation > node && known.signed.is_some()
        };
        if state.known.values().any(is_younger) {
            // What its end left on the way comes soon after; later, or over a new link, it can only be alive.
            let lives = match state.departed.get(&node) {
                Some(departed) => {
                    !departed.said_goodbye && now.duration_since(departed.since) > self.beat / 2
                }
                None => self.over_links && state.known.contains_key(&node),
            };
            state.depart(node, false, now);
            self.show(state);
            return if lives { Met::Outnamed } else { Met::Nobody };
        }
        if !state.known.contains_key(&node) {
            let departed = state.departed.get(&node).copied();
            let may_return = departed.is_none_or(|departed| !departed.said_goodbye);
            // Over links only one that is linked can be met by a sign: it was outnamed, and its namesake is gone.
            if state.is_away || !may_return || self.over_links && departed.is_none() {
                return Met::Nobody;
            }
            state.departed.remove(&node);
            state.meet(node, now);
        } else if sign.wants_answer {
            state.due.push(Due::Beat(To::One(node), false));
        }
        let formers: Vec<Incarnation> = state
            .known
            .iter()
            .filter(|(id, known)| known.member.id.name == sign.name && **id < node)
            .map(|(id, _)| *id)
            .collect();
        formers.into_iter().for_each(|former| state.depart(former, false, now));
        if let Some(known) = state.known.get_mut(&node) {
            let member = &mut known.member;
            let is_news = member.id.name != sign.name || member.registration != sign.registration;
            member.id.name = sign.name;
            member.registration = sign.registration;
            (known.heard, known.signed, known.reaches) = (now, Some(now), sign.reaches);
            state.is_changed |= is_news;
        }
        self.show(state);
        Met::Member
    }

    /// Anything of a node arrived.
    pub fn heard(&self, node: Incarnation, now: Instant) {
        if let Some(known) = self.lock().known.get_mut(&node) {
            known.heard = now;
        }
    }

    /// A node said that it stops.
    pub fn goodbye(&self, node: Incarnation, now: Instant) {
        let mut state = self.lock();
        state.depart(node, true, now);
        if state.namesake.as_ref().is_some_and(|known| known.member.id.incarnation == node) {
            state.namesake = None;
            state.is_changed = true;
        }
        self.show(state);
    }

    /// The broker carries nothing from now on. Where it keeps what it takes, nobody is lost by that, and nobody's lease runs.
    pub fn away(&self, is_kept: bool, now: Instant) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.is_away, true) {
            state.is_changed = true;
            if !self.over_links && !is_kept {
                state.known.values_mut().for_each(|known| known.member.standing = Standing::Lost(now));
            }
        }
        self.show(state);
    }

    /// It carries again.
    pub fn back(&self, now: Instant) {
        let mut state = self.lock();
        let was_away = std::mem::replace(&mut state.is_away, false);
        state.is_changed |= was_away;
        if was_away && !self.over_links {
            for known in state.known.values_mut() {
                known.member.standing = Standing::Reached;
                known.heard = now;
            }
            state.next_beat = now + self.beat;
            if state.is_registered {
                state.due.push(Due::Beat(To::All, true));
            }
        }
        self.show(state);
    }

    /// Time has passed: beats become due, leases end.
    pub fn tick(&self, now: Instant) {
        let mut state = self.lock();
        if state.is_registered && now >= state.next_beat {
            state.next_beat = now + self.beat;
            state.due.push(Due::Beat(To::All, false));
        }
        if !self.over_links {
            state.departed.retain(|_, departed| now.duration_since(departed.since) < self.lease);
        }
        if state.namesake.is_some() && !state.has_namesake(now, self.lease) {
            state.namesake = None;
            state.is_changed = true;
        }
        if !state.is_away {
            self.end_leases(&mut state, now);
        }
        self.show(state);
    }

    fn end_leases(&self, state: &mut State, now: Instant) {
        let mut ended = Vec::new();
        let mut standings = Vec::new();
        for (id, known) in &state.known {
            match known.member.standing {
                Standing::Reached if self.over_links => {}
                Standing::Reached => {
                    if now.duration_since(known.heard) >= self.lease {
                        ended.push(*id);
                    }
                }
                Standing::Lost(since) | Standing::Vouched(since) => {
                    let is_vouched = self.is_vouched(state, *id, since, now);
                    let standing = if is_vouched { Standing::Vouched(since) } else { Standing::Lost(since) };
                    if !is_vouched && now.duration_since(since) >= self.lease {
                        ended.push(*id);
                    } else if standing != known.member.standing {
                        standings.push((*id, standing));
                    }
                }
            }
        }
        for (id, standing) in standings {
            if let Some(known) = state.known.get_mut(&id) {
                known.member.standing = standing;
                state.is_changed = true;
            }
        }
        for id in ended {
            state.known.remove(&id);
            state.is_changed = true;
        }
    }

    /// Whether a third node that is reached has said within a lease, and since this one was lost, that it reaches it.
    fn is_vouched(&self, state: &State, node: Incarnation, since: Instant, now: Instant) -> bool {
        state.known.values().any(|third| {
            let is_fresh = |signed: Instant| signed > since && now.duration_since(signed) < self.lease;
            third.member.standing == Standing::Reached
                && third.signed.is_some_and(is_fresh)
                && third.reaches.contains(&node)
        })
    }
}

impl State {
    fn has_namesake(&self, now: Instant, lease: Duration) -> bool {
        self.namesake.as_ref().is_some_and(|known| now.duration_since(known.heard) < lease)
    }

    /// The nodes that have said who they are, for whoever places connections. An older node of this one's name is shown when it
    /// answers. A younger one when it was heard for so long, `stays`: before that it may be about to give way.
    fn view(&self, me: &NodeId, stays: Duration) -> View {
        let others = self.known.values().filter(|known| known.signed.is_some());
        let others = others.map(|known| &known.member).filter(|member| member.id.name != me.name);
        let member = |known: &Neighbour| Member {
            id: known.id.clone(),
            registration: known.registration.clone(),
            is_enabled: true,
        };
        let mut members: Vec<Member> = others.map(member).collect();
        members.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let is_certain = |known: &&Namesake| {
            let is_older = known.member.id.incarnation < me.incarnation;
            if is_older { known.answers } else { known.heard.duration_since(known.first) >= stays }
        };
        let namesake = self.namesake.as_ref().filter(is_certain).map(|known| known.member.clone());
        View { members, is_degraded: self.is_away, namesake, strange: 0 }
    }

    fn meet(&mut self, node: Incarnation, now: Instant) {
        let known = self.known.entry(node).or_insert_with(|| Known {
            member: Neighbour {
                // Its name comes with its first beat.
                id: NodeId { name: unnamed(node), incarnation: node },
                registration: Registration::default(),
                standing: Standing::Reached,
            },
            heard: now,
            signed: None,
            reaches: Vec::new(),
        });
        known.member.standing = Standing::Reached;
        known.heard = now;
        self.is_changed = true;
        if self.is_registered {
            self.due.push(Due::Beat(To::One(node), false));
        }
    }

    fn depart(&mut self, node: Incarnation, said_goodbye: bool, now: Instant) {
        self.is_changed |= self.known.remove(&node).is_some();
        let departed = self.departed.entry(node).or_insert(Departed { since: now, said_goodbye });
        departed.said_goodbye |= said_goodbye;
    }
}

impl Registry for Heartbeat {
    fn register(&self, registration: Registration) {
        let mut state = self.lock();
        state.registration = registration;
        if !std::mem::replace(&mut state.is_registered, true) {
            // Over links each peer is told as it is met; over a medium everybody is asked who is there.
            state.next_beat += self.beat;
            state.due.push(Due::Beat(To::All, !self.over_links));
        }
    }

    /// Whoever drives it says the goodbye.
    fn deregister(&self) -> Done {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_registered, false) {
            state.due.push(Due::Goodbye);
        }
        Box::pin(std::future::ready(()))
    }

    fn view(&self) -> watch::Receiver<SharedView> {
        self.view.subscribe()
    }
}

/// A name for a node that has not said its own.
fn unnamed(node: Incarnation) -> NodeName {
    NodeName::new(&node.to_string()).expect("hexadecimal digits are a name")
}

#[cfg(test)]
mod tests;
