//! The one thread of this process that writes: whatever waits becomes one transaction, with one flush to the disk.
//!
//! Nobody's request is answered before the commit that holds it has returned. A batch is not waited for: while one is
//! flushed, the next gathers. Sweeping is done by the same thread in small transactions between the batches, so that
//! nobody ever waits for a large one. What a request does is in `logs.rs` and `facts.rs`. Tested by the conformance
//! suite and in `sqlite/tests`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};

use tieline_core::store::{Refusal, StoreError};
use tieline_core::unix_ms;

use super::facts::Facts;
use super::fault;
use super::identity::Identity;
use super::logs::{Logs, More};
use crate::requests::{BATCH, Queue, Taken, Write};

/// Between two sweeps when there is nothing to sweep.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Between two sweeps when the last one did not see all logs.
const SEE_EVERY: Duration = Duration::from_millis(250);

/// How often the log is told of the same trouble.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Between two sweeps when the last one left something.
const TAKE_EVERY: Duration = Duration::from_millis(20);

/// Writes what comes through the queue until it is closed and empty.
pub(super) fn run(connection: Connection, path: &Path, window: Duration, queue: &Arc<Queue<Write>>) {
    let writer = Writer::new(&connection, path, window);
    let mut writer = match writer {
        Ok(writer) => writer,
        Err(error) => return refuse_all(queue, &fault::refusal(&error)),
    };
    let mut next_sweep = Instant::now();
    loop {
        match queue.take(BATCH, Some(next_sweep)) {
            Taken::Jobs(batch) => writer.write(batch),
            Taken::Nothing => {}
            Taken::Closed => return,
        }
        if Instant::now() >= next_sweep {
            next_sweep = Instant::now() + writer.sweep();
        }
    }
}

/// What becomes of requests where the file cannot be written to at all.
fn refuse_all(queue: &Queue<Write>, refusal: &Refusal) {
    while let Taken::Jobs(batch) = queue.take(BATCH, None) {
        batch.into_iter().for_each(|write| write.give(Err(refusal.clone().into())));
    }
}

struct Writer<'c> {
    connection: &'c Connection,
    path: PathBuf,
    /// Which file it was when it was opened.
    identity: Identity,
    /// Whether the path leads to another file now.
    is_lost: bool,
    /// What the log was last told that is wrong, and when; none while all is well.
    told: Option<(StoreError, Instant)>,
    logs: Logs<'c>,
    facts: Facts<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection, path: &Path, window: Duration) -> rusqlite::Result<Self> {
        Ok(Writer {
            connection,
            path: path.to_owned(),
            identity: Identity::of(path),
            is_lost: false,
            told: None,
            logs: Logs::new(connection, window)?,
            facts: Facts::new(connection)?,
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
        })
    }

    /// Makes one transaction of a batch, and answers all of it.
    fn write(&mut self, mut batch: Vec<Write>) {
        let result = self
            .transact(|writer, now_ms| batch.iter_mut().try_for_each(|write| writer.apply(write, now_ms)));
        // Damage in one log is no matter of the others.
        if matches!(result, Err(StoreError::Refused(Refusal::Damaged(_)))) && batch.len() > 1 {
            batch.into_iter().for_each(|write| self.write(vec![write]));
            return;
        }
        batch.into_iter().for_each(|write| write.give(result.clone()));
    }

    /// One request within a transaction.
    fn apply(&mut self, write: &mut Write, now_ms: u64) -> rusqlite::Result<()> {
        match write {
            Write::Append(append, reply) => reply.outcome = Some(self.logs.append(append)?),
            Write::Trim(log, cut, reply) => reply.outcome = Some(self.logs.trim(log, *cut)?),
            Write::Renew(log, epoch, reply) => reply.outcome = Some(self.logs.renew(log, *epoch)?),
            Write::Change(change, reply) => reply.outcome = Some(self.facts.change(change, now_ms)?),
        }
        Ok(())
    }

    /// Begins, works, and commits; on any error all of it is undone.
    fn transact(
        &mut self,
        mut work: impl FnMut(&mut Self, u64) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let result = self.attempt(&mut work);
        self.tell(&result);
        result
    }

    fn attempt(
        &mut self,
        work: &mut dyn FnMut(&mut Self, u64) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        if self.is_lost {
            return Err(Refusal::Failed("its file was removed or replaced".to_owned()).into());
        }
        let now_ms = unix_ms();
        let done = self.begin.execute([]).and_then(|_| {
            self.logs.begin(Instant::now(), now_ms)?;
            work(self, now_ms)?;
            self.logs.finish(now_ms)
        });
        let result = match done {
            Ok(()) => self.commit.execute([]).map(drop).map_err(|error| fault::of_commit(&error)),
            Err(error) => Err(fault::refusal(&error).into()),
        };
        if result.is_err() {
            self.logs.roll_back();
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "A transaction of the store could not be undone.");
            }
        }
        result
    }

    /// Tells the log when trouble begins, is another one, goes on for a while, and ends.
    fn tell(&mut self, result: &Result<(), StoreError>) {
        let path = self.path.display();
        match (result, &self.told) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                tracing::info!(%path, "The store writes again.");
                self.told = None;
            }
            (Err(error), Some((told, since))) if error == told && since.elapsed() < TELL_EVERY => {}
            (Err(error), _) => {
                tracing::error!(%path, %error, "The store does not write.");
                self.told = Some((error.clone(), Instant::now()));
            }
        }
    }

    /// Takes away a slice of what nobody needs. How long until the next one.
    fn sweep(&mut self) -> Duration {
        self.is_lost = !self.identity.is_still(&self.path);
        let (mut more, mut is_more) = (More::Nothing, false);
        let result = self.transact(|writer, now_ms| {
            more = writer.logs.sweep(now_ms)?;
            is_more = writer.facts.sweep(now_ms)?;
            Ok(())
        });
        match (result, is_more, more) {
            (Err(_), ..) | (Ok(()), false, More::Nothing) => SWEEP_EVERY,
            (Ok(()), false, More::ToSee) => SEE_EVERY,
            (Ok(()), true, _) | (Ok(()), _, More::ToTake) => TAKE_EVERY,
        }
    }
}
