//! Plain chat frames, in and out.

use proptest::prelude::*;

use super::*;
use crate::{id::MessageId, payload::Payload};

#[test]
fn the_four_forms() {
    let sent = |text| match parse(text).unwrap() {
        PlainRequest::ToUser { user, data } => format!("user {user} {} {}", data.data_type(), data.json()),
        PlainRequest::ToGroup { group, data } => {
            format!("group {group} {} {}", data.data_type(), data.json())
        }
        PlainRequest::Join { group } => format!("join {group}"),
        PlainRequest::Leave { group } => format!("leave {group}"),
    };
    assert_eq!(sent(r#"{"receiver":"bob","msg":"hi"}"#), "user bob text \"hi\"");
    assert_eq!(sent(r#"{"group":"room","msg":{"a":1},"sender":"mallory"}"#), "group room json {\"a\":1}");
    assert_eq!(sent(r#" {"join":"room"}"#), "join room");
    assert_eq!(sent(r#"{"leave":"r\u00fc"}"#), "leave rü");
}

#[test]
fn bad_frames_are_told_apart() {
    for (text, error, code) in [
        ("", PlainError::NotObject, ErrorCode::InvalidRequest),
        ("hi", PlainError::NotObject, ErrorCode::InvalidRequest),
        (r#"["bob"]"#, PlainError::NotObject, ErrorCode::InvalidRequest),
        ("{}", PlainError::NoTarget, ErrorCode::InvalidRequest),
        (r#"{"msg":"hi"}"#, PlainError::NoTarget, ErrorCode::InvalidRequest),
        (r#"{"receiver":"a","group":"b","msg":1}"#, PlainError::NoTarget, ErrorCode::InvalidRequest),
        (r#"{"join":"a","leave":"b"}"#, PlainError::NoTarget, ErrorCode::InvalidRequest),
        (r#"{"receiver":"a"}"#, PlainError::NoMsg, ErrorCode::InvalidRequest),
        (r#"{"receiver":"a","receiver":"b","msg":1}"#, PlainError::Twice, ErrorCode::InvalidRequest),
        (r#"{"receiver":7,"msg":1}"#, PlainError::NotString("receiver"), ErrorCode::InvalidRequest),
        (r#"{"receiver":"","msg":1}"#, PlainError::Name("receiver", NameError::User), ErrorCode::InvalidUser),
        (r#"{"join":" "}"#, PlainError::Name("join", NameError::Group), ErrorCode::InvalidGroup),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
        assert_eq!(error.code(), code);
    }
    let deep = format!(r#"{{"group":"g","msg":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(&deep), Err(PlainError::Data(DataError::TooDeep)));
}

#[test]
fn messages_as_a_raw_socket_reads_them() {
    let hi = Payload::from_text("hi");
    let mut message = Message {
        from: From::User { to: "bob" },
        from_user_id: Some("alice"),
        id: MessageId(1),
        time_ms: 1_769_860_800_000,
        data: hi.as_data(),
        position: None,
        stream: None,
    };
    let written = |message: &Message<'_>| {
        let mut out = Vec::new();
        super::message(&mut out, message);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        written(&message),
        r#"{"sender":"alice","receiver":"bob","msg":"hi","createTime":"2026-01-31 12:00:00"}"#
    );
    message.from = From::Group { name: "room" };
    assert_eq!(
        written(&message),
        r#"{"sender":"alice","group":"room","msg":"hi","createTime":"2026-01-31 12:00:00"}"#
    );
    message.from = From::Server;
    message.from_user_id = None;
    assert_eq!(written(&message), r#"{"msg":"hi","createTime":"2026-01-31 12:00:00"}"#);
}

#[test]
fn errors_as_a_raw_socket_reads_them() {
    let mut out = Vec::new();
    error(&mut out, ErrorCode::NotFound, "no \"bob\"");
    assert_eq!(out, br#"{"error":"NotFound","message":"no \"bob\""}"#);
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), inside in any::<String>()) {
        let _ = parse(&text);
        let _ = parse(&format!("{{\"receiver\":{inside}}}"));
    }
}
