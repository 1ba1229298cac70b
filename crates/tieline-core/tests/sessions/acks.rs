//! The one table of acks: every target, live and durable, with every state of store and broker, by both doors: the ack of a
//! session, and what the application's send is told. And what back ends do to durable targets besides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tieline_core::ask::sending::{SendError, Sending, Wants};
use tieline_core::ask::{Answer, Ask, Who};
use tieline_core::broker::MemoryExchange;
use tieline_core::delivery::Target;
use tieline_core::logs::LogRules;
use tieline_core::store::{AppendKey, Cut};
use tieline_core::{Node, Overloaded, Subprotocol};
use tieline_proto::{ConnectionId, GroupName, HubName, Payload, UserId};

use crate::house::{Guest, House, Peer, eventually, patient};
use crate::logs::{Door, hello, house, join, pair, rules, tieline, until_ack};

/// Whom to: bob, who is at the other node, or his connection; dora, who is nowhere, or a connection that is nowhere; the groups that bob
/// and carol are in, of whom carol is at the sender's node; bob, dora and the live group at once, or bob and the kept one; everybody.
const TARGETS: [&str; 9] = ["bob", "bob's", "dora", "nobody's", "kept", "live", "many", "many kept", "all"];

/// A connection that is nowhere.
const NOWHERE: ConnectionId = ConnectionId::from_bytes([0; ConnectionId::BYTES]);

#[derive(Clone, Copy, Debug, PartialEq)]
enum StoreIs {
    There,
    Refusing,
    Silent,
    Missing,
}

/// Delivered, queued, unknown and unreachable; or the error's name.
type Told = Result<[u64; 4], String>;

/// What has to be told while the store is there, with the broker and without it.
fn table(target: &str, has_inbox: bool) -> (bool, [u64; 4], [u64; 4]) {
    match (target, has_inbox) {
        ("bob", durable) => (durable, [1, 0, 0, 0], [0, 0, 0, 1]),
        // A connection has no log, whoever it is of.
        ("bob's", _) => (false, [1, 0, 0, 0], [0, 0, 0, 1]),
        ("nobody's", _) => (false, [0, 0, 1, 0], [0, 0, 1, 0]),
        ("dora", false) => (false, [0, 0, 1, 0], [0, 0, 1, 0]),
        ("dora", true) => (true, [0, 1, 0, 0], [0, 1, 0, 0]),
        ("kept", _) => (true, [2, 0, 0, 0], [1, 0, 0, 1]),
        ("live" | "all", _) => (false, [2, 0, 0, 0], [1, 0, 0, 1]),
        // Once for each connection.
        ("many", false) => (false, [2, 0, 1, 0], [1, 0, 1, 1]),
        // Bob has it from his inbox and by the group.
        ("many", true) => (true, [3, 1, 0, 0], [1, 1, 0, 1]),
        // By the group's log, and as a user.
        ("many kept", _) => (true, [3, 0, 0, 0], [1, 0, 0, 1]),
        (other, _) => panic!("{other}"),
    }
}

fn expected(target: &str, has_inbox: bool, store: StoreIs, is_broker_up: bool) -> Told {
    let (is_durable, up, away) = table(target, has_inbox);
    match store {
        StoreIs::Refusing if is_durable => Err("StoreUnavailable".into()),
        StoreIs::Silent if is_durable => Err("StoreUnknown".into()),
        StoreIs::Missing if is_durable => Err("StoreMissing".into()),
        _ => Ok(if is_broker_up { up } else { away }),
    }
}

fn frame(target: &str, bob: ConnectionId, ack_id: u64) -> Value {
    let mut frame = match target {
        "bob" | "dora" => json!({"type": "sendToUser", "user": target}),
        "kept" | "live" => json!({"type": "sendToGroup", "group": target}),
        "bob's" => json!({"type": "send", "to": {"connections": [bob.to_string()]}}),
        "nobody's" => json!({"type": "send", "to": {"connections": [NOWHERE.to_string()]}}),
        "many kept" => json!({"type": "send", "to": {"users": ["bob"], "groups": ["kept"]}}),
        "many" => json!({"type": "send", "to": {"users": ["bob", "dora"], "groups": ["live"]}}),
        _ => json!({"type": "sendToAll", "noEcho": true}),
    };
    frame["data"] = json!(target);
    frame["ackId"] = json!(ack_id);
    frame
}

fn sending(target: &str, alice: ConnectionId, bob: ConnectionId) -> Sending {
    let user = |name| Target::User(UserId::new(name).unwrap());
    let group = |name| Target::Group(GroupName::new(name).unwrap());
    let to = match target {
        "bob" | "dora" => vec![user(target)],
        "kept" | "live" => vec![group(target)],
        "bob's" => vec![Target::Connection(bob)],
        "nobody's" => vec![Target::Connection(NOWHERE)],
        "many kept" => vec![user("bob"), group("kept")],
        "many" => vec![user("bob"), user("dora"), group("live")],
        _ => vec![Target::Everyone],
    };
    Sending { to, except: vec![alice], filter: None, payload: Payload::from_text(target), key: None }
}

/// What a session is told of sends to all targets at once.
fn acks(alice: &mut Peer, bob: ConnectionId, targets: &[&str]) -> Vec<Told> {
    static ACK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let ids: Vec<u64> = targets.iter().map(|_| ACK.fetch_add(1, Ordering::Relaxed)).collect();
    targets.iter().zip(&ids).for_each(|(target, id)| alice.send(frame(target, bob, *id)));
    let mut told = HashMap::new();
    while told.len() < ids.len() {
        let heard = alice.receive();
        if let Some(id) = heard["ackId"].as_u64() {
            let number = |key: &str| heard[key].as_u64().unwrap_or_else(|| panic!("{key} of {heard}"));
            let is_done = heard["success"] == true;
            let outcome = match is_done {
                true => Ok(["delivered", "queued", "unknown", "unreachable"].map(number)),
                false => Err(heard["error"]["name"].as_str().unwrap().to_owned()),
            };
            told.insert(id, outcome);
        }
    }
    ids.iter().map(|id| told.remove(id).unwrap()).collect()
}

/// What the application is told of the same.
fn answers(node: &Arc<Node>, [alice, bob]: [ConnectionId; 2], targets: &[&str]) -> Vec<Told> {
    let hub = HubName::new("hub").unwrap();
    let sends = targets.iter().map(|target| node.send(&hub, sending(target, alice, bob), Wants::Outcome));
    let told = block_on(join_all(sends)).into_iter().map(|told| match told {
        Ok(outcome) => {
            let outcome = outcome.expect("everybody answers in time");
            Ok([outcome.delivered, outcome.queued, outcome.unknown, outcome.unreachable])
        }
        Err(SendError::NotKept(error)) => Err(error.code().name().to_owned()),
        Err(SendError::Overloaded(_)) => panic!("the node is overloaded"),
    });
    told.collect()
}

/// Checks the table for one configuration, the store being in each of these states.
fn check(rules: &LogRules, door: &Door, has_store: bool, states: &[StoreIs]) {
    let exchange = MemoryExchange::medium();
    let mut houses: Vec<House> = (0..2)
        .map(|_| {
            let mut house = House::named(2);
            house.keep(rules.clone(), if has_store { door.engine() } else { None });
            house
        })
        .collect();
    houses.iter_mut().for_each(|house| house.join(&exchange, patient()));
    houses.iter().for_each(|house| house.wait_for_peers(1));
    let has_inbox = rules.inbox.is_some();
    let (mut alice, connected) = houses[0].connect(0, Guest::new(Subprotocol::Tieline, "alice"));
    let id = |connected: &Value| connected["connectionId"].as_str().unwrap().parse().unwrap();
    let alices = id(&connected);
    let (mut bob, connected) = houses[1].connect(0, Guest::new(Subprotocol::Tieline, "bob"));
    let bobs = id(&connected);
    let mut carol = houses[0].user(1, Subprotocol::Tieline, "carol");
    if has_store && has_inbox {
        hello(&mut bob, None);
    }
    for peer in [&mut bob, &mut carol] {
        // Where there is no store, those who were let in without their inbox are told so first.
        assert_eq!(join(peer, "live", None).1["success"], true);
        if has_store {
            join(peer, "kept", None);
        }
    }
    let targets: Vec<&str> =
        TARGETS.into_iter().filter(|target| !target.contains("kept") || !rules.groups.is_empty()).collect();
    let node = &houses[0].node;
    for is_broker_up in [true, false] {
        if !is_broker_up {
            exchange.go_away();
            let peers = || node.cluster().unwrap().peers();
            eventually(|| peers().iter().all(|peer| !peer.is_reached()));
        }
        for store in states {
            door.is_shut.store(*store == StoreIs::Refusing, Ordering::SeqCst);
            door.is_silent.store(*store == StoreIs::Silent, Ordering::SeqCst);
            let due: Vec<Told> =
                targets.iter().map(|target| expected(target, has_inbox, *store, is_broker_up)).collect();
            let case = format!("inbox {has_inbox}, store {store:?}, broker {is_broker_up}");
            assert_eq!(acks(&mut alice, bobs, &targets), due, "{case}: acks of {targets:?}");
            assert_eq!(answers(node, [alices, bobs], &targets), due, "{case}: answers of {targets:?}");
        }
    }
}

#[test]
fn durable_messages_are_told_of_as_the_table_says() {
    use StoreIs::{Refusing, Silent, There};
    check(&rules(), &Door::new(), true, &[There, Refusing, Silent]);
}

#[test]
fn durable_groups_do_not_make_users_durable() {
    let rules = LogRules { inbox: None, ..rules() };
    check(&rules, &Door::new(), true, &[StoreIs::There, StoreIs::Refusing, StoreIs::Silent]);
}

#[test]
fn without_a_store_durable_messages_are_refused_and_live_ones_go_on() {
    check(&rules(), &Door::new(), false, &[StoreIs::Missing]);
}

#[test]
fn live_messages_are_told_of_as_the_table_says() {
    check(&LogRules::default(), &Door::new(), false, &[StoreIs::There]);
}

#[test]
fn without_a_store_nobody_waits_for_it() {
    let mut house = House::named(1);
    house.keep(rules(), None);
    let since = Instant::now();
    let mut bob = house.user(0, Subprotocol::Tieline, "bob");
    let (_, ack) = join(&mut bob, "kept", None);
    assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("StoreMissing")));
    assert!(since.elapsed() < Duration::from_secs(2), "it took {:?}", since.elapsed());
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn who_is_made_a_member_while_the_store_is_away_is_none_until_it_can_be_one() {
    let door = Door::new();
    let house = house(&door);
    let mut bob = tieline(&house, 0, "bob");
    hello(&mut bob, None);
    let (hub, kept) = (HubName::new("hub").unwrap(), GroupName::new("kept").unwrap());
    let make = || {
        let who = Who::User(UserId::new("bob").unwrap());
        block_on(house.node.answer(&hub, Ask::Join { who, groups: vec![kept.clone()] }))
    };
    door.is_shut.store(true, Ordering::SeqCst);
    assert_eq!(make(), Err(Overloaded), "nobody may be a member of a log that is not followed");
    door.is_shut.store(false, Ordering::SeqCst);
    assert_eq!(make(), Ok(Answer::Reached(1)));
    let mut alice = tieline(&house, 0, "alice");
    assert_eq!(acks(&mut alice, NOWHERE, &["kept"]), [Ok([1, 0, 0, 0])]);
    assert_eq!(bob.receive()["data"], "kept");
}

#[test]
fn the_same_send_of_the_application_is_stored_once_from_whichever_node() {
    let (one, two) = pair(&Door::new());
    let mut bob = tieline(&two, 0, "bob");
    join(&mut bob, "kept", None);
    let send = |house: &House, key: u128| {
        let hub = HubName::new("hub").unwrap();
        let sending = Sending { key: Some(AppendKey(key)), ..sending("kept", NOWHERE, NOWHERE) };
        block_on(house.node.send(&hub, sending, Wants::Outcome)).unwrap().map(|outcome| outcome.delivered)
    };
    assert_eq!((send(&one, 1), send(&two, 1), send(&one, 1)), (Some(1), None, None));
    assert_eq!(send(&two, 2), Some(1));
    let offsets: Vec<_> = (0..2).map(|_| bob.receive()["position"]["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [1, 2]);
    bob.expect_nothing();
}

#[test]
fn members_at_every_node_go_on_in_a_log_that_was_removed() {
    let (one, two) = pair(&Door::new());
    let (mut bob, mut carol) = (tieline(&two, 0, "bob"), tieline(&one, 0, "carol"));
    let mut alice = tieline(&one, 1, "alice");
    for peer in [&mut bob, &mut carol] {
        join(peer, "kept", None);
    }
    let (hub, kept) = (HubName::new("hub").unwrap(), Target::Group(GroupName::new("kept").unwrap()));
    let mut ack_id = 1;
    for _ in 0..3 {
        for offset in 1..=2 {
            // The numbers may not be known while nodes find out that it is another log.
            alice.send(frame("kept", NOWHERE, ack_id));
            assert_eq!(until_ack(&mut alice, ack_id).1["success"], true);
            ack_id += 1;
            for peer in [&mut bob, &mut carol] {
                assert_eq!(peer.receive()["position"]["offset"], offset);
            }
        }
        block_on(one.node.logs().unwrap().cut(&hub, &kept, Cut::Whole)).unwrap();
    }
}
