//! How connections end: by a close frame of either side, a cut, a limit, or the shard's stop; and how those that
//! may be resumed are kept. The application hears of each end once, after the step that caused it.

use tieline_websocket::encode_close;

use crate::Slot;
use crate::application::{Application, Cause};
use crate::connection::{Phase, fresh_decoder};
use crate::log::{Extent, Log};
use crate::numbered::Body;
use crate::pending::Pending;
use crate::shard::Shard;

impl<A: Application> Shard<A> {
    /// Closes a connection with a close frame behind everything it has coming. The application's `closed`
    /// follows at the end of the present call.
    pub fn close(&mut self, slot: Slot, code: u16, reason: &str) {
        match self.connections[slot as usize].phase {
            Phase::Open => {
                self.start_close(slot, Some(code), reason);
                self.ended.push_back((slot, Cause::Application(code)));
            }
            Phase::Detached => self.ended.push_back((slot, Cause::Application(code))),
            Phase::Free | Phase::Closing | Phase::Finishing => {}
        }
    }

    /// Queues a close frame and starts waiting for the peer's.
    pub(crate) fn start_close(&mut self, slot: Slot, code: Option<u16>, reason: &str) {
        self.connections[slot as usize].phase = Phase::Closing;
        let mut frame = Vec::with_capacity(16 + reason.len());
        encode_close(&mut frame, code, reason);
        self.queue_control(slot, &frame);
        let deadline = self.tick + self.ticks(self.settings.close_timeout);
        let generation = self.connections[slot as usize].generation;
        self.closing.push_back((deadline, slot, generation));
    }

    /// An open connection has ended, or has lost its socket; what that means follows in [`Shard::settle`].
    pub(crate) fn end(&mut self, slot: Slot, cause: Cause) {
        let connection = &mut self.connections[slot as usize];
        match connection.phase {
            Phase::Open => {
                connection.phase = Phase::Closing;
                self.ended.push_back((slot, cause));
            }
            Phase::Detached => self.ended.push_back((slot, cause)),
            Phase::Closing | Phase::Finishing if matches!(cause, Cause::Cut | Cause::Silent) => {
                // The application knows already, or is about to be told by an entry before this one.
                self.ended.push_back((slot, Cause::Cut));
            }
            Phase::Free | Phase::Closing | Phase::Finishing => {}
        }
    }

    /// The peer closed and was answered: flush what is left, then let go.
    pub(crate) fn end_closed_by_peer(&mut self, slot: Slot, code: u16) {
        self.ended.push_back((slot, Cause::Peer(code)));
        self.finish(slot);
    }

    /// Both sides have closed: flush what is left, then let go.
    pub(crate) fn finish(&mut self, slot: Slot) {
        self.connections[slot as usize].phase = Phase::Finishing;
        self.mark_dirty(slot);
    }

    /// Tells the application of connections that ended, and lets go of them. Called after every step.
    pub fn settle(&mut self, application: &mut A) {
        while let Some((slot, cause)) = self.ended.pop_front() {
            let connection = &self.connections[slot as usize];
            let Some(session) = &connection.session else {
                // Told already; a socket that ends while it closes, or a refused one.
                if matches!(cause, Cause::Cut | Cause::Silent) && connection.phase != Phase::Free {
                    self.free_slot(slot);
                }
                continue;
            };
            let detached = connection.phase == Phase::Detached;
            match &cause {
                Cause::Cut | Cause::Silent if !detached => {
                    if cause == Cause::Silent {
                        self.counters.ended_silent += 1;
                    }
                    if connection.window.is_some() && application.cut(self, slot, &cause) {
                        self.detach(slot);
                        continue;
                    }
                }
                Cause::Lag | Cause::Memory | Cause::Idle | Cause::Protocol(_) if !detached => {
                    let (code, reason) = application.close_frame(session, &cause);
                    self.shed(slot);
                    self.start_close(slot, Some(code), reason);
                }
                _ => {}
            }
            self.count_end(&cause);
            self.tell_closed(application, slot, &cause);
            let gone = detached || matches!(cause, Cause::Cut | Cause::Silent);
            if gone {
                self.free_slot(slot);
            }
        }
    }

    fn count_end(&mut self, cause: &Cause) {
        self.counters.closed += 1;
        let counter = match cause {
            Cause::Lag => &mut self.counters.ended_lag,
            Cause::Memory => &mut self.counters.ended_memory,
            Cause::Idle => &mut self.counters.ended_idle,
            Cause::Protocol(_) => &mut self.counters.ended_protocol,
            _ => return,
        };
        *counter += 1;
    }

    fn tell_closed(&mut self, application: &mut A, slot: Slot, cause: &Cause) {
        if self.connections[slot as usize].phase == Phase::Detached {
            self.counters.detached -= 1;
        }
        let Some(session) = self.connections[slot as usize].session.take() else { return };
        application.closed(self, slot, session, cause);
        let format = self.connections[slot as usize].format;
        for membership in std::mem::take(&mut self.connections[slot as usize].memberships) {
            if let Some(moved) = self.groups.remove(format, membership) {
                self.note_moved(moved, membership.group, membership.index);
            }
        }
        // A numbered frame that is only in the window cannot be sent behind a close frame any more; those that
        // stand before it still can.
        self.connections[slot as usize].unread = None;
    }

    fn detach(&mut self, slot: Slot) {
        self.forget_pending(slot, 0);
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Detached;
        connection.blocked = false;
        connection.mid_frame = false;
        connection.unread = None;
        connection.decoder = fresh_decoder(None);
        connection.last_message = self.tick;
        if let Some(window) = &mut connection.window {
            window.rewind();
        }
        let generation = connection.generation;
        self.counters.detached += 1;
        let deadline = self.tick + self.ticks(self.settings.resume_window);
        self.detached.push_back((deadline, slot, generation));
        self.sockets_to_drop.push(slot);
    }

    /// Drops what a connection has coming, but for a frame that is open on the wire: so that a close frame
    /// can still be read behind it.
    fn shed(&mut self, slot: Slot) {
        let keep = usize::from(self.connections[slot as usize].mid_frame);
        self.forget_pending(slot, keep);
        self.forget_window(slot);
    }

    pub(crate) fn forget_pending(&mut self, slot: Slot, keep: usize) {
        let connection = &mut self.connections[slot as usize];
        for item in connection.pending.as_slice().iter().skip(keep) {
            match item {
                Pending::Log { start, len } => {
                    connection.unsent -= *len as usize;
                    self.log.release(Extent { start: *start, len: *len });
                }
                Pending::Shared { frame, sent } => connection.unsent -= frame.len() - *sent as usize,
                Pending::Owned(owned) => {
                    connection.unsent -= owned.rest().len();
                    connection.copied -= owned.bytes.len();
                    self.copied -= owned.bytes.len();
                }
                Pending::Numbered(_) => {}
            }
        }
        connection.pending.truncate(keep);
    }

    pub(crate) fn forget_window(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if let Some(mut window) = connection.window.take() {
            let (log, copied, own) = (&mut self.log, &mut self.copied, &mut connection.copied);
            window.clear(|body| release_body(log, copied, own, body));
        }
    }

    /// Slots whose sockets must be dropped now. Each slot may be used again by the next `open`.
    pub(crate) fn sockets_to_drop(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.sockets_to_drop)
    }

    /// Ends every connection: with a close frame where there is a socket.
    pub(crate) fn stop(&mut self, code: u16, reason: &str) {
        for slot in 0..self.connections.len() as Slot {
            match self.connections[slot as usize].phase {
                Phase::Open => {
                    self.start_close(slot, Some(code), reason);
                    self.ended.push_back((slot, Cause::Stopped));
                }
                Phase::Detached => self.ended.push_back((slot, Cause::Stopped)),
                Phase::Free | Phase::Closing | Phase::Finishing => {}
            }
        }
    }
}

/// Gives back what a numbered body held.
pub(crate) fn release_body(log: &mut Log, copied: &mut usize, own: &mut usize, body: Body) {
    match body {
        Body::Log { plain, .. } => log.release(plain),
        Body::Owned(bytes) => {
            *copied -= bytes.len();
            *own -= bytes.len();
        }
        Body::Shared(_) => {}
    }
}
