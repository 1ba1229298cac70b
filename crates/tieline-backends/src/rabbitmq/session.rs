//! A session: the time from one connection's first canary to its end. One task reads, one writes, so that neither waits for the other.
//!
//! **Confirms.** What is written keeps its place in the queue's bound until the server has taken charge of it, so a server that is slow, or
//! stands still, is owed no more than the queue holds. Nothing is sent a second time: what the server did not take charge of, or gave back
//! because nobody has a queue for it, is counted, and its number tells its receiver that it is missing.
//!
//! A session ends when its connection does, when the server refuses something or is short of memory, or when canaries do not come back.
//! What still waits in its queue is lost then. Tested by the broker's tests.

use std::io;
use std::sync::Arc;

use tieline_core::broker::Inbound;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Trouble;
use super::connection::Connection;
use super::mouth::{self, Mouth};
use crate::inbox::Writer;
use crate::medium::{Pace, Queue};
use crate::queue::{Batch, Words, cost};

/// Messages are gathered up to about so many bytes for one write: more system calls would not be felt, and more memory would.
const GATHER: usize = 256 * 1024;

/// A server that goes on with what is before a canary, confirms it or hands it out, is not silent, as long as that takes no more than so
/// many times what a silent one is borne: then it is so far behind that what waits had better be lost.
const BEHIND: u32 = 5;

/// What is said to the server beside envelopes.
#[derive(Default)]
pub struct Signs {
    /// Whether to send a canary.
    canary: bool,
}

impl Words for Signs {
    fn is_empty(&self) -> bool {
        !self.canary
    }
}

/// Runs a session to its end, and says what ended it. It ends by [`Trouble::Left`] after the queue was finished.
pub(super) async fn run(
    pace: &Pace,
    inbound: &dyn Inbound,
    connection: Connection,
    queue: &Arc<Queue<Signs>>,
) -> Trouble {
    let Connection { mut ear, mouth, write } = connection;
    // Owned here, so that it is aborted with this session.
    let mut writer = JoinSet::new();
    writer.spawn(write_all(Arc::clone(queue), mouth, write));
    let mut canary = interval_at(Instant::now() + pace.canary, pace.canary);
    // A node that stood still has not missed what it did not look for.
    canary.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Canaries since the last one that came back; and since anything at all showed that the server does its work.
    let (mut behind, mut missing) = (0, 0);
    let trouble = loop {
        match ear.hear(inbound) {
            Ok(heard) => {
                queue.written(heard.confirmed);
                if heard.canary {
                    (behind, missing) = (0, 0);
                } else if heard.confirmed > 0 || heard.messages {
                    missing = 0;
                }
            }
            Err(trouble) => break trouble,
        }
        tokio::select! {
            read = ear.read() => if let Err(trouble) = read {
                break trouble;
            },
            _ = canary.tick() => {
                if missing == pace.misses || behind == pace.misses.saturating_mul(BEHIND) {
                    break Trouble::Silent;
                }
                (behind, missing) = (behind + 1, missing + 1);
                queue.say(|signs| signs.canary = true);
            }
            Some(Ok(Err(error))) = writer.join_next() => break Trouble::Io(error),
        }
    };
    queue.close();
    writer.shutdown().await;
    trouble
}

/// Writes whatever the queue has, all of it in one write as far as it is small, until the last batch or an error.
async fn write_all(queue: Arc<Queue<Signs>>, mouth: Mouth, mut write: Writer) -> io::Result<()> {
    let mut out = Vec::new();
    let mut batch = Batch::default();
    loop {
        batch = queue.take(batch).await;
        if std::mem::take(&mut batch.words.canary) {
            mouth.canary(&mut out);
        }
        for (to, envelope) in batch.envelopes.drain(..) {
            mouth.publish(&mut out, to, &envelope, cost(envelope.len()));
            if out.len() >= GATHER {
                write.write_all(&out).await?;
                out.clear();
            }
        }
        if batch.last {
            mouth::goodbye(&mut out);
        }
        write.write_all(&out).await?;
        // With TLS written is not sent yet.
        write.flush().await?;
        if batch.last {
            // The way stays open until the server has answered: it forgets what it has not routed yet when it is closed.
            return std::future::pending().await;
        }
        out.clear();
        // After a burst the memory is given back.
        out.shrink_to(GATHER);
        batch.envelopes.shrink_to(1024);
    }
}
