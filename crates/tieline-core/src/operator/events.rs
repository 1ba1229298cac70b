//! Events for the application: handed on from the shard's thread, and their answers taken back there.
//!
//! While an event is under way its connection is not read on, so the answers come in the order of the questions and a client
//! has one question at a time. Tested by the sessions' tests.

use std::sync::Arc;

use tieline_proto::reply::{self, Extra, From};
use tieline_proto::{Data, ErrorCode};
use tieline_switchboard::{Address, Cause, Publication, Recipients, Shard, Slot, WhenLagging};
use tieline_websocket::Kind;

use super::Operator;
use super::answer::Refusal;
use crate::events::{Call, EventAnswer, EventFailure, EventSource, ReplyTo, UserEvent};
use crate::message::{Letter, letter};
use crate::session::Session;

/// What is said where the node has no room for an event.
const FULL: &str = "The node has as many events under way as it may have.";

/// What the application knows a connection by.
pub(super) fn source(session: &Session) -> EventSource {
    EventSource {
        hub: session.hub.name().clone(),
        connection: session.id,
        user: session.user.clone(),
        subprotocol: session.subprotocol,
        state: session.state.clone(),
    }
}

impl Operator {
    /// Hands an event on. Where nobody wants it, an `event` is taken and acknowledged, and an `invoke` answered with an error.
    pub(super) fn raise(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        name: &str,
        data: Data<'_>,
        call: Call,
    ) {
        let Some(session) = shard.session(slot) else { return };
        let events = self.node.events().filter(|events| events.hears(session.hub.name(), name));
        let Some(events) = events else {
            return match call {
                Call::Event { ack_id } => self.ack(shard, slot, ack_id, Extra::None),
                Call::Invoke { .. } => self.fail_call(shard, slot, call, ErrorCode::NoHandler, None),
            };
        };
        let reply_to = ReplyTo { address: shard.address(slot), call: call.clone() };
        let event =
            UserEvent { source: source(session), name: name.into(), data: data.to_payload(), reply_to };
        match events.user(event) {
            Ok(()) => shard.park(slot),
            Err(_) => self.fail_call(shard, slot, call, ErrorCode::ServiceUnavailable, Some(FULL)),
        }
    }

    /// The application has answered, or will not.
    pub(super) fn answered(&mut self, shard: &mut Shard<Self>, reply_to: ReplyTo, answer: EventAnswer) {
        let ReplyTo { address, call } = reply_to;
        let Some(slot) = shard.find(address) else { return };
        if let (Some(state), Some(session)) = (answer.state, shard.session_mut(slot)) {
            session.state = Some(state);
            self.touched(shard, slot);
        }
        match (answer.outcome, call) {
            (Ok(data), Call::Event { ack_id }) => {
                if let Some(data) = data {
                    self.tell(shard, address, data.as_data());
                }
                self.ack(shard, slot, ack_id, Extra::None);
            }
            (Ok(data), Call::Invoke { id }) => shard.send(slot, Kind::Text, |out| {
                reply::invoke_response(out, &id, data.as_ref().map(|data| data.as_data()));
            }),
            (Err(EventFailure { code, message }), call) => {
                self.fail_call(shard, slot, call, code, Some(&message));
            }
        }
        shard.unpark(slot);
    }

    /// Sends what the application answers; kept for a client that was cut and may come back.
    fn tell(&mut self, shard: &mut Shard<Self>, address: Address, data: Data<'_>) {
        let (time_ms, id) = self.stamper.stamp();
        let letter = Letter(letter(From::Server, None, id, time_ms, data));
        let to = [Recipients::Connection(address)];
        let when_lagging = WhenLagging::End;
        shard.publish(&Publication { message: &letter, to: &to, except: &[], only: None, when_lagging });
    }

    fn fail_call(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        call: Call,
        code: ErrorCode,
        message: Option<&str>,
    ) {
        let message = message.unwrap_or(code.text());
        match call {
            Call::Event { ack_id } => {
                self.refuse(shard, slot, &Refusal::new(ack_id, code).because(message));
            }
            Call::Invoke { id } => {
                self.tally.errors.count(code);
                shard.send(slot, Kind::Text, |out| reply::invoke_error(out, &id, code, message));
            }
        }
    }

    /// Tells the application that a connection was greeted.
    pub(super) fn tell_connected(&self, shard: &Shard<Self>, slot: Slot) {
        if let (Some(events), Some(session)) = (self.node.events(), shard.session(slot)) {
            events.connected(source(session));
        }
    }

    /// Tells the application that a connection has ended, if it heard of it before.
    pub(super) fn tell_disconnected(&self, session: &Session, cause: &Cause) {
        if let Some(events) = self.node.events()
            && (session.greeted || session.approved)
        {
            events.disconnected(source(session), &reason(cause));
        }
    }

    /// Keeps a place for a connection on whose request the application decides. Returns the id that it will have.
    pub(crate) fn reserve(&mut self, shard: &mut Shard<Self>) -> Option<crate::events::Reservation> {
        let address = shard.reserve()?;
        let id = self.node.connection_id(address, self.stamper.next() as u32);
        Some(crate::events::Reservation::new(Arc::clone(&self.node), id))
    }

    /// Gives places back that nobody took.
    pub(super) fn give_back(&self, shard: &mut Shard<Self>) {
        for address in self.node.take_given_back(self.shard) {
            shard.give_back(address);
        }
    }
}

/// Why a connection ended, in words for the application.
fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Peer(code) => format!("The client closed the connection with {code}."),
        Cause::Cut => "The connection was cut.".to_owned(),
        Cause::Silent => "Nothing was heard from the client.".to_owned(),
        Cause::Idle => "The client was idle.".to_owned(),
        Cause::Protocol(code) => format!("The client broke the protocol ({code})."),
        Cause::Lag => "The client read too slowly.".to_owned(),
        Cause::Memory => "The node had no memory left for what the client did not read.".to_owned(),
        Cause::Expired => "The client did not come back in time.".to_owned(),
        Cause::Application(code) => format!("The server closed the connection with {code}."),
        Cause::Stopped => "The node stops.".to_owned(),
    }
}
