//! The part of Hazelcast's Open Binary Client Protocol that a publisher and subscriber needs, and whoever keeps texts in a map, without any I/O.
//!
//! ```text
//! message = frame… , the last one marked        frame = i32 length | u16 flags | payload
//! request   kind, correlation, partition, fixed parameters | a frame for each further parameter
//! response  kind + 1, correlation, count of backups, fixed | …
//! event     kind, correlation of the call that subscribed, partition, fixed | …
//! ```
//!
//! Integers are little-endian; inside of a value that members keep (`data.rs`) they are big-endian. `frame.rs` cuts what was
//! read into messages, `request.rs` writes calls, `map.rs` those to a map, `answer.rs` says what came back. The numbers are those of version 2
//! of the protocol, as `protocol-definitions` of hazelcast-client-protocol has them. Fragments of messages are not understood: members
//! send none. Tested in `tests.rs` against what real members of 5.5 and clients said to each other, and with garbage.

mod answer;
mod data;
mod frame;
mod map;
mod request;
#[cfg(test)]
mod tests;

pub(super) use answer::{Answer, Greeting, Refusal};
pub(super) use data::{partition, read_text};
pub(super) use frame::{Garbage, Message, read};
pub(super) use map::{MapCall, Reply};
pub(super) use request::{Greeter, Publication, authenticate, listen, ping};

/// What a client says once, before everything else: which protocol it speaks.
pub(super) const PREAMBLE: &[u8; 3] = b"CP2";

/// The most bytes of a message. Those of a cluster are the size of an envelope; what is longer comes from somebody else.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

/// What a call asks for. A response bears the number plus one.
mod kind {
    /// Says who the client is, and to which cluster it belongs.
    pub(super) const AUTHENTICATION: i32 = 0x000100;
    /// Asks for a sign of life.
    pub(super) const PING: i32 = 0x000b00;
    /// Publishes to a topic.
    pub(super) const PUBLISH: i32 = 0x040100;
    /// Subscribes to a topic.
    pub(super) const LISTEN: i32 = 0x040200;
    /// What was published to a topic that was subscribed to.
    pub(super) const PUBLISHED: i32 = 0x040202;
    /// Reads an entry of a map.
    pub(super) const GET: i32 = 0x010200;
    /// Gives an entry another value, if it has the one that is named.
    pub(super) const REPLACE_IF_SAME: i32 = 0x010500;
    /// Removes an entry, if it has the value that is named.
    pub(super) const REMOVE_IF_SAME: i32 = 0x010800;
    /// Removes an entry.
    pub(super) const DELETE: i32 = 0x010900;
    /// Adds an entry, unless there is one.
    pub(super) const PUT_IF_ABSENT: i32 = 0x010e00;
    /// Adds an entry that ends, or replaces it.
    pub(super) const SET: i32 = 0x010f00;
    /// Subscribes to losses of the map.
    pub(super) const LISTEN_LOST: i32 = 0x011b00;
    /// A part of the map is lost, with all that was to stand in for it.
    pub(super) const LOST: i32 = 0x011b02;
    /// Removes all entries that a predicate fits.
    pub(super) const REMOVE_ALL: i32 = 0x013e00;
    /// Says when an entry ends, counted from now.
    pub(super) const SET_TTL: i32 = 0x014300;
    /// The response to whatever could not be done.
    pub(super) const ERROR: i32 = 0;
}

/// The marks of a frame.
mod flags {
    /// Begins and ends a message that is not in fragments.
    pub(super) const WHOLE: u16 = 0xc000;
    /// The last frame of a message.
    pub(super) const LAST: u16 = 0x2000;
    /// Begins a list or a structure.
    pub(super) const OPEN: u16 = 0x1000;
    /// Ends one.
    pub(super) const CLOSE: u16 = 0x0800;
    /// Stands for a value that is not there.
    pub(super) const NULL: u16 = 0x0400;
    /// The message answers no call.
    pub(super) const EVENT: u16 = 0x0200;
}
