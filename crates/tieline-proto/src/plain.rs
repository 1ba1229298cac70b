//! Plain JSON: the chat wire of a client that asked for no subprotocol.
//!
//! In: `{"receiver":"bob","msg":"hi"}`, `{"group":"room","msg":"hi"}`, `{"join":"room"}`, `{"leave":"room"}`.
//! Out: `{"sender":"alice","receiver":"bob","msg":"hi","createTime":"2026-01-31 12:00:00"}` and
//! `{"error":"…","message":"…"}`. Sender and time are the server's. `msg` may be any JSON value: a string is
//! a payload of type text, anything else of type json.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{error::Category, value::RawValue};

use crate::{
    civil,
    error::ErrorCode,
    id::{self, NameError},
    json_text::{self, StringText},
    payload::{Data, DataError, DataType},
    reply::{From, Message},
};

/// What a plain client asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum PlainRequest<'a> {
    /// To send to all connections of a user.
    ToUser {
        /// Whom.
        user: Cow<'a, str>,
        /// What.
        data: Data<'a>,
    },
    /// To send to the members of a group.
    ToGroup {
        /// Which.
        group: Cow<'a, str>,
        /// What.
        data: Data<'a>,
    },
    /// To join a group.
    Join {
        /// Which.
        group: Cow<'a, str>,
    },
    /// To leave a group.
    Leave {
        /// Which.
        group: Cow<'a, str>,
    },
}

/// What is wrong with a plain frame. Its `Display` is the message for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlainError {
    /// Not one JSON object.
    #[error("the frame is not a JSON object")]
    NotObject,
    /// A member stands there twice.
    #[error("a member is given twice")]
    Twice,
    /// None of the four forms.
    #[error("expected exactly one of `receiver`, `group`, `join` and `leave`")]
    NoTarget,
    /// Something to send to, and nothing to send.
    #[error("`msg`: missing")]
    NoMsg,
    /// A name that is no string.
    #[error("`{0}`: expected a string")]
    NotString(
        /// The member.
        &'static str,
    ),
    /// A name that breaks its rule.
    #[error("`{0}`: {1}")]
    Name(
        /// The member.
        &'static str,
        /// The rule.
        NameError,
    ),
    /// A payload that cannot be carried.
    #[error("`msg`: {0}")]
    Data(
        /// Why.
        DataError,
    ),
}

impl PlainError {
    /// The row of the error table.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            PlainError::Name(_, NameError::User) => ErrorCode::InvalidUser,
            PlainError::Name(..) => ErrorCode::InvalidGroup,
            PlainError::Data(_) => ErrorCode::InvalidData,
            _ => ErrorCode::InvalidRequest,
        }
    }
}

/// The members of a plain frame, still raw. Others are ignored.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    receiver: Option<&'a RawValue>,
    #[serde(borrow)]
    group: Option<&'a RawValue>,
    #[serde(borrow)]
    join: Option<&'a RawValue>,
    #[serde(borrow)]
    leave: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

/// Reads one text frame of a plain client.
///
/// # Errors
/// When it is none of the four forms.
pub fn parse(text: &str) -> Result<PlainRequest<'_>, PlainError> {
    // serde would read an array as the members in order.
    if !text.trim_start().starts_with('{') {
        return Err(PlainError::NotObject);
    }
    let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => PlainError::Twice,
        _ => PlainError::NotObject,
    })?;
    match (frame.receiver, frame.group, frame.join, frame.leave) {
        (Some(user), None, None, None) => {
            Ok(PlainRequest::ToUser { user: name("receiver", user, id::check_user)?, data: data(frame.msg)? })
        }
        (None, Some(group), None, None) => Ok(PlainRequest::ToGroup {
            group: name("group", group, id::check_group)?,
            data: data(frame.msg)?,
        }),
        (None, None, Some(group), None) => {
            Ok(PlainRequest::Join { group: name("join", group, id::check_group)? })
        }
        (None, None, None, Some(group)) => {
            Ok(PlainRequest::Leave { group: name("leave", group, id::check_group)? })
        }
        _ => Err(PlainError::NoTarget),
    }
}

/// A name that keeps its rule.
fn name<'a>(
    field: &'static str,
    raw: &'a RawValue,
    check: fn(&str) -> Result<(), NameError>,
) -> Result<Cow<'a, str>, PlainError> {
    let StringText::Whole(name) = json_text::read_string(raw.get()) else {
        return Err(PlainError::NotString(field));
    };
    check(&name).map_err(|error| PlainError::Name(field, error))?;
    Ok(name)
}

/// The payload.
fn data(msg: Option<&RawValue>) -> Result<Data<'_>, PlainError> {
    let raw = msg.ok_or(PlainError::NoMsg)?;
    let data_type = if raw.get().starts_with('"') { DataType::Text } else { DataType::Json };
    Data::from_raw(data_type, raw).map_err(PlainError::Data)
}

/// Appends a message as plain clients read it. A message of the server has no `sender`; one to everybody has
/// neither `receiver` nor `group`; bytes arrive as base64.
pub fn message(out: &mut Vec<u8>, message: &Message<'_>) {
    out.push(b'{');
    if let Some(sender) = message.from_user_id {
        out.extend_from_slice(b"\"sender\":");
        json_text::push_string(out, sender);
        out.push(b',');
    }
    match message.from {
        From::Group { name } => {
            out.extend_from_slice(b"\"group\":");
            json_text::push_string(out, name);
            out.push(b',');
        }
        From::User { to } => {
            out.extend_from_slice(b"\"receiver\":");
            json_text::push_string(out, to);
            out.push(b',');
        }
        From::Server => {}
    }
    out.extend_from_slice(b"\"msg\":");
    out.extend_from_slice(message.data.json().as_bytes());
    out.extend_from_slice(b",\"createTime\":\"");
    civil::push_plain(out, message.time_ms);
    out.extend_from_slice(b"\"}");
}

/// Appends an error as plain clients read it: the name from the table, and a sentence.
pub fn error(out: &mut Vec<u8>, code: ErrorCode, text: &str) {
    out.extend_from_slice(b"{\"error\":");
    json_text::push_string(out, code.name());
    out.extend_from_slice(b",\"message\":");
    json_text::push_string(out, text);
    out.push(b'}');
}

#[cfg(test)]
mod tests;
