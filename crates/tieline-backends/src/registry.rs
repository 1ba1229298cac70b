//! Registries with a server of their own, which others can read too: ZooKeeper and Nacos.
//!
//! Each is one task that keeps this node's entry there and reads those of the others. What it shares with whoever asks is its
//! [`board`]. What is believed of a server's list is core's business (`tieline_core::registry::Keeping`).

mod board;
#[cfg(feature = "nacos")]
pub mod nacos;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;
