//! What no client should send once it is connected: frames that are none, and JSON that means nothing. Each gets its error or its
//! close code, is counted, and the node serves on.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::thread;

use tieline_websocket::{ClientRequest, DeflateOffer, Deflater, Opcode, encode_masked};

use crate::member::eventually;
use crate::server::Server;
use crate::support::metrics::{await_sample, metrics, sample};
use crate::support::socket::{Frame, Socket};

fn open(address: SocketAddr, request: ClientRequest) -> Socket {
    let mut client = Socket::open(address, request.protocol("tieline.v1")).unwrap();
    assert_eq!(client.json()["event"], "connected");
    client
}

fn request() -> ClientRequest {
    ClientRequest::new("localhost", "/client/hubs/h?user=u").unwrap()
}

/// A text frame, marked as compressed or not.
fn text(payload: &[u8], is_compressed: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_masked(&mut frame, Opcode::Text, payload, [7, 1, 8, 2]);
    frame[0] |= if is_compressed { 0x40 } else { 0 };
    frame
}

#[test]
fn what_ends_in_the_middle_is_let_go() {
    let server = Server::start("");
    let whole = [text(br#"{"type":"ping"}"#, false), vec![0x89, 0x84, 0, 0, 0, 0, 1, 2, 3, 4]].concat();
    let mut clients = 0;
    for length in 0..whole.len() {
        for waits in [false, true] {
            let mut client = open(server.address, request());
            client.stream.write_all(&whole[..length]).unwrap();
            if waits {
                // It goes on to listen, but nothing will ever complete the frame.
                client.stream.shutdown(Shutdown::Write).unwrap();
                while client.next() != Frame::End {}
            }
            clients += 1;
        }
    }
    eventually(server.address, "/metrics", |body| {
        body.contains(&format!("tieline_connections_closed_total {clients}\n"))
    });
    open(server.address, request());
}

#[test]
fn compressed_frames_are_inflated_up_to_the_limit_and_no_further() {
    let server = Server::start("[deflate]\nenabled = true\n[limits]\nmax_message = \"64KiB\"\n");
    let mut bomb = Vec::new();
    Deflater::new(15).compress(&vec![b'0'; 4 << 20], &mut bomb);
    assert!(bomb.len() < 64 << 10, "{} bytes become 4 MiB", bomb.len());
    let mut not_text = Vec::new();
    Deflater::new(15).compress(b"\xff\xfe", &mut not_text);
    for (what, payload, code) in [
        ("a bomb", &bomb[..], 1009),
        ("no deflate", b"\xff\xff\xff\xff\xff", 1007),
        ("no text", &not_text, 1007),
    ] {
        let mut client = open(server.address, request().deflate(DeflateOffer::default()));
        client.stream.write_all(&text(payload, true)).unwrap();
        match client.next() {
            Frame::Close(found, _) => assert_eq!(found, code, "{what}"),
            other => panic!("{other:?} in place of a close for {what}"),
        }
        assert_eq!(client.next(), Frame::End);
    }
    let mut proper = Vec::new();
    Deflater::new(15).compress(br#"{"type":"ping"}"#, &mut proper);
    let mut client = open(server.address, request().deflate(DeflateOffer::default()));
    client.stream.write_all(&text(&proper, true)).unwrap();
    assert_eq!(client.json()["type"], "pong");
    await_sample(server.address, "connections_ended_total{reason=\"protocol\"}", 3.0);
}

#[test]
fn bad_requests_are_answered_by_name_and_field_counted_and_many_of_them_close() {
    let server = Server::start("[limits]\nmax_message = \"4MiB\"\nmax_frame = \"4MiB\"\n");
    let mut client = open(server.address, request());
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let names = "g".repeat(1 << 20);
    let bad: Vec<(String, &str, Option<&str>)> = vec![
        ("nonsense".into(), "InvalidRequest", None),
        ("".into(), "InvalidRequest", None),
        ("{\"type\":\"ping\"".into(), "InvalidRequest", None),
        ("{\"type\":\"ping\"}{}".into(), "InvalidRequest", None),
        ("7".into(), "InvalidRequest", None),
        (nested.clone(), "InvalidRequest", None),
        (format!(r#"{{"type":{nested}}}"#), "InvalidRequest", Some("type")),
        ("{}".into(), "InvalidRequest", Some("type")),
        (r#"{"type":7}"#.into(), "InvalidRequest", Some("type")),
        (r#"{"type":"fly"}"#.into(), "UnknownType", Some("type")),
        (r#"{"type":"joinGroup"}"#.into(), "InvalidRequest", Some("group")),
        (r#"{"type":"joinGroup","group":["g"]}"#.into(), "InvalidRequest", Some("group")),
        (r#"{"type":"joinGroup","group":"g","group":"h"}"#.into(), "InvalidRequest", Some("group")),
        (format!(r#"{{"type":"joinGroup","group":"{names}"}}"#), "InvalidGroup", Some("group")),
        (r#"{"type":"sendToUser","data":1}"#.into(), "InvalidRequest", Some("user")),
        (r#"{"type":"sendToUser","user":"","data":1}"#.into(), "InvalidUser", Some("user")),
        (r#"{"type":"sendToAll"}"#.into(), "InvalidRequest", Some("data")),
        (r#"{"type":"sendToAll","dataType":"text","data":1}"#.into(), "InvalidData", Some("data")),
        (r#"{"type":"sendToAll","dataType":"xml","data":1}"#.into(), "InvalidRequest", Some("dataType")),
        (format!(r#"{{"type":"sendToAll","data":{nested}}}"#), "InvalidData", Some("data")),
        (
            r#"{"type":"sendToAll","data":1,"ackId":18446744073709551616}"#.into(),
            "InvalidRequest",
            Some("ackId"),
        ),
        (r#"{"type":"sendToAll","data":1,"ackId":-1}"#.into(), "InvalidRequest", Some("ackId")),
        (r#"{"type":"sendToAll","data":1,"ackId":1e3}"#.into(), "InvalidRequest", Some("ackId")),
    ];
    for (sent, name, field) in &bad {
        client.send(sent);
        let answer = client.json();
        let shown: String = sent.chars().take(60).collect();
        assert_eq!(
            (answer["type"].as_str(), answer["error"]["name"].as_str()),
            (Some("error"), Some(*name)),
            "{shown}: {answer}"
        );
        assert_eq!(answer["field"].as_str(), *field, "{shown}: {answer}");
        assert!(answer.to_string().len() < 1000, "an error does not repeat what was sent: {shown}");
        // A good one in between: only those in a row close.
        client.send(r#"{"type":"ping"}"#);
        assert_eq!(client.json()["type"], "pong");
    }
    for count in 1..=20 {
        client.send("nonsense");
        assert_eq!(client.json()["error"]["name"], "InvalidRequest", "{count}");
    }
    assert_eq!(client.json()["event"], "disconnected");
    assert!(matches!(client.next(), Frame::Close(4400, _)));

    let expected = |name: &str| bad.iter().filter(|(_, found, _)| *found == name).count() as u64;
    // Sessions publish what they counted once a second.
    let invalid = expected("InvalidRequest") + 20;
    eventually(server.address, "/metrics", |body| {
        body.contains(&format!("tieline_errors_total{{code=\"InvalidRequest\"}} {invalid}\n"))
    });
    let text = metrics(server.address);
    for name in ["UnknownType", "InvalidGroup", "InvalidUser", "InvalidData"] {
        let counted = sample(&text, &format!("errors_total{{code=\"{name}\"}}"));
        assert_eq!(counted, expected(name) as f64, "{name}");
    }
    open(server.address, request());
}

#[test]
fn many_hostile_clients_at_once_take_nothing_from_the_others() {
    let server = Server::start("[limits]\nmessage_rate = 0\n");
    let address = server.address;
    let mut good = open(address, request());
    let hostile = thread::spawn(move || {
        for round in 0..200u32 {
            let mut client = open(address, request());
            // Bytes of a simple generator: most of them are no frames.
            let mut state = round + 1;
            let bytes: Vec<u8> = (0..512)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            // It may be closed before all of it was sent.
            let _ = client.stream.write_all(&bytes);
        }
    });
    let mut answered = 0;
    while !hostile.is_finished() || answered == 0 {
        good.send(r#"{"type":"ping"}"#);
        assert_eq!(good.json()["type"], "pong");
        answered += 1;
    }
    hostile.join().unwrap();
    eventually(address, "/metrics", |body| body.contains("tieline_connections_closed_total 200\n"));
}
