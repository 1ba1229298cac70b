//! [`TableDirectory`]: the engine of a directory whose users are in a table on a server: it asks there what [`Asked`] wants to know.
//! What the table is, and how it is asked, its [`Table`] says: keys on a Redis server, or a map of a Hazelcast cluster.
//!
//! One task has one connection. When that fails, and when the server has lost what this node put there, messages to users go to all
//! nodes until all of this node's users are there again.
//!
//! Tested with each table, by the conformance suite on real servers, killed and standing ones among them.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tieline_core::directory::Asked;
use tieline_core::directory::asked::{Answer, Request};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::life::Life;
use crate::pause::pause;

#[cfg(test)]
pub(crate) mod tests;

/// How long a table may take for each answer, and for connecting to a single server.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// What is asked before it is answered.
pub(crate) const AT_ONCE: usize = 512;

/// How long a start may take: two servers that stand still are found out, and a third one is reached.
const START: Duration = Duration::from_millis(4_500);

/// The bounds of the pauses between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A table on a server, as one node uses it.
pub(crate) trait Table: Send + 'static {
    /// A connection.
    type Link: Send;
    /// Why there is none, or no longer.
    type Trouble: Display + Send;

    /// Nothing has come back for too long.
    const SILENT: Self::Trouble;

    /// Where the server is, without a password.
    fn server(&self) -> String;

    /// One attempt to connect. It gives up by itself.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Link, Self::Trouble>> + Send;

    /// Puts all of this node's users there, and lists it as one that has.
    fn enter(&mut self, link: &mut Self::Link) -> impl Future<Output = Result<(), Self::Trouble>> + Send;

    /// How long after one [`Table::stay`] comes the next.
    fn pause(&self) -> Duration;

    /// Says that this node lives. Returns whether the table still has what this node put there.
    fn stay(&mut self, link: &mut Self::Link) -> impl Future<Output = Result<bool, Self::Trouble>> + Send;

    /// Asks all of this. Nothing is answered by a table that has lost what this node put there, or may have.
    fn ask(
        &mut self,
        link: &mut Self::Link,
        requests: &[Request],
    ) -> impl Future<Output = Result<Option<Vec<Answer>>, Self::Trouble>> + Send;

    /// Takes out what is this node's.
    fn leave(&mut self, link: &mut Self::Link) -> impl Future<Output = Result<(), Self::Trouble>> + Send;
}

/// A node's directory in a table on a server. Dropped, it says nothing more, and the node's lease ends it.
pub struct TableDirectory {
    asked: Arc<Asked>,
    life: Arc<Life>,
    /// Whether the server is told that the node ends.
    says_goodbye: Arc<AtomicBool>,
}

impl TableDirectory {
    /// Connects, and asks from then on in a task of the runtime that this is called in. `table` puts there what `asked` claims.
    ///
    /// # Errors
    /// When the server is not there or refuses, at the latest after [`START`].
    pub(crate) async fn open<T: Table>(asked: Arc<Asked>, mut table: T) -> Result<Self, T::Trouble> {
        let first = async {
            let mut link = table.connect().await?;
            table.enter(&mut link).await?;
            Ok(link)
        };
        let link = timeout(START, first).await.unwrap_or(Err(T::SILENT))?;
        asked.entered();
        let life = Arc::new(Life::new());
        let says_goodbye = Arc::new(AtomicBool::new(false));
        let task = Task {
            asked: Arc::clone(&asked),
            life: Arc::clone(&life),
            says_goodbye: Arc::clone(&says_goodbye),
            table,
        };
        tokio::spawn(task.run(link));
        Ok(TableDirectory { asked, life, says_goodbye })
    }

    /// The directory.
    pub fn asked(&self) -> &Arc<Asked> {
        &self.asked
    }

    /// Takes the node's users out of the table, as far as its server is there, and ends.
    pub async fn close(&self) {
        self.says_goodbye.store(true, Ordering::Release);
        self.life.stop();
        // The task gives up by itself, so this only guards against a runtime that has stopped.
        drop(timeout(2 * ANSWER, self.life.stopped()).await);
    }
}

impl Drop for TableDirectory {
    fn drop(&mut self) {
        self.life.stop();
    }
}

/// How a session ended.
enum End {
    /// The node leaves.
    Left,
    /// The table has lost what it had of this node, or may have.
    Forgotten,
}

/// The one task behind a directory.
struct Task<T: Table> {
    asked: Arc<Asked>,
    life: Arc<Life>,
    says_goodbye: Arc<AtomicBool>,
    table: T,
}

impl<T: Table> Task<T> {
    async fn run(mut self, mut link: T::Link) {
        let life = Arc::clone(&self.life);
        let stopping = life.stopping();
        tokio::pin!(stopping);
        let server = self.table.server();
        loop {
            let trouble = match self.session(&mut link).await {
                Ok(End::Left) => break,
                Ok(End::Forgotten) => {
                    tracing::warn!(
                        server,
                        "The directory's server has lost this node's users, which are put there again."
                    );
                    self.asked.away();
                    match self.enter(&mut link).await {
                        Ok(()) => continue,
                        Err(trouble) => trouble,
                    }
                }
                Err(trouble) => trouble,
            };
            tracing::warn!(server, %trouble, "The directory's server is away; messages to users go to all nodes.");
            self.asked.away();
            tokio::select! {
                again = self.connect_again(&server, trouble) => link = again,
                () = &mut stopping => break,
            }
            tracing::info!(server, "The directory's server is back.");
        }
        self.asked.away();
        life.end();
    }

    async fn enter(&mut self, link: &mut T::Link) -> Result<(), T::Trouble> {
        self.table.enter(link).await?;
        self.asked.entered();
        Ok(())
    }

    /// Asks what is wanted until the node leaves or the connection fails.
    async fn session(&mut self, link: &mut T::Link) -> Result<End, T::Trouble> {
        let asked = Arc::clone(&self.asked);
        let life = Arc::clone(&self.life);
        let mut stayed = Instant::now();
        loop {
            tokio::select! {
                () = asked.wanted() => {}
                () = sleep_until(stayed + self.table.pause()) => {}
                () = life.stopping() => {
                    if self.says_goodbye.load(Ordering::Acquire) {
                        self.table.leave(link).await?;
                    }
                    return Ok(End::Left);
                }
            }
            loop {
                // Also while there is always more to ask.
                if stayed.elapsed() >= self.table.pause() {
                    if !self.table.stay(link).await? {
                        return Ok(End::Forgotten);
                    }
                    stayed = Instant::now();
                }
                let requests = asked.take(AT_ONCE);
                if requests.is_empty() {
                    break;
                }
                let Some(answers) = self.table.ask(link, &requests).await? else {
                    return Ok(End::Forgotten);
                };
                for (request, answer) in requests.iter().zip(&answers) {
                    asked.answered(request, answer);
                }
            }
        }
    }

    /// Tries until this node's users are there.
    async fn connect_again(&mut self, server: &str, trouble: T::Trouble) -> T::Link {
        let (mut told, mut failures) = (trouble.to_string(), 0);
        loop {
            sleep(pause(RETRY.0, RETRY.1, failures)).await;
            let attempt = async {
                let mut link = self.table.connect().await?;
                self.enter(&mut link).await?;
                Ok::<_, T::Trouble>(link)
            };
            let error = match attempt.await {
                Ok(link) => return link,
                Err(trouble) => trouble.to_string(),
            };
            // Once for each reason: attempts go on every second.
            if error != told {
                tracing::warn!(server, error, "The directory's server is still away.");
                told = error;
            }
            failures += 1;
        }
    }
}
