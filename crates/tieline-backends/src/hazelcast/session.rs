//! A session: the time from one connection's first canaries to its end. One task reads, one writes, so that neither waits for
//! the other; above all the reader never does, because a member keeps whatever a slow subscriber does not take.
//!
//! A session ends when its connection does, when a call is refused or is not answered for too long, when canaries do not come back,
//! and when nothing at all comes: a member that stands still keeps its connections, and the kernel takes what is written to it. A
//! call whose end is not known is not made again: it may have been carried out, and the numbers of envelopes tell what is missing.
//! Tested by the broker's tests.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tieline_core::broker::{Inbound, To};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::calls::Calls;
use super::connection::Connection;
use super::protocol::{self, Answer, Publication};
use super::topics::{self, Publisher};
use super::{Hazelcast, Trouble};
use crate::inbox::{Inbox, Writer};
use crate::medium::Queue;
use crate::queue::{Batch, Words, cost};

/// Time between two pings.
const BEAT: Duration = Duration::from_secs(1);

/// For so many beats a member may say nothing at all.
const QUIET: u32 = 3;

/// For so many beats a call may wait for its answer. Longer than a member needs to notice that the owner of a partition is gone; a
/// member that hangs with its connections open is another matter, and an outage.
const PATIENCE: u32 = 5;

/// Calls are gathered up to about so many bytes for one write: more system calls would not be felt, and more memory would.
const GATHER: usize = 256 * 1024;

/// Envelopes to the same target are joined to one message up to about so many bytes.
const JOIN: usize = 32 * 1024;

/// What is said to the member beside envelopes.
#[derive(Default)]
pub struct Signs {
    /// Whether to ask for a sign of life.
    ping: bool,
    /// Whether to send a canary.
    canary: bool,
}

impl Words for Signs {
    fn is_empty(&self) -> bool {
        !self.ping && !self.canary
    }
}

/// The calls that are not answered, as reader and writer share them.
struct Shared {
    calls: Mutex<Calls>,
    /// Wakes the writer when there may be room.
    answered: Notify,
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the calls are as wished.
    async fn until(&self, is_met: impl Fn(&Calls) -> bool) {
        loop {
            let answered = self.answered.notified();
            if is_met(&self.calls()) {
                return;
            }
            answered.await;
        }
    }
}

/// Runs a session to its end, and says what ended it. It ends by [`Trouble::Left`] after the queue was finished.
pub(super) async fn run(
    engine: &Hazelcast,
    inbound: &dyn Inbound,
    connection: Connection,
    queue: &Arc<Queue<Signs>>,
) -> Trouble {
    let Connection { mut inbox, write, partitions, calls, session, .. } = connection;
    let shared = Arc::new(Shared { calls: Mutex::new(calls), answered: Notify::new() });
    // Owned here, so that it is aborted with this session.
    let mut writer = JoinSet::new();
    let writing =
        Writing { shared: Arc::clone(&shared), names: Arc::clone(&engine.names), partitions, session };
    writer.spawn(writing.write_all(Arc::clone(queue), write));
    let pace = &engine.settings.pace;
    let [mut beat, mut canary] = [BEAT, pace.canary].map(|time| {
        let mut ticks = interval_at(Instant::now() + time, time);
        // A node that stood still has not missed what it did not look for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let (mut quiet, mut missing) = (0, 0);
    let trouble = loop {
        match hear(engine, &mut inbox, &shared, inbound) {
            Ok(Some(heard)) if heard == session => missing = 0,
            Ok(_) => {}
            Err(trouble) => break trouble,
        }
        tokio::select! {
            read = inbox.read() => match read {
                Ok(0) => break Trouble::Left,
                Ok(_) => quiet = 0,
                Err(error) => break Trouble::Io(error),
            },
            _ = beat.tick() => {
                if quiet == QUIET || shared.calls().beat() > PATIENCE {
                    break Trouble::Silent;
                }
                quiet += 1;
                queue.say(|signs| signs.ping = true);
            }
            _ = canary.tick() => {
                if missing == pace.misses {
                    break Trouble::Silent;
                }
                missing += 1;
                queue.say(|signs| signs.canary = true);
            }
            Some(written) = writer.join_next() => break match written {
                Ok(Err(error)) => Trouble::Io(error),
                // The last batch was written, and the member has taken all of it.
                _ => Trouble::Left,
            },
        }
    };
    queue.close();
    writer.shutdown().await;
    trouble
}

/// Hands up what was read, and gives the session of the last canary that was among it.
fn hear(
    engine: &Hazelcast,
    inbox: &mut Inbox,
    shared: &Shared,
    inbound: &dyn Inbound,
) -> Result<Option<u32>, Trouble> {
    let mut canary = None;
    let mut is_answered = false;
    while let Some((message, len)) = protocol::read(inbox.bytes())? {
        match message.answer()? {
            Answer::Published(item) => canary = engine.take(item, inbound).or(canary),
            Answer::Done => {
                shared.calls().end(message.correlation())?;
                is_answered = true;
            }
            Answer::Refused(refusal) => return Err(refusal.into()),
            Answer::Lost | Answer::Other => {}
        }
        inbox.understood(len);
    }
    if is_answered {
        shared.answered.notify_one();
    }
    Ok(canary)
}

/// The writer's side of a session.
struct Writing {
    shared: Arc<Shared>,
    names: Arc<topics::Names>,
    partitions: Vec<i32>,
    session: u32,
}

impl Writing {
    /// Writes whatever the queue has, all of it in one write as far as it is small, until the last batch is answered or an error.
    async fn write_all(self, queue: Arc<Queue<Signs>>, mut write: Writer) -> io::Result<()> {
        let publisher = Publisher { names: &self.names, partitions: &self.partitions, session: self.session };
        let mut out = Vec::new();
        let mut batch = Batch::default();
        loop {
            batch = queue.take(batch).await;
            let signs: Signs = mem::take(&mut batch.words);
            if signs.ping {
                protocol::ping(&mut out, self.shared.calls().begin());
            }
            if signs.canary {
                let correlation = self.shared.calls().begin();
                publisher.canary(&mut out, correlation, self.names.own());
            }
            // Each target's stay in their order, and a member has to look at one message for each.
            batch.envelopes.sort_by_key(|(to, _)| if let To::One(node) = to { Some(*node) } else { None });
            let mut gathered = 0;
            let mut waiting = batch.envelopes.drain(..).peekable();
            while let Some((to, envelope)) = waiting.next() {
                if out.len() >= GATHER || !self.shared.calls().has_room() {
                    write.write_all(&out).await?;
                    out.clear();
                    queue.written(mem::take(&mut gathered));
                    self.shared.until(Calls::has_room).await;
                }
                let correlation = self.shared.calls().begin();
                let mut message = publisher.begin(&mut out, correlation, topics::place(to), to);
                gathered += push(&mut message, &envelope);
                while message.len() < JOIN
                    && let Some((_, more)) = waiting.next_if(|(next, _)| *next == to)
                {
                    gathered += push(&mut message, &more);
                }
                self.shared.calls().weigh(message.len());
                message.end();
            }
            drop(waiting);
            write.write_all(&out).await?;
            out.clear();
            queue.written(gathered);
            if batch.last {
                self.shared.until(Calls::is_empty).await;
                return write.shutdown().await;
            }
            // After a burst the memory is given back.
            out.shrink_to(GATHER);
            batch.envelopes.shrink_to(1024);
        }
    }
}

/// Appends an envelope to a message, and gives what the queue counted for it.
fn push(message: &mut Publication<'_>, envelope: &[u8]) -> usize {
    topics::push(message, envelope);
    cost(envelope.len())
}
