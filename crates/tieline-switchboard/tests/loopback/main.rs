//! The whole switchboard over real sockets on loopback: its threads, readiness, mailboxes and stop.
//!
//! Nothing here sleeps: each test waits for frames, for the end of a stream, or for a note of the application.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in what its cases share")]

mod chat;
mod client;

use std::time::{Duration, Instant};

use chat::{Arrival, Command, Note};
use client::{Client, Got, House};
use tieline_switchboard::{Cause, Error, Format, Settings};
use tieline_websocket::{Kind, Opcode, encode_masked};

const PLAIN: Format = Format::plain(0);

fn numbered(deflate: u8) -> Format {
    Format { wire: 0, numbered: true, deflate }
}

fn numbering() -> Settings {
    Settings { numbering: (b"", b":"), ..Settings::default() }
}

#[test]
fn an_echo_of_every_size_comes_back() {
    let house = House::new(1, Settings::default());
    let (mut client, _) = house.connect(1, None, PLAIN);
    for len in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        let mut frame = Vec::new();
        encode_masked(&mut frame, Opcode::Binary, &payload, [9, 8, 7, 6]);
        // Written beside the reading: a megabyte does not fit into the buffers of both directions.
        let mut writer = client.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &frame));
        assert!(client.next() == Got::Message(Kind::Binary, payload), "{len} bytes came back changed");
        writing.join().unwrap().unwrap();
    }
}

#[test]
fn many_messages_in_one_write_are_answered_in_order() {
    let house = House::new(1, Settings::default());
    let (mut client, _) = house.connect(1, None, PLAIN);
    let texts: Vec<_> = (0..5_000).map(|n| format!("message {n}").into_bytes()).collect();
    let mut frames = Vec::new();
    texts.iter().for_each(|text| encode_masked(&mut frames, Opcode::Text, text, [1, 2, 3, 4]));
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &frames));
    texts.iter().for_each(|text| client.expect(text));
    writing.join().unwrap().unwrap();
}

#[test]
fn a_room_of_fifty_hears_everything_in_the_order_of_each_speaker() {
    let house = House::new(2, numbering());
    let formats =
        [PLAIN, Format { deflate: 15, ..PLAIN }, Format { deflate: 9, ..PLAIN }, numbered(0), numbered(15)];
    let mut clients: Vec<_> = (0..50)
        .map(|id| {
            (formats[id as usize % 5], house.connect(id, Some(id as u16 % 2), formats[id as usize % 5]).0)
        })
        .collect();
    for number in 0..100 {
        let text = format!(
            "say from 0: number {number} of a hundred, and some more to be worth compressing ........"
        );
        clients[0].1.text(text.as_bytes());
        let text = text.replace("from 0", "from 1");
        clients[1].1.text(text.as_bytes());
    }
    for (format, client) in &mut clients {
        let (mut heard, mut sequence) = ([0, 0], 0);
        while heard.iter().sum::<i32>() < 200 {
            let text = String::from_utf8(client.hear()).unwrap();
            let text = if format.numbered {
                let (number, text) = text.split_once(':').unwrap();
                sequence += 1;
                assert_eq!(number.parse(), Ok(sequence));
                text
            } else {
                &text
            };
            let speaker = usize::from(text.starts_with("from 1"));
            let number = text.split(' ').nth(3).unwrap();
            assert_eq!(number.parse(), Ok(heard[speaker]), "{text}");
            heard[speaker] += 1;
        }
    }
    assert_eq!(house.switchboard.handle().counters().connections, 50);
}

#[test]
fn close_handshakes_of_both_sides_end_in_order() {
    let house = House::new(1, Settings::default());
    let (mut client, _) = house.connect(1, None, PLAIN);
    client.text(b"last words");
    client.close(4321);
    client.expect(b"last words");
    assert_eq!((client.next(), client.next()), (Got::Close(Some(4321)), Got::End));
    assert_eq!(house.note(), Note::Closed(1, Cause::Peer(4321)));

    let (mut client, _) = house.connect(2, None, PLAIN);
    client.text(b"close me");
    assert_eq!(client.next(), Got::Close(Some(4000)));
    assert_eq!(house.note(), Note::Closed(2, Cause::Application(4000)));
    client.close(4000);
    assert_eq!(client.next(), Got::End);
}

#[test]
fn a_broken_protocol_gets_its_close_frame_and_the_end_although_more_is_on_its_way() {
    let house = House::new(1, Settings::default());
    let (mut client, _) = house.connect(1, None, PLAIN);
    client.text(b"in order");
    // An unmasked frame, and behind it more than a kernel buffer that nobody wants.
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        writer.write_all(&[0x81, 2, b'h', b'i']).and_then(|()| writer.write_all(&vec![0; 1 << 20]))
    });
    client.expect(b"in order");
    assert_eq!((client.next(), client.next()), (Got::Close(Some(1002)), Got::End));
    assert_eq!(house.note(), Note::Closed(1, Cause::Protocol(1002)));
    writing.join().unwrap().expect("no reset while the client still writes");
}

#[test]
fn the_end_of_a_stream_is_noticed_also_when_it_comes_with_data() {
    let house = House::new(1, numbering());
    // All of it is there before the shard looks for the first time.
    for (id, format) in [(1, PLAIN), (2, numbered(0))] {
        let (client, server) = house.pair();
        let mut client = Client::new(client);
        client.text(b"hello");
        client.end();
        house.adopt(None, server, format, Arrival::New(id));
        assert!(matches!(house.note(), Note::Opened(of, _) if of == id));
        assert_eq!(house.note(), if id == 1 { Note::Closed(1, Cause::Cut) } else { Note::Cut(2) });
    }
    // Said, closed and half-closed in one go: the answer still comes.
    let (client, server) = house.pair();
    let mut client = Client::new(client);
    client.text(b"hello");
    client.close(1000);
    client.end();
    house.adopt(None, server, PLAIN, Arrival::New(3));
    client.expect(b"welcome");
    client.expect(b"hello");
    assert_eq!((client.next(), client.next()), (Got::Close(Some(1000)), Got::End));
}

#[test]
fn the_end_of_a_stream_is_noticed_also_when_it_comes_while_reading_stands_still() {
    let house = House::new(1, Settings::default());
    let (mut parked, address) = house.connect(1, None, PLAIN);
    let (mut other, _) = house.connect(2, None, PLAIN);
    parked.text(b"park");
    assert_eq!(house.note(), Note::Parked(1));
    parked.text(b"more");
    parked.end();
    // An answer to another says that the shard was told of the end, and could do nothing with it.
    other.text(b"ping");
    other.expect(b"ping");
    assert!(house.switchboard.handle().post(0, Command::Unpark(address)).is_ok());
    assert_eq!(house.note(), Note::Closed(1, Cause::Cut));
    assert_eq!(house.switchboard.handle().counters().parked, 0, "the application's own wait is not counted");
}

#[test]
fn a_client_that_vanishes_is_noticed() {
    let house = House::new(1, Settings::default());
    let (mut client, _) = house.connect(1, None, PLAIN);
    // Unread bytes make the kernel answer with a reset.
    client.text(b"never read");
    let mut peeked = [0; 1];
    assert_eq!(client.stream.peek(&mut peeked).unwrap(), 1);
    drop(client);
    assert_eq!(house.note(), Note::Closed(1, Cause::Cut));
}

#[test]
fn who_never_reads_is_ended_while_others_go_on_and_memory_stays_bounded() {
    let settings =
        Settings { max_lag: 1 << 20, max_log: 1 << 20, max_copied: 2 << 20, ..Settings::default() };
    let house = House::new(1, settings);
    let (_deaf, _) = house.connect(1, None, PLAIN);
    let (mut reader, _) = house.connect(2, None, PLAIN);
    let (mut speaker, _) = house.connect(3, None, PLAIN);
    let text = [b"say ".to_vec(), vec![b'x'; 8_000]].concat();
    let ended = loop {
        for _ in 0..50 {
            speaker.text(&text);
        }
        for _ in 0..50 {
            assert_eq!(reader.hear().len(), 8_000);
            assert_eq!(speaker.hear().len(), 8_000);
        }
        let counters = house.switchboard.handle().counters();
        assert!(counters.log_bytes <= 1 << 20 && counters.copied_bytes <= 2 << 20, "{counters:?}");
        if counters.ended_lag > 0 {
            break counters;
        }
    };
    assert_eq!((ended.ended_lag, ended.closed), (1, 1));
    assert_eq!(house.note(), Note::Closed(1, Cause::Lag));
    speaker.text(b"say still here");
    reader.expect(b"still here");
}

#[test]
fn a_full_mailbox_holds_up_the_publisher_and_loses_nothing() {
    let settings = Settings { max_mailbox: 4_096, max_lag: 64 << 20, ..Settings::default() };
    let house = House::new(2, settings);
    let mut listeners: Vec<_> =
        (0..2).map(|shard| house.connect(shard, Some(shard as u16), PLAIN).0).collect();
    let mut speakers: Vec<_> =
        (0..2).map(|shard| house.connect(10 + shard, Some(shard as u16), PLAIN).0).collect();
    // The second shard stands still until the first has found its mailbox full and held up its speaker.
    let (reached, reaching) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel();
    house.switchboard.handle().post(1, Command::StandStill(reached, gone)).unwrap();
    reaching.recv().unwrap();
    // Both directions at once: neither shard may wait for the other.
    let speaking: Vec<_> = speakers
        .iter_mut()
        .enumerate()
        .map(|(speaker, client)| {
            let mut client = Client::new(client.stream.try_clone().unwrap());
            std::thread::spawn(move || {
                let mut frames = Vec::new();
                for number in 0..2_000 {
                    let text = format!("say {speaker} {number} {}", "-".repeat(1_000));
                    encode_masked(&mut frames, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
                }
                client.write(&frames);
            })
        })
        .collect();
    let started = Instant::now();
    while house.switchboard.handle().counters().parked == 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "nobody was ever held up");
        std::thread::yield_now();
    }
    drop(go);
    for client in listeners.iter_mut().chain(&mut speakers) {
        let mut heard = [0, 0];
        while heard != [2_000, 2_000] {
            let text = String::from_utf8(client.hear()).unwrap();
            let mut words = text.split(' ');
            let speaker: usize = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next().unwrap().parse(), Ok(heard[speaker]));
            heard[speaker] += 1;
        }
    }
    speaking.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_cut_connection_is_resumed_on_its_shard() {
    let house = House::new(2, numbering());
    let (mut speaker, _) = house.connect(1, Some(0), PLAIN);
    let (mut client, address) = house.connect(2, Some(1), numbered(15));
    speaker.text(b"say one");
    client.expect(b"1:one");
    client.end();
    assert_eq!(house.note(), Note::Cut(2));
    speaker.text(b"say two");
    speaker.expect(b"one");
    speaker.expect(b"two");
    let (client, server) = house.pair();
    house.adopt(Some(address.shard), server, numbered(9), Arrival::Back(address));
    let mut client = Client::new(client);
    client.expect(b"welcome back");
    speaker.text(b"say three");
    for text in ["1:one", "2:two", "3:three"] {
        client.expect(text.as_bytes());
    }
    // Somebody else takes the connection over while it is open: the older socket is closed.
    let (newer, server) = house.pair();
    house.adopt(Some(address.shard), server, numbered(0), Arrival::Back(address));
    assert_eq!(client.next(), Got::End);
    Client::new(newer).expect(b"welcome back");
}

#[test]
fn stopping_closes_everybody_with_the_given_code() {
    let house = House::new(2, Settings::default());
    let clients: Vec<_> = (0..20).map(|id| house.connect(id, None, PLAIN).0).collect();
    let answering: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                assert_eq!(client.next(), Got::Close(Some(1001)));
                client.close(1001);
                assert_eq!(client.next(), Got::End);
            })
        })
        .collect();
    let started = Instant::now();
    house.switchboard.stop(1001, "bye").unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "all answered, so nothing is waited for");
    answering.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let house = House::new(1, Settings::default());
    let (mut mute, _) = house.connect(1, None, PLAIN);
    let started = Instant::now();
    house.switchboard.stop(1001, "bye").unwrap();
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(2_900) && waited < Duration::from_millis(3_900), "{waited:?}");
    assert_eq!((mute.next(), mute.next()), (Got::Close(Some(1001)), Got::End));
}

#[test]
fn a_shard_that_panics_is_reported() {
    let house = House::new(1, Settings::default());
    let (mut client, _) = house.connect(1, None, PLAIN);
    client.text(b"panic");
    assert_eq!(client.next(), Got::End);
    assert!(matches!(house.switchboard.stop(1001, "bye"), Err(Error::Panicked)));
}
