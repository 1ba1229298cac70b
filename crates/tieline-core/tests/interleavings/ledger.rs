//! [`Ledger`]: what the documents promise, kept as a model. Every request is entered when the server comes to it, every
//! frame when its client has it (`ledger/hearing.rs`), and at the end the books are balanced (`ledger/balance.rs`), and the
//! judge of `tieline-judge` is told what was said and heard (`ledger/transcript.rs`).
//!
//! Time is the number of things that happened. A message *reaches* a shard when it is published there: at once on its
//! sender's, on another when that takes its mailbox. On a lone node this is known exactly; of other nodes the
//! ledger knows only that it is not before the message was sent, and asks less.

mod balance;
mod hearing;
mod transcript;

use std::collections::HashSet;

use tieline_core::{Limits, Subprotocol};

use crate::wire::{Ask, GROUPS, Request, Target, Who};
use transcript::Transcript;

/// Later than everything.
pub(crate) const NEVER: u64 = u64::MAX;

/// Groups and users that a peer with few roles may use: `webpubsub.joinLeaveGroup.red` and so on.
const MAY_JOIN: usize = 0;
const MAY_SEND: [usize; 2] = [0, 1];
const MAY_SEND_TO_USER: usize = 0;

/// The roles of such a peer.
pub(crate) const FEW_ROLES: [&str; 4] = [
    "webpubsub.joinLeaveGroup.red",
    "webpubsub.sendToGroup.red",
    "webpubsub.sendToGroup.green",
    "tieline.sendToUser.alice",
];

/// A time in a group, or on the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// It may have begun.
    asked: u64,
    /// It has begun.
    sure: u64,
    /// It is over.
    out: u64,
}

/// What a client knows of its membership, by the order of what it heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    In,
    Out,
    /// It asked without wanting an ack, or lost one.
    Unknown,
}

/// What a request that was carried out was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The group, and which of the connection's times in it.
    Joined(usize, usize),
    Left(usize),
    Sent(usize),
    Taken,
}

/// An answer that a client has coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Done),
    Error(&'static str),
    Pong,
}

/// Who a connection is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    pub(crate) hub: usize,
    pub(crate) user: Option<usize>,
    pub(crate) dialect: Subprotocol,
    pub(crate) has_all_roles: bool,
    /// The group of its token.
    pub(crate) token_group: Option<usize>,
    /// Its shard among those of all nodes.
    pub(crate) place: usize,
}

/// One connection, from its first socket to its end.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) guest: Guest,
    /// The id that it was told, or is to be.
    pub(crate) id: String,
    /// It was refused at the door, with this code.
    pub(crate) refused: Option<u16>,
    presence: Span,
    groups: [Vec<Span>; GROUPS.len()],
    /// ackIds of requests that were carried out.
    done: HashSet<u64>,
    /// Thousandths of messages that were spent, and when that was.
    spent: (u64, u64),
    faults: u8,
    /// Highest number that it has acknowledged.
    acknowledged: u64,
    /// The code that the server closes it with.
    closes_with: Option<u16>,
    /// The code that the client closed it with.
    pub(crate) closed_itself: Option<u16>,
    /// Its socket failed, or will.
    pub(crate) lost_socket: bool,
    /// It has no socket and waits for its client, since this second of the clock.
    pub(crate) detached: Option<u64>,
    pub(crate) has_ended: bool,
    /// When it did.
    ended: u64,
    // What the client knows.
    pub(crate) token: Option<String>,
    /// The next frame is `connected`.
    expects_greeting: bool,
    standing: [Standing; GROUPS.len()],
    owed: Vec<(Option<u64>, Answer)>,
    /// Acks of joins that were lost with a socket, unless the join waited for other nodes.
    perhaps: Vec<(Option<u64>, Answer)>,
    /// The messages by their numbers, from 1.
    pub(crate) numbered: Vec<usize>,
    /// The number that comes next on this socket.
    next_number: u64,
    /// When the last message that it got reached its shard.
    last_reached: u64,
    has_heard_close: bool,
    /// Requests with an ackId that were not answered.
    pub(crate) unanswered: Vec<Request>,
    pub(crate) next_ack: u64,
}

impl Peer {
    pub(crate) fn is_alive(&self) -> bool {
        !self.has_ended && self.refused.is_none()
    }

    /// Whether nothing comes to its client any more: it has ended, or was cut before it was told how to come back.
    fn is_gone(&self) -> bool {
        self.has_ended || self.detached.is_some()
    }

    pub(crate) fn is_reliable(&self) -> bool {
        self.guest.dialect == Subprotocol::AzureReliable
    }

    /// The groups that it is in.
    pub(crate) fn groups_now(&self) -> impl Iterator<Item = usize> {
        (0..GROUPS.len()).filter(|group| self.in_group(*group))
    }

    fn in_group(&self, group: usize) -> bool {
        self.groups[group].last().is_some_and(|span| span.out == NEVER)
    }
}

/// A message, and what became of it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) sender: Who,
    pub(crate) target: Target,
    pub(crate) no_echo: bool,
    /// Only for connections of these users, when there are any.
    pub(crate) users: Vec<usize>,
    pub(crate) pad: usize,
    /// When the server took it.
    sent: Option<u64>,
    /// When it came to each shard.
    reached: Vec<Option<u64>>,
    got: Vec<Who>,
    /// What its ack said: delivered and unknown.
    told: Option<(Option<u64>, Option<u64>)>,
    /// Users named that had no connection when it was sent.
    absent: u64,
}

/// The model.
pub(crate) struct Ledger {
    pub(crate) peers: Vec<Peer>,
    pub(crate) messages: Vec<Message>,
    limits: Limits,
    short_of_lag: bool,
    /// One node alone: everything is known exactly.
    is_lone: bool,
    places: usize,
    now: u64,
    /// Messages on the way between two shards, and in mailboxes.
    outgoing: Vec<Vec<Vec<usize>>>,
    mailboxes: Vec<Vec<usize>>,
    /// What the judge is told.
    transcript: Transcript,
    /// Whether everything that happens is written down.
    is_told: bool,
    /// The server says goodbye to all.
    pub(crate) stops: bool,
}

impl Ledger {
    pub(crate) fn new(limits: Limits, short_of_lag: bool, is_lone: bool, places: usize) -> Self {
        Ledger {
            peers: Vec::new(),
            messages: Vec::new(),
            limits,
            short_of_lag,
            is_lone,
            places,
            now: 0,
            outgoing: vec![vec![Vec::new(); places]; places],
            mailboxes: vec![Vec::new(); places],
            transcript: Transcript::new(),
            is_told: std::env::var_os("TIELINE_TRACE").is_some(),
            stops: false,
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Writes down what happens, when that is wanted.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{}: {}", self.now, what());
        }
    }

    fn pass(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    // ---- connections ----

    /// The code that a client is refused with at the door, if it is.
    pub(crate) fn refusal(&self, guest: &Guest) -> Option<u16> {
        let limit = self.limits.connections_per_user;
        let same =
            |peer: &&Peer| peer.is_alive() && peer.guest.hub == guest.hub && peer.guest.user == guest.user;
        let connections = self.peers.iter().filter(same).count();
        (guest.user.is_some() && limit > 0 && connections >= limit).then_some(1013)
    }

    /// A client's handshake is done. Returns who it is from now on.
    pub(crate) fn arrived(&mut self, guest: Guest, id: String, refused: Option<u16>) -> Who {
        let now = self.pass();
        let sure = if self.is_lone { now } else { NEVER };
        let span = Span { asked: now, sure, out: NEVER };
        let mut groups: [Vec<Span>; GROUPS.len()] = Default::default();
        let plain = guest.dialect == Subprotocol::Plain;
        let mut standing = [if plain { Standing::Unknown } else { Standing::Out }; GROUPS.len()];
        if let Some(group) = guest.token_group {
            groups[group].push(span);
            standing[group] = if plain { Standing::Unknown } else { Standing::In };
        }
        self.peers.push(Peer {
            guest,
            id,
            refused,
            presence: span,
            groups,
            done: HashSet::new(),
            spent: (0, 0),
            faults: 0,
            acknowledged: 0,
            closes_with: None,
            closed_itself: None,
            lost_socket: false,
            detached: None,
            has_ended: refused.is_some(),
            ended: NEVER,
            token: None,
            expects_greeting: !plain && refused.is_none(),
            standing,
            owed: Vec::new(),
            perhaps: Vec::new(),
            numbered: Vec::new(),
            next_number: 1,
            last_reached: 0,
            has_heard_close: false,
            unanswered: Vec::new(),
            next_ack: 1,
        });
        self.transcript.arrived(self.peers.len() - 1, &guest, now);
        self.note(|| format!("{} arrives: {guest:?}, refused: {refused:?}", self.peers.len() - 1));
        self.peers.len() - 1
    }

    /// A connection lost its socket, and what it had coming of answers with it.
    pub(crate) fn cut(&mut self, who: Who) {
        self.note(|| format!("{who} is cut"));
        let peer = &mut self.peers[who];
        for (ack_id, answer) in std::mem::take(&mut peer.owed) {
            if let Answer::Done(Done::Joined(group, _) | Done::Left(group)) = answer {
                peer.standing[group] = Standing::Unknown;
            }
            if !self.is_lone && matches!(answer, Answer::Done(Done::Joined(..))) {
                peer.perhaps.push((ack_id, answer));
            }
        }
    }

    /// It has a new one.
    pub(crate) fn resumed(&mut self, who: Who) {
        self.note(|| format!("{who} is back"));
        self.cut(who);
        let peer = &mut self.peers[who];
        peer.lost_socket = false;
        peer.detached = None;
        peer.expects_greeting = true;
        peer.next_number = peer.acknowledged + 1;
    }

    /// A connection is not there any more.
    ///
    /// # Panics
    /// When there is no reason for that.
    pub(crate) fn ended(&mut self, who: Who, has_expired: bool) {
        let now = self.pass();
        self.note(|| format!("{who} has ended"));
        let peer = &mut self.peers[who];
        let for_a_reason = peer.closes_with.is_some()
            || peer.closed_itself.is_some()
            || (peer.lost_socket && !peer.is_reliable())
            || has_expired
            || self.short_of_lag
            || self.stops;
        assert!(for_a_reason, "connection {who} ended for no reason: {peer:?}");
        peer.has_ended = true;
        peer.ended = now;
        peer.detached = None;
        peer.presence.out = now;
        peer.groups.iter_mut().flatten().filter(|span| span.out == NEVER).for_each(|span| span.out = now);
    }

    // ---- requests ----

    /// The server comes to a request.
    pub(crate) fn process(&mut self, who: Who, request: &Request, now_ms: u64) {
        let now = self.pass();
        self.note(|| format!("{who} asks {request:?}"));
        let in_rate = self.take_from_bucket(who, now_ms);
        let peer = &mut self.peers[who];
        let plain = peer.guest.dialect == Subprotocol::Plain;
        let ack_id = request.ack_id;
        match request.ask {
            Ask::Nonsense => return self.fault(who, None, "InvalidRequest", 4400),
            Ask::Strange if plain => return self.fault(who, None, "InvalidRequest", 4400),
            Ask::Strange => return self.fault(who, None, "UnknownType", 4400),
            Ask::Bytes => return self.fault(who, None, "InvalidRequest", 1003),
            _ if !in_rate => return self.fault(who, ack_id, "RateLimited", 4429),
            _ => peer.faults = 0,
        }
        if ack_id.is_some_and(|id| peer.done.contains(&id)) {
            return self.owe(who, ack_id, Answer::Error("Duplicate"));
        }
        let done = match request.ask {
            Ask::Join(group) => self.join(who, group, now),
            Ask::Leave(group) => self.leave(who, group, now),
            Ask::Send(number) => self.send(who, number, now),
            Ask::Ping => {
                self.peers[who].owed.push((None, Answer::Pong));
                return;
            }
            Ask::Acknowledge(number) => {
                let peer = &mut self.peers[who];
                if number <= peer.numbered.len() as u64 {
                    peer.acknowledged = peer.acknowledged.max(number);
                }
                return;
            }
            _ => Ok(Done::Taken),
        };
        match done {
            Ok(done) => {
                let peer = &mut self.peers[who];
                if ack_id.is_none()
                    && let Done::Joined(group, _) | Done::Left(group) = done
                {
                    peer.standing[group] = Standing::Unknown;
                    self.transcript.asked_vaguely(who, &peer.guest, group);
                }
                if let Some(ack_id) = ack_id {
                    peer.done.insert(ack_id);
                    peer.owed.push((Some(ack_id), Answer::Done(done)));
                }
            }
            Err(error) => self.owe(who, ack_id, Answer::Error(error)),
        }
    }

    fn owe(&mut self, who: Who, ack_id: Option<u64>, answer: Answer) {
        self.peers[who].owed.push((ack_id, answer));
    }

    fn fault(&mut self, who: Who, ack_id: Option<u64>, name: &'static str, code: u16) {
        self.owe(who, ack_id, Answer::Error(name));
        let limit = self.limits.faults;
        let peer = &mut self.peers[who];
        peer.faults += 1;
        if peer.faults >= limit {
            peer.closes_with = Some(if peer.is_reliable() { 1008 } else { code });
        }
    }

    fn take_from_bucket(&mut self, who: Who, now_ms: u64) -> bool {
        let (rate, burst) =
            (u64::from(self.limits.messages_per_second), u64::from(self.limits.message_burst));
        let (spent, at) = &mut self.peers[who].spent;
        *spent = spent.saturating_sub((now_ms - *at) * rate);
        *at = now_ms;
        let takes = rate == 0 || *spent + 1_000 <= burst * 1_000;
        *spent += if rate > 0 && takes { 1_000 } else { 0 };
        takes
    }

    fn join(&mut self, who: Who, group: usize, now: u64) -> Result<Done, &'static str> {
        let sure = if self.is_lone { now } else { NEVER };
        let limit = self.limits.groups_per_connection;
        let peer = &mut self.peers[who];
        if !peer.guest.has_all_roles && group != MAY_JOIN {
            return Err("Forbidden");
        }
        if !peer.in_group(group) {
            if (0..GROUPS.len()).filter(|group| peer.in_group(*group)).count() >= limit {
                return Err("TooManyGroups");
            }
            peer.groups[group].push(Span { asked: now, sure, out: NEVER });
        }
        Ok(Done::Joined(group, peer.groups[group].len() - 1))
    }

    fn leave(&mut self, who: Who, group: usize, now: u64) -> Result<Done, &'static str> {
        let peer = &mut self.peers[who];
        if !peer.guest.has_all_roles && group != MAY_JOIN {
            return Err("Forbidden");
        }
        if let Some(span) = peer.groups[group].last_mut().filter(|span| span.out == NEVER) {
            span.out = now;
        }
        Ok(Done::Left(group))
    }

    fn send(&mut self, who: Who, number: usize, now: u64) -> Result<Done, &'static str> {
        let Guest { has_all_roles, hub, place, dialect, .. } = self.peers[who].guest;
        let target = &self.messages[number].target;
        let may = match target {
            Target::Group(group) => MAY_SEND.contains(group),
            Target::User(user) => *user == MAY_SEND_TO_USER,
            Target::All => false,
            Target::Many { groups, users, connections, .. } => {
                groups.iter().all(|group| MAY_SEND.contains(group))
                    && users.iter().all(|user| *user == MAY_SEND_TO_USER)
                    && connections.is_empty()
            }
        };
        if !may && !has_all_roles {
            return Err("Forbidden");
        }
        let is_here = |user: &usize| {
            let is_it =
                |peer: &Peer| peer.is_alive() && peer.guest.hub == hub && peer.guest.user == Some(*user);
            self.peers.iter().any(is_it)
        };
        let named: &[usize] = match target {
            Target::User(user) => std::slice::from_ref(user),
            Target::Many { users, .. } => users,
            _ => &[],
        };
        if let Target::Group(group) = target {
            let Message { users, no_echo, .. } = &self.messages[number];
            let is_for_all = users.is_empty() && !no_echo;
            self.transcript.sent(who, &self.peers[who].guest, number, *group, is_for_all, now);
        }
        let absent = named.iter().filter(|user| !is_here(user)).count() as u64;
        let is_nowhere = absent > 0 && dialect == Subprotocol::Plain;
        let message = &mut self.messages[number];
        message.sent = Some(now);
        message.absent = absent;
        message.reached[place] = Some(now);
        if self.is_lone {
            for to in (0..self.places).filter(|to| *to != place) {
                self.outgoing[place][to].push(number);
            }
        }
        if is_nowhere { Err("NotFound") } else { Ok(Done::Sent(number)) }
    }

    // ---- on the way ----

    /// A shard hands over what it has for the others, but not to those that have no room.
    pub(crate) fn handed_over(&mut self, from: usize, full: &[u16]) {
        self.note(|| format!("place {from} hands over, but to {full:?}"));
        for to in 0..self.places {
            if !full.contains(&(to as u16)) {
                let batch = std::mem::take(&mut self.outgoing[from][to]);
                self.mailboxes[to].extend(batch);
            }
        }
    }

    /// A shard takes its mailbox.
    pub(crate) fn took(&mut self, place: usize) {
        self.note(|| format!("place {place} takes its mailbox"));
        for number in std::mem::take(&mut self.mailboxes[place]) {
            let now = self.pass();
            self.messages[number].reached[place] = Some(now);
        }
    }

    /// A client writes a message down. Returns its number.
    pub(crate) fn draft(
        &mut self,
        sender: Who,
        target: Target,
        no_echo: bool,
        users: Vec<usize>,
        pad: usize,
    ) -> usize {
        self.messages.push(Message {
            sender,
            target,
            no_echo,
            users,
            pad,
            sent: None,
            reached: vec![None; self.places],
            got: Vec::new(),
            told: None,
            absent: 0,
        });
        self.messages.len() - 1
    }

    // ---- who gets what ----

    /// The times at which a peer is one that the message is for.
    fn spans<'a>(&'a self, message: &'a Message, who: Who) -> impl Iterator<Item = &'a Span> {
        let peer = &self.peers[who];
        let sender = &self.peers[message.sender].guest;
        let is_user = |user: &usize| peer.guest.user == Some(*user);
        let (groups, is_named, is_excluded) = match &message.target {
            Target::Group(group) => (std::slice::from_ref(group), false, false),
            Target::User(user) => (&[][..], is_user(user), false),
            Target::All => (&[][..], true, false),
            Target::Many { groups, users, connections, excluded } => (
                &groups[..],
                users.iter().any(is_user) || connections.contains(&who),
                excluded.contains(&who),
            ),
        };
        let is_chosen = message.users.is_empty() || message.users.iter().any(is_user);
        let is_echo = message.no_echo && who == message.sender;
        let is_for =
            peer.guest.hub == sender.hub && peer.refused.is_none() && is_chosen && !is_echo && !is_excluded;
        let groups = groups.iter().flat_map(|group| &peer.groups[*group]);
        let presence = is_named.then_some(&peer.presence);
        groups.chain(presence).filter(move |_| is_for)
    }

    /// Whether the peer may get the message, as far as is known now.
    fn may_get(&self, message: &Message, who: Who) -> bool {
        let Some(sent) = message.sent else { return false };
        let reached = message.reached[self.peers[who].guest.place];
        let (from, to) = match (self.is_lone, reached) {
            (true, Some(reached)) => (reached, reached),
            (true, None) => return false,
            (false, _) => (sent, NEVER),
        };
        self.spans(message, who).any(|span| span.asked <= to && span.out > from)
    }

    /// Whether the peer has to get it, unless it ends.
    fn has_to_get(&self, message: &Message, who: Who) -> bool {
        let Some(sent) = message.sent else { return false };
        let reached = message.reached[self.peers[who].guest.place].unwrap_or(self.now);
        let until = if self.is_lone { reached } else { self.now };
        // Who has ended is looked at by itself; here it counts as if it had stayed.
        let out = |span: &Span| if span.out == self.peers[who].ended { NEVER } else { span.out };
        self.spans(message, who).any(|span| span.sure <= sent && out(span) > until && span.out > sent)
    }
}
