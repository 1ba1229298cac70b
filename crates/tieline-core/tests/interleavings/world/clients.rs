//! What clients do: they come, ask, are cut, come back and go.

use std::sync::Arc;

use tieline_core::{Arrival, Client, Subprotocol};
use tieline_proto::role::Roles;
use tieline_proto::{GroupName, HubName, UserId};
use tieline_switchboard::Slot;
use tieline_websocket::encode_close_masked;

use super::World;
use crate::ledger::{FEW_ROLES, Guest, Message};
use crate::net::Socket;
use crate::wire::{self, Ask, Draft, GROUPS, HUBS, Request, Target, USERS, Who};
use tieline_judge::Dice;

const DIALECTS: [(usize, Subprotocol); 4] = [
    (3, Subprotocol::Azure),
    (5, Subprotocol::AzureReliable),
    (6, Subprotocol::Tieline),
    (2, Subprotocol::Plain),
];

impl World {
    /// A client comes to a shard.
    pub(super) fn connect(&mut self, at: usize) {
        let dice = &mut self.dice;
        let guest = Guest {
            hub: usize::from(dice.chance(25)),
            user: dice.chance(80).then(|| dice.below(USERS.len())),
            dialect: dice.weighed(&DIALECTS),
            has_all_roles: dice.chance(80),
            token_group: dice.chance(30).then(|| dice.below(GROUPS.len())),
            place: at,
        };
        let roles = if guest.has_all_roles { Roles::everything() } else { Roles::parse(FEW_ROLES) };
        let client = Client {
            hub: HubName::new(HUBS[guest.hub]).unwrap(),
            user: guest.user.map(|user| UserId::new(USERS[user]).unwrap()),
            roles: Arc::new(roles),
            groups: guest
                .token_group
                .map(|group| GroupName::new(GROUPS[group]).unwrap())
                .into_iter()
                .collect(),
            subprotocol: guest.dialect,
            expires: None,
            place: None,
            device: None,
            details: None,
            replaces: None,
        };
        let refused = self.ledger.refusal(&guest);
        let slot = self.adopt(at, guest.dialect, Arrival::Client(Box::new(client)));
        let shard = self.places[at].station.shard();
        let session = shard.session(slot);
        assert_eq!(session.is_none(), refused.is_some(), "whether {guest:?} is refused");
        let id = session.map(|session| session.id().to_string()).unwrap_or_default();
        let address = session.is_some().then(|| shard.address(slot));
        let who = self.ledger.arrived(guest, id, refused);
        self.addresses.push(address);
        self.places[at].net.get(slot).unwrap().who = who;
        self.look_around(at);
    }

    /// Puts a new socket, of nobody yet, where the server wants it.
    fn adopt(&mut self, at: usize, dialect: Subprotocol, arrival: Arrival) -> Slot {
        let deflates = self.dice.chance(15);
        let room = self.dice.below(self.climate.gain);
        let place = &mut self.places[at];
        let format = dialect.format(if deflates { 15 } else { 0 });
        let slot = place.station.adopt(&[], format, None, arrival).expect("there is a slot");
        for slot in place.station.sockets_to_drop() {
            place.net.remove(slot);
        }
        place.net.put(slot, Socket::new(Who::MAX, room, deflates));
        place.station.settle();
        slot
    }

    /// A client of the reliable protocol wants its connection back, mostly where it was.
    pub(super) fn recover(&mut self, who: Who) {
        let home = self.ledger.peers[who].guest.place;
        let at = if self.dice.chance(90) { home } else { self.dice.below(self.places.len()) };
        if at == home {
            return self.recover_at_home(who);
        }
        let slot = self.adopt(at, Subprotocol::AzureReliable, self.recovery(who));
        self.turned_away(who, at, slot);
    }

    fn recovery(&self, who: Who) -> Arrival {
        let peer = &self.ledger.peers[who];
        let hub = HubName::new(HUBS[peer.guest.hub]).unwrap();
        Arrival::Recovery { hub, id: peer.id.parse().unwrap(), token: peer.token.clone().unwrap() }
    }

    /// Somebody else's socket now: it is only told that it cannot come back.
    fn turned_away(&mut self, who: Who, at: usize, slot: Slot) {
        let guest = Guest { place: at, ..self.ledger.peers[who].guest };
        let stranger = self.ledger.arrived(guest, String::new(), Some(1008));
        self.addresses.push(None);
        self.places[at].net.get(slot).unwrap().who = stranger;
        self.look_around(at);
    }

    pub(super) fn recover_at_home(&mut self, who: Who) {
        let at = self.ledger.peers[who].guest.place;
        let slot = self.adopt(at, Subprotocol::AzureReliable, self.recovery(who));
        if self.ledger.peers[who].has_ended {
            return self.turned_away(who, at, slot);
        }
        assert_eq!(
            self.addresses[who].map(|address| address.slot),
            Some(slot),
            "connection {who} was not recovered"
        );
        self.places[at].net.get(slot).unwrap().who = who;
        self.ledger.resumed(who);
        // What was not answered is asked again, under the same ackId.
        let unanswered = self.ledger.peers[who].unanswered.clone();
        for request in unanswered {
            self.write(at, slot, request);
        }
        self.look_around(at);
    }

    /// A socket fails, or the client's half of it ends, or it is found broken only when it is written to.
    pub(super) fn lose_socket(&mut self, at: usize, slot: Slot) {
        let place = &mut self.places[at];
        let socket = place.net.get(slot).unwrap();
        let who = socket.who;
        self.ledger.peers[who].lost_socket = true;
        let way = self.dice.below(3);
        self.ledger.note(|| format!("{who} loses its socket in way {way}"));
        match way {
            0 => place.station.lose_socket(slot),
            1 => {
                socket.outbox.clear();
                socket.says_goodbye = true;
                place.station.end_of_input(slot);
            }
            _ => socket.is_broken = true,
        }
        self.look_around(at);
    }

    /// A client says goodbye, or answers the server's.
    pub(super) fn say_goodbye(&mut self, at: usize, slot: Slot, code: Option<u16>) {
        let Some(socket) = self.places[at].net.get(slot) else { return };
        if socket.says_goodbye {
            return;
        }
        socket.says_goodbye = true;
        self.ledger.note(|| format!("{} says goodbye with {code:?}", socket.who));
        encode_close_masked(&mut socket.outbox, code, "", [3, 1, 4, 1]);
        let peer = &mut self.ledger.peers[socket.who];
        peer.closed_itself = peer.closed_itself.or(code);
    }

    // ---- asking ----

    /// A client writes one request or several.
    pub(super) fn ask(&mut self) {
        let Some((at, slot)) = self.some_socket() else { return };
        let socket = self.places[at].net.get(slot).unwrap();
        let who = socket.who;
        if socket.says_goodbye || self.ledger.peers[who].refused.is_some() {
            return;
        }
        for _ in 0..1 + self.dice.below(3) {
            let request = self.some_request(who);
            if request.ack_id.is_some() {
                self.ledger.peers[who].unanswered.push(request.clone());
            }
            self.write(at, slot, request);
        }
    }

    fn write(&mut self, at: usize, slot: Slot, request: Request) {
        let Some(socket) = self.places[at].net.get(slot) else { return };
        let dialect = self.ledger.peers[socket.who].guest.dialect;
        let draft = match request.ask {
            Ask::Send(number) => {
                let Message { pad, target, no_echo, users, .. } = &self.ledger.messages[number];
                Some(Draft { number, pad: *pad, target, no_echo: *no_echo, users })
            }
            _ => None,
        };
        let name = |who: Who| self.ledger.peers[who].id.clone();
        wire::write(&mut socket.outbox, dialect, &request, draft, name);
        socket.asked.push_back(request);
    }

    fn some_request(&mut self, who: Who) -> Request {
        let dialect = self.ledger.peers[who].guest.dialect;
        let plain = dialect == Subprotocol::Plain;
        let group = self.dice.below(GROUPS.len());
        let ask = match self.dice.below(100) {
            0..22 => Ask::Join(group),
            22..32 => Ask::Leave(group),
            32..34 => self.dice.pick(&[Ask::Nonsense, Ask::Strange, Ask::Bytes]),
            34..38 if !plain => self.dice.pick(&[Ask::Ping, Ask::Event]),
            38..52 if dialect == Subprotocol::AzureReliable => {
                let heard = self.ledger.peers[who].numbered.len();
                let number = if self.dice.chance(10) { heard + 1_000 } else { self.dice.below(heard + 1) };
                Ask::Acknowledge(number as u64)
            }
            _ => Ask::Send(self.some_message(who, dialect)),
        };
        let takes_ack = matches!(ask, Ask::Join(_) | Ask::Leave(_) | Ask::Send(_) | Ask::Event) && !plain;
        let wants_ack = takes_ack && self.dice.chance(90);
        let repeats = self.dice.chance(12);
        let peer = &mut self.ledger.peers[who];
        let ack_id = wants_ack.then(|| {
            if repeats && peer.next_ack > 1 {
                return peer.next_ack - 1;
            }
            peer.next_ack += 1;
            peer.next_ack - 1
        });
        Request { ask, ack_id }
    }

    fn some_message(&mut self, who: Who, dialect: Subprotocol) -> usize {
        let lone = self.nodes.len() == 1;
        let dice = &mut self.dice;
        let peers = self.ledger.peers.len();
        let no_echo = dice.chance(30);
        let pad = if dice.chance(15) { 250 } else { dice.below(20) };
        let mut users = Vec::new();
        let some =
            |dice: &mut Dice, end: usize| -> Vec<usize> { (0..end).filter(|_| dice.chance(40)).collect() };
        let (tieline, plain) = (dialect == Subprotocol::Tieline, dialect == Subprotocol::Plain);
        let target = match dice.below(100) {
            // Whether nobody is there is known exactly to a lone node alone.
            0..20 if tieline || (plain && lone) => Target::User(dice.below(USERS.len())),
            20..35 if tieline => Target::All,
            35..50 if tieline => Target::Many {
                groups: some(dice, GROUPS.len()),
                users: some(dice, USERS.len()),
                connections: (0..dice.below(3)).map(|_| dice.below(peers)).collect(),
                excluded: (0..dice.below(2)).map(|_| dice.below(peers)).collect(),
            },
            _ => {
                if tieline && dice.chance(15) {
                    users = some(dice, USERS.len());
                }
                Target::Group(dice.below(GROUPS.len()))
            }
        };
        let target = self.tidied(target);
        // Plain JSON never echoes.
        self.ledger.draft(who, target, no_echo || plain, users, pad)
    }

    /// Without names that stand there twice or are no connection's, and never without any.
    fn tidied(&self, target: Target) -> Target {
        let Target::Many { groups, users, mut connections, mut excluded } = target else { return target };
        connections.retain(|who| self.ledger.peers[*who].refused.is_none());
        excluded.retain(|who| self.ledger.peers[*who].refused.is_none());
        connections.sort_unstable();
        connections.dedup();
        if groups.is_empty() && users.is_empty() && connections.is_empty() {
            return Target::All;
        }
        Target::Many { groups, users, connections, excluded }
    }
}
