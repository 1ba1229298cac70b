//! Calls as real clients wrote them and answers as real members gave them, byte by byte; and everything that is neither.

use proptest::prelude::*;

use super::*;

/// Bytes from hexadecimal digits.
fn bytes(text: &str) -> Vec<u8> {
    let digit = |text: &str| u8::from_str_radix(text, 16).expect("two digits");
    text.split_whitespace().map(digit).collect()
}

fn call(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// The one message that these bytes are.
fn whole(bytes: &[u8]) -> Message<'_> {
    let (message, len) = read(bytes).expect("it is no garbage").expect("it is whole");
    assert_eq!(len, bytes.len());
    message
}

/// As the member of a cluster of two welcomed a client; the lists behind the first frames are shortened, and end here.
const WELCOME: &str = "
    44 00 00 00 00 c0 01 01 00 00 01 00 00 00 00 00 00 00 00 00 00 b7 42 de cb dc 1e 1e 03 48 82 e9
    3e 44 fe 15 ae 01 0f 01 00 00 00 fc 45 1b ae 2a 79 0c 2e 48 aa e0 1b fb f2 31 ab 00 02 00 00 00
    01 00 00 00 06 00 00 00 00 10 0a 00 00 00 00 00 65 64 00 00 0f 00 00 00 00 00 31 32 37 2e 30 2e
    30 2e 31 06 00 00 00 00 28";

/// As a member refused a call whose partition is none, shortened by its list of lines of code.
const REFUSED: &str = "
    13 00 00 00 00 c0 00 00 00 00 0a 00 00 00 00 00 00 00 00 06 00 00 00 00 10 06 00 00 00 00 10 0a
    00 00 00 00 00 17 00 00 00 28 00 00 00 00 00 6a 61 76 61 2e 6c 61 6e 67 2e 49 6c 6c 65 67 61 6c
    41 72 67 75 6d 65 6e 74 45 78 63 65 70 74 69 6f 6e 26 00 00 00 00 00 50 61 72 74 69 74 69 6f 6e
    20 49 44 20 63 61 6e 6e 6f 74 20 62 65 20 6e 65 67 61 74 69 76 65 21 06 00 00 00 00 10 06 00 00
    00 00 08 06 00 00 00 00 08 06 00 00 00 00 28";

/// As a member gave a subscriber the bytes `hello`.
const EVENT: &str = "
    2f 00 00 00 00 c2 02 02 04 00 03 00 00 00 00 00 00 00 f2 00 00 00 05 16 52 fd a1 01 00 00 00 e2
    4d 7f 80 47 23 ec 65 b5 7a fe 3b dd bf 64 a3 17 00 00 00 00 20 00 00 00 00 ff ff ff f4 00 00 00
    05 68 65 6c 6c 6f";

#[test]
fn calls_are_written_as_other_clients_write_them() {
    let greeter = Greeter {
        id: 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00,
        cluster: "tieline",
        login: None,
        name: "tieline-sub",
    };
    let nobody = "
        28 00 00 00 00 c0 00 01 00 00 01 00 00 00 00 00 00 00 ff ff ff ff 00 88 77 66 55 44 33 22 11 00
        ff ee dd cc bb aa 99 01 0d 00 00 00 00 00 74 69 65 6c 69 6e 65 06 00 00 00 00 04 06 00 00 00 00
        04 09 00 00 00 00 00 52 53 54 0b 00 00 00 00 00 35 2e 35 2e 30 11 00 00 00 00 00 74 69 65 6c 69
        6e 65 2d 73 75 62 06 00 00 00 00 10 0d 00 00 00 00 00 74 69 65 6c 69 6e 65 06 00 00 00 00 28";
    assert_eq!(call(|out| authenticate(out, 1, &greeter)), bytes(nobody));
    let somebody = nobody.replace(
        "06 00 00 00 00 04 06 00 00 00 00\n        04",
        "08 00 00 00 00 00 61 3a 07 00 00 00 00 00 62",
    );
    let greeter = Greeter { login: Some(("a:", "b")), ..greeter };
    assert_eq!(call(|out| authenticate(out, 1, &greeter)), bytes(&somebody));

    let ping_bytes = "16 00 00 00 00 e0 00 0b 00 00 09 00 00 00 00 00 00 00 ff ff ff ff";
    assert_eq!(call(|out| ping(out, 9)), bytes(ping_bytes));
    let listen_bytes = "
        17 00 00 00 00 c0 00 02 04 00 03 00 00 00 00 00 00 00 ff ff ff ff 00 0c 00 00 00 00 20 74 6c 2e
        61 6c 6c";
    assert_eq!(call(|out| listen(out, 3, "tl.all")), bytes(listen_bytes));
    let publish_bytes = "
        16 00 00 00 00 c0 00 01 04 00 02 00 00 00 00 00 00 00 f2 00 00 00 0c 00 00 00 00 00 74 6c 2e 61
        6c 6c 17 00 00 00 00 20 00 00 00 00 ff ff ff f4 00 00 00 05 68 65 6c 6c 6f";
    let published = call(|out| {
        let mut publication = Publication::begin(out, 2, "tl.all", partition("tl.all", 271).unwrap());
        publication.push(b"hel");
        assert_eq!(publication.len(), 3);
        publication.push(b"lo");
        publication.end();
    });
    assert_eq!(published, bytes(publish_bytes));
}

#[test]
fn calls_to_maps_are_written_as_the_official_client_writes_them() {
    let key = "user/hub/ä";
    let former = bytes("00 00 00 00 ff ff ff f5 00 00 00 05 61 2e 31 3d 31");
    assert_eq!(read_text(&former), Some("a.1=1"));
    for (map_call, expected) in [
        (
            MapCall::Get(key),
            "
            1e 00 00 00 00 c0 00 02 01 00 05 00 00 00 00 00 00 00 e0 00 00 00 01 00 00 00 00 00 00 00 07 00
            00 00 00 00 6d 1d 00 00 00 00 20 00 00 00 00 ff ff ff f5 00 00 00 0b 75 73 65 72 2f 68 75 62 2f
            c3 a4",
        ),
        (
            MapCall::PutIfAbsent(key, "a.1=1"),
            "
            26 00 00 00 00 c0 00 0e 01 00 05 00 00 00 00 00 00 00 e0 00 00 00 01 00 00 00 00 00 00 00 00 00
            00 00 00 00 00 00 07 00 00 00 00 00 6d 1d 00 00 00 00 00 00 00 00 00 ff ff ff f5 00 00 00 0b 75
            73 65 72 2f 68 75 62 2f c3 a4 17 00 00 00 00 20 00 00 00 00 ff ff ff f5 00 00 00 05 61 2e 31 3d
            31",
        ),
        (
            MapCall::ReplaceIfSame(key, &former, "a.1=1~"),
            "
            1e 00 00 00 00 c0 00 05 01 00 05 00 00 00 00 00 00 00 e0 00 00 00 01 00 00 00 00 00 00 00 07 00
            00 00 00 00 6d 1d 00 00 00 00 00 00 00 00 00 ff ff ff f5 00 00 00 0b 75 73 65 72 2f 68 75 62 2f
            c3 a4 17 00 00 00 00 00 00 00 00 00 ff ff ff f5 00 00 00 05 61 2e 31 3d 31 18 00 00 00 00 20 00
            00 00 00 ff ff ff f5 00 00 00 06 61 2e 31 3d 31 7e",
        ),
        (
            MapCall::RemoveIfSame(key, &former),
            "
            1e 00 00 00 00 c0 00 08 01 00 05 00 00 00 00 00 00 00 e0 00 00 00 01 00 00 00 00 00 00 00 07 00
            00 00 00 00 6d 1d 00 00 00 00 00 00 00 00 00 ff ff ff f5 00 00 00 0b 75 73 65 72 2f 68 75 62 2f
            c3 a4 17 00 00 00 00 20 00 00 00 00 ff ff ff f5 00 00 00 05 61 2e 31 3d 31",
        ),
        (
            MapCall::Set(key, "a.1=1", 4_000),
            "
            26 00 00 00 00 c0 00 0f 01 00 05 00 00 00 00 00 00 00 e0 00 00 00 01 00 00 00 00 00 00 00 a0 0f
            00 00 00 00 00 00 07 00 00 00 00 00 6d 1d 00 00 00 00 00 00 00 00 00 ff ff ff f5 00 00 00 0b 75
            73 65 72 2f 68 75 62 2f c3 a4 17 00 00 00 00 20 00 00 00 00 ff ff ff f5 00 00 00 05 61 2e 31 3d
            31",
        ),
        (
            MapCall::Delete(key),
            "
            1e 00 00 00 00 c0 00 09 01 00 05 00 00 00 00 00 00 00 e0 00 00 00 01 00 00 00 00 00 00 00 07 00
            00 00 00 00 6d 1d 00 00 00 00 20 00 00 00 00 ff ff ff f5 00 00 00 0b 75 73 65 72 2f 68 75 62 2f
            c3 a4",
        ),
        (
            MapCall::SetTtl(key, 4_000),
            "
            1e 00 00 00 00 c0 00 43 01 00 05 00 00 00 00 00 00 00 e0 00 00 00 a0 0f 00 00 00 00 00 00 07 00
            00 00 00 00 6d 1d 00 00 00 00 20 00 00 00 00 ff ff ff f5 00 00 00 0b 75 73 65 72 2f 68 75 62 2f
            c3 a4",
        ),
        (
            MapCall::RemoveAll("a\\.1"),
            "
            16 00 00 00 00 c0 00 3e 01 00 05 00 00 00 00 00 00 00 ff ff ff ff 07 00 00 00 00 00 6d 27 00 00
            00 00 20 00 00 00 00 ff ff ff fe 01 ff ff ff ec 00 00 00 0c 00 00 00 04 74 68 69 73 00 00 00 04
            61 5c 2e 31",
        ),
    ] {
        let written = call(|out| map_call.write(out, 5, "m", 271).unwrap());
        assert_eq!(written, bytes(expected), "{map_call:?}");
        assert_eq!(
            map_call.write(&mut Vec::new(), 5, "m", 0).is_err(),
            !matches!(map_call, MapCall::RemoveAll(_))
        );
    }
    let listen_bytes = "
        17 00 00 00 00 c0 00 1b 01 00 05 00 00 00 00 00 00 00 ff ff ff ff 00 07 00 00 00 00 20 6d";
    assert_eq!(call(|out| MapCall::Listen.write(out, 5, "m", 271).unwrap()), bytes(listen_bytes));
}

#[test]
fn replies_to_calls_to_maps_are_told_apart() {
    let head = |frame: &str, kind: &str| format!("{frame} {kind} 05 00 00 00 00 00 00 00 00");
    let is = |kind: &str, flag: &str| format!("{} {flag}", head("14 00 00 00 00 e0", kind));
    for kind in ["01 05 01 00", "01 08 01 00", "01 43 01 00"] {
        for (flag, expected) in [("00", false), ("01", true)] {
            assert_eq!(whole(&bytes(&is(kind, flag))).reply(), Ok(Reply::Is(expected)));
        }
        assert_eq!(whole(&bytes(&head("13 00 00 00 00 e0", kind))).reply(), Err(Garbage));
    }
    for kind in ["01 02 01 00", "01 0e 01 00"] {
        let none = format!("{} 06 00 00 00 00 24", head("13 00 00 00 00 c0", kind));
        assert_eq!(whole(&bytes(&none)).reply(), Ok(Reply::Value(None)));
        let some = format!("{} 08 00 00 00 00 20 61 62", head("13 00 00 00 00 c0", kind));
        assert_eq!(whole(&bytes(&some)).reply(), Ok(Reply::Value(Some(b"ab".to_vec()))));
        assert_eq!(whole(&bytes(&head("13 00 00 00 00 e0", kind))).reply(), Err(Garbage));
    }
    for kind in ["01 09 01 00", "01 0f 01 00", "01 3e 01 00", "01 1b 01 00"] {
        assert_eq!(whole(&bytes(&head("13 00 00 00 00 e0", kind))).reply(), Ok(Reply::Done));
    }
    assert_eq!(whole(&bytes(&head("13 00 00 00 00 e0", "01 01 04 00"))).reply(), Err(Garbage));
    let lost = "17 00 00 00 00 e2 02 1b 01 00 05 00 00 00 00 00 00 00 00 07 00 00 00";
    assert_eq!(whole(&bytes(lost)).answer(), Ok(Answer::Lost));
    for text in ["", "00 00 00 00 ff ff ff f4 00 00 00 01 61", "00 00 00 00 ff ff ff f5 00 00 00 01 ff"] {
        assert_eq!(read_text(&bytes(text)), None);
    }
}

#[test]
fn topics_are_where_members_look_for_them() {
    assert_eq!(partition("tl.all", 271), Ok(242));
    assert_eq!(partition("user:1", 271), Ok(164));
    assert_eq!(partition("tl.all", 1), Ok(0));
    assert_eq!([0, -1].map(|count| partition("tl.all", count)), [Err(Garbage), Err(Garbage)]);
}

#[test]
fn answers_are_told_apart() {
    let [welcome, refused, event] = [WELCOME, REFUSED, EVENT].map(bytes);
    let message = whole(&welcome);
    assert_eq!((message.correlation(), message.greeting()), (1, Ok(Greeting::Welcome(271))));
    assert_eq!(message.answer(), Ok(Answer::Done));
    for (status, expected) in [(1, Greeting::WrongLogin), (3, Greeting::NotAllowed(3))] {
        let mut other = welcome.clone();
        other[19] = status;
        assert_eq!(whole(&other).greeting(), Ok(expected));
    }

    let message = whole(&refused);
    assert_eq!((message.correlation(), message.greeting()), (10, Err(Garbage)));
    let Ok(Answer::Refused(refusal)) = message.answer() else { panic!("{message:?}") };
    assert_eq!(refusal.text(), "IllegalArgumentException: Partition ID cannot be negative!");
    assert!(!refusal.is_passing());
    let mut inactive = refused.clone();
    inactive[37] = 19;
    let Ok(Answer::Refused(refusal)) = whole(&inactive).answer() else { panic!("{inactive:?}") };
    assert!(refusal.is_passing());

    let message = whole(&event);
    assert_eq!((message.correlation(), message.answer()), (3, Ok(Answer::Published(Some(b"hello")))));
    // A text has another type; and a length that is not the array's.
    for (at, byte) in [(58, 0xf5), (62, 6)] {
        let mut other = event.clone();
        other[at] = byte;
        assert_eq!(whole(&other).answer(), Ok(Answer::Published(None)));
    }
    let mut unasked = event.clone();
    unasked[6] = 3;
    assert_eq!(whole(&unasked).answer(), Ok(Answer::Other));
}

#[test]
fn strangers_are_told_by_their_first_words() {
    for words in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"-ERR unknown command\r\n",
        // An alert of TLS, and its greeting.
        &[0x15, 3, 1, 0, 2, 2, 80],
        &[0x16, 3, 1, 2, 0, 1],
        // Lengths that are none, and one past the limit.
        &[5, 0, 0, 0, 0, 0xc0],
        &[0xff, 0xff, 0xff, 0xff, 0, 0xc0],
        &[0, 0, 0, 0x7f, 0, 0xc0],
        // A message in fragments.
        &[0x20, 0, 0, 0, 0, 0x80],
        // A message without a kind.
        &[7, 0, 0, 0, 0, 0xe0, 1],
    ] {
        assert_eq!(read(words), Err(Garbage), "{words:?}");
    }
}

proptest! {
    /// Whatever is read is read without harm, and nothing is taken for a message that is not all there.
    #[test]
    fn garbage_is_no_harm(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some((message, len))) = read(&garbage) {
            prop_assert!(len <= garbage.len());
            let _ = (message.answer(), message.greeting(), message.reply());
        }
    }

    /// The same of what is nearly right: real messages with bytes changed, cut anywhere, or with any length in any frame.
    #[test]
    fn spoiled_messages_are_no_harm(
        which in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in prop::option::of((any::<prop::sample::Index>(), any::<i32>())),
    ) {
        let mut spoiled = bytes([WELCOME, REFUSED, EVENT][which]);
        for (at, byte) in changes {
            let at = at.index(spoiled.len());
            spoiled[at] = byte;
        }
        if let Some((at, length)) = length {
            let at = at.index(spoiled.len() - 4);
            spoiled[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        for len in 0..=spoiled.len() {
            if let Ok(Some((message, end))) = read(&spoiled[..len]) {
                prop_assert!(end <= len);
                let _ = (message.answer(), message.greeting(), message.reply());
            }
        }
    }

    /// A message is read when its last byte is there, and not before; what is behind it is left.
    #[test]
    fn messages_are_whole(behind in prop::collection::vec(any::<u8>(), 0..20)) {
        for text in [WELCOME, REFUSED, EVENT] {
            let message = bytes(text);
            for len in 0..message.len() {
                prop_assert_eq!(read(&message[..len]), Ok(None));
            }
            let more = [&message[..], &behind].concat();
            prop_assert_eq!(read(&more).map(|read| read.map(|(_, len)| len)), Ok(Some(message.len())));
        }
    }

    /// A publication holds what was pushed to it, in whatever pieces.
    #[test]
    fn publications_hold_what_was_pushed(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8)) {
        let mut out = b"before".to_vec();
        let mut publication = Publication::begin(&mut out, 5, "topic", 3);
        pieces.iter().for_each(|piece| publication.push(piece));
        publication.end();
        let message = whole(&out[6..]);
        let value = message.frames().nth(1).unwrap().payload;
        prop_assert_eq!(data::read_bytes(value), Some(&pieces.concat()[..]));
    }
}
