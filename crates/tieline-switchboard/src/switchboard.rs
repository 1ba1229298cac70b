//! All shards of a process: starting their threads, reaching them, and stopping them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use mio::{Poll, Waker};

use crate::application::Application;
use crate::counters::{Counters, PublishedCounters};
use crate::mailbox::{Adoption, Full, Mailbox};
use crate::reactor::{Reactor, WAKE};
use crate::settings::Settings;
use crate::station::Station;

/// Most shards of a process: what the byte of a shard in a connection's id can say.
pub const MAX_SHARDS: usize = 255;

/// Why a switchboard could not start, or a shard ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gave no readiness queue.
    #[error("a shard's readiness queue failed: {0}")]
    Poll(#[source] io::Error),
    /// The kernel gave no thread.
    #[error("a shard's thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// A shard's thread panicked.
    #[error("a shard's thread panicked")]
    Panicked,
}

/// The running shards. Dropping it without [`Switchboard::stop`] leaves the threads running.
pub struct Switchboard<A: Application> {
    handle: Handle<A>,
    threads: Vec<JoinHandle<Result<(), Error>>>,
}

/// Reaches the shards from any thread. Cheap to clone.
pub struct Handle<A: Application> {
    mailboxes: Arc<Vec<Mailbox<A>>>,
    counters: Arc<Vec<Arc<PublishedCounters>>>,
    next: Arc<AtomicUsize>,
}

impl<A: Application> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Handle {
            mailboxes: Arc::clone(&self.mailboxes),
            counters: Arc::clone(&self.counters),
            next: Arc::clone(&self.next),
        }
    }
}

/// Reaches shards that have these mailboxes.
pub(crate) fn handle_to<A: Application>(mailboxes: Vec<Mailbox<A>>) -> Handle<A> {
    let counters = mailboxes.iter().map(|_| Arc::default()).collect();
    Handle {
        mailboxes: Arc::new(mailboxes),
        counters: Arc::new(counters),
        next: Arc::new(AtomicUsize::new(0)),
    }
}

impl<A: Application> Switchboard<A> {
    /// Starts `shards` threads (1 to [`MAX_SHARDS`]). `application` makes each shard's own, on that shard's thread, given
    /// its number and a handle to all of them.
    ///
    /// # Errors
    /// When the kernel has no readiness queue or thread left; shards that were started are stopped again.
    pub fn start(
        shards: usize,
        settings: Settings,
        application: impl Fn(u16, Handle<A>) -> A + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let shards = shards.clamp(1, MAX_SHARDS);
        let settings = Arc::new(settings);
        let (mut polls, mut mailboxes) = (Vec::new(), Vec::new());
        for _ in 0..shards {
            let poll = Poll::new().map_err(Error::Poll)?;
            let waker = Waker::new(poll.registry(), WAKE).map_err(Error::Poll)?;
            let registry = poll.registry().try_clone().map_err(Error::Poll)?;
            polls.push((poll, registry));
            mailboxes.push(Mailbox::new(Some(waker), settings.max_mailbox));
        }
        let handle = handle_to(mailboxes);
        let application = Arc::new(application);
        let mut switchboard = Switchboard { handle: handle.clone(), threads: Vec::new() };
        let started = Instant::now();
        for (index, (poll, registry)) in polls.into_iter().enumerate() {
            let (application, handle) = (Arc::clone(&application), handle.clone());
            let settings = Arc::clone(&settings);
            let run = move || {
                let application = application(index as u16, handle.clone());
                let station = Station::new(index as u16, settings, &handle, application);
                Reactor::new(poll, registry, station, started).run()
            };
            match Builder::new().name(format!("shard-{index}")).spawn(run) {
                Ok(thread) => switchboard.threads.push(thread),
                Err(error) => {
                    let _ = switchboard.stop(1001, "The server could not start.");
                    return Err(Error::Thread(error));
                }
            }
        }
        Ok(switchboard)
    }

    /// Reaches the shards.
    pub fn handle(&self) -> &Handle<A> {
        &self.handle
    }

    /// Whether a shard's thread has ended by itself, which it never should.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Closes all connections with this code and reason, waits up to three seconds for the clients' answers, and joins
    /// the threads.
    ///
    /// # Errors
    /// The first error or panic of a shard.
    pub fn stop(self, code: u16, reason: &'static str) -> Result<(), Error> {
        for mailbox in self.handle.mailboxes.iter() {
            mailbox.stop(code, reason);
        }
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or(Err(Error::Panicked));
            result = result.and(ended);
        }
        result
    }
}

impl<A: Application> Handle<A> {
    pub(crate) fn mailboxes(&self) -> &Arc<Vec<Mailbox<A>>> {
        &self.mailboxes
    }

    /// Where a shard publishes what it counts.
    pub(crate) fn published(&self, shard: u16) -> Arc<PublishedCounters> {
        Arc::clone(&self.counters[usize::from(shard)])
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    /// Hands a socket to a shard: the given one, or else the one with the fewest connections. It never
    /// migrates from there.
    ///
    /// # Errors
    /// When the shard cannot be woken any more; the socket is closed.
    pub fn adopt(&self, shard: Option<u16>, adoption: Adoption<A::Arrival>) -> io::Result<()> {
        let shard = shard.unwrap_or_else(|| self.least_loaded());
        match self.mailboxes.get(usize::from(shard)) {
            Some(mailbox) => mailbox.adopt(adoption),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The shard with the fewest connections. The counts that shards publish are up to a round old, so equals are taken in
    /// turn.
    pub fn least_loaded(&self) -> u16 {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let shards = self.mailboxes.len();
        (0..shards)
            .map(|i| (start + i) % shards)
            .min_by_key(|&shard| self.counters[shard].read().connections / 16)
            .map_or(0, |shard| shard as u16)
    }

    /// Gives a command to a shard. Commands of one caller to one shard keep their order.
    ///
    /// # Errors
    /// [`Full`] with the command when the shard has too much waiting; nothing was queued.
    pub fn post(&self, shard: u16, command: A::Command) -> Result<(), Full<A::Command>> {
        match self.mailboxes.get(usize::from(shard)) {
            Some(mailbox) => mailbox.post(command),
            None => Err(Full(command)),
        }
    }

    /// Bytes of commands in the mailboxes of all shards together.
    pub fn mailbox_bytes(&self) -> usize {
        self.mailboxes.iter().map(Mailbox::weight).sum()
    }

    /// The counters of all shards together, at most a round old.
    pub fn counters(&self) -> Counters {
        let mut total = Counters::default();
        for counters in self.counters.iter() {
            total += counters.read();
        }
        total
    }
}
