//! A session: the time from one connection's first canary to its end. One task reads, one writes, so that neither waits for
//! the other; above all the reader never does, because the server cuts off a subscriber that is slow.
//!
//! A session ends when its connection does, when the server refuses a command, or when canaries do not come back. What still
//! waits in its queue is lost then: an old envelope behind an outage would help nobody, and its number tells that it is
//! missing. Tested by the broker's tests.

use std::io;
use std::sync::Arc;

use tieline_core::broker::Inbound;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Trouble;
use super::channels::{Came, Channels};
use super::connection::{Connection, Inbox};
use super::resp::Said;
use crate::medium::{Pace, Queue};
use crate::queue::{self, Words, cost};

/// Commands are gathered up to about so many bytes for one write: more system calls would not be felt, and more memory
/// would.
const GATHER: usize = 256 * 1024;

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
    channels: &Arc<Channels>,
    inbound: &dyn Inbound,
    connection: Connection,
    queue: &Arc<Queue<Signs>>,
) -> Trouble {
    let Connection { mut inbox, write } = connection;
    // Owned here, so that it is aborted with this session.
    let mut writer = JoinSet::new();
    writer.spawn(write_all(Arc::clone(queue), Arc::clone(channels), write));
    let mut canary = interval_at(Instant::now() + pace.canary, pace.canary);
    // A node that stood still has not missed what it did not look for.
    canary.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missing = 0;
    let trouble = loop {
        match hear(&mut inbox, channels, inbound) {
            Ok(true) => missing = 0,
            Ok(false) => {}
            Err(trouble) => break trouble,
        }
        tokio::select! {
            read = inbox.read() => match read {
                Ok(0) => break Trouble::Left,
                Ok(_) => {}
                Err(error) => break Trouble::Io(error),
            },
            _ = canary.tick() => {
                if missing == pace.misses {
                    break Trouble::Silent;
                }
                missing += 1;
                queue.say(|signs| signs.canary = true);
            }
            // Without an error the last batch was written, and the server closes when it has read it.
            Some(Ok(Err(error))) = writer.join_next() => break Trouble::Io(error),
        }
    };
    queue.close();
    writer.shutdown().await;
    trouble
}

/// Hands up what was read, and says whether a canary was among it.
fn hear(inbox: &mut Inbox, channels: &Channels, inbound: &dyn Inbound) -> Result<bool, Trouble> {
    let mut canary = false;
    while let Some(said) = inbox.next()? {
        match said {
            Said::Message { channel, payload } => match channels.sort(channel, payload) {
                Came::Envelope(envelope) => inbound.envelope(envelope),
                Came::Canary => canary = true,
                Came::Echo => {}
                Came::Foreign => {
                    tracing::debug!("Somebody who is no node has published to a channel of the cluster.")
                }
            },
            Said::Refused(reason) => return Err(Trouble::refused(reason, None)),
            Said::Subscribed | Said::Other => {}
        }
    }
    Ok(canary)
}

/// Writes whatever the queue has, all of it in one write as far as it is small, until the last batch or an error.
async fn write_all(
    queue: Arc<Queue<Signs>>,
    channels: Arc<Channels>,
    mut write: Box<dyn AsyncWrite + Send + Unpin>,
) -> io::Result<()> {
    let mut out = Vec::new();
    let mut batch = queue::Batch::default();
    loop {
        batch = queue.take(batch).await;
        if std::mem::take(&mut batch.words.canary) {
            channels.canary(&mut out);
        }
        let mut gathered = 0;
        for (to, envelope) in batch.envelopes.drain(..) {
            channels.publish(&mut out, to, &envelope);
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
