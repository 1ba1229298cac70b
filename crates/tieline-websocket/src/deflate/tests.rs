//! The compression's own tests; through whole frames it is tested in `tests/`.

mod naive;

use proptest::prelude::*;

use naive::Naive;

use super::*;
use crate::decoder::DecodeError;

fn inflate(payload: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    Inflater::new().inflate(payload, max, &mut out)?;
    Ok(out)
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::new(15).compress(payload, &mut out);
    out
}

/// Bytes that compress neither very well nor not at all.
fn prose(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let words = [&b"alpha"[..], b"bravo ", b"charlie", b"{\"type\":", b"\"message\"", b", ", b"0123"];
    let mut text = Vec::new();
    while text.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(words[(state >> 24) as usize % words.len()]);
        text.push((state >> 16) as u8);
    }
    text.truncate(len);
    text
}

#[test]
fn the_examples_of_the_rfc() {
    let hello = b"Hello";
    // One fixed block; a stored block; a final block with its padding; two blocks (RFC 7692, 7.2.3).
    let cases: [&[u8]; 5] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        // Not among them: the empty block at the end is marked as the final one.
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x01],
    ];
    for case in cases {
        assert_eq!(inflate(case, 100).as_deref(), Ok(&hello[..]), "{case:02x?}");
        let mut out = Vec::new();
        Inflater::with_context_takeover(15).inflate(case, 100, &mut out).unwrap();
        assert_eq!(out, hello, "{case:02x?}");
    }
}

#[test]
fn a_message_may_refer_to_the_one_before_with_context_takeover_only() {
    // "Hello" twice, the second time by reference to the first (RFC 7692, 7.2.3.2).
    let first = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let mut out = Vec::new();
    let mut with = Inflater::with_context_takeover(9);
    with.inflate(&first, 100, &mut out).unwrap();
    with.inflate(&second, 100, &mut out).unwrap();
    assert_eq!(out, b"Hello");
    let mut without = Inflater::new();
    without.inflate(&first, 100, &mut out).unwrap();
    assert_eq!(without.inflate(&second, 100, &mut out), Err(DecodeError::Deflate));
    without.inflate(&first, 100, &mut out).unwrap();
    assert_eq!(out, b"Hello", "usable again after an error");
}

#[test]
fn an_empty_message_is_one_byte_however_often() {
    for mut deflater in [Deflater::new(15), Deflater::with_context_takeover(15)] {
        let mut inflater = Inflater::with_context_takeover(15);
        for payload in [&b""[..], b"", b"x", b"", b"xxxxxx", b""] {
            let mut out = Vec::new();
            deflater.compress(payload, &mut out);
            assert!(!payload.is_empty() || out == [0x00], "{out:02x?}");
            let mut plain = vec![1, 2, 3];
            inflater.inflate(&out, 100, &mut plain).unwrap();
            assert_eq!(plain, payload);
        }
    }
}

#[test]
fn every_window_goes_round_with_and_without_takeover() {
    for bits in 9..=15 {
        for takeover in [false, true] {
            let (mut deflater, mut inflater) = if takeover {
                (Deflater::with_context_takeover(bits), Inflater::with_context_takeover(bits))
            } else {
                (Deflater::new(bits), Inflater::new())
            };
            for len in [1, 5, 300, 100_000, 700, 3, 40_000] {
                let payload = prose(len);
                let (mut packed, mut plain) = (Vec::new(), Vec::new());
                deflater.compress(&payload, &mut packed);
                assert!(len < 300 || packed.len() < len, "{len} bytes became {}", packed.len());
                inflater.inflate(&packed, len, &mut plain).unwrap();
                assert_eq!(plain, payload, "window {bits}, takeover {takeover}, {len} bytes");
            }
        }
    }
}

#[test]
fn no_match_reaches_beyond_the_window() {
    for (bits, level) in (9..=15).flat_map(|bits| [1, 2, 6].map(|level| (bits, level))) {
        for mut deflater in [Deflater::new(bits), Deflater::with_context_takeover(bits)] {
            deflater = deflater.level(level);
            let (mut naive, mut expected) = (Naive::default(), Vec::new());
            for len in [100, 40_000, 700, 3] {
                let (payload, mut packed) = (prose(len), Vec::new());
                deflater.compress(&payload, &mut packed);
                naive.message(&packed);
                expected.extend_from_slice(&payload);
            }
            assert!(naive.output == expected, "window {bits}, level {level}");
            let window = 1 << bits;
            assert!(naive.farthest <= window, "window {bits}, level {level}: {} back", naive.farthest);
            assert!(
                naive.farthest > window / 4,
                "window {bits}, level {level}: only {} back",
                naive.farthest
            );
        }
    }
}

#[test]
fn context_makes_repeated_messages_small() {
    let mut deflater = Deflater::with_context_takeover(15);
    let payload = prose(500);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    deflater.compress(&payload, &mut first);
    deflater.compress(&payload, &mut second);
    assert!(second.len() * 5 < first.len(), "{} then {}", first.len(), second.len());
}

#[test]
fn more_effort_gives_fewer_bytes() {
    let payload = prose(50_000);
    let sizes = [1, 2, 6].map(|level| {
        let (mut packed, mut plain) = (Vec::new(), Vec::new());
        let mut deflater = Deflater::new(15).level(level);
        for _ in 0..2 {
            packed.clear();
            deflater.compress(&payload, &mut packed);
            Inflater::new().inflate(&packed, 50_000, &mut plain).unwrap();
            assert_eq!(plain, payload);
        }
        packed.len()
    });
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
}

#[test]
fn a_bomb_stops_at_the_limit_and_takes_no_more_memory() {
    let bomb = deflate(&vec![0; 10 << 20]);
    assert!(bomb.len() < 200_000, "{} bytes", bomb.len());
    for max in [0, 1, 1000, 1 << 20] {
        let mut out = Vec::new();
        let result = Inflater::new().inflate(&bomb, max, &mut out);
        assert_eq!(result, Err(DecodeError::MessageTooLarge));
        assert!(out.capacity() <= max, "{} bytes for a limit of {max}", out.capacity());
    }
}

#[test]
fn the_limit_is_exact() {
    for len in [1, 1000, 1024, 1025, 65_536] {
        let packed = deflate(&prose(len));
        assert_eq!(inflate(&packed, len).unwrap().len(), len);
        assert_eq!(inflate(&packed, len - 1), Err(DecodeError::MessageTooLarge));
    }
    assert_eq!(inflate(&deflate(b""), 0).as_deref(), Ok(&b""[..]));
}

#[test]
fn every_cut_is_found_without_context() {
    for payload in [b"Hello".to_vec(), prose(2000)] {
        let packed = deflate(&payload);
        for cut in 0..packed.len() - 1 {
            let result = inflate(&packed[..cut], 1 << 20);
            assert_eq!(result, Err(DecodeError::Deflate), "cut at {cut} of {}", packed.len());
        }
    }
}

#[test]
fn cuts_are_found_with_context_too() {
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    for (packed, name) in [(stored.to_vec(), "stored"), (deflate(&prose(2000)), "compressed")] {
        // The first byte of the stored block alone is an empty message.
        for cut in (0..packed.len() - 1).filter(|cut| packed[..*cut] != [0x00]) {
            let result =
                Inflater::with_context_takeover(15).inflate(&packed[..cut], 1 << 20, &mut Vec::new());
            assert_eq!(result, Err(DecodeError::Deflate), "{name}, cut at {cut} of {}", packed.len());
        }
    }
}

#[test]
fn a_long_head_takes_several_blocks() {
    let head = prose(200_000);
    let mut message = Vec::new();
    stored_block(&head, &mut message);
    assert_eq!(message.len(), head.len() + 4 * 5);
    message.extend_from_slice(&deflate(b"tail"));
    let mut expected = head;
    expected.extend_from_slice(b"tail");
    assert_eq!(inflate(&message, 1 << 20).unwrap(), expected);
}

#[test]
#[should_panic(expected = "2^8")]
fn the_window_that_zlib_cannot_make_is_refused() {
    Deflater::new(8);
}

proptest! {
    #[test]
    fn any_bytes_go_round(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..6)) {
        let mut alone = (Deflater::new(12), Inflater::new());
        let mut joined = (Deflater::with_context_takeover(10), Inflater::with_context_takeover(10));
        for message in &messages {
            for (deflater, inflater) in [&mut alone, &mut joined].map(|(d, i)| (d, i)) {
                let (mut packed, mut plain) = (b"kept".to_vec(), Vec::new());
                deflater.compress(message, &mut packed);
                prop_assert!(packed.starts_with(b"kept"));
                inflater.inflate(&packed[4..], message.len(), &mut plain).unwrap();
                prop_assert_eq!(&plain, message);
            }
        }
    }

    #[test]
    fn a_stored_head_joins_any_compressed_tail(head: Vec<u8>, tail: Vec<u8>, bits in 9u8..=15) {
        let mut message = Vec::new();
        stored_block(&head, &mut message);
        Deflater::new(bits).compress(&tail, &mut message);
        let mut plain = Vec::new();
        Inflater::with_context_takeover(bits).inflate(&message, 1 << 20, &mut plain).unwrap();
        prop_assert_eq!(plain, [head, tail].concat());
    }
}
