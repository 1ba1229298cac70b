//! What a server's refusals mean for those who asked: whether something may have happened, and why it did not. Tested here by
//! the words of servers, and in `store/tests` by the real things.

use tieline_core::store::{Refusal, StoreError};

use super::super::Trouble;

/// Of a script, or of a request within one. A script in which a write was refused has written nothing before: the server
/// looks at its memory, its disk and its role before the first write, and not again. Whatever else stopped a script may have
/// come after a write.
pub(super) fn of_script(text: &str) -> StoreError {
    match known(text) {
        Some(refusal) => refusal.into(),
        None => StoreError::Unknown(text.to_owned()),
    }
}

/// While there is no connection, or a reader's request failed: nothing happened.
pub(super) fn of_trouble(trouble: &Trouble) -> Refusal {
    match trouble {
        Trouble::Refused(text) => known(text).unwrap_or_else(|| Refusal::Failed(trouble.to_string())),
        trouble => Refusal::Failed(trouble.to_string()),
    }
}

/// Whether the server is another one than before, or soon will be: then a new connection finds out.
pub(super) fn ends_the_session(text: &str) -> bool {
    ["READONLY", "LOADING", "MASTERDOWN", "OTHERSTORE"].iter().any(|word| text.contains(word))
}

/// Where it is certain that nothing was written. Older servers put the place in the script before the word.
fn known(text: &str) -> Option<Refusal> {
    let has = |word| text.contains(word);
    Some(if has("DAMAGED ") || has("WRONGTYPE ") {
        Refusal::Damaged(text.to_owned())
    } else if has("OOM ") || (has("MISCONF ") && has("No space left")) {
        Refusal::NoRoom
    } else if has("READONLY ") {
        Refusal::ReadOnly
    } else if has("BUSY ") {
        Refusal::Busy
    } else if ["MISCONF ", "LOADING ", "NOREPLICAS ", "MASTERDOWN ", "OTHERSTORE ", "NOSCRIPT "]
        .into_iter()
        .any(has)
    {
        Refusal::Failed(text.to_owned())
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_servers_are_understood() {
        let refused = |text: &str| match of_script(text) {
            StoreError::Refused(refusal) => Some(refusal),
            StoreError::Unknown(_) => None,
        };
        let failed = |text: &str| Some(Refusal::Failed(text.to_owned()));
        for (text, wanted) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", Some(Refusal::NoRoom)),
            (
                "@user_script: 33: @user_script: 33: -OOM command not allowed when used memory > 'maxmemory'.",
                Some(Refusal::NoRoom),
            ),
            ("READONLY You can't write against a read only replica.", Some(Refusal::ReadOnly)),
            ("MISCONF Errors writing to the AOF file: No space left on device", Some(Refusal::NoRoom)),
            ("BUSY Redis is busy running a script.", Some(Refusal::Busy)),
            ("NOPERM this user has no permissions to run the 'zadd' command", None),
            ("ERR anything", None),
        ] {
            assert_eq!(refused(text), wanted, "{text}");
        }
        for text in [
            "LOADING Redis is loading the dataset in memory",
            "MISCONF Errors writing to the AOF file: Input/output error",
            "NOREPLICAS Not enough good replicas to write.",
        ] {
            assert_eq!(refused(text), failed(text));
        }
        assert!(matches!(refused("DAMAGED a log lacks its messages"), Some(Refusal::Damaged(_))));
        assert_eq!(of_trouble(&Trouble::Silent), Refusal::Failed("it does not answer".to_owned()));
    }
}
