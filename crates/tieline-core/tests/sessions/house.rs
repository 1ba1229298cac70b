//! A node without HTTP, and clients whose handshake is taken as done: sockets are handed to the switchboard.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tieline_core::broker::{Broker, MemoryExchange};
use tieline_core::events::Reservation;
use tieline_core::logs::{Engine, LogRules, Logs, LogsTask};
use tieline_core::presence::{PresenceRules, PresenceTask};
use tieline_core::registry::Registration;
use tieline_core::token::Keys;
use tieline_core::{
    Arrival, Client, Cluster, ClusterSettings, ClusterTask, ClusterTimes, HubRule, Limits, Node,
    NodeSettings, Operator, PerUser, Routing, Subprotocol,
};
use tieline_proto::presence::Details;
use tieline_proto::role::Roles;
use tieline_proto::{ConnectionId, GroupName, HubName, NodeName, UserId};
use tieline_switchboard::{Adoption, Settings, Switchboard};
use tieline_websocket::{Decoder, Event, Opcode, Role, Shared, encode_masked};
use tokio::runtime::Runtime;

/// A running node; stopped when it is dropped.
pub(crate) struct House {
    pub(crate) node: Arc<Node>,
    membership: Option<(Runtime, ClusterTask)>,
    logs: Option<(Runtime, LogsTask)>,
    presence: Option<(Runtime, PresenceTask)>,
    switchboard: Option<Switchboard<Operator>>,
    listener: TcpListener,
}

/// How long anything is waited for that has to come: no test waits for this, it is how long one that fails takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Times of a cluster in which no node that answers is given up: on a busy machine that may take longer than the usual second.
pub(crate) fn patient() -> ClusterTimes {
    let long = PATIENCE / 3;
    ClusterTimes { read: long, ask: long, receipt: long, ..ClusterTimes::default() }
}

/// Limits that no test of several houses runs into.
fn generous() -> Limits {
    Limits {
        messages_per_second: 0,
        connections_per_user: 0,
        hello: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// In the hub `single` a user has one place, in `devices` one for each of its devices.
fn rules_of_hubs() -> Vec<HubRule> {
    let rule = |pattern: &str, per_user| HubRule { pattern: pattern.into(), per_user };
    vec![rule("single", PerUser::One), rule("devices", PerUser::OnePerDevice)]
}

impl House {
    pub(crate) fn new(shards: usize) -> Self {
        Self::with(shards, Limits::default(), Settings::default())
    }

    /// One of several, with a name of its own.
    pub(crate) fn named(shards: usize) -> Self {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        Self::called(&format!("house-{}", NAMES.fetch_add(1, Ordering::Relaxed)), shards)
    }

    /// One of this name.
    pub(crate) fn called(name: &str, shards: usize) -> Self {
        Self::build(name, shards, generous(), Settings::default(), PresenceRules::default())
    }

    /// One of several that tells who is present.
    pub(crate) fn telling(shards: usize, presence: PresenceRules) -> Self {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let name = format!("teller-{}", NAMES.fetch_add(1, Ordering::Relaxed));
        // Who only listens to its test answers no ping.
        let switchboard = Settings { ping_every: Duration::from_secs(3600), ..Settings::default() };
        let mut house = Self::build(&name, shards, generous(), switchboard, presence);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = {
            let _in_it = runtime.enter();
            PresenceTask::start(&house.node)
        };
        house.presence = task.map(|task| (runtime, task));
        house
    }

    pub(crate) fn with(shards: usize, limits: Limits, switchboard: Settings) -> Self {
        Self::build("house", shards, limits, switchboard, PresenceRules::default())
    }

    fn build(
        name: &str,
        shards: usize,
        limits: Limits,
        switchboard: Settings,
        presence: PresenceRules,
    ) -> Self {
        let settings = NodeSettings {
            name: NodeName::new(name).unwrap(),
            shards,
            limits,
            switchboard,
            keys: Arc::new(Keys::new(["a key of the house"])),
            hubs: rules_of_hubs(),
            presence,
        };
        let (node, switchboard) = Node::start(settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        House { node, membership: None, logs: None, presence: None, switchboard: Some(switchboard), listener }
    }

    /// Gives it logs. To be called before it becomes a member.
    pub(crate) fn keep(&mut self, rules: LogRules, engine: Option<Engine>) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = {
            let _in_it = runtime.enter();
            Logs::start(&self.node, rules, engine)
        };
        runtime.block_on(self.node.share_secret());
        self.logs = Some((runtime, task));
    }

    /// Makes it a member of a cluster in this process.
    pub(crate) fn join(&mut self, exchange: &MemoryExchange, times: ClusterTimes) {
        self.join_by(exchange, times, Routing::Directed);
    }

    pub(crate) fn join_by(&mut self, exchange: &MemoryExchange, times: ClusterTimes, routing: Routing) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (node, id) = (Arc::clone(&self.node), self.node.id().incarnation);
        let connect = |inbound| {
            let broker: Arc<dyn Broker> = Arc::new(exchange.join(id, inbound));
            std::future::ready(Ok::<_, std::convert::Infallible>(broker))
        };
        let client_url = format!("ws://{}", self.listener.local_addr().unwrap());
        node.describe(Registration { client_url, ..Registration::default() });
        let settings = ClusterSettings { times, routing, ..ClusterSettings::default() };
        let (_, task) = runtime.block_on(Cluster::start(node, settings, connect)).unwrap();
        self.membership = Some((runtime, task));
    }

    /// Runs what needs the runtime of its membership, or of its logs where it is alone.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self.membership.as_ref().map(|(runtime, _)| runtime);
        runtime.or(self.logs.as_ref().map(|(runtime, _)| runtime)).unwrap().block_on(future)
    }

    /// Ends it as a kill does: it says goodbye to nobody, and writes nothing down.
    pub(crate) fn kill(mut self, exchange: &MemoryExchange) {
        exchange.cut(self.node.id().incarnation);
        // Its sockets are closed when it is dropped: by then no task of it lives, which would write down that they have ended.
        if let Some((runtime, _)) = self.logs.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
        if let Some((runtime, _)) = self.membership.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    /// Waits until it sees so many other nodes, all of them whole.
    pub(crate) fn wait_for_peers(&self, count: usize) {
        let cluster = self.node.cluster().unwrap();
        eventually(|| {
            let peers = cluster.peers();
            peers.len() == count && peers.iter().all(|peer| peer.complete)
        });
    }

    /// Connects a client to a shard and returns it with what its `connected` frame said.
    pub(crate) fn connect(&self, shard: u16, guest: Guest) -> (Peer, Value) {
        let subprotocol = guest.subprotocol;
        let mut peer = self.adopt(shard, guest.into(), subprotocol);
        let connected = if subprotocol == Subprotocol::Plain { Value::Null } else { peer.receive() };
        (peer, connected)
    }

    /// A client of this user with every role.
    pub(crate) fn user(&self, shard: u16, subprotocol: Subprotocol, user: &str) -> Peer {
        self.connect(shard, Guest::new(subprotocol, user)).0
    }

    pub(crate) fn adopt(&self, shard: u16, arrival: Arrival, subprotocol: Subprotocol) -> Peer {
        let ours = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let format = subprotocol.format(0);
        stream.set_nonblocking(true).unwrap();
        let adoption =
            Adoption { stream, head: Vec::new(), leftover: Vec::new(), format, inflate: None, arrival };
        self.node.handle().adopt(Some(shard), adoption).unwrap();
        Peer::new(ours)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some((runtime, task)) = self.membership.take() {
            runtime.block_on(task.stop());
        }
        if let Some((runtime, task)) = self.logs.take() {
            runtime.block_on(task.stop());
        }
        if let Some((runtime, task)) = self.presence.take() {
            runtime.block_on(task.stop());
        }
        if let Some(switchboard) = self.switchboard.take() {
            switchboard.stop(1001, "The test is over.").unwrap();
        }
    }
}

/// Looks again and again until something is so.
pub(crate) fn eventually(mut so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "it never came to be so");
        std::thread::yield_now();
    }
}

/// Who connects.
pub(crate) struct Guest {
    pub(crate) subprotocol: Subprotocol,
    pub(crate) hub: &'static str,
    pub(crate) user: Option<String>,
    pub(crate) roles: Roles,
    pub(crate) groups: Vec<&'static str>,
    pub(crate) expires: Option<u64>,
    pub(crate) place: Option<Reservation>,
    pub(crate) device: Option<&'static str>,
    pub(crate) details: Option<Details>,
    pub(crate) replaces: Option<ConnectionId>,
}

impl Guest {
    pub(crate) fn new(subprotocol: Subprotocol, user: &str) -> Self {
        let (roles, user) = (Roles::everything(), Some(user.to_owned()));
        Guest {
            subprotocol,
            hub: "hub",
            user,
            roles,
            groups: Vec::new(),
            expires: None,
            place: None,
            device: None,
            details: None,
            replaces: None,
        }
    }
}

impl From<Guest> for Arrival {
    fn from(guest: Guest) -> Self {
        Arrival::Client(Box::new(Client {
            hub: HubName::new(guest.hub).unwrap(),
            user: guest.user.map(|user| UserId::new(&user).unwrap()),
            roles: Arc::new(guest.roles),
            groups: guest.groups.iter().map(|group| GroupName::new(group).unwrap()).collect(),
            subprotocol: guest.subprotocol,
            expires: guest.expires,
            place: guest.place,
            device: guest.device.map(Box::from),
            details: guest.details,
            replaces: guest.replaces,
        }))
    }
}

/// What the server sent.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Text(String),
    Ping(Vec<u8>),
    Close(u16, String),
    End,
}

/// The client's end of a connection.
pub(crate) struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    shared: Shared,
    input: Vec<u8>,
    heard: std::collections::VecDeque<Heard>,
    /// Far from those that tests give by hand.
    last_ack: u64,
    /// Leaves pings unanswered.
    pub(crate) is_mute: bool,
    /// Acknowledges each numbered message as it is received.
    pub(crate) is_acknowledging: bool,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let decoder = Decoder::new(Role::Client, None);
        Peer {
            stream,
            decoder,
            // A frame of the server's is longer than the message in it.
            shared: Shared::new(tieline_websocket::Limits {
                max_frame: 8 << 20,
                max_message: 8 << 20,
                ..Default::default()
            }),
            input: vec![0; 1 << 16],
            heard: Default::default(),
            last_ack: 1_000_000,
            is_mute: false,
            is_acknowledging: false,
        }
    }

    pub(crate) fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_frame(Opcode::Text, text.as_bytes());
    }

    pub(crate) fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        encode_masked(&mut frame, opcode, payload, [1, 2, 3, 4]);
        self.stream.write_all(&frame).unwrap();
    }

    /// Answers a ping, unless the client is mute.
    fn pong(&mut self, payload: &[u8]) {
        if !self.is_mute {
            let mut frame = Vec::new();
            encode_masked(&mut frame, Opcode::Pong, payload, [1, 2, 3, 4]);
            // The server may have closed since.
            let _ = self.stream.write_all(&frame);
        }
    }

    /// The next thing the server sends. Whatever a test waits for, a ping that only asks whether the client lives may come before it.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            match self.heard.pop_front() {
                Some(Heard::Ping(payload)) if payload.is_empty() => {
                    self.pong(&payload);
                    continue;
                }
                Some(heard) => return heard,
                None => {}
            }
            let read = self.stream.read(&mut self.input).expect("the server sends something in time");
            if read == 0 {
                return Heard::End;
            }
            let mut input = &mut self.input[..read];
            while let Some(event) = self.decoder.decode(&mut input, &mut self.shared).unwrap() {
                self.heard.push_back(match event {
                    Event::Message { payload, .. } => {
                        Heard::Text(String::from_utf8(payload.to_vec()).unwrap())
                    }
                    Event::Ping(payload) => Heard::Ping(payload.to_vec()),
                    Event::Pong(_) => continue,
                    Event::Close(close) => close
                        .map_or(Heard::Close(1005, String::new()), |c| Heard::Close(c.code, c.reason.into())),
                });
            }
        }
    }

    /// The next message, which must be JSON.
    pub(crate) fn receive(&mut self) -> Value {
        loop {
            match self.hear() {
                Heard::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("the server sends JSON");
                    if let (true, Some(number)) = (self.is_acknowledging, frame.get("sequenceId")) {
                        self.send(json!({"type": "sequenceAck", "sequenceId": number}));
                    }
                    return frame;
                }
                Heard::Ping(payload) => self.pong(&payload),
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The next message that is no gap notice.
    pub(crate) fn receive_but_gaps(&mut self) -> Value {
        loop {
            let frame = self.receive();
            if frame["event"] != "gap" {
                return frame;
            }
        }
    }

    /// A number that no request of this client had.
    pub(crate) fn next_ack(&mut self) -> u64 {
        self.last_ack += 1;
        self.last_ack
    }

    /// Joins a group and waits for the ack.
    pub(crate) fn join(&mut self, group: &str, ack_id: u64) {
        self.send(json!({"type": "joinGroup", "group": group, "ackId": ack_id}));
        assert_eq!(self.receive(), json!({"type": "ack", "ackId": ack_id, "success": true}));
    }

    /// Proves that nothing else was sent: a ping is answered next. Shards keep their order for each connection.
    pub(crate) fn expect_nothing(&mut self) {
        self.send(json!({"type": "ping"}));
        assert_eq!(self.receive(), json!({"type": "pong"}));
    }

    /// The payload of the next ping that has one, behind whatever else.
    pub(crate) fn ping(&mut self) -> Vec<u8> {
        loop {
            match self.hear() {
                Heard::Ping(payload) => return payload,
                Heard::Text(_) => {}
                other => panic!("expected a ping, got {other:?}"),
            }
        }
    }

    /// Ends the stream without a close frame.
    pub(crate) fn sever(&self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Cuts the connection without a close frame.
    pub(crate) fn cut(self) {
        drop(self.stream);
    }
}
