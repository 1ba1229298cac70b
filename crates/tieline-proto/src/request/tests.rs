//! Frames as clients send them, frames as nobody should, and properties over both.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::{
    error::ErrorCode,
    id::NameError,
    payload::{DataError, DataType},
};

fn ok(text: &str, dialect: Dialect) -> Request<'_> {
    parse(text, dialect).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn fault(text: &str) -> FrameError {
    parse(text, Dialect::Tieline).expect_err(text)
}

/// The payload of a frame that has one.
fn data<'a>(request: &Request<'a>) -> (DataType, &'a str) {
    match request {
        Request::SendToGroup { data, .. }
        | Request::SendToUser { data, .. }
        | Request::SendToAll { data, .. }
        | Request::Send { data, .. }
        | Request::Event { data, .. }
        | Request::Invoke { data, .. }
        | Request::StreamData { data: Some(data), .. } => (data.data_type(), data.json()),
        other => panic!("{other:?} has no data"),
    }
}

#[test]
fn the_azure_clients_frames() {
    for dialect in Dialect::ALL {
        assert_eq!(
            ok(r#"{"type":"joinGroup","group":"g","ackId":1}"#, dialect),
            Request::JoinGroup { group: "g".into(), ack_id: Some(1), since: None }
        );
        assert_eq!(
            ok(r#"{"type":"leaveGroup","group":"a/b ?#%ü","ackId":18446744073709551615}"#, dialect),
            Request::LeaveGroup { group: "a/b ?#%ü".into(), ack_id: Some(u64::MAX) }
        );
        let send =
            r#"{"type":"sendToGroup","group":"g","noEcho":false,"dataType":"text","data":"x","ackId":0}"#;
        let request = ok(send, dialect);
        let Request::SendToGroup { group, users, ack_id, message_id, no_echo, .. } = &request else {
            panic!("{request:?}")
        };
        assert_eq!((&**group, users.len(), *ack_id, message_id, *no_echo), ("g", 0, Some(0), &None, false));
        assert_eq!(data(&request), (DataType::Text, "\"x\""));
        assert_eq!(ok(r#"{"type":"ping"}"#, dialect), Request::Ping);
        let event = ok(r#"{"type":"event","event":"hi","dataType":"protobuf","data":"AQID"}"#, dialect);
        assert!(matches!(&event, Request::Event { event, ack_id: None, .. } if event == "hi"));
        assert_eq!(data(&event), (DataType::Protobuf, "\"AQID\""));
    }
    let ack = r#"{"type":"sequenceAck","sequenceId":4294967297}"#;
    assert_eq!(ok(ack, Dialect::AzureReliable), Request::SequenceAck { sequence_id: 4_294_967_297 });
}

#[test]
fn a_send_borrows_from_its_frame() {
    let text = r#"{"type":"sendToGroup","group":"room","noEcho":true,"dataType":"json","data":{"a": [1]}}"#;
    let Request::SendToGroup { group: Cow::Borrowed(group), no_echo: true, data, .. } =
        ok(text, Dialect::Azure)
    else {
        panic!("the group was copied")
    };
    assert_eq!((group, data.json()), ("room", r#"{"a": [1]}"#));
    assert!(text.as_bytes().as_ptr_range().contains(&data.json().as_ptr()));
}

#[test]
fn calls_and_streams() {
    for dialect in Dialect::ALL {
        let invoke = r#"{"type":"invoke","invocationId":"1","target":"event","event":"e","dataType":"json","data":{}}"#;
        assert!(matches!(
            ok(invoke, dialect),
            Request::Invoke { invocation_id, event, .. } if invocation_id == "1" && event == "e"
        ));
        assert_eq!(
            ok(r#"{"type":"cancelInvocation","invocationId":"1"}"#, dialect),
            Request::CancelInvocation { invocation_id: "1".into() }
        );
        let start = r#"{"type":"sendToGroup","group":"g","noEcho":true,"stream":{"streamId":"s","idleTimeoutMs":500}}"#;
        assert_eq!(
            ok(start, dialect),
            Request::StreamStart {
                group: "g".into(),
                stream_id: "s".into(),
                idle_timeout_ms: Some(500),
                no_echo: true
            }
        );
        let part =
            r#"{"type":"streamData","streamId":"s","streamSequenceId":1,"dataType":"text","data":"a"}"#;
        assert_eq!(data(&ok(part, dialect)), (DataType::Text, "\"a\""));
        assert_eq!(
            ok(r#"{"type":"streamData","streamId":"s"}"#, dialect),
            Request::StreamData { stream_id: "s".into(), sequence_id: None, data: None }
        );
        assert_eq!(
            ok(
                r#"{"type":"streamEnd","streamId":"s","error":{"message":"m","userErrorCode":"E1"}}"#,
                dialect
            ),
            Request::StreamEnd {
                stream_id: "s".into(),
                error: Some(StreamFault { message: "m".into(), user_error_code: Some("\"E1\"") })
            }
        );
    }
}

#[test]
fn group_state() {
    assert_eq!(
        ok(r#"{"type":"setGroupState","group":"g","ackId":2,"state":{"a": "b"}}"#, Dialect::Azure),
        Request::SetGroupState { group: "g".into(), state: Some(r#"{"a": "b"}"#), ack_id: Some(2) }
    );
    assert_eq!(
        ok(r#"{"type":"setGroupState","group":"g","ackId":2}"#, Dialect::Azure),
        Request::SetGroupState { group: "g".into(), state: None, ack_id: Some(2) }
    );
    assert!(matches!(
        ok(r#"{"type":"subscribeGroupState","group":"g","ackId":2}"#, Dialect::Azure),
        Request::SubscribeGroupState { ack_id: Some(2), .. }
    ));
    assert!(matches!(
        ok(r#"{"type":"unsubscribeGroupState","group":"g","ackId":2}"#, Dialect::Azure),
        Request::UnsubscribeGroupState { ack_id: Some(2), .. }
    ));
    let many: Vec<String> = (0..=MAX_STATE_ENTRIES).map(|n| format!("\"k{n}\":\"\"")).collect();
    for state in ["[]", "1", r#"{"a":1}"#, r#"{"a":"1","a":"2"}"#, &format!("{{{}}}", many.join(","))] {
        let error = fault(&format!(r#"{{"type":"setGroupState","group":"g","state":{state}}}"#));
        assert_eq!(error.field(), Some("state"), "{state}");
    }
}

#[test]
fn what_only_tieline_has() {
    let id = ConnectionId::from_bytes([7; 20]);
    let send = format!(
        r#"{{"type":"send","to":{{"users":["u","ü"],"groups":["g"],"connections":["{id}"],"excluded":["{id}"]}},
            "dataType":"json","data":null,"ackId":4,"messageId":"m-1"}}"#
    );
    let frames = [
        r#"{"type":"sendToUser","user":"u1","dataType":"json","data":1,"ackId":1,"messageId":"x"}"#,
        r#"{"type":"sendToAll","dataType":"text","data":"a"}"#,
        &send,
        r#"{"type":"hello","inbox":{"epoch":1,"offset":2},"device":"phone"}"#,
        r#"{"type":"inboxAck","offset":9}"#,
        r#"{"type":"groupAck","group":"g","offset":9}"#,
        r#"{"type":"presence","group":"g","limit":10,"after":"u","ackId":1}"#,
        r#"{"type":"presence","subscribe":true}"#,
        r#"{"type":"token","token":"a.b.c","ackId":3}"#,
    ];
    for frame in frames {
        ok(frame, Dialect::Tieline);
        for dialect in [Dialect::Azure, Dialect::AzureReliable] {
            assert_eq!(parse(frame, dialect).unwrap_err().code(), ErrorCode::UnknownType, "{frame}");
        }
    }
    let ack = r#"{"type":"sequenceAck","sequenceId":1}"#;
    assert_eq!(fault(ack).code(), ErrorCode::UnknownType);
    assert_eq!(parse(ack, Dialect::Azure).unwrap_err().code(), ErrorCode::UnknownType);

    let Request::Send { to, ack_id, message_id, data, .. } = ok(&send, Dialect::Tieline) else { panic!() };
    assert_eq!(
        to,
        Targets {
            users: vec!["u".into(), "ü".into()],
            groups: vec!["g".into()],
            connections: vec![id],
            excluded: vec![id]
        }
    );
    assert_eq!((ack_id, message_id.as_deref(), data.json()), (Some(4), Some("m-1"), "null"));
    assert_eq!(
        ok(frames[3], Dialect::Tieline),
        Request::Hello {
            inbox: Some(Position { epoch: 1, offset: 2 }),
            device: Some("phone".into()),
            ack_id: None
        }
    );
    let join = r#"{"type":"joinGroup","group":"g","since":{"epoch":1,"offset":2}}"#;
    let since = |dialect| match ok(join, dialect) {
        Request::JoinGroup { since, .. } => since,
        other => panic!("{other:?}"),
    };
    assert_eq!(since(Dialect::Tieline), Some(Position { epoch: 1, offset: 2 }));
    assert_eq!(since(Dialect::Azure), None);
}

#[test]
fn users_in_a_group_are_never_ignored() {
    let frame = r#"{"type":"sendToGroup","group":"g","users":["u"],"data":1}"#;
    assert!(matches!(ok(frame, Dialect::Tieline), Request::SendToGroup { users, .. } if users == ["u"]));
    let error = parse(frame, Dialect::Azure).unwrap_err();
    assert_eq!((error.field(), error.problem()), (Some("users"), &Problem::NotInDialect));
    assert_eq!(fault(&frame.replace("[\"u\"]", "[]")).field(), Some("users"));
}

#[test]
fn null_is_absent_except_as_data() {
    let frame = r#"{"type":"sendToGroup","group":"g","ackId":null,"noEcho":null,"dataType":null,"messageId":null,
        "users":null,"stream":null,"data":null}"#;
    let request = ok(frame, Dialect::Tieline);
    assert_eq!(data(&request), (DataType::Json, "null"));
    assert_eq!(request.ack_id(), None);
    assert_eq!(fault(r#"{"type":"joinGroup","group":null}"#).problem(), &Problem::Missing("a group's name"));
}

#[test]
fn unknown_members_are_ignored_however_deep() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let frame = format!(r#"{{"x":{deep},"type":"ping","Type":1,"y":1e999,"z":99999999999999999999999}}"#);
    assert_eq!(ok(&frame, Dialect::Azure), Request::Ping);
}

/// Each frame, with the member at fault and the row of the error table. All carry ackId 7, and so must the
/// error.
#[test]
fn bad_members_are_named() {
    use ErrorCode::{InvalidData, InvalidGroup, InvalidRequest, InvalidUser, UnknownType};
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let huge = "g".repeat(1 << 20);
    let blank = " ".repeat(1 << 20);
    let table: &[(&str, &str, ErrorCode)] = &[
        ("", "type", InvalidRequest),
        (r#","type":null"#, "type", InvalidRequest),
        (r#","type":1"#, "type", InvalidRequest),
        (r#","type":{"a":[]}"#, "type", InvalidRequest),
        (r#","type":"""#, "type", UnknownType),
        (r#","type":"JoinGroup","group":"g""#, "type", UnknownType),
        (&format!(r#","type":"{huge}""#), "type", UnknownType),
        (r#","type":"ping","type":"ping""#, "type", InvalidRequest),
        (r#","type":"joinGroup","group":"a","group":"b""#, "group", InvalidRequest),
        (r#","type":"joinGroup""#, "group", InvalidRequest),
        (r#","type":"joinGroup","group":1"#, "group", InvalidRequest),
        (r#","type":"joinGroup","group":["g"]"#, "group", InvalidRequest),
        (r#","type":"joinGroup","group":"""#, "group", InvalidGroup),
        (r#","type":"joinGroup","group":" \u00a0\t""#, "group", InvalidGroup),
        (&format!(r#","type":"joinGroup","group":"{huge}""#), "group", InvalidGroup),
        (&format!(r#","type":"leaveGroup","group":"{blank}""#), "group", InvalidGroup),
        (r#","type":"joinGroup","group":"a\ud83d""#, "group", InvalidRequest),
        (r#","type":"joinGroup","group":"g","since":[1,2]"#, "since", InvalidRequest),
        (r#","type":"joinGroup","group":"g","since":{"epoch":1}"#, "since", InvalidRequest),
        (r#","type":"joinGroup","group":"g","since":{"epoch":1,"offset":1e3}"#, "since", InvalidRequest),
        (r#","type":"sendToGroup","group":"g""#, "data", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","dataType":"text""#, "data", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","dataType":"xml","data":"a""#, "dataType", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","dataType":"JSON","data":"a""#, "dataType", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","dataType":1,"data":"a""#, "dataType", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","dataType":"text","data":1"#, "data", InvalidData),
        (r#","type":"sendToGroup","group":"g","dataType":"text","data":null"#, "data", InvalidData),
        (r#","type":"sendToGroup","group":"g","dataType":"binary","data":"a""#, "data", InvalidData),
        (r#","type":"sendToGroup","group":"g","dataType":"protobuf","data":[1]"#, "data", InvalidData),
        (&format!(r#","type":"sendToGroup","group":"g","data":{deep}"#), "data", InvalidData),
        (r#","type":"sendToGroup","group":"g","noEcho":"true","data":1"#, "noEcho", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","noEcho":1,"data":1"#, "noEcho", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","messageId":5,"data":1"#, "messageId", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","messageId":"","data":1"#, "messageId", InvalidRequest),
        (&format!(r#","type":"sendToAll","messageId":"{huge}","data":1"#), "messageId", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","users":"u","data":1"#, "users", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","users":[""],"data":1"#, "users", InvalidUser),
        (r#","type":"sendToGroup","group":"g","stream":"s""#, "stream", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","stream":{}"#, "stream", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","stream":{"streamId":1}"#, "stream.streamId", InvalidRequest),
        (r#","type":"sendToGroup","group":"g","stream":{"streamId":"s"},"data":1"#, "data", InvalidRequest),
        (r#","type":"sendToUser","data":1"#, "user", InvalidRequest),
        (r#","type":"sendToUser","user":"","data":1"#, "user", InvalidUser),
        (&format!(r#","type":"sendToUser","user":"{huge}","data":1"#), "user", InvalidUser),
        (r#","type":"send","data":1"#, "to", InvalidRequest),
        (r#","type":"send","to":{},"data":1"#, "to", InvalidRequest),
        (r#","type":"send","to":["u"],"data":1"#, "to", InvalidRequest),
        (r#","type":"send","to":{"excluded":[]},"data":1"#, "to", InvalidRequest),
        (r#","type":"send","to":{"users":["u"],"exclude":[]},"data":1"#, "to", InvalidRequest),
        (r#","type":"send","to":{"all":1},"data":1"#, "to.all", InvalidRequest),
        (r#","type":"send","to":{"all":true},"data":1"#, "to.all", InvalidRequest),
        (r#","type":"send","to":{"users":["u"],"all":true},"data":1"#, "to.all", InvalidRequest),
        (r#","type":"send","to":{"users":["u"],"users":["v"]},"data":1"#, "to", InvalidRequest),
        (r#","type":"send","to":{"users":[1]},"data":1"#, "to.users", InvalidRequest),
        (r#","type":"send","to":{"groups":[" "]},"data":1"#, "to.groups", InvalidGroup),
        (r#","type":"send","to":{"connections":["x"]},"data":1"#, "to.connections", InvalidRequest),
        (r#","type":"event","data":1"#, "event", InvalidRequest),
        (r#","type":"event","event":"","data":1"#, "event", InvalidRequest),
        (r#","type":"event","event":"e""#, "data", InvalidRequest),
        (r#","type":"inboxAck","offset":9007199254740992"#, "offset", InvalidRequest),
        (r#","type":"groupAck","offset":1"#, "group", InvalidRequest),
        (r#","type":"groupAck","group":" ","offset":1"#, "group", InvalidGroup),
        (r#","type":"groupAck","group":"g","offset":-1"#, "offset", InvalidRequest),
        (r#","type":"token""#, "token", InvalidRequest),
        (
            r#","type":"invoke","invocationId":"1","target":"x","event":"e","data":1"#,
            "target",
            InvalidRequest,
        ),
        (r#","type":"invoke","target":"event","event":"e","data":1"#, "invocationId", InvalidRequest),
        (r#","type":"streamData","streamId":"s","data":1"#, "streamSequenceId", InvalidRequest),
        (
            r#","type":"streamEnd","streamId":"s","error":{"userErrorCode":{}}"#,
            "error.userErrorCode",
            InvalidRequest,
        ),
    ];
    for (members, field, code) in table {
        let text = format!(r#"{{"ackId":7{members}}}"#);
        let shown = &text[..text.len().min(120)];
        let error = fault(&text);
        assert_eq!((error.field(), error.code(), error.ack_id), (Some(*field), *code, Some(7)), "{shown}");
        let said = error.to_string();
        assert!(said.contains(field) && said.len() < 400, "{shown}: {said}");
    }
}

#[test]
fn a_number_that_is_no_ack_id_is_said() {
    for number in [
        "-1",
        "-0",
        "1.0",
        "1e3",
        "18446744073709551616",
        "\"1\"",
        "true",
        "[]",
        "99999999999999999999999999",
    ] {
        let error = fault(&format!(r#"{{"type":"joinGroup","group":"g","ackId":{number}}}"#));
        assert_eq!((error.field(), error.ack_id), (Some("ackId"), None), "{number}");
    }
    let twice = fault(r#"{"type":"joinGroup","group":"g","ackId":1,"ackId":2}"#);
    assert_eq!((twice.field(), twice.problem(), twice.ack_id), (Some("ackId"), &Problem::Twice, None));
}

#[test]
fn what_is_no_object_is_said() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let open = "[".repeat(100_000);
    let deep_object = r#"{"type":"#.repeat(100_000);
    for text in ["[]", "null", "1", "\"ping\"", "true", deep.as_str()] {
        assert_eq!(fault(text).problem(), &Problem::NotObject, "{}", &text[..text.len().min(20)]);
    }
    for text in [
        "",
        " ",
        "{",
        "{}x",
        "{'type':'ping'}",
        r#"{"type":"ping",}"#,
        r#"{"type":"ping"}{}"#,
        "ping",
        "\u{feff}{}",
        r#"{"type":"a
b"}"#,
        r#"{"type":"ping","ackId":01}"#,
        r#"{"type":"\x"}"#,
        r#"{"type":"\ud8"}"#,
        deep_object.as_str(),
        open.as_str(),
    ] {
        let error = fault(text);
        assert!(matches!(error.problem(), Problem::NotJson { .. }), "{}", &text[..text.len().min(20)]);
        assert_eq!((error.field(), error.ack_id), (None, None));
    }
    assert_eq!(fault("{\"type\":\n \"ping\" !}").problem(), &Problem::NotJson { at: 18 });
}

#[test]
fn lists_are_bounded_together() {
    let users = vec!["\"u\""; MAX_TARGETS].join(",");
    let frame = |groups: &str| {
        format!(r#"{{"type":"send","to":{{"users":[{users}],"groups":[{groups}]}},"data":1}}"#)
    };
    assert!(parse(&frame(""), Dialect::Tieline).is_ok());
    let text = frame("\"g\"");
    let error = fault(&text);
    assert_eq!((error.field(), error.code()), (Some("to.groups"), ErrorCode::TooManyTargets));
}

#[test]
fn errors_are_sentences() {
    for (text, said) in [
        (
            r#"{"type":"joinGroup","group":""}"#,
            "`group`: a group name has 1 to 1024 characters, not only blanks",
        ),
        (r#"{"type":"joinGroup"}"#, "`group`: missing; expected a group's name"),
        (r#"{"type":"x\ny"}"#, r#"`type`: tieline.v1 has no frame of type "x\ny""#),
        ("nope", "the frame is not valid JSON (near byte 2)"),
        (r#"{"type":"ping","ackId":-1}"#, "`ackId`: expected a whole number from 0 to 18446744073709551615"),
    ] {
        assert_eq!(fault(text).to_string(), said);
    }
    assert_eq!(
        fault(r#"{"type":"sendToAll","dataType":"text","data":1}"#).problem(),
        &Problem::Data(DataError::NotString)
    );
    assert_eq!(fault(r#"{"type":"joinGroup","group":""}"#).problem(), &Problem::Name(NameError::Group));
}

/// Reading must stay linear: a megabyte of anything in well under a second, even without optimisation.
#[test]
fn a_large_frame_costs_no_more_than_its_size() {
    let escapes = "\\u00e9".repeat(170_000);
    let objects = "{\"a\":".repeat(150_000) + "1" + &"}".repeat(150_000);
    let begin = Instant::now();
    for data in [format!("\"{escapes}\""), objects, "[".repeat(500_000)] {
        let _ =
            parse(&format!(r#"{{"type":"sendToAll","messageId":{data},"data":{data}}}"#), Dialect::Tieline);
    }
    assert!(begin.elapsed().as_secs() < 5, "took {:?}", begin.elapsed());
}

/// Frames whose members are drawn from what breaks readers.
fn hostile() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "type", "group", "data", "dataType", "ackId", "noEcho", "users", "to", "stream", "since", "state",
        "error", "x",
    ]);
    let value = prop::sample::select(vec![
        "null",
        "1",
        "-1",
        "1e9",
        "\"sendToGroup\"",
        "\"joinGroup\"",
        "\"send\"",
        "\"streamEnd\"",
        "\"text\"",
        "\"g\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "[]",
        "[\"u\"]",
        "{}",
        "{\"users\":[\"u\"]}",
        "{\"streamId\":\"s\"}",
        "true",
    ]);
    prop::collection::vec((name, value), 0..8).prop_map(|members| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        for dialect in Dialect::ALL {
            let _ = parse(&text, dialect);
        }
    }

    #[test]
    fn no_frame_panics(text in hostile()) {
        for dialect in Dialect::ALL {
            if let Err(error) = parse(&text, dialect) {
                prop_assert!(error.to_string().len() < 400);
            }
        }
    }

    #[test]
    fn no_cut_frame_is_taken(at in 0_usize..102) {
        let text = r#"{"type":"send","to":{"users":["u"],"groups":["g"]},"ackId":1,"dataType":"text","data":"a b","noEcho":true}"#;
        let cut = at.min(text.len() - 1);
        prop_assert!(parse(&text[..cut], Dialect::Tieline).is_err());
    }

    #[test]
    fn what_is_written_is_read(group in "\\PC{1,40}", user in "\\PC{1,40}", text in any::<String>(), ack in any::<u64>()) {
        prop_assume!(!group.trim().is_empty());
        let json = |text: &str| serde_json::to_string(text).unwrap();
        let frame = format!(
            r#"{{"data":{},"dataType":"text","users":[{}],"group":{},"ackId":{ack},"type":"sendToGroup"}}"#,
            json(&text), json(&user), json(&group)
        );
        let request = parse(&frame, Dialect::Tieline).unwrap();
        let Request::SendToGroup { group: g, users, ack_id, data, .. } = &request else { panic!() };
        prop_assert_eq!(&**g, group);
        prop_assert_eq!(&**users, &[Cow::Borrowed(&*user)]);
        prop_assert_eq!(*ack_id, Some(ack));
        prop_assert_eq!(&*data.to_bytes(), text.as_bytes());
        prop_assert_eq!(data.json(), json(&text));
    }
}
