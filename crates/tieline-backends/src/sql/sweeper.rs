//! The task that takes away what nobody needs: of all nodes one, as long as its connection lives.
//!
//! It holds no row of a log for longer than one short statement: a first offset that moves, then the rows in front of it,
//! which no reader finds any more, then what is known of them. Whatever it is killed in the middle of, the next one does
//! again. Which logs it has to look at is in their rows (`due_ms`). Tested by the conformance suite and in `sql/tests`.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tieline_proto::MessageId;
use tokio::runtime::Runtime;

use super::dialect::{APPENDS, RECORDS};
use super::link::{Arg, Link, Result};
use super::logs::{COLUMNS, Hash, Log};
use super::session::Session;

/// Between two passes when there is nothing to take.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Between two passes when the last one left something, or a writer says that there is something.
const TAKE_EVERY: Duration = Duration::from_millis(20);

/// Logs that one pass looks at.
const LOGS: i64 = 32;

/// Rows that are taken away at once.
const SLICE: usize = 512;

/// Bytes of bodies that are taken away at once, and one message at least.
const SLICE_BYTES: u64 = 16 << 20;

/// Appends that one pass forgets.
const FORGOTTEN: usize = 2048;

/// Records whose life is over that one pass takes away.
const RECORDS_ENDED: usize = 256;

/// A log is looked at so often at most where its messages come to their age one by one.
const LOG_EVERY_MS: u64 = 1000;

/// Sweeps until nobody holds the other end of `pokes`, by which writers say that there is something to take.
pub(super) fn run(runtime: &Runtime, session: Session, slot: Duration, pokes: &Receiver<()>) {
    let mut sweeper = Sweeper { session, slot, is_chosen: false };
    loop {
        let pause = runtime.block_on(sweeper.sweep());
        match pokes.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) => std::thread::sleep(TAKE_EVERY),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    runtime.block_on(sweeper.session.close());
}

struct Sweeper {
    session: Session,
    /// How long a slot of appends lasts.
    slot: Duration,
    /// Whether this connection is the one that sweeps.
    is_chosen: bool,
}

impl Sweeper {
    /// One pass. How long until the next one.
    async fn sweep(&mut self) -> Duration {
        self.is_chosen &= self.session.is_used();
        // What is wrong with the server is told by the session.
        let Ok(link) = self.session.link().await else { return SWEEP_EVERY };
        match pass(link, &mut self.is_chosen, self.slot).await {
            Ok(true) => TAKE_EVERY,
            Ok(false) => SWEEP_EVERY,
            Err(error) => {
                if !self.session.judge(&error) {
                    tracing::debug!(%error, "The store was not swept.");
                }
                SWEEP_EVERY
            }
        }
    }
}

/// Whether something is left.
async fn pass(link: &mut Link, is_chosen: &mut bool, slot: Duration) -> Result<bool> {
    if !*is_chosen {
        let rows = link.rows(link.dialect.lock_sweeping(), &[]).await?;
        *is_chosen = rows.first().is_some_and(|row| row.int(0).is_ok_and(|locked| locked == 1));
        if !*is_chosen {
            return Ok(false);
        }
    }
    let mut is_more = forget_appends(link, slot).await?;
    let over = format!("ends_ms > 0 AND ends_ms <= {}", link.dialect.now_ms());
    is_more |= link.delete_some(&RECORDS, &over, &[], RECORDS_ENDED).await? == RECORDS_ENDED as u64;
    is_more |= sweep_logs(link).await?;
    is_more |= sweep_dropped(link).await?;
    Ok(is_more)
}

/// Turns to the next slot when it is time, and forgets the appends of slots before the last one. A clock that leaps turns by one
/// slot; one that goes back makes the slot longer.
async fn forget_appends(link: &mut Link, slot: Duration) -> Result<bool> {
    let now_ms = link.dialect.now_ms();
    let rows = link.rows(&format!("SELECT slot, since_ms, {now_ms} FROM tieline_store"), &[]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let (mut present, since_ms, now_ms) = (row.int(0)?, row.int(1)?, row.int(2)?);
    let is_over = now_ms >= since_ms.saturating_add(slot.as_millis() as i64);
    if is_over || now_ms < since_ms {
        present += i64::from(is_over);
        let text = "UPDATE tieline_store SET slot = ?, since_ms = ?";
        link.execute(text, &[Arg::Int(present), Arg::Int(now_ms)]).await?;
    }
    let forgotten = link.delete_some(&APPENDS, "slot < ?", &[Arg::Int(present - 1)], FORGOTTEN).await?;
    Ok(forgotten == FORGOTTEN as u64)
}

async fn sweep_logs(link: &mut Link) -> Result<bool> {
    let now_ms = link.dialect.now_ms();
    let text = format!(
        "SELECT {COLUMNS}, {now_ms} FROM tieline_logs WHERE due_ms <= {now_ms} ORDER BY due_ms LIMIT ?"
    );
    let rows = link.rows(&text, &[Arg::Int(LOGS)]).await?;
    for row in &rows {
        let (hash, log) = Log::from_row(row)?;
        sweep_log(link, &hash, &log, row.number(12)?).await?;
    }
    // Those that were looked at may be due again.
    Ok(!rows.is_empty())
}

/// What a look at the old end of a log has shown.
struct Finding {
    first: u64,
    swept: u64,
    /// Bytes of the rows that go.
    freed: u64,
    /// When to look again.
    due_ms: u64,
}

/// Looks at one slice of a log's rows.
async fn look(link: &mut Link, log: &Log, now_ms: u64) -> Result<Finding> {
    let mut found = Finding { first: log.first, swept: log.swept, freed: 0, due_ms: 0 };
    let text = "SELECT number, id, size FROM tieline_messages \
                WHERE log = ? AND number >= ? AND number <= ? ORDER BY number LIMIT ?";
    let range = [Arg::Int(log.swept as i64), Arg::Int(log.last as i64)];
    let rows = link.rows(text, &[Arg::Int(log.log), range[0], range[1], Arg::Int(SLICE as i64)]).await?;
    for row in &rows {
        let (number, size) = (row.number(0)?, row.number(2)?);
        let ends_ms =
            MessageId(u128::from_be_bytes(row.exactly(1)?)).unix_ms().saturating_add(log.retention.age_ms());
        let count = (log.last + 1).saturating_sub(found.first);
        let bytes = log.bytes.saturating_sub(found.freed);
        let is_large = count > 1 && (count > log.retention.count || bytes > log.retention.bytes);
        if number >= found.first && !is_large && ends_ms > now_ms {
            found.due_ms = ends_ms.max(now_ms + LOG_EVERY_MS);
            return Ok(found);
        }
        if found.freed > 0 && found.freed + size > SLICE_BYTES {
            return Ok(found);
        }
        found.freed += size;
        found.swept = number + 1;
        found.first = found.first.max(found.swept);
    }
    if rows.len() < SLICE {
        // There are no more rows in front of the first offset, and none behind it either.
        found.swept = found.swept.max(found.first);
        found.due_ms =
            log.newest_ms.saturating_add(log.retention.age_ms().saturating_mul(2)).saturating_add(1);
    }
    Ok(found)
}

async fn sweep_log(link: &mut Link, hash: &Hash, log: &Log, now_ms: u64) -> Result<()> {
    let found = look(link, log, now_ms).await?;
    let int = |number: u64| Arg::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let (key, number) = (Arg::Bytes(hash), Arg::Int(log.log));
    if found.swept > log.last && found.due_ms <= now_ms && found.due_ms > 0 {
        let text = "DELETE FROM tieline_logs WHERE hash = ? AND log = ? AND last = ? AND swept = ?";
        if found.swept == log.swept {
            link.execute(text, &[key, number, int(log.last), int(log.swept)]).await?;
            return Ok(());
        }
    }
    if found.first > log.first {
        // Another retention, or another cut, is another look.
        let text = "UPDATE tieline_logs SET first = ? WHERE hash = ? AND log = ? AND first < ? \
                    AND keep_count = ? AND keep_bytes = ? AND keep_ms = ?";
        let kept = [int(log.retention.count), int(log.retention.bytes), int(log.retention.age_ms())];
        let first = int(found.first);
        if link.execute(text, &[first, key, number, first, kept[0], kept[1], kept[2]]).await? == 0 {
            return Ok(());
        }
    }
    if found.swept > log.swept {
        let text = "DELETE FROM tieline_messages WHERE log = ? AND number < ?";
        link.execute(text, &[number, int(found.swept)]).await?;
    }
    // Where something was appended or cut since, it is looked at again soon.
    let text = "UPDATE tieline_logs SET swept = ?, bytes = bytes - ?, \
                due_ms = CASE WHEN last = ? AND first = ? THEN ? ELSE LEAST(?, ?) END \
                WHERE hash = ? AND log = ? AND swept = ?";
    let due = int(found.due_ms);
    let args = [
        int(found.swept),
        int(found.freed),
        int(log.last),
        int(found.first),
        due,
        due,
        int(now_ms + LOG_EVERY_MS),
        key,
        number,
        int(log.swept),
    ];
    link.execute(text, &args).await.map(drop)
}

/// Takes away messages of logs that were dropped. Whether some are left.
async fn sweep_dropped(link: &mut Link) -> Result<bool> {
    let rows = link.rows("SELECT log FROM tieline_dropped LIMIT 8", &[]).await?;
    for row in &rows {
        let log = Arg::Int(row.int(0)?);
        let text = "SELECT number, size FROM tieline_messages WHERE log = ? ORDER BY number LIMIT ?";
        let (mut bytes, mut last) = (0, None);
        for row in &link.rows(text, &[log, Arg::Int(SLICE as i64)]).await? {
            bytes += row.number(1)?;
            if last.is_some() && bytes > SLICE_BYTES {
                break;
            }
            last = Some(row.int(0)?);
        }
        if let Some(last) = last {
            let text = "DELETE FROM tieline_messages WHERE log = ? AND number <= ?";
            link.execute(text, &[log, Arg::Int(last)]).await?;
        } else {
            link.execute("DELETE FROM tieline_dropped WHERE log = ?", &[log]).await?;
        }
    }
    Ok(!rows.is_empty())
}
