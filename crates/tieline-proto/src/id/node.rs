//! [`NodeName`], [`Incarnation`], [`NodeId`]: which server, and which start of it.
//!
//! The ring is made of names, the directory of ids: a restarted node keeps its name and is a new id.

use std::{fmt, str::FromStr, sync::Arc};

use super::{IdError, NameError, serde_as_text};

/// The longest node name, in bytes (all ASCII).
pub const MAX_NODE_NAME_BYTES: usize = 128;

/// One start of a node. Drawn anew at every start, so that a restarted node is never taken for its dead self.
///
/// As text 16 hexadecimal digits: as a JSON number it would lose its last bits in JavaScript.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(
    /// The number itself: of two starts the later one has the larger.
    pub u64,
);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Incarnation {
    type Err = IdError;

    /// Exactly 16 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return Err(IdError("incarnation"));
        }
        u64::from_str_radix(text, 16).map(Incarnation).map_err(|_| IdError("incarnation"))
    }
}

serde_as_text!(Incarnation);

/// A node's stable name: 1 to 128 ASCII letters, digits and `. _ - : @ [ ]`, which covers `host:port`.
///
/// No `/`, because a [`NodeId`] prints one behind the name; no blanks, because names stand in log lines and
/// labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// When the text is empty, too long, or holds another character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:@[]".contains(&b);
        if text.is_empty() || text.len() > MAX_NODE_NAME_BYTES || !text.bytes().all(allowed) {
            return Err(NameError::Node);
        }
        Ok(NodeName(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        NodeName::new(text)
    }
}

serde_as_text!(NodeName);

/// One running server: its name, and which start of it. Printed as `name/0123456789abcdef`.
///
/// Ordered by name first; ties between claims are broken by this order, the same on every node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The stable name.
    pub name: NodeName,
    /// The start.
    pub incarnation: Incarnation,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.incarnation)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (name, incarnation) = text.split_once('/').ok_or(IdError("node id"))?;
        Ok(NodeId {
            name: NodeName::new(name).map_err(|_| IdError("node id"))?,
            incarnation: incarnation.parse().map_err(|_| IdError("node id"))?,
        })
    }
}

serde_as_text!(NodeId);
