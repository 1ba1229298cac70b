//! [`Service`]: the broker's one thread, from the first connection to the end. It reads, hands up, sends canaries, says when the servers are away and
//! back, and looks after topics that are gone. The library's own threads do the rest.
//!
//! Questions to the servers are asked here, each within two seconds, and nothing is handed up meanwhile: there is nothing to be read when they are asked.
//!
//! Tested with the broker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::producer::Producer;
use tieline_core::broker::To;
use tokio::runtime::Handle;

use super::bootstrap::Bootstrap;
use super::pulse::Pulse;
use super::reader::{Heard, Reader};
use super::signs::Ears;
use super::{Shared, Trouble};

/// How long the thread waits for a message before it looks whether anything else is due.
const WAIT: Duration = Duration::from_millis(100);

/// The pause between two attempts to mend something.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a canary to all has to come back after topics were mended, before they are mended once more.
const PROOF: Duration = Duration::from_secs(3);

/// How often topics are looked for while servers are away and nothing is known of topics. It holds up the thread for a moment.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The pause between two questions at the start.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How long servers that cannot be reached are tried at the start before it is given up: a name may have several addresses, and
/// each is tried once meanwhile.
const TRIED: Duration = Duration::from_millis(1_500);

/// How much longer a start may take that makes topics: servers agree on who has which partition, and busy ones take seconds for it.
const MAKING: Duration = Duration::from_secs(15);

/// How long what was taken may take to reach the servers when the broker stops.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) struct Service {
    shared: Arc<Shared>,
    /// What topics are made by.
    config: ClientConfig,
    /// Waits for answers when topics are made.
    runtime: Handle,
    reader: Reader,
    pulse: Pulse,
    bootstrap: Bootstrap,
    /// Something about the topics is to be mended, from then on.
    broken: Option<Instant>,
    /// Whether somebody has said so, and it is no guess.
    is_lost: bool,
    /// The number of the last canary to all.
    probe: u64,
    /// Whether it is awaited, by whose return the topic for all is mended; canaries of the pulse prove the other.
    is_awaited: bool,
    /// Whether a canary has come back at all.
    is_proved: bool,
    /// How long the start may take.
    patience: Duration,
}

impl Service {
    /// Connects, makes the topics if they are not there, begins to read, and waits for a canary.
    pub(super) fn begin(shared: Arc<Shared>, node: &str, runtime: Handle) -> Result<Self, Trouble> {
        let settings = &shared.settings;
        let since = Instant::now();
        let ears = Ears(Arc::clone(&shared.signs));
        let reader = Reader::new(&settings.consumer(node), ears, &shared.topics, shared.incarnation)?;
        let config = settings.client(node);
        let pulse = Pulse::new(settings.canary, settings.misses, since);
        let bootstrap = Bootstrap::new(&settings.address.server());
        let patience = settings.connect;
        let mut service = Service {
            reader,
            config,
            runtime,
            pulse,
            bootstrap,
            broken: None,
            is_lost: false,
            probe: 0,
            is_awaited: false,
            is_proved: false,
            patience,
            shared,
        };
        service.keep_trying(since, |service| {
            let shared = &service.shared;
            let were_there =
                shared.topics.ensure(service.reader.consumer(), &service.config, &service.runtime)?;
            if !were_there {
                service.patience = shared.settings.connect + MAKING;
            }
            Ok(were_there)
        })?;
        service.keep_trying(since, |service| service.reader.settle().map(|_| true))?;
        service.shared.outbox.open()?;
        let first = service.pulse.turn(Instant::now()).map_or(0, |turn| turn.canary);
        service.shared.outbox.canary(service.own(), first);
        service.keep_trying(since, |service| Ok(service.is_proved))?;
        Ok(service)
    }

    /// Tries until it works, at most as long as a start may take.
    fn keep_trying(
        &mut self,
        since: Instant,
        mut attempt: impl FnMut(&mut Self) -> Result<bool, Trouble>,
    ) -> Result<(), Trouble> {
        let mut is_cut = false;
        let mut last = Trouble::Silent;
        loop {
            match attempt(self) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(trouble @ (Trouble::Refused(_) | Trouble::Setting(_))) => return Err(trouble),
                Err(trouble) => last = trouble,
            }
            // Also so that the signs are there.
            if let Heard::Canary(number) = self.reader.read(ASK_EVERY, &*self.shared.inbound) {
                self.pulse.came(number);
                self.is_proved = true;
            }
            let signs = &self.shared.signs;
            is_cut |= signs.take_cut();
            let is_over = since.elapsed() >= self.patience || !self.shared.life.is_running();
            if signs.is_decided() || is_over || is_cut && since.elapsed() >= TRIED {
                // What the library said by itself says more than that a question had no answer.
                return Err(signs.take_trouble().unwrap_or(last));
            }
        }
    }

    /// Where canaries of the pulse go.
    fn own(&self) -> To {
        To::One(self.shared.incarnation)
    }

    /// Runs until the broker stops.
    pub(super) fn run(mut self) {
        drop(self.shared.signs.take_trouble());
        while self.shared.life.is_running() {
            self.look();
            let due = self.pulse.next().saturating_duration_since(Instant::now());
            match self.reader.read(due.min(WAIT), &*self.shared.inbound) {
                Heard::Nothing => {}
                Heard::Canary(number) => self.feel(number),
                Heard::Echo(number) if self.is_awaited && number == self.probe => {
                    self.is_awaited = false;
                    self.broken = None;
                }
                Heard::Echo(_) => {}
                Heard::Foreign => {
                    self.shared.foreign.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!("Somebody who is no node has written to a topic of the cluster.");
                }
            }
        }
        if let Some(producer) = self.shared.outbox.close() {
            // What is left then is given up.
            drop(producer.flush(FLUSH));
        }
    }

    /// Does what is due.
    fn look(&mut self) {
        let now = Instant::now();
        let signs = &self.shared.signs;
        if signs.take_cut()
            && let Some(canary) = self.pulse.suspect(now)
        {
            self.shared.outbox.canary(self.own(), canary);
        }
        if let Some(turn) = self.pulse.turn(now) {
            if turn.is_gone {
                let trouble = signs.take_trouble().unwrap_or(Trouble::Silent);
                let server = self.shared.settings.address.server();
                tracing::warn!(server, %trouble, "The Kafka cluster is away; what is sent meanwhile is kept for a while.");
                self.shared.inbound.away();
            }
            self.shared.outbox.canary(self.own(), turn.canary);
            if self.pulse.is_away() && self.broken.is_none() {
                // Topics that are gone may never tell of themselves. It can wait, because servers that are away are the rule.
                self.broken = Some(now + LOOK_EVERY);
            }
        }
        if self.bootstrap.is_due(self.pulse.is_away(), now) {
            self.bootstrap.name_to(self.reader.consumer().client());
            self.shared.outbox.name_servers(&self.bootstrap);
        }
        if signs.take_topic_lost() {
            self.broken = Some(self.broken.map_or(now, |since| since.min(now + PAUSE)));
            self.is_lost = true;
            self.is_awaited = false;
        }
        if self.broken.is_some_and(|since| since <= now) {
            self.mend();
        }
    }

    /// A canary came back.
    fn feel(&mut self, number: u64) {
        if self.pulse.came(number) {
            let server = self.shared.settings.address.server();
            tracing::info!(server, "The Kafka cluster is back.");
            self.shared.inbound.back();
            // Nobody has told of topics that are gone, and the canary came through one.
            let soon = Instant::now() + PAUSE;
            self.broken = self.broken.filter(|since| self.is_awaited || *since <= soon);
        }
    }

    /// Looks that the topics are there and are read and written, and tries again later if they are not.
    fn mend(&mut self) {
        let shared = Arc::clone(&self.shared);
        let consumer = self.reader.consumer();
        let mended = shared
            .topics
            .ensure(consumer, &self.config, &self.runtime)
            .and_then(|were_there| if were_there { shared.outbox.mend().map(|()| true) } else { Ok(false) })
            .and_then(|are_known| if are_known { self.reader.settle().map(Some) } else { Ok(None) });
        match mended {
            Ok(Some(is_gap)) => {
                // What was told on the way here may be mended by this, or not: the library does not tell of all that it misses.
                shared.signs.take_topic_lost();
                self.is_lost = false;
                self.probe += 1;
                self.is_awaited = true;
                shared.outbox.canary(To::All, self.probe);
                self.broken = Some(Instant::now() + PROOF);
                if is_gap {
                    tracing::warn!(
                        "Messages were removed from the Kafka topics before this node had read them."
                    );
                }
            }
            Ok(None) => self.broken = Some(Instant::now() + ASK_EVERY),
            Err(trouble) => {
                tracing::debug!(%trouble, "The Kafka topics cannot be looked after yet.");
                let pause = if self.pulse.is_away() && !self.is_lost { LOOK_EVERY } else { PAUSE };
                self.broken = Some(Instant::now() + pause);
            }
        }
    }
}

/// Starts the thread of a broker; what it says first is whether it has begun.
pub(super) fn start(
    shared: Arc<Shared>,
    node: String,
    runtime: Handle,
    begun: tokio::sync::oneshot::Sender<Result<(), Trouble>>,
) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("tieline-kafka".to_owned()).spawn(move || {
        // Said by the way out, whatever that is.
        let _end = End(Arc::clone(&shared));
        match Service::begin(shared, &node, runtime) {
            Ok(service) => {
                // Who does not wait for it any more has stopped the broker.
                drop(begun.send(Ok(())));
                service.run();
            }
            Err(trouble) => drop(begun.send(Err(trouble))),
        }
    })
}

/// Tells the end of the thread.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        drop(self.0.outbox.close());
        self.0.life.end();
    }
}
