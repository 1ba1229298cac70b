//! [`Openness`]: whom the configuration lets in without further questions. It may change while the node runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::config::Server;

/// What the settings say of it.
pub struct Openness {
    anonymous: AtomicBool,
    origins: ArcSwap<Vec<String>>,
}

impl Openness {
    /// As the settings say.
    pub fn new(settings: &Server) -> Self {
        Openness {
            anonymous: AtomicBool::new(settings.allow_anonymous),
            origins: ArcSwap::from_pointee(settings.allow_origin.clone()),
        }
    }

    /// As other settings say, for whoever asks from now on.
    pub fn set(&self, settings: &Server) {
        self.anonymous.store(settings.allow_anonymous, Ordering::Relaxed);
        self.origins.store(Arc::new(settings.allow_origin.clone()));
    }

    /// Whether everybody may come without a token.
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous.load(Ordering::Relaxed)
    }

    /// Origins that are let in beside the server's own.
    pub fn origins(&self) -> Guard<Arc<Vec<String>>> {
        self.origins.load()
    }
}
