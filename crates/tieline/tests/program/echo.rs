//! `tieline echo`, spoken to by a public client and by bytes.

use futures_util::{SinkExt, StreamExt};
use tieline_websocket::{ClientRequest, DeflateOffer, Opcode, encode_masked};
use tokio_websockets::{ClientBuilder, Limits, Message};

use crate::server::Server;
use crate::support::socket::{Frame, Socket};

#[test]
fn a_public_client_gets_its_messages_back() {
    let server = Server::echo(false, 4 << 20);
    let uri = format!("ws://{}/any/path?x=y", server.address).parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limits = Limits::default().max_payload_len(Some(8 << 20));
        let (mut client, response) = ClientBuilder::from_uri(uri).limits(limits).connect().await.unwrap();
        assert_eq!(response.status(), 101);
        for length in [0, 1, 125, 126, 65535, 65536, 4 << 20] {
            for message in
                [Message::text("é".repeat(length / 2)), Message::binary(vec![length as u8; length])]
            {
                client.send(message.clone()).await.unwrap();
                let echo = client.next().await.unwrap().unwrap();
                assert_eq!(echo.is_text(), message.is_text());
                assert!(
                    echo.as_payload()[..] == message.as_payload()[..],
                    "{length} bytes changed on their way"
                );
            }
        }
        client.close().await.unwrap();
    });
}

#[test]
fn frames_sent_with_the_handshake_are_not_lost() {
    let server = Server::echo(false, 1 << 20);
    let mut frames = Vec::new();
    for n in 0..100 {
        encode_masked(&mut frames, Opcode::Text, format!("message {n}").as_bytes(), [1, 2, 3, n]);
    }
    // With a part of one more frame.
    let mut last = Vec::new();
    encode_masked(&mut last, Opcode::Text, b"the last one", [9, 9, 9, 9]);
    let (now, later) = last.split_at(5);
    frames.extend_from_slice(now);
    let request = ClientRequest::new("localhost", "/").unwrap();
    let mut client = Socket::open_with(server.address, b"", request, &frames).unwrap();
    for n in 0..100 {
        assert_eq!(client.next(), Frame::Text(format!("message {n}")));
    }
    std::io::Write::write_all(&mut client.stream, later).unwrap();
    assert_eq!(client.next(), Frame::Text("the last one".into()));
    client.close(1000);
    assert_eq!(client.next(), Frame::Close(1000, String::new()));
    assert_eq!(client.next(), Frame::End);
}

#[test]
fn compression_is_agreed_to_when_it_is_switched_on() {
    let text = "all work and no play makes Jack a dull boy. ".repeat(200);
    for (deflate, shrinks) in [(true, true), (false, false)] {
        let server = Server::echo(deflate, 1 << 20);
        let request = ClientRequest::new("localhost", "/").unwrap().deflate(DeflateOffer::default());
        let mut client = Socket::open(server.address, request).unwrap();
        client.send(&text);
        // Peeked at, the frame tells whether it is compressed.
        let mut head = [0; 2];
        while client.stream.peek(&mut head).unwrap() < 2 {}
        assert_eq!(head[0], if shrinks { 0xC1 } else { 0x81 });
        assert_eq!(client.next(), Frame::Text(text.clone()));
    }
}

#[test]
fn messages_above_the_limit_close_the_connection() {
    let server = Server::echo(false, 1000);
    let mut client = Socket::open(server.address, ClientRequest::new("localhost", "/").unwrap()).unwrap();
    client.send(&"x".repeat(1000));
    assert_eq!(client.next(), Frame::Text("x".repeat(1000)));
    client.send(&"x".repeat(1001));
    assert!(matches!(client.next(), Frame::Close(1009, _)));
}

#[test]
fn stopping_says_goodbye() {
    let mut server = Server::echo(false, 1000);
    let address = server.address;
    let mut client = Socket::open(address, ClientRequest::new("localhost", "/").unwrap()).unwrap();
    let reader = std::thread::spawn(move || {
        let frame = client.next();
        client.close(1001);
        (frame, client.next())
    });
    server.stop();
    let (frame, end) = reader.join().unwrap();
    assert!(matches!(frame, Frame::Close(1001, _)), "{frame:?}");
    assert_eq!(end, Frame::End);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}
