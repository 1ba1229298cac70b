//! The hot path of a WebSocket server: shards that own their sockets.
//!
//! A [`Switchboard`] runs one thread per shard. A shard holds its connections in one table, reads them into one
//! buffer, and keeps what it sends in one log of frames: publishing appends a frame once and pushes a reference
//! to each recipient, and flushing writes everything that a connection has coming with one system call. There
//! is no task, timer, channel or buffer per connection.
//!
//! What frames mean is the business of an [`Application`], one value per shard, which is called on the shard's
//! thread. To the switchboard users and groups are numbers.
//!
//! [`Pipes`] is the same for sockets that are only joined to each other, as a proxy's are.
//!
//! [`Shard`] itself does no I/O: bytes and time go in, writes come out. So all rules (order, limits, fairness)
//! are tested by properties, thousands of interleavings a second; see `shard/tests.rs`.

mod application;
mod arriving;
mod clock;
mod connection;
mod counters;
mod encode;
mod ending;
mod flush;
mod gather;
mod group;
mod inbound;
mod log;
mod mailbox;
mod numbered;
mod parking;
mod pending;
mod pipes;
mod publish;
mod reactor;
mod retire;
mod settings;
mod shard;
mod station;
mod switchboard;
mod transplant;

pub use application::{Application, Cause, Placement, Weigh};
pub use connection::{Address, Format};
pub use counters::Counters;
pub use encode::{Encode, Frames};
pub use flush::Sockets;
pub use group::GroupId;
pub use mailbox::{Adoption, Full};
pub use pipes::{Pair, PipeCounters, PipeSettings, Pipes, PipesHandle};
pub use publish::{Only, Publication, Recipients, WhenLagging};
pub use settings::Settings;
pub use shard::{MAX_SLOTS, Shard, Slot};
pub use station::Station;
pub use switchboard::{Error, Handle, MAX_SHARDS, Switchboard};
pub use transplant::{Mark, Numbered};
