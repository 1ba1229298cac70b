//! The brain: what a session may do, whom a message reaches, and where they are.
//!
//! A [`Node`] is one running server. Its connections live on the shards of a switchboard, where an [`Operator`] per
//! shard reads requests and carries messages on the shard's own thread. Names become the switchboard's numbers in
//! the tables of [`hub`]. What crosses shards is a [`Delivery`](delivery::Delivery): a message kept once, with its targets,
//! of which each shard resolves its own.
//!
//! No vendor and no HTTP is named here.

mod acks;
pub mod arrival;
pub mod ask;
pub mod broker;
pub mod cluster;
pub mod command;
pub mod delivery;
pub mod directory;
pub mod events;
pub mod hub;
mod inbox;
mod interned;
pub mod latency;
pub mod limits;
mod logins;
pub mod logs;
mod memberships;
pub mod message;
pub mod node;
pub mod operator;
pub mod presence;
mod reading;
mod reconnection;
pub mod records;
mod recovery;
pub mod registry;
pub mod ring;
pub mod session;
mod stamp;
pub mod store;
mod subprotocol;
pub mod tally;
pub mod token;
mod transit;

pub use arrival::{Arrival, Client};
pub use cluster::{Cluster, ClusterSettings, ClusterTask, ClusterTimes, Routing};
pub use limits::Limits;
pub use logins::{HubRule, Login, PerUser, Place};
pub use node::{Node, NodeSettings, Overloaded, StartError};
pub use operator::Operator;
pub use recovery::CheckpointCounters;
pub use stamp::unix_ms;
pub use subprotocol::{NUMBERING, Subprotocol};
