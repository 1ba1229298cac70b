//! [`HubName`], [`GroupName`], [`UserId`]: the names that people choose, each with its rule.
//!
//! The rules are also offered on borrowed text (`check_…`), because the hot path looks names up without
//! owning them.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

use super::serde_as_text;

/// The longest hub name, in characters (all ASCII).
pub const MAX_HUB_CHARS: usize = 128;
/// The longest group name, in characters.
pub const MAX_GROUP_CHARS: usize = 1024;
/// The longest user id, in characters.
pub const MAX_USER_CHARS: usize = 1024;

/// A name that breaks its rule. The text says the rule and never repeats the name, which may be long or
/// hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a hub name.
    #[error("a hub name is a letter followed by at most 127 letters, digits and _ ` , . [ ]")]
    Hub,
    /// Not a group name.
    #[error("a group name has 1 to 1024 characters, not only blanks")]
    Group,
    /// Not a user id.
    #[error("a user id has 1 to 1024 characters")]
    User,
    /// Not a node name.
    #[error("a node name has 1 to 128 ASCII letters, digits and . _ - : @ [ ]")]
    Node,
}

/// Checks a hub name: ``^[A-Za-z][A-Za-z0-9_`,.[\]]{0,127}$``.
///
/// # Errors
/// [`NameError::Hub`].
pub fn check_hub(text: &str) -> Result<(), NameError> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"_`,.[]".contains(b);
    match text.as_bytes() {
        [first, rest @ ..]
            if first.is_ascii_alphabetic() && rest.len() < MAX_HUB_CHARS && rest.iter().all(allowed) =>
        {
            Ok(())
        }
        _ => Err(NameError::Hub),
    }
}

/// Checks a group name: 1 to 1024 characters, not only blanks.
///
/// # Errors
/// [`NameError::Group`].
pub fn check_group(text: &str) -> Result<(), NameError> {
    // The first byte of nearly every name settles the blanks without a walk.
    let blank = text.as_bytes().first().is_none_or(|b| !b.is_ascii_graphic()) && text.trim().is_empty();
    if blank || longer_than(text, MAX_GROUP_CHARS) { Err(NameError::Group) } else { Ok(()) }
}

/// Checks a user id: 1 to 1024 characters of any kind.
///
/// # Errors
/// [`NameError::User`].
pub fn check_user(text: &str) -> Result<(), NameError> {
    if text.is_empty() || longer_than(text, MAX_USER_CHARS) { Err(NameError::User) } else { Ok(()) }
}

/// Whether the text has more characters than `limit`. Characters are counted only where the bytes leave a
/// doubt.
fn longer_than(text: &str, limit: usize) -> bool {
    text.len() > limit && (text.len() > 4 * limit || text.chars().count() > limit)
}

/// Declares an owned, shared name whose text was checked.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps the text.
            ///
            /// # Errors
            /// When the text breaks the rule.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok($name(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text itself.
            #[must_use]
            pub fn as_arc(&self) -> &Arc<str> {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        /// So that a map keyed by the name is searched with borrowed text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        /// Escaped: the text may come from a client and may end in a log line.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $name::new(text)
            }
        }

        serde_as_text!($name);
    };
}

name! {
    /// A namespace of users and groups. Nothing crosses hubs.
    HubName, check_hub
}

name! {
    /// A named set of connections: a room, a channel.
    GroupName, check_group
}

name! {
    /// Who a connection is, proven by its token. Any text, such as `a/b ?#%ü`.
    UserId, check_user
}
