//! A blocking client, and the house that it connects to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tieline_switchboard::{Address, Adoption, Format, Settings, Switchboard};
use tieline_websocket::{
    Decoder, Event, InflateMode, Kind, Limits, Opcode, Role, Shared, encode_close_masked, encode_masked,
};

use crate::chat::{Arrival, Chat, Note};

/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct House {
    pub(crate) switchboard: Switchboard<Chat>,
    listener: TcpListener,
    notes: Receiver<Note>,
}

impl House {
    pub(crate) fn new(shards: usize, settings: Settings) -> Self {
        let (sender, notes) = channel();
        let sender = Mutex::new(sender);
        let switchboard = Switchboard::start(shards, settings, move |shard, handle| {
            Chat::new(shard, &handle, sender.lock().unwrap().clone())
        })
        .unwrap();
        House { switchboard, listener: TcpListener::bind("127.0.0.1:0").unwrap(), notes }
    }

    /// A pair of sockets: the client's and the server's.
    pub(crate) fn pair(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        (client, self.listener.accept().unwrap().0)
    }

    pub(crate) fn adopt(&self, shard: Option<u16>, stream: TcpStream, format: Format, arrival: Arrival) {
        let inflate = (format.deflate > 0).then_some(InflateMode::Shared);
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let adoption = Adoption { stream, head: Vec::new(), leftover: Vec::new(), format, inflate, arrival };
        self.switchboard.handle().adopt(shard, adoption).unwrap();
    }

    /// A client that was welcomed.
    pub(crate) fn connect(&self, id: u32, shard: Option<u16>, format: Format) -> (Client, Address) {
        let (client, server) = self.pair();
        self.adopt(shard, server, format, Arrival::New(id));
        let mut client = Client::new(client);
        client.expect(b"welcome");
        let Note::Opened(of, address) = self.note() else { panic!("it was not opened") };
        assert_eq!(of, id);
        (client, address)
    }

    pub(crate) fn note(&self) -> Note {
        self.notes.recv_timeout(PATIENCE).expect("the application says something")
    }
}

/// What a client got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Message(Kind, Vec<u8>),
    Close(Option<u16>),
    /// The stream ended in order.
    End,
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    shared: Shared,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let limits = Limits { max_frame: 8 << 20, max_message: 8 << 20, max_fragments: 1 };
        let decoder = Decoder::new(Role::Client, Some(InflateMode::Shared));
        Client { stream, decoder, shared: Shared::new(limits), unread: Vec::new() }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn text(&mut self, text: &[u8]) {
        let mut frame = Vec::new();
        encode_masked(&mut frame, Opcode::Text, text, [3, 1, 4, 1]);
        self.write(&frame);
    }

    pub(crate) fn close(&mut self, code: u16) {
        let mut frame = Vec::new();
        encode_close_masked(&mut frame, Some(code), "", [3, 1, 4, 1]);
        self.write(&frame);
    }

    pub(crate) fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next message, close frame or end. Pings are passed over.
    pub(crate) fn next(&mut self) -> Got {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut input = &mut self.unread[..];
            let event = self.decoder.decode(&mut input, &mut self.shared).expect("frames are valid");
            let got = match event {
                Some(Event::Message { kind, payload }) => Some(Got::Message(kind, payload.to_vec())),
                Some(Event::Close(frame)) => Some(Got::Close(frame.map(|frame| frame.code))),
                Some(Event::Ping(_) | Event::Pong(_)) => None,
                None => {
                    match self.stream.read(&mut buffer) {
                        Ok(0) => return Got::End,
                        Ok(read) => self.unread = buffer[..read].to_vec(),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => panic!("nothing came: {error}"),
                    }
                    continue;
                }
            };
            self.unread = input.to_vec();
            if let Some(got) = got {
                return got;
            }
        }
    }

    /// The next text.
    pub(crate) fn hear(&mut self) -> Vec<u8> {
        match self.next() {
            Got::Message(Kind::Text, payload) => payload,
            other => panic!("{other:?} in place of a text"),
        }
    }

    pub(crate) fn expect(&mut self, text: &[u8]) {
        let heard = self.hear();
        assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(text));
    }
}
