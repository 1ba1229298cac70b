//! What is written reads back, no part of it does, and no bytes panic.

use proptest::prelude::*;

use super::*;

fn sample(json: &str) -> Message<'_> {
    Message {
        hub: "hub",
        way: Way::Group("room"),
        from_user: Some("a/b ?#%ü"),
        id: MessageId::new(1_700_000_000_000, 42),
        time_ms: 1_700_000_000_000,
        data_type: DataType::Json,
        json,
        everyone: false,
        groups: vec!["room", ""],
        users: vec!["a", "b"],
        newest: vec![Incarnation(5), Incarnation(0)],
        connections: vec![ConnectionId::new(Incarnation(1), 2, 3, 4, 5)],
        except: vec![],
        only_users: vec!["u"],
        filter: Some("userId eq 'x'"),
        receipt: 7,
        position: Some(Position { epoch: 8, offset: 9 }),
        handed_on: true,
    }
}

fn round_trip(envelope: &Envelope<'_>) {
    let header = Header { origin: Incarnation(0x0123_4567_89ab_cdef), to_all: true, number: 99 };
    let mut bytes = Vec::new();
    header.write(&[], &mut bytes);
    assert_eq!(bytes.len(), HEADER);
    envelope.write(&mut bytes);
    let (read, after, rest) = Header::read(&bytes, Incarnation(1)).unwrap();
    assert_eq!((read, after), (header, None));
    assert_eq!(&Envelope::read(rest).unwrap(), envelope);
    for end in 0..rest.len() {
        assert!(Envelope::read(&rest[..end]).is_err(), "{end} bytes of {} were read", rest.len());
    }
}

#[test]
fn what_is_written_reads_back_and_no_part_of_it() {
    let user = || Held::User(UserId::new("u").unwrap());
    let hub = || HubName::new("hub").unwrap();
    round_trip(&Envelope::Message(sample("{\"a\":1}")));
    round_trip(&Envelope::Receipt(1, 2, 3));
    let group = Held::Group(GroupName::new("g").unwrap());
    let beat = Beat {
        name: NodeName::new("n").unwrap(),
        client_url: "ws://127.0.0.1:1".into(),
        last_to_all: 1,
        version: 2,
        digest: u64::MAX,
        connections: 3,
        reaches: vec![Incarnation(u64::MAX)],
        wants_answer: true,
        store: Some("00ff".into()),
        peer_url: "mesh://127.0.0.1:2".into(),
        weight: 4,
        capacity: 5,
        program: "0.1.0".into(),
        placement: "ring:md5".into(),
        directory: "redis".into(),
        draining: true,
    };
    for rare in [
        Rare::Changes(4, vec![Change { hub: hub(), what: user(), held: true, claim: 5 }]),
        Rare::Roster(4, 1, vec![(hub(), group, 0), (hub(), user(), 5)]),
        Rare::Beat(beat),
        Rare::Ask(1, hub(), "{}".into()),
        Rare::Answer(1, None),
        Rare::Read(1),
        Rare::Tail(9),
        Rare::RosterWanted,
        Rare::Goodbye,
    ] {
        round_trip(&rare.into());
    }
}

#[test]
fn a_beat_of_an_earlier_or_a_later_program_is_read_as_far_as_it_is_known() {
    let earlier =
        r#"{"Beat":{"name":"n","client_url":"","last_to_all":1,"version":2,"digest":3,"connections":4"#;
    let bare = [&[Kind::Json as u8], earlier.as_bytes(), b"}}"].concat();
    let later = [&[Kind::Json as u8], earlier.as_bytes(), br#","later":{"a":[1]}}}"#].concat();
    let Ok(Envelope::Rare(Rare::Beat(beat))) = Envelope::read(&bare) else { panic!("it was not read") };
    assert_eq!((beat.weight, beat.draining, &*beat.peer_url, &*beat.program), (1, false, "", ""));
    assert_eq!(Envelope::read(&later), Ok(Rare::Beat(beat).into()));
}

#[test]
fn each_receiver_reads_what_it_has_to_wait_for() {
    let header = Header { origin: Incarnation(1), to_all: true, number: 2 };
    let after: Vec<After> = (0..300).map(|n| (Incarnation(n), n * n)).collect();
    let mut bytes = Vec::new();
    header.write(&after, &mut bytes);
    let end = bytes.len();
    bytes.push(7);
    assert_eq!(Header::read(&bytes, Incarnation(299)), Ok((header, Some(299 * 299), &[7][..])));
    assert_eq!(Header::read(&bytes, Incarnation(300)), Ok((header, None, &[7][..])));
    assert!((0..end).all(|end| Header::read(&bytes[..end], Incarnation(1)).is_err()));
}

#[test]
fn what_a_log_keeps_reads_back_and_no_part_of_it() {
    for position in [None, Some(Position { epoch: 1, offset: 2 })] {
        let message = Message { position, ..sample("1") };
        let bytes = message.to_log();
        assert_eq!(Message::of_log(&bytes), Ok(message));
        assert!((0..bytes.len()).all(|end| Message::of_log(&bytes[..end]).is_err()));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Message::of_log(&longer), Err(EnvelopeError::Malformed));
    }
    assert_eq!(Message::of_log(&[9]), Err(EnvelopeError::Version(9)));
}

#[test]
fn another_version_is_refused_whole() {
    let mut bytes = vec![VERSION + 1];
    bytes.extend_from_slice(&[0; HEADER]);
    assert_eq!(Header::read(&bytes, Incarnation(1)), Err(EnvelopeError::Version(VERSION + 1)));
    assert_eq!(Header::read(&[], Incarnation(1)), Err(EnvelopeError::Malformed));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::read(&bytes, Incarnation(1)).map(|(_, _, rest)| Envelope::read(rest));
    }

    #[test]
    fn no_changed_message_panics(at in 0usize..200, byte in any::<u8>()) {
        let mut bytes = Vec::new();
        Envelope::Message(sample("[1,2,3]")).write(&mut bytes);
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Envelope::read(&bytes);
    }
}
