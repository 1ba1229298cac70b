//! What `/metrics` of a server says.

use std::net::SocketAddr;

use super::http::get;

/// The whole text.
pub(crate) fn metrics(address: SocketAddr) -> String {
    get(address, "/metrics", "").body
}

/// The value of a sample in such a text, by its name without the prefix and with its labels; 0 if it is not there.
pub(crate) fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("tieline_{name} ")));
    line.map_or(0.0, |value| value.parse().unwrap())
}
