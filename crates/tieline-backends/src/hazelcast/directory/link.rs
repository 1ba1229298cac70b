//! [`Link`]: a connection on which calls to one map are made, many behind each other, and their answers read. Tested with the directory.
//!
//! Nothing is read while nothing is asked: a node asks once a second, and a member says no more unasked than that the map has lost
//! something.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::super::Trouble;
use super::super::connection::{Greeted, NEXT};
use super::super::protocol::{self, Answer, MapCall, Reply};
use crate::inbox::{Inbox, Writer};

/// Bytes of calls that are kept for the next ones.
const KEPT: usize = 256 * 1024;

/// A connection to a map.
pub(super) struct Link {
    inbox: Inbox,
    write: Writer,
    out: Vec<u8>,
    map: String,
    partitions: i32,
    /// The correlation of the next call.
    next: i64,
    /// A call whose answer is not waited for, until it comes.
    aside: Option<i64>,
    has_lost: bool,
}

impl Link {
    pub(super) fn new(greeted: Greeted, map: &str) -> Link {
        let Greeted { inbox, write, partitions } = greeted;
        let (out, map) = (Vec::new(), map.to_owned());
        Link { inbox, write, out, map, partitions, next: NEXT, aside: None, has_lost: false }
    }

    /// Whether the map has lost a part since this was last asked, as far as was read.
    pub(super) fn has_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// Makes all of these calls, and gives the reply to each, or fails after so long.
    pub(super) async fn ask(
        &mut self,
        calls: &[MapCall<'_>],
        within: Duration,
    ) -> Result<Vec<Reply>, Trouble> {
        timeout(within, self.ask_all(calls)).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Makes a call that may take long, and whose reply nobody waits for; one at a time.
    pub(super) async fn ask_aside(&mut self, call: &MapCall<'_>, within: Duration) -> Result<(), Trouble> {
        self.aside = Some(self.say(call)?);
        timeout(within, self.send()).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Whether that was answered, as far as was read.
    pub(super) fn is_aside_done(&self) -> bool {
        self.aside.is_none()
    }

    fn say(&mut self, call: &MapCall<'_>) -> Result<i64, Trouble> {
        let correlation = self.next;
        self.next += 1;
        call.write(&mut self.out, correlation, &self.map, self.partitions)?;
        Ok(correlation)
    }

    async fn send(&mut self) -> Result<(), Trouble> {
        self.write.write_all(&self.out).await.map_err(Trouble::Io)?;
        self.out.clear();
        self.out.shrink_to(KEPT);
        Ok(())
    }

    async fn ask_all(&mut self, calls: &[MapCall<'_>]) -> Result<Vec<Reply>, Trouble> {
        let mut open = HashMap::with_capacity(calls.len());
        for (at, call) in calls.iter().enumerate() {
            open.insert(self.say(call)?, at);
        }
        self.send().await?;
        let mut replies: Vec<Reply> = vec![Reply::Done; calls.len()];
        while !open.is_empty() {
            while let Some((message, len)) = protocol::read(self.inbox.bytes())? {
                let is_aside = self.aside == Some(message.correlation());
                match message.answer()? {
                    Answer::Refused(refusal) if is_aside => {
                        self.aside = None;
                        let trouble = Trouble::from(refusal);
                        tracing::warn!(%trouble, "What dead nodes have left in the directory's map stays there.");
                    }
                    Answer::Refused(refusal) => return Err(refusal.into()),
                    Answer::Lost => self.has_lost = true,
                    Answer::Published(_) | Answer::Other => {}
                    Answer::Done if is_aside => self.aside = None,
                    Answer::Done => {
                        let at = open.remove(&message.correlation()).ok_or(Trouble::Garbage)?;
                        replies[at] = message.reply()?;
                    }
                }
                self.inbox.understood(len);
            }
            if !open.is_empty() && self.inbox.read().await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
        }
        Ok(replies)
    }
}
