//! The store's one task: a session is the time from a connection's checks to its end, and behind it comes the next. Requests wait
//! meanwhile, at most [`LIMIT`]. Before a session begins, logs are looked at that this handle gave messages of: where the
//! server lost one, the log gets another epoch. Tested in `store/tests`, with servers that die, stand still and are
//! rolled back.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tieline_core::store::{Refusal, StoreId};
use tokio::time::{interval, sleep, timeout};

use super::super::Trouble;
use super::super::connection::Dialler;
use super::known::Known;
use super::opening::{self, Failure, Opened};
use super::queue::Queue;
use super::reads::{Read, Reads};
use super::settings::RedisStoreSettings;
use super::write::Write;
use super::writer::{self, Writer};
use crate::life::Life;
use crate::pause::pause;

/// How long a request waits to be sent, and how long for its answer.
pub(super) const LIMIT: Duration = Duration::from_secs(2);

/// How long a connection and the checks of the server may take.
const CONNECT: Duration = Duration::from_secs(1);

/// The bounds of the pauses between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How often it is looked for what has waited too long.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// What the store and its task share.
pub(super) struct Shared {
    pub(super) settings: RedisStoreSettings,
    dialler: Arc<Dialler>,
    pub(super) id: StoreId,
    pub(super) writes: Queue<Write>,
    pub(super) reads: Queue<Read>,
    known: Mutex<Known>,
    /// How far the store has come to its end.
    pub(super) life: Life,
}

/// Makes the first session. Nothing is known yet, so there is nothing to verify.
pub(super) async fn open(
    dialler: &Arc<Dialler>,
    settings: &RedisStoreSettings,
    id: StoreId,
) -> Result<Opened, Failure> {
    let open = opening::open(dialler, settings, id);
    timeout(CONNECT, open).await.unwrap_or(Err(Failure::Trouble(Trouble::Silent)))
}

impl Shared {
    pub(super) fn new(settings: RedisStoreSettings, dialler: Arc<Dialler>, id: StoreId) -> Self {
        Shared {
            settings,
            dialler,
            id,
            writes: Queue::new(writer::WAITING),
            reads: Queue::new(super::reads::WAITING),
            known: Mutex::default(),
            life: Life::new(),
        }
    }

    /// The messages that this handle gave out last.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lives from the first session to the last.
    pub(super) async fn run(self: Arc<Self>, mut opened: Opened) {
        let (mut writer, mut reads) = (Writer::new(&self), Reads::new(&self));
        loop {
            let session =
                async { tokio::try_join!(writer.run(&mut opened.writes), reads.run(&mut opened.reads)) };
            let trouble = tokio::select! {
                ended = session => match ended {
                    Ok(_) => break,
                    Err(trouble) => trouble,
                },
                never = self.expire_for_ever() => match never {},
            };
            writer.lost(&trouble);
            tracing::warn!(store = %self.settings, %trouble, "The store's server is away.");
            match self.reopen(trouble, &mut writer, &mut reads).await {
                Some(next) => opened = next,
                None => break,
            }
            tracing::info!(store = %self.settings, "The store's server is back.");
        }
        self.life.end();
    }

    /// Refuses what waited too long for its turn, while the server is there and slow.
    async fn expire_for_ever(&self) -> Infallible {
        let mut tick = interval(EXPIRE_EVERY);
        loop {
            tick.tick().await;
            self.expire(&super::fault::of_trouble(&Trouble::Silent));
        }
    }

    fn expire(&self, refusal: &Refusal) {
        self.writes.expired(LIMIT).into_iter().for_each(|write| write.fail(refusal.clone().into()));
        self.reads.expired(LIMIT).into_iter().for_each(|read| read.fail(refusal.clone().into()));
    }

    /// Tries until there is a session; none when the store was closed meanwhile and nobody waits any more.
    async fn reopen(&self, mut trouble: Trouble, writer: &mut Writer, reads: &mut Reads) -> Option<Opened> {
        let mut failures = 0;
        let mut tick = interval(EXPIRE_EVERY);
        loop {
            let wait = pause(RETRY.0, RETRY.1, failures);
            let again = async {
                sleep(wait).await;
                self.dial().await
            };
            tokio::pin!(again);
            let failure = loop {
                tokio::select! {
                    dialled = &mut again => match dialled {
                        Ok(opened) => return Some(opened),
                        Err(failure) => break failure,
                    },
                    _ = tick.tick() => {
                        let refusal = super::fault::of_trouble(&trouble);
                        self.expire(&refusal);
                        writer.expire(&trouble);
                        reads.expire(&refusal);
                        let is_over = self.writes.is_over() && self.reads.is_over();
                        if is_over && writer.is_idle() && reads.is_idle() {
                            return None;
                        }
                    }
                }
            };
            failures += 1;
            let next = Trouble::from(failure);
            // Once for each reason: attempts go on several times a second.
            if next.to_string() != trouble.to_string() {
                tracing::warn!(store = %self.settings, trouble = %next, "The store's server is still away.");
            }
            trouble = next;
        }
    }

    /// One attempt. What the server has lost is found before anybody can ask.
    async fn dial(&self) -> Result<Opened, Failure> {
        let mut opened = open(&self.dialler, &self.settings, self.id).await?;
        if opened.id != self.id {
            let text = "OTHERSTORE another store is kept there now".to_owned();
            return Err(Trouble::Refused(text).into());
        }
        let renewed = writer::verify(self, &mut opened.writes).await?;
        if renewed > 0 {
            tracing::error!(
                store = %self.settings,
                logs = renewed,
                "The store's server has lost messages that were acknowledged. The logs that lack some have new epochs."
            );
        }
        Ok(opened)
    }
}
