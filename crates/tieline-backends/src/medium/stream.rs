//! A session over one stream of bytes each way, for servers whose protocol is read and written here: the time from a connection's first
//! canary to its end. One task reads, one writes, so that neither waits for the other; above all the reader never does, because
//! servers cut off a subscriber that is slow.
//!
//! A session ends when its connection does, when what was heard says so, or when canaries do not come back. What still waits in its
//! queue is lost then. Canaries wait in that queue like everything else, so nothing that is written has waited for longer
//! than they may: a stalled socket ends the session, and nothing stale is sent behind it. Tested by the brokers' tests.

use std::io;
use std::sync::Arc;

use tieline_core::broker::To;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Fault, Pace, Queue};
use crate::inbox::{Inbox, Writer};
use crate::queue::{Batch, Words, cost};

/// Commands are gathered up to about so many bytes for one write: more system calls would not be felt, and more memory
/// would.
const GATHER: usize = 256 * 1024;

/// What is said to the server beside envelopes.
#[derive(Default)]
pub struct Signs {
    /// Whether to send a canary.
    canary: bool,
    /// Whether to answer that this node is there.
    answer: bool,
}

impl Words for Signs {
    fn is_empty(&self) -> bool {
        !self.canary && !self.answer
    }
}

/// How a connection ended by itself.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The network failed.
    Broke(io::Error),
    /// The server closed it.
    Left,
}

/// What was among the things that were heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// A canary.
    pub(crate) canary: bool,
    /// The question whether this node is there.
    pub(crate) question: bool,
}

/// How what is said to a server is written.
pub(crate) trait Speech: Send + 'static {
    /// Appends a message to this very node.
    fn canary(&self, out: &mut Vec<u8>);

    /// Appends an envelope.
    fn publish(&self, out: &mut Vec<u8>, to: To, envelope: &[u8]);

    /// Appends the answer to [`Heard::question`].
    fn answer(&self, out: &mut Vec<u8>);
}

/// Both ways of a connection.
pub struct Stream {
    pub(crate) inbox: Inbox,
    pub(crate) write: Writer,
}

/// Runs a session to its end, and says what ended it. It ends by [`Ended::Left`] after the queue was finished. `hear` hands up what was
/// read.
pub(crate) async fn run<F: Fault + From<Ended>>(
    pace: &Pace,
    stream: Stream,
    queue: &Arc<Queue<Signs>>,
    speech: impl Speech,
    mut hear: impl FnMut(&mut Inbox) -> Result<Heard, F> + Send,
) -> F {
    let Stream { mut inbox, write } = stream;
    // Owned here, so that it is aborted with this session.
    let mut writer = JoinSet::new();
    writer.spawn(write_all(Arc::clone(queue), speech, write));
    let mut canary = interval_at(Instant::now() + pace.canary, pace.canary);
    // A node that stood still has not missed what it did not look for.
    canary.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missing = 0;
    let fault = loop {
        match hear(&mut inbox) {
            Ok(heard) => {
                if heard.canary {
                    missing = 0;
                }
                if heard.question {
                    queue.say(|signs| signs.answer = true);
                }
            }
            Err(fault) => break fault,
        }
        tokio::select! {
            read = inbox.read() => match read {
                Ok(0) => break Ended::Left.into(),
                Ok(_) => {}
                Err(error) => break Ended::Broke(error).into(),
            },
            _ = canary.tick() => {
                if missing == pace.misses {
                    break F::silent();
                }
                missing += 1;
                queue.say(|signs| signs.canary = true);
            }
            // Without an error the last batch was written, and the server closes when it has read it.
            Some(Ok(Err(error))) = writer.join_next() => break Ended::Broke(error).into(),
        }
    };
    queue.close();
    writer.shutdown().await;
    fault
}

/// Writes whatever the queue has, all of it in one write as far as it is small, until the last batch or an error.
async fn write_all(queue: Arc<Queue<Signs>>, speech: impl Speech, mut write: Writer) -> io::Result<()> {
    let mut out = Vec::new();
    let mut batch = Batch::default();
    loop {
        batch = queue.take(batch).await;
        let Signs { canary, answer } = std::mem::take(&mut batch.words);
        if answer {
            speech.answer(&mut out);
        }
        if canary {
            speech.canary(&mut out);
        }
        let mut gathered = 0;
        for (to, envelope) in batch.envelopes.drain(..) {
            speech.publish(&mut out, to, &envelope);
            gathered += cost(envelope.len());
            if out.len() >= GATHER {
                write.write_all(&out).await?;
                out.clear();
                queue.written(std::mem::take(&mut gathered));
            }
        }
        write.write_all(&out).await?;
        // With TLS written is not sent yet.
        write.flush().await?;
        out.clear();
        queue.written(gathered);
        if batch.last {
            return write.shutdown().await;
        }
        // After a burst the memory is given back.
        out.shrink_to(GATHER);
        batch.envelopes.shrink_to(1024);
    }
}
