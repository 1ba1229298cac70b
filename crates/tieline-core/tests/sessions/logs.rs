//! Durable messages between sessions on real sockets: acknowledged when they are stored, delivered in the order of their log,
//! and given to those who come back. The store is the one in memory, behind a door that can be shut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tieline_core::Subprotocol;
use tieline_core::broker::MemoryExchange;
use tieline_core::logs::{Engine, GroupRule, LogRules};
use tieline_core::records::{self, Change, MemoryRecords, Record, RecordKey, Records};
use tieline_core::store::{
    Answer, Append, Appended, Cut, Head, LogKey, MemoryStore, Page, PageLimit, Refusal, Retention, Store,
    StoreId,
};
use tieline_proto::{GroupName, HubName, Position};

use crate::house::{Guest, House, Peer, patient};

/// A store that can be made to refuse everything, or to answer nothing.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) store: MemoryStore,
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) is_shut: Arc<AtomicBool>,
    pub(crate) is_silent: Arc<AtomicBool>,
    /// Whether records are not answered for, and not changed.
    pub(crate) is_forgetful: Arc<AtomicBool>,
}

impl Door {
    pub(crate) fn new() -> Self {
        Door {
            store: MemoryStore::new(),
            records: Arc::default(),
            is_shut: Arc::default(),
            is_silent: Arc::default(),
            is_forgetful: Arc::default(),
        }
    }

    pub(crate) fn engine(&self) -> Option<Engine> {
        Some(Engine::of(Arc::new(self.clone())))
    }

    fn is_closed(&self) -> bool {
        self.is_shut.load(Ordering::SeqCst) || self.is_silent.load(Ordering::SeqCst)
    }

    fn through<T: Send + 'static>(&self, answer: Answer<T>) -> Answer<T> {
        if self.is_silent.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        if self.is_shut.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(Refusal::Failed("it is shut".into()).into())));
        }
        answer
    }
}

impl Store for Door {
    fn id(&self) -> StoreId {
        self.store.id()
    }

    fn append(&self, append: Append) -> Answer<Appended> {
        if self.is_closed() {
            return self.through(Box::pin(std::future::pending()));
        }
        self.store.append(append)
    }

    fn read(&self, log: LogKey, after: Option<Position>, limit: PageLimit) -> Answer<Page> {
        self.through(self.store.read(log, after, limit))
    }

    fn heads(&self, logs: Vec<LogKey>) -> Answer<Vec<Option<Head>>> {
        self.through(self.store.heads(logs))
    }

    fn trim(&self, log: LogKey, cut: Cut) -> Answer<()> {
        self.through(self.store.trim(log, cut))
    }

    fn renew(&self, log: LogKey, epoch: u64) -> Answer<Option<Head>> {
        self.through(self.store.renew(log, epoch))
    }
}

impl Records for Door {
    fn get(&self, key: RecordKey) -> Answer<Option<Record>> {
        if self.is_forgetful.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.through(self.records.get(key))
    }

    fn compare_and_set(&self, change: Change) -> Answer<records::Outcome> {
        if self.is_forgetful.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        if self.is_closed() {
            return self.through(Box::pin(std::future::pending()));
        }
        self.records.compare_and_set(change)
    }

    fn list(
        &self,
        prefix: String,
        after: Option<RecordKey>,
        count: usize,
    ) -> Answer<Vec<(RecordKey, Record)>> {
        self.through(self.records.list(prefix, after, count))
    }
}

pub(crate) fn rules() -> LogRules {
    let history = Some(Retention::default());
    let rule = |pattern: &str, stores_members| GroupRule {
        pattern: pattern.into(),
        history,
        drops: false,
        stores_members,
    };
    LogRules { groups: vec![rule("kept*", false), rule("club*", true)], inbox: history }
}

pub(crate) fn house(door: &Door) -> House {
    let mut house = House::named(2);
    house.keep(rules(), door.engine());
    house
}

pub(crate) fn pair(door: &Door) -> (House, House) {
    let exchange = MemoryExchange::links();
    let (mut one, mut two) = (house(door), house(door));
    one.join(&exchange, patient());
    two.join(&exchange, patient());
    one.wait_for_peers(1);
    two.wait_for_peers(1);
    (one, two)
}

pub(crate) fn tieline(house: &House, shard: u16, user: &str) -> Peer {
    house.user(shard, Subprotocol::Tieline, user)
}

/// Joins a group with a history; gives what came before the ack, and the ack.
pub(crate) fn join(peer: &mut Peer, group: &str, since: Option<&Value>) -> (Vec<Value>, Value) {
    static JOINS: AtomicU64 = AtomicU64::new(1_000_000);
    let ack_id = JOINS.fetch_add(1, Ordering::Relaxed);
    let mut frame = json!({"type": "joinGroup", "group": group, "ackId": ack_id});
    if let Some(since) = since {
        frame["since"] = since.clone();
    }
    peer.send(frame);
    until_ack(peer, ack_id)
}

pub(crate) fn hello(peer: &mut Peer, inbox: Option<&Value>) -> (Vec<Value>, Value) {
    let mut frame = json!({"type": "hello", "ackId": 901});
    if let Some(inbox) = inbox {
        frame["inbox"] = inbox.clone();
    }
    peer.send(frame);
    until_ack(peer, 901)
}

pub(crate) fn until_ack(peer: &mut Peer, ack_id: u64) -> (Vec<Value>, Value) {
    let mut before = Vec::new();
    loop {
        let frame = peer.receive();
        if frame["ackId"] == ack_id {
            return (before, frame);
        }
        before.push(frame);
    }
}

pub(crate) fn publish(peer: &mut Peer, group: &str, data: u64, ack_id: u64) -> Value {
    peer.send(json!({"type": "sendToGroup", "group": group, "noEcho": true, "data": data, "ackId": ack_id}));
    until_ack(peer, ack_id).1
}

pub(crate) fn data(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["data"].as_u64().unwrap()).collect()
}

#[test]
fn a_kept_message_has_its_place_and_is_acknowledged_with_numbers() {
    let house = house(&Door::new());
    let (mut alice, mut bob) = (tieline(&house, 0, "alice"), tieline(&house, 1, "bob"));
    let (before, ack) = join(&mut bob, "kept", None);
    assert!(before.is_empty());
    assert_eq!(ack["position"], json!({"epoch": 0, "offset": 0}));
    assert_eq!((&ack["success"], ack.get("recovered")), (&json!(true), None));
    let ack = publish(&mut alice, "kept", 1, 1);
    assert_eq!(
        ack,
        json!({"type": "ack", "ackId": 1, "success": true, "delivered": 1, "queued": 0, "unknown": 0, "unreachable": 0})
    );
    let message = bob.receive();
    assert_eq!((&message["data"], &message["position"]["offset"]), (&json!(1), &json!(1)));
    assert_eq!((&message["from"], &message["group"]), (&json!("group"), &json!("kept")));
    assert!(message["position"]["epoch"].as_u64().unwrap() > 0);
    // A live group has no places.
    bob.join("live", 2);
    publish(&mut alice, "live", 2, 2);
    assert_eq!(bob.receive().get("position"), None);
}

#[test]
fn who_comes_back_gets_what_was_missed_and_then_what_follows() {
    let (one, two) = pair(&Door::new());
    let mut alice = tieline(&one, 0, "alice");
    let mut bob = tieline(&one, 1, "bob");
    let (_, ack) = join(&mut bob, "kept", None);
    let beginning = ack["position"].clone();
    publish(&mut alice, "kept", 1, 1);
    let seen = bob.receive()["position"].clone();
    bob.cut();
    for number in 2..=700 {
        assert_eq!(publish(&mut alice, "kept", number, number)["success"], true);
    }
    // On the other node, which has followed nothing of it.
    let mut bob = tieline(&two, 0, "bob");
    let (missed, ack) = join(&mut bob, "kept", Some(&seen));
    assert_eq!(data(&missed), (2..=700).collect::<Vec<_>>());
    assert_eq!((&ack["recovered"], &ack["position"]["offset"]), (&json!(true), &json!(700)));
    let offsets: Vec<u64> = missed.iter().map(|m| m["position"]["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, (2..=700).collect::<Vec<_>>());
    assert_eq!(publish(&mut alice, "kept", 701, 701)["delivered"], 1);
    assert_eq!(bob.receive()["data"], 701);
    // From the log's beginning, as it was called when it was empty.
    let mut carol = tieline(&one, 1, "carol");
    let (all, ack) = join(&mut carol, "kept", Some(&beginning));
    assert_eq!((all.len(), &ack["recovered"]), (701, &json!(true)));
}

#[test]
fn what_cannot_be_recovered_is_said_to_be_so_with_its_reason() {
    let door = Door::new();
    let house = house(&door);
    let (mut alice, mut bob) = (tieline(&house, 0, "alice"), tieline(&house, 1, "bob"));
    for number in 1..=10 {
        publish(&mut alice, "kept", number, number);
    }
    let (_, ack) = join(&mut bob, "kept", None);
    let end = ack["position"].clone();
    let epoch = end["epoch"].as_u64().unwrap();
    let log = || LogKey::Group(HubName::new("hub").unwrap(), GroupName::new("kept").unwrap());
    futures_block(door.store.trim(log(), Cut::Through(Position { epoch, offset: 5 }))).unwrap();
    let mut carol = tieline(&house, 0, "carol");
    for (since, reason, count) in [
        (json!({"epoch": epoch, "offset": 3}), Some("trimmed"), 0),
        (json!({"epoch": 0, "offset": 0}), Some("trimmed"), 0),
        (json!({"epoch": epoch + 1, "offset": 3}), Some("epoch"), 0),
        (json!({"epoch": epoch, "offset": 5}), None, 5),
        (end.clone(), None, 0),
    ] {
        let (missed, ack) = join(&mut carol, "kept", Some(&since));
        assert_eq!(ack["recovered"], reason.is_none(), "{since} {ack}");
        assert_eq!(ack.get("reason").and_then(Value::as_str), reason, "{since}");
        assert_eq!((missed.len(), &ack["position"]), (count, &end), "{since}");
    }
    // One that is in is live, whatever it asked for.
    publish(&mut alice, "kept", 11, 11);
    assert_eq!(carol.receive()["data"], 11);
    let (missed, ack) = join(&mut carol, "live", Some(&end));
    assert_eq!((missed.len(), &ack["recovered"], &ack["reason"]), (0, &json!(false), &json!("no-history")));
}

pub(crate) fn futures_block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_user_who_is_away_gets_the_inbox_on_return() {
    let (one, two) = pair(&Door::new());
    let mut alice = tieline(&one, 0, "alice");
    let send = |alice: &mut Peer, data: u64| {
        alice.send(json!({"type": "sendToUser", "user": "bob", "data": data, "ackId": data}));
        until_ack(alice, data).1
    };
    for number in 1..=3 {
        let ack = send(&mut alice, number);
        assert_eq!(
            (&ack["success"], &ack["delivered"], &ack["queued"]),
            (&json!(true), &json!(0), &json!(1)),
            "{ack}"
        );
        assert_eq!(ack["unknown"], 0);
    }
    let mut bob = tieline(&two, 0, "bob");
    let (missed, ack) = hello(&mut bob, None);
    assert_eq!((data(&missed), &ack["recovered"]), (vec![1, 2, 3], &json!(true)));
    assert_eq!((&missed[0]["from"], &missed[0]["toUserId"]), (&json!("user"), &json!("bob")));
    let ack = send(&mut alice, 4);
    assert_eq!((&ack["delivered"], &ack["queued"]), (&json!(1), &json!(0)));
    let seen = bob.receive()["position"].clone();
    bob.cut();
    // The place that the client names counts, and else the one that it has acknowledged.
    let mut bob = tieline(&one, 1, "bob");
    let (missed, _) = hello(&mut bob, Some(&seen));
    assert!(missed.is_empty());
    bob.send(json!({"type": "hello", "ackId": 7}));
    assert_eq!(until_ack(&mut bob, 7).1["error"]["name"], "InvalidRequest");
}

#[test]
fn acknowledged_places_in_an_inbox_are_kept_for_each_device() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    for number in 1..=5u64 {
        alice.send(json!({"type": "sendToUser", "user": "bob", "data": number, "ackId": number}));
        until_ack(&mut alice, number);
    }
    let on = |device: Option<&str>| {
        let mut bob = tieline(&house, 1, "bob");
        bob.send(json!({"type": "hello", "ackId": 901, "device": device}));
        let (missed, _) = until_ack(&mut bob, 901);
        (bob, data(&missed))
    };
    let (mut phone, missed) = on(Some("phone"));
    assert_eq!(missed.len(), 5);
    phone.send(json!({"type": "inboxAck", "offset": 3}));
    phone.expect_nothing();
    // Written once a second.
    crate::house::eventually(|| on(Some("phone")).1 == [4, 5]);
    assert_eq!(on(Some("tablet")).1.len(), 5);
    assert_eq!(on(None).1.len(), 5);
    // More than it was given cannot have been read.
    phone.send(json!({"type": "inboxAck", "offset": 900}));
    crate::house::eventually(|| on(Some("phone")).1.is_empty());
}

#[test]
fn a_client_that_does_not_say_hello_gets_what_comes_since_it_connected() {
    let house = house(&Door::new());
    let mut alice = tieline(&house, 0, "alice");
    let send = |alice: &mut Peer, number: u64| {
        alice.send(json!({"type": "sendToUser", "user": "bob", "data": number, "ackId": number}));
        until_ack(alice, number);
    };
    send(&mut alice, 1);
    let mut bob = tieline(&house, 1, "bob");
    let mut plain = house.user(0, Subprotocol::Azure, "bob");
    send(&mut alice, 2);
    assert_eq!([plain.receive()["data"].clone(), plain.receive()["data"].clone()], [1, 2]);
    assert_eq!(bob.receive()["data"], 2);
    send(&mut alice, 3);
    assert_eq!(bob.receive()["data"], 3);
}

#[test]
fn the_same_message_said_again_is_kept_once() {
    let (one, two) = pair(&Door::new());
    let mut bob = tieline(&one, 0, "bob");
    join(&mut bob, "kept", None);
    let frame = |ack_id: u64| json!({"type": "sendToGroup", "group": "kept", "messageId": "m1", "data": 1, "ackId": ack_id});
    let mut alice = tieline(&one, 1, "alice");
    alice.send(frame(1));
    assert_eq!(until_ack(&mut alice, 1).1["delivered"], 1);
    // From another connection at another node, as after a cut.
    let mut again = tieline(&two, 1, "alice");
    again.send(frame(9));
    let ack = until_ack(&mut again, 9).1;
    assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &Value::Null));
    // Another user's is another message.
    let mut mallory = tieline(&two, 0, "mallory");
    mallory.send(frame(1));
    assert_eq!(until_ack(&mut mallory, 1).1["delivered"], 1);
    let offsets: Vec<_> = (0..2).map(|_| bob.receive()["position"]["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [1, 2]);
    bob.expect_nothing();
}

#[test]
fn a_store_that_refuses_gives_no_false_ack_and_hurts_no_live_message() {
    let door = Door::new();
    let house = house(&door);
    let (mut alice, mut bob) = (tieline(&house, 0, "alice"), tieline(&house, 1, "bob"));
    join(&mut bob, "kept", None);
    bob.join("live", 1);
    door.is_shut.store(true, Ordering::SeqCst);
    let ack = publish(&mut alice, "kept", 1, 1);
    assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("StoreUnavailable")));
    assert_eq!(publish(&mut alice, "live", 2, 2)["delivered"], 1);
    assert_eq!(bob.receive()["data"], 2);
    let (_, ack) = join(&mut alice, "kept-too", None);
    assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("StoreUnavailable")));
    door.is_shut.store(false, Ordering::SeqCst);
    // The same request may be made again: it was not carried out.
    let ack = publish(&mut alice, "kept", 1, 1);
    assert_eq!((&ack["success"], &ack["delivered"]), (&json!(true), &json!(1)));
    assert_eq!(bob.receive()["data"], 1);
    assert_eq!(join(&mut alice, "kept-too", None).1["success"], true);
}

#[test]
fn a_store_that_never_answers_gives_no_ack_that_is_false() {
    let door = Door::new();
    let house = house(&door);
    let (mut alice, mut bob) = (tieline(&house, 0, "alice"), tieline(&house, 1, "bob"));
    join(&mut bob, "kept", None);
    bob.join("live", 1);
    door.is_silent.store(true, Ordering::SeqCst);
    let waiting = json!({"type": "sendToGroup", "group": "kept", "messageId": "m", "data": 1, "ackId": 1});
    alice.send(waiting);
    // Live messages, and joins of live groups, go on meanwhile.
    assert_eq!(publish(&mut alice, "live", 2, 2)["delivered"], 1);
    assert_eq!(bob.receive()["data"], 2);
    let (_, ack) = join(&mut bob, "kept-too", None);
    assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("StoreUnavailable")));
    let ack = until_ack(&mut alice, 1).1;
    assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("StoreUnknown")));
    door.is_silent.store(false, Ordering::SeqCst);
    alice.send(json!({"type": "sendToGroup", "group": "kept", "messageId": "m", "data": 1, "ackId": 1}));
    assert_eq!(until_ack(&mut alice, 1).1["success"], true);
    assert_eq!(bob.receive()["data"], 1);
    bob.expect_nothing();
}

#[test]
fn nodes_with_different_stores_refuse_and_say_what_to_choose() {
    let exchange = MemoryExchange::links();
    let (mut one, mut two) = (house(&Door::new()), house(&Door::new()));
    one.join(&exchange, patient());
    two.join(&exchange, patient());
    one.wait_for_peers(1);
    let mut alice = tieline(&one, 0, "alice");
    let ack = publish(&mut alice, "kept", 1, 1);
    assert_eq!((&ack["success"], &ack["error"]["name"]), (&json!(false), &json!("StoreMissing")), "{ack}");
    assert!(ack["error"]["message"].as_str().unwrap().contains("same --store"), "{ack}");
    drop(two);
    crate::house::eventually(|| publish(&mut alice, "kept", 1, 1)["success"] == true);
    let mut alone = House::named(1);
    alone.keep(rules(), None);
    let mut bob = tieline(&alone, 0, "bob");
    let ack = publish(&mut bob, "kept", 1, 1);
    assert!(ack["error"]["message"].as_str().unwrap().contains("--store"), "{ack}");
}

#[test]
fn what_another_node_stored_and_could_not_tell_is_found_in_the_store() {
    let door = Door::new();
    let house = house(&door);
    let mut bob = tieline(&house, 0, "bob");
    join(&mut bob, "kept", None);
    // A node that stored and died at once: nobody was told.
    let mut other = House::named(1);
    other.keep(rules(), door.engine());
    let mut alice = tieline(&other, 0, "alice");
    for number in 1..=3 {
        publish(&mut alice, "kept", number, number);
    }
    assert_eq!((0..3).map(|_| bob.receive()["data"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn groups_of_the_token_are_followed_before_the_greeting() {
    let house = house(&Door::new());
    let guest = Guest { groups: vec!["kept", "live"], ..Guest::new(Subprotocol::Azure, "bob") };
    let (mut bob, _) = house.connect(1, guest);
    let mut alice = tieline(&house, 0, "alice");
    assert_eq!(publish(&mut alice, "kept", 1, 1)["delivered"], 1);
    assert_eq!(bob.receive()["data"], 1);
    let ack = publish(&mut alice, "live", 2, 2);
    assert_eq!(ack["delivered"], 1);
}

#[test]
fn several_targets_are_kept_in_their_logs_and_the_others_are_live() {
    let (one, two) = pair(&Door::new());
    let mut alice = tieline(&one, 0, "alice");
    let (mut bob, mut carol) = (tieline(&two, 0, "bob"), tieline(&one, 1, "carol"));
    hello(&mut bob, None);
    hello(&mut carol, None);
    join(&mut bob, "kept", None);
    carol.join("live", 1);
    let to = json!({"users": ["dora", "carol"], "groups": ["kept", "live"]});
    alice.send(json!({"type": "send", "to": to, "data": 5, "ackId": 1}));
    let ack = until_ack(&mut alice, 1).1;
    assert_eq!(
        (&ack["delivered"], &ack["queued"], &ack["unknown"]),
        (&json!(3), &json!(1), &json!(0)),
        "{ack}"
    );
    assert_eq!(bob.receive()["group"], "kept");
    let heard = [carol.receive(), carol.receive()];
    let kept = |message: &&Value| message.get("position").is_some();
    assert_eq!(heard.iter().filter(kept).count(), 1, "{heard:?}");
    let mut dora = tieline(&two, 1, "dora");
    assert_eq!(data(&hello(&mut dora, None).0), [5]);
}
