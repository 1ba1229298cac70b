//! The decoder's own tests: the vectors of the RFCs, and every rule broken once. Properties are in `tests/`.

use super::*;
use crate::close::encode_close;
use crate::deflate::Deflater;
use crate::frame::{encode, encode_frame, encode_masked};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An event that owns its bytes.
#[derive(Debug, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind: Kind::Text, payload } => {
                assert_eq!(event.text().map(str::as_bytes), Some(payload));
                Self::Text(String::from_utf8(payload.to_vec()).unwrap())
            }
            Event::Message { kind: Kind::Binary, payload } => Self::Binary(payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(frame) => Self::Close(frame.map(|frame| (frame.code, frame.reason.to_owned()))),
        }
    }
}

fn text(text: &str) -> Owned {
    Owned::Text(text.to_owned())
}

/// Everything that comes out of `bytes`, given in pieces of `size`.
fn decode_in(decoder: &mut Decoder, bytes: &[u8], size: usize) -> Result<Vec<Owned>, DecodeError> {
    decode_with(decoder, &mut Shared::default(), bytes, size)
}

fn decode_with(
    decoder: &mut Decoder,
    shared: &mut Shared,
    bytes: &[u8],
    size: usize,
) -> Result<Vec<Owned>, DecodeError> {
    let mut events = Vec::new();
    for piece in bytes.to_vec().chunks_mut(size) {
        let mut input = piece;
        while let Some(event) = decoder.decode(&mut input, shared)? {
            events.push(event.into());
        }
        assert!(input.is_empty(), "`None` must mean that the input is used up");
    }
    Ok(events)
}

fn client() -> Decoder {
    Decoder::new(Role::Client, Some(InflateMode::Shared))
}

fn server() -> Decoder {
    Decoder::new(Role::Server, None)
}

#[test]
fn an_idle_decoder_is_24_bytes() {
    assert!(size_of::<Decoder>() <= 24, "{} bytes", size_of::<Decoder>());
}

#[test]
fn the_examples_of_rfc_6455() {
    let long = [&[0x82, 0x7e, 0x01, 0x00][..], &[7; 256]].concat();
    let longer = [&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat();
    let cases: [(Decoder, &[u8], Owned); 6] = [
        (client(), b"\x81\x05Hello", text("Hello")),
        (server(), &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], text("Hello")),
        (client(), b"\x01\x03Hel\x80\x02lo", text("Hello")),
        (client(), b"\x89\x05Hello", Owned::Ping(b"Hello".to_vec())),
        (client(), &long, Owned::Binary(vec![7; 256])),
        (client(), &longer, Owned::Binary(vec![7; 65536])),
    ];
    for (mut decoder, bytes, expected) in cases {
        for size in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(decode_in(&mut decoder, bytes, size).as_deref(), Ok(std::slice::from_ref(&expected)));
            assert!(decoder.is_idle());
            assert_eq!(decoder.buffered(), 0);
        }
    }
}

#[test]
fn the_examples_of_rfc_7692() {
    let cases: [&[u8]; 5] = [
        &[0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0x41, 0x03, 0xf2, 0x48, 0xcd, 0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00],
        &[0xc1, 0x0b, 0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xc1, 0x08, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xc1, 0x0d, 0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ];
    for bytes in cases {
        for size in [1, 3, bytes.len()] {
            assert_eq!(decode_in(&mut client(), bytes, size), Ok(vec![text("Hello")]), "{bytes:02x?}");
        }
    }
    // Two messages that share a window.
    let bytes = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00";
    let mut own = Decoder::new(Role::Client, Some(InflateMode::Own { window_bits: 8 }));
    assert_eq!(decode_in(&mut own, bytes, 4), Ok(vec![text("Hello"), text("Hello")]));
    assert_eq!(decode_in(&mut client(), bytes, 4), Err(DecodeError::Deflate));
}

#[test]
fn a_whole_message_is_a_slice_of_the_input() {
    let mut bytes = Vec::new();
    encode_masked(&mut bytes, Opcode::Text, b"in place", MASK);
    let range = bytes.as_ptr_range();
    let (mut decoder, mut shared) = (server(), Shared::default());
    let mut input = &mut bytes[..];
    let Some(Event::Message { payload, .. }) = decoder.decode(&mut input, &mut shared).unwrap() else {
        panic!("no message");
    };
    assert_eq!(payload, b"in place");
    assert!(range.contains(&payload.as_ptr()), "it was copied");
}

#[test]
fn control_frames_come_between_fragments() {
    let mut bytes = b"\x01\x02ab".to_vec();
    encode(&mut bytes, Opcode::Ping, &[5; 125]);
    bytes.extend_from_slice(b"\x00\x01c");
    encode(&mut bytes, Opcode::Pong, b"");
    bytes.extend_from_slice(b"\x80\x00");
    encode_close(&mut bytes, Some(1001), "away");
    for size in 1..bytes.len() {
        let expected = vec![
            Owned::Ping(vec![5; 125]),
            Owned::Pong(vec![]),
            text("abc"),
            Owned::Close(Some((1001, "away".to_owned()))),
        ];
        assert_eq!(decode_in(&mut client(), &bytes, size), Ok(expected), "pieces of {size}");
    }
}

#[test]
fn each_broken_rule_has_its_error() {
    use DecodeError::*;
    let to_server: [(&[u8], DecodeError, u16); 2] = [
        (b"\x81\x01a", NotMasked, 1002),
        (b"\xc1\x80\x01\x02\x03\x04", ReservedBits, 1002), // compression was not negotiated
    ];
    let to_client: [(&[u8], DecodeError, u16); 13] = [
        (b"\x81\x81\x01\x02\x03\x04a", Masked, 1002),
        (b"\x80\x00", NothingToContinue, 1002),
        (b"\x00\x00", NothingToContinue, 1002),
        (b"\x01\x00\x81\x00", Interrupted, 1002),
        (b"\x41\x00\xc0\x00", ReservedBits, 1002),
        (b"\xc9\x00", ReservedBits, 1002),
        (b"\x88\x01\x03", HalfCloseCode, 1002),
        (b"\x88\x02\x03\xee", CloseCode(1006), 1002),
        (b"\x88\x03\x03\xe8\xc0", Utf8, 1007),
        (b"\x81\x01\xff", Utf8, 1007),
        (b"\x81\x02\xc3\xc3", Utf8, 1007),
        (b"\x81\x01\xc3", Utf8, 1007),
        (b"\xc1\x01\xff", Deflate, 1007),
    ];
    let cases = to_server.map(|case| (Decoder::new(Role::Server, None), case));
    for (mut decoder, (bytes, error, code)) in cases.into_iter().chain(to_client.map(|case| (client(), case)))
    {
        assert_eq!(decode_in(&mut decoder, bytes, 1), Err(error), "{bytes:02x?}");
        assert_eq!(error.close_code(), code);
        assert_eq!(decode_in(&mut decoder, b"\x89\x00", 9), Err(error), "it must stay failed");
        assert!(decoder.is_idle(), "what was kept is dropped");
    }
}

#[test]
fn bad_text_is_found_before_its_frame_is_complete() {
    // A frame of 20 bytes, whose tenth byte cannot follow the ninth (a surrogate), cut behind it.
    let start = b"\x81\x14\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0";
    assert_eq!(decode_in(&mut client(), &start[..start.len() - 1], 1), Ok(vec![]));
    for size in [1, 4, 100] {
        assert_eq!(decode_in(&mut client(), start, size), Err(DecodeError::Utf8), "pieces of {size}");
    }
    // The same in a fragment that is not the last.
    let fragments = b"\x01\x01\xf4\x00\x05\x90";
    assert_eq!(decode_in(&mut client(), fragments, 100), Err(DecodeError::Utf8));
}

#[test]
fn characters_may_be_split_by_fragments() {
    let bytes = b"\x01\x01\xf0\x00\x02\x9d\x84\x00\x00\x80\x01\x9e";
    for size in 1..bytes.len() {
        assert_eq!(decode_in(&mut client(), bytes, size), Ok(vec![text("𝄞")]));
    }
    assert_eq!(decode_in(&mut client(), b"\x01\x01\xf0\x80\x02\x9d\x84", 99), Err(DecodeError::Utf8));
}

#[test]
fn a_declared_length_reserves_nothing() {
    let mut decoder = client();
    let mut start = b"\x82\x7f\x00\x00\x00\x00\x00\x0f\xff\xff".to_vec();
    start.extend_from_slice(&[1; 100]);
    assert_eq!(decode_in(&mut decoder, &start, 200), Ok(vec![]));
    assert!(!decoder.is_idle());
    assert!((100..1000).contains(&decoder.buffered()), "{} bytes", decoder.buffered());
}

#[test]
fn limits_hold_at_the_header() {
    let limits = Limits { max_frame: 100, max_message: 150, max_fragments: 3 };
    let decode = |bytes: &[u8]| decode_with(&mut client(), &mut Shared::new(limits), bytes, 1000);
    let frame = |fin, opcode, len: u64| {
        let header = FrameHeader { fin, compressed: false, opcode, mask: None, len };
        [header.encode().to_vec(), vec![b'a'; len.min(100) as usize]].concat()
    };
    let (first, next) = (Opcode::Binary, Opcode::Continuation);
    assert_eq!(decode(&frame(true, first, 100)).unwrap().len(), 1);
    assert_eq!(decode(&frame(true, first, 101)), Err(DecodeError::FrameTooLarge));
    assert_eq!(decode(&frame(true, first, u64::MAX >> 1)), Err(DecodeError::FrameTooLarge));
    let fits = [frame(false, first, 100), frame(true, next, 50)].concat();
    assert_eq!(decode(&fits).unwrap().len(), 1);
    let exceeds = [frame(false, first, 100), frame(true, next, 51)[..2].to_vec()].concat();
    assert_eq!(decode(&exceeds), Err(DecodeError::MessageTooLarge));
    let three = [frame(false, first, 0), frame(false, next, 0), frame(true, next, 0)].concat();
    assert_eq!(decode(&three).unwrap().len(), 1);
    let four = [frame(false, first, 0), frame(false, next, 0), frame(false, next, 0), frame(true, next, 0)];
    assert_eq!(decode(&four.concat()), Err(DecodeError::TooManyFragments));
    let single = Limits { max_message: 10, ..limits };
    let result = decode_with(&mut client(), &mut Shared::new(single), &frame(true, first, 11), 2);
    assert_eq!(result, Err(DecodeError::MessageTooLarge));
}

#[test]
fn a_bomb_stops_at_the_message_limit() {
    let mut packed = Vec::new();
    Deflater::new(15).compress(&vec![b'0'; 1 << 20], &mut packed);
    let header = FrameHeader { fin: true, compressed: true, opcode: Opcode::Text, mask: None, len: 0 };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, header, &packed);
    let mut shared = Shared::new(Limits { max_message: 1 << 17, ..Limits::default() });
    assert_eq!(decode_with(&mut client(), &mut shared, &bytes, 4096), Err(DecodeError::MessageTooLarge));
    assert!(shared.inflated.capacity() <= 1 << 17);
    // The inflater is shared: it must serve the next connection.
    assert_eq!(
        decode_with(&mut client(), &mut shared, b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", 99),
        Ok(vec![text("Hello")])
    );
}

#[test]
fn connections_that_share_an_inflater_do_not_mix() {
    let mut shared = Shared::default();
    let (mut a, mut b) = (client(), client());
    let half = b"\x41\x03\xf2\x48\xcd";
    let rest = b"\x80\x04\xc9\xc9\x07\x00";
    assert_eq!(decode_with(&mut a, &mut shared, half, 9), Ok(vec![]));
    let whole = [&half[..], rest].concat();
    assert_eq!(decode_with(&mut b, &mut shared, &whole, 5), Ok(vec![text("Hello")]));
    assert_eq!(decode_with(&mut a, &mut shared, rest, 9), Ok(vec![text("Hello")]));
}

#[test]
fn compressed_text_is_checked_too() {
    let mut packed = Vec::new();
    Deflater::new(15).compress(b"abc\xff", &mut packed);
    let header = |opcode| FrameHeader { fin: true, compressed: true, opcode, mask: None, len: 0 };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, header(Opcode::Text), &packed);
    assert_eq!(decode_in(&mut client(), &bytes, 99), Err(DecodeError::Utf8));
    bytes.clear();
    encode_frame(&mut bytes, header(Opcode::Binary), &packed);
    assert_eq!(decode_in(&mut client(), &bytes, 99), Ok(vec![Owned::Binary(b"abc\xff".to_vec())]));
}

#[test]
fn memory_of_a_large_message_is_given_back() {
    let mut shared = Shared::default();
    let mut bytes = Vec::new();
    encode(&mut bytes, Opcode::Binary, &vec![1; 500_000]);
    let mut decoder = client();
    assert_eq!(decode_with(&mut decoder, &mut shared, &bytes, 60_000).unwrap().len(), 1);
    assert_eq!(decode_with(&mut decoder, &mut shared, b"\x89\x00", 2).unwrap().len(), 1);
    assert!(shared.assembled.capacity() < 500_000);
    assert_eq!(decoder.buffered(), 0);
}
