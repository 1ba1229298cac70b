//! Properties: whatever the stream and however it is cut, the decoder says what the reference says; what was encoded
//! comes back; and the fuzz targets hold for bytes that proptest makes.

mod reference;
mod targets;

use proptest::prelude::*;
use tieline_websocket::{
    Deflater, FrameHeader, Kind, Opcode, encode, encode_close, encode_close_masked, encode_frame,
    encode_masked,
};

use reference::{Owned, Reference};
use targets::{LIMITS, decode_cut};

/// One message or control frame of a stream.
#[derive(Clone, Debug)]
struct Sent {
    event: Owned,
    compressed: bool,
    /// Where a message is cut into fragments, and whether a ping comes between.
    fragments: Vec<(prop::sample::Index, bool)>,
    mask: [u8; 4],
}

fn payload() -> impl Strategy<Value = Owned> {
    let text = prop_oneof!["\\PC{0,60}", "[a-z äß漢𝄞]{0,300}", "a{100,140}"];
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let small = || prop::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![
        4 => text.prop_map(|text| Owned::Message(Kind::Text, text.into_bytes())),
        2 => bytes.prop_map(|bytes| Owned::Message(Kind::Binary, bytes)),
        1 => (120usize..2900).prop_map(|len| Owned::Message(Kind::Binary, vec![7; len])),
        1 => small().prop_map(Owned::Ping),
        1 => small().prop_map(Owned::Pong),
    ]
}

fn sent(max_cuts: usize) -> impl Strategy<Value = Sent> {
    let fragments = prop::collection::vec(any::<(prop::sample::Index, bool)>(), 0..=max_cuts);
    (payload(), any::<bool>(), fragments, any::<[u8; 4]>())
        .prop_map(|(event, compressed, fragments, mask)| Sent { event, compressed, fragments, mask })
}

/// The bytes of a stream, and the events that must come of it.
fn stream(sent: &[Sent], is_server: bool, deflate: bool) -> (Vec<u8>, Vec<Owned>) {
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    let mut deflater = Deflater::new(12);
    for Sent { event, compressed, fragments, mask } in sent {
        let mask = is_server.then_some(*mask);
        let frame = |bytes: &mut Vec<u8>, fin, compressed, opcode, payload: &[u8]| {
            encode_frame(bytes, FrameHeader { fin, compressed, opcode, mask, len: 0 }, payload);
        };
        match event {
            Owned::Message(kind, plain) => {
                let compressed = *compressed && deflate;
                let mut packed = Vec::new();
                let payload = if compressed {
                    deflater.compress(plain, &mut packed);
                    &packed
                } else {
                    plain
                };
                let mut cuts: Vec<_> =
                    fragments.iter().map(|(at, ping)| (at.index(payload.len() + 1), *ping)).collect();
                cuts.sort_unstable();
                let mut start = 0;
                for (i, (at, ping)) in cuts.iter().enumerate() {
                    let opcode = if i == 0 { Opcode::from(*kind) } else { Opcode::Continuation };
                    frame(&mut bytes, false, compressed && i == 0, opcode, &payload[start..*at]);
                    start = *at;
                    if *ping {
                        frame(&mut bytes, true, false, Opcode::Ping, b"between");
                        events.push(Owned::Ping(b"between".to_vec()));
                    }
                }
                let opcode = if cuts.is_empty() { Opcode::from(*kind) } else { Opcode::Continuation };
                frame(&mut bytes, true, compressed && cuts.is_empty(), opcode, &payload[start..]);
                events.push(event.clone());
            }
            Owned::Ping(payload) => frame(&mut bytes, true, false, Opcode::Ping, payload),
            Owned::Pong(payload) => frame(&mut bytes, true, false, Opcode::Pong, payload),
            Owned::Close(_) => unreachable!("not generated"),
        }
        if !matches!(event, Owned::Message(..)) {
            events.push(event.clone());
        }
    }
    match is_server {
        true => encode_close_masked(&mut bytes, Some(3000), "bye", [9, 8, 7, 6]),
        false => encode_close(&mut bytes, Some(3000), "bye"),
    }
    events.push(Owned::Close(Some((3000, "bye".to_owned()))));
    (bytes, events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_split_of_a_valid_stream_gives_its_events(
        sent in prop::collection::vec(sent(LIMITS.max_fragments as usize - 1), 0..6),
        cuts in prop::collection::vec(any::<u8>(), 0..8),
        is_server: bool,
        deflate: bool,
    ) {
        let (bytes, events) = stream(&sent, is_server, deflate);
        prop_assert_eq!(&decode_cut(&bytes, &cuts, is_server, deflate), &(events.clone(), None));
        let reference = Reference { bytes: bytes.iter(), is_server, deflate, limits: LIMITS }.run();
        prop_assert_eq!(reference, (events, None));
    }

    #[test]
    fn a_damaged_stream_gives_what_the_reference_gives(
        sent in prop::collection::vec(sent(LIMITS.max_fragments as usize + 2), 1..5),
        damage in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
        near_start: bool,
        cuts in prop::collection::vec(any::<u8>(), 0..8),
        is_server: bool,
        deflate: bool,
    ) {
        let (mut bytes, _) = stream(&sent, is_server, deflate);
        let reach = if near_start { bytes.len().min(12) } else { bytes.len() };
        for (at, xor) in damage {
            bytes[at.index(reach)] ^= xor;
        }
        let reference = Reference { bytes: bytes.iter(), is_server, deflate, limits: LIMITS }.run();
        prop_assert_eq!(decode_cut(&bytes, &cuts, is_server, deflate), reference);
    }

    #[test]
    fn what_is_encoded_is_decoded(payload: Vec<u8>, mask: [u8; 4], cuts: Vec<u8>) {
        let expected = (vec![Owned::Message(Kind::Binary, payload.clone())], None);
        let mut bytes = Vec::new();
        encode(&mut bytes, Opcode::Binary, &payload);
        prop_assert_eq!(&decode_cut(&bytes, &cuts, false, false), &expected);
        bytes.clear();
        encode_masked(&mut bytes, Opcode::Binary, &payload, mask);
        prop_assert_eq!(&decode_cut(&bytes, &cuts, true, false), &expected);
    }

    #[test]
    fn the_decode_target_takes_anything(data: Vec<u8>) {
        targets::decode(&data);
    }

    #[test]
    fn the_inflate_target_takes_anything(limit: u8, mut plain in prop::collection::vec(0u8..4, 0..500), damage: Vec<u8>) {
        let mut data = vec![limit];
        Deflater::new(9).compress(&plain, &mut data);
        let half = data.len();
        plain.reverse();
        Deflater::new(15).compress(&plain, &mut data);
        targets::inflate(&data);
        data.splice(half..half, damage);
        targets::inflate(&data);
    }

    #[test]
    fn the_handshake_target_takes_anything(
        headers in prop::collection::vec(
            ("(sec-websocket-(extensions|protocol|key|version)|upgrade)", "[ -~]{0,20}(permessage-deflate[ -~]{0,20})?"),
            0..4,
        ),
        params in prop::collection::vec("(client|server)_(no_context_takeover|max_window_bits)(=\"?(8|9|10|15|16)\"?)?", 0..5),
    ) {
        let mut data = format!("sec-websocket-extensions: permessage-deflate; {}\n", params.join("; "));
        for (name, value) in headers {
            data.push_str(&format!("{name}: {value}\n"));
        }
        targets::handshake(data.as_bytes());
    }
}

/// A corpus for the reference itself: it must find the errors that it was written to find.
#[test]
fn the_reference_knows_right_from_wrong() {
    let run = |bytes: &[u8]| {
        Reference { bytes: bytes.iter(), is_server: false, deflate: true, limits: LIMITS }.run()
    };
    assert_eq!(run(b"\x01\x03Hel\x80\x02lo").0, [Owned::Message(Kind::Text, b"Hello".to_vec())]);
    let hello = run(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00");
    assert_eq!(hello, (vec![Owned::Message(Kind::Text, b"Hello".to_vec())], None));
    for (bytes, code) in [(&b"\x83"[..], 1002), (b"\x81\x01\xff", 1007), (b"\x81\x7e\xff\xff", 1009)] {
        assert_eq!(run(bytes).1.map(|error| error.close_code()), Some(code), "{bytes:02x?}");
    }
}
