//! [`RecordKey`]: what a record is called. Tested here.

use std::fmt;
use std::sync::Arc;

/// The longest key, in bytes: every engine can keep it in an index.
pub const MAX_KEY: usize = 1024;

/// A key that no engine takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record's key has 1 to {MAX_KEY} bytes and no NUL")]
pub struct RecordKeyError;

/// The name of a record: any text of 1 to [`MAX_KEY`] bytes without NUL. Whoever makes keys of long names hashes them, and keeps the
/// names in the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(Arc<str>);

impl RecordKey {
    /// Checks and keeps the text.
    ///
    /// # Errors
    /// When it is empty, too long, or has a NUL.
    pub fn new(text: &str) -> Result<Self, RecordKeyError> {
        if text.is_empty() || text.len() > MAX_KEY || text.contains('\0') {
            return Err(RecordKeyError);
        }
        Ok(RecordKey(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_bounds() {
        assert_eq!(RecordKey::new("a/ü b").unwrap().as_str(), "a/ü b");
        assert!(RecordKey::new(&"x".repeat(MAX_KEY)).is_ok());
        for bad in ["", "a\0b", &"ü".repeat(MAX_KEY / 2 + 1)] {
            assert_eq!(RecordKey::new(bad), Err(RecordKeyError));
        }
    }
}
