//! Reading requests: each frame of a client is checked and given to whoever carries it out.

use tieline_proto::plain::{self, PlainRequest};
use tieline_proto::reply::{self, Extra};
use tieline_proto::request;
use tieline_proto::{CloseCode, Dialect, ErrorCode, Request};
use tieline_switchboard::{Shard, Slot};
use tieline_websocket::Kind;

use super::Operator;
use super::answer::Refusal;
use super::presence::Question;
use super::send::Send;
use crate::events::Call;
use crate::stamp::unix_ms;
use crate::subprotocol::Subprotocol;

/// What is said where the wire knows a frame that this server does not carry out.
const NOT_HERE: &str = "The server does not carry out frames of this type.";

impl Operator {
    pub(super) fn read(&mut self, shard: &mut Shard<Self>, slot: Slot, kind: Kind, payload: &[u8]) {
        let now = shard.now_ms();
        let limits = self.node.limits();
        let Some(session) = shard.session_mut(slot) else { return };
        let in_rate = session.bucket.take(&limits, now);
        let dialect = session.subprotocol.dialect();
        let Some(text) = (kind == Kind::Text).then(|| std::str::from_utf8(payload).ok()).flatten() else {
            let refusal = Refusal::new(None, ErrorCode::InvalidRequest)
                .because("This subprotocol has text frames only.");
            return self.fault(shard, slot, &refusal, CloseCode::UnsupportedData);
        };
        match dialect {
            Some(dialect) => self.read_frame(shard, slot, text, dialect, in_rate),
            None => self.read_plain(shard, slot, text, in_rate),
        }
    }

    fn read_frame(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        text: &str,
        dialect: Dialect,
        in_rate: bool,
    ) {
        let request = match request::parse(text, dialect) {
            Ok(request) => request,
            Err(error) => {
                let message = error.to_string();
                let (ack_id, code, field) = (error.ack_id, error.code(), error.field());
                let refusal = Refusal { ack_id, code, field, message: &message };
                return self.fault(shard, slot, &refusal, CloseCode::TooManyErrors);
            }
        };
        if !in_rate {
            let refusal = Refusal::new(request.ack_id(), ErrorCode::RateLimited);
            return self.fault(shard, slot, &refusal, CloseCode::RateLimited);
        }
        let Some(session) = shard.session_mut(slot) else { return };
        session.faults = 0;
        if let Some(ack_id) = request.ack_id()
            && session.acks.contains(ack_id)
        {
            self.tally.duplicates += 1;
            return self.refuse(shard, slot, &Refusal::new(Some(ack_id), ErrorCode::Duplicate));
        }
        self.carry_out(shard, slot, request);
    }

    fn carry_out(&mut self, shard: &mut Shard<Self>, slot: Slot, request: Request<'_>) {
        match request {
            Request::SendToGroup { group, users, ack_id, message_id, no_echo, data } => {
                let send = Send { ack_id, message_id: message_id.as_deref(), no_echo, data };
                self.send_to_group(shard, slot, &group, &users, send);
            }
            Request::SendToUser { user, ack_id, message_id, no_echo, data } => {
                let send = Send { ack_id, message_id: message_id.as_deref(), no_echo, data };
                self.send_to_user(shard, slot, &user, send);
            }
            Request::SendToAll { ack_id, no_echo, data, .. } => {
                self.send_to_all(shard, slot, Send { ack_id, message_id: None, no_echo, data });
            }
            Request::Send { to, ack_id, message_id, no_echo, data } => {
                let send = Send { ack_id, message_id: message_id.as_deref(), no_echo, data };
                self.send_to_many(shard, slot, &to, send);
            }
            Request::JoinGroup { group, ack_id, since } => self.join(shard, slot, &group, ack_id, since),
            Request::LeaveGroup { group, ack_id } => self.leave(shard, slot, &group, ack_id),
            Request::Ping => shard.send(slot, Kind::Text, reply::pong),
            Request::SequenceAck { sequence_id } => {
                if let Some(last) = shard.acknowledge(slot, sequence_id) {
                    self.progressed(shard, slot, last);
                    self.acknowledged(shard, slot, last);
                }
            }
            Request::Event { event, ack_id, data } => {
                self.tally.events += 1;
                self.raise(shard, slot, &event, data, Call::Event { ack_id });
            }
            Request::Invoke { invocation_id, event, data } => {
                self.tally.events += 1;
                let id = Box::from(&*invocation_id);
                self.raise(shard, slot, &event, data, Call::Invoke { id });
            }
            // The connection is not read on before a call is answered, so there is nothing left to cancel.
            Request::CancelInvocation { .. } => {}
            Request::Token { token, ack_id } => self.renew(shard, slot, &token, ack_id),
            Request::Hello { inbox, device, ack_id } => {
                self.hello(shard, slot, ack_id, inbox, device.as_deref());
            }
            Request::InboxAck { offset } => self.inbox_read(shard, slot, offset),
            Request::GroupAck { group, offset } => self.group_read(shard, slot, &group, offset),
            Request::StreamStart { stream_id, .. }
            | Request::StreamData { stream_id, .. }
            | Request::StreamEnd { stream_id, .. } => {
                let code = ErrorCode::NotImplemented;
                self.tally.errors.count(code);
                shard.send(slot, Kind::Text, |out| {
                    reply::stream_closed(out, &stream_id, Some((code, NOT_HERE)));
                });
            }
            Request::Presence { group, subscribe, after, limit, ack_id } => {
                let (group, after) = (group.as_deref(), after.as_deref());
                let question = Question { group, subscribe, after, limit, ack_id };
                self.tell_presence(shard, slot, &question);
            }
            Request::SetGroupState { .. }
            | Request::SubscribeGroupState { .. }
            | Request::UnsubscribeGroupState { .. } => {
                let refusal = Refusal::new(request.ack_id(), ErrorCode::NotImplemented).because(NOT_HERE);
                self.refuse(shard, slot, &refusal);
            }
        }
    }

    /// Takes a new token in place of an expiring one. It must name the same user, and its roles count from now on.
    fn renew(&mut self, shard: &mut Shard<Self>, slot: Slot, token: &str, ack_id: Option<u64>) {
        let Some(session) = shard.session_mut(slot) else { return };
        let now = unix_ms() / 1000;
        match self.node.keys().verify_client(token, session.hub.name(), now) {
            Ok(token) if token.device.is_some() && token.device.as_deref() != session.device() => {
                let refusal = Refusal::new(ack_id, ErrorCode::Unauthorized)
                    .because("The new token is not for this connection's device.");
                self.refuse(shard, slot, &refusal);
            }
            Ok(token) if token.user == session.user => {
                session.roles = self.node.share_roles(token.roles);
                session.expires = token.expires;
                self.review_watches(shard, slot);
                self.ack(shard, slot, ack_id, Extra::None);
            }
            Ok(_) => {
                let refusal = Refusal::new(ack_id, ErrorCode::Unauthorized)
                    .because("The new token is not for this connection's user.");
                self.refuse(shard, slot, &refusal);
            }
            Err(error) => {
                let message = error.to_string();
                let refusal = Refusal::new(ack_id, ErrorCode::Unauthorized).because(&message);
                self.refuse(shard, slot, &refusal);
            }
        }
    }

    fn read_plain(&mut self, shard: &mut Shard<Self>, slot: Slot, text: &str, in_rate: bool) {
        // A blank message is nobody's mistake worth an answer.
        if text.trim().is_empty() {
            return;
        }
        let request = match plain::parse(text) {
            Ok(request) => request,
            Err(error) => {
                let message = error.to_string();
                let refusal = Refusal::new(None, error.code()).because(&message);
                return self.fault(shard, slot, &refusal, CloseCode::TooManyErrors);
            }
        };
        if !in_rate {
            let refusal = Refusal::new(None, ErrorCode::RateLimited);
            return self.fault(shard, slot, &refusal, CloseCode::RateLimited);
        }
        if let Some(session) = shard.session_mut(slot) {
            debug_assert_eq!(session.subprotocol, Subprotocol::Plain);
            session.faults = 0;
        }
        match request {
            PlainRequest::ToUser { user, data } => self.send_plain(shard, slot, &user, data),
            PlainRequest::ToGroup { group, data } => {
                let send = Send { ack_id: None, message_id: None, no_echo: true, data };
                self.send_to_group(shard, slot, &group, &[], send);
            }
            PlainRequest::Join { group } => self.join(shard, slot, &group, None, None),
            PlainRequest::Leave { group } => self.leave(shard, slot, &group, None),
        }
    }
}
