//! What the REST API is asked with.

use std::borrow::Cow;

use serde::Deserialize;

use crate::{
    error::ErrorCode,
    filter::{Filter, FilterError},
    id::{GroupName, NameError},
    payload::Data,
    request::{
        FrameError, MAX_TARGETS, Targets,
        fault::{Fault, Problem},
        frame::{Field, Frame},
    },
};

/// Why a body cannot be used. Its `Display` is the message for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not UTF-8, not JSON, or not of the shape that is wanted.
    #[error("the body {0}")]
    Shape(
        /// What it should be.
        &'static str,
    ),
    /// Too many groups.
    #[error("`groups`: at most 10000 entries are allowed")]
    TooMany,
    /// A group breaks the rule for names.
    #[error("`groups`: {0}")]
    Group(NameError),
    /// The filter cannot be read.
    #[error("`filter`: {0}")]
    Filter(FilterError),
    /// A member of a send is wrong.
    #[error("{0}")]
    Send(FrameError),
}

impl BodyError {
    /// The row of the error table.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            BodyError::Shape(_) => ErrorCode::InvalidRequest,
            BodyError::TooMany => ErrorCode::TooManyTargets,
            BodyError::Group(_) => ErrorCode::InvalidGroup,
            BodyError::Filter(_) => ErrorCode::InvalidFilter,
            BodyError::Send(error) => error.code(),
        }
    }

    /// The member at fault, for [`super::ErrorBody::target`].
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            BodyError::Shape(_) => None,
            BodyError::TooMany | BodyError::Group(_) => Some("groups"),
            BodyError::Filter(_) => Some("filter"),
            BodyError::Send(error) => error.field(),
        }
    }
}

/// The body of `:addToGroups` and `:removeFromGroups`: connections that the filter is true for, into or out
/// of the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsBody {
    /// The groups.
    pub groups: Vec<GroupName>,
    /// Which connections; without one, all of the hub.
    pub filter: Option<Filter>,
}

impl GroupsBody {
    /// Reads the body.
    ///
    /// # Errors
    /// When it is not of that shape, or a group or the filter is not valid.
    pub fn parse(body: &[u8]) -> Result<GroupsBody, BodyError> {
        const SHAPE: BodyError = BodyError::Shape("must be {\"groups\": [string, …], \"filter\"?: string}");
        /// The body before its names are checked.
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            groups: Vec<Cow<'a, str>>,
            #[serde(borrow)]
            filter: Option<Cow<'a, str>>,
        }
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(SHAPE);
        }
        let raw: Raw<'_> = serde_json::from_slice(body).map_err(|_| SHAPE)?;
        if raw.groups.len() > MAX_TARGETS {
            return Err(BodyError::TooMany);
        }
        let groups = raw.groups.iter().map(|group| GroupName::new(group)).collect::<Result<_, _>>();
        // An empty filter is what some libraries send for none.
        let filter = raw.filter.filter(|text| !text.trim().is_empty());
        Ok(GroupsBody {
            groups: groups.map_err(BodyError::Group)?,
            filter: filter.map(|text| Filter::parse(&text)).transpose().map_err(BodyError::Filter)?,
        })
    }
}

/// The body of `POST /api/v1/hubs/{hub}/:send`: the WebSocket frame `send` of `tieline.v1` without its type,
/// plus a filter.
///
/// `{"to": {"users": […], "groups": […], "connections": […], "excluded": […], "all": true}, "filter"?:
/// string, "dataType"?: string, "data": …, "messageId"?: string}`. The answer is a [`crate::reply::Receipt`].
#[derive(Debug, Clone, PartialEq)]
pub struct SendBody<'a> {
    /// Whom; if it is everybody, only the excluded count.
    pub to: Targets<'a>,
    /// Everybody in the hub (`to.all`).
    pub all: bool,
    /// Of these only connections for which it is true.
    pub filter: Option<Filter>,
    /// The caller's own id of the message, the key of deduplication.
    pub message_id: Option<Cow<'a, str>>,
    /// What.
    pub data: Data<'a>,
}

impl<'a> SendBody<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// When it is not of that shape; the error names the member.
    pub fn parse(body: &'a [u8]) -> Result<SendBody<'a>, BodyError> {
        let text = std::str::from_utf8(body).map_err(|_| BodyError::Shape("is not UTF-8 text"))?;
        let read = || -> Result<SendBody<'a>, Fault> {
            let frame = Frame::cut(text)?;
            if let Some(field) = frame.twice() {
                return Err(Fault::at(field.name(), Problem::Twice));
            }
            let (to, all) = frame.targets_or_all()?;
            Ok(SendBody {
                to,
                all,
                filter: frame.filter()?,
                message_id: frame.client_id(Field::MessageId)?,
                data: frame.data()?,
            })
        };
        read().map_err(|fault| BodyError::Send(FrameError::new(None, fault)))
    }
}
