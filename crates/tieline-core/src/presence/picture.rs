//! [`Picture`]: who is where, as this node knows it, and what is to be told of it. Without I/O or a clock.
//!
//! What is known comes from two sides: connections of this node enter and leave, and the other nodes state how many connections
//! they hold of whom. Of these *stays* follows everything else: a user is present from the first stay anywhere until the last one
//! is gone and the time of grace is over. What changes is kept as news until it is drained, one for each user and room: who
//! has come and gone between two drains makes none.
//!
//! Tested in `presence/picture/tests.rs` against a model; what nodes state and lose, in `cluster/copies/tests.rs`.

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tieline_proto::presence::{Details, Event, Page, Person, Place, Stay, Totals, Turn};
use tieline_proto::{GroupName, HubName, Incarnation, NodeId, NodeName, UserId};

use crate::hub::Group;

/// Places of one user that a page shows; its connections are counted all the same.
const PLACES_SHOWN: usize = 16;

/// Where somebody can be present: a group, or without one a whole hub.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Room {
    pub(crate) hub: HubName,
    pub(crate) group: Option<GroupName>,
}

/// What has to be told of one room.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) room: Room,
    /// The subscribers on this node, if there are any.
    pub(crate) audience: Option<Arc<Group>>,
    /// By user.
    pub(crate) told: Vec<Told>,
}

/// A user that has come or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) event: Event,
    /// Which visit of the user it begins or ends; see [`Stay::visit`].
    pub(crate) visit: u64,
    /// The node whose connection that was: it tells the application.
    pub(crate) teller: NodeId,
}

/// Everything that is known.
pub(crate) struct Picture {
    me: NodeId,
    grace: Duration,
    rooms: HashMap<Room, Crowd>,
    /// Users without a connection, by the time at which they are gone, and a number that tells them apart.
    absent: BTreeMap<(Instant, u64), (Room, UserId)>,
    next_absence: u64,
    /// Rooms that have news.
    stirred: BTreeSet<Room>,
    /// The names of the other nodes.
    names: HashMap<Incarnation, NodeName>,
    /// Users in all rooms, each as often as there are rooms that it is in.
    users: usize,
}

/// Who is in one room.
#[derive(Default)]
struct Crowd {
    people: BTreeMap<UserId, Somebody>,
    /// Connections of users.
    connections: u64,
    /// Connections without a user, by node.
    anonymous: SmallVec<[(Incarnation, u64); 1]>,
    /// The subscribers on this node.
    audience: Option<Arc<Group>>,
    news: BTreeMap<UserId, Told>,
}

/// A user who is present.
struct Somebody {
    /// See [`Stay::visit`].
    visit: u64,
    stays: SmallVec<[Held; 1]>,
    /// Where there are no stays: who had the last one, and under which key that ends.
    absence: Option<Box<Absence>>,
}

/// A stay, and whose it is.
struct Held {
    node: Incarnation,
    details: Option<Details>,
    connections: u64,
}

struct Absence {
    until: (Instant, u64),
    last: NodeId,
    details: Option<Details>,
}

impl Picture {
    pub(crate) fn new(me: NodeId, grace: Duration) -> Self {
        Picture {
            me,
            grace,
            rooms: HashMap::new(),
            absent: BTreeMap::new(),
            next_absence: 0,
            stirred: BTreeSet::new(),
            names: HashMap::new(),
            users: 0,
        }
    }

    // ---- what happens ----

    /// One more connection of this node is in a room; `unix_ms` is the time. Returns what is to be stated.
    pub(crate) fn enter(
        &mut self,
        room: &Room,
        user: Option<&UserId>,
        details: Option<&Details>,
        unix_ms: u64,
    ) -> u64 {
        let me = self.me.incarnation;
        let Some(user) = user else { return self.anonymous(room, me, |count| count + 1) };
        let here = self.stay(room, user, details, me);
        let connections = here.map_or(0, |stay| stay.connections) + 1;
        let visit = here.map_or(unix_ms, |stay| stay.visit);
        let visit = self.set(room, user, details, me, Stay { visit, connections });
        Stay { visit, connections }.number()
    }

    /// One less is. Returns what is to be stated, nothing when there is none left with these details.
    pub(crate) fn exit(
        &mut self,
        room: &Room,
        user: Option<&UserId>,
        details: Option<&Details>,
        now: Instant,
    ) -> Option<u64> {
        let me = self.me.incarnation;
        let Some(user) = user else {
            return Some(self.anonymous(room, me, |count| count.saturating_sub(1))).filter(|left| *left > 0);
        };
        let stay = self.stay(room, user, details, me)?;
        let connections = stay.connections - 1;
        if connections == 0 {
            self.unset(room, user, details, me, now);
            return None;
        }
        let visit = self.set(room, user, details, me, Stay { connections, ..stay });
        Some(Stay { visit, connections }.number())
    }

    /// Another node states how many connections it holds; with nothing, that it holds none any more.
    pub(crate) fn stated(
        &mut self,
        room: &Room,
        user: Option<&UserId>,
        details: Option<&Details>,
        node: Incarnation,
        number: Option<u64>,
        now: Instant,
    ) {
        match (user, number) {
            (None, number) => drop(self.anonymous(room, node, |_| number.unwrap_or(0))),
            (Some(user), None) => self.unset(room, user, details, node, now),
            (Some(user), Some(number)) => {
                self.set(room, user, details, node, Stay::of(number));
            }
        }
    }

    /// Another node is there, and this is its name.
    pub(crate) fn meet(&mut self, node: &NodeId) {
        self.names.insert(node.incarnation, node.name.clone());
    }

    /// It is gone, and all that it stated was taken back.
    pub(crate) fn part(&mut self, node: Incarnation) {
        self.names.remove(&node);
    }

    /// Time passes: who did not come back in time has left.
    pub(crate) fn pass(&mut self, now: Instant) {
        while let Some(entry) = self.absent.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let (room, user) = entry.remove();
            let Some(crowd) = self.rooms.get_mut(&room) else { continue };
            let Some(somebody) = crowd.people.remove(&user) else { continue };
            self.users -= 1;
            let Some(absence) = somebody.absence else { continue };
            let Absence { last, details, .. } = *absence;
            let event = Event { turn: Turn::Leave, user: user.clone(), node: last.name.clone(), details };
            let told = Told { event, visit: somebody.visit, teller: last };
            match crowd.news.entry(user) {
                // Nobody was told that the user had come.
                Entry::Occupied(entry) => drop(entry.remove()),
                Entry::Vacant(entry) => drop(entry.insert(told)),
            }
            self.stirred.insert(room.clone());
            self.tidy(&room);
        }
    }

    /// When [`pass`](Picture::pass) has something to do next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.absent.keys().next().map(|(at, _)| *at)
    }

    /// What has changed since this was asked last.
    pub(crate) fn drain(&mut self) -> Vec<News> {
        let mut all = Vec::new();
        for room in std::mem::take(&mut self.stirred) {
            let Some(crowd) = self.rooms.get_mut(&room) else { continue };
            let told: Vec<Told> = std::mem::take(&mut crowd.news).into_values().collect();
            let audience = crowd.audience.clone();
            self.tidy(&room);
            if !told.is_empty() {
                all.push(News { room, audience, told });
            }
        }
        all
    }

    /// Whether there is anything to [`drain`](Picture::drain).
    pub(crate) fn has_news(&self) -> bool {
        !self.stirred.is_empty()
    }

    // ---- who wants to know ----

    /// One more connection of a shard is told of a room. `make` is called for the first one on this node.
    pub(crate) fn watch(&mut self, room: &Room, shard: u16, make: impl FnOnce() -> Arc<Group>) -> Arc<Group> {
        let crowd = self.rooms.entry(room.clone()).or_default();
        let audience = crowd.audience.get_or_insert_with(make);
        audience.enter(shard);
        Arc::clone(audience)
    }

    /// One less is.
    pub(crate) fn unwatch(&mut self, room: &Room, shard: u16) {
        let Some(crowd) = self.rooms.get_mut(room) else { return };
        if let Some(audience) = &crowd.audience {
            audience.exit(shard);
            if audience.members() == 0 {
                crowd.audience = None;
            }
        }
        self.tidy(room);
    }

    /// Some of those who are in a room, and how many there are. Whether that is complete is not known here.
    pub(crate) fn page(&self, room: &Room, after: Option<&str>, limit: usize, bytes: usize) -> Page {
        let Some(crowd) = self.rooms.get(room) else { return Page::default() };
        let anonymous = crowd.anonymous.iter().map(|(_, count)| count).sum();
        let totals = Totals {
            users: crowd.people.len() as u64,
            connections: crowd.connections + anonymous,
            anonymous,
        };
        let mut page = Page { totals, ..Page::default() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut people = crowd.people.range::<str, _>((from, Bound::Unbounded)).peekable();
        let mut room_left = bytes;
        while let Some((user, somebody)) = people.peek() {
            let size = somebody.size() + user.len();
            if page.users.len() >= limit || (size > room_left && !page.users.is_empty()) {
                page.next = page.users.last().map(|person| person.user.clone());
                break;
            }
            room_left = room_left.saturating_sub(size);
            page.users.push(self.person(user, somebody));
            people.next();
        }
        page
    }

    /// Users that are present, each as often as there are rooms that it is in.
    pub(crate) fn users(&self) -> usize {
        self.users
    }

    fn person(&self, user: &UserId, somebody: &Somebody) -> Person {
        let place = |held: &Held| Place {
            node: self.name(held.node),
            connections: held.connections,
            details: held.details.clone(),
        };
        Person {
            user: user.clone(),
            connections: somebody.stays.iter().map(|held| held.connections).sum(),
            places: somebody.stays.iter().take(PLACES_SHOWN).map(place).collect(),
        }
    }

    fn name(&self, node: Incarnation) -> NodeName {
        if node == self.me.incarnation {
            return self.me.name.clone();
        }
        let unknown = || NodeName::new(&node.to_string()).expect("hexadecimal digits are a name");
        self.names.get(&node).cloned().unwrap_or_else(unknown)
    }

    fn id(&self, node: Incarnation) -> NodeId {
        NodeId { name: self.name(node), incarnation: node }
    }

    // ---- how it is kept ----

    fn anonymous(&mut self, room: &Room, node: Incarnation, change: impl FnOnce(u64) -> u64) -> u64 {
        let crowd = self.rooms.entry(room.clone()).or_default();
        let at = crowd.anonymous.iter().position(|(of, _)| *of == node);
        let count = change(at.map_or(0, |at| crowd.anonymous[at].1));
        match at {
            Some(at) if count == 0 => drop(crowd.anonymous.swap_remove(at)),
            Some(at) => crowd.anonymous[at].1 = count,
            None if count > 0 => crowd.anonymous.push((node, count)),
            None => {}
        }
        if count == 0 {
            self.tidy(room);
        }
        count
    }

    fn stay(&self, room: &Room, user: &UserId, details: Option<&Details>, node: Incarnation) -> Option<Stay> {
        let somebody = self.rooms.get(room)?.people.get(user)?;
        let held = somebody.stays.iter().find(|held| held.is(node, details))?;
        Some(Stay { visit: somebody.visit, connections: held.connections })
    }

    /// Notes a stay. Returns the visit that it belongs to.
    fn set(
        &mut self,
        room: &Room,
        user: &UserId,
        details: Option<&Details>,
        node: Incarnation,
        stay: Stay,
    ) -> u64 {
        let (id, is_mine) = (self.id(node), node == self.me.incarnation);
        let crowd = self.rooms.entry(room.clone()).or_default();
        let somebody = match crowd.people.entry(user.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.users += 1;
                let visit = match crowd.news.remove(user) {
                    // Nobody was told yet that the user had left.
                    Some(left) => left.visit,
                    None => {
                        let (node, details) = (id.name.clone(), details.cloned());
                        let event = Event { turn: Turn::Join, user: user.clone(), node, details };
                        crowd
                            .news
                            .insert(user.clone(), Told { event, visit: stay.visit, teller: id.clone() });
                        self.stirred.insert(room.clone());
                        stay.visit
                    }
                };
                entry.insert(Somebody { visit, stays: SmallVec::new(), absence: None })
            }
        };
        if let Some(absence) = somebody.absence.take() {
            self.absent.remove(&absence.until);
        } else if !is_mine && stay.visit < somebody.visit {
            // Two nodes saw the user come at once: the first is the one who tells. Where both were first, both tell the same.
            somebody.visit = stay.visit;
            if let Some(told) = crowd.news.get_mut(user) {
                told.visit = stay.visit;
                told.teller = id;
            }
        }
        let before = match somebody.stays.iter_mut().find(|held| held.is(node, details)) {
            Some(held) => std::mem::replace(&mut held.connections, stay.connections),
            None => {
                let (details, connections) = (details.cloned(), stay.connections);
                somebody.stays.push(Held { node, details, connections });
                0
            }
        };
        crowd.connections = crowd.connections + stay.connections - before;
        somebody.visit
    }

    fn unset(
        &mut self,
        room: &Room,
        user: &UserId,
        details: Option<&Details>,
        node: Incarnation,
        now: Instant,
    ) {
        let last = self.id(node);
        let Some(crowd) = self.rooms.get_mut(room) else { return };
        let Some(somebody) = crowd.people.get_mut(user) else { return };
        let Some(at) = somebody.stays.iter().position(|held| held.is(node, details)) else { return };
        let held = somebody.stays.swap_remove(at);
        crowd.connections -= held.connections;
        if somebody.stays.is_empty() {
            let until = (now + self.grace, self.next_absence);
            self.next_absence += 1;
            somebody.absence = Some(Box::new(Absence { until, last, details: held.details }));
            self.absent.insert(until, (room.clone(), user.clone()));
        }
    }

    /// Forgets a room in which there is nobody, and of which nobody wants to know.
    fn tidy(&mut self, room: &Room) {
        let is_empty = |crowd: &Crowd| {
            crowd.people.is_empty()
                && crowd.anonymous.is_empty()
                && crowd.audience.is_none()
                && crowd.news.is_empty()
        };
        if self.rooms.get(room).is_some_and(is_empty) {
            self.rooms.remove(room);
        }
    }
}

impl Held {
    fn is(&self, node: Incarnation, details: Option<&Details>) -> bool {
        self.node == node && self.details.as_ref() == details
    }
}

impl Somebody {
    /// About how many bytes it is in a page.
    fn size(&self) -> usize {
        let place = |held: &Held| 64 + held.details.as_ref().map_or(0, |details| details.members().len());
        64 + self.stays.iter().take(PLACES_SHOWN).map(place).sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
