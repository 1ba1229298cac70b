//! The operator of one shard: connects calls. It turns what clients send into work for the switchboard, on the
//! shard's own thread, without ever waiting.
//!
//! Here is the life of a session; `operator/request.rs` reads requests, `operator/send.rs` carries messages,
//! `operator/membership.rs` joins and leaves, `operator/keeping.rs` is for what is kept in logs and `operator/attending.rs` for
//! groups whose members are stored, `operator/events.rs` asks and tells the application, `operator/presence.rs` is for who is
//! present, `operator/logins.rs` keeps the one place of users that have no more,
//! `operator/leaving.rs` sends connections away, `operator/fresh.rs` knows those that came so, `operator/moving.rs`, `operator/ends.rs` and `operator/checkpoints.rs` are for connections that go to
//! another node or come from one, `operator/waiting.rs` waits for the other nodes, `operator/answer.rs` writes acks and errors.

mod answer;
mod attending;
mod checkpoints;
mod ends;
mod events;
mod fresh;
mod keeping;
mod leaving;
mod logins;
mod membership;
mod moving;
mod presence;
mod request;
mod send;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::{CloseCode, ErrorCode, reply};
use tieline_switchboard::{Address, Application, Cause, Placement, Shard, Slot};
use tieline_websocket::Kind;

use crate::acks::AckWindow;
use crate::arrival::{Arrival, Client};
use crate::command::{Command, Then};
use crate::events::Reservation;
use crate::limits::Bucket;
use crate::logins::PerUser;
use crate::node::Node;
use crate::session::{GONE, SETTLING, Session};
use crate::stamp::{Stamper, unix_ms};
use crate::subprotocol::Subprotocol;
use crate::tally::Tally;
pub(crate) use checkpoints::{Due, Holding, Wanted};
use ends::Ends;
use fresh::Fresh;
pub(crate) use presence::Shown;

/// Each second one in so many slots is looked at for an expired token.
const EXPIRY_STRIDE: u64 = 16;

/// The operator of one shard.
pub struct Operator {
    node: Arc<Node>,
    shard: u16,
    stamper: Stamper,
    tally: Tally,
    /// What a client brings that opens, between `arrive` and `opened`.
    arriving: Arriving,
    ticks: u64,
    /// Where this shard is in the logs of groups that it holds members of.
    ends: Ends,
    /// Connections that may still ask for their inbox, and until when, the first to end first.
    silent: VecDeque<(u64, Address)>,
    /// Those whose inbox could not be opened without having been asked for, and when that is tried again, in that order.
    unopened: VecDeque<(u64, Address)>,
    /// Those that the store did not let into groups of their user, and when that is tried again, in that order.
    unattended: VecDeque<(u64, Address)>,
    /// Connections whose records may have to be written, each once, who waits longest first.
    enlisted: VecDeque<Address>,
    /// Connections of users who came from other nodes, or have others there.
    fresh: Fresh,
    /// Connections that were told to go, and until when they may, in that order.
    going: VecDeque<(u64, Address)>,
}

/// What a client brings that is not its session's.
#[derive(Default)]
struct Arriving {
    /// Groups that it joins as it opens.
    groups: Vec<tieline_proto::GroupName>,
    /// The device that it is.
    device: Option<Box<str>>,
    /// The connection that it had before.
    replaces: Option<Box<tieline_proto::ConnectionId>>,
}

impl Operator {
    pub(crate) fn new(node: Arc<Node>, shard: u16, stamper: Stamper) -> Self {
        Operator {
            node,
            shard,
            stamper,
            tally: Tally::default(),
            arriving: Arriving::default(),
            ticks: 0,
            ends: Ends::default(),
            silent: VecDeque::new(),
            unopened: VecDeque::new(),
            unattended: VecDeque::new(),
            enlisted: VecDeque::new(),
            fresh: Fresh::default(),
            going: VecDeque::new(),
        }
    }

    /// The node it works for.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The connection of this id, if this shard holds it.
    pub fn find(&self, shard: &Shard<Self>, id: tieline_proto::ConnectionId) -> Option<Slot> {
        let slot = shard.find(self.node.address(id)?)?;
        (shard.session(slot)?.id == id).then_some(slot)
    }

    fn open(&mut self, client: Client) -> Placement<Session> {
        let hub = self.node.hubs().get_or_make(&client.hub);
        let limit = self.node.limits().connections_per_user;
        if let Some(user) = &client.user
            && limit > 0
            && self.node.logins().per_user(&client.hub) != PerUser::One
            && hub.user_connections(user) >= limit
        {
            self.tally.errors.count(ErrorCode::TooManyConnections);
            let code = if client.subprotocol == Subprotocol::AzureReliable {
                CloseCode::TryAgainLater.on_reliable()
            } else {
                CloseCode::TryAgainLater
            };
            return Placement::Refuse(code.code(), "The user has as many connections as it may have.");
        }
        let (groups, device, replaces) = (client.groups, client.device, client.replaces.map(Box::new));
        self.arriving = Arriving { groups, device, replaces };
        let place = client.place.map(Reservation::take);
        let approved = place.is_some();
        // Without a place that was kept, the slot, and so the id, is known only in `opened`.
        let unknown = Address { shard: self.shard, slot: 0, generation: 0 };
        let (id, state) = place.unwrap_or_else(|| (self.node.connection_id(unknown, 0), None));
        let session = Session {
            id,
            hub,
            user: client.user,
            roles: client.roles,
            subprotocol: client.subprotocol,
            groups: SmallVec::new(),
            expires: client.expires.unwrap_or(0),
            greeted: false,
            claim: 0,
            login: None,
            leaving: false,
            approved,
            state,
            faults: 0,
            bucket: Bucket::default(),
            acks: AckWindow::default(),
            inbox: None,
            memberships: None,
            shown: Shown::new(client.details.filter(|_| self.node.presence().is_on())),
            taking: 0,
            progress: None,
        };
        match self.node.address(id) {
            Some(address) if approved => Placement::Take(address, session),
            _ => Placement::Open(session),
        }
    }

    /// Tells the clients that can understand it that messages may have been missed.
    fn tell_gap(&mut self, shard: &mut Shard<Self>) {
        let listens = |session: &Session| session.greeted && session.subprotocol == Subprotocol::Tieline;
        let slots: Vec<Slot> =
            shard.sessions().filter(|(_, session)| listens(session)).map(|(slot, _)| slot).collect();
        for slot in slots {
            shard.send(slot, Kind::Text, |out| reply::gap(out, None, None));
        }
    }

    /// Tells a client that it is connected, and of the id and token that it may come back with.
    fn greet(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let Some(session) = shard.session(slot) else { return };
        if session.subprotocol == Subprotocol::Plain {
            return;
        }
        let (id, user) = (session.id, session.user.clone());
        let reliable = session.subprotocol == Subprotocol::AzureReliable;
        let token = reliable.then(|| self.node.reconnection().token(id));
        shard.send(slot, Kind::Text, |out| reply::connected(out, id, user.as_deref(), token.as_deref()));
    }

    /// Closes connections of `tieline.v1` whose token has expired and was not renewed.
    fn close_expired(&mut self, shard: &mut Shard<Self>) {
        let turn = self.ticks % EXPIRY_STRIDE;
        let now = unix_ms() / 1000;
        let expired = |session: &Session| session.expires > 0 && session.expires < now;
        let expired: Vec<Slot> = shard
            .sessions()
            .filter(|(slot, session)| u64::from(*slot) % EXPIRY_STRIDE == turn && expired(session))
            .map(|(slot, _)| slot)
            .collect();
        for slot in expired {
            self.hang_up(shard, slot, CloseCode::TokenExpired, CloseCode::TokenExpired.text());
        }
    }
}

impl Application for Operator {
    type Session = Session;
    type Arrival = Arrival;
    type Command = Command;

    fn arrive(&mut self, shard: &mut Shard<Self>, arrival: Arrival) -> Placement<Session> {
        match arrival {
            Arrival::Client(client) => self.open(*client),
            Arrival::Refused(code) => {
                self.tally.recoveries_refused += 1;
                Placement::Refuse(code.code(), code.text())
            }
            Arrival::Recovery { hub, id, token } => {
                let slot = self.find(shard, id).filter(|slot| {
                    let is_it = |session: &Session| {
                        session.subprotocol == Subprotocol::AzureReliable && *session.hub.name() == hub
                    };
                    shard.session(*slot).is_some_and(is_it)
                });
                match slot {
                    Some(slot) if shard.session(slot).is_some_and(|session| session.taking == SETTLING) => {
                        let code = CloseCode::TryAgainLater;
                        Placement::Refuse(code.code(), code.text())
                    }
                    Some(slot) if self.node.reconnection().verify(id, &token) => Placement::Resume(slot),
                    _ => {
                        self.tally.recoveries_refused += 1;
                        Placement::Refuse(
                            CloseCode::PolicyViolation.code(),
                            "The connection cannot be recovered.",
                        )
                    }
                }
            }
        }
    }

    fn opened(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let address = shard.address(slot);
        let id = self.node.connection_id(address, self.stamper.next() as u32);
        let Arriving { groups, device, replaces } = std::mem::take(&mut self.arriving);
        let Some(session) = shard.session_mut(slot) else { return };
        if !session.approved {
            session.id = id;
        }
        let (hub, user) = (session.hub.name().clone(), session.user.clone());
        let (groups, joins) = self.part(user.as_ref(), groups);
        if user.is_some() {
            self.node.transit().begin_login();
        }
        let (known, claim) = self.hold_all(&hub, user.as_ref(), &groups);
        let (placed, login) = self.log_in(&hub, user.as_ref(), device.as_deref());
        let then = Then::Greet { hub, user, claim, login, groups, joins, device, replaces };
        self.when_known(shard, slot, known.and(placed), then);
    }

    fn resumed(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        if let Some(session) = shard.session_mut(slot) {
            session.taking = 0;
            // It was sent away and has come back here: it can be sent again.
            session.leaving = false;
        }
        self.enlist(shard, slot);
        self.greet(shard, slot);
        // It was not ended while it was about to move.
        self.take_place(shard, slot);
    }

    fn message(&mut self, shard: &mut Shard<Self>, slot: Slot, kind: Kind, payload: &[u8]) {
        self.read(shard, slot, kind, payload);
    }

    fn pong(&mut self, shard: &mut Shard<Self>, slot: Slot, payload: &[u8]) {
        self.arrived(shard, slot, payload);
    }

    fn cut(&mut self, _shard: &mut Shard<Self>, _slot: Slot, _cause: &Cause) -> bool {
        // Only numbered connections, those of the reliable protocol, are asked.
        true
    }

    fn closed(&mut self, shard: &mut Shard<Self>, slot: Slot, session: Session, cause: &Cause) {
        if session.taking < GONE {
            self.tell_disconnected(&session, cause);
        }
        // Who was not greeted yet is let go when its wait ends.
        if !session.greeted {
            return;
        }
        let (address, hub) = (shard.address(slot), &session.hub);
        self.forget_checkpoint(&session, address);
        self.forget_settler(&session, address);
        hub.everyone().exit(self.shard);
        for group in &session.groups {
            hub.exit(group, self.shard);
            if let Some(name) = group.name() {
                self.release(hub.name(), name);
                self.disappear(&session, Some(name));
            }
        }
        self.disappear(&session, None);
        self.end_watches(&session);
        self.log_out(hub.name(), session.login.as_deref());
        for membership in session.coming() {
            self.release(hub.name(), &membership.group);
        }
        if let Some(user) = session.user {
            self.let_user_go(hub, &user, address, (session.claim, session.leaving));
        }
    }

    fn command(&mut self, shard: &mut Shard<Self>, command: Command) {
        match command {
            Command::Deliver(delivery) => self.deliver(shard, &delivery),
            Command::Settled { address, ack_id, outcome } => {
                if let Some(slot) = shard.find(address) {
                    self.ack_outcome(shard, slot, ack_id, outcome);
                }
            }
            Command::GoOn(address, then, admission) => self.go_on(shard, address, then, admission),
            Command::CatchUp { address, hub, log, entries, tells_lag } => {
                self.catch_up(shard, address, &hub, &log, &entries);
                if let Some(entrant) = tells_lag {
                    self.tell_lag(shard, address, entrant);
                }
            }
            Command::TellLag(address, entrant) => self.tell_lag(shard, address, entrant),
            Command::Kept { address, ack_id, result } => self.kept(shard, address, ack_id, result),
            Command::Answered(reply_to, answer) => self.answered(shard, reply_to, *answer),
            Command::Announce(announcement) => self.announce(shard, &announcement),
            Command::Gap => self.tell_gap(shard),
            Command::Run(run) => run(self, shard),
        }
    }

    fn tick(&mut self, shard: &mut Shard<Self>) {
        self.ticks += 1;
        self.close_expired(shard);
        self.open_silent_inboxes(shard);
        self.attend_again(shard);
        self.ends.tidy();
        self.renew_checkpoints(shard);
        self.close_lingering(shard);
        self.fresh.tidy(unix_ms());
        self.give_back(shard);
        self.node.end_displaced();
        self.node.publish_tally(self.shard, self.tally);
    }

    fn close_frame(&self, session: &Session, cause: &Cause) -> (u16, &'static str) {
        let row = match cause {
            Cause::Lag => CloseCode::SlowConsumer,
            Cause::Memory => CloseCode::TryAgainLater,
            Cause::Idle | Cause::Silent => CloseCode::Idle,
            Cause::Protocol(1007) => CloseCode::InvalidPayload,
            Cause::Protocol(1009) => CloseCode::MessageTooBig,
            Cause::Protocol(_) => CloseCode::ProtocolError,
            _ => CloseCode::InternalError,
        };
        // What a connection of the reliable protocol had outstanding is gone, so its client must not try to
        // recover: that is what 1008 says.
        let reliable = session.subprotocol == Subprotocol::AzureReliable;
        let code = if reliable { CloseCode::PolicyViolation } else { row };
        (code.code(), row.text())
    }
}
