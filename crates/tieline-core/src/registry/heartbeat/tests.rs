//! Heartbeats with times of their own making: who lives, from when and until when.

use super::*;

const BEAT: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(15);

/// A registry, and a clock that moves when it is told to.
struct World {
    heartbeat: Heartbeat,
    now: Instant,
}

fn node(name: &str, incarnation: u64) -> NodeId {
    NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(incarnation) }
}

fn sign(name: &str, reaches: &[u64]) -> Sign {
    Sign {
        name: NodeName::new(name).unwrap(),
        registration: Registration { client_url: format!("ws://{name}"), ..Registration::default() },
        reaches: reaches.iter().copied().map(Incarnation).collect(),
        wants_answer: false,
    }
}

impl World {
    fn new(over_links: bool) -> Self {
        let now = Instant::now();
        let heartbeat = Heartbeat::new(node("me", 100), BEAT, LEASE, over_links, now);
        heartbeat.register(Registration::default());
        heartbeat.due();
        World { heartbeat, now }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.heartbeat.tick(self.now);
        }
    }

    fn signed(&self, incarnation: u64, sign: Sign) -> Met {
        self.heartbeat.signed(Incarnation(incarnation), sign, Hearers::All, self.now)
    }

    fn answered(&self, incarnation: u64, sign: Sign) -> Met {
        self.heartbeat.signed(Incarnation(incarnation), sign, Hearers::ThisNode, self.now)
    }

    fn link(&self, name: &str, incarnation: u64) {
        self.heartbeat.reachable(Incarnation(incarnation), self.now);
        assert_eq!(self.signed(incarnation, sign(name, &[])), Met::Member);
    }

    fn lose(&self, incarnation: u64) {
        self.heartbeat.unreachable(Incarnation(incarnation), self.now);
    }

    fn standing(&self, incarnation: u64) -> Option<Standing> {
        let neighbours = self.heartbeat.neighbours().borrow().clone();
        neighbours.iter().find(|member| member.id.incarnation.0 == incarnation).map(|member| member.standing)
    }
}

#[test]
fn a_link_that_is_lost_begins_a_lease_and_a_new_one_ends_it() {
    let mut world = World::new(true);
    world.link("a", 1);
    world.pass(600);
    assert_eq!(world.standing(1), Some(Standing::Reached), "a link needs no beats");
    let lost = world.now;
    world.lose(1);
    world.pass(14);
    assert_eq!(world.standing(1), Some(Standing::Lost(lost)));
    world.heartbeat.reachable(Incarnation(1), world.now);
    world.pass(30);
    assert_eq!(world.standing(1), Some(Standing::Reached));
    world.lose(1);
    world.pass(15);
    assert_eq!(world.standing(1), None);
}

#[test]
fn a_node_that_is_lost_before_its_first_word_is_forgotten_at_once() {
    let world = World::new(true);
    world.heartbeat.reachable(Incarnation(1), world.now);
    assert_eq!(world.standing(1), Some(Standing::Reached));
    world.lose(1);
    assert_eq!(world.standing(1), None);
    // A word that was on its way makes nobody a member to whom there is no link; the next link does.
    assert_eq!(world.signed(1, sign("a", &[])), Met::Nobody);
    world.link("a", 1);
    world.lose(1);
    assert_eq!(world.standing(1), Some(Standing::Lost(world.now)));
}

#[test]
fn who_is_vouched_for_stays_until_nobody_reaches_it() {
    let mut world = World::new(true);
    world.link("a", 1);
    world.link("b", 2);
    world.signed(2, sign("b", &[1]));
    world.pass(1);
    let lost = world.now;
    world.lose(1);
    // What was said before the loss does not count: both may have lost it at the same moment.
    world.pass(1);
    assert_eq!(world.standing(1), Some(Standing::Lost(lost)));
    for _ in 0..10 {
        world.signed(2, sign("b", &[1]));
        world.pass(5);
        assert_eq!(world.standing(1), Some(Standing::Vouched(lost)));
    }
    world.signed(2, sign("b", &[]));
    world.pass(1);
    assert_eq!(world.standing(1), None, "its own lease was over long ago");
}

#[test]
fn only_a_node_that_is_reached_and_fresh_vouches() {
    let mut world = World::new(true);
    for (name, incarnation) in [("a", 1), ("b", 2), ("c", 3)] {
        world.link(name, incarnation);
    }
    world.lose(1);
    world.pass(1);
    world.signed(2, sign("b", &[1]));
    world.signed(3, sign("c", &[1]));
    world.pass(1);
    assert!(matches!(world.standing(1), Some(Standing::Vouched(_))));
    // One voucher is lost itself, the other says nothing any more.
    world.lose(2);
    world.pass(13);
    assert!(matches!(world.standing(1), Some(Standing::Vouched(_))));
    world.pass(2);
    assert_eq!(world.standing(1), None);
    // A node does not vouch for itself by what it said before.
    assert_eq!(world.standing(3), Some(Standing::Reached));
}

#[test]
fn a_medium_keeps_whom_it_hears_and_nobody_expires_while_it_is_away() {
    let mut world = World::new(false);
    assert_eq!(world.signed(1, sign("a", &[])), Met::Member);
    assert_eq!(world.signed(2, sign("b", &[])), Met::Member);
    for _ in 0..10 {
        world.pass(10);
        world.heartbeat.heard(Incarnation(1), world.now);
        world.signed(2, sign("b", &[]));
    }
    world.pass(10);
    world.heartbeat.away(false, world.now);
    world.heartbeat.away(false, world.now);
    assert!(matches!(world.standing(1), Some(Standing::Lost(_))));
    world.pass(3600);
    world.heartbeat.due();
    world.heartbeat.back(world.now);
    world.heartbeat.back(world.now);
    assert_eq!(world.heartbeat.due(), [Due::Beat(To::All, true)], "everybody is asked, once");
    world.pass(14);
    assert_eq!(world.standing(1), Some(Standing::Reached), "a fresh lease");
    world.signed(2, sign("b", &[1]));
    world.pass(1);
    assert_eq!(world.standing(1), None, "a medium knows no vouching");
    assert_eq!(world.standing(2), Some(Standing::Reached));
}

#[test]
fn strangers_are_answered_and_members_only_when_they_ask() {
    let world = World::new(false);
    world.signed(1, sign("a", &[]));
    assert_eq!(world.heartbeat.due(), [Due::Beat(To::One(Incarnation(1)), false)]);
    world.signed(1, sign("a", &[]));
    assert_eq!(world.heartbeat.due(), []);
    world.signed(1, Sign { wants_answer: true, ..sign("a", &[]) });
    assert_eq!(world.heartbeat.due(), [Due::Beat(To::One(Incarnation(1)), false)]);
}

#[test]
fn a_beat_that_is_late_brings_nobody_back() {
    let mut world = World::new(false);
    world.signed(1, sign("a", &[]));
    world.heartbeat.goodbye(Incarnation(1), world.now);
    assert_eq!((world.signed(1, sign("a", &[])), world.standing(1)), (Met::Nobody, None));
    world.signed(3, sign("b", &[]));
    assert_eq!((world.signed(2, sign("b", &[])), world.standing(2)), (Met::Nobody, None));
    assert_eq!(world.standing(3), Some(Standing::Reached));
    world.pass(15);
    assert_eq!(world.standing(3), None);
    // Its namesake is gone, and what comes now is no late word any more.
    assert_eq!(world.signed(2, sign("b", &[])), Met::Member);
}

#[test]
fn of_two_that_live_under_one_name_the_older_is_told_of() {
    for over_links in [true, false] {
        let mut world = World::new(over_links);
        if over_links {
            world.link("a", 1);
            world.link("a", 2);
        } else {
            world.signed(1, sign("a", &[]));
            world.signed(2, sign("a", &[]));
        }
        assert_eq!(world.signed(1, sign("a", &[])), Met::Nobody, "it may have been said before its end");
        assert_eq!((world.standing(1), world.standing(2)), (None, Some(Standing::Reached)));
        world.pass(5);
        assert_eq!(world.signed(1, sign("a", &[])), Met::Outnamed);
        assert_eq!(world.standing(1), None);
        world.heartbeat.goodbye(Incarnation(2), world.now);
        assert_eq!(world.signed(1, sign("a", &[])), Met::Member, "the only one now");
        assert!(!world.heartbeat.has_namesake(world.now));
        world.heartbeat.reachable(Incarnation(101), world.now);
        world.signed(101, sign("me", &[]));
        assert!(world.heartbeat.has_namesake(world.now));
        world.pass(15);
        assert!(!world.heartbeat.has_namesake(world.now));
    }
}

#[test]
fn beats_are_due_at_once_and_then_once_a_beat_until_the_end() {
    let now = Instant::now();
    let heartbeat = Heartbeat::new(node("me", 1), BEAT, LEASE, false, now);
    heartbeat.tick(now + BEAT);
    assert_eq!(heartbeat.due(), [], "nothing is said before it is registered");
    heartbeat.register(Registration::default());
    assert_eq!(heartbeat.due(), [Due::Beat(To::All, true)]);
    heartbeat.tick(now + BEAT);
    heartbeat.tick(now + BEAT + BEAT / 2);
    assert_eq!(heartbeat.due(), [Due::Beat(To::All, false)]);
    drop(heartbeat.deregister());
    heartbeat.tick(now + BEAT * 9);
    assert_eq!(heartbeat.due(), [Due::Goodbye]);
}

#[test]
fn its_view_is_of_those_who_have_said_who_they_are() {
    for over_links in [true, false] {
        let mut world = World::new(over_links);
        let names = |world: &World| {
            let view = world.heartbeat.view().borrow().clone();
            view.members.iter().map(|member| member.registration.client_url.clone()).collect::<Vec<_>>()
        };
        if over_links {
            for incarnation in [1, 2, 3, 99] {
                world.heartbeat.reachable(Incarnation(incarnation), world.now);
            }
        }
        assert_eq!(names(&world), [""; 0], "nobody has said anything");
        world.signed(2, sign("b", &[]));
        world.signed(1, sign("a", &[]));
        let namesake = |world: &World| {
            let view = world.heartbeat.view().borrow().clone();
            view.namesake.as_ref().map(|member| member.id.clone())
        };
        world.heartbeat.due();
        world.signed(99, sign("me", &[]));
        assert_eq!(names(&world), ["ws://a", "ws://b"]);
        assert_eq!(namesake(&world), None, "it may have been said before its end");
        assert!(world.heartbeat.due().contains(&Due::Beat(To::One(Incarnation(99)), true)), "it is asked");
        world.signed(99, sign("me", &[]));
        assert_eq!(namesake(&world), None, "this one too");
        world.answered(99, sign("me", &[]));
        assert_eq!(namesake(&world), Some(node("me", 99)));
        world.signed(99, sign("me", &[]));
        assert_eq!(namesake(&world), Some(node("me", 99)), "it has answered");
        world.heartbeat.away(false, world.now);
        assert!(world.heartbeat.view().borrow().is_degraded);
        world.pass(15);
        assert_eq!(namesake(&world), None, "it has said nothing for a lease");
        assert_eq!(names(&world), ["ws://a", "ws://b"], "while the broker is away nobody is dropped");
        world.heartbeat.back(world.now);
        assert!(!world.heartbeat.view().borrow().is_degraded);
        world.heartbeat.goodbye(Incarnation(1), world.now);
        assert_eq!(names(&world), ["ws://b"]);
    }
}

#[test]
fn a_younger_namesake_is_shown_when_it_stays() {
    let mut world = World::new(false);
    let namesake = |world: &World| world.heartbeat.view().borrow().namesake.as_ref().map(|of| of.id.clone());
    world.signed(101, sign("me", &[]));
    world.pass(3);
    world.signed(101, sign("me", &[]));
    assert_eq!(namesake(&world), None, "it may be about to give way");
    world.heartbeat.goodbye(Incarnation(101), world.now);
    assert!(!world.heartbeat.has_namesake(world.now));
    world.signed(102, sign("me", &[]));
    world.pass(3);
    world.signed(102, sign("me", &[]));
    assert_eq!(namesake(&world), None, "another one has a time of its own");
    world.pass(1);
    world.signed(102, sign("me", &[]));
    assert_eq!(namesake(&world), Some(node("me", 102)));
    // One that dies without a word is forgotten with its lease.
    world.pass(15);
    assert_eq!(namesake(&world), None);
}
