//! What an application asks of a node and sends through it.

use std::sync::Arc;

use serde_json::{Value, json};
use tieline_core::ask::sending::{SendError, Sending, Wants};
use tieline_core::ask::{Answer, Ask, Right, Who};
use tieline_core::delivery::Outcome;
use tieline_core::delivery::Target;
use tieline_core::{Overloaded, Subprotocol};
use tieline_proto::role::Roles;
use tieline_proto::{ConnectionId, Filter, GroupName, HubName, Payload, Permission, UserId};
use tieline_switchboard::Settings;

use crate::house::{Guest, Heard, House, Peer};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn user(name: &str) -> Who {
    Who::User(UserId::new(name).unwrap())
}

fn matching(filter: &str) -> Who {
    Who::Matching(Arc::new(Filter::parse(filter).unwrap()))
}

fn ask(house: &House, ask: Ask) -> Answer {
    block_on(house.node.answer(&hub(), ask)).unwrap()
}

fn exists(house: &House, who: Who) -> bool {
    ask(house, Ask::Exists(who)).is_any()
}

fn id(connected: &Value) -> ConnectionId {
    connected["connectionId"].as_str().unwrap().parse().unwrap()
}

fn connect(house: &House, shard: u16, subprotocol: Subprotocol, user: &str) -> (Peer, ConnectionId) {
    let (peer, connected) = house.connect(shard, Guest::new(subprotocol, user));
    (peer, id(&connected))
}

fn sending(to: Vec<Target>, data: &str) -> Sending {
    Sending { to, except: vec![], filter: None, payload: Payload::from_text(data), key: None }
}

fn send(house: &House, sending: Sending) -> Outcome {
    block_on(house.node.send(&hub(), sending, Wants::Outcome)).unwrap().unwrap()
}

#[test]
fn existence_follows_connections_and_knows_its_hub() {
    let house = House::new(2);
    assert!(!exists(&house, Who::Everyone), "a hub that nobody used");
    let (mut alice, a) = connect(&house, 0, Subprotocol::Azure, "alice");
    let (_eve, other) = house.connect(1, Guest { hub: "other", ..Guest::new(Subprotocol::Azure, "eve") });
    assert!(exists(&house, Who::Connection(a)) && exists(&house, user("alice")));
    assert!(!exists(&house, Who::Connection(id(&other))), "another hub's");
    assert!(!exists(&house, user("eve")) && !exists(&house, Who::Group(group("room"))));
    alice.join("room", 1);
    assert!(exists(&house, Who::Group(group("room"))));
    assert!(exists(&house, matching("userId eq 'alice' and 'room' in groups")));
    assert!(!exists(&house, matching("userId eq 'bob'")));
    let mut bytes = a.to_bytes();
    bytes[19] ^= 1;
    assert!(!exists(&house, Who::Connection(ConnectionId::from_bytes(bytes))), "a guessed id");
    assert!(!exists(&house, Who::Connection(ConnectionId::from_bytes([1; 20]))), "another node's");
}

#[test]
fn who_is_closed_is_told_why_and_is_gone_at_once() {
    let house = House::new(2);
    let (mut plain, a) = connect(&house, 0, Subprotocol::Azure, "alice");
    let (mut reliable, b) = connect(&house, 1, Subprotocol::AzureReliable, "alice");
    let (mut stays, c) = connect(&house, 1, Subprotocol::Tieline, "alice");
    let (mut bob, _) = connect(&house, 0, Subprotocol::Tieline, "bob");
    let close = |who, excluded| ask(&house, Ask::Close { who, excluded, reason: "because: ü".into() });
    assert_eq!(close(user("alice"), vec![c]), Answer::Reached(3), "the excluded one was reached and stays");
    for (peer, code) in [(&mut plain, 4403), (&mut reliable, 1008)] {
        let told = json!({"type": "system", "event": "disconnected", "message": "because: ü"});
        assert_eq!(peer.receive(), told);
        assert_eq!(peer.hear(), Heard::Close(code, "because: ü".into()));
    }
    assert!(!exists(&house, Who::Connection(a)) && !exists(&house, Who::Connection(b)));
    assert!(exists(&house, user("alice")));
    stays.expect_nothing();
    assert_eq!(close(Who::Connection(c), vec![]), Answer::Reached(1));
    assert!(!exists(&house, user("alice")), "the tables are true when the answer is there");
    assert_eq!(close(Who::Connection(c), vec![]), Answer::Reached(0));
    bob.expect_nothing();
    assert_eq!(close(Who::Everyone, vec![]), Answer::Reached(1));
    assert!(!exists(&house, Who::Everyone));
}

#[test]
fn a_cut_connection_is_still_asked_for_and_closed() {
    let house = House::new(1);
    let (peer, connected) = house.connect(0, Guest::new(Subprotocol::AzureReliable, "alice"));
    let a = id(&connected);
    peer.cut();
    assert!(exists(&house, Who::Connection(a)) && exists(&house, user("alice")));
    let joined = Ask::Join { who: Who::Connection(a), groups: vec![group("room")] };
    assert_eq!(ask(&house, joined), Answer::Reached(1));
    assert!(exists(&house, Who::Group(group("room"))));
    let close = Ask::Close { who: user("alice"), excluded: vec![], reason: String::new() };
    assert_eq!(ask(&house, close), Answer::Reached(1));
    assert!(!exists(&house, user("alice")) && !exists(&house, Who::Group(group("room"))));
}

#[test]
fn connections_are_put_into_groups_and_out_of_them() {
    let house = House::new(2);
    let (mut alice, a) = connect(&house, 0, Subprotocol::Azure, "alice");
    let (mut bob, b) = connect(&house, 1, Subprotocol::Azure, "bob");
    let members = |name: &str| {
        let page = ask(&house, Ask::Members { group: group(name), after: None, limit: 10 });
        let Answer::Page(page) = page else { panic!("{page:?}") };
        page.members.into_iter().map(|member| member.connection).collect::<Vec<_>>()
    };
    let both = if a < b { vec![a, b] } else { vec![b, a] };
    let groups = vec![group("room"), group("hall")];
    let join = Ask::Join { who: matching("userId ne null"), groups: groups.clone() };
    assert_eq!(ask(&house, join.clone()), Answer::Reached(2));
    assert_eq!(ask(&house, join), Answer::Reached(2), "again is harmless");
    assert_eq!((members("room"), members("hall")), (both.clone(), both));
    let to_room = sending(vec![Target::Group(group("room"))], "x");
    assert_eq!(send(&house, to_room), Outcome::delivered(2));
    for peer in [&mut alice, &mut bob] {
        assert_eq!(
            peer.receive(),
            json!({"type": "message", "from": "group", "group": "room", "dataType": "text", "data": "x"})
        );
    }
    ask(&house, Ask::Leave { who: user("alice"), groups });
    assert_eq!((members("room"), members("hall")), (vec![b], vec![b]));
    ask(&house, Ask::LeaveAll(Who::Group(group("room"))));
    assert_eq!((members("room"), members("hall")), (vec![], vec![]));
    let nobody = Ask::Join { who: Who::Connection(ConnectionId::from_bytes([9; 20])), groups: vec![] };
    assert_eq!(ask(&house, nobody), Answer::Reached(0));
}

#[test]
fn more_changes_than_fit_into_one_turn_are_all_made() {
    let house = House::new(1);
    let peers: Vec<_> = (0..3).map(|_| connect(&house, 0, Subprotocol::Azure, "alice")).collect();
    let groups: Vec<_> = (0..1500).map(|n| group(&format!("g{n}"))).collect();
    assert_eq!(ask(&house, Ask::Join { who: user("alice"), groups: groups.clone() }), Answer::Reached(3));
    assert!(exists(&house, matching("length(groups) eq 1500")));
    assert!(!exists(&house, matching("length(groups) ne 1500")));
    assert_eq!(ask(&house, Ask::LeaveAll(Who::Everyone)), Answer::Reached(3));
    assert!(!exists(&house, matching("length(groups) gt 0")));
    drop(peers);
}

#[test]
fn permissions_are_changed_for_one_connection_alone() {
    let house = House::new(1);
    let guest = || Guest { roles: Roles::nothing(), ..Guest::new(Subprotocol::Azure, "alice") };
    let (mut alice, connected) = house.connect(0, guest());
    let (mut other, _) = house.connect(0, guest());
    let right = |target: Option<&str>| Right {
        connection: id(&connected),
        permission: Permission::JoinLeaveGroup,
        target: target.map(str::to_owned),
    };
    let holds = |target| ask(&house, Ask::Holds(right(target))).is_any();
    assert!(!holds(Some("room")));
    assert_eq!(ask(&house, Ask::Grant(right(Some("room")))), Answer::Reached(1));
    assert!(holds(Some("room")) && !holds(Some("hall")) && !holds(None));
    alice.join("room", 1);
    other.send(json!({"type": "joinGroup", "group": "room", "ackId": 1}));
    assert_eq!(other.receive()["error"]["name"], "Forbidden");
    ask(&house, Ask::Grant(right(None)));
    assert!(holds(None) && holds(Some("hall")));
    ask(&house, Ask::Revoke(right(Some("room"))));
    assert!(!holds(Some("room")) && holds(Some("hall")));
    let stranger = Right { connection: ConnectionId::from_bytes([9; 20]), ..right(None) };
    assert_eq!(ask(&house, Ask::Grant(stranger)), Answer::Reached(0));
}

#[test]
fn a_message_reaches_each_target_once_and_tells_its_outcome() {
    let house = House::new(2);
    let (mut alice, a) = connect(&house, 0, Subprotocol::Azure, "alice");
    let (mut bob, b) = connect(&house, 1, Subprotocol::Azure, "bob");
    alice.join("room", 1);
    let alice_thrice = vec![
        Target::User(UserId::new("alice").unwrap()),
        Target::Connection(a),
        Target::Group(group("room")),
        Target::User(UserId::new("nobody").unwrap()),
        Target::Connection(ConnectionId::from_bytes([9; 20])),
        Target::Group(group("empty")),
    ];
    assert_eq!(
        send(&house, sending(alice_thrice, "once")),
        Outcome { delivered: 1, unknown: 2, ..Outcome::default() }
    );
    let message = |data: &str| json!({"type": "message", "from": "server", "dataType": "text", "data": data});
    assert_eq!(alice.receive(), message("once"));
    let but_bob = Sending { except: vec![b], ..sending(vec![Target::Everyone], "all but bob") };
    assert_eq!(send(&house, but_bob), Outcome::delivered(1));
    assert_eq!(alice.receive(), message("all but bob"));
    let filter = Some(Arc::new(Filter::parse("userId eq 'bob'").unwrap()));
    let filtered = Sending { filter, ..sending(vec![Target::Everyone], "bob") };
    assert_eq!(send(&house, filtered), Outcome::delivered(1));
    assert_eq!(bob.receive(), message("bob"));
    alice.expect_nothing();
    bob.expect_nothing();
    let elsewhere = HubName::new("unused").unwrap();
    let nobody = sending(vec![Target::User(UserId::new("alice").unwrap()), Target::Everyone], "x");
    let outcome = block_on(house.node.send(&elsewhere, nobody, Wants::Outcome)).unwrap();
    assert_eq!(outcome, Some(Outcome { delivered: 0, unknown: 1, ..Outcome::default() }));
}

/// Makes a shard stand still until what is given back is dropped: what is posted meanwhile stays in its mailbox.
fn hold(house: &House, shard: u16) -> std::sync::mpsc::Sender<()> {
    let (go, gone) = std::sync::mpsc::channel();
    let (reached, reaching) = std::sync::mpsc::channel();
    let node = Arc::clone(&house.node);
    std::thread::spawn(move || {
        block_on(node.ask(shard, move |_, _| {
            reached.send(()).unwrap();
            let _ = gone.recv();
        }))
    });
    reaching.recv().unwrap();
    go
}

/// With mailboxes that one message of 600 bytes fills.
fn narrow(shards: usize) -> House {
    House::with(shards, Default::default(), Settings { max_mailbox: 1024, ..Settings::default() })
}

fn send_blindly(node: &tieline_core::Node, to: Target) -> Result<Option<Outcome>, SendError> {
    block_on(node.send(&hub(), sending(vec![to], &"x".repeat(600)), Wants::Nothing))
}

#[test]
fn a_full_shard_says_so() {
    let house = narrow(1);
    let (mut alice, _) = connect(&house, 0, Subprotocol::Azure, "alice");
    let attempt = || send_blindly(&house.node, Target::Everyone);
    let held = hold(&house, 0);
    assert_eq!(attempt(), Ok(Some(Outcome::default())));
    assert_eq!(attempt(), Err(SendError::Overloaded(Overloaded)));
    let close = Ask::Close { who: Who::Everyone, excluded: vec![], reason: String::new() };
    // Small commands fit until they do not.
    let answers = (0..8).map(|_| {
        let node = Arc::clone(&house.node);
        let close = close.clone();
        std::thread::spawn(move || block_on(node.answer(&hub(), close)))
    });
    let answers: Vec<_> = answers.collect();
    while !answers.iter().any(std::thread::JoinHandle::is_finished) {
        std::thread::yield_now();
    }
    drop(held);
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.join().unwrap()).collect();
    assert!(answers.contains(&Err(Overloaded)) && answers.iter().any(Result::is_ok), "{answers:?}");
    assert_eq!(alice.receive()["data"].as_str().map(str::len), Some(600));
    assert_eq!(alice.receive()["event"], "disconnected");
}

#[test]
fn what_one_shard_has_taken_waits_for_the_others() {
    let house = narrow(2);
    let (mut alice, _) = connect(&house, 0, Subprotocol::Azure, "alice");
    let (mut bob, _) = connect(&house, 1, Subprotocol::Azure, "bob");
    let held = hold(&house, 1);
    let to_bob = Target::User(UserId::new("bob").unwrap());
    assert_eq!(send_blindly(&house.node, to_bob), Ok(Some(Outcome::default())));
    let node = Arc::clone(&house.node);
    let to_all = std::thread::spawn(move || send_blindly(&node, Target::Everyone));
    assert_eq!(alice.receive()["data"].as_str().map(str::len), Some(600));
    drop(held);
    assert_eq!(to_all.join().unwrap(), Ok(Some(Outcome::default())));
    for _ in 0..2 {
        assert_eq!(bob.receive()["data"].as_str().map(str::len), Some(600));
    }
    alice.expect_nothing();
    bob.expect_nothing();
}
