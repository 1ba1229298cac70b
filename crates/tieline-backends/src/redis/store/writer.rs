//! [`Writer`]: whatever waits becomes one script, which the server runs as a whole; nobody is answered before its answer, and
//! while one is on its way the next gathers. What a request does is in `apply.lua`. Sweeping goes along, a part at a time.
//!
//! When a connection is lost with a script on its way, nobody knows whether it ran. Appends are asked again by the next
//! connection, because their keys tell; what must not happen twice is answered as unknown. Tested by the conformance
//! suites and in `store/tests`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_core::store::{Refusal, StoreError, fresh_epoch};
use tokio::time::{sleep_until, timeout};

use super::super::Trouble;
use super::super::link::{Link, Words, shown};
use super::super::resp::Answer;
use super::fault;
use super::scripts::APPLY;
use super::session::{LIMIT, Shared};
use super::write::{Write, numbers};
use crate::backlog::Bounds;

/// What may wait for the writer. Past it requests are refused: whoever asks knows best whether to wait.
pub(super) const WAITING: Bounds = Bounds { count: 65_536, bytes: 64 << 20 };

/// What one script may hold, so that it holds up the server's other clients for about ten milliseconds at most.
const BATCH: Bounds = Bounds { count: 256, bytes: 2 << 20 };

/// Between two sweeps when there is nothing to sweep. They also show that the server is there.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Between two sweeps when the last one left something.
const TAKE_EVERY: Duration = Duration::from_millis(20);

/// Requests that share a script.
struct Batch {
    writes: Vec<Write>,
    since: Instant,
    /// Whether a connection was lost with it on its way.
    is_in_doubt: bool,
}

/// The one place of this process that changes the store, whichever connection it has.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// What is on its way.
    batch: Option<Batch>,
    /// The present slot of the keys of appends, and since when it has been so by this process's clock. Slots end by the
    /// clocks of processes, which do not leap, and not by the server's, which may.
    slot: (u64, Instant),
    next_sweep: Instant,
}

/// What a script's answer means for the connection.
enum Heard {
    /// It may be used on. When the next sweep is due.
    Fine(Option<Duration>),
    /// The server has not seen the script.
    Unseen,
    /// A new connection is needed.
    Over(String),
}

impl Writer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let now = Instant::now();
        Writer { shared: Arc::clone(shared), batch: None, slot: (0, now), next_sweep: now }
    }

    /// Writes what comes through the queue until it is closed and empty, or the connection fails.
    pub(super) async fn run(&mut self, link: &mut Link) -> Result<(), Trouble> {
        loop {
            if self.batch.is_none() {
                let writes = tokio::select! {
                    writes = self.shared.writes.take(BATCH) => writes,
                    () = sleep_until(self.next_sweep.into()) => Vec::new(),
                };
                if writes.is_empty() && self.shared.writes.is_over() {
                    return Ok(());
                }
                self.batch = Some(Batch { writes, since: Instant::now(), is_in_doubt: false });
            }
            // What was on its way before has had a part of its time, and this server a little to show that it is there.
            let spent = self.batch.as_ref().map_or(Duration::ZERO, |batch| batch.since.elapsed());
            let left = LIMIT.saturating_sub(spent).max(LIMIT / 4);
            timeout(left, self.write(link)).await.unwrap_or(Err(Trouble::Silent))?;
        }
    }

    /// Has the server run the batch, and answers all of it.
    async fn write(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let Some(batch) = &self.batch else { return Ok(()) };
        let mut words = words(&self.shared);
        batch.writes.iter().for_each(|write| write.say(&mut words));
        let is_sweep = Instant::now() >= self.next_sweep;
        if is_sweep {
            if self.slot.0 > 0 && self.slot.1.elapsed() >= self.shared.settings.window {
                words.push(b"w");
                words.push_number(self.slot.0);
            }
            words.push(b"s");
        }
        let replicas = self.shared.settings.replicas;
        loop {
            link.run(&APPLY, &words);
            if replicas > 0 {
                let within = self.shared.settings.replicas_within.as_millis();
                link.say(&[b"WAIT", replicas.to_string().as_bytes(), within.to_string().as_bytes()]);
            }
            link.send().await?;
            let answers = if replicas > 0 { 2 } else { 1 };
            let heard =
                link.answers(answers, |answers| self.hear(&answers[0], answers.get(1), is_sweep)).await?;
            link.send_whole_scripts(matches!(heard, Heard::Unseen));
            match heard {
                Heard::Unseen => {}
                Heard::Over(text) => return Err(Trouble::Refused(text)),
                Heard::Fine(next_sweep) => {
                    if let Some(pause) = next_sweep {
                        self.next_sweep = Instant::now() + pause;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Answers the batch.
    fn hear(&mut self, answer: &Answer<'_>, replicas: Option<&Answer<'_>>, is_sweep: bool) -> Heard {
        let failed = match answer {
            Answer::Refused(reason) if reason.starts_with(b"NOSCRIPT") => return Heard::Unseen,
            Answer::Refused(reason) => Some(shown(reason)),
            _ => None,
        };
        let Some(Batch { writes, is_in_doubt, .. }) = self.batch.take() else { return Heard::Fine(None) };
        if let Some(text) = failed {
            let error = fault::of_script(&text);
            writes.into_iter().for_each(|write| write.fail(doubted(error.clone(), is_in_doubt)));
            // A sweep that fails is not tried at once again.
            return if fault::ends_the_session(&text) {
                Heard::Over(text)
            } else {
                Heard::Fine(is_sweep.then_some(SWEEP_EVERY))
            };
        }
        let parts: &[Answer<'_>] = if let Answer::Many(parts) = answer { parts } else { &[] };
        let slot = numbers(parts.get(..1).unwrap_or_default()).first().copied().unwrap_or(0);
        if slot != self.slot.0 {
            self.slot = (slot, Instant::now());
        }
        let lacking = replicas.and_then(|found| lacking(found, self.shared.settings.replicas));
        let mut over = None;
        let mut known = self.shared.known();
        let mut answers = parts.iter().skip(1);
        for write in writes {
            match (answers.next(), &lacking) {
                (Some(Answer::Text(text) | Answer::Refused(text)), _) => {
                    let text = shown(text);
                    write.fail(doubted(fault::of_script(&text), is_in_doubt));
                    over = over.or(fault::ends_the_session(&text).then_some(text));
                }
                (Some(_), Some(lacking)) => write.fail(StoreError::Unknown(lacking.clone())),
                (Some(answer), None) => write.give(answer, &mut known),
                (None, _) => write.fail(StoreError::Unknown("the server answers something else".to_owned())),
            }
        }
        let is_more = parts.last() == Some(&Answer::Number(1));
        let pause = is_sweep.then_some(if is_more { TAKE_EVERY } else { SWEEP_EVERY });
        over.map_or(Heard::Fine(pause), Heard::Over)
    }

    /// The connection is lost: what must not happen twice ends here.
    pub(super) fn lost(&mut self, trouble: &Trouble) {
        let Some(batch) = &mut self.batch else { return };
        batch.is_in_doubt = true;
        for write in batch.writes.extract_if(.., |write| !write.may_be_repeated()) {
            write.fail(StoreError::Unknown(trouble.to_string()));
        }
        if batch.writes.is_empty() {
            self.batch = None;
        }
    }

    /// Gives up what has been on its way for too long.
    pub(super) fn expire(&mut self, trouble: &Trouble) {
        if let Some(batch) = self.batch.take_if(|batch| batch.since.elapsed() >= LIMIT) {
            let error = StoreError::Unknown(trouble.to_string());
            batch.writes.into_iter().for_each(|write| write.fail(error.clone()));
        }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.batch.is_none()
    }
}

/// What the first request of a script follows: its keys, and what holds for all requests.
fn words(shared: &Shared) -> Words {
    let prefix = &shared.settings.prefix;
    let keys = ["store", "due", "records", "ends"].map(|key| format!("{prefix}:{key}"));
    let mut words = Words::new(&[0, 1, 2, 3].map(|key: usize| keys[key].as_bytes()));
    words.push(prefix.as_bytes());
    words.push(shared.id.to_string().as_bytes());
    words.push_number(shared.settings.window.as_millis() as u64 + 1000);
    // The script counts on from here, once for each log that it makes or renews.
    words.push_number(fresh_epoch().saturating_sub(2 * BATCH.count as u64));
    words
}

/// A refusal of something that may have happened before, by another connection.
fn doubted(error: StoreError, is_in_doubt: bool) -> StoreError {
    match error {
        StoreError::Refused(refusal) if is_in_doubt => StoreError::Unknown(refusal.to_string()),
        error => error,
    }
}

/// What to say if too few replicas have it.
fn lacking(found: &Answer<'_>, wanted: u32) -> Option<String> {
    match found {
        Answer::Number(found) if *found >= i64::from(wanted) => None,
        Answer::Number(found) => Some(format!("{found} of {wanted} replicas have it")),
        Answer::Refused(reason) => Some(shown(reason)),
        _ => Some("the server does not say how many replicas have it".to_owned()),
    }
}

/// Gives another epoch to each log that has lost a message that was given out here, and says how many there were.
pub(super) async fn verify(shared: &Shared, link: &mut Link) -> Result<usize, Trouble> {
    let mut renewed = 0;
    let known = shared.known().all();
    for logs in known.chunks(BATCH.count) {
        let mut words = words(shared);
        for (log, last) in logs {
            words.push(b"v");
            words.push(log.to_text().as_bytes());
            words.push_number(last.position.epoch);
            words.push_number(last.life);
            words.push_number(last.position.offset);
            words.push(&last.id.0.to_be_bytes());
        }
        renewed += timeout(LIMIT, verify_some(&words, link)).await.unwrap_or(Err(Trouble::Silent))?;
    }
    Ok(renewed)
}

async fn verify_some(words: &Words, link: &mut Link) -> Result<usize, Trouble> {
    loop {
        link.run(&APPLY, words);
        link.send().await?;
        let heard = link.answer(|answer| match answer {
            Answer::Refused(reason) if reason.starts_with(b"NOSCRIPT") => Ok(None),
            Answer::Refused(reason) => Err(Trouble::Refused(shown(reason))),
            Answer::Many(parts) => {
                // A damaged log is no reason to stay away from all the others: whoever asks for it is told.
                let failed = parts.iter().find_map(|part| match part {
                    Answer::Text(text) => match fault::of_script(&shown(text)) {
                        StoreError::Refused(Refusal::Damaged(_)) => None,
                        _ => Some(shown(text)),
                    },
                    _ => None,
                });
                let renewed = parts.iter().skip(1).filter(|part| **part == Answer::Number(1)).count();
                failed.map_or(Ok(Some(renewed)), |text| Err(Trouble::Refused(text)))
            }
            _ => Err(Trouble::Garbage),
        });
        let heard = heard.await?;
        link.send_whole_scripts(matches!(heard, Ok(None)));
        if let Some(renewed) = heard? {
            return Ok(renewed);
        }
    }
}
