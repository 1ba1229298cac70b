//! [`Life`]: how far a broker has come to its end. What has to be done on the way is the broker's business, and tested with it.

use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Stopping,
    Stopped,
}

/// Runs, is told to stop, has stopped; never back.
pub(crate) struct Life(watch::Sender<Phase>);

impl Life {
    pub(crate) fn new() -> Self {
        Life(watch::Sender::new(Phase::Running))
    }

    pub(crate) fn is_running(&self) -> bool {
        *self.0.borrow() == Phase::Running
    }

    /// The end begins, unless it has begun already.
    pub(crate) fn stop(&self) {
        self.0.send_if_modified(|phase| {
            let runs = *phase == Phase::Running;
            if runs {
                *phase = Phase::Stopping;
            }
            runs
        });
    }

    /// Everything has stopped.
    pub(crate) fn end(&self) {
        self.0.send_replace(Phase::Stopped);
    }

    /// Waits until the end begins.
    pub(crate) async fn stopping(&self) {
        self.reach(Phase::Stopping).await;
    }

    /// Waits until everything has stopped.
    pub(crate) async fn stopped(&self) {
        self.reach(Phase::Stopped).await;
    }

    async fn reach(&self, phase: Phase) {
        // It cannot fail: the sender is in this very life.
        drop(self.0.subscribe().wait_for(|reached| *reached >= phase).await);
    }
}
