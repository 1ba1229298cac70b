//! [`Reload`]: the settings of a node that runs, read anew when their text changes.
//!
//! A text on a server is looked at every few seconds, and any text at SIGHUP, files of keys too. What is read is checked whole: with
//! one mistake in it nothing of it counts, and what was in effect stays. Of what is good, the settings that a running node can
//! change are changed at once, for old and new connections alike, and the others are named: they count from the next start.
//!
//! The last good text of a server is copied to the disk (`config/last_good.rs`), and a node starts from it where the server is
//! away, or has a text that is refused. Tested with a file and with a real server in `tests/cluster/configurations.rs`.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tieline_core::Node;
use tokio::signal::unix::Signal;
use tokio::time::sleep;

use crate::admission::Openness;
use crate::config::{
    COPY_VARIABLE, Change, Checked, ConfigErrors, Given, LastGood, Settings, Source, SourceError,
};
use crate::http::ConnectRate;
use crate::log;

/// How often the text on a server is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What became of changes, and what is known of the text.
#[derive(Debug, Default)]
pub struct ReloadTally {
    /// Texts that were taken, the first one not among them.
    pub taken: AtomicU64,
    /// Texts that were refused, or could not be read though a server answered.
    pub refused: AtomicU64,
    /// Whether the server that has the text was out of reach at the last look.
    pub is_away: AtomicBool,
    /// Settings that wait for a restart.
    pub waiting: AtomicUsize,
}

/// What a change reaches while the node runs.
pub struct Live {
    /// Its limits, keys and weight.
    pub node: Arc<Node>,
    /// Who may connect without a token, and from which pages.
    pub openness: Arc<Openness>,
    /// How fast one address may connect.
    pub connect_rate: Arc<ConnectRate>,
    /// How long the node may take to be emptied.
    pub drain: Mutex<Duration>,
    /// Where changes are counted.
    pub tally: Arc<ReloadTally>,
}

impl Live {
    /// How long the node may take to be emptied, as it is now.
    pub fn drain(&self) -> Duration {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, checked: Checked) {
        let Checked { settings, keys, .. } = checked;
        log::set_filter(&settings.log.filter);
        self.node.keys().replace(keys);
        self.node.set_limits(settings.session_limits());
        self.node.set_weight(settings.server.weight);
        self.openness.set(&settings.server);
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = settings.times.drain;
        self.connect_rate.set(settings.limits.connect_rate, settings.limits.connect_burst);
    }
}

/// Reads the settings of a node anew.
pub struct Reload {
    given: Given,
    /// None where no copy is kept: of a file, or for want of a place.
    last_good: Option<LastGood>,
    /// Wakes at SIGHUP.
    hangups: Signal,
    /// The settings that the node was started with.
    started: Settings,
    /// Those that were read last and are good.
    wanted: Settings,
    /// The text that was looked at last.
    seen: Option<String>,
    /// Why the text of the server did not count at the start.
    passed_over: Option<String>,
    /// Why the text could not be read, as it was told last.
    trouble: Option<String>,
}

impl Reload {
    /// Reads the settings for the first time: from where they are; or from the last good copy, where the server is away or has a
    /// text with mistakes.
    ///
    /// # Errors
    /// When there are none that are good, and for a server that refuses this user or has no such text.
    pub async fn begin(given: Given, hangups: Signal) -> Result<(Settings, Reload), ConfigErrors> {
        let last_good = LastGood::of(&given);
        let (checked, passed_over) = match given.load().await {
            Ok(checked) => (checked, None),
            Err(errors) if errors.is_final() => return Err(errors),
            Err(errors) => {
                let copy = last_good.as_ref().and_then(|last_good| last_good.read().ok());
                match copy.map(|copy| given.read(Some(copy))) {
                    Some(Ok(checked)) => (checked, Some(errors.to_string())),
                    _ => return Err(errors),
                }
            }
        };
        let Checked { document, settings, .. } = checked;
        let seen = document.map(|document| document.text).filter(|_| passed_over.is_none());
        let (started, wanted, trouble) = (settings.clone(), settings.clone(), None);
        let reload = Reload { given, last_good, hangups, started, wanted, seen, passed_over, trouble };
        Ok((settings, reload))
    }

    /// Tells operators what there is to tell of the beginning, now that there is a log.
    pub fn tell(&self) {
        let Some(source) = self.given.source().filter(|source| source.is_remote()) else { return };
        match (&self.last_good, &self.passed_over) {
            (Some(last_good), Some(why)) => {
                why.lines().for_each(|error| tracing::error!(error, "The configuration cannot be used."));
                let copy = last_good.path().display();
                tracing::warn!(%source, %copy, "The node starts from the last good copy of its configuration.");
            }
            (None, _) => tracing::warn!(
                "No copy of the configuration is kept, so the node will not start without the server: \
                 name a file by `{COPY_VARIABLE}`."
            ),
            (Some(_), None) => self.keep(),
        }
    }

    /// Looks at the text for as long as the node runs, and applies what changes.
    pub async fn run(mut self, live: &Live) {
        let is_remote = self.given.source().is_some_and(Source::is_remote);
        live.tally.is_away.store(self.passed_over.is_some(), Ordering::Relaxed);
        loop {
            let due = async {
                if !is_remote {
                    std::future::pending::<()>().await;
                }
                sleep(LOOK_EVERY).await;
            };
            let is_asked = tokio::select! {
                () = due => false,
                Some(()) = self.hangups.recv() => true,
            };
            self.look(is_asked, live).await;
        }
    }

    /// Reads the text, and what it says if it is another one or somebody asks for it.
    async fn look(&mut self, is_asked: bool, live: &Live) {
        let document = match self.given.source() {
            Some(source) => match source.read().await {
                Ok(document) => Some(document),
                Err(error) => return self.note_trouble(&error, is_asked, live),
            },
            None => None,
        };
        live.tally.is_away.store(false, Ordering::Relaxed);
        if self.trouble.take().is_some() {
            tracing::info!("The configuration can be read again.");
        }
        let text = document.as_ref().map(|document| document.text.clone());
        if text == self.seen && !is_asked {
            return;
        }
        self.seen = text;
        match self.given.read(document) {
            Ok(checked) => self.take(checked, live),
            Err(errors) => {
                live.tally.refused.fetch_add(1, Ordering::Relaxed);
                for error in &errors.0 {
                    tracing::error!(%error, "The configuration is refused; what was in effect stays.");
                }
            }
        }
    }

    fn note_trouble(&mut self, error: &SourceError, is_asked: bool, live: &Live) {
        live.tally.is_away.store(error.is_away(), Ordering::Relaxed);
        let text = error.to_string();
        if self.trouble.as_ref() == Some(&text) && !is_asked {
            return;
        }
        if error.is_away() {
            tracing::warn!(%error, "The configuration cannot be looked at; what was in effect stays.");
        } else {
            live.tally.refused.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "The configuration cannot be read; what was in effect stays.");
        }
        self.trouble = Some(text);
    }

    /// Applies what is good.
    fn take(&mut self, checked: Checked, live: &Live) {
        live.tally.taken.fetch_add(1, Ordering::Relaxed);
        let changes = self.wanted.changes(&checked.settings);
        self.wanted = checked.settings.clone();
        live.apply(checked);
        self.keep();
        let names = |changes: &[Change], is_live| {
            let named = changes.iter().filter(|change| change.is_live == is_live);
            named.map(|change| change.key.clone()).collect::<Vec<_>>().join(", ")
        };
        tracing::info!(changed = names(&changes, true), "The configuration was read anew.");
        let waiting = self.started.changes(&self.wanted);
        let needed = names(&waiting, false);
        let count = waiting.iter().filter(|change| !change.is_live).count();
        live.tally.waiting.store(count, Ordering::Relaxed);
        if count > 0 {
            tracing::warn!(settings = needed, "These settings were changed and need a restart.");
        }
    }

    /// Copies the text that is good.
    fn keep(&self) {
        let (Some(last_good), Some(text)) = (&self.last_good, &self.seen) else { return };
        if let Err(error) = last_good.keep(text) {
            let copy = last_good.path().display();
            tracing::warn!(%copy, %error, "The last good copy of the configuration cannot be written.");
        }
    }
}
