//! A session: the time from the proof that the connections carry to their end. Messages are pulled by one connection and sent by
//! the other, neither of which waits for the other.
//!
//! **Sending** is one batch after the other: while one is on its way, the next one gathers. A broker carries out what comes on one
//! connection on several threads, so two batches at once could change places.
//!
//! A session ends when a connection does, when the broker refuses something, or when canaries do not come back. What still waits
//! in its queue is lost then, and what was on its way may be; nothing is sent a second time. Tested by the broker's tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tieline_core::broker::Inbound;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connection::Connection;
use super::link::Link;
use super::names::tag;
use super::reading::Heard;
use super::{RocketMq, Trouble, messages, questions};
use crate::medium::{Queue, parts};
use crate::queue::{self, Words, cost};

/// The most bytes of one batch, and of a message in it: what any server takes, whose `maxMessageSize` is a mebibyte or more (the
/// default is four).
const BATCH: usize = 512 * 1024;

/// The most bytes of a message's body: some fit into a batch, and one never leaves half of it empty.
const PART: usize = 128 * 1024;

/// What is said to the broker beside envelopes.
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

impl RocketMq {
    /// Runs a session to its end, and says what ended it. It ends by [`Trouble::Left`] after the queue was finished.
    pub(super) async fn carry(
        &self,
        connection: Connection,
        queue: &Arc<Queue<Signs>>,
        inbound: &dyn Inbound,
    ) -> Trouble {
        let Connection { mut sending, mut pulling } = connection;
        // Canaries in a row that did not come back.
        let missing = AtomicU32::new(0);
        let hear = async {
            loop {
                match self.hear(&mut pulling, inbound).await {
                    Ok(Heard::Canary) => missing.store(0, Ordering::Relaxed),
                    Ok(Heard::Nothing) => {}
                    Err(trouble) => break trouble,
                }
            }
        };
        let watch = async {
            let mut canary = interval_at(Instant::now() + self.pace.canary, self.pace.canary);
            // A node that stood still has not missed what it did not look for.
            canary.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                canary.tick().await;
                if missing.fetch_add(1, Ordering::Relaxed) == self.pace.misses {
                    break Trouble::Silent;
                }
                queue.say(|signs| signs.canary = true);
            }
        };
        let trouble = tokio::select! {
            trouble = hear => trouble,
            trouble = watch => trouble,
            sent = self.send_all(queue, &mut sending) => sent.err().unwrap_or(Trouble::Left),
        };
        queue.close();
        trouble
    }

    /// Sends whatever the queue has, until the broker has the last batch.
    async fn send_all(&self, queue: &Queue<Signs>, sending: &mut Link) -> Result<(), Trouble> {
        let mut batch = queue::Batch::default();
        let mut out = Vec::new();
        loop {
            batch = queue.take(batch).await;
            if std::mem::take(&mut batch.words.canary) {
                messages::put(&mut out, self.names.own(), &[&parts::canary(self.me)]);
            }
            // What is in `out`, or was sent of an envelope whose end is.
            let mut gathered = 0;
            for (to, envelope) in batch.envelopes.drain(..) {
                let tag = tag(to);
                for (header, bytes) in parts::cut(self.me, &envelope, PART) {
                    if out.len() + messages::size(&tag, header.len() + bytes.len()) > BATCH {
                        self.send_batch(sending, &mut out).await?;
                        queue.written(std::mem::take(&mut gathered));
                    }
                    messages::put(&mut out, &tag, &[&header, bytes]);
                }
                gathered += cost(envelope.len());
            }
            self.send_batch(sending, &mut out).await?;
            queue.written(gathered);
            if batch.last {
                return Ok(());
            }
            // After a burst the memory is given back.
            out.shrink_to(BATCH / 8);
            batch.envelopes.shrink_to(1024);
        }
    }

    async fn send_batch(&self, sending: &mut Link, out: &mut Vec<u8>) -> Result<(), Trouble> {
        if !out.is_empty() {
            questions::send(sending, &self.names.topic, out).await?;
            out.clear();
        }
        Ok(())
    }
}
