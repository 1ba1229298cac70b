//! Who comes and goes, as an application is told.

use serde_json::json;

use super::*;

const CONFIG: &str = "user_events = []\nsystem_events = [\"presence\"]\n[[group]]\nmatch = \"*\"\npresence = true\n\
                      [[hub]]\nmatch = \"*\"\npresence = true\n[times]\npresence_grace = \"100ms\"";

#[test]
fn an_application_hears_once_of_each_who_comes_and_goes() {
    let endpoint = Endpoint::start(|_| Reply::status(200));
    let server = server(&endpoint, CONFIG);
    // A node that is alone knows at once that nobody was there before it.
    let reset = endpoint.next();
    let kind = "azure.webpubsub.sys.presence.reset";
    assert_eq!((reset.event(), reset.header("ce-type")), ("presence.reset", kind));
    let (mut socket, connected) = connect(&server, "tieline.v1").unwrap();
    let came = endpoint.next();
    assert_eq!((came.event(), came.header("ce-type")), ("presence", "azure.webpubsub.sys.presence"));
    let user = connected["userId"].as_str().unwrap();
    assert_eq!(came.header("ce-source"), format!("/hubs/chat/users/{user}"));
    assert_eq!(came.header("ce-userid"), user);
    let body = came.json();
    assert_eq!((&body["event"], &body["userId"], body.get("group")), (&json!("join"), &json!(user), None));
    // A second connection, and the end of one, are nothing new.
    let (mut again, _) = connect(&server, "tieline.v1").unwrap();
    socket.close(1000);
    again.send(r#"{"type":"joinGroup","group":"room","ackId":1}"#);
    let joined = endpoint.next().json();
    assert_eq!((&joined["event"], &joined["group"]), (&json!("join"), &json!("room")));
    again.close(1000);
    let mut left: Vec<(String, serde_json::Value)> =
        (0..2).map(|_| endpoint.next()).map(|post| (post.header("ce-id").to_owned(), post.json())).collect();
    left.sort_by_key(|(_, body)| body.get("group").is_some());
    assert!(left.iter().all(|(_, body)| body["event"] == "leave" && body["userId"] == user));
    assert_eq!((left[0].1.get("group"), &left[1].1["group"]), (None, &json!("room")));
    assert!(left[0].0 != left[1].0 && left[0].0 != came.header("ce-id"));
}
