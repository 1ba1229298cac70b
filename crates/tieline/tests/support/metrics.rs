//! What `/metrics` of a server says.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::http::get;

/// Time between two looks at something that takes time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The whole text.
pub(crate) fn metrics(address: SocketAddr) -> String {
    get(address, "/metrics", "").body
}

/// Asks until a sample has this value: what a shard counts it tells of when it has written, so a client may know it first.
#[track_caller]
pub(crate) fn await_sample(address: SocketAddr, name: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = metrics(address);
        let found = sample(&text, name);
        if found == value {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {found}, not {value}:\n{text}");
        thread::park_timeout(LOOK_EVERY);
    }
}

/// The value of a sample in such a text, by its name without the prefix and with its labels; 0 if it is not there.
pub(crate) fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("tieline_{name} ")));
    line.map_or(0.0, |value| value.parse().unwrap())
}
