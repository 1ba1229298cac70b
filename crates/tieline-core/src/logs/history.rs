//! Logs as an application sees them: pages of what is kept, and removing it. This goes past the clerk: whoever reads here is
//! nobody's connection. Tested by the program's tests, over HTTP.

use std::sync::Arc;
use std::time::Duration;

use tieline_proto::{HubName, Position};
use tokio::time::timeout;

use super::{Entry, KeepError, Logs, NOTHING_YET};
use crate::delivery::Target;
use crate::message::Message;
use crate::store::{Answer, Cut, Gap, Head, PageLimit, Refusal, StoreError};

/// How long a store may take. It bounds itself; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// A page of a log.
#[derive(Debug)]
pub struct History {
    /// The log as it was read; none when there is no such log.
    pub head: Option<Head>,
    /// By their offsets. One that cannot be read any more is passed over.
    pub messages: Vec<Arc<Message>>,
    /// Behind which place the next page is; none when this was the last one.
    pub next: Option<Position>,
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The target has no log.
    #[error("messages to this target are not kept")]
    NotKept,
    /// What follows the place cannot be had whole.
    #[error("what follows this position cannot be had whole any more")]
    Gone(Gap),
    /// The store cannot be asked, or does not answer.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

impl Logs {
    /// What a log has behind a place, or from its oldest message on.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn history(
        &self,
        hub: &HubName,
        target: &Target,
        after: Option<Position>,
        limit: PageLimit,
    ) -> Result<History, HistoryError> {
        let log = self.log(hub, target).ok_or(HistoryError::NotKept)?;
        let store = &self.usable()?.store;
        let after = match after {
            Some(NOTHING_YET) => {
                let heads = in_time(store.heads(vec![log.clone()])).await?;
                let head = heads.into_iter().next().flatten();
                // The place of a log that had no message yet is before the first of the one that it is now.
                head.map(|head| Position { epoch: head.epoch, offset: 0 })
            }
            after => after,
        };
        let page = in_time(store.read(log, after, limit)).await?;
        if let Some(gap) = page.gap {
            if gap == Gap::Ahead {
                // The log has lost messages: whoever follows it here finds out now.
                self.look();
            }
            return Err(HistoryError::Gone(gap));
        }
        let epoch = page.head.map_or(0, |head| head.epoch);
        let at = |offset| Position { epoch, offset };
        let last = page.messages.last().map(|stored| stored.offset);
        let next = last.filter(|last| page.head.is_some_and(|head| head.last > *last)).map(at);
        let messages = page.messages.iter().filter_map(|stored| {
            Entry::of_log(stored.id, at(stored.offset), &stored.body).message().map(Arc::clone)
        });
        Ok(History { head: page.head, messages: messages.collect(), next })
    }

    /// Cuts off what a log has, and is done when nobody finds it any more. Of a log that is not there nothing is cut.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn cut(&self, hub: &HubName, target: &Target, cut: Cut) -> Result<(), HistoryError> {
        let log = self.log(hub, target).ok_or(HistoryError::NotKept)?;
        let trimmed = timeout(PATIENCE, self.usable()?.store.trim(log, cut)).await;
        let unknown = |_| StoreError::Unknown("it does not answer".into());
        trimmed.map_err(unknown).and_then(|trimmed| trimmed).map_err(KeepError::Store)?;
        self.look();
        Ok(())
    }
}

/// What a store says, if it says anything in time.
async fn in_time<T>(answer: Answer<T>) -> Result<T, KeepError> {
    let late = |_| Refusal::Failed("it does not answer".into()).into();
    timeout(PATIENCE, answer).await.map_err(late).and_then(|answer| answer).map_err(KeepError::Store)
}
