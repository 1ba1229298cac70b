//! The mesh's tasks, so that each has an owner: those that look for links, and those that are links.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// A set that takes tasks until it is taken away itself.
type Set = Mutex<Option<JoinSet<()>>>;

/// All tasks of a mesh but the one that ends them.
pub(super) struct Tasks {
    /// Where they run.
    runtime: Handle,
    /// Accepting, dialling, handshakes: aborted first.
    seeking: Set,
    /// Links: they end by themselves, and are aborted if they do not.
    links: Set,
}

impl Tasks {
    pub(super) fn new(runtime: Handle) -> Self {
        let set = || Mutex::new(Some(JoinSet::new()));
        Tasks { runtime, seeking: set(), links: set() }
    }

    /// Runs what looks for links.
    pub(super) fn seek(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(&self.seeking, task);
    }

    /// Runs a link.
    pub(super) fn link(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(&self.links, task);
    }

    /// Runs a task, and forgets those that are over. When the mesh stops the task is dropped instead.
    fn spawn(&self, set: &Set, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(set) = &mut *set.lock().unwrap_or_else(PoisonError::into_inner) {
            while set.try_join_next().is_some() {}
            set.spawn_on(task, &self.runtime);
        }
    }

    /// Aborts what looks for links, and waits until it is over.
    pub(super) async fn stop_seeking(&self) {
        stop(&self.seeking).await;
    }

    /// Aborts the links that are still there, and waits until they are over.
    pub(super) async fn stop_links(&self) {
        stop(&self.links).await;
    }
}

async fn stop(set: &Set) {
    let taken = set.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut taken) = taken {
        taken.shutdown().await;
    }
}
