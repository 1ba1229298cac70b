//! Events from clients: answers, failures, their order.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::support::metrics::await_sample;

fn event(name: &str, data: &str, ack_id: u64) -> String {
    json!({"type": "event", "event": name, "dataType": "text", "data": data, "ackId": ack_id}).to_string()
}

fn acked(ack_id: u64) -> Value {
    json!({"type": "ack", "ackId": ack_id, "success": true})
}

#[test]
fn an_event_goes_out_as_it_came_and_the_answer_comes_back() {
    let endpoint = Endpoint::start(|post| {
        let (media, body) = (post.header("content-type"), post.body.clone());
        Reply::Answer(200, format!("Content-Type: {media}\r\n"), body).state(post.event())
    });
    let server = server(&endpoint, "");
    for protocol in ["tieline.v1", "json.webpubsub.azure.v1", "json.reliable.webpubsub.azure.v1"] {
        let (mut socket, connected) = connect(&server, protocol).unwrap();
        let id = connected["connectionId"].as_str().unwrap();
        let mut state = String::new();
        for (data_type, data, media, body) in [
            ("text", json!("ü\"\n"), "text/plain", "ü\"\n".as_bytes()),
            ("json", json!({"a": [1]}), "application/json", b"{\"a\":[1]}"),
            ("binary", json!("/wA="), "application/octet-stream", b"\xff\0"),
        ] {
            let frame =
                json!({"type": "event", "event": data_type, "dataType": data_type, "data": data, "ackId": 1});
            let frame = if data_type == "text" {
                frame
            } else {
                json!({"type": "event", "event": data_type, "dataType": data_type, "data": data})
            };
            socket.send(&frame.to_string());
            let post = endpoint.next();
            check(&post, &server, id, data_type);
            assert_eq!(post.header("ce-type"), format!("azure.webpubsub.user.{data_type}"));
            assert_eq!((post.header("content-type"), &*post.body), (media, body));
            assert_eq!((post.header("ce-userid"), post.header("ce-subprotocol")), ("alice", protocol));
            assert_eq!(post.header("ce-connectionstate"), state);
            state = data_type.to_owned();
            let message = socket.json();
            assert_eq!((&message["type"], &message["from"]), (&json!("message"), &json!("server")));
            assert_eq!((&message["dataType"], &message["data"]), (&json!(data_type), &data));
            if data_type == "text" {
                assert_eq!(socket.json(), acked(1));
            }
        }
        let invoke = json!({"type": "invoke", "invocationId": "7", "target": "event", "event": "e", "dataType": "text", "data": "x"});
        socket.send(&invoke.to_string());
        let answer = json!({"type": "invokeResponse", "invocationId": "7", "success": true, "dataType": "text", "data": "x"});
        assert_eq!(socket.json(), answer);
        endpoint.next();
    }
    await_sample(server.address, "upstream_events_total{event=\"user\",outcome=\"answered\"}", 12.0);
}

#[test]
fn events_of_one_connection_are_asked_one_after_the_other_and_others_do_not_wait() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let endpoint = Endpoint::start(move |post| {
        if post.event() == "slow" {
            wait.lock().unwrap().recv().unwrap();
        }
        Reply::text(200, post.event())
    });
    let server = server(&endpoint, "");
    let (mut alice, _) = connect(&server, "tieline.v1").unwrap();
    let (mut bob, _) = connect(&server, "tieline.v1").unwrap();
    alice.send(&event("slow", "", 1));
    alice.send(&event("quick", "", 2));
    assert_eq!(endpoint.next().event(), "slow");
    bob.send(&event("quick", "", 1));
    assert_eq!((bob.json()["data"].clone(), bob.json()), (json!("quick"), acked(1)));
    assert_eq!(endpoint.next().event(), "quick");
    assert!(endpoint.is_quiet(Duration::from_millis(50)), "alice's second event waits");
    go.send(()).unwrap();
    for (data, ack_id) in [("slow", 1), ("quick", 2)] {
        assert_eq!((alice.json()["data"].clone(), alice.json()), (json!(data), acked(ack_id)));
    }
}

#[test]
fn a_failure_is_told_and_the_connection_goes_on() {
    let endpoint = Endpoint::start(|_| Reply::status(204));
    let server = server(&endpoint, "timeout = \"300ms\"\nuser_events = [\"e\", \"..\"]");
    let (mut socket, _) = connect(&server, "json.webpubsub.azure.v1").unwrap();
    let failed = "The application's event handler cannot be reached, did not answer in time, or failed.";
    let mut ack_id = 0;
    let mut fail = |name: &str, reply: Reply| {
        ack_id += 1;
        endpoint.answer(move |_| reply.clone());
        socket.send(&event(name, "x", ack_id));
        let ack = socket.json();
        assert_eq!((&ack["ackId"], &ack["success"]), (&json!(ack_id), &json!(false)), "{ack}");
        (
            ack["error"]["name"].as_str().unwrap().to_owned(),
            ack["error"]["message"].as_str().unwrap().to_owned(),
        )
    };
    let no = |message: &str| ("RefusedByHandler".to_owned(), message.to_owned());
    assert_eq!(fail("e", Reply::text(400, "no")), no("no"));
    assert_eq!(fail("e", Reply::status(403)), no("The application's event handler refuses this."));
    assert_eq!(fail("..", Reply::status(204)), no("The event's name cannot stand in the handler's address."));
    for reply in [
        Reply::text(500, "a secret"),
        Reply::Bytes(Vec::new()),
        Reply::Close,
        Reply::Answer(200, "Content-Type: text/html\r\n".into(), b"x".to_vec()),
        Reply::Answer(200, "Content-Type: application/json\r\n".into(), b"{".to_vec()),
        Reply::Answer(200, "Content-Type: text/plain\r\n".into(), vec![b'x'; 3 << 20]),
    ] {
        assert_eq!(fail("e", reply), ("HandlerFailed".to_owned(), failed.to_owned()));
    }
    endpoint.answer(|_| Reply::status(204));
    socket.send(&event("e", "x", 99));
    assert_eq!(socket.json(), acked(99));
    // What nobody wants is acknowledged, and sent nowhere.
    endpoint.so_far();
    socket.send(&event("unheard", "x", 100));
    assert_eq!(socket.json(), acked(100));
    assert!(endpoint.so_far().is_empty());
}
