//! From members to a [`Request`]: which members each type of frame needs, and which types each dialect has.

use super::{
    Dialect, FrameError, MAX_EVENT_BYTES, Request,
    fault::{Fault, Problem},
    frame::{Field, Frame},
    read::StreamStart,
};

/// How much of an unknown type is repeated in the error, in characters.
const MAX_TYPE_SHOWN: usize = 64;

/// Reads a whole frame.
pub(super) fn request(text: &str, dialect: Dialect) -> Result<Request<'_>, FrameError> {
    let frame = Frame::cut(text).map_err(|fault| FrameError::new(None, fault))?;
    if frame.twice() == Some(Field::AckId) {
        return Err(FrameError::new(None, Fault::at(Field::AckId.name(), Problem::Twice)));
    }
    let ack_id = frame.whole(Field::AckId).map_err(|fault| FrameError::new(None, fault))?;
    build(&frame, ack_id, dialect).map_err(|fault| FrameError::new(ack_id, fault))
}

/// Reads what the frame's type needs.
fn build<'a>(frame: &Frame<'a>, ack_id: Option<u64>, dialect: Dialect) -> Result<Request<'a>, Fault> {
    if let Some(field) = frame.twice() {
        return Err(Fault::at(field.name(), Problem::Twice));
    }
    let name = frame.text(Field::Type)?.ok_or_else(|| Fault::missing("type", "the type of the frame"))?;
    let ours = dialect == Dialect::Tieline;
    let request = match &*name {
        "sendToGroup" => return send_to_group(frame, ack_id, ours),
        "ping" => Request::Ping,
        "sequenceAck" if dialect == Dialect::AzureReliable => {
            Request::SequenceAck { sequence_id: frame.needed_whole(Field::SequenceId)? }
        }
        "joinGroup" => {
            let since = if ours { frame.position(Field::Since)? } else { None };
            Request::JoinGroup { group: frame.group()?, ack_id, since }
        }
        "leaveGroup" => Request::LeaveGroup { group: frame.group()?, ack_id },
        "event" => Request::Event { event: event(frame)?, ack_id, data: frame.data()? },
        "sendToUser" if ours => Request::SendToUser {
            user: frame.user()?,
            ack_id,
            message_id: frame.client_id(Field::MessageId)?,
            no_echo: frame.flag(Field::NoEcho)?,
            data: frame.data()?,
        },
        "sendToAll" if ours => Request::SendToAll {
            ack_id,
            message_id: frame.client_id(Field::MessageId)?,
            no_echo: frame.flag(Field::NoEcho)?,
            data: frame.data()?,
        },
        "send" if ours => Request::Send {
            to: frame.targets()?,
            ack_id,
            message_id: frame.client_id(Field::MessageId)?,
            no_echo: frame.flag(Field::NoEcho)?,
            data: frame.data()?,
        },
        "hello" if ours => Request::Hello {
            inbox: frame.position(Field::Inbox)?,
            device: frame.client_id(Field::Device)?,
            ack_id,
        },
        "inboxAck" if ours => Request::InboxAck { offset: frame.needed_offset(Field::Offset)? },
        "groupAck" if ours => {
            Request::GroupAck { group: frame.group()?, offset: frame.needed_offset(Field::Offset)? }
        }
        "presence" if ours => Request::Presence {
            group: frame.optional_group()?,
            subscribe: frame.optional_flag(Field::Subscribe)?,
            after: frame.text(Field::After)?,
            limit: frame.whole(Field::Limit)?,
            ack_id,
        },
        "token" if ours => {
            let token = frame.text(Field::Token)?.ok_or_else(|| Fault::missing("token", "a token"))?;
            Request::Token { token, ack_id }
        }
        "invoke" => {
            // The clients name what they call; an event is the only thing there is.
            if frame.text(Field::Target)?.is_some_and(|target| target != "event") {
                return Err(Fault::expected("target", "\"event\""));
            }
            let invocation_id = frame.needed_client_id(Field::InvocationId)?;
            Request::Invoke { invocation_id, event: event(frame)?, data: frame.data()? }
        }
        "cancelInvocation" => {
            Request::CancelInvocation { invocation_id: frame.needed_client_id(Field::InvocationId)? }
        }
        "streamData" => {
            let data = frame.optional_data()?;
            let sequence_id = match data {
                Some(_) => Some(frame.needed_whole(Field::StreamSequenceId)?),
                None => frame.whole(Field::StreamSequenceId)?,
            };
            Request::StreamData { stream_id: frame.needed_client_id(Field::StreamId)?, sequence_id, data }
        }
        "streamEnd" => Request::StreamEnd {
            stream_id: frame.needed_client_id(Field::StreamId)?,
            error: frame.stream_fault()?,
        },
        "setGroupState" => {
            Request::SetGroupState { group: frame.group()?, state: frame.group_state()?, ack_id }
        }
        "subscribeGroupState" => Request::SubscribeGroupState { group: frame.group()?, ack_id },
        "unsubscribeGroupState" => Request::UnsubscribeGroupState { group: frame.group()?, ack_id },
        other => {
            let name = other.chars().take(MAX_TYPE_SHOWN).collect::<String>().into_boxed_str();
            return Err(Fault { field: Some("type"), problem: Problem::UnknownType { name, dialect } });
        }
    };
    Ok(request)
}

/// The hot frame, and the start of a stream, which the wire gives the same type.
fn send_to_group<'a>(frame: &Frame<'a>, ack_id: Option<u64>, ours: bool) -> Result<Request<'a>, Fault> {
    let group = frame.group()?;
    let no_echo = frame.flag(Field::NoEcho)?;
    if let Some(StreamStart { stream_id, idle_timeout_ms }) = frame.stream_start()? {
        if frame.raw(Field::Data).is_some() {
            return Err(Fault::expected("data", "no data beside stream"));
        }
        return Ok(Request::StreamStart { group, stream_id, idle_timeout_ms, no_echo });
    }
    let users = match frame.get(Field::Users) {
        None => Vec::new(),
        // To ignore it as an unknown member would send to the whole group.
        Some(_) if !ours => return Err(Fault::at("users", Problem::NotInDialect)),
        Some(_) => {
            let users = frame.users()?;
            if users.is_empty() {
                return Err(Fault::expected("users", "at least one user, or no such member"));
            }
            users
        }
    };
    let message_id = if ours { frame.client_id(Field::MessageId)? } else { None };
    Ok(Request::SendToGroup { group, users, ack_id, message_id, no_echo, data: frame.data()? })
}

/// The name of an event.
fn event<'a>(frame: &Frame<'a>) -> Result<std::borrow::Cow<'a, str>, Fault> {
    let event = frame.text(Field::Event)?.ok_or_else(|| Fault::missing("event", "an event's name"))?;
    if event.is_empty() || event.len() > MAX_EVENT_BYTES {
        return Err(Fault::expected("event", "a name of 1 to 1024 bytes"));
    }
    Ok(event)
}
