//! [`FrameError`]: what is wrong with a frame, said so that its author can mend it.

use std::fmt;

use crate::{error::ErrorCode, filter::FilterError, id::NameError, payload::DataError};

use super::Dialect;

/// A frame that cannot be carried out. Its `Display` is the message for the client: it names the member and
/// what was expected, and repeats nothing long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct FrameError {
    /// The ackId of the frame, if one could be read: the error belongs into that ack.
    pub ack_id: Option<u64>,
    /// What is wrong, and where.
    fault: Fault,
}

impl FrameError {
    /// Puts the parts together.
    pub(crate) fn new(ack_id: Option<u64>, fault: Fault) -> FrameError {
        FrameError { ack_id, fault }
    }

    /// The member that is wrong, such as `group` or `to.users`; none where the frame as a whole is.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        self.fault.field
    }

    /// What is wrong with it.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.fault.problem
    }

    /// The row of the error table.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match &self.fault.problem {
            Problem::UnknownType { .. } => ErrorCode::UnknownType,
            Problem::Name(NameError::Group) => ErrorCode::InvalidGroup,
            Problem::Name(NameError::User) => ErrorCode::InvalidUser,
            Problem::Data(_) => ErrorCode::InvalidData,
            Problem::Filter(_) => ErrorCode::InvalidFilter,
            Problem::TooMany { .. } => ErrorCode::TooManyTargets,
            _ => ErrorCode::InvalidRequest,
        }
    }
}

/// A problem and its place; becomes a [`FrameError`] once the ackId is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The member, if it is one member's fault.
    pub(crate) field: Option<&'static str>,
    /// What is wrong.
    pub(crate) problem: Problem,
}

impl Fault {
    /// A fault of one member.
    pub(crate) fn at(field: &'static str, problem: Problem) -> Fault {
        Fault { field: Some(field), problem }
    }

    /// A member that is absent or of the wrong kind.
    pub(crate) fn expected(field: &'static str, expected: &'static str) -> Fault {
        Fault::at(field, Problem::Expected(expected))
    }

    /// A member that must be there.
    pub(crate) fn missing(field: &'static str, expected: &'static str) -> Fault {
        Fault::at(field, Problem::Missing(expected))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = self.field {
            write!(f, "`{field}`: ")?;
        }
        self.problem.fmt(f)
    }
}

/// What is wrong with a frame or one of its members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not JSON.
    #[error("the frame is not valid JSON (near byte {at})")]
    NotJson {
        /// Where reading stopped, counted from 1.
        at: usize,
    },
    /// JSON, but no object.
    #[error("the frame must be one JSON object")]
    NotObject,
    /// The member stands there twice.
    #[error("given twice")]
    Twice,
    /// The member is not there.
    #[error("missing; expected {0}")]
    Missing(
        /// What should be there.
        &'static str,
    ),
    /// The member is of the wrong kind.
    #[error("expected {0}")]
    Expected(
        /// What should be there.
        &'static str,
    ),
    /// A name breaks its rule.
    #[error("{0}")]
    Name(NameError),
    /// The payload does not fit its type.
    #[error("{0}")]
    Data(DataError),
    /// The filter cannot be read (REST only).
    #[error("{0}")]
    Filter(FilterError),
    /// A list is too long.
    #[error("at most {limit} entries are allowed")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// Only `tieline.v1` has the member, and to ignore it would send to more than was asked for.
    #[error("only clients of tieline.v1 may use it")]
    NotInDialect,
    /// The dialect has no such frame.
    #[error("{subprotocol} has no frame of type {name:?}", subprotocol = dialect.subprotocol())]
    UnknownType {
        /// The type, cut to 64 characters.
        name: Box<str>,
        /// The dialect that was spoken.
        dialect: Dialect,
    },
}
