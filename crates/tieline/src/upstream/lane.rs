//! [`Lane`]: the events of one hub that nobody waits for, in memory, and their way from there: to an endpoint, or into the
//! store first where there is one. Tested here and by `tests/program/upstream`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tieline_proto::HubName;
use tokio::sync::{Notify, watch};

use super::journal::Journal;
use super::notice::{Delivery, Notice};
use super::tally::{Outcome, UpstreamTally};

/// Events that are taken out of a queue, or a log, at once.
pub(super) const BATCH: usize = 64;

/// The events of one hub that wait in memory.
pub(super) struct Lane {
    pub(super) hub: HubName,
    /// At most `capacity` events; the oldest is dropped for a newer one, and counted.
    waiting: Mutex<VecDeque<Notice>>,
    capacity: usize,
    /// Told of each event that comes.
    came: Notify,
    tally: Arc<UpstreamTally>,
}

impl Lane {
    pub(super) fn new(hub: HubName, capacity: usize, tally: Arc<UpstreamTally>) -> Self {
        Lane { hub, waiting: Mutex::default(), capacity, came: Notify::new(), tally }
    }

    /// Takes an event. Never waits.
    pub(super) fn push(&self, notice: Notice) {
        let mut waiting = self.lock();
        if waiting.len() >= self.capacity
            && let Some(oldest) = waiting.pop_front()
        {
            self.tally.count(oldest.event().kind(), Outcome::Dropped);
            self.tally.leave();
        }
        waiting.push_back(notice);
        drop(waiting);
        self.tally.enter();
        self.came.notify_one();
    }

    /// The oldest events, when there are any. None when there are none and the node stops.
    async fn take(&self, stopping: &mut watch::Receiver<bool>) -> Option<Vec<Notice>> {
        loop {
            let taken: Vec<Notice> = {
                let mut waiting = self.lock();
                let count = waiting.len().min(BATCH);
                waiting.drain(..count).collect()
            };
            if !taken.is_empty() {
                return Some(taken);
            }
            if *stopping.borrow() {
                return None;
            }
            tokio::select! {
                () = self.came.notified() => {}
                // An error means that the sender is gone, which is a stop as well.
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Notice>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what comes, until the node stops and nothing is left.
    pub(super) async fn run(
        &self,
        delivery: &Arc<Delivery>,
        journal: Option<&Arc<Journal>>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let Some(journal) = journal else {
            while let Some(notices) = self.take(&mut stopping).await {
                let count = notices.len();
                delivery.deliver(notices).await;
                (0..count).for_each(|_| self.tally.leave());
            }
            return;
        };
        let kept = Notify::new();
        let keep = async {
            let mut stopping = stopping.clone();
            // Before the first event, so that it is found whatever becomes of the node.
            journal.enrol(&self.hub).await;
            while let Some(notices) = self.take(&mut stopping).await {
                let count = notices.len();
                journal.keep(&self.hub, notices).await;
                (0..count).for_each(|_| self.tally.leave());
                kept.notify_one();
            }
        };
        // What is not sent before the end is in the store.
        let send = journal.send_own(&self.hub, delivery, &kept, stopping.clone());
        tokio::join!(keep, send);
    }
}

#[cfg(test)]
mod tests {
    use tieline_core::Subprotocol;
    use tieline_core::events::EventSource;
    use tieline_proto::{ConnectionId, MessageId};

    use super::*;
    use crate::upstream::SystemEvent;

    fn notice(number: u64) -> Notice {
        let source = EventSource {
            hub: HubName::new("h").unwrap(),
            connection: ConnectionId::from_bytes([0; ConnectionId::BYTES]),
            user: None,
            subprotocol: Subprotocol::Plain,
            state: None,
        };
        Notice::connection(MessageId::new(number, 0), SystemEvent::Connected, &source, None)
    }

    #[tokio::test]
    async fn of_too_many_events_the_oldest_is_dropped_and_counted() {
        let tally = Arc::new(UpstreamTally::default());
        let lane = Lane::new(HubName::new("h").unwrap(), 3, Arc::clone(&tally));
        (0..5).for_each(|number| lane.push(notice(number)));
        assert_eq!(tally.waiting(), 3);
        assert_eq!(tally.counts().collect::<Vec<_>>(), [("connected", "dropped", 2)]);
        let (stop, mut stopping) = watch::channel(false);
        assert_eq!(lane.take(&mut stopping).await.unwrap(), [notice(2), notice(3), notice(4)]);
        stop.send(true).unwrap();
        lane.push(notice(6));
        assert_eq!(
            lane.take(&mut stopping).await.unwrap(),
            [notice(6)],
            "what is there is taken before the end"
        );
        assert_eq!(lane.take(&mut stopping).await, None);
    }
}
