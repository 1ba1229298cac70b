//! [`Access`]: what a node asks of clients that are strangers, in one word. `/readyz` says it, and a gateway reads it there.

use serde::{Deserialize, Serialize};

/// Whom a node lets in, the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Whoever has a token that was signed with an access key, and nobody else.
    Token,
    /// There is no key: programs of its own machine, and nobody else.
    Local,
    /// Everybody, as any user.
    Anyone,
}

impl Access {
    /// By what there is and what the configuration says in words.
    pub fn of(has_keys: bool, allow_anonymous: bool) -> Self {
        match (has_keys, allow_anonymous) {
            (_, true) => Access::Anyone,
            (true, false) => Access::Token,
            (false, false) => Access::Local,
        }
    }

    /// What that means where somebody has to be told.
    pub fn meaning(self) -> &'static str {
        match self {
            Access::Token => "it wants a token of everybody",
            Access::Local => "it has no access key, and takes programs of its own machine alone",
            Access::Anyone => "it lets everybody in without a token",
        }
    }
}
