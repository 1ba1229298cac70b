//! WebSockets through a gateway: what goes over them, and how they end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tieline_websocket::ClientRequest;

use super::failing::eventually;
use super::fake::{AGREED, FakeNode, read_status, upgrade};
use super::front::Front;
use crate::server::Server;
use crate::support::http::connect;
use crate::support::socket::{Frame, Socket};

/// An open WebSocket through a gateway, as bytes.
fn open(front: &Front, target: &str) -> TcpStream {
    let mut stream = connect(front.address);
    stream.write_all(upgrade(target, "").as_bytes()).unwrap();
    assert_eq!(read_status(&mut stream), (101, Vec::new()));
    stream
}

#[test]
fn messages_of_a_mebibyte_go_both_ways() {
    let node = Server::echo(true, 2 << 20);
    let front = Front::start(&[], &[("a", node.address, true)]);
    let request = ClientRequest::new("localhost", "/any/path").unwrap();
    let mut socket = Socket::open(front.address, request).unwrap();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let text: String = (0..size).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        socket.send(&text);
        assert!(socket.next() == Frame::Text(text), "{size} bytes came back otherwise");
    }
    assert_eq!(front.metric("connections"), 1);
    socket.close(1000);
    assert!(matches!(socket.next(), Frame::Close(1000, _)));
    assert_eq!(socket.next(), Frame::End);
}

#[test]
fn what_comes_in_one_packet_with_the_handshake_is_kept_on_both_sides() {
    // The node's first words come with its answer, as a shard's do.
    let node = FakeNode::start(|mut stream, mut rest| {
        stream.write_all(&[AGREED, b"node's early words,"].concat()).unwrap();
        while rest.len() < b"client's early words".len() {
            let mut chunk = [0; 100];
            let read = stream.read(&mut chunk).unwrap();
            rest.extend_from_slice(&chunk[..read]);
        }
        stream.write_all(&rest).unwrap();
    });
    let front = Front::start(&[], &[("a", node.address, true)]);
    let mut stream = connect(front.address);
    stream.write_all(format!("{}client's early words", upgrade("/x", "")).as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [AGREED, b"node's early words,client's early words"].concat());
    // And so it does when the request itself comes in two parts, which another way through the edge reads.
    let mut stream = connect(front.address);
    let request = upgrade("/x", "");
    let (first, second) = request.split_at(40);
    stream.write_all(first.as_bytes()).unwrap();
    // The kernel gives a silent socket to the gateway after a second; then the rest is awaited there.
    let deadline = Instant::now() + Duration::from_secs(20);
    while front.metric("accepted_total") < 2 {
        assert!(Instant::now() < deadline, "it is never accepted");
    }
    stream.write_all(format!("{second}client's early words").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [AGREED, b"node's early words,client's early words"].concat());
}

#[test]
fn a_client_that_has_finished_hears_the_node_to_its_end() {
    let node = FakeNode::start(|mut stream, mut rest| {
        stream.write_all(AGREED).unwrap();
        stream.read_to_end(&mut rest).unwrap();
        stream.write_all(&[b"you said ", &rest[..]].concat()).unwrap();
    });
    let front = Front::start(&[], &[("a", node.address, true)]);
    let mut stream = open(&front, "/x");
    stream.write_all(b"goodbye").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"you said goodbye");
}

#[test]
fn silence_ends_a_connection() {
    let node = FakeNode::echo();
    let front = Front::start(&["--idle", "1s"], &[("a", node.address, true)]);
    let mut stream = open(&front, "/x");
    let began = Instant::now();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    assert!(began.elapsed() >= Duration::from_millis(900));
    eventually("it is counted", || front.metric("silent_total") == 1);
}

#[test]
fn stopping_takes_nobody_and_closes_the_rest_after_its_grace() {
    let node = FakeNode::echo();
    let mut front = Front::start(&["--grace", "2s"], &[("a", node.address, true)]);
    let mut stays = open(&front, "/x");
    let began = Instant::now();
    let ending = front.begin_stop();
    // It stops listening, and serves those who are there.
    let deadline = began + Duration::from_secs(1);
    while TcpStream::connect(front.address).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
    }
    stays.write_all(b"still here").unwrap();
    let mut said = [0; 10];
    stays.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"still here");
    assert_eq!(stays.read(&mut [0; 1]).unwrap(), 0);
    assert!(began.elapsed() >= Duration::from_secs(2));
    ending.join().unwrap().unwrap();
}

#[test]
fn stopping_waits_no_longer_than_for_the_last_connection() {
    let node = FakeNode::echo();
    let mut front = Front::start(&["--grace", "1m"], &[("a", node.address, true)]);
    let stream = open(&front, "/x");
    let ending = front.begin_stop();
    drop(stream);
    let began = Instant::now();
    ending.join().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn there_are_no_more_than_so_many_connections() {
    let node = FakeNode::echo();
    let front = Front::start(&["--connections", "2"], &[("a", node.address, true)]);
    let _open = [open(&front, "/x"), open(&front, "/x")];
    let mut stream = connect(front.address);
    stream.write_all(upgrade("/x", "").as_bytes()).unwrap();
    assert_eq!(read_status(&mut stream).0, 429);
}
