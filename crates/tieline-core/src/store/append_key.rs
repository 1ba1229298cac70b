//! [`AppendKey`]: by what a store knows an append that it is given again. Not the message's id where a client names
//! one of its own: that text is hashed, so that every engine keeps sixteen bytes. Tested here.

use aws_lc_rs::digest::{Context, SHA256};
use tieline_proto::MessageId;

/// What the same append to the same log is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendKey(
    /// Sixteen bytes, as a number.
    pub u128,
);

impl AppendKey {
    /// The key of an append that is named by texts, such as hub, user and the client's own message id. Other texts, or
    /// the same cut otherwise, give another key: it is half of a SHA-256.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let digest = context.finish();
        let (half, _) = digest.as_ref().split_first_chunk().expect("a SHA-256 has 32 bytes");
        AppendKey(u128::from_be_bytes(*half))
    }
}

impl From<MessageId> for AppendKey {
    /// The key of an append whose sender named none: it is told apart by the id that the server gave it, so the server
    /// itself may say it again.
    fn from(id: MessageId) -> Self {
        AppendKey(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_cut_otherwise_are_another_key() {
        let keys = [&["ab", "c"][..], &["a", "bc"], &["abc"], &["", "abc"], &[]].map(AppendKey::of);
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_eq!(AppendKey::of(&["ab", "c"]), keys[0]);
    }
}
