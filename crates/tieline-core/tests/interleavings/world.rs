//! [`World`]: a node's stations, their sockets and clients, and the scheduler that has one of them do something next.

mod clients;
pub(crate) mod cluster;

use std::collections::HashSet;
use std::sync::Arc;

use tieline_core::token::Keys;
use tieline_core::{Node, NodeSettings, Operator};
use tieline_proto::NodeName;
use tieline_switchboard::{Address, Slot, Station};

use self::cluster::Membership;
use crate::climate::{Climate, RECOVERY};
use crate::ledger::Ledger;
use crate::net::{Heard, Net};
use crate::wire::{HUBS, USERS};
use tieline_judge::Dice;

/// More than any run fills.
const ROOMY: usize = 1 << 30;

/// One shard with its sockets.
pub(crate) struct Place {
    node: usize,
    pub(crate) station: Station<Operator>,
    net: Net,
}

/// What the scheduler may choose.
#[derive(Clone, Copy)]
enum Step {
    Connect,
    Ask,
    Deliver,
    ReadOn,
    TakeMailbox,
    HandOver,
    Flush,
    MakeRoom,
    Second,
    LoseSocket,
    Recover,
    SayGoodbye,
}

/// Each step with its weight.
const STEPS: [(usize, Step); 12] = [
    (8, Step::Connect),
    (28, Step::Ask),
    (22, Step::Deliver),
    (5, Step::ReadOn),
    (10, Step::TakeMailbox),
    (10, Step::HandOver),
    (14, Step::Flush),
    (8, Step::MakeRoom),
    (2, Step::Second),
    (2, Step::LoseSocket),
    (4, Step::Recover),
    (1, Step::SayGoodbye),
];

/// A run's state.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) climate: Climate,
    pub(crate) ledger: Ledger,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) places: Vec<Place>,
    /// Where each connection stands; of one that was refused nothing.
    addresses: Vec<Option<Address>>,
    seconds: u64,
    /// Joins the nodes, where there are several.
    membership: Option<Membership>,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut dice = Dice::new(seed);
        let climate = Climate::of(nodes, &mut dice);
        let count = climate.nodes * climate.shards;
        let ledger = Ledger::new(climate.limits.clone(), climate.short_of_lag, nodes == 1, count);
        let mut world = World {
            dice,
            climate,
            ledger,
            nodes: Vec::new(),
            places: Vec::new(),
            addresses: Vec::new(),
            seconds: 0,
            membership: (nodes > 1).then(Membership::new),
        };
        (0..nodes).for_each(|_| world.add_node());
        // Nodes that do not know each other yet promise less: who comes is known before clients are.
        while world.carry_all() {}
        world
    }

    fn add_node(&mut self) {
        let number = self.nodes.len();
        let settings = || NodeSettings {
            name: NodeName::new(&format!("node-{number}")).unwrap(),
            shards: self.climate.shards,
            limits: self.climate.limits.clone(),
            switchboard: self.climate.switchboard.clone(),
            keys: Arc::new(Keys::new(["a key of the run"])),
            hubs: Vec::new(),
            presence: tieline_core::presence::PresenceRules::default(),
        };
        // Of two nodes that start in the same millisecond one in 65,536 has the other's incarnation: in a long run some.
        let is_known =
            |node: &Node| self.nodes.iter().any(|known| known.id().incarnation == node.id().incarnation);
        let (node, stations) = std::iter::repeat_with(|| Node::stations(settings()).unwrap())
            .find(|(node, _)| !is_known(node))
            .expect("the next millisecond comes");
        if let Some(membership) = &mut self.membership {
            membership.join(&node);
        }
        self.nodes.push(node);
        self.places.extend(stations.into_iter().map(|station| Place {
            node: number,
            station,
            net: Net::new(),
        }));
    }

    /// One thing happens, at a place and to a client that the dice choose.
    pub(crate) fn step(&mut self) {
        let at = self.dice.below(self.places.len());
        if let Some(membership) = &self.membership
            && self.dice.chance(25)
        {
            return if self.dice.chance(40) {
                membership.run_tasks()
            } else {
                membership.carry(&mut self.dice)
            };
        }
        match self.dice.weighed(&STEPS) {
            Step::Connect => {
                if self.ledger.peers.iter().filter(|peer| peer.is_alive()).count() < self.climate.guests {
                    self.connect(at);
                }
            }
            Step::Ask => self.ask(),
            Step::Deliver => {
                if let Some((at, slot)) = self.some_socket() {
                    let len = self.places[at].net.get(slot).unwrap().outbox.len();
                    let count = match self.dice.below(4) {
                        0 => 1.min(len),
                        1 => self.dice.below(len + 1),
                        _ => len,
                    };
                    self.deliver(at, slot, count);
                }
            }
            Step::ReadOn => self.read_on(at),
            Step::TakeMailbox => self.take_mailbox(at),
            Step::HandOver => self.hand_over(at),
            Step::Flush => {
                let connections = 1 + self.dice.below(4);
                self.flush(at, connections);
            }
            Step::MakeRoom => {
                if let Some((at, slot)) = self.some_socket() {
                    let room = 1 + self.dice.below(self.climate.gain);
                    self.make_room(at, slot, room);
                }
            }
            Step::Second => {
                self.seconds += 1;
                self.advance(at);
            }
            Step::LoseSocket if self.climate.stormy => {
                if let Some((at, slot)) = self.some_socket() {
                    self.lose_socket(at, slot);
                }
            }
            Step::Recover if self.climate.stormy => {
                let who = self.dice.below(self.ledger.peers.len().max(1));
                if self.ledger.peers.get(who).is_some_and(|peer| peer.token.is_some()) {
                    self.recover(who);
                }
            }
            Step::SayGoodbye if self.climate.stormy => {
                if let Some((at, slot)) = self.some_socket() {
                    self.say_goodbye(at, slot, Some(1000));
                }
            }
            Step::LoseSocket | Step::Recover | Step::SayGoodbye => {}
        }
    }

    fn some_socket(&mut self) -> Option<(usize, Slot)> {
        let slots = |(at, place): (usize, &Place)| place.net.slots().into_iter().map(move |slot| (at, slot));
        let sockets: Vec<_> = self.places.iter().enumerate().flat_map(slots).collect();
        (!sockets.is_empty()).then(|| sockets[self.dice.below(sockets.len())])
    }

    // ---- what a shard's thread does ----

    /// The server reads so many bytes of what a client wrote.
    fn deliver(&mut self, at: usize, slot: Slot, count: usize) {
        if self.places[at].station.shard().is_parked(slot) {
            return;
        }
        // As a reactor does: what was kept comes first.
        self.reading(at, slot, |station| station.receive_kept(slot));
        let Place { station, net, .. } = &mut self.places[at];
        let Some(socket) = net.get(slot) else { return };
        if station.shard().is_parked(slot) || socket.is_broken || count == 0 {
            return;
        }
        let mut bytes: Vec<u8> = socket.outbox.drain(..count.min(socket.outbox.len())).collect();
        self.reading(at, slot, |station| station.receive(slot, &mut bytes));
    }

    /// Enters what the server comes to while it reads.
    fn reading(&mut self, at: usize, slot: Slot, read: impl FnOnce(&mut Station<Operator>)) {
        let Place { station, net, .. } = &mut self.places[at];
        let before = station.shard().counters().messages_in;
        read(station);
        let messages = station.shard().counters().messages_in - before;
        for _ in 0..messages {
            let socket = net.get(slot).expect("only a socket is read");
            let request = socket.asked.pop_front().expect("nothing is read that was not written");
            self.ledger.process(socket.who, &request, station.shard().now_ms());
        }
        self.look_around(at);
    }

    fn read_on(&mut self, at: usize) {
        for slot in self.places[at].station.take_readable() {
            if !self.places[at].station.shard().is_parked(slot) {
                self.reading(at, slot, |station| station.receive_kept(slot));
            }
        }
    }

    fn take_mailbox(&mut self, at: usize) {
        self.ledger.took(at);
        self.places[at].station.take_commands();
        self.look_around(at);
    }

    fn hand_over(&mut self, at: usize) {
        let full = self.places[at].station.hand_over();
        self.ledger.handed_over(at, &full);
    }

    fn flush(&mut self, at: usize, mut connections: usize) {
        let Place { station, net, .. } = &mut self.places[at];
        station.flush(net, || {
            connections -= 1;
            connections == 0
        });
        self.look_around(at);
    }

    fn make_room(&mut self, at: usize, slot: Slot, room: usize) {
        let Place { station, net, .. } = &mut self.places[at];
        let Some(socket) = net.get(slot) else { return };
        socket.room = socket.room.saturating_add(room).min(ROOMY);
        if std::mem::take(&mut socket.is_full) {
            station.writable(slot);
        }
    }

    fn advance(&mut self, at: usize) {
        self.places[at].station.advance(self.seconds * 1_000);
        self.look_around(at);
    }

    /// What stands behind every step at a place: clients hear, sockets go, connections are cut or end.
    fn look_around(&mut self, at: usize) {
        for (who, heard) in std::mem::take(&mut self.places[at].net.heard) {
            self.ledger.heard(who, &heard);
            if let (Heard::Close(code), Some(address)) = (&heard, self.addresses[who]) {
                self.say_goodbye(at, address.slot, *code);
            }
        }
        for slot in self.places[at].station.sockets_to_drop() {
            self.places[at].net.remove(slot);
        }
        for who in 0..self.addresses.len() {
            let Some(address) = self.addresses[who] else { continue };
            if self.ledger.peers[who].guest.place != at || self.ledger.peers[who].has_ended {
                continue;
            }
            let shard = self.places[at].station.shard();
            let Some(slot) = shard.find(address) else {
                let tick = shard.now_ms() / 1_000;
                let since = self.ledger.peers[who].detached;
                self.ledger.ended(who, since.is_some_and(|since| since + RECOVERY <= tick));
                continue;
            };
            if shard.is_detached(slot) && self.ledger.peers[who].detached.is_none() {
                assert!(self.ledger.peers[who].lost_socket, "connection {who} was cut for no reason");
                let since = shard.now_ms() / 1_000;
                self.ledger.peers[who].detached = Some(since);
                self.ledger.cut(who);
            }
        }
    }

    // ---- the end ----

    /// Everything that is on its way arrives, everybody reads everything, and who was cut comes back.
    pub(crate) fn come_to_rest(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let before = (self.ledger.now(), self.unread());
            let carried = self.carry_all();
            for at in 0..self.places.len() {
                for slot in self.places[at].net.slots() {
                    if self.places[at].net.get(slot).is_some_and(|socket| socket.is_broken) {
                        self.places[at].station.lose_socket(slot);
                        self.look_around(at);
                    }
                    self.make_room(at, slot, ROOMY);
                    let len = self.places[at].net.get(slot).map_or(0, |socket| socket.outbox.len());
                    self.deliver(at, slot, len);
                }
                self.read_on(at);
                self.take_mailbox(at);
                self.flush(at, usize::MAX);
                self.hand_over(at);
            }
            for who in 0..self.ledger.peers.len() {
                let peer = &self.ledger.peers[who];
                if peer.detached.is_some() && peer.token.is_some() {
                    self.recover_at_home(who);
                }
            }
            let is_quiet = !carried && (self.ledger.now(), self.unread()) == before;
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }

    /// Whatever nodes have for each other arrives. Returns whether there was anything.
    fn carry_all(&self) -> bool {
        self.membership.as_ref().is_some_and(|membership| {
            membership.run_tasks();
            membership.carry_all()
        })
    }

    fn unread(&mut self) -> usize {
        let mut unread = 0;
        for place in &mut self.places {
            for slot in place.net.slots() {
                unread += place.net.get(slot).map_or(0, |socket| socket.outbox.len());
            }
        }
        unread
    }

    /// The tables of each node say what the model says.
    pub(crate) fn check_tables(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for (index, name) in HUBS.iter().enumerate() {
                let Some(hub) = node.hubs().all().into_iter().find(|hub| hub.name().as_str() == *name) else {
                    continue;
                };
                let alive: Vec<_> = self
                    .ledger
                    .peers
                    .iter()
                    .filter(|peer| {
                        peer.is_alive()
                            && peer.guest.hub == index
                            && self.places[peer.guest.place].node == number
                    })
                    .collect();
                assert_eq!(hub.connections(), alive.len(), "connections of hub {name}");
                for (user, name) in USERS.iter().enumerate() {
                    let count = alive.iter().filter(|peer| peer.guest.user == Some(user)).count();
                    assert_eq!(hub.user_connections(name), count, "connections of user {name}");
                }
                let groups: HashSet<usize> = alive.iter().flat_map(|peer| peer.groups_now()).collect();
                assert_eq!(hub.groups(), groups.len(), "groups of hub {name}");
            }
        }
    }

    /// The node stops: everybody is told, and nothing is left.
    pub(crate) fn stop(&mut self) {
        self.ledger.stops = true;
        for at in 0..self.places.len() {
            self.places[at].station.stop(1001, "over");
            self.look_around(at);
        }
        self.come_to_rest();
        self.seconds += 60;
        for at in 0..self.places.len() {
            self.advance(at);
            assert_eq!(self.places[at].station.shard().counters().connections, 0, "all slots are free");
        }
        self.check_tables();
        if let Some(membership) = self.membership.take() {
            membership.stop();
        }
    }
}
