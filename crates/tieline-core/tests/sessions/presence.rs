//! Presence: who is told of whom, and when.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tieline_core::broker::MemoryExchange;
use tieline_core::events::{Appearance, EventSource, Events, Queued, TooManyEvents, UserEvent};
use tieline_core::presence::PresenceRules;
use tieline_core::{ClusterTimes, Subprotocol};
use tieline_proto::HubName;
use tieline_proto::presence::Details;
use tieline_proto::role::Roles;

use crate::house::{Guest, House, PATIENCE, Peer, eventually, patient};

const GRACE: Duration = Duration::from_millis(300);

/// It is told of the hub `hub`, and of groups whose names begin with `room`.
fn rules(grace: Duration) -> PresenceRules {
    PresenceRules { hubs: vec![("hub".into(), true)], groups: vec![("room*".into(), true)], grace }
}

/// Nodes of one cluster, of which a dead one is forgotten after 600 ms.
fn houses(count: usize, grace: Duration) -> (Vec<House>, MemoryExchange) {
    let exchange = MemoryExchange::links();
    let (beat, lease) = (Duration::from_millis(100), Duration::from_millis(600));
    let times = ClusterTimes { beat, lease, ..patient() };
    let mut houses: Vec<House> = (0..count).map(|_| House::telling(2, rules(grace))).collect();
    houses.iter_mut().for_each(|house| house.join(&exchange, times));
    houses.iter().for_each(|house| house.wait_for_peers(count - 1));
    (houses, exchange)
}

fn tieline(house: &House, user: &str) -> Peer {
    house.user(0, Subprotocol::Tieline, user)
}

/// A client that does nothing but be in a group.
fn member(house: &House, user: &str, group: &'static str) -> Peer {
    house.connect(1, Guest { groups: vec![group], ..Guest::new(Subprotocol::Azure, user) }).0
}

/// Asks, and returns the page; its ack follows.
fn ask(peer: &mut Peer, mut question: Value) -> Value {
    question["type"] = json!("presence");
    question["ackId"] = json!(peer.next_ack());
    peer.send(question.clone());
    let page = peer.receive();
    assert_eq!((&page["type"], &page["ackId"]), (&json!("presence"), &question["ackId"]), "{page}");
    assert_eq!(peer.receive(), json!({"type": "ack", "ackId": question["ackId"], "success": true}));
    page
}

fn users(page: &Value) -> Vec<&str> {
    page["users"].as_array().unwrap().iter().map(|user| user["userId"].as_str().unwrap()).collect()
}

/// The events of the next frame, in words.
fn events(peer: &mut Peer, group: Option<&str>) -> Vec<String> {
    let frame = peer.receive();
    assert_eq!((frame["type"].as_str(), frame["group"].as_str()), (Some("presence"), group), "{frame}");
    let word =
        |event: &Value| format!("{} {}", event["event"].as_str().unwrap(), event["userId"].as_str().unwrap());
    frame["events"].as_array().unwrap().iter().map(word).collect()
}

/// Events until there are so many.
fn all_events(peer: &mut Peer, group: Option<&str>, count: usize) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    while all.len() < count {
        all.extend(events(peer, group));
    }
    all
}

#[test]
fn a_subscriber_is_told_of_those_who_come_and_of_those_who_do_not_come_back() {
    let house = House::telling(2, rules(GRACE));
    let mut watcher = tieline(&house, "watcher");
    let page = ask(&mut watcher, json!({"group": "room", "subscribe": true}));
    assert_eq!(page["users"], json!([]));
    assert_eq!(page["total"], json!({"users": 0, "connections": 0, "anonymous": 0}));
    assert_eq!(page["complete"], true);

    let data = json!({"name": "Bob \"b\" \u{0}"});
    let details = Details::new(Some("phone"), Some(&data)).unwrap();
    let guest = Guest { details, groups: vec!["room"], ..Guest::new(Subprotocol::Azure, "bob") };
    let (bob, _) = house.connect(1, guest);
    let frame = watcher.receive();
    let node = house.node.id().name.as_str();
    let event = json!({"event": "join", "userId": "bob", "node": node, "device": "phone", "data": data});
    assert_eq!(frame, json!({"type": "presence", "group": "room", "events": [event]}));

    // A second connection makes no event, nor does the end of the first one.
    let other = member(&house, "bob", "room");
    let page = ask(&mut watcher, json!({"group": "room"}));
    let place = json!({"node": node, "connections": 1, "device": "phone", "data": data});
    let places = json!([place, {"node": node, "connections": 1}]);
    assert_eq!(page["users"], json!([{"userId": "bob", "connections": 2, "places": places}]));
    bob.cut();
    let mut carol = member(&house, "carol", "room");
    assert_eq!(events(&mut watcher, Some("room")), ["join carol"]);

    // Who comes back in time was never away.
    other.cut();
    let back = member(&house, "bob", "room");
    carol.send(json!({"type": "leaveGroup", "group": "room", "ackId": 1}));
    assert_eq!(carol.receive()["success"], true);
    let left = Instant::now();
    assert_eq!(events(&mut watcher, Some("room")), ["leave carol"]);
    assert!(left.elapsed() >= GRACE, "{:?}", left.elapsed());
    back.cut();
    assert_eq!(events(&mut watcher, Some("room")), ["leave bob"]);
    assert_eq!(ask(&mut watcher, json!({"group": "room"}))["users"], json!([]));

    watcher.send(json!({"type": "presence", "group": "room", "subscribe": false, "ackId": 99}));
    assert_eq!(watcher.receive(), json!({"type": "ack", "ackId": 99, "success": true}));
    let _dora = member(&house, "dora", "room");
    // It goes out within a moment, or not at all.
    let told = || house.node.presence().counters().joins.load(std::sync::atomic::Ordering::Relaxed);
    eventually(|| told() >= 4);
    watcher.expect_nothing();
}

#[test]
fn three_nodes_know_and_tell_the_same() {
    let (houses, _exchange) = houses(3, GRACE);
    let mut watchers: Vec<Peer> =
        houses.iter().enumerate().map(|(n, house)| tieline(house, &format!("w{n}"))).collect();
    for watcher in &mut watchers {
        ask(watcher, json!({"group": "room", "subscribe": true}));
    }
    let bob = member(&houses[0], "bob", "room");
    for watcher in &mut watchers {
        assert_eq!(events(watcher, Some("room")), ["join bob"]);
    }
    let again = member(&houses[1], "bob", "room");
    let nobody = Guest { user: None, groups: vec!["room"], ..Guest::new(Subprotocol::Azure, "") };
    let _nobody = houses[2].connect(0, nobody);
    bob.cut();
    let carol = member(&houses[2], "carol", "room");
    for watcher in &mut watchers {
        assert_eq!(events(watcher, Some("room")), ["join carol"]);
        let place = |n: usize| json!([{"node": houses[n].node.id().name.as_str(), "connections": 1}]);
        let expected = json!([
            {"userId": "bob", "connections": 1, "places": place(1)},
            {"userId": "carol", "connections": 1, "places": place(2)},
        ]);
        let is_so = |page: &Value| page["users"] == expected;
        until(watcher, json!({"group": "room"}), is_so);
        let page = ask(watcher, json!({"group": "room"}));
        assert_eq!(page["total"], json!({"users": 2, "connections": 3, "anonymous": 1}));
        assert_eq!(page["complete"], true);
    }
    drop((again, carol));
    for watcher in &mut watchers {
        let left = all_events(watcher, Some("room"), 2);
        assert_eq!(left, ["leave bob", "leave carol"].map(str::to_owned).into());
    }
}

/// Asks until the answer is such.
fn until(peer: &mut Peer, question: Value, is_so: impl Fn(&Value) -> bool) {
    let started = Instant::now();
    loop {
        let page = ask(peer, question.clone());
        if is_so(&page) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "it never came to be so: {page}");
    }
}

#[test]
fn the_death_of_a_node_is_told_once_and_not_of_those_who_came_back_elsewhere() {
    // Longer than it takes to forget a node, so that those who come back are not told of whenever it is.
    let (mut houses, exchange) = houses(3, Duration::from_millis(1500));
    let mut watchers: Vec<Peer> = houses[..2].iter().map(|house| tieline(house, "watcher")).collect();
    for watcher in &mut watchers {
        ask(watcher, json!({"group": "room", "subscribe": true}));
    }
    let dying: Vec<Peer> = (0..50).map(|n| member(&houses[2], &format!("u{n:02}"), "room")).collect();
    for watcher in &mut watchers {
        assert_eq!(all_events(watcher, Some("room"), 50).len(), 50);
    }
    exchange.cut(houses[2].node.id().incarnation);
    let dead = houses.pop().unwrap();
    let back: Vec<Peer> = (0..20).map(|n| member(&houses[n % 2], &format!("u{n:02}"), "room")).collect();
    for watcher in &mut watchers {
        let left = events(watcher, Some("room"));
        assert_eq!(left, (20..50).map(|n| format!("leave u{n}")).collect::<Vec<_>>(), "in one frame");
        let page = ask(watcher, json!({"group": "room"}));
        assert_eq!(page["total"], json!({"users": 20, "connections": 20, "anonymous": 0}));
    }
    drop((back, dying, dead));
}

#[test]
fn only_members_and_those_with_a_role_are_told_and_no_longer_than_they_may() {
    let house = House::telling(2, rules(GRACE));
    let with = |roles: &[&str]| Guest { roles: Roles::parse(roles), ..Guest::new(Subprotocol::Tieline, "x") };
    let refused = |peer: &mut Peer, question: Value, name: &str| {
        let ack_id = peer.next_ack();
        let mut question = question;
        question["type"] = json!("presence");
        question["ackId"] = json!(ack_id);
        peer.send(question.clone());
        let ack = peer.receive();
        assert_eq!((&ack["ackId"], &ack["error"]["name"]), (&json!(ack_id), &json!(name)), "{question}");
    };
    let (mut stranger, _) = house.connect(0, with(&["webpubsub.joinLeaveGroup", "tieline.presence.room-2"]));
    refused(&mut stranger, json!({"group": "room", "subscribe": true}), "Forbidden");
    refused(&mut stranger, json!({"group": "dark"}), "Forbidden");
    refused(&mut stranger, json!({}), "Forbidden");
    ask(&mut stranger, json!({"group": "room-2", "subscribe": true}));
    // A member of the group may know, as long as it is one.
    stranger.join("room", 90);
    ask(&mut stranger, json!({"group": "room", "subscribe": true}));
    assert_eq!(events(&mut stranger, Some("room")), ["join x"]);
    stranger.send(json!({"type": "leaveGroup", "group": "room", "ackId": 91}));
    assert_eq!(stranger.receive()["success"], true);
    refused(&mut stranger, json!({"group": "room"}), "Forbidden");
    let _bob = member(&house, "bob", "room");
    let _bob_too = member(&house, "bob", "room-2");
    // Of the one that it may know, not of the other.
    assert_eq!(events(&mut stranger, Some("room-2")), ["join bob"]);
    stranger.expect_nothing();

    // The whole hub is for those who may know everything.
    let (mut reader, _) = house.connect(0, with(&["tieline.presence.room"]));
    refused(&mut reader, json!({"subscribe": true}), "Forbidden");
    let (mut reader, _) = house.connect(0, with(&["tieline.presence"]));
    let page = ask(&mut reader, json!({"subscribe": true}));
    assert_eq!(users(&page), ["bob", "x"]);
    // Nothing crosses hubs, whatever the roles.
    let everything = Guest { hub: "other", ..Guest::new(Subprotocol::Tieline, "spy") };
    let (mut spy, _) = house.connect(0, everything);
    refused(&mut spy, json!({}), "NotFound");
    assert_eq!(ask(&mut spy, json!({"group": "room", "subscribe": true}))["users"], json!([]));
    refused(&mut spy, json!({"group": "dark"}), "NotFound");
    let _dora = member(&house, "dora", "room");
    assert_eq!(events(&mut reader, None), ["join dora"]);
    spy.expect_nothing();
}

#[test]
fn bad_questions_are_refused_and_the_connection_lives() {
    let house = House::telling(1, rules(GRACE));
    let mut peer = tieline(&house, "x");
    for (question, field) in [
        (json!({"group": " "}), "group"),
        (json!({"group": "room", "limit": 501}), "limit"),
        (json!({"group": "room", "limit": -1}), "limit"),
        (json!({"group": "room", "subscribe": "yes"}), "subscribe"),
        (json!({"group": "room", "after": 7}), "after"),
        (json!({"group": ["room"]}), "group"),
    ] {
        let mut question = question;
        question["type"] = json!("presence");
        peer.send(question.clone());
        let error = peer.receive();
        assert_eq!(error["type"], "error", "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
    assert_eq!(users(&ask(&mut peer, json!({"group": "room", "after": "\u{10ffff}"}))), [""; 0]);
    assert_eq!(ask(&mut peer, json!({"limit": 0}))["total"]["users"], 1);
}

#[test]
fn a_large_group_is_read_page_by_page_and_each_user_comes_once() {
    let (houses, _exchange) = houses(2, GRACE);
    let all: BTreeSet<String> = (0..1000).map(|n| format!("u{n:03}")).collect();
    let _peers: Vec<Peer> =
        all.iter().enumerate().map(|(n, user)| member(&houses[n % 2], user, "room")).collect();
    let mut reader = tieline(&houses[0], "reader");
    until(&mut reader, json!({"group": "room", "limit": 0}), |page| page["total"]["users"] == 1000);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = ask(&mut reader, json!({"group": "room", "limit": 70, "after": after}));
        seen.extend(users(&page).into_iter().map(str::to_owned));
        match &page["next"] {
            Value::String(next) => after = Some(next.clone()),
            _ => break,
        }
    }
    assert_eq!(seen, all.into_iter().collect::<Vec<_>>());
}

/// An application that hears who comes and goes, from all nodes alike.
#[derive(Default)]
struct Ear(Mutex<Vec<Appearance>>);

impl Ear {
    /// What it has heard of the group `room` since it was asked last, when that are so many.
    fn take(&self, count: usize) -> Vec<String> {
        let of_room = |heard: &Appearance| heard.group.is_some();
        eventually(|| self.0.lock().unwrap().iter().filter(|heard| of_room(heard)).count() >= count);
        let heard = std::mem::take(&mut *self.0.lock().unwrap());
        let word = |heard: Appearance| format!("{} {}", heard.event.turn.name(), &*heard.event.user);
        let mut words: Vec<String> = heard.into_iter().filter(of_room).map(word).collect();
        words.sort();
        words
    }
}

impl Events for Ear {
    fn hears(&self, _: &HubName, _: &str) -> bool {
        false
    }

    fn user(&self, _: UserEvent) -> Result<(), TooManyEvents> {
        Err(TooManyEvents)
    }

    fn connected(&self, _: EventSource) {}

    fn disconnected(&self, _: EventSource, _: &str) {}

    fn queued(&self, _: Queued) {}

    fn hears_presence(&self, _: &HubName) -> bool {
        true
    }

    fn appeared(&self, appearance: Appearance) {
        self.0.lock().unwrap().push(appearance);
    }

    fn began(&self, _: u64) {}
}

#[test]
fn the_application_is_told_by_one_node_and_of_a_dead_one_by_another() {
    let (mut houses, exchange) = houses(3, GRACE);
    // What the one that is cut off tells in the end is its own.
    let (ear, other) = (Arc::new(Ear::default()), Arc::new(Ear::default()));
    for (house, ear) in houses.iter().zip([&ear, &ear, &other]) {
        house.node.set_events(Arc::clone(ear) as Arc<dyn Events>);
    }
    let mut watcher = tieline(&houses[0], "watcher");
    ask(&mut watcher, json!({"group": "room", "subscribe": true}));
    let words = |turn: &str, users: std::ops::Range<usize>| -> Vec<String> {
        users.map(|n| format!("{turn} u{n:02}")).collect()
    };
    let alive: Vec<Peer> = (0..20).map(|n| member(&houses[n % 2], &format!("u{n:02}"), "room")).collect();
    let dying: Vec<Peer> = (20..40).map(|n| member(&houses[2], &format!("u{n:02}"), "room")).collect();
    all_events(&mut watcher, Some("room"), 40);
    assert_eq!(ear.take(20), words("join", 0..20));
    assert_eq!(other.take(20), words("join", 20..40));
    drop(alive);
    all_events(&mut watcher, Some("room"), 20);
    assert_eq!(ear.take(20), words("leave", 0..20));
    exchange.cut(houses[2].node.id().incarnation);
    let dead = houses.pop().unwrap();
    all_events(&mut watcher, Some("room"), 20);
    // The others tell once more what the dead one may not have told, and then that its users have left.
    let mut told = ear.take(40);
    told.dedup();
    assert_eq!(told, [words("join", 20..40), words("leave", 20..40)].concat());
    drop((dying, dead));
}
