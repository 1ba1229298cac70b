//! Events for an application that is in this process: what it is told and asked, and what comes of its answers.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tieline_core::events::{
    Appearance, EventAnswer, EventFailure, EventSource, Events, Queued, TooManyEvents, UserEvent,
};
use tieline_core::{Limits, Node, Subprotocol};
use tieline_proto::{ErrorCode, HubName, Payload, UserId};
use tieline_switchboard::Settings;
use tieline_websocket::Opcode;

use crate::house::{Guest, House, PATIENCE, Peer, eventually};
use crate::reliable::recovery;

/// What the application was told.
#[derive(Debug)]
enum Told {
    User(UserEvent),
    Connected(EventSource),
    Disconnected(EventSource, String),
}

/// An application that hears everything but what is called `unheard`, and takes nothing that is called `much`.
struct Ear(Mutex<Sender<Told>>);

impl Ear {
    fn on(house: &House) -> Application {
        let (sender, receiver) = channel();
        house.node.set_events(Arc::new(Ear(Mutex::new(sender))));
        Application(receiver, Arc::clone(&house.node))
    }

    fn tell(&self, told: Told) {
        self.0.lock().unwrap().send(told).unwrap();
    }
}

impl Events for Ear {
    fn hears(&self, _: &HubName, event: &str) -> bool {
        event != "unheard"
    }

    fn user(&self, event: UserEvent) -> Result<(), TooManyEvents> {
        if &*event.name == "much" {
            return Err(TooManyEvents);
        }
        self.tell(Told::User(event));
        Ok(())
    }

    fn connected(&self, source: EventSource) {
        self.tell(Told::Connected(source));
    }

    fn disconnected(&self, source: EventSource, reason: &str) {
        // The test may be over.
        let _ = self.0.lock().unwrap().send(Told::Disconnected(source, reason.to_owned()));
    }

    fn queued(&self, _: Queued) {}

    fn hears_presence(&self, _: &HubName) -> bool {
        false
    }

    fn appeared(&self, _: Appearance) {}

    fn began(&self, _: u64) {}
}

/// The test's end of it.
struct Application(Receiver<Told>, Arc<Node>);

impl Application {
    fn told(&self) -> Told {
        self.0.recv_timeout(PATIENCE).expect("the application is told")
    }

    fn connected(&self) -> EventSource {
        match self.told() {
            Told::Connected(source) => source,
            other => panic!("{other:?}"),
        }
    }

    fn disconnected(&self) -> (EventSource, String) {
        match self.told() {
            Told::Disconnected(source, reason) => (source, reason),
            other => panic!("{other:?}"),
        }
    }

    fn asked(&self) -> UserEvent {
        match self.told() {
            Told::User(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn reply(&self, event: UserEvent, state: Option<&str>, outcome: Result<Option<Payload>, EventFailure>) {
        let state = state.map(|state| Arc::new(state.to_owned()));
        self.1.reply(event.reply_to, Box::new(EventAnswer { state, outcome })).unwrap();
    }
}

fn event(name: &str, data: &Value, ack_id: u64) -> Value {
    json!({"type": "event", "event": name, "dataType": "json", "data": data, "ackId": ack_id})
}

fn connect(house: &House, subprotocol: Subprotocol) -> (Peer, String) {
    let (peer, connected) = house.connect(0, Guest::new(subprotocol, "u"));
    (peer, connected["connectionId"].as_str().unwrap().to_owned())
}

#[test]
fn an_application_hears_of_connections_from_their_greeting_to_their_end() {
    let house = House::new(2);
    let application = Ear::on(&house);
    for subprotocol in [Subprotocol::Tieline, Subprotocol::Azure] {
        let (mut peer, id) = connect(&house, subprotocol);
        let source = application.connected();
        assert_eq!(source.connection.to_string(), id);
        assert_eq!((source.hub.as_str(), source.user.as_deref()), ("hub", Some("u")));
        assert_eq!((source.subprotocol, &source.state), (subprotocol, &None));
        peer.send_frame(Opcode::Close, &1000u16.to_be_bytes());
        assert_eq!(
            application.disconnected(),
            (source, "The client closed the connection with 1000.".into())
        );
    }
    let (peer, _) = connect(&house, Subprotocol::Tieline);
    let source = application.connected();
    peer.cut();
    assert_eq!(application.disconnected(), (source, "The connection was cut.".into()));
}

#[test]
fn an_answer_comes_before_the_ack_and_before_whatever_was_sent_behind_the_event() {
    for subprotocol in [Subprotocol::Tieline, Subprotocol::Azure, Subprotocol::AzureReliable] {
        let house = House::new(2);
        let application = Ear::on(&house);
        let (mut peer, _) = connect(&house, subprotocol);
        let source = application.connected();
        peer.send(event("first", &json!([1]), 1));
        peer.send(event("second", &json!(2), 2));
        peer.send(json!({"type": "ping"}));
        let first = application.asked();
        assert_eq!((&*first.name, first.data.as_data().json(), &first.source), ("first", "[1]", &source));
        assert!(application.0.recv_timeout(Duration::from_millis(50)).is_err(), "one at a time");
        application.reply(first, Some("remember"), Ok(Some(Payload::from_text("an answer"))));
        let message = peer.receive();
        assert_eq!((&message["type"], &message["from"]), (&json!("message"), &json!("server")));
        assert_eq!((&message["dataType"], &message["data"]), (&json!("text"), &json!("an answer")));
        assert_eq!(message.get("sequenceId").is_some(), subprotocol == Subprotocol::AzureReliable);
        assert_eq!(peer.receive(), json!({"type": "ack", "ackId": 1, "success": true}));
        let second = application.asked();
        assert_eq!(second.source.state.as_deref().map(String::as_str), Some("remember"));
        application.reply(second, None, Ok(None));
        assert_eq!(peer.receive(), json!({"type": "ack", "ackId": 2, "success": true}));
        assert_eq!(peer.receive(), json!({"type": "pong"}));
        // A repeated ackId is answered without the application.
        peer.send(event("first", &json!([1]), 1));
        assert_eq!(peer.receive()["error"]["name"], "Duplicate");
        peer.send_frame(Opcode::Close, &[]);
        assert_eq!(application.disconnected().0.state.as_deref().map(String::as_str), Some("remember"));
    }
}

#[test]
fn a_failure_is_told_in_the_ack_and_the_event_may_be_sent_again() {
    let house = House::new(1);
    let application = Ear::on(&house);
    let (mut peer, _) = connect(&house, Subprotocol::Azure);
    application.connected();
    let failure = || EventFailure { code: ErrorCode::RefusedByHandler, message: "no".into() };
    peer.send(event("e", &json!(1), 1));
    application.reply(application.asked(), Some("s"), Err(failure()));
    let error = json!({"name": "RefusedByHandler", "message": "no"});
    assert_eq!(peer.receive(), json!({"type": "ack", "ackId": 1, "success": false, "error": error}));
    peer.send(event("e", &json!(1), 1));
    application.reply(application.asked(), None, Ok(None));
    assert_eq!(peer.receive()["success"], true);
    peer.send(event("much", &json!(1), 2));
    assert_eq!(peer.receive()["error"]["name"], "ServiceUnavailable");
    peer.send(event("unheard", &json!(1), 3));
    assert_eq!(peer.receive(), json!({"type": "ack", "ackId": 3, "success": true}));
    peer.send(json!({"type": "event", "event": "e", "dataType": "text", "data": ""}));
    application.reply(application.asked(), None, Err(failure()));
    assert_eq!(peer.receive(), json!({"type": "error", "error": error}));
}

#[test]
fn an_invocation_is_answered_with_its_id() {
    let house = House::new(1);
    let application = Ear::on(&house);
    let (mut peer, _) = connect(&house, Subprotocol::AzureReliable);
    application.connected();
    let invoke = |event: &str| json!({"type": "invoke", "invocationId": "i", "target": "event", "event": event, "dataType": "text", "data": "x"});
    peer.send(invoke("e"));
    application.reply(application.asked(), None, Ok(Some(Payload::from_json("{\"a\":1}").unwrap())));
    let expected = json!({"type": "invokeResponse", "invocationId": "i", "success": true, "dataType": "json", "data": {"a": 1}});
    assert_eq!(peer.receive(), expected);
    peer.send(invoke("e"));
    let failure = EventFailure { code: ErrorCode::HandlerFailed, message: "away".into() };
    application.reply(application.asked(), None, Err(failure));
    let error = json!({"name": "HandlerFailed", "message": "away"});
    assert_eq!(
        peer.receive(),
        json!({"type": "invokeResponse", "invocationId": "i", "success": false, "error": error})
    );
    peer.send(invoke("unheard"));
    assert_eq!(peer.receive()["error"]["name"], "NoHandler");
}

#[test]
fn an_answer_waits_for_a_client_that_was_cut_and_comes_back() {
    let house = House::new(1);
    let application = Ear::on(&house);
    let (mut peer, connected) = house.connect(0, Guest::new(Subprotocol::AzureReliable, "u"));
    application.connected();
    peer.send(event("e", &json!(1), 1));
    let asked = application.asked();
    peer.cut();
    application.reply(asked, None, Ok(Some(Payload::from_text("an answer"))));
    eventually(|| house.node.counters().detached == 1);
    let mut peer = house.adopt(0, recovery(&connected), Subprotocol::AzureReliable);
    assert_eq!(peer.receive()["event"], "connected");
    assert_eq!(peer.receive()["data"], "an answer");
    peer.expect_nothing();
}

#[test]
fn a_place_is_kept_for_a_connection_that_the_application_decides_on() {
    let house = House::with(2, Limits { connections_per_user: 1, ..Limits::default() }, Settings::default());
    let application = Ear::on(&house);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reserve = || {
        let mut place = runtime.block_on(house.node.reserve()).unwrap();
        let source = EventSource {
            hub: HubName::new("hub").unwrap(),
            connection: place.id(),
            user: Some(UserId::new("u").unwrap()),
            subprotocol: Subprotocol::Azure,
            state: Some(Arc::new("s".to_owned())),
        };
        place.approve(source.clone());
        (place, source)
    };
    let guest = |place| Guest { place: Some(place), ..Guest::new(Subprotocol::Azure, "u") };
    let (place, source) = reserve();
    let (mut peer, connected) = house.connect(place.id().shard().into(), guest(place));
    assert_eq!(connected["connectionId"], source.connection.to_string());
    assert_eq!(application.connected(), source);
    peer.expect_nothing();
    // The user has as many connections as it may: the application hears that the second one came to nothing.
    let (place, second) = reserve();
    let refused = house.adopt(place.id().shard().into(), guest(place).into(), Subprotocol::Azure);
    assert_eq!(application.disconnected(), (second, "The connection was not made.".into()));
    drop(refused);
    // So does one whose client never came; and one that was not approved is nobody's business.
    let (place, third) = reserve();
    drop(place);
    assert_eq!(application.disconnected().0, third);
    drop(runtime.block_on(house.node.reserve()).unwrap());
    eventually(|| house.node.counters().connections == 1);
}
