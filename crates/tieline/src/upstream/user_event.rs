//! Events from clients: what an endpoint's answer is to the client. Tested here, and with clients in `tests/program/upstream`.

use tieline_core::events::{EventAnswer, EventFailure};
use tieline_proto::{DataType, ErrorCode, Payload};

use super::handler::{CallError, Reply};

/// How the type of a payload is written in HTTP.
pub(super) fn content_type(data: DataType) -> &'static str {
    match data {
        DataType::Json => "application/json",
        DataType::Text => "text/plain",
        DataType::Binary => "application/octet-stream",
        DataType::Protobuf => "application/x-protobuf",
    }
}

/// What goes back to the client.
pub(super) fn answer(result: Result<Reply, CallError>) -> EventAnswer {
    match result {
        Ok(reply) => {
            let outcome = payload(&reply).map_err(|()| failed());
            EventAnswer { state: reply.state, outcome }
        }
        Err(CallError::Refused { message, .. }) => {
            let code = ErrorCode::RefusedByHandler;
            let message = message.map_or_else(|| code.text().into(), String::into_boxed_str);
            EventAnswer { state: None, outcome: Err(EventFailure { code, message }) }
        }
        Err(CallError::Failed(_)) => EventAnswer { state: None, outcome: Err(failed()) },
    }
}

fn failed() -> EventFailure {
    let code = ErrorCode::HandlerFailed;
    EventFailure { code, message: code.text().into() }
}

/// The message that the answer is; none where it has no body.
fn payload(reply: &Reply) -> Result<Option<Payload>, ()> {
    if reply.body.is_empty() {
        return Ok(None);
    }
    let data_type = match reply.media.as_deref() {
        Some("application/json") => DataType::Json,
        Some("text/plain") => DataType::Text,
        Some("application/octet-stream") => DataType::Binary,
        Some("application/x-protobuf") => DataType::Protobuf,
        _ => return Err(()),
    };
    Payload::from_body(data_type, &reply.body).map(Some).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::*;

    fn outcome(media: Option<&str>, body: &'static [u8]) -> Result<Option<Payload>, ErrorCode> {
        let reply = Reply { media: media.map(str::to_owned), state: None, body: Bytes::from_static(body) };
        answer(Ok(reply)).outcome.map_err(|failure| failure.code)
    }

    #[test]
    fn a_body_is_a_message_by_its_type_and_nothing_else_is() {
        assert_eq!(outcome(None, b""), Ok(None));
        assert_eq!(outcome(Some("application/octet-stream"), b""), Ok(None));
        let json = outcome(Some("application/json"), b" {\"a\": 1} ").unwrap().unwrap();
        assert_eq!((json.as_data().data_type(), json.as_data().json()), (DataType::Json, "{\"a\": 1}"));
        let text = outcome(Some("text/plain"), "ü\"".as_bytes()).unwrap().unwrap();
        assert_eq!(text.as_data().json(), "\"ü\\\"\"");
        let binary = outcome(Some("application/octet-stream"), b"\xff").unwrap().unwrap();
        assert_eq!(binary.as_data().json(), "\"/w==\"");
        for (media, body) in [
            (None, &b"x"[..]),
            (Some("text/html"), b"x"),
            (Some("application/json"), b"{"),
            (Some("text/plain"), b"\xff"),
        ] {
            assert_eq!(outcome(media, body), Err(ErrorCode::HandlerFailed), "{media:?}");
        }
    }
}
