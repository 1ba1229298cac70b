//! [`Station`]: a shard with its application and its way to the other shards. It is all of a shard's thread but the
//! sockets and the clock.
//!
//! A reactor is a station with sockets. [`Station::all`] gives all stations of a node to one caller, without threads:
//! whatever happens next is then the caller's choice, so sessions are tested under a seeded scheduler that repeats
//! any interleaving. Tested by the reactors' tests, and by the interleavings of sessions in tieline-core.

use std::sync::Arc;

use tieline_websocket::{InflateMode, Shared};

use crate::application::Application;
use crate::connection::Format;
use crate::counters::PublishedCounters;
use crate::flush::Sockets;
use crate::mailbox::{Delivery, Mailbox};
use crate::settings::Settings;
use crate::shard::Shard;
use crate::switchboard::{Handle, MAX_SHARDS};
use crate::{Slot, switchboard};

/// One shard, what runs on it, and the mailboxes of all.
pub struct Station<A: Application> {
    pub(crate) shard: Shard<A>,
    application: A,
    mailboxes: Arc<Vec<Mailbox<A>>>,
    counters: Arc<PublishedCounters>,
    /// What the decoders of all its connections share.
    shared: Shared,
}

impl<A: Application> Station<A> {
    pub(crate) fn new(index: u16, settings: Arc<Settings>, handle: &Handle<A>, application: A) -> Self {
        let shared = Shared::new(settings.inbound);
        Station {
            shard: Shard::new(index, handle.shards() as u16, settings),
            application,
            mailboxes: Arc::clone(handle.mailboxes()),
            counters: handle.published(index),
            shared,
        }
    }

    /// The stations of so many shards (1 to [`MAX_SHARDS`]), which no thread runs: the caller does. `application` makes
    /// each shard's own. Nobody is woken by what is posted to them.
    pub fn all(
        shards: usize,
        settings: Settings,
        application: impl Fn(u16, Handle<A>) -> A,
    ) -> (Handle<A>, Vec<Self>) {
        let shards = shards.clamp(1, MAX_SHARDS);
        let mailboxes = (0..shards).map(|_| Mailbox::new(None, settings.max_mailbox)).collect();
        let handle = switchboard::handle_to(mailboxes);
        let settings = Arc::new(settings);
        let station = |index| {
            let application = application(index, handle.clone());
            Station::new(index, Arc::clone(&settings), &handle, application)
        };
        let stations = (0..shards as u16).map(station).collect();
        (handle, stations)
    }

    /// The shard.
    pub fn shard(&self) -> &Shard<A> {
        &self.shard
    }

    /// As [`Shard::adopt`]; what has to follow is said there.
    pub fn adopt(
        &mut self,
        head: &[u8],
        format: Format,
        inflate: Option<InflateMode>,
        arrival: A::Arrival,
    ) -> Option<Slot> {
        self.shard.adopt(&mut self.application, head, format, inflate, arrival)
    }

    /// As [`Shard::settle`].
    pub fn settle(&mut self) {
        self.shard.settle(&mut self.application);
    }

    /// As [`Shard::sockets_to_drop`].
    pub fn sockets_to_drop(&mut self) -> Vec<Slot> {
        self.shard.sockets_to_drop()
    }

    /// Takes bytes that a socket delivered, as [`Shard::receive`], behind those that [`Station::receive_kept`] takes. The
    /// socket of a connection that stands still is not read.
    pub fn receive(&mut self, slot: Slot, input: &mut [u8]) {
        self.shard.receive(slot, input, &mut self.shared, &mut self.application);
    }

    /// Takes the bytes that were kept while the connection stood still, if there are any.
    pub fn receive_kept(&mut self, slot: Slot) {
        if let Some(mut kept) = self.shard.take_unread(slot) {
            self.receive(slot, &mut kept);
        }
    }

    /// Connections that are to be read although their sockets do not say so: first what was kept of each, then its
    /// socket.
    pub fn take_readable(&mut self) -> Vec<Slot> {
        self.shard.take_readable()
    }

    /// The peer sends no more bytes.
    pub fn end_of_input(&mut self, slot: Slot) {
        self.shard.end_of_input(slot);
        self.settle();
    }

    /// The socket failed.
    pub fn lose_socket(&mut self, slot: Slot) {
        self.shard.lose_socket(slot);
        self.settle();
    }

    /// As [`Shard::writable`].
    pub fn writable(&mut self, slot: Slot) {
        self.shard.writable(slot);
    }

    /// Sets the clock, and does what is due when a second has passed.
    pub fn advance(&mut self, now_ms: u64) {
        if self.shard.advance(now_ms) {
            self.shard.tick();
            self.settle();
            self.application.tick(&mut self.shard);
            self.settle();
        }
    }

    /// What has come for this shard from other threads, its commands among it.
    pub(crate) fn take_mailbox(&mut self) -> Delivery<A> {
        let (delivery, waiting) = self.mailboxes[usize::from(self.shard.index())].take();
        for shard in waiting {
            self.mailboxes[usize::from(shard)].wake();
        }
        delivery
    }

    /// Carries out commands of other threads.
    pub(crate) fn carry_out(&mut self, commands: Vec<A::Command>) {
        for command in commands {
            self.application.command(&mut self.shard, command);
            self.settle();
        }
    }

    /// Carries out all commands that have come from other shards and threads.
    pub fn take_commands(&mut self) {
        let delivery = self.take_mailbox();
        debug_assert!(delivery.adoptions.is_empty(), "a station without a thread has no sockets to take");
        self.carry_out(delivery.commands);
    }

    /// As [`Shard::flush`], and tells the application who ended by it.
    pub fn flush(&mut self, sockets: &mut impl Sockets, stop: impl FnMut() -> bool) -> bool {
        let more = self.shard.flush(sockets, stop);
        self.settle();
        more
    }

    /// Gives each other shard what was gathered for it, in one batch. Returns those that have no room now: their
    /// batches are kept, and connections that add to them stand still.
    pub fn hand_over(&mut self) -> Vec<u16> {
        let from = self.shard.index();
        let mut full = Vec::new();
        for (to, batch) in self.shard.outgoing_mut().iter_mut().enumerate() {
            if !batch.commands.is_empty() {
                batch.blocked = !self.mailboxes[to].post_batch(from, batch);
                if batch.blocked {
                    full.push(to as u16);
                }
            }
        }
        if full.is_empty() {
            self.shard.release_held_up();
        }
        self.counters.publish(self.shard.counters());
        full
    }

    /// Closes all connections, as [`Shard::stop`].
    pub fn stop(&mut self, code: u16, reason: &str) {
        self.shard.stop(code, reason);
        self.settle();
    }
}
