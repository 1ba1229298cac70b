//! Inbound bytes of one connection: decoding, control frames, and the close handshake. Still without I/O.
//! Tested through the properties of the shard.

use tieline_websocket::{DecodeError, Event, Opcode, Shared, encode};

use crate::Slot;
use crate::application::{Application, Cause};
use crate::connection::Phase;
use crate::shard::Shard;

impl<A: Application> Shard<A> {
    /// Takes bytes that a connection's socket delivered, and calls the application for each whole message. What
    /// is behind a message that parked the connection is kept until it is unparked.
    pub fn receive(&mut self, slot: Slot, mut input: &mut [u8], shared: &mut Shared, application: &mut A) {
        self.counters.bytes_in += input.len() as u64;
        let connection = &mut self.connections[slot as usize];
        connection.unanswered = 0;
        loop {
            let connection = &mut self.connections[slot as usize];
            match connection.phase {
                Phase::Open if connection.is_parked() => {
                    if !input.is_empty() {
                        connection.unread = Some((*input).into());
                    }
                    break;
                }
                // After our close frame only the peer's is of interest.
                Phase::Open | Phase::Closing => {}
                Phase::Free | Phase::Reserved | Phase::Detached | Phase::Ending | Phase::Gone => break,
                Phase::Failing | Phase::Lingering | Phase::Finishing => break,
            }
            match connection.decoder.decode(&mut input, shared) {
                Ok(None) => break,
                Ok(Some(event)) => self.handle(slot, event, application),
                Err(error) => {
                    self.refuse_input(slot, &error);
                    break;
                }
            }
        }
        self.settle(application);
    }

    fn handle(&mut self, slot: Slot, event: Event<'_>, application: &mut A) {
        let open = self.connections[slot as usize].phase == Phase::Open;
        match event {
            Event::Message { kind, payload } if open => {
                self.counters.messages_in += 1;
                self.connections[slot as usize].last_message = self.current_tick();
                self.congested = false;
                application.message(self, slot, kind, payload);
                self.hold_up_if_congested(slot);
            }
            Event::Ping(payload) if open => {
                let mut frame = Vec::with_capacity(2 + payload.len());
                encode(&mut frame, Opcode::Pong, payload);
                self.queue_control(slot, &frame);
            }
            Event::Pong(payload) if open => application.pong(self, slot, payload),
            Event::Close(close) if open => {
                // The peer's code is answered with itself, as RFC 6455 section 5.5.1 advises.
                let code = close.as_ref().map(|close| close.code);
                self.start_close(slot, code, "");
                self.end_closed_by_peer(slot, code.unwrap_or(1005));
            }
            Event::Close(_) => self.finish(slot),
            Event::Message { .. } | Event::Ping(_) | Event::Pong(_) => {}
        }
    }

    fn refuse_input(&mut self, slot: Slot, error: &DecodeError) {
        if self.connections[slot as usize].phase == Phase::Open {
            self.end(slot, Cause::Protocol(error.close_code()));
        } else {
            // It was being closed; there is nothing more to say to it.
            self.fail(slot);
        }
    }
}
