//! [`Filter`]: the OData filter of the REST API, compiled once, evaluated for every candidate.
//!
//! The language is the one of the Web PubSub reference: `userId`, `connectionId`, `groups`; `and or not eq ne
//! gt ge lt le in ()`; `null true false`, integers, `'it''s'`; `tolower toupper trim substring endswith
//! startswith indexof contains concat length`, `length` also of groups. Words are read in any case; strings
//! compare by case and by code point. `not` binds tighter than comparisons, so `not length(userId) gt 5` is a
//! type error; so is every other mismatch, at compile time.
//!
//! **Null.** A connection without a user has `userId eq null`. A function of null is null. `eq` and `ne` know
//! null as a value of its own (`null eq null` is true, `null ne 'a'` is true); `gt ge lt le` with null are
//! false. `null in ('a')` and `null in groups` are false, `null in (null)` is true. `and`, `or` and `not` are
//! three-valued: null stands for "unknown", so `not contains(userId, 'a')` is null for a connection without a
//! user. Only a filter that is true lets a connection receive.
//!
//! **Choices where the reference is silent.** A character is a Unicode scalar value; `substring` clamps a
//! start below 0 to 0 and gives `''` beyond the end; a length below 0 counts as 0.
//!
//! Lexer, parser and evaluation are a file each. Length, depth and memory are bounded, so any text may be
//! given to [`Filter::parse`]. Tested in `filter/tests.rs` by a table and against a naive evaluator.

mod eval;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use crate::id::ConnectionId;

/// The longest filter, in bytes. Generated lists of users are what makes filters long.
pub const MAX_FILTER_BYTES: usize = 16 * 1024;
/// How deep parentheses, functions and `not` may nest: it bounds the recursion of parser and evaluation.
pub const MAX_FILTER_DEPTH: usize = 64;

/// What a filter asks of a connection.
pub trait Subject {
    /// The connection's user; none when it has none.
    fn user_id(&self) -> Option<&str>;
    /// The connection.
    fn connection_id(&self) -> ConnectionId;
    /// Whether the connection is in the group.
    fn in_group(&self, group: &str) -> bool;
    /// How many groups the connection is in.
    fn group_count(&self) -> usize;
}

/// A compiled filter. Cloning copies the tree; share it by `Arc` where it goes to many places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The text it was compiled from: what travels to other nodes.
    source: Box<str>,
    /// The tree, of type boolean.
    root: parser::Expr,
}

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// When the text is too long or deep, is not of the language, or compares things that cannot be compared.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(FilterError { at: 1, problem: FilterProblem::TooLong });
        }
        Ok(Filter { source: text.into(), root: parser::parse(text)? })
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the filter is true for the connection.
    #[must_use]
    pub fn matches(&self, subject: &impl Subject) -> bool {
        eval::is_true(&self.root, subject)
    }
}

/// Why a text is no filter, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (at character {at} of the filter)")]
pub struct FilterError {
    /// The place, in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub problem: FilterProblem,
}

/// What can be wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterProblem {
    /// More than [`MAX_FILTER_BYTES`].
    #[error("the filter is longer than 16384 bytes")]
    TooLong,
    /// More than [`MAX_FILTER_DEPTH`].
    #[error("parentheses, functions and `not` nest deeper than 64")]
    TooDeep,
    /// A letter that begins no word.
    #[error("unexpected {0:?}")]
    Letter(
        /// The letter.
        char,
    ),
    /// A string without its end.
    #[error("a string is not closed by '")]
    OpenString,
    /// An integer beyond 64 bits.
    #[error("an integer does not fit into 64 bits")]
    BigInteger,
    /// A word that is neither an identifier, a function nor an operator.
    #[error("unknown word {0:?}")]
    UnknownWord(
        /// The word, cut to 32 characters.
        Box<str>,
    ),
    /// Something else had to come.
    #[error("expected {0}")]
    Expected(
        /// What.
        &'static str,
    ),
    /// An operand of the wrong type.
    #[error("{what} must be {expected}, but is {found}")]
    Type {
        /// Which operand.
        what: &'static str,
        /// Its type as it should be.
        expected: &'static str,
        /// Its type as it is.
        found: &'static str,
    },
    /// Two operands that cannot be compared.
    #[error("{left} cannot be compared with {right}")]
    Compare {
        /// The type on the left.
        left: &'static str,
        /// The type on the right.
        right: &'static str,
    },
}
