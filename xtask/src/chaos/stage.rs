//! [`Stage`]: what all clients of a run share: the clock, the targets, where nodes are, and how far the run is.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tieline_judge::{Kind, Target};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::options::{Options, Store};

/// Live groups, and groups with a history where there is a store.
const GROUPS: usize = 3;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Receivers connect and join.
    Gathering,
    /// Senders send.
    Talking,
    /// Nothing new is sent; what has no answer is sent again.
    Settling,
    /// Senders are gone; receivers wait for the last messages.
    Draining,
    /// All stop.
    Over,
}

/// What has happened up to now, for the line that is printed each second.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Durable sends that were said again.
    pub(super) repeated: AtomicU64,
    pub(super) heard: AtomicU64,
    pub(super) gaps: AtomicU64,
    /// Connections that were opened.
    pub(super) opened: AtomicU64,
}

impl Tally {
    /// Counts one.
    pub(super) fn one(of: &AtomicU64) {
        of.fetch_add(1, Ordering::Relaxed);
    }
}

/// What all share.
pub(super) struct Stage {
    begun: Instant,
    /// What messages are sent to.
    pub(super) targets: Vec<Target>,
    /// Where clients find the nodes.
    doors: RwLock<Vec<SocketAddr>>,
    /// How far the run is; only the run itself changes it.
    pub(super) phase: watch::Sender<Phase>,
    pub(super) tally: Tally,
    /// When the machine stood still, so that nobody can be blamed for being late.
    stalls: Mutex<Vec<Range<u32>>>,
}

/// What the machine may need for everybody's turn. Longer is a standstill.
const TURN: Duration = Duration::from_millis(600);

/// How often it is looked whether the machine stands still.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Stage {
    /// Before anything has happened.
    pub(super) fn new(options: &Options) -> Stage {
        let has_store = options.store != Store::Absent;
        let group = |prefix: &str, kind: Kind| {
            let of =
                (0..GROUPS).map(|number| Target { name: format!("{prefix}:{number}"), kind: kind.clone() });
            of.collect::<Vec<_>>()
        };
        let mut targets = group("live", Kind::Live);
        if has_store {
            targets.extend(group("kept", Kind::Durable));
            // Two receivers share each user, as two devices do.
            let users = (0..options.receivers.div_ceil(2)).map(|number| format!("u{number}"));
            targets.extend(users.map(|user| Target { name: user.clone(), kind: Kind::Inbox(user) }));
        }
        Stage {
            begun: Instant::now(),
            targets,
            doors: RwLock::default(),
            phase: watch::Sender::new(Phase::Gathering),
            tally: Tally::default(),
            stalls: Mutex::default(),
        }
    }

    /// Milliseconds since the run began.
    pub(super) fn now(&self) -> u32 {
        u32::try_from(self.begun.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    /// Writes down when the machine stands still, until it is stopped.
    pub(super) async fn watch_machine(self: Arc<Self>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = self.now();
        loop {
            looks.tick().await;
            let now = self.now();
            if now - before > TURN.as_millis() as u32 {
                println!("{:>8} the machine stood still for {} ms", now / 1000, now - before);
                self.stalls.lock().unwrap_or_else(PoisonError::into_inner).push(before..now);
            }
            before = now;
        }
    }

    /// When the machine stood still.
    pub(super) fn stalls(&self) -> Vec<Range<u32>> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets clients connect there, too.
    pub(super) fn open_door(&self, door: SocketAddr) {
        self.doors.write().unwrap_or_else(PoisonError::into_inner).push(door);
    }

    /// Where clients may connect.
    pub(super) fn doors(&self) -> Vec<SocketAddr> {
        self.doors.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The target of a name in frames: of a group, or of the user whose inbox it is.
    pub(super) fn find(&self, name: &str, is_group: bool) -> Option<u16> {
        let is_it =
            |target: &Target| target.name == name && matches!(target.kind, Kind::Inbox(_)) != is_group;
        self.targets.iter().position(is_it).map(|number| number as u16)
    }

    /// The kind of a target.
    pub(super) fn kind(&self, target: u16) -> &Kind {
        &self.targets[usize::from(target)].kind
    }

    /// The targets of some kinds.
    pub(super) fn targets_of(&self, is_it: impl Fn(&Kind) -> bool) -> Vec<u16> {
        let all = (0..).zip(&self.targets).filter(|(_, target)| is_it(&target.kind));
        all.map(|(number, _)| number).collect()
    }
}
