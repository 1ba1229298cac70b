//! [`Cache`]: where users are, as a table has answered, until somebody says that it is so no longer.
//!
//! Read by the shards for every message, so it is locked in many parts. Bounded: past its capacity nothing is added, and what was not
//! needed for two sweeps is forgotten. What is added or removed is so by who has the [`Desk`](super::Desk), which tells the table: so
//! the table hears of it in the same order. Tested in `directory/asked/tests.rs`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tieline_proto::{HubName, UserId};

use super::Holders;

/// How often what was not needed is forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// What is remembered of a user.
struct Sought {
    state: State,
    /// Whether anybody has asked since the last sweep.
    is_used: AtomicBool,
}

enum State {
    /// The table was asked. What it answers is old already where it is void. It is not waited for where it did not know all before.
    Asking { is_void: bool, is_doubtful: bool },
    /// The other nodes that hold the user.
    Known(Holders),
}

/// What is known of a user.
pub(super) enum Look {
    /// All other nodes that hold it.
    Known(Holders),
    /// The table is being asked, and soon has answered; or there is no room to ask it, or nobody knows when it will know.
    Unknown { is_soon: bool },
    /// The table is to be asked, once that is [noted](Cache::begin).
    Absent,
}

/// What became of an answer.
pub(super) enum Found {
    /// It is remembered, or nobody needs it any more.
    Kept,
    /// It was old when it came: the table is to be asked again.
    Void,
    /// It is not the whole truth: the table is to be asked again a little later.
    Uncertain,
}

/// Where users are.
pub(super) struct Cache {
    hubs: DashMap<HubName, DashMap<UserId, Sought>>,
    capacity: usize,
    /// How many there are. Two that are added at once may be one too many.
    count: AtomicUsize,
    swept: Mutex<Option<Instant>>,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Cache { hubs: DashMap::new(), capacity, count: AtomicUsize::new(0), swept: Mutex::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Where a user is.
    pub(super) fn look(&self, hub: &HubName, user: &str) -> Look {
        if let Some(users) = self.hubs.get(hub)
            && let Some(sought) = users.get(user)
        {
            // Read first, so that a user who is often sent to is not written for each message.
            if !sought.is_used.load(Ordering::Relaxed) {
                sought.is_used.store(true, Ordering::Relaxed);
            }
            return match &sought.state {
                State::Known(holders) => Look::Known(holders.clone()),
                State::Asking { is_doubtful, .. } => Look::Unknown { is_soon: !is_doubtful },
            };
        }
        if self.len() < self.capacity { Look::Absent } else { Look::Unknown { is_soon: false } }
    }

    /// Notes that the table is asked for a user. Returns whether it was not noted before.
    pub(super) fn begin(&self, hub: &HubName, user: &UserId) -> bool {
        let users = self.hubs.entry(hub.clone()).or_default();
        let mut is_new = false;
        users.entry(user.clone()).or_insert_with(|| {
            is_new = true;
            let state = State::Asking { is_void: false, is_doubtful: false };
            Sought { state, is_used: AtomicBool::new(true) }
        });
        if is_new {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// What is known of a user, without asking.
    pub(super) fn peek(&self, hub: &HubName, user: &str) -> Option<Holders> {
        match &self.hubs.get(hub)?.get(user)?.state {
            State::Known(holders) => Some(holders.clone()),
            State::Asking { .. } => None,
        }
    }

    /// The table has answered; without holders, that it does not know all.
    pub(super) fn found(&self, hub: &HubName, user: &str, holders: Option<Holders>) -> Found {
        let Some(users) = self.hubs.get(hub) else { return Found::Kept };
        let Some(mut sought) = users.get_mut(user) else { return Found::Kept };
        match (&mut sought.state, holders) {
            (State::Asking { is_void, .. }, _) if *is_void => {
                *is_void = false;
                Found::Void
            }
            (State::Asking { is_doubtful, .. }, None) => {
                *is_doubtful = true;
                Found::Uncertain
            }
            (State::Asking { .. }, Some(holders)) => {
                sought.state = State::Known(holders);
                Found::Kept
            }
            (State::Known(_), _) => Found::Kept,
        }
    }

    /// What is remembered of a user is old. Returns whether it was remembered.
    pub(super) fn forget(&self, hub: &HubName, user: &str) -> bool {
        let Some(users) = self.hubs.get(hub) else { return false };
        let is_gone = users
            .remove_if_mut(user, |_, sought| match &mut sought.state {
                State::Known(_) => true,
                State::Asking { is_void, .. } => {
                    *is_void = true;
                    false
                }
            })
            .is_some();
        if is_gone {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        is_gone
    }

    /// All of it is old. Returns whom it was about.
    pub(super) fn forget_all(&self) -> Vec<(HubName, UserId)> {
        self.remove(|sought| match &mut sought.state {
            State::Known(_) => true,
            State::Asking { is_void, .. } => {
                *is_void = true;
                false
            }
        })
    }

    /// What was not needed since the last sweep but one, when it is time for that.
    pub(super) fn sweep(&self, now: Instant) -> Vec<(HubName, UserId)> {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*swept.get_or_insert(now)) < SWEEP {
            return Vec::new();
        }
        *swept = Some(now);
        self.remove(|sought| {
            let is_used = sought.is_used.swap(false, Ordering::Relaxed);
            !is_used && matches!(sought.state, State::Known(_))
        })
    }

    fn remove(&self, mut is_to_go: impl FnMut(&mut Sought) -> bool) -> Vec<(HubName, UserId)> {
        let mut gone = Vec::new();
        for users in &self.hubs {
            users.retain(|user, sought| {
                let goes = is_to_go(sought);
                if goes {
                    gone.push((users.key().clone(), user.clone()));
                }
                !goes
            });
            users.shrink_to_fit();
        }
        self.count.fetch_sub(gone.len(), Ordering::Relaxed);
        gone
    }

    /// Nothing is remembered, and nothing is being asked.
    pub(super) fn clear(&self) {
        self.remove(|_| true);
    }
}
