//! [`Session`]: a connection that is there again by itself after it was lost. While the server cannot be reached whoever asks is
//! told so at once, and not every one of them waits for another attempt. Tested in `sql/tests`.

use std::time::{Duration, Instant};

use tieline_core::store::Refusal;
use tokio::time::timeout;

use super::SqlReason;
use super::fault;
use super::link::{Link, Options};
use crate::pause::pause;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);

/// The bound of the first pause before another attempt.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// What the pauses grow to.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A connection, or none yet.
pub(super) struct Session {
    options: Options,
    /// Texts that a new connection is told beside those that all are told.
    told: &'static [&'static str],
    link: Option<Link>,
    /// Attempts that have failed since there was a connection.
    failures: u32,
    /// What was wrong, and until when nobody tries again.
    away: Option<(Instant, Refusal)>,
}

impl Session {
    pub(super) fn new(options: Options, told: &'static [&'static str]) -> Self {
        Session { options, told, link: None, failures: 0, away: None }
    }

    /// With a connection that is there already.
    pub(super) fn with(options: Options, link: Link) -> Self {
        Session { link: Some(link), ..Session::new(options, &[]) }
    }

    /// Whether what is asked next goes to a connection of before, which may have been lost unseen.
    pub(super) fn is_used(&self) -> bool {
        self.link.is_some()
    }

    /// The connection, made if there is none.
    pub(super) async fn link(&mut self) -> Result<&mut Link, Refusal> {
        if self.link.is_none() {
            if let Some((until, refusal)) = &self.away
                && Instant::now() < *until
            {
                return Err(refusal.clone());
            }
            match self.connect().await {
                Ok(link) => {
                    if self.away.take().is_some() {
                        tracing::info!("The store's server is there again.");
                    }
                    self.failures = 0;
                    self.link = Some(link);
                }
                Err(refusal) => {
                    self.stay_away(refusal.clone());
                    return Err(refusal);
                }
            }
        }
        Ok(self.link.as_mut().expect("it was made just now"))
    }

    async fn connect(&self) -> Result<Link, Refusal> {
        let connect = async {
            let mut link = self.options.connect().await?;
            for text in self.told {
                link.run(text).await?;
            }
            Ok(link)
        };
        match timeout(CONNECT, connect).await {
            Ok(connected) => connected.map_err(|error| fault::refusal(&error)),
            Err(_) => Err(Refusal::Failed("the server cannot be reached in time".to_owned())),
        }
    }

    /// After an error: a connection that is of no use any more is dropped. Whether it was.
    pub(super) fn judge(&mut self, error: &sqlx::Error) -> bool {
        let is_broken = fault::is_broken(error);
        if is_broken {
            self.link = None;
        }
        if fault::is_silent(error) {
            self.stay_away(fault::refusal(error));
        }
        is_broken
    }

    /// Drops the connection, and with it whatever it has begun.
    pub(super) fn drop_link(&mut self) {
        self.link = None;
    }

    fn stay_away(&mut self, refusal: Refusal) {
        if self.away.is_none() {
            tracing::warn!(%refusal, "The store's server is away.");
        }
        // At least so long that all who wait now are answered before the next attempt.
        let until = Instant::now() + PAUSE_MIN + pause(PAUSE_MIN, PAUSE_MAX, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.away = Some((until, refusal));
    }

    /// Says good-bye to the server.
    pub(super) async fn close(self) {
        if let Some(link) = self.link {
            link.close().await;
        }
    }
}

/// The first connection of a store, which is waited for longer.
///
/// # Errors
/// The server's own words, or that there is none.
pub(super) async fn first(options: &Options) -> Result<Link, SqlReason> {
    match timeout(5 * CONNECT, options.connect()).await {
        Ok(connected) => connected.map_err(|error| SqlReason::Failed(fault::text(&error))),
        Err(_) => Err(SqlReason::Failed("the server does not answer".to_owned())),
    }
}
