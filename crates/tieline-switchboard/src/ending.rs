//! How connections end: by a close frame of either side, a cut, a limit, or the shard's stop; and how those that
//! may be resumed are kept. The application hears of each end once, after the step that caused it.
//! Tested through the properties of the shard, and by real sockets in `tests/`.

use tieline_websocket::encode_close;

use crate::Slot;
use crate::application::{Application, Cause};
use crate::connection::{Phase, fresh_decoder};
use crate::log::Extent;
use crate::pending::Pending;
use crate::shard::Shard;

impl<A: Application> Shard<A> {
    /// Closes a connection with a close frame behind everything it has coming. The application's `closed`
    /// follows at the end of the present call.
    pub fn close(&mut self, slot: Slot, code: u16, reason: &str) {
        self.close_for(slot, code, reason, Cause::Application(code));
    }

    fn close_for(&mut self, slot: Slot, code: u16, reason: &str, cause: Cause) {
        match self.connections[slot as usize].phase {
            Phase::Open => {
                self.start_close(slot, Some(code), reason);
                self.ended.push_back((slot, cause));
            }
            Phase::Detached => self.end(slot, cause),
            _ => {}
        }
    }

    /// Queues a close frame and starts waiting for the peer's.
    pub(crate) fn start_close(&mut self, slot: Slot, code: Option<u16>, reason: &str) {
        self.leave_open(slot, Phase::Closing);
        let mut frame = Vec::with_capacity(16 + reason.len());
        encode_close(&mut frame, code, reason);
        self.queue_control(slot, &frame);
        let deadline = self.tick + self.ticks(self.settings.close_timeout);
        let generation = self.connections[slot as usize].generation;
        self.closing.push_back((deadline, slot, generation));
    }

    /// A connection has ended, or has lost its socket; what that means follows in [`Shard::settle`].
    pub(crate) fn end(&mut self, slot: Slot, cause: Cause) {
        match self.connections[slot as usize].phase {
            Phase::Open => {
                self.leave_open(slot, Phase::Ending);
                self.ended.push_back((slot, cause));
            }
            Phase::Detached => {
                self.connections[slot as usize].phase = Phase::Gone;
                self.counters.detached -= 1;
                self.ended.push_back((slot, cause));
            }
            Phase::Closing | Phase::Failing | Phase::Lingering | Phase::Finishing => {
                // The application knows already, or is about to be told by an entry before this one.
                debug_assert!(matches!(cause, Cause::Cut), "a connection that closes can only be cut");
                self.ended.push_back((slot, Cause::Cut));
            }
            Phase::Free | Phase::Reserved | Phase::Ending | Phase::Gone => {}
        }
    }

    /// The connection is no longer open both ways. If its reading stood still it goes on: the peer's close frame
    /// may be among what waits.
    fn leave_open(&mut self, slot: Slot, phase: Phase) {
        let connection = &mut self.connections[slot as usize];
        if connection.is_parked() {
            connection.held_up = false;
            self.readable.push_back(slot);
        }
        connection.phase = phase;
    }

    /// The socket failed: nothing can be sent to it or read from it any more.
    pub fn lose_socket(&mut self, slot: Slot) {
        self.keep_pending(slot, 0);
        self.end(slot, Cause::Cut);
    }

    /// The peer sends no more bytes. Without a close frame before it that is a cut; but what a closing connection has
    /// coming, its close frame above all, is still sent.
    pub fn end_of_input(&mut self, slot: Slot) {
        match self.connections[slot as usize].phase {
            Phase::Open | Phase::Lingering => self.end(slot, Cause::Cut),
            Phase::Closing | Phase::Failing => self.finish(slot),
            Phase::Free
            | Phase::Reserved
            | Phase::Detached
            | Phase::Ending
            | Phase::Gone
            | Phase::Finishing => {}
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

    /// The peer broke the protocol, and a close frame says so: flush it, end the stream, and take nothing more for
    /// an answer (RFC 6455, 7.1.7).
    pub(crate) fn fail(&mut self, slot: Slot) {
        self.connections[slot as usize].phase = Phase::Failing;
        self.mark_dirty(slot);
    }

    /// Tells the application of connections that ended, and lets go of them. Called after every step.
    pub fn settle(&mut self, application: &mut A) {
        while let Some((slot, cause)) = self.ended.pop_front() {
            let connection = &self.connections[slot as usize];
            let (phase, Some(session)) = (connection.phase, &connection.session) else {
                // Told already; a socket that ends while it closes, or a refused one.
                if cause == Cause::Cut && connection.phase != Phase::Free {
                    self.free_slot(slot);
                }
                continue;
            };
            let mut gone = phase == Phase::Gone;
            if phase == Phase::Ending && matches!(cause, Cause::Cut | Cause::Silent) {
                if connection.window.is_some() && application.cut(self, slot, &cause) {
                    self.counters.ended_silent += u64::from(cause == Cause::Silent);
                    self.detach(slot);
                    continue;
                }
                gone = true;
            } else if phase == Phase::Ending {
                let (code, reason) = application.close_frame(session, &cause);
                gone = !self.close_with(slot, code, reason, &cause);
            }
            self.count_end(&cause);
            self.tell_closed(application, slot, &cause);
            if gone {
                self.free_slot(slot);
            }
        }
    }

    /// Sends the close frame of a connection that was ended by one of the shard's own rules. Returns whether that
    /// is possible: not inside of a frame whose rest is lost.
    fn close_with(&mut self, slot: Slot, code: u16, reason: &str, cause: &Cause) -> bool {
        if matches!(cause, Cause::Lag | Cause::Memory) {
            // What it did not read is dropped, but for a frame that is open on the wire: so that the close frame
            // can be read behind it.
            self.keep_pending(slot, self.connections[slot as usize].open_frame);
            self.forget_window(slot);
        }
        let connection = &self.connections[slot as usize];
        if connection.open_frame > 0 && connection.pending.is_empty() {
            return false;
        }
        self.start_close(slot, Some(code), reason);
        if matches!(cause, Cause::Protocol(_)) {
            self.fail(slot);
        }
        true
    }

    fn count_end(&mut self, cause: &Cause) {
        self.counters.closed += 1;
        let counter = match cause {
            Cause::Silent => &mut self.counters.ended_silent,
            Cause::Lag => &mut self.counters.ended_lag,
            Cause::Memory => &mut self.counters.ended_memory,
            Cause::Idle => &mut self.counters.ended_idle,
            Cause::Protocol(_) => &mut self.counters.ended_protocol,
            _ => return,
        };
        *counter += 1;
    }

    fn tell_closed(&mut self, application: &mut A, slot: Slot, cause: &Cause) {
        let Some(session) = self.connections[slot as usize].session.take() else { return };
        application.closed(self, slot, session, cause);
        let window = self.connections[slot as usize].window.as_ref();
        if let Some(sent) = window.and_then(|window| window.last_sent()) {
            // What was sent will not be sent again; what was not still stands before the close frame.
            self.acknowledge(slot, sent);
        }
        let format = self.connections[slot as usize].format;
        for membership in std::mem::take(&mut self.connections[slot as usize].memberships) {
            if let Some(moved) = self.groups.remove(format, membership) {
                self.note_moved(moved, membership.group, membership.index);
            }
        }
    }

    fn detach(&mut self, slot: Slot) {
        self.keep_pending(slot, 0);
        let connection = &mut self.connections[slot as usize];
        connection.phase = Phase::Detached;
        connection.blocked = false;
        connection.open_frame = 0;
        connection.unread = None;
        connection.decoder = fresh_decoder(None);
        connection.last_message = self.tick;
        if let Some(window) = &mut connection.window {
            window.rewind();
            window.begin_tape();
        }
        let generation = connection.generation;
        self.counters.detached += 1;
        let deadline = self.tick + self.ticks(self.settings.resume_window);
        self.detached.push_back((deadline, slot, generation));
        self.sockets_to_drop.push(slot);
    }

    /// Drops what a connection has coming behind the first `keep` bytes.
    pub(crate) fn keep_pending(&mut self, slot: Slot, keep: usize) {
        let connection = &mut self.connections[slot as usize];
        let (mut left, mut kept) = (keep, 0);
        for item in connection.pending.as_mut_slice() {
            let keep = left;
            kept += usize::from(keep > 0);
            match item {
                Pending::Log { start, len } => {
                    let extent = Extent { start: *start, len: *len };
                    let stay = keep.min(extent.len as usize);
                    connection.unsent -= extent.len as usize - stay;
                    *len = stay as u32;
                    left -= stay;
                    if stay == 0 {
                        self.log.release(extent);
                    }
                }
                Pending::Owned(owned) => {
                    let stay = keep.min(owned.rest().len());
                    let dropped = owned.rest().len() - stay;
                    if !owned.numbered {
                        connection.unsent -= dropped;
                    }
                    left -= stay;
                    let dropped = if stay == 0 { owned.bytes.len() } else { dropped };
                    owned.bytes.truncate(owned.bytes.len() - dropped);
                    owned.bytes.shrink_to_fit();
                    connection.copied -= dropped;
                    self.copied -= dropped;
                }
                Pending::Shared { frame, sent, numbered } => {
                    let rest = frame.len() - *sent as usize;
                    debug_assert!(keep == 0 || keep >= rest, "a shared entry is one frame");
                    if keep == 0 && !*numbered {
                        connection.unsent -= rest;
                    }
                    left = left.saturating_sub(rest);
                }
                Pending::Numbered(_) => debug_assert_eq!(keep, 0, "an open frame is in other entries"),
            }
        }
        connection.pending.truncate(kept);
    }

    pub(crate) fn forget_window(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if let Some(window) = connection.window.take() {
            let freed = window.clear(&mut self.log);
            connection.copied -= freed;
            self.copied -= freed;
        }
    }

    /// Slots whose sockets must be dropped now. Each slot may be used again by the next [`Shard::adopt`].
    pub fn sockets_to_drop(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.sockets_to_drop)
    }

    /// Ends every connection: with a close frame where there is a socket. What is reserved is given up.
    pub fn stop(&mut self, code: u16, reason: &str) {
        for slot in 0..self.connections.len() as Slot {
            self.give_back(self.address(slot));
            self.close_for(slot, code, reason, Cause::Stopped);
        }
    }
}
