//! Presence under everything at once: users come, go, join, leave and recover elsewhere, links break, nodes die and others start,
//! as a seed says. Again and again all stands still, and then every node has to know who is there, to the last connection, and
//! every subscriber has to have been told.
//!
//! `TIELINE_PRESENCE_SECONDS` says for how long, `TIELINE_SEED` with which seed it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_core::broker::MemoryExchange;
use tieline_core::presence::PresenceRules;
use tieline_core::{ClusterTimes, Subprotocol};
use tieline_judge::Dice;
use tieline_proto::{ConnectionId, HubName};

use crate::house::{Guest, House, PATIENCE, Peer, eventually, patient};

const GROUPS: [&str; 3] = ["room-a", "room-b", "room-c"];
const USERS: usize = 25;
const HOUSES: usize = 3;
/// Things that happen before all stands still.
const STEPS: usize = 150;
/// How long it is run where nothing else is asked for.
const SECONDS: u64 = 15;

const HUB: &str = "hub";

/// Where somebody may be: the hub, and the groups.
fn rooms() -> impl Iterator<Item = Option<&'static str>> {
    [None].into_iter().chain(GROUPS.map(Some))
}

/// A connection of somebody.
struct Resident {
    house: usize,
    user: Option<String>,
    groups: BTreeSet<&'static str>,
    peer: Peer,
    /// What its `connected` frame said.
    connected: Value,
    subprotocol: Subprotocol,
    last_ack: u64,
}

/// A connection that is told of everything, and what it knows.
struct Watcher {
    peer: Peer,
    known: BTreeMap<Option<&'static str>, BTreeSet<String>>,
}

impl Watcher {
    fn new(house: &House) -> Self {
        // Nobody's, so that it is in no list.
        let guest = Guest { user: None, hub: HUB, ..Guest::new(Subprotocol::Tieline, "") };
        let (mut peer, _) = house.connect(0, guest);
        let mut known = BTreeMap::new();
        for room in rooms() {
            let mut question = json!({"type": "presence", "subscribe": true, "limit": 500});
            if let Some(group) = room {
                question["group"] = json!(group);
            }
            peer.send(question);
            loop {
                let frame = peer.receive();
                if let Some(users) = frame.get("users") {
                    assert_eq!(frame.get("next"), None);
                    let name = |user: &Value| user["userId"].as_str().unwrap().to_owned();
                    known.insert(room, users.as_array().unwrap().iter().map(name).collect());
                    break;
                }
                apply(&mut known, &frame);
            }
        }
        Watcher { peer, known }
    }

    /// Reads what has come.
    fn catch_up(&mut self) {
        self.peer.send(json!({"type": "ping"}));
        loop {
            let frame = self.peer.receive();
            if frame["type"] == "pong" {
                return;
            }
            apply(&mut self.known, &frame);
        }
    }
}

fn apply(known: &mut BTreeMap<Option<&'static str>, BTreeSet<String>>, frame: &Value) {
    if frame["event"] == "gap" {
        return;
    }
    assert_eq!(frame["type"], "presence", "{frame}");
    let group = frame.get("group").map(|group| group.as_str().unwrap());
    let room = rooms().find(|room| *room == group).unwrap();
    let users = known.get_mut(&room).unwrap();
    for event in frame["events"].as_array().unwrap() {
        let user = event["userId"].as_str().unwrap();
        match event["event"].as_str() {
            Some("join") => drop(users.insert(user.to_owned())),
            _ => drop(users.remove(user)),
        }
    }
}

struct World {
    exchange: MemoryExchange,
    houses: Vec<House>,
    watchers: Vec<Watcher>,
    residents: Vec<Resident>,
    dice: Dice,
    parted: Vec<(usize, usize)>,
}

fn house(exchange: &MemoryExchange) -> House {
    let rules = PresenceRules {
        hubs: vec![(HUB.into(), true)],
        groups: vec![("room-*".into(), true)],
        grace: Duration::from_millis(120),
    };
    let (beat, lease) = (Duration::from_millis(100), Duration::from_millis(500));
    let mut house = House::telling(2, rules);
    house.join(exchange, ClusterTimes { beat, lease, ..patient() });
    house
}

impl World {
    fn new(seed: u64) -> Self {
        let exchange = MemoryExchange::links();
        let houses: Vec<House> = (0..HOUSES).map(|_| house(&exchange)).collect();
        houses.iter().for_each(|house| house.wait_for_peers(HOUSES - 1));
        let watchers = houses.iter().map(Watcher::new).collect();
        let (residents, parted) = (Vec::new(), Vec::new());
        World { exchange, houses, watchers, residents, dice: Dice::new(seed), parted }
    }

    fn step(&mut self) {
        match self.dice.weighed(&[(40, 'c'), (32, 'e'), (25, 'j'), (15, 'l'), (6, 'm'), (1, 'p'), (1, 'd')]) {
            'c' => self.come(),
            'e' => self.end(),
            'j' => self.join(),
            'l' => self.leave(),
            'm' => self.recover(),
            'p' => self.part(),
            _ => self.die(),
        }
    }

    fn come(&mut self) {
        let house = self.dice.below(HOUSES);
        let shard = self.dice.below(2) as u16;
        let subprotocol = self.dice.pick(&[Subprotocol::Azure, Subprotocol::AzureReliable]);
        let user = self.dice.below(USERS + 3);
        let user = (user < USERS).then(|| format!("u{user:02}"));
        let device = self.dice.pick(&[None, Some("phone"), Some("laptop")]);
        let groups: BTreeSet<&str> = (0..self.dice.below(3)).map(|_| self.dice.pick(&GROUPS)).collect();
        let details = tieline_proto::presence::Details::new(device, None).unwrap();
        let guest = Guest {
            hub: HUB,
            user: user.clone(),
            groups: groups.iter().copied().collect(),
            details,
            ..Guest::new(subprotocol, "")
        };
        let (peer, connected) = self.houses[house].connect(shard, guest);
        self.residents.push(Resident { house, user, groups, peer, connected, subprotocol, last_ack: 0 });
    }

    fn one(&mut self) -> Option<usize> {
        (!self.residents.is_empty()).then(|| self.dice.below(self.residents.len()))
    }

    fn end(&mut self) {
        let Some(one) = self.one() else { return };
        let mut resident = self.residents.swap_remove(one);
        // One that could be recovered is there until its time is over.
        if resident.subprotocol == Subprotocol::AzureReliable || self.dice.chance(50) {
            resident.peer.send_frame(tieline_websocket::Opcode::Close, &1000u16.to_be_bytes());
        }
        resident.peer.cut();
    }

    fn ask(&mut self, one: usize, kind: &str, group: &str) {
        let resident = &mut self.residents[one];
        resident.last_ack += 1;
        let ack_id = json!(resident.last_ack);
        resident.peer.send(json!({"type": kind, "group": group, "ackId": ack_id}));
        let ack = resident.peer.receive();
        assert_eq!((&ack["ackId"], &ack["success"]), (&ack_id, &json!(true)), "{ack}");
    }

    fn join(&mut self) {
        let Some(one) = self.one() else { return };
        let group = self.dice.pick(&GROUPS);
        self.ask(one, "joinGroup", group);
        self.residents[one].groups.insert(group);
    }

    fn leave(&mut self) {
        let Some(one) = self.one() else { return };
        let group = self.dice.pick(&GROUPS);
        self.ask(one, "leaveGroup", group);
        self.residents[one].groups.remove(group);
    }

    /// A client is cut and comes back, to the same node or to another.
    fn recover(&mut self) {
        let Some(one) = self.one() else { return };
        let to = self.dice.below(HOUSES);
        let mut resident = self.residents.swap_remove(one);
        if resident.subprotocol != Subprotocol::AzureReliable {
            return resident.peer.cut();
        }
        let id: ConnectionId = resident.connected["connectionId"].as_str().unwrap().parse().unwrap();
        let token = resident.connected["reconnectionToken"].as_str().unwrap().to_owned();
        resident.peer.sever();
        let (house, hub) = (&self.houses[to], HubName::new(HUB).unwrap());
        let address = house.node.address(id);
        let (shard, arrival) = match address {
            Some(address) => (address.shard, tieline_core::Arrival::Recovery { hub, id, token }),
            None => {
                let (shard, arrival) = house.block_on(house.node.bring(hub, id, token));
                (shard.unwrap_or(0), arrival)
            }
        };
        let mut peer = house.adopt(shard, arrival, resident.subprotocol);
        if let crate::house::Heard::Text(text) = peer.hear() {
            resident.connected = serde_json::from_str(&text).unwrap();
            assert_eq!(resident.connected["event"], "connected", "{text}");
            (resident.house, resident.peer) = (to, peer);
            return self.residents.push(resident);
        }
        // Its node could not be reached, and keeps it for a minute: nobody can wait for that, so it is closed there.
        let house = &self.houses[resident.house];
        let close = tieline_core::ask::Ask::Close {
            who: tieline_core::ask::Who::Connection(id),
            excluded: Vec::new(),
            reason: String::new(),
        };
        let _ = house.block_on(house.node.answer(&HubName::new(HUB).unwrap(), close));
    }

    fn part(&mut self) {
        let one = self.dice.below(HOUSES);
        let other = (one + 1) % HOUSES;
        let id = |at: usize| self.houses[at].node.id().incarnation;
        self.exchange.part(id(one), id(other));
        self.parted.push((one, other));
    }

    fn mend(&mut self) {
        for (one, other) in std::mem::take(&mut self.parted) {
            let id = |at: usize| self.houses[at].node.id().incarnation;
            self.exchange.mend(id(one), id(other));
        }
    }

    /// A node dies, and another is started in its place.
    fn die(&mut self) {
        self.mend();
        let dead = self.dice.below(HOUSES);
        self.exchange.cut(self.houses[dead].node.id().incarnation);
        self.residents.retain(|resident| resident.house != dead);
        self.houses[dead] = house(&self.exchange);
        self.watchers[dead] = Watcher::new(&self.houses[dead]);
    }

    /// All stands still: everybody knows everything.
    fn check(&mut self) {
        self.mend();
        for (at, house) in self.houses.iter().enumerate() {
            for room in rooms() {
                let (truth, connections, anonymous) = self.truth(room);
                let group = room.map(|room| tieline_proto::GroupName::new(room).unwrap());
                let mut last = None;
                let is_so = || {
                    let hub = HubName::new(HUB).unwrap();
                    let page = house.node.presence_page(&hub, group.as_ref(), None, 500).unwrap();
                    let users: BTreeMap<String, u64> = page
                        .users
                        .iter()
                        .map(|person| (person.user.to_string(), person.connections))
                        .collect();
                    let is_so = page.is_complete
                        && users == truth
                        && (page.totals.connections, page.totals.anonymous) == (connections, anonymous)
                        && page.totals.users == truth.len() as u64;
                    last = Some(page);
                    is_so
                };
                let deadline = Instant::now() + PATIENCE;
                let mut is_so = is_so;
                while !is_so() {
                    if Instant::now() > deadline {
                        panic!("house {at}, {room:?}: {truth:?} {connections} {anonymous}, but {last:?}");
                    }
                    std::thread::yield_now();
                }
            }
        }
        let truth: BTreeMap<Option<&'static str>, BTreeSet<String>> =
            rooms().map(|room| (room, self.truth(room).0.into_keys().collect())).collect();
        for watcher in &mut self.watchers {
            eventually(|| {
                watcher.catch_up();
                watcher.known == truth
            });
        }
    }

    /// Users with their connections in a room, all its connections, and those of nobody; each watcher is one.
    fn truth(&self, room: Option<&str>) -> (BTreeMap<String, u64>, u64, u64) {
        let mut users = BTreeMap::new();
        let (mut all, mut nobody) = (0, 0);
        if room.is_none() {
            (all, nobody) = (HOUSES as u64, HOUSES as u64);
        }
        let is_in = |resident: &&Resident| room.is_none_or(|room| resident.groups.contains(room));
        for resident in self.residents.iter().filter(is_in) {
            all += 1;
            match &resident.user {
                Some(user) => *users.entry(user.clone()).or_default() += 1,
                None => nobody += 1,
            }
        }
        (users, all, nobody)
    }
}

#[test]
fn counts_never_drift_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seconds = number("TIELINE_PRESENCE_SECONDS").unwrap_or(SECONDS);
    let mut seed = number("TIELINE_SEED").unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut checks = 0u64;
    while Instant::now() < end {
        // So that a failure names the seed to begin with.
        println!("TIELINE_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..20 {
            for _ in 0..STEPS {
                world.step();
            }
            world.check();
            checks += 1;
            if Instant::now() > end {
                break;
            }
        }
        seed += 1;
    }
    println!("{checks} checks");
}
