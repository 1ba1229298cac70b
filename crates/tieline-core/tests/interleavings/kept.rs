//! Durable messages under the scheduler: two or three nodes, a store that answers late, in any order, with refusals and
//! silences, links that lose messages, sockets that are lost, and persons who come back wherever they like, say where they
//! were, and say again what was not acknowledged. In the end all is well and everybody comes back; then the judge of
//! the real clusters is told what was said and heard.

mod person;
mod store;

use std::sync::Arc;
use std::time::Duration;

use tieline_core::logs::{GroupRule, LogRules};
use tieline_core::store::Retention;
use tieline_core::token::Keys;
use tieline_core::{Arrival, Client, Limits, Node, NodeSettings, Operator, Subprotocol};
use tieline_judge::{Dice, History, Kind, Target, What, judge};
use tieline_proto::role::Roles;
use tieline_proto::{HubName, NodeName, UserId};
use tieline_switchboard::{Settings, Slot, Station};

use self::person::Person;
use self::store::SlowStore;
use crate::net::{Heard, Net, Socket};
use crate::world::cluster::Membership;

/// The targets: groups with a history, then the inbox of each person.
const GROUPS: [&str; 2] = ["kept-one", "kept-two"];

/// Rounds after which a run that should have come to rest has not.
const RESTLESS: usize = 3_000;

struct Place {
    station: Station<Operator>,
    net: Net,
}

struct World {
    dice: Dice,
    places: Vec<Place>,
    nodes: Vec<Arc<Node>>,
    membership: Membership,
    store: SlowStore,
    persons: Vec<Person>,
    /// The number of things that happened.
    now: u32,
    /// Whether sockets are lost.
    is_stormy: bool,
    loses_messages: bool,
}

/// One run.
pub(crate) fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..300 + world.dice.below(500) {
        world.step();
    }
    world.come_to_rest();
    world.be_judged();
    world.membership.stop();
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x6b65_7074);
        let failures = dice.pick(&[0, 0, 5, 25]);
        let store = SlowStore::new(dice.below(usize::MAX) as u64, failures);
        let persons = 2 + dice.below(3);
        let mut world = World {
            places: Vec::new(),
            nodes: Vec::new(),
            membership: Membership::new(),
            store,
            persons: (0..persons).map(|number| Person::new(number, persons)).collect(),
            now: 0,
            is_stormy: dice.chance(70),
            loses_messages: dice.chance(50),
            dice,
        };
        let (nodes, shards) = (1 + world.dice.below(3), 1 + world.dice.below(2));
        (0..nodes).for_each(|_| world.add_node(shards));
        while world.carry_all() {}
        world
    }

    fn add_node(&mut self, shards: usize) {
        let settings = || NodeSettings {
            name: NodeName::new(&format!("node-{}", self.nodes.len())).unwrap(),
            shards,
            limits: Limits { messages_per_second: 0, ..Limits::default() },
            switchboard: Settings::default(),
            keys: Arc::new(Keys::new(["a key of the run"])),
            hubs: Vec::new(),
            presence: tieline_core::presence::PresenceRules::default(),
        };
        let is_known =
            |node: &Node| self.nodes.iter().any(|known| known.id().incarnation == node.id().incarnation);
        let (node, stations) = std::iter::repeat_with(|| Node::stations(settings()).unwrap())
            .find(|(node, _)| !is_known(node))
            .expect("the next millisecond comes");
        let history = Some(Retention { count: 100_000, ..Retention::default() });
        let kept = GroupRule { pattern: "kept-*".into(), history, drops: false, stores_members: false };
        self.membership.keep(&node, LogRules { groups: vec![kept], inbox: history }, self.store.engine());
        self.membership.join(&node);
        self.nodes.push(node);
        self.places.extend(stations.into_iter().map(|station| Place { station, net: Net::new() }));
    }

    fn step(&mut self) {
        self.now += 1;
        let at = self.dice.below(self.places.len());
        let who = self.dice.below(self.persons.len());
        match self.dice.below(100) {
            0..8 => self.connect(who, at),
            8..22 => self.say(who),
            22..34 => self.deliver(who),
            34..44 => self.places[at].station.take_commands(),
            44..52 => drop(self.places[at].station.hand_over()),
            52..62 => self.flush(at),
            62..74 => self.store.answer(&mut self.dice),
            74..85 => self.membership.run_tasks(),
            85..94 => self.membership.carry(&mut self.dice),
            94..96 if self.loses_messages => self.membership.lose(&mut self.dice),
            96..97 if self.is_stormy => self.lose_socket(who),
            97..98 => {
                let time = Duration::from_millis(self.dice.pick(&[1, 50, 400, 1_100]));
                self.membership.pass(time);
            }
            _ => self.read_on(at),
        }
        self.listen(at);
    }

    // ---- persons ----

    fn connect(&mut self, who: usize, at: usize) {
        if self.persons[who].at.is_some() {
            return;
        }
        let client = Client {
            hub: HubName::new("hub").unwrap(),
            user: Some(UserId::new(&self.persons[who].user).unwrap()),
            roles: Arc::new(Roles::everything()),
            groups: Vec::new(),
            subprotocol: Subprotocol::Tieline,
            expires: None,
            place: None,
            device: None,
            details: None,
            replaces: None,
        };
        let Place { station, net } = &mut self.places[at];
        let arrival = Arrival::Client(Box::new(client));
        let slot =
            station.adopt(&[], Subprotocol::Tieline.format(0), None, arrival).expect("there is a slot");
        net.put(slot, Socket::new(who, usize::MAX, false));
        station.settle();
        self.persons[who].connected(self.now, (at, slot));
    }

    /// A person writes a message, or says again what it has no answer to.
    fn say(&mut self, who: usize) {
        let target = self.dice.below(GROUPS.len() + self.persons.len());
        let again = self.dice.chance(30);
        let now = self.now;
        self.write(who, |person| if again { person.say_again() } else { person.say(now, target) });
    }

    fn write(&mut self, who: usize, frames: impl FnOnce(&mut Person) -> Vec<String>) {
        let person = &mut self.persons[who];
        let Some((at, slot)) = person.at.filter(|_| person.is_greeted) else { return };
        let frames = frames(person);
        let Some(socket) = self.places[at].net.get(slot) else { return };
        for frame in frames {
            person::write(&mut socket.outbox, &frame);
        }
    }

    fn lose_socket(&mut self, who: usize) {
        let Some((at, slot)) = self.persons[who].at else { return };
        let Place { station, net } = &mut self.places[at];
        station.lose_socket(slot);
        for slot in station.sockets_to_drop() {
            net.remove(slot);
        }
        self.persons[who].lost(self.now);
    }

    // ---- what a shard's thread does ----

    /// The server reads a part of what a person wrote.
    fn deliver(&mut self, who: usize) {
        let Some((at, slot)) = self.persons[who].at else { return };
        let len = self.places[at].net.get(slot).map_or(0, |socket| socket.outbox.len());
        let count = if self.dice.chance(50) { len } else { self.dice.below(len + 1) };
        self.read(at, slot, count);
    }

    fn read(&mut self, at: usize, slot: Slot, count: usize) {
        let Place { station, net } = &mut self.places[at];
        if station.shard().is_parked(slot) {
            return;
        }
        station.receive_kept(slot);
        let Some(socket) = net.get(slot) else { return };
        if station.shard().is_parked(slot) || count == 0 {
            return;
        }
        let mut bytes: Vec<u8> = socket.outbox.drain(..count).collect();
        station.receive(slot, &mut bytes);
    }

    fn read_on(&mut self, at: usize) {
        let station = &mut self.places[at].station;
        for slot in station.take_readable() {
            if !station.shard().is_parked(slot) {
                station.receive_kept(slot);
            }
        }
    }

    fn flush(&mut self, at: usize) {
        let Place { station, net } = &mut self.places[at];
        station.flush(net, || false);
    }

    /// Persons hear what was flushed, and answer it.
    fn listen(&mut self, at: usize) {
        for (who, heard) in std::mem::take(&mut self.places[at].net.heard) {
            let Heard::Text(text) = heard else { continue };
            if self.persons[who].at.is_some_and(|(of, _)| of == at) {
                let now = self.now;
                let answers = self.persons[who].hear(now, &text);
                self.write(who, |_| answers);
            }
        }
    }

    fn carry_all(&self) -> bool {
        self.membership.run_tasks();
        self.membership.carry_all()
    }

    // ---- the end ----

    /// All is well from now on: everybody comes, says what was not acknowledged, and hears what was missed.
    fn come_to_rest(&mut self) {
        self.store.get_well();
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < RESTLESS, "it does not come to rest: {:?}", self.persons);
            self.now += 1;
            let before: usize = self.persons.iter().map(Person::events).sum();
            let carried = self.carry_all();
            for at in 0..self.places.len() {
                self.places[at].station.take_commands();
                self.places[at].station.hand_over();
                self.read_on(at);
                self.flush(at);
                self.listen(at);
            }
            for who in 0..self.persons.len() {
                let at = who % self.places.len();
                self.connect(who, at);
                self.write(who, |person| person.say_again());
                if let Some((at, slot)) = self.persons[who].at {
                    let len = self.places[at].net.get(slot).map_or(0, |socket| socket.outbox.len());
                    self.read(at, slot, len);
                }
            }
            let is_quiet = !carried
                && before == self.persons.iter().map(Person::events).sum::<usize>()
                && self.persons.iter().all(Person::is_content);
            if is_quiet {
                // What a link lost is found by comparing, once in a while.
                self.membership.pass(Duration::from_secs(6));
            } else {
                self.membership.pass(Duration::from_millis(20));
            }
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet > 4 {
                return;
            }
        }
    }

    fn be_judged(&mut self) {
        let group = |name: &&str| Target { name: (*name).to_owned(), kind: Kind::Durable };
        let inbox = |person: &Person| Target {
            name: format!("inbox of {}", person.user),
            kind: Kind::Inbox(person.user.clone()),
        };
        let mut history = History {
            targets: GROUPS.iter().map(group).chain(self.persons.iter().map(inbox)).collect(),
            end: self.now + 1,
            ..History::default()
        };
        for person in &mut self.persons {
            let (sender, receiver) = person.testify(self.now);
            history.senders.push(sender);
            history.receivers.push(receiver);
        }
        let asked = |receiver: &tieline_judge::Receiver| {
            receiver.events.iter().any(|event| matches!(event.what, What::Joined { .. }))
        };
        assert!(history.receivers.iter().all(asked), "everybody was let in somewhere");
        let verdict = judge(&history);
        assert!(verdict.is_kept(), "{}", verdict.report(&history));
    }
}
