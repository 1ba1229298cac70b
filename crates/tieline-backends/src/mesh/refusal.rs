//! Why a link is refused: the close codes of peer links, in one table, and how often each was given.
//!
//! The codes are between nodes alone; those of clients are tieline-proto's. Tested by the mesh's own tests, which look
//! at the code on the wire, and here for what is logged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A reason is logged at most once in this time: whoever knocks every millisecond does not fill the disk.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Why a link does not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Whatever this is, it does not talk as a node does: no subprotocol, no hello, bytes that are no frames.
    NotAPeer,
    /// The node speaks another version of the peer protocol.
    Version,
    /// The node belongs to another cluster.
    Cluster,
    /// The node does not know the secret.
    Secret,
    /// The node dialled itself.
    Itself,
    /// There is a link between the two already.
    Duplicate,
    /// There is no secret, and the peer is not on this machine.
    NotLoopback,
    /// Too many sockets wait to be authenticated.
    Crowded,
    /// The handshake took too long.
    Slow,
    /// This node stops.
    Stopping,
}

impl Refusal {
    /// Every refusal, in the order of the table.
    pub const ALL: [Refusal; 10] = [
        Refusal::NotAPeer,
        Refusal::Version,
        Refusal::Cluster,
        Refusal::Secret,
        Refusal::Itself,
        Refusal::Duplicate,
        Refusal::NotLoopback,
        Refusal::Crowded,
        Refusal::Slow,
        Refusal::Stopping,
    ];

    /// The close code on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Refusal::NotAPeer => 4600,
            Refusal::Version => 4601,
            Refusal::Cluster => 4602,
            Refusal::Secret => 4603,
            Refusal::Itself => 4604,
            Refusal::Duplicate => 4605,
            Refusal::NotLoopback => 4606,
            Refusal::Crowded => 4607,
            Refusal::Slow => 4608,
            Refusal::Stopping => 1001,
        }
    }

    /// The refusal that a peer's close code stands for.
    pub fn from_code(code: u16) -> Option<Self> {
        Refusal::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// A word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::NotAPeer => "not_a_peer",
            Refusal::Version => "version",
            Refusal::Cluster => "cluster",
            Refusal::Secret => "secret",
            Refusal::Itself => "itself",
            Refusal::Duplicate => "duplicate",
            Refusal::NotLoopback => "not_loopback",
            Refusal::Crowded => "crowded",
            Refusal::Slow => "slow",
            Refusal::Stopping => "stopping",
        }
    }

    /// The reason in the close frame. It tells what is wrong, never what would be right.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::NotAPeer => "this address is for the nodes of a cluster",
            Refusal::Version => "the version of the peer protocol is not spoken here",
            Refusal::Cluster => "this is a node of another cluster",
            Refusal::Secret => "the cluster secret differs",
            Refusal::Itself => "the node dialled itself",
            Refusal::Duplicate => "there is a link between the two nodes already",
            Refusal::NotLoopback => "without a cluster secret only peers on this machine are accepted",
            Refusal::Crowded => "too many sockets wait to be authenticated",
            Refusal::Slow => "the handshake took too long",
            Refusal::Stopping => "the node stops",
        }
    }

    /// Whether this is how things should be, and so not worth a line in the log.
    const fn is_usual(self) -> bool {
        matches!(self, Refusal::Itself | Refusal::Duplicate | Refusal::Stopping)
    }
}

/// How often each refusal was given or received.
pub(super) struct Refusals {
    /// Counts, in the order of [`Refusal::ALL`].
    counts: [AtomicU64; Refusal::ALL.len()],
    /// When each was logged last: milliseconds since `start` plus one, zero for never.
    logged: [AtomicU64; Refusal::ALL.len()],
    /// What `logged` counts from.
    start: Instant,
}

impl Refusals {
    pub(super) fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Refusals { counts: zeros(), logged: zeros(), start: Instant::now() }
    }

    /// Counts one, and says whether it is to be logged.
    pub(super) fn count(&self, refusal: Refusal) -> bool {
        self.count_at(refusal, self.start.elapsed())
    }

    fn count_at(&self, refusal: Refusal, now: Duration) -> bool {
        self.counts[refusal as usize].fetch_add(1, Ordering::Relaxed);
        let now = now.as_millis() as u64 + 1;
        let logged = &self.logged[refusal as usize];
        let last = logged.load(Ordering::Relaxed);
        let due = last == 0 || now - last.min(now) >= LOG_EVERY.as_millis() as u64;
        !refusal.is_usual()
            && due
            && logged.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// How often so far.
    pub(super) fn get(&self, refusal: Refusal) -> u64 {
        self.counts[refusal as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_codes_may_be_sent() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
            assert!(tieline_websocket::is_valid_close_code(refusal.code()));
            assert!(refusal.text().len() <= tieline_websocket::close::MAX_REASON);
        }
        assert_eq!(Refusal::from_code(1000), None);
    }

    #[test]
    fn each_reason_is_logged_once_a_minute_and_counted_always() {
        let refusals = Refusals::new();
        let at = |seconds| Duration::from_secs(seconds);
        assert!(refusals.count_at(Refusal::Secret, at(0)));
        assert!(!refusals.count_at(Refusal::Secret, at(59)));
        assert!(refusals.count_at(Refusal::Cluster, at(59)));
        assert!(refusals.count_at(Refusal::Secret, at(60)));
        assert!(!refusals.count_at(Refusal::Secret, at(61)));
        assert!(!refusals.count_at(Refusal::Duplicate, at(61)));
        assert_eq!(refusals.get(Refusal::Secret), 4);
        assert_eq!(refusals.get(Refusal::Duplicate), 1);
    }
}
