//! Every frame, byte for byte, and that any text in it stays JSON.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    error::ErrorCode,
    id::{ConnectionId, MessageId, Position},
    payload::{DataType, Payload},
    plain,
};

/// What a writer appends, checked to be JSON.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice::<Value>(&out).unwrap();
    String::from_utf8(out).unwrap()
}

const ID: ConnectionId = ConnectionId::from_bytes([1; 20]);
const AT: Option<Position> = Some(Position { epoch: 3, offset: 14 });

#[test]
fn acks() {
    assert_eq!(written(|out| ack(out, 1)), r#"{"type":"ack","ackId":1,"success":true}"#);
    assert_eq!(
        written(|out| ack_error(out, u64::MAX, ErrorCode::Forbidden, "no \"role\"")),
        r#"{"type":"ack","ackId":18446744073709551615,"success":false,"error":{"name":"Forbidden","message":"no \"role\""}}"#
    );
    let receipt = Receipt { delivered: Some(3), queued: 1, unknown: Some(0), unreachable: Some(2) };
    assert_eq!(
        written(|out| ack_with(out, 2, Extra::Receipt(receipt))),
        r#"{"type":"ack","ackId":2,"success":true,"delivered":3,"queued":1,"unknown":0,"unreachable":2}"#
    );
    let receipt = Receipt { delivered: None, queued: 0, unknown: None, unreachable: None };
    assert_eq!(
        written(|out| ack_with(out, 2, Extra::Receipt(receipt))),
        r#"{"type":"ack","ackId":2,"success":true,"delivered":null,"queued":0,"unknown":null,"unreachable":null}"#
    );
    assert_eq!(
        written(|out| ack_with(out, 2, Extra::Log { recovered: Some(Recovered::Whole), position: AT })),
        r#"{"type":"ack","ackId":2,"success":true,"recovered":true,"position":{"epoch":3,"offset":14}}"#
    );
    assert_eq!(
        written(|out| ack_with(out, 2, Extra::Log { recovered: Some(Recovered::Trimmed), position: None })),
        r#"{"type":"ack","ackId":2,"success":true,"recovered":false,"reason":"trimmed"}"#
    );
    assert_eq!(
        written(|out| error(out, ErrorCode::InvalidGroup, Some("group"), "bad")),
        r#"{"type":"error","error":{"name":"InvalidGroup","message":"bad"},"field":"group"}"#
    );
    assert_eq!(written(pong), r#"{"type":"pong"}"#);
}

#[test]
fn presence() {
    use crate::presence::{Details, Event, Page, Person, Place, Totals, Turn};
    use crate::{NodeName, UserId};

    let user = |name| UserId::new(name).unwrap();
    let node = NodeName::new("n").unwrap();
    let details = Details::new(Some("phone"), Some(&serde_json::json!({"a": [1, "\""]}))).unwrap();
    let places = vec![
        Place { node: node.clone(), connections: 1, details: details.clone() },
        Place { node: node.clone(), connections: 2, details: None },
    ];
    let page = Page {
        users: vec![
            Person { user: user("a\"b"), connections: 3, places },
            Person { user: user("c"), connections: 0, places: Vec::new() },
        ],
        totals: Totals { users: 9, connections: 12, anonymous: 2 },
        next: Some(user("c")),
        is_complete: true,
    };
    let inside = concat!(
        r#""total":{"users":9,"connections":12,"anonymous":2},"complete":true,"users":["#,
        r#"{"userId":"a\"b","connections":3,"places":[{"node":"n","connections":1,"device":"phone","data":{"a":[1,"\""]}},"#,
        r#"{"node":"n","connections":2}]},{"userId":"c","connections":0,"places":[]}]"#
    );
    assert_eq!(
        written(|out| presence_page(out, Some("g"), Some(4), &page)),
        format!(r#"{{"type":"presence","group":"g","ackId":4,{inside},"next":"c"}}"#)
    );
    assert_eq!(
        written(|out| presence_body(out, &page, Some("http://x"))),
        format!(r#"{{{inside},"nextLink":"http://x"}}"#)
    );
    assert_eq!(
        written(|out| presence_page(out, None, None, &Page::default())),
        r#"{"type":"presence","total":{"users":0,"connections":0,"anonymous":0},"complete":false,"users":[]}"#
    );
    let events = [
        Event { turn: Turn::Join, user: user("a"), node: node.clone(), details },
        Event { turn: Turn::Leave, user: user("b"), node, details: None },
    ];
    let join = r#""userId":"a","node":"n","device":"phone","data":{"a":[1,"\""]}}"#;
    assert_eq!(
        written(|out| presence_events(out, Some("g"), &events)),
        format!(
            r#"{{"type":"presence","group":"g","events":[{{"event":"join",{join},{{"event":"leave","userId":"b","node":"n"}}]}}"#
        )
    );
    assert_eq!(
        written(|out| presence_event(out, &events[0], Some("g"))),
        format!(r#"{{"event":"join","group":"g",{join}"#)
    );
}

#[test]
fn system_events() {
    assert_eq!(
        written(|out| connected(out, ID, Some("u\n"), Some("t"))),
        r#"{"type":"system","event":"connected","userId":"u\n","connectionId":"AQEBAQEBAQEBAQEBAQEBAQEBAQE","reconnectionToken":"t"}"#
    );
    assert_eq!(
        written(|out| connected(out, ID, None, None)),
        r#"{"type":"system","event":"connected","connectionId":"AQEBAQEBAQEBAQEBAQEBAQEBAQE"}"#
    );
    assert_eq!(
        written(|out| disconnected(out, "bye")),
        r#"{"type":"system","event":"disconnected","message":"bye"}"#
    );
    assert_eq!(
        written(|out| reconnect(out, 10, 500, Some("ws://a"))),
        r#"{"type":"system","event":"reconnect","afterMs":10,"jitterMs":500,"url":"ws://a"}"#
    );
    assert_eq!(written(|out| gap(out, None, None)), r#"{"type":"system","event":"gap"}"#);
    assert_eq!(
        written(|out| gap(out, Some("g"), AT)),
        r#"{"type":"system","event":"gap","group":"g","position":{"epoch":3,"offset":14}}"#
    );
    assert_eq!(written(displaced), r#"{"type":"system","event":"displaced"}"#);
}

#[test]
fn messages_on_each_wire() {
    let text = Payload::from_text("hi");
    let mut sent = Message {
        from: From::Group { name: "g" },
        from_user_id: Some("alice"),
        id: MessageId::new(1_769_860_800_000, 5),
        time_ms: 1_769_860_800_000,
        data: text.as_data(),
        position: AT,
        stream: None,
    };
    assert_eq!(
        written(|out| message(out, Wire::Azure, &sent)),
        r#"{"type":"message","from":"group","group":"g","fromUserId":"alice","dataType":"text","data":"hi"}"#
    );
    assert_eq!(
        written(|out| {
            sequence_head(out, 1);
            message_tail(out, Wire::Azure, &sent);
        }),
        r#"{"sequenceId":1,"type":"message","from":"group","group":"g","fromUserId":"alice","dataType":"text","data":"hi"}"#
    );
    assert_eq!(
        written(|out| message(out, Wire::Tieline, &sent)),
        r#"{"type":"message","from":"group","group":"g","fromUserId":"alice","id":"01KG9YS7G00000000000000005","time":"2026-01-31T12:00:00.000Z","position":{"epoch":3,"offset":14},"dataType":"text","data":"hi"}"#
    );
    sent.from = From::User { to: "bob" };
    sent.position = None;
    assert_eq!(
        written(|out| message(out, Wire::Tieline, &sent)),
        r#"{"type":"message","from":"user","toUserId":"bob","fromUserId":"alice","id":"01KG9YS7G00000000000000005","time":"2026-01-31T12:00:00.000Z","dataType":"text","data":"hi"}"#
    );
    // The official clients know no message from a user.
    assert_eq!(
        written(|out| message(out, Wire::Azure, &sent)),
        r#"{"type":"message","from":"server","fromUserId":"alice","dataType":"text","data":"hi"}"#
    );
    let bytes = Payload::from_bytes(DataType::Protobuf, &[1, 2, 3]);
    let sent = Message { from: From::Server, from_user_id: None, data: bytes.as_data(), ..sent };
    assert_eq!(
        written(|out| message(out, Wire::Azure, &sent)),
        r#"{"type":"message","from":"server","dataType":"protobuf","data":"AQID"}"#
    );
    assert!(written(|out| message(out, Wire::Plain, &sent)).starts_with(r#"{"msg":"AQID","createTime""#));
}

#[test]
fn the_last_part_of_a_stream() {
    let empty = Payload::from_text("");
    let error =
        StreamPartError { code: ErrorCode::UserError, message: "gave up", user_error_code: Some("\"E1\"") };
    let part = StreamPart { stream_id: "s", sequence_id: 9, end: true, error: Some(error) };
    let sent = Message {
        from: From::Group { name: "g" },
        from_user_id: None,
        id: MessageId(0),
        time_ms: 0,
        data: empty.as_data(),
        position: None,
        stream: Some(part),
    };
    assert_eq!(
        written(|out| message(out, Wire::Azure, &sent)),
        r#"{"type":"message","from":"group","group":"g","stream":{"streamId":"s","streamSequenceId":9,"endOfStream":true,"error":{"name":"UserError","message":"gave up","userErrorCode":"E1"}},"dataType":"text","data":""}"#
    );
}

#[test]
fn calls_and_streams() {
    let answer = Payload::from_json("{\"a\": 1}").unwrap();
    assert_eq!(
        written(|out| invoke_response(out, "1", Some(answer.as_data()))),
        r#"{"type":"invokeResponse","invocationId":"1","success":true,"dataType":"json","data":{"a": 1}}"#
    );
    assert_eq!(
        written(|out| invoke_error(out, "1", ErrorCode::NoHandler, "nobody")),
        r#"{"type":"invokeResponse","invocationId":"1","success":false,"error":{"name":"NoHandler","message":"nobody"}}"#
    );
    assert_eq!(
        written(|out| stream_ack(out, "s", 1)),
        r#"{"type":"streamAck","streamId":"s","expectedSequenceId":1}"#
    );
    assert_eq!(
        written(|out| stream_nack(out, "s", ErrorCode::InvalidRequest, Some("gap"), 4)),
        r#"{"type":"streamNack","streamId":"s","name":"InvalidRequest","message":"gap","expectedSequenceId":4}"#
    );
    assert_eq!(written(|out| stream_closed(out, "s", None)), r#"{"type":"streamClosed","streamId":"s"}"#);
    assert_eq!(
        written(|out| stream_closed(out, "s", Some((ErrorCode::StreamNotFound, "gone")))),
        r#"{"type":"streamClosed","streamId":"s","error":{"name":"StreamNotFound","message":"gone"}}"#
    );
}

#[test]
fn group_states() {
    let item =
        StateItem { connection_id: ID, user_id: Some("u"), state: Some(r#"{"a":"b"}"#), updated_at_ms: 12 };
    let gone = StateItem { user_id: None, state: None, ..item };
    assert_eq!(
        written(|out| group_state_update(out, "g", [item, gone])),
        r#"{"type":"groupStateUpdate","group":"g","items":[{"connectionId":"AQEBAQEBAQEBAQEBAQEBAQEBAQE","userId":"u","state":{"a":"b"},"updatedAt":12},{"connectionId":"AQEBAQEBAQEBAQEBAQEBAQEBAQE","updatedAt":12}]}"#
    );
    assert_eq!(
        written(|out| group_state_snapshot(out, "g", [])),
        r#"{"type":"groupStateSnapshot","group":"g","items":[]}"#
    );
}

proptest! {
    #[test]
    fn any_text_stays_inside_its_member(text in any::<String>(), sequence in 1_u64..) {
        let payload = Payload::from_text(&text);
        let sent = Message {
            from: From::Group { name: &text },
            from_user_id: Some(&text),
            id: MessageId(7),
            time_ms: sequence,
            data: payload.as_data(),
            position: AT,
            stream: None,
        };
        let mut out = Vec::new();
        sequence_head(&mut out, sequence);
        message_tail(&mut out, Wire::Tieline, &sent);
        let read: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(read.as_object().unwrap().len(), 10);
        prop_assert_eq!(read["sequenceId"].as_u64(), Some(sequence));
        for member in ["group", "fromUserId", "data"] {
            prop_assert_eq!(read[member].as_str(), Some(&*text));
        }
        for write in [
            (|out, text| ack_error(out, 1, ErrorCode::Forbidden, text)) as fn(&mut Vec<u8>, &str),
            |out, text| error(out, ErrorCode::Forbidden, Some(text), text),
            |out, text| connected(out, ID, Some(text), Some(text)),
            disconnected,
            |out, text| reconnect(out, 1, 1, Some(text)),
            |out, text| gap(out, Some(text), None),
            |out, text| invoke_error(out, text, ErrorCode::NoHandler, text),
            |out, text| stream_ack(out, text, 1),
            |out, text| stream_nack(out, text, ErrorCode::UserError, Some(text), 1),
            |out, text| stream_closed(out, text, Some((ErrorCode::UserError, text))),
            |out, text| group_state_snapshot(out, text, []),
            |out, text| plain::error(out, ErrorCode::Forbidden, text),
        ] {
            let mut out = Vec::new();
            write(&mut out, &text);
            prop_assert!(serde_json::from_slice::<Value>(&out).is_ok());
        }
    }
}
