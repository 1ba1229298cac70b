//! What one frame costs: reading a request, writing a message, evaluating a filter, in nanoseconds of one
//! core.
//!
//! `cargo bench -p tieline-proto` prints the best and the median of 601 rounds; on a busy machine the best is
//! the one to believe. Not a test: run as one, it goes through each once and prints nothing.

use std::{hint::black_box, time::Instant};

use tieline_proto::{
    ConnectionId, Data, DataType, Dialect, Filter, MessageId,
    filter::Subject,
    payload::Payload,
    reply::{self, From, Message, Wire},
    request,
};

/// Rounds per measurement; the median is told.
const ROUNDS: usize = 601;
/// Calls per round.
const CALLS: u32 = 1_000;

/// Measures one call.
fn measure(name: &str, measured: bool, mut call: impl FnMut()) {
    if !measured {
        return call();
    }
    let mut nanos: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..CALLS {
                call();
            }
            begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    println!("{name:<40} {:>8.1} ns, median {:>8.1} ns", nanos[0], nanos[ROUNDS / 2]);
}

/// A connection as filters see it.
struct Alice;

impl Subject for Alice {
    fn user_id(&self) -> Option<&str> {
        Some("alice")
    }

    fn connection_id(&self) -> ConnectionId {
        ConnectionId::from_bytes([1; 20])
    }

    fn in_group(&self, group: &str) -> bool {
        group == "room"
    }

    fn group_count(&self) -> usize {
        1
    }
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let frame = |data_type: &str, data: &str| {
        format!(
            r#"{{"type":"sendToGroup","group":"room-17","noEcho":true,"dataType":"{data_type}","data":{data},"ackId":12345}}"#
        )
    };
    let small = frame("text", &format!("\"{}\"", "x".repeat(32)));
    assert_eq!(small.len(), 128);
    let large = frame("json", &format!("{{\"a\":\"{}\"}}", "x".repeat(2048)));
    let binary = frame("binary", &format!("\"{}\"", "QUJD".repeat(512)));
    for (name, frame) in [
        ("read sendToGroup, 128 bytes", &small),
        ("read sendToGroup, 2 KiB json", &large),
        ("read sendToGroup, 2 KiB base64", &binary),
    ] {
        measure(name, measured, || {
            black_box(request::parse(black_box(frame), Dialect::Azure)).expect("the frame is good");
        });
    }
    let join = r#"{"type":"joinGroup","group":"room-17","ackId":12345}"#;
    measure("read joinGroup", measured, || {
        black_box(request::parse(black_box(join), Dialect::Tieline)).expect("the frame is good");
    });
    measure("read a bad frame", measured, || {
        black_box(request::parse(black_box(r#"{"type":"joinGroup","ackId":1}"#), Dialect::Azure))
            .expect_err("no group");
    });

    let payload = Payload::from_text(&"x".repeat(32));
    let data: Data<'_> = payload.as_data();
    assert_eq!(data.data_type(), DataType::Text);
    let message = Message {
        from: From::Group { name: "room-17" },
        from_user_id: Some("alice"),
        id: MessageId::new(1_769_860_800_000, 7),
        time_ms: 1_769_860_800_000,
        data,
        position: None,
        stream: None,
    };
    let mut out = Vec::with_capacity(512);
    for wire in [Wire::Azure, Wire::Tieline, Wire::Plain] {
        measure(&format!("write message, {wire:?}"), measured, || {
            out.clear();
            reply::message(black_box(&mut out), wire, black_box(&message));
        });
    }
    measure("write ack", measured, || {
        out.clear();
        reply::ack(black_box(&mut out), black_box(12345));
    });

    let filter = Filter::parse("userId in ('bob','alice') and 'room' in groups").expect("the filter is good");
    measure("evaluate a filter", measured, || {
        black_box(black_box(&filter).matches(black_box(&Alice)));
    });
}
