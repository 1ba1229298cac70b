//! Bodies as text, and what must be refused.

use super::*;
use crate::{
    error::ErrorCode,
    id::{ConnectionId, Incarnation, NodeName},
    payload::DataType,
    reply::Receipt,
    request::MAX_TARGETS,
};

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn answers() {
    assert_eq!(
        json(&ErrorBody::new(ErrorCode::InvalidFilter, "bad").with_target("filter")),
        r#"{"code":"InvalidFilter","message":"bad","target":"filter"}"#
    );
    assert_eq!(
        json(&ErrorBody::from(ErrorCode::Forbidden)),
        r#"{"code":"Forbidden","message":"The token's roles do not allow this."}"#
    );
    let id = ConnectionId::from_bytes([1; 20]);
    let mut page = ConnectionsPage {
        value: vec![
            ConnectionItem { connection_id: id, user_id: Some("u".into()) },
            ConnectionItem { connection_id: id, user_id: None },
        ],
        next_link: Some("http://h/next".into()),
    };
    assert_eq!(
        json(&page),
        r#"{"value":[{"connectionId":"AQEBAQEBAQEBAQEBAQEBAQEBAQE","userId":"u"},{"connectionId":"AQEBAQEBAQEBAQEBAQEBAQEBAQE"}],"nextLink":"http://h/next"}"#
    );
    page = ConnectionsPage::default();
    assert_eq!(json(&page), r#"{"value":[]}"#);
    assert_eq!(json(&TokenAnswer { token: "a.b.c".into() }), r#"{"token":"a.b.c"}"#);
    assert_eq!(
        json(&Receipt { delivered: Some(2), queued: 0, unknown: None, unreachable: Some(1) }),
        r#"{"delivered":2,"queued":0,"unknown":null,"unreachable":1}"#
    );
    let node = NodeItem {
        name: NodeName::new("a:1").unwrap(),
        incarnation: Incarnation(u64::MAX),
        state: NodeState::Alive,
        is_self: true,
        version: None,
        client_url: Some("ws://a:1".into()),
        connections: Some(0),
        weight: Some(2),
        capacity: None,
        enabled: Some(false),
        silent_ms: 0,
    };
    let text = json(&NodesPage { nodes: vec![node.clone()] });
    assert_eq!(
        text,
        r#"{"nodes":[{"name":"a:1","incarnation":"ffffffffffffffff","state":"alive","self":true,"clientUrl":"ws://a:1","connections":0,"weight":2,"enabled":false,"silentMs":0}]}"#
    );
    assert_eq!(serde_json::from_str::<NodesPage>(&text).unwrap().nodes, [node]);
}

#[test]
fn a_page_of_a_history() {
    let payload = crate::payload::Payload::from_json("{\"a\": [1, 2]}").unwrap();
    let id = crate::id::MessageId::new(1_700_000_000_000, 7);
    let position = crate::id::Position { epoch: 7, offset: 42 };
    let item = |user| HistoryItem::new(id, id.unix_ms(), user, position, payload.as_data());
    let (epoch, first, last) = (7, 41, 43);
    let messages = vec![item(Some("a\"b")), item(None)];
    let page = HistoryPage { epoch, first, last, messages, next_link: Some("http://h/?after=7:42".into()) };
    let one = |user: &str| {
        format!(
            r#"{{"id":"{id}","time":"2023-11-14T22:13:20.000Z",{user}"position":{{"epoch":7,"offset":42}},"dataType":"json","data":{{"a": [1, 2]}}}}"#
        )
    };
    let expected = format!(
        r#"{{"epoch":7,"first":41,"last":43,"messages":[{},{}],"nextLink":"http://h/?after=7:42"}}"#,
        one(r#""fromUserId":"a\"b","#),
        one("")
    );
    assert_eq!(json(&page), expected);
    let page = HistoryPage { epoch: 0, first: 1, last: 0, messages: Vec::new(), next_link: None };
    assert_eq!(json(&page), r#"{"epoch":0,"first":1,"last":0,"messages":[]}"#);
}

#[test]
fn groups_by_filter() {
    let body = GroupsBody::parse(br#"{"groups":["a","b/c"],"filter":"userId eq 'u'","x":1}"#).unwrap();
    assert_eq!(body.groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(), ["a", "b/c"]);
    assert_eq!(body.filter.unwrap().source(), "userId eq 'u'");
    for none in [
        &br#"{"groups":["a"]}"#[..],
        br#"{"groups":["a"],"filter":null}"#,
        br#"{"groups":["a"],"filter":""}"#,
    ] {
        assert_eq!(GroupsBody::parse(none).unwrap().filter, None);
    }
    let many = format!(r#"{{"groups":[{}]}}"#, vec!["\"g\""; MAX_TARGETS + 1].join(","));
    for (text, code) in [
        ("", ErrorCode::InvalidRequest),
        ("{}", ErrorCode::InvalidRequest),
        (r#"[["a"],"true"]"#, ErrorCode::InvalidRequest),
        (r#"{"groups":"a"}"#, ErrorCode::InvalidRequest),
        (r#"{"groups":[1]}"#, ErrorCode::InvalidRequest),
        (r#"{"groups":["a"],"filter":1}"#, ErrorCode::InvalidRequest),
        (r#"{"groups":[" "]}"#, ErrorCode::InvalidGroup),
        (r#"{"groups":["a"],"filter":"userId eq"}"#, ErrorCode::InvalidFilter),
        (&many, ErrorCode::TooManyTargets),
    ] {
        assert_eq!(GroupsBody::parse(text.as_bytes()).unwrap_err().code(), code, "{:.60}", text);
    }
    assert!(GroupsBody::parse(b"{\"groups\":[\"\xff\"]}").is_err());
}

#[test]
fn a_send_to_many() {
    let id = ConnectionId::from_bytes([1; 20]);
    let text = format!(
        r#"{{"to":{{"users":["u"],"groups":["g"],"connections":["{id}"],"excluded":["{id}"]}},"filter":"true",
            "dataType":"text","data":"hi","messageId":"m"}}"#
    );
    let body = SendBody::parse(text.as_bytes()).unwrap();
    assert_eq!((body.to.users.len(), body.to.groups.len(), body.all), (1, 1, false));
    assert_eq!((body.to.connections, body.to.excluded), (vec![id], vec![id]));
    assert_eq!((body.data.data_type(), body.data.json()), (DataType::Text, "\"hi\""));
    assert_eq!((body.message_id.as_deref(), body.filter.is_some()), (Some("m"), true));
    let all = SendBody::parse(br#"{"to":{"all":true},"data":null}"#).unwrap();
    assert!(all.all && all.data.json() == "null");
    for (text, field, code) in [
        (&b"\xff"[..], None, ErrorCode::InvalidRequest),
        (b"", None, ErrorCode::InvalidRequest),
        (b"[]", None, ErrorCode::InvalidRequest),
        (br#"{"data":1}"#, Some("to"), ErrorCode::InvalidRequest),
        (br#"{"to":{"all":false},"data":1}"#, Some("to"), ErrorCode::InvalidRequest),
        (br#"{"to":{"all":true},"to":{"users":["a"]},"data":1}"#, Some("to"), ErrorCode::InvalidRequest),
        (br#"{"to":{"all":true,"exclude":[]},"data":1}"#, Some("to"), ErrorCode::InvalidRequest),
        (br#"{"to":{"all":true}}"#, Some("data"), ErrorCode::InvalidRequest),
        (br#"{"to":{"all":true},"filter":"userId","data":1}"#, Some("filter"), ErrorCode::InvalidFilter),
        (br#"{"to":{"users":[""]},"data":1}"#, Some("to.users"), ErrorCode::InvalidUser),
    ] {
        let error = SendBody::parse(text).unwrap_err();
        assert_eq!((error.field(), error.code()), (field, code), "{}", String::from_utf8_lossy(text));
    }
}
