//! Whoever is no peer: wrong secret, cluster or version, garbage, ordinary clients; refused, counted, and without effect.

use tieline_websocket::{ClientRequest, Event, Opcode, Role, encode_masked};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::mesh::listener::MAX_STRANGERS;
use crate::mesh::upgrade::{self, PATH, PROTOCOL};
use crate::mesh::wire::Wire;
use crate::mesh::words::{Hello, VERSION, Word};

/// Waits until the count of a refusal is as wished. Counting tells nobody, so this looks again whenever others ran.
pub(super) async fn until_refused(peer: &Peer, refusal: Refusal, count: u64) {
    let counted = async {
        while peer.broker.refusals(refusal) < count {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{refusal:?} was not counted"));
}

/// That the node still takes peers, and has heard of nobody else.
async fn still_serves(node: &Peer) {
    assert_eq!(node.recorder.heard(), [], "a stranger was taken for a peer");
    let good = start("good", settings(&[node.address]));
    node.meets(&good).await;
    good.send(node, b"hello").unwrap();
    assert_eq!(node.recorder.until_envelopes(1).await, [b"hello"]);
}

/// Connects as a WebSocket client would.
async fn upgraded(node: &Peer) -> Wire {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let mut wire = Wire::new(stream, Role::Client);
    upgrade::ask(&mut wire, "test").await.unwrap();
    wire
}

/// The close code that ends the link; words before it are passed over.
async fn close_code(mut wire: Wire) -> Option<u16> {
    timeout(PATIENCE, async {
        loop {
            match wire.inbox.next().unwrap() {
                Some(Event::Close(frame)) => return frame.map(|frame| frame.code),
                Some(_) => {}
                None => {
                    if wire.read().await.is_err() {
                        return None;
                    }
                }
            }
        }
    })
    .await
    .expect("a refused peer is let go")
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        cluster: "tests".into(),
        node: fresh_node("stranger"),
        address: "127.0.0.1:1".into(),
        nonce: [0; 32],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_secrets_clusters_or_none_do_not_meet() {
    let other_secret = Some(Secret::new("another secret").unwrap());
    for (wrong, refusal) in [
        (MeshSettings { secret: other_secret, ..settings(&[]) }, Refusal::Secret),
        (MeshSettings { secret: None, ..settings(&[]) }, Refusal::Secret),
        (MeshSettings { cluster: "others".into(), ..settings(&[]) }, Refusal::Cluster),
    ] {
        let node = start("node", settings(&[]));
        let stranger = start("stranger", MeshSettings { seeds: vec![node.address.to_string()], ..wrong });
        until_refused(&node, refusal, 1).await;
        until_refused(&stranger, refusal, 1).await;
        assert_eq!(stranger.recorder.heard(), []);
        still_serves(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_without_a_secret_meet_on_one_machine() {
    let open = |seeds: &[SocketAddr]| MeshSettings { secret: None, ..settings(seeds) };
    let a = start("a", open(&[]));
    let b = start("b", open(&[a.address]));
    a.meets(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_first_word_has_its_close_code() {
    let node = start("node", settings(&[]));
    let text = |hello| Word::Hello(hello).to_text();
    let cases = [
        (text(Hello { version: 9, ..hello() }), Refusal::Version),
        (text(Hello { version: 0, ..hello() }), Refusal::Version),
        (text(Hello { cluster: "others".into(), ..hello() }), Refusal::Cluster),
        (text(Hello { node: node.node.clone(), ..hello() }), Refusal::Itself),
        (text(Hello { address: "nowhere".into(), ..hello() }), Refusal::NotAPeer),
        (Word::Link { number: 1 }.to_text(), Refusal::NotAPeer),
        (Word::Members { members: Vec::new() }.to_text(), Refusal::NotAPeer),
        (br#"{"type":"sendToGroup","group":"g","data":"x"}"#.to_vec(), Refusal::NotAPeer),
        (b"hello".to_vec(), Refusal::NotAPeer),
        (b"[".repeat(4000), Refusal::NotAPeer),
        (b"x".repeat(5000), Refusal::NotAPeer),
        (Vec::new(), Refusal::NotAPeer),
    ];
    for (word, refusal) in cases {
        let before = node.broker.refusals(refusal);
        let mut wire = upgraded(&node).await;
        wire.say(&word).await.unwrap();
        let shown = String::from_utf8_lossy(&word).chars().take(80).collect::<String>();
        assert_eq!(close_code(wire).await, Some(refusal.code()), "{shown}");
        until_refused(&node, refusal, before + 1).await;
    }
    still_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envelope_before_the_proof_and_a_proof_of_another_link_are_refused() {
    let node = start("node", settings(&[]));
    let mut wire = upgraded(&node).await;
    let mut out = Vec::new();
    encode_masked(&mut out, Opcode::Binary, b"an envelope", [1, 2, 3, 4]);
    wire.stream.write_all(&out).await.unwrap();
    assert_eq!(close_code(wire).await, Some(Refusal::NotAPeer.code()));

    // The acceptor's own proof sent back, and zeros: neither is the dialler's.
    for proof in [[0; 32], [255; 32]] {
        let mut wire = upgraded(&node).await;
        wire.say(&Word::Hello(hello()).to_text()).await.unwrap();
        wire.say(&Word::Proof { proof, lost: 0 }.to_text()).await.unwrap();
        let mut out = Vec::new();
        encode_masked(&mut out, Opcode::Binary, b"an envelope", [1, 2, 3, 4]);
        wire.stream.write_all(&out).await.unwrap();
        assert_eq!(close_code(wire).await, Some(Refusal::Secret.code()));
    }
    still_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_websocket_client_is_told_by_a_close_code() {
    let node = start("node", settings(&[]));
    let stream = TcpStream::connect(node.address).await.unwrap();
    let mut wire = Wire::new(stream, Role::Client);
    let request = ClientRequest::new("test", PATH).unwrap();
    wire.stream.write_all(&request.to_bytes().unwrap()).await.unwrap();
    let len = loop {
        match request.parse_response(wire.inbox.raw()).unwrap() {
            Some((agreement, len)) => {
                assert_eq!(agreement.protocol, None);
                break len;
            }
            None => wire.read().await.unwrap(),
        }
    };
    wire.inbox.skip(len);
    assert_eq!(close_code(wire).await, Some(Refusal::NotAPeer.code()));
    until_refused(&node, Refusal::NotAPeer, 1).await;
    still_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_gets_an_http_status() {
    let node = start("node", settings(&[]));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let good =
        format!("Upgrade: websocket\r\nConnection: upgrade\r\n{key}Sec-WebSocket-Protocol: {PROTOCOL}\r\n");
    let cases = [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7f\x03\x03".to_owned(), "400"),
        ("EHLO example.com\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\n{good}\r\n"), "404"),
        (format!("POST {PATH} HTTP/1.1\r\n{good}\r\n"), "405"),
        (format!("GET {PATH} HTTP/1.0\r\n{good}\r\n"), "505"),
        (format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n"), "426"),
        (format!("GET {PATH} HTTP/1.1\r\nX: {}", "a".repeat(8000)), "431"),
        (format!("GET {PATH} HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(40)), "400"),
    ];
    for (number, (request, status)) in cases.iter().enumerate() {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60} got {answer}");
        until_refused(&node, Refusal::NotAPeer, number as u64 + 1).await;
    }
    still_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_few_and_have_little_time() {
    let quick = MeshSettings { handshake: Duration::from_millis(300), ..settings(&[]) };
    let node = start("node", quick);
    let mut silent = Vec::new();
    for _ in 0..MAX_STRANGERS + 5 {
        silent.push(TcpStream::connect(node.address).await.unwrap());
    }
    until_refused(&node, Refusal::Crowded, 5).await;
    until_refused(&node, Refusal::Slow, MAX_STRANGERS as u64).await;
    for mut stream in silent {
        let mut rest = Vec::new();
        // A socket that was closed unheard may also be reset.
        drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("strangers are let go"));
    }
    still_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authenticated_peer_that_sends_garbage_loses_its_link_alone() {
    let node = start("node", settings(&[]));
    let good = start("good", settings(&[node.address]));
    node.meets(&good).await;
    let bad = pairs::youngest("bad");
    for garbage in
        [&[0xff; 64][..], &[0x82, 0x05, 1, 2, 3, 4, 5], &[0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]]
    {
        let (mut wire, _) = pairs::played(&node, bad.clone(), "127.0.0.1:1", u64::MAX).await;
        node.recorder.until_reachable(bad.incarnation).await;
        wire.stream.write_all(garbage).await.unwrap();
        while wire.read().await.is_ok() {
            while wire.inbox.next().unwrap().is_some() {}
        }
        node.recorder.until_unreachable(bad.incarnation).await;
    }
    good.send(&node, b"still here").unwrap();
    assert_eq!(node.recorder.until_envelopes(1).await, [b"still here"]);
}
