//! Registries with a server of their own, which others can read too: ZooKeeper and Nacos.
//!
//! Each is one task that keeps this node's entry there and reads those of the others. It meets whoever asks at a board
//! (`board.rs`). What is believed of a server's list is core's business (`tieline_core::registry::Keeping`).

mod board;
#[cfg(feature = "nacos")]
pub mod nacos;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

use std::net::IpAddr;

/// Whether `host:port` is on this machine, and can be reached from it alone.
fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}
