//! Talks to the floor over sockets of the standard library.

use super::*;
use crate::stamp::Stamp;
use std::time::Duration;
use tieline_websocket::{ClientRequest, encode_masked};

/// A floor on a thread of its own, which lasts as long as the test process.
fn start(frame_bytes: usize, mode: Mode) -> SocketAddr {
    let floor = Floor::bind("127.0.0.1:0".parse().unwrap(), frame_bytes, mode).unwrap();
    let address = floor.address().unwrap();
    std::thread::spawn(move || floor.serve());
    address
}

/// An upgraded connection.
fn connect(address: SocketAddr, target: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = ClientRequest::with_key("floor", target, [1; 16]);
    stream.write_all(&request.to_bytes().unwrap()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(request.parse_response(&answer).unwrap().is_some());
    stream
}

/// Client frames to `target`, one for each number.
fn messages(target: u32, numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let mut payload = format!("{target:08x}").into_bytes();
        payload.extend_from_slice(&Stamp { number, due_ns: 3 }.encode());
        encode_masked(&mut bytes, Opcode::Binary, &payload, [0; 4]);
    }
    bytes
}

/// Reads `count` frames of exactly `size` bytes and gives their numbers.
fn numbers(stream: &mut std::net::TcpStream, size: usize, count: usize) -> Vec<u64> {
    let mut bytes = vec![0; size * count];
    stream.read_exact(&mut bytes).unwrap();
    let frames = bytes.chunks(size);
    frames
        .map(|bytes| {
            let head = frame::skim(bytes).unwrap().unwrap();
            assert_eq!((head.opcode, head.total()), (Opcode::Text, size));
            Stamp::find(bytes, &mut 0).unwrap().number
        })
        .collect()
}

#[test]
fn a_group_gets_every_frame_in_the_size_asked_for_and_the_sender_none() {
    for mode in [Mode::Direct, Mode::Gather] {
        let address = start(200, mode);
        let mut members: Vec<_> =
            (0..3).map(|user| connect(address, &format!("/?user={user}&groups=5"))).collect();
        let mut stranger = connect(address, "/?user=3&groups=6");
        members[1].write_all(&messages(5, 0..4)).unwrap();
        assert_eq!(numbers(&mut members[0], 200, 4), [0, 1, 2, 3]);
        assert_eq!(numbers(&mut members[2], 200, 4), [0, 1, 2, 3]);
        // Neither the sender nor the stranger got any of those: the next that they get is this one.
        members[0].write_all(&messages(5, 9..10)).unwrap();
        assert_eq!(numbers(&mut members[1], 200, 1), [9]);
        members[0].write_all(&messages(6, 10..11)).unwrap();
        assert_eq!(numbers(&mut stranger, 200, 1), [10]);
    }
}

#[test]
fn messages_for_several_groups_are_gathered_in_their_order() {
    let address = start(130, Mode::Gather);
    let mut both = connect(address, "/?user=0&groups=1,2");
    let mut one = connect(address, "/?user=1&groups=1");
    let mut sender = connect(address, "/?user=2&groups=");
    let mut bytes = messages(1, 0..1);
    bytes.extend(messages(2, 1..2));
    bytes.extend(messages(1, 2..4));
    sender.write_all(&bytes).unwrap();
    assert_eq!(numbers(&mut both, 130, 4), [0, 1, 2, 3]);
    assert_eq!(numbers(&mut one, 130, 3), [0, 2, 3]);
}

#[test]
fn users_are_reached_by_their_number_and_large_frames_have_their_size() {
    let address = start(70_000, Mode::Direct);
    let mut users: Vec<_> = (0..3).map(|user| connect(address, &format!("/?user={user}&groups="))).collect();
    users[0].write_all(&messages(2, 7..9)).unwrap();
    assert_eq!(numbers(&mut users[2], 70_000, 2), [7, 8]);
}

#[test]
fn a_frame_in_pieces_is_put_together() {
    let address = start(100, Mode::Gather);
    let mut user = connect(address, "/?user=0&groups=");
    let bytes = messages(0, 1..2);
    for piece in bytes.chunks(7) {
        user.write_all(piece).unwrap();
    }
    assert_eq!(numbers(&mut user, 100, 1), [1]);
}

#[test]
fn a_close_is_answered_and_the_place_is_free_again() {
    let address = start(100, Mode::Direct);
    let mut user = connect(address, "/?user=0&groups=");
    let mut bytes = Vec::new();
    encode_masked(&mut bytes, Opcode::Close, &1000u16.to_be_bytes(), [0; 4]);
    user.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    user.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [0x88, 2, 3, 0xe8]);
    let mut again = connect(address, "/?user=0&groups=");
    again.write_all(&messages(0, 1..2)).unwrap();
    assert_eq!(numbers(&mut again, 100, 1), [1]);
}

#[test]
fn what_is_no_upgrade_or_no_role_is_cut_off() {
    let address = start(100, Mode::Direct);
    for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\0\0\0\r\n\r\n"] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // The floor closes with the request unread or read; both are an end without an answer.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    assert_eq!(roles("/?user=x&groups="), None);
    assert_eq!(roles("/?user=9999999&groups="), None);
    assert_eq!(roles("/?user=4&groups=1,2"), Some((4, vec![1, 2])));
}

#[test]
fn sizes_that_no_frame_has_are_refused() {
    let any = "127.0.0.1:0".parse().unwrap();
    assert!(Floor::bind(any, 20, Mode::Direct).is_err());
    assert!(Floor::bind(any, 1 << 30, Mode::Direct).is_err());
}
