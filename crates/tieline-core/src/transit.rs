//! [`Transit`]: live messages for users who are on their way from one node to another.
//!
//! A node claims a user before the user's connection is told that it is connected, and goes on claiming one whose last
//! connection it has sent away, for a while. What comes for a user that a node claims and has no connection of is held: it is
//! delivered here as soon as the user is connected, before anything else, or handed on to the node that has the newest claim by then. So
//! a user who is sent away and comes back elsewhere within [`PATIENCE`] misses nothing. Of several nodes
//! that claim a user the one holds a message that has the newest claim as far as the message's origin knew: so it is held once.
//!
//! Without I/O and without a clock. Tested below, in `tests/sessions/drains.rs` and with real processes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_proto::{HubName, Incarnation, MessageId, UserId};

use crate::delivery::Delivery;

/// How long a user may be on the way.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a node goes on claiming a user after it has heard that another one does: what was sent by nodes that had not heard of that is
/// on its way.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are held for one user. What comes beyond is given to nobody, as if the user were away.
const PER_USER: usize = 64 << 10;

/// Bytes that are held at all, likewise.
const IN_ALL: usize = 16 << 20;

/// What a message counts for beside its payload.
const OVERHEAD: usize = 256;

type Key = (HubName, UserId);

/// A user without a connection.
#[derive(Default)]
struct Traveller {
    /// The claims of connections that were sent away: the user is leaving this node. Otherwise it is coming.
    claims: Vec<u64>,
    /// Since when it has none, or since when anything is held for it.
    since: Option<Instant>,
    /// Since when another node claims it.
    elsewhere: Option<Instant>,
    held: Vec<Delivery>,
    bytes: usize,
    /// What its connection here was given that had come from another node itself a moment before.
    given: Vec<MessageId>,
}

#[derive(Default)]
struct Table {
    of: HashMap<Key, Traveller>,
    bytes: usize,
}

/// The users of a node that are on their way.
#[derive(Default)]
pub(crate) struct Transit {
    /// Logins that are under way and users that are leaving: while there is none nobody is looked for.
    travellers: AtomicUsize,
    table: Mutex<Table>,
}

/// What became of a message that was to be held.
pub(crate) enum Held {
    /// It is.
    Yes,
    /// The user has it, or will.
    Again(Delivery),
    /// There is no room for it.
    NoRoom(Delivery),
}

/// What is to be done for a traveller.
pub(crate) enum Due {
    /// A message is to be handed to the node that has the user now.
    HandOn(Incarnation, Delivery),
    /// The user did not come in time.
    Lost(Delivery),
    /// The claim of a connection that was sent away is to be taken back.
    Release(HubName, UserId, u64),
}

impl Transit {
    /// Whether anybody may be on the way.
    pub(crate) fn is_any(&self) -> bool {
        self.travellers.load(Ordering::Acquire) > 0
    }

    /// A user is claimed whose connection is not told yet.
    pub(crate) fn begin_login(&self) {
        self.travellers.fetch_add(1, Ordering::AcqRel);
    }

    /// It is, or it has ended.
    pub(crate) fn end_login(&self) {
        self.travellers.fetch_sub(1, Ordering::AcqRel);
    }

    /// The last connection of a user was sent away, which was `given` these messages since it came. Its claim is to be kept until it is
    /// [`Due`].
    pub(crate) fn leave(
        &self,
        hub: &HubName,
        user: &UserId,
        claim: u64,
        given: Vec<MessageId>,
        now: Instant,
    ) {
        self.travellers.fetch_add(1, Ordering::AcqRel);
        let mut table = self.lock();
        let traveller = table.of.entry((hub.clone(), user.clone())).or_default();
        traveller.claims.push(claim);
        traveller.since = Some(now);
        traveller.elsewhere = None;
        traveller.given = given;
    }

    /// Whether a connection of a user was sent away from here, and is still claimed.
    pub(crate) fn is_leaving(&self, hub: &HubName, user: &UserId) -> bool {
        let table = self.lock();
        table.of.get(&(hub.clone(), user.clone())).is_some_and(|traveller| !traveller.claims.is_empty())
    }

    /// Holds a message for a user who has no connection here, unless the user has it, or it is held: two shards may have missed
    /// the user, and one who goes from node to node is followed by what it had at the one before.
    pub(crate) fn hold(&self, user: &UserId, delivery: Delivery, now: Instant) -> Held {
        let (id, bytes) = (delivery.message.id, delivery.message.payload.len() + OVERHEAD);
        let mut table = self.lock();
        if table.bytes + bytes > IN_ALL {
            return Held::NoRoom(delivery);
        }
        let traveller = table.of.entry((delivery.hub.name().clone(), user.clone())).or_default();
        traveller.since.get_or_insert(now);
        if traveller.given.contains(&id) || traveller.held.last().is_some_and(|last| last.message.id == id) {
            return Held::Again(delivery);
        }
        if traveller.bytes + bytes > PER_USER {
            return Held::NoRoom(delivery);
        }
        traveller.bytes += bytes;
        traveller.held.push(delivery);
        table.bytes += bytes;
        Held::Yes
    }

    /// A user is connected here: what was held, in the order in which it came.
    pub(crate) fn take(&self, hub: &HubName, user: &UserId) -> Vec<Delivery> {
        let mut table = self.lock();
        let key = (hub.clone(), user.clone());
        let Some(traveller) = table.of.get_mut(&key) else { return Vec::new() };
        let held = std::mem::take(&mut traveller.held);
        let bytes = std::mem::take(&mut traveller.bytes);
        if traveller.claims.is_empty() {
            table.of.remove(&key);
        }
        table.bytes -= bytes;
        held
    }

    /// What is due now. `whereabouts` says which other node has the newest claim to a user, if it is another.
    pub(crate) fn due(
        &self,
        now: Instant,
        whereabouts: impl Fn(&HubName, &UserId) -> Option<Incarnation>,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        let mut table = self.lock();
        let mut freed = 0;
        table.of.retain(|(hub, user), traveller| {
            let elsewhere = whereabouts(hub, user);
            let waited = traveller.since.map_or(PATIENCE, |since| now.duration_since(since));
            traveller.elsewhere = elsewhere.and(traveller.elsewhere.or(Some(now)));
            if waited < PATIENCE && elsewhere.is_none() {
                return true;
            }
            let lingers = traveller.elsewhere.is_some_and(|since| now.duration_since(since) < LINGER);
            freed += std::mem::take(&mut traveller.bytes);
            due.extend(traveller.held.drain(..).map(|delivery| match elsewhere {
                Some(node) => Due::HandOn(node, delivery),
                None => Due::Lost(delivery),
            }));
            if lingers && !traveller.claims.is_empty() {
                return true;
            }
            self.travellers.fetch_sub(traveller.claims.len(), Ordering::AcqRel);
            due.extend(
                traveller.claims.drain(..).map(|claim| Due::Release(hub.clone(), user.clone(), claim)),
            );
            false
        });
        table.bytes -= freed;
        due
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smallvec::SmallVec;
    use tieline_proto::Payload;

    use super::*;
    use crate::delivery::Target;
    use crate::hub::{Hub, LocalHubs};
    use crate::message::{Message, Way};

    fn hub() -> Arc<Hub> {
        LocalHubs::new(1).get_or_make(&HubName::new("hub").unwrap())
    }

    fn user() -> UserId {
        UserId::new("u").unwrap()
    }

    fn delivery(hub: &Arc<Hub>, n: u64, size: usize) -> Delivery {
        let payload = Payload::from_text(&"x".repeat(size));
        Delivery {
            hub: Arc::clone(hub),
            message: Message::new(Way::User(user()), None, MessageId(u128::from(n)), n, payload),
            to: SmallVec::from_iter([Target::User(user())]),
            newest: None,
            handed_on: false,
            except: SmallVec::new(),
            users: Vec::new(),
            filter: None,
            receipt: None,
        }
    }

    fn is_held(transit: &Transit, user: &UserId, delivery: Delivery, now: Instant) -> bool {
        matches!(transit.hold(user, delivery, now), Held::Yes)
    }

    fn numbers(due: &[Due]) -> Vec<String> {
        let number = |due: &Due| match due {
            Due::HandOn(node, delivery) => format!("{}: {}", node.0, delivery.message.time_ms),
            Due::Lost(delivery) => format!("lost: {}", delivery.message.time_ms),
            Due::Release(_, user, claim) => format!("release {user} {claim}"),
        };
        due.iter().map(number).collect()
    }

    #[test]
    fn who_leaves_is_followed_by_what_came_meanwhile() {
        let (transit, hub, start) = (Transit::default(), hub(), Instant::now());
        assert!(!transit.is_any());
        transit.leave(hub.name(), &user(), 7, Vec::new(), start);
        assert!(transit.is_any());
        for n in 1..=3 {
            assert!(is_held(&transit, &user(), delivery(&hub, n, 10), start));
        }
        assert!(transit.due(start + PATIENCE / 2, |_, _| None).is_empty());
        // Two shards have missed the user with the same message.
        assert!(!is_held(&transit, &user(), delivery(&hub, 3, 10), start));
        let came = start + PATIENCE / 2;
        let due = transit.due(came, |_, _| Some(Incarnation(9)));
        assert_eq!(numbers(&due), ["9: 1", "9: 2", "9: 3"]);
        // However long it took to come: others may not have heard of that.
        assert!(is_held(&transit, &user(), delivery(&hub, 4, 10), came + LINGER / 2));
        assert_eq!(numbers(&transit.due(came + LINGER / 2, |_, _| Some(Incarnation(9)))), ["9: 4"]);
        assert_eq!(numbers(&transit.due(came + LINGER, |_, _| Some(Incarnation(9)))), ["release u 7"]);
        assert!(!transit.is_any());
        assert!(transit.due(start + PATIENCE * 2, |_, _| None).is_empty());
    }

    #[test]
    fn what_was_sent_before_its_origin_knew_better_is_handed_on_too() {
        let (transit, hub, start) = (Transit::default(), hub(), Instant::now());
        transit.leave(hub.name(), &user(), 7, Vec::new(), start);
        let elsewhere = |_: &HubName, _: &UserId| Some(Incarnation(9));
        assert!(transit.due(start, elsewhere).is_empty());
        assert!(is_held(&transit, &user(), delivery(&hub, 1, 10), start + LINGER / 2));
        assert_eq!(numbers(&transit.due(start + LINGER / 2, elsewhere)), ["9: 1"]);
        assert_eq!(numbers(&transit.due(start + LINGER, elsewhere)), ["release u 7"]);
        assert!(!transit.is_any());
    }

    #[test]
    fn what_the_user_was_given_here_does_not_follow_it() {
        let (transit, hub, start) = (Transit::default(), hub(), Instant::now());
        transit.leave(hub.name(), &user(), 7, vec![MessageId(1)], start);
        assert!(!is_held(&transit, &user(), delivery(&hub, 1, 10), start));
        assert!(is_held(&transit, &user(), delivery(&hub, 2, 10), start));
        assert_eq!(numbers(&transit.due(start, |_, _| Some(Incarnation(9)))), ["9: 2"]);
    }

    #[test]
    fn who_does_not_come_is_not_waited_for_longer() {
        let (transit, hub, start) = (Transit::default(), hub(), Instant::now());
        transit.leave(hub.name(), &user(), 7, Vec::new(), start);
        assert!(is_held(&transit, &user(), delivery(&hub, 1, 10), start));
        assert_eq!(numbers(&transit.due(start + PATIENCE, |_, _| None)), ["lost: 1", "release u 7"]);
        // One whose login never ends.
        transit.begin_login();
        assert!(is_held(&transit, &user(), delivery(&hub, 2, 10), start));
        assert!(transit.due(start, |_, _| None).is_empty());
        assert_eq!(numbers(&transit.due(start + PATIENCE, |_, _| None)), ["lost: 2"]);
        transit.end_login();
        assert!(!transit.is_any());
    }

    #[test]
    fn who_comes_gets_what_was_held_in_order() {
        let (transit, hub, start) = (Transit::default(), hub(), Instant::now());
        transit.begin_login();
        for n in 1..=3 {
            assert!(is_held(&transit, &user(), delivery(&hub, n, 10), start));
        }
        let held: Vec<u64> =
            transit.take(hub.name(), &user()).iter().map(|delivery| delivery.message.time_ms).collect();
        transit.end_login();
        assert_eq!(held, [1, 2, 3]);
        assert!(transit.due(start + PATIENCE, |_, _| None).is_empty());
    }

    #[test]
    fn one_user_and_all_together_have_so_much_room() {
        let (transit, hub, start) = (Transit::default(), hub(), Instant::now());
        let most = PER_USER / (1000 + OVERHEAD);
        let taken = (0..200).filter(|n| is_held(&transit, &user(), delivery(&hub, *n, 1000), start)).count();
        assert_eq!(taken, most);
        let others = |n: u64| UserId::new(&format!("u{n}")).unwrap();
        let room = (0..10_000).filter(|n| is_held(&transit, &others(*n), delivery(&hub, 1, 50_000), start));
        assert_eq!(room.count(), (IN_ALL - most * (1000 + OVERHEAD)) / (50_000 + OVERHEAD));
        // What is gone leaves its room to others.
        transit.due(start + PATIENCE, |_, _| None);
        assert!(is_held(&transit, &user(), delivery(&hub, 1, 1000), start));
    }
}
