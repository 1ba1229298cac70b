//! The one thread of a handle that writes: whatever waits becomes one transaction, and is answered after its commit.
//!
//! A batch is not waited for: while one is committed, the next gathers. What a request does is in `logs.rs` and `facts.rs`. A
//! transaction that met another one, or found its connection lost before the commit, is made once more, because
//! nothing has happened; after a commit that was not answered nobody knows. Tested by the conformance suite and in
//! `sql/tests`.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tieline_core::store::StoreError;
use tokio::runtime::Runtime;

use super::facts::Facts;
use super::fault;
use super::link::{Link, patience};
use super::logs::{Known, Logs};
use super::session::Session;
use crate::pause::pause;
use crate::requests::{BATCH, Queue, Taken, Write};

/// How often a transaction is begun anew because it met another one.
const CONFLICTS: u32 = 8;

/// The bounds of the pauses between these attempts.
const AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Writes what comes through the queue until it is closed and empty.
/// What leaves something for the sweeper wakes it, if it is asleep.
pub(super) fn run(runtime: &Runtime, session: Session, queue: &Arc<Queue<Write>>, sweeper: &SyncSender<()>) {
    let mut writer = Writer { session, known: Known::default() };
    while let Taken::Jobs(batch) = queue.take(BATCH, None) {
        if runtime.block_on(writer.write(batch)) {
            // Full means that it is woken already.
            let _ = sweeper.try_send(());
        }
    }
    runtime.block_on(writer.session.close());
}

struct Writer {
    session: Session,
    known: Known,
}

/// How far a transaction has come.
enum Step {
    /// It is committed. Whether there is something to sweep now.
    Done(bool),
    /// A log that was thought to be there is not.
    Dropped,
}

impl Writer {
    /// Makes one transaction of a batch, and answers all of it. Whether there is something to sweep now.
    async fn write(&mut self, mut batch: Vec<Write>) -> bool {
        let result = self.attempts(&mut batch).await;
        let is_left = result == Ok(true);
        let result = result.map(drop);
        batch.into_iter().for_each(|write| write.give(result.clone()));
        is_left
    }

    async fn attempts(&mut self, batch: &mut [Write]) -> Result<bool, StoreError> {
        let (mut conflicts, mut is_second) = (0, false);
        loop {
            let was_used = self.session.is_used();
            let link = self.session.link().await?;
            let mut is_committing = false;
            let error = match attempt(link, &mut self.known, batch, &mut is_committing).await {
                Ok(Step::Done(is_left)) => return Ok(is_left),
                Ok(Step::Dropped) => {
                    self.known.forget();
                    self.roll_back().await;
                    continue;
                }
                Err(error) => error,
            };
            // What it made is undone, and so is what it learnt.
            self.known.forget();
            if self.session.judge(&error) {
                if is_committing {
                    return Err(fault::of_commit(&error));
                }
                // It may have been lost while nobody used it.
                if was_used && !is_second && !fault::is_silent(&error) {
                    is_second = true;
                    continue;
                }
                return Err(fault::refusal(&error).into());
            }
            self.roll_back().await;
            if fault::is_conflict(&error) && conflicts < CONFLICTS {
                tokio::time::sleep(pause(AGAIN.0, AGAIN.1, conflicts)).await;
                conflicts += 1;
                continue;
            }
            return Err(if is_committing { fault::of_commit(&error) } else { fault::refusal(&error).into() });
        }
    }

    async fn roll_back(&mut self) {
        if let Ok(link) = self.session.link().await
            && link.run("ROLLBACK").await.is_err()
        {
            self.session.drop_link();
        }
    }
}

/// One transaction. `is_committing` tells from when on nobody knows what an error means.
async fn attempt(
    link: &mut Link,
    known: &mut Known,
    batch: &mut [Write],
    is_committing: &mut bool,
) -> super::link::Result<Step> {
    let (mut logs, mut facts) = (Logs::of(batch), Facts::of(batch));
    link.patience = patience(batch.iter().map(Write::size).sum());
    link.run("BEGIN").await?;
    if !logs.lock(link, known, batch).await? {
        return Ok(Step::Dropped);
    }
    facts.lock(link).await?;
    for (place, write) in batch.iter_mut().enumerate() {
        match write {
            Write::Append(append, reply) => reply.outcome = Some(logs.append(place, append)),
            Write::Trim(_, cut, reply) => {
                logs.trim(place, *cut);
                reply.outcome = Some(());
            }
            Write::Renew(_, epoch, reply) => reply.outcome = Some(logs.renew(place, *epoch)),
            Write::Change(change, reply) => reply.outcome = Some(facts.change(change)),
        }
    }
    logs.finish(link, known).await?;
    facts.finish(link).await?;
    *is_committing = true;
    link.run("COMMIT").await?;
    Ok(Step::Done(logs.is_left()))
}
