//! Identifiers and names: who and what a message can speak of.
//!
//! Each is a type of its own, so that a user id is never passed where a group name belongs, and each checks
//! its text where it enters the program. None draws random bits or reads a clock: the caller gives them. One
//! file per kind; tested in `id/tests.rs` by round trips and by text that must be refused.

mod connection;
mod message;
mod name;
mod node;
mod position;
#[cfg(test)]
mod tests;

pub use connection::ConnectionId;
pub use message::MessageId;
pub use name::{
    GroupName, HubName, MAX_GROUP_CHARS, MAX_HUB_CHARS, MAX_USER_CHARS, NameError, UserId, check_group,
    check_hub, check_user,
};
pub use node::{Incarnation, MAX_NODE_NAME_BYTES, NodeId, NodeName};
pub use position::{MAX_EXACT, Position};

/// Text that is not the one canonical form of the identifier it was read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct IdError(
    /// What the text was meant to be, for people: `connection id`, `message id`, …
    pub &'static str,
);

/// Serialises a type through its `Display` and reads it back through its `FromStr`, so that the wire form and
/// the printed form cannot drift apart.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
