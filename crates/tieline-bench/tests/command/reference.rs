//! A small server of the tests' own: it speaks just enough for a load, one thread for each connection, and does on
//! purpose what the load tool must notice. It is no measure of anything.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use tieline_websocket::{FrameHeader, Opcode, Upgrade, apply_mask, encode, encode_close, response_head};

/// What the server does wrong. Deliveries are counted from 1 over all connections.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// This delivery is not made.
    Lose(u64),
    /// This delivery is made twice.
    Double(u64),
    /// This delivery is held back until the receiver's next.
    Overtake(u64),
    /// This delivery goes to the sender.
    Misdirect(u64),
    /// From this delivery on nothing more is delivered.
    Stall(u64),
    /// At this delivery the receiver is closed with this code.
    Close(u64, u16),
    /// At this delivery the receiver's socket ends.
    Cut(u64),
    /// From this delivery on the reliable protocol's numbers have a gap.
    Gap(u64),
    /// Every upgrade is answered 401.
    Refuse,
    /// Every join is answered Forbidden.
    Forbid,
    /// The upgrade is answered without a subprotocol.
    NoSubprotocol,
}

/// One connection of the server.
struct Client {
    stream: TcpStream,
    user: String,
    reliable: bool,
    /// The last number given on the reliable protocol.
    sequence: u64,
    /// A delivery held back.
    held: Option<Vec<u8>>,
}

/// What all threads share.
pub(crate) struct Reference {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    fault: Fault,
    clients: Vec<Client>,
    groups: HashMap<String, Vec<usize>>,
    deliveries: u64,
    /// `sequenceAck`s that arrived.
    pub(crate) acknowledgements: u64,
    /// Targets of all upgrade requests.
    pub(crate) targets: Vec<String>,
    /// Pongs that arrived. Each client is pinged once, after its first join.
    pub(crate) pongs: u64,
}

/// Starts a server that lasts as long as the test process.
pub(crate) fn start(fault: Fault) -> Arc<Mutex<Reference>> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = Arc::new(Mutex::new(Reference {
        address: listener.local_addr().unwrap(),
        fault,
        clients: Vec::new(),
        groups: HashMap::new(),
        deliveries: 0,
        acknowledgements: 0,
        targets: Vec::new(),
        pongs: 0,
    }));
    let shared = reference.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let shared = shared.clone();
            std::thread::spawn(move || serve(stream.unwrap(), &shared));
        }
    });
    reference
}

/// Serves one connection until it ends.
fn serve(mut stream: TcpStream, shared: &Mutex<Reference>) -> Option<()> {
    let fault = shared.lock().unwrap().fault;
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        read(&mut stream, &mut bytes)?;
    }
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(&bytes).unwrap();
    let target = request.path.unwrap().to_owned();
    shared.lock().unwrap().targets.push(target.clone());
    if fault == Fault::Refuse {
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 13\r\n\r\nbad signature");
        return None;
    }
    let pairs = request.headers.iter().map(|header| (header.name, header.value));
    let upgrade = Upgrade::from_request("GET", 1, pairs).unwrap();
    let protocol = upgrade.protocols().next().filter(|_| fault != Fault::NoSubprotocol);
    let mut answer = response_head(upgrade.accept_key(), protocol, None).into_bytes();
    let reliable = protocol.is_some_and(|name| name.contains("reliable"));
    // In one write with the head: the first frame comes before the client has treated the upgrade.
    encode(&mut answer, Opcode::Text, br#"{"type":"system","event":"connected","connectionId":"c"}"#);
    let user = target.rsplit_once("user=").map_or(String::new(), |(_, user)| user.to_owned());
    let number = {
        // Under the lock: who reads that it is connected can be sent to, and nothing overtakes that word.
        let mut reference = shared.lock().unwrap();
        stream.write_all(&answer).unwrap();
        let stream = stream.try_clone().unwrap();
        reference.clients.push(Client { stream, user, reliable, sequence: 0, held: None });
        reference.clients.len() - 1
    };
    bytes.clear();
    loop {
        while let Some((header, at)) = FrameHeader::parse(&bytes).unwrap() {
            let end = at + header.len as usize;
            if bytes.len() < end {
                break;
            }
            let mut payload: Vec<u8> = bytes.drain(..end).skip(at).collect();
            apply_mask(&mut payload, header.mask.expect("a client's frame is masked"));
            let mut reference = shared.lock().unwrap();
            match header.opcode {
                Opcode::Text => reference.text(number, &serde_json::from_slice(&payload).unwrap()),
                Opcode::Pong => reference.pongs += u64::from(payload == b"there?"),
                Opcode::Close => {
                    let mut answer = Vec::new();
                    encode_close(&mut answer, Some(1000), "");
                    let _ = stream.write_all(&answer);
                    let _ = stream.shutdown(Shutdown::Both);
                    return None;
                }
                _ => {}
            }
        }
        read(&mut stream, &mut bytes)?;
    }
}

/// Reads what is there; `None` at the end.
fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
    bytes.extend_from_slice(&buffer[..count]);
    Some(())
}

impl Reference {
    /// Treats one text of client `number`.
    fn text(&mut self, number: usize, text: &Value) {
        match text["type"].as_str().unwrap() {
            "joinGroup" if self.fault == Fault::Forbid => {
                let error = json!({"name": "Forbidden", "message": "no role"});
                let ack = json!({"type": "ack", "ackId": text["ackId"], "success": false, "error": error});
                self.send(number, &ack.to_string());
            }
            "joinGroup" => {
                self.groups.entry(text["group"].as_str().unwrap().to_owned()).or_default().push(number);
                let mut ping = Vec::new();
                encode(&mut ping, Opcode::Ping, b"there?");
                self.clients[number].stream.write_all(&ping).unwrap();
                self.send(
                    number,
                    &json!({"type": "ack", "ackId": text["ackId"], "success": true}).to_string(),
                );
            }
            "sendToGroup" => {
                assert_eq!(text["noEcho"], true);
                let members = self.groups.get(text["group"].as_str().unwrap()).cloned().unwrap_or_default();
                members.into_iter().filter(|member| *member != number).for_each(|member| {
                    self.deliver(number, member, &text["data"]);
                });
            }
            "sendToUser" => {
                let receivers =
                    (0..self.clients.len()).filter(|client| text["user"] == self.clients[*client].user);
                receivers.collect::<Vec<_>>().into_iter().for_each(|receiver| {
                    self.deliver(number, receiver, &text["data"]);
                });
            }
            "sequenceAck" => {
                assert!(text["sequenceId"].as_u64().unwrap() <= self.clients[number].sequence);
                self.acknowledgements += 1;
            }
            other => panic!("a {other} that no load sends"),
        }
    }

    /// Delivers, or does what the fault says.
    fn deliver(&mut self, sender: usize, receiver: usize, data: &Value) {
        self.deliveries += 1;
        let this = self.deliveries;
        let client = &mut self.clients[receiver];
        client.sequence += 1 + u64::from(self.fault == Fault::Gap(this));
        let text = match client.reliable {
            true => format!(r#"{{"sequenceId":{},"type":"message","data":{data}}}"#, client.sequence),
            false => format!(r#"{{"type":"message","from":"group","dataType":"json","data":{data}}}"#),
        };
        let mut frame = Vec::new();
        encode(&mut frame, Opcode::Text, text.as_bytes());
        if let Some(held) = client.held.take() {
            frame.extend_from_slice(&held);
        }
        match self.fault {
            Fault::Lose(number) if number == this => return,
            Fault::Stall(number) if number <= this => return,
            Fault::Double(number) if number == this => frame.extend_from_within(..),
            Fault::Overtake(number) if number == this => {
                client.held = Some(frame);
                return;
            }
            Fault::Misdirect(number) if number == this => {
                let _ = self.clients[sender].stream.write_all(&frame);
                return;
            }
            Fault::Close(number, code) if number == this => {
                frame.clear();
                encode_close(&mut frame, Some(code), "go away");
            }
            Fault::Cut(number) if number == this => {
                let _ = client.stream.shutdown(Shutdown::Both);
                return;
            }
            _ => {}
        }
        // A load tool that has found the fault is gone by now.
        let _ = client.stream.write_all(&frame);
    }

    /// Sends a text.
    fn send(&mut self, number: usize, text: &str) {
        let mut frame = Vec::new();
        encode(&mut frame, Opcode::Text, text.as_bytes());
        self.clients[number].stream.write_all(&frame).unwrap();
    }
}
