//! One running server: what its shards share, and how everybody else reaches them. Where a message goes is in `node/routing.rs`.

mod routing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use tieline_proto::presence::Page;
use tieline_proto::role::Roles;
use tieline_proto::{ConnectionId, GroupName, HubName, MessageId, NodeId, NodeName, UserId};
use tieline_switchboard::{Address, Counters, Full, Handle, Settings, Station, Switchboard};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::cluster::Cluster;
use crate::command::{Command, Then};
use crate::delivery::{Delivery, Outcome, Settled, Target};
use crate::events::{EventAnswer, Events, ReplyTo, Reservation};
use crate::hub::{Hub, LocalHubs};
use crate::interned::InternedRoles;
use crate::limits::Limits;
use crate::logins::{HubRule, Logins};
use crate::logs::{Admission, Logs};
use crate::operator::Operator;
use crate::presence::{NotTold, Presence, PresenceRules};
use crate::reconnection::Reconnection;
use crate::recovery::{CheckpointCounters, Checkpoints, MOVES, Settlers, Underway};
use crate::registry::{NodeState, Registration};
use crate::stamp::{Stamper, incarnation};
use crate::subprotocol::NUMBERING;
use crate::tally::Tally;
use crate::token::Keys;
use crate::transit::Transit;

pub(crate) use routing::{Elsewhere, Places, Route};

/// How a node is set up.
#[derive(Debug)]
pub struct NodeSettings {
    /// The node's stable name.
    pub name: NodeName,
    /// Threads that hold connections.
    pub shards: usize,
    /// Limits of sessions.
    pub limits: Limits,
    /// Limits of sockets and frames.
    pub switchboard: Settings,
    /// The access keys that tokens are signed with; a client may renew its token on the connection.
    pub keys: Arc<Keys>,
    /// What holds for hubs, by their names.
    pub hubs: Vec<HubRule>,
    /// Where it is told who is present.
    pub presence: PresenceRules,
}

impl NodeSettings {
    /// What the switchboard is told.
    fn switchboard(&self) -> Settings {
        Settings { numbering: NUMBERING, ..self.switchboard.clone() }
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The shards could not be started.
    #[error(transparent)]
    Switchboard(#[from] tieline_switchboard::Error),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// The shard has more waiting than it may; the caller may try again later. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is overloaded")]
pub struct Overloaded;

/// What the shards of a node share.
pub struct Node {
    id: NodeId,
    hubs: LocalHubs,
    logins: Logins,
    presence: Presence,
    limits: ArcSwap<Limits>,
    keys: Arc<Keys>,
    roles: InternedRoles,
    reconnection: Reconnection,
    transit: Transit,
    /// Connections of this node whose ids name another place.
    settlers: Settlers,
    /// A permit for each connection that may be on its way here.
    moves: Semaphore,
    /// Connections that are being resumed from the store here.
    underway: Underway,
    /// The records of its connections, if it has a store.
    checkpoints: OnceLock<Arc<Checkpoints>>,
    /// How long a connection that was cut may take to come back.
    recovery_window: Duration,
    tallies: Vec<Mutex<Tally>>,
    /// Stamps what the application sends; each shard has its own for its clients.
    stamper: Mutex<Stamper>,
    handle: OnceLock<Handle<Operator>>,
    cluster: OnceLock<Arc<Cluster>>,
    logs: OnceLock<Arc<Logs>>,
    max_lag: usize,
    /// What is said of it to others, but for what changes.
    described: Mutex<Registration>,
    /// Whether it gives its clients away and takes no new ones.
    is_draining: AtomicBool,
    /// Told when somebody asks for that.
    drain_wanted: Notify,
    /// Who is told of events, if anybody.
    events: OnceLock<Arc<dyn Events>>,
    /// Of each shard, places that were kept for connections and not taken: its next tick gives them back.
    given_back: Vec<Mutex<Vec<Address>>>,
}

/// What the operators of a node's shards are made of.
struct Staff {
    node: Arc<Node>,
    /// One for each shard.
    stampers: Mutex<Vec<Stamper>>,
}

impl Staff {
    fn operator(&self, shard: u16) -> Operator {
        let stamper = self.stampers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Operator::new(Arc::clone(&self.node), shard, stamper.expect("one was made for each shard"))
    }
}

impl Node {
    /// Starts a node's shards. The switchboard is the caller's to stop.
    ///
    /// # Errors
    /// When the system has no threads, readiness queues or random bytes left.
    pub fn start(settings: NodeSettings) -> Result<(Arc<Node>, Switchboard<Operator>), StartError> {
        let (shards, switchboard) = (settings.shards, settings.switchboard());
        let (node, staff) = Node::staffed(settings)?;
        let switchboard = Switchboard::start(shards, switchboard, move |index, _| staff.operator(index))?;
        node.handle.set(switchboard.handle().clone()).ok().expect("a node starts once");
        Ok((node, switchboard))
    }

    /// A node without threads and sockets: its shards do what the caller has them do.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn stations(settings: NodeSettings) -> Result<(Arc<Node>, Vec<Station<Operator>>), StartError> {
        let (shards, switchboard) = (settings.shards, settings.switchboard());
        let (node, staff) = Node::staffed(settings)?;
        let (handle, stations) = Station::all(shards, switchboard, |index, _| staff.operator(index));
        node.handle.set(handle).ok().expect("a node starts once");
        Ok((node, stations))
    }

    /// A node that has no shards yet, and what their operators are made of.
    fn staffed(settings: NodeSettings) -> Result<(Arc<Node>, Staff), StartError> {
        let mut stamper = Stamper::new()?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let incarnation = incarnation(&mut stamper);
        let id = NodeId { name: settings.name, incarnation };
        let node = Arc::new(Node {
            presence: Presence::new(id.clone(), settings.presence),
            id,
            hubs: LocalHubs::new(settings.shards),
            logins: Logins::new(incarnation, settings.hubs),
            limits: ArcSwap::from_pointee(settings.limits),
            keys: settings.keys,
            roles: InternedRoles::default(),
            reconnection: Reconnection::new(&secret),
            transit: Transit::default(),
            settlers: Settlers::default(),
            moves: Semaphore::new(MOVES),
            underway: Underway::default(),
            checkpoints: OnceLock::new(),
            recovery_window: settings.switchboard.resume_window,
            tallies: (0..settings.shards).map(|_| Mutex::default()).collect(),
            stamper: Mutex::new(stamper),
            handle: OnceLock::new(),
            cluster: OnceLock::new(),
            logs: OnceLock::new(),
            max_lag: settings.switchboard.max_lag,
            described: Mutex::default(),
            is_draining: AtomicBool::new(false),
            drain_wanted: Notify::new(),
            events: OnceLock::new(),
            given_back: (0..settings.shards).map(|_| Mutex::default()).collect(),
        });
        let stampers = (0..settings.shards).map(|_| Stamper::new()).collect::<Result<Vec<_>, _>>()?;
        let staff = Staff { node: Arc::clone(&node), stampers: Mutex::new(stampers) };
        Ok((node, staff))
    }

    /// Who this node is.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The connections, users and groups it holds.
    pub fn hubs(&self) -> &LocalHubs {
        &self.hubs
    }

    /// The places of users that may have no more than one.
    pub(crate) fn logins(&self) -> &Logins {
        &self.logins
    }

    /// Who is where, as far as that is told.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Who is in a group, or without one in the hub: those behind a user, `limit` of them at most and never more than
    /// [`MAX_PAGE`](crate::presence::MAX_PAGE).
    ///
    /// # Errors
    /// [`NotTold`] where the configuration does not say that it is told.
    pub fn presence_page(
        &self,
        hub: &HubName,
        group: Option<&GroupName>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, NotTold> {
        let mut page = self.presence.page(hub, group, after, limit)?;
        page.is_complete = self.cluster().is_none_or(|cluster| cluster.is_view_complete());
        Ok(page)
    }

    /// Limits of its sessions, as they are now.
    pub fn limits(&self) -> Guard<Arc<Limits>> {
        self.limits.load()
    }

    /// Sets other limits. What sessions have beyond them stays theirs.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// The access keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The copy of a set of roles that all connections with equal roles share.
    pub fn share_roles(&self, roles: Roles) -> Arc<Roles> {
        self.roles.share(roles)
    }

    /// Connections that have come from other nodes.
    pub(crate) fn settlers(&self) -> &Settlers {
        &self.settlers
    }

    /// Permits for connections that come from other nodes.
    pub(crate) fn moves(&self) -> &Semaphore {
        &self.moves
    }

    /// Connections that are being resumed from the store here.
    pub(crate) fn underway(&self) -> &Underway {
        &self.underway
    }

    /// The records of its connections, if it has a store and keeps anything there.
    pub(crate) fn checkpoints(&self) -> Option<&Arc<Checkpoints>> {
        self.checkpoints.get()
    }

    pub(crate) fn set_checkpoints(&self, checkpoints: Arc<Checkpoints>) {
        self.checkpoints.set(checkpoints).ok().expect("the logs of a node are started once");
    }

    /// What was counted of connections that the store keeps, if it does.
    pub fn checkpoint_counters(&self) -> Option<&CheckpointCounters> {
        self.checkpoints().map(|checkpoints| checkpoints.counters())
    }

    /// How long a connection that was cut may take to come back.
    pub(crate) fn recovery_window(&self) -> Duration {
        self.recovery_window
    }

    /// The reconnection tokens of this start.
    pub(crate) fn reconnection(&self) -> &Reconnection {
        &self.reconnection
    }

    /// What the switchboard has counted, at most a round old.
    pub fn counters(&self) -> Counters {
        self.handle().counters()
    }

    /// Says that the node takes no new clients from now on: whoever places connections is told, and goes elsewhere.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether it takes no new clients.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Asks for the node to be emptied. Whoever runs it does that.
    pub fn request_drain(&self) {
        self.drain_wanted.notify_one();
    }

    /// Waits until that is asked for.
    pub async fn drain_requested(&self) {
        self.drain_wanted.notified().await;
    }

    /// Sets what the node says of itself to others. How many connections it has and whether it wants more is put in as it changes.
    pub fn describe(&self, registration: Registration) {
        *self.described.lock().unwrap_or_else(PoisonError::into_inner) = registration;
    }

    /// Sets how many shares of the clients it is to have.
    pub fn set_weight(&self, weight: u32) {
        self.described.lock().unwrap_or_else(PoisonError::into_inner).weight = weight;
    }

    /// What the node says of itself now.
    pub fn registration(&self) -> Registration {
        let described = self.described.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Registration {
            connections: self.counters().connections,
            state: if self.is_draining() { NodeState::Draining } else { NodeState::Up },
            ..described
        }
    }

    /// What the sessions have counted, at most a second old.
    pub fn tally(&self) -> Tally {
        let mut total = Tally::default();
        for tally in &self.tallies {
            total += *tally.lock().unwrap_or_else(PoisonError::into_inner);
        }
        total
    }

    pub(crate) fn publish_tally(&self, shard: u16, tally: Tally) {
        *self.tallies[usize::from(shard)].lock().unwrap_or_else(PoisonError::into_inner) = tally;
    }

    /// Time and id of a message that comes from outside the shards.
    pub(crate) fn stamp(&self) -> (u64, MessageId) {
        self.stamper.lock().unwrap_or_else(PoisonError::into_inner).stamp()
    }

    /// Where a connection of this node stands; `None` for another node's, or an earlier start's. Whether it
    /// is still there, and its random bits, are for its shard to check.
    pub fn address(&self, id: ConnectionId) -> Option<Address> {
        if let Some(address) = self.settlers.find(id) {
            return Some(address);
        }
        let is_elsewhere = self.cluster().is_some_and(|cluster| cluster.moved_to(id).is_some());
        if is_elsewhere { None } else { self.first_address(id) }
    }

    /// Where the id of a connection says that it was first, if that is on this node: it may be going elsewhere.
    pub(crate) fn first_address(&self, id: ConnectionId) -> Option<Address> {
        let here = id.incarnation() == self.id.incarnation && usize::from(id.shard()) < self.tallies.len();
        here.then(|| Address { shard: id.shard().into(), slot: id.slot(), generation: id.generation() })
    }

    /// Whether the id of a connection that stands here names another place.
    pub(crate) fn is_settler(&self, id: ConnectionId, at: Address) -> bool {
        let named = Address { shard: id.shard().into(), slot: id.slot(), generation: id.generation() };
        id.incarnation() != self.id.incarnation || named != at
    }

    /// The id that a connection at this address has.
    pub(crate) fn connection_id(&self, address: Address, random: u32) -> ConnectionId {
        let shard = u8::try_from(address.shard).expect("a switchboard has at most 255 shards");
        ConnectionId::new(self.id.incarnation, shard, address.slot, address.generation, random)
    }

    /// Hands a command to a shard from outside the shards.
    ///
    /// # Errors
    /// [`Overloaded`] when its mailbox is full.
    pub fn post(&self, shard: u16, command: Command) -> Result<(), Overloaded> {
        self.handle().post(shard, command).map_err(|Full(_)| Overloaded)
    }

    /// Its durable side, if it was given one.
    pub fn logs(&self) -> Option<&Arc<Logs>> {
        self.logs.get()
    }

    pub(crate) fn set_logs(&self, logs: Arc<Logs>) {
        self.logs.set(logs).ok().expect("the logs of a node are started once");
    }

    /// Whether messages to a target are kept.
    pub(crate) fn keeps(&self, target: &Target) -> bool {
        self.logs().is_some_and(|logs| logs.retention(target).is_some())
    }

    /// Whether messages to a group are kept.
    pub(crate) fn keeps_group(&self, group: &str) -> bool {
        self.logs().is_some_and(|logs| logs.rules().history(group).is_some())
    }

    /// Whether messages to users are kept.
    pub(crate) fn keeps_inboxes(&self) -> bool {
        self.logs().is_some_and(|logs| logs.rules().inbox.is_some())
    }

    /// How far a client may lag behind, in bytes.
    pub(crate) fn max_lag(&self) -> usize {
        self.max_lag
    }

    /// The cluster that this node is a member of, if it is.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.get()
    }

    pub(crate) fn set_cluster(&self, cluster: Arc<Cluster>) {
        self.cluster.set(cluster).ok().expect("a node becomes a member once");
    }

    /// Who is told of events, if anybody.
    pub fn events(&self) -> Option<&Arc<dyn Events>> {
        self.events.get()
    }

    /// Has an application told of events from now on.
    ///
    /// # Panics
    /// When there is one already.
    pub fn set_events(&self, events: Arc<dyn Events>) {
        self.events.set(events).ok().expect("a node has one application");
    }

    /// Keeps a place on the shard with the fewest connections.
    ///
    /// # Errors
    /// [`Overloaded`] when the shard has no room, or the node stops.
    pub async fn reserve(&self) -> Result<Reservation, Overloaded> {
        // Made on the shard, so that it gives itself back when nobody waits for it any more.
        self.ask(self.handle().least_loaded(), Operator::reserve).await?.ok_or(Overloaded)
    }

    pub(crate) fn give_back(&self, id: ConnectionId) {
        if let Some(address) = self.address(id) {
            let places = &self.given_back[usize::from(address.shard)];
            places.lock().unwrap_or_else(PoisonError::into_inner).push(address);
        }
    }

    pub(crate) fn take_given_back(&self, shard: u16) -> Vec<Address> {
        let mut places = self.given_back[usize::from(shard)].lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut places)
    }

    /// Takes the application's answer to an event.
    ///
    /// # Errors
    /// Both, when the connection's shard has no room now: the connection stands still until the answer is taken.
    pub fn reply(
        &self,
        reply_to: ReplyTo,
        answer: Box<EventAnswer>,
    ) -> Result<(), (ReplyTo, Box<EventAnswer>)> {
        match self.handle().post(reply_to.address.shard, Command::Answered(reply_to, answer)) {
            Err(Full(Command::Answered(reply_to, answer))) => Err((reply_to, answer)),
            _ => Ok(()),
        }
    }

    /// Whether this node holds a target of a hub.
    pub(crate) fn is_here(&self, hub: &Hub, target: &Target) -> bool {
        match target {
            Target::Everyone => hub.connections() > 0,
            Target::Group(group) => hub.group(group).is_some(),
            Target::User(user) => hub.user_connections(user) > 0,
            Target::Connection(id) => self.address(*id).is_some(),
        }
    }

    /// Whether no node holds a user, as far as is known.
    pub(crate) fn is_offline(&self, hub: &Hub, user: &UserId) -> bool {
        hub.user_connections(user) == 0
            && self.cluster().is_none_or(|cluster| cluster.is_held_by_nobody_else(hub.name(), user))
    }

    /// Whether users who were sent away may still be waited for elsewhere, or logins are under way.
    pub fn has_travellers(&self) -> bool {
        self.transit.is_any()
    }

    /// Users who are on their way from or to this node.
    pub(crate) fn transit(&self) -> &Transit {
        &self.transit
    }

    /// Hands a delivery to shards from outside them. Returns how many did not take it; a receipt counts those as
    /// having answered with nobody.
    pub(crate) fn hand_to_shards(&self, shards: &[u16], delivery: &Arc<Delivery>) -> usize {
        let mut refused = 0;
        for shard in shards {
            if self.post(*shard, Command::Deliver(Arc::clone(delivery))).is_err() {
                refused += 1;
                let nobody = delivery.receipt.as_ref().and_then(|receipt| receipt.add(Outcome::default()));
                nobody.into_iter().for_each(|settled| self.settle(settled));
            }
        }
        refused
    }

    /// Gives an answer that is due to whoever waits for it.
    pub(crate) fn settle(&self, settled: Settled) {
        match settled {
            Settled::Connection(address, ack_id, outcome) => {
                // A shard without room for acks is one whose clients wait for them: they ask again.
                let _ = self.post(address.shard, Command::Settled { address, ack_id, outcome });
            }
            Settled::Node(node, number, outcome) => {
                if let Some(cluster) = self.cluster() {
                    cluster.answer(node, number, outcome);
                }
            }
        }
    }

    /// Lets a connection go on that waited for the other nodes, or to be let into logs.
    ///
    /// # Errors
    /// What it waited to do, when its shard has no room.
    pub(crate) fn go_on(
        &self,
        address: Address,
        then: Then,
        admission: Option<Admission>,
    ) -> Result<(), Box<(Then, Option<Admission>)>> {
        match self.handle().post(address.shard, Command::GoOn(address, then, admission)) {
            Err(Full(Command::GoOn(_, then, admission))) => Err(Box::new((then, admission))),
            _ => Ok(()),
        }
    }

    /// Tells every client that wants to know that messages may have been missed.
    pub(crate) fn announce_gap(&self) {
        for shard in 0..self.tallies.len() {
            // A shard that is full of messages has none missing that its clients could not tell by their lag.
            let _ = self.post(shard as u16, Command::Gap);
        }
    }

    /// Runs something on a connection's own shard and waits for what it gives: `None` when this node does not
    /// hold the connection.
    ///
    /// # Errors
    /// [`Overloaded`] when the shard's mailbox is full or the node stops. Dropping the future does not undo what
    /// was posted.
    pub async fn ask<T: Send + 'static>(
        &self,
        shard: u16,
        run: impl FnOnce(&mut Operator, &mut tieline_switchboard::Shard<Operator>) -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (sender, receiver) = oneshot::channel();
        self.post(
            shard,
            Command::Run(Box::new(move |operator, shard| {
                // Nobody may be waiting any more.
                let _ = sender.send(run(operator, shard));
            })),
        )?;
        receiver.await.map_err(|_| Overloaded)
    }

    /// The shards, for those that hand sockets to them.
    pub fn handle(&self) -> &Handle<Operator> {
        self.handle.get().expect("the handle is set before a node is given out")
    }
}
