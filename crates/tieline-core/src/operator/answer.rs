//! Answers: acks, errors and goodbyes, each in the words of the connection's protocol.

use tieline_proto::reply::{self, Extra, Receipt};
use tieline_proto::{CloseCode, ErrorCode, plain};
use tieline_switchboard::{Shard, Slot};
use tieline_websocket::Kind;

use super::Operator;
use crate::delivery::Outcome;
use crate::subprotocol::Subprotocol;

/// What a client is told when its request cannot be carried out.
pub(super) struct Refusal<'a> {
    pub(super) ack_id: Option<u64>,
    pub(super) code: ErrorCode,
    /// The member that is wrong, if it is one member's fault.
    pub(super) field: Option<&'a str>,
    pub(super) message: &'a str,
}

impl<'a> Refusal<'a> {
    /// With the sentence that the table of errors has.
    pub(super) fn new(ack_id: Option<u64>, code: ErrorCode) -> Self {
        Refusal { ack_id, code, field: None, message: code.text() }
    }

    pub(super) fn because(self, message: &'a str) -> Self {
        Refusal { message, ..self }
    }
}

/// What became of a message, in the words of the wire: `None` where not all answered in time.
pub(super) fn told(outcome: Option<Outcome>) -> Receipt {
    Receipt {
        delivered: outcome.map(|outcome| outcome.delivered),
        queued: outcome.map_or(0, |outcome| outcome.queued),
        unknown: outcome.map(|outcome| outcome.unknown),
        unreachable: outcome.map(|outcome| outcome.unreachable),
    }
}

impl Operator {
    /// Answers a request with an error: in its ack if it wanted one.
    pub(super) fn refuse(&mut self, shard: &mut Shard<Self>, slot: Slot, refusal: &Refusal<'_>) {
        let Some(session) = shard.session(slot) else { return };
        let Refusal { ack_id, code, field, message } = *refusal;
        self.tally.errors.count(code);
        let plain = session.subprotocol == Subprotocol::Plain;
        shard.send(slot, Kind::Text, |out| match ack_id {
            _ if plain => plain::error(out, code, message),
            Some(ack_id) => reply::ack_error(out, ack_id, code, message),
            None => reply::error(out, code, field, message),
        });
    }

    /// Answers a frame that cannot be understood, or that came too fast, and closes the connection when that
    /// goes on.
    pub(super) fn fault(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        refusal: &Refusal<'_>,
        close: CloseCode,
    ) {
        self.refuse(shard, slot, refusal);
        let limit = self.node.limits().faults;
        let Some(session) = shard.session_mut(slot) else { return };
        session.faults = session.faults.saturating_add(1);
        if session.faults >= limit {
            self.hang_up(shard, slot, close, close.text());
        }
    }

    /// Notes that a request was carried out and sends its ack, if it wanted one.
    pub(super) fn ack(&mut self, shard: &mut Shard<Self>, slot: Slot, ack_id: Option<u64>, extra: Extra) {
        let Some(ack_id) = ack_id else { return };
        let Some(session) = shard.session_mut(slot) else { return };
        session.acks.insert(ack_id);
        let extra = if session.subprotocol == Subprotocol::Tieline { extra } else { Extra::None };
        shard.send(slot, Kind::Text, |out| reply::ack_with(out, ack_id, extra));
    }

    /// The ack of a send, now that it is known what became of the message, or that it will not be known.
    pub(super) fn ack_outcome(
        &mut self,
        shard: &mut Shard<Self>,
        slot: Slot,
        ack_id: u64,
        outcome: Option<Outcome>,
    ) {
        self.ack(shard, slot, Some(ack_id), Extra::Receipt(told(outcome)));
    }

    /// Closes a connection, and tells the client why in its own protocol first.
    pub fn hang_up(&mut self, shard: &mut Shard<Self>, slot: Slot, code: CloseCode, reason: &str) {
        let Some(session) = shard.session(slot) else { return };
        let subprotocol = session.subprotocol;
        if subprotocol != Subprotocol::Plain {
            shard.send(slot, Kind::Text, |out| reply::disconnected(out, reason));
        }
        let code = if subprotocol == Subprotocol::AzureReliable { code.on_reliable() } else { code };
        shard.close(slot, code.code(), reason);
    }
}
