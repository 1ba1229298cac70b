//! What the fuzz targets do with their bytes, so that the tests can drive the same functions without a fuzzer.

use tieline_websocket::{
    Decoder, DeflatePolicy, InflateMode, Inflater, Limits, Role, Shared, Upgrade, response_head,
};

use crate::reference::{Outcome, Owned, Reference};

/// Small, so that a few bytes reach them.
pub(crate) const LIMITS: Limits = Limits { max_frame: 3000, max_message: 5000, max_fragments: 8 };

/// Decodes `stream` in pieces whose lengths come from `cuts`, over and over, and checks that memory is bounded.
pub(crate) fn decode_cut(stream: &[u8], cuts: &[u8], is_server: bool, deflate: bool) -> Outcome {
    let role = if is_server { Role::Server } else { Role::Client };
    let mut decoder = Decoder::new(role, deflate.then_some(InflateMode::Shared));
    let mut shared = Shared::new(LIMITS);
    let mut events = Vec::new();
    let mut stream = stream.to_vec();
    let mut rest = &mut stream[..];
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = cuts.next().map_or(usize::MAX, |cut| usize::from(*cut) * usize::from(*cut) / 8 + 1);
        let (mut input, behind) = rest.split_at_mut(cut.min(rest.len()));
        loop {
            match decoder.decode(&mut input, &mut shared) {
                Ok(None) => break,
                Ok(Some(event)) => events.push(Owned::from(event)),
                Err(error) => {
                    assert_eq!(decoder.buffered(), 0);
                    assert_eq!(decoder.decode(&mut input, &mut shared), Err(error));
                    return (events, Some(error));
                }
            }
            if let Some(Owned::Close(_)) = events.last() {
                return (events, None);
            }
        }
        assert!(input.is_empty());
        assert_eq!(decoder.is_idle(), decoder.buffered() == 0);
        // The message doubles as it grows; beside it there is a control frame, and the boxed state.
        assert!(decoder.buffered() <= 2 * LIMITS.max_message + 600, "{} bytes", decoder.buffered());
        rest = behind;
    }
    (events, None)
}

/// The target `decode`: the first byte chooses the role and compression, the second how many of those behind it are the
/// lengths of the pieces; the rest is the stream. Cut anyhow, it must give what the reference gives.
pub(crate) fn decode(data: &[u8]) {
    let [flags, count, rest @ ..] = data else { return };
    let (cuts, stream) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let (is_server, deflate) = (flags & 1 != 0, flags & 2 != 0);
    let reference = Reference { bytes: stream.iter(), is_server, deflate, limits: LIMITS }.run();
    assert_eq!(decode_cut(stream, cuts, is_server, deflate), reference);
    assert_eq!(decode_cut(stream, &[], is_server, deflate), reference);
}

/// The target `inflate`: any bytes against a limit, alone and after one another with context.
pub(crate) fn inflate(data: &[u8]) {
    let [limit, rest @ ..] = data else { return };
    let limit = usize::from(*limit) * 16;
    let (first, second) = rest.split_at(rest.len() / 2);
    let mut out = Vec::new();
    let mut shared = Inflater::new();
    let mut fresh = |payload: &[u8]| {
        let mut expected = Vec::new();
        let expected_result = Inflater::new().inflate(payload, limit, &mut expected);
        let result = shared.inflate(payload, limit, &mut out);
        assert_eq!(result, expected_result, "what came before must not matter");
        assert!(result.is_err() || out == expected);
        assert!(out.len() <= limit && out.capacity() <= limit.max(8));
    };
    fresh(first);
    fresh(second);
    fresh(rest);
    let mut own = Inflater::with_context_takeover(9);
    if own.inflate(first, limit, &mut out).is_ok() {
        let _ = own.inflate(second, limit, &mut out);
        assert!(out.len() <= limit);
    }
}

/// The target `handshake`: lines of `name: value` as the headers of a request; what is accepted must be answerable in
/// one well-formed head.
pub(crate) fn handshake(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n');
    let headers = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
    });
    let good = [
        ("upgrade", &b"websocket"[..]),
        ("connection", b"upgrade"),
        ("sec-websocket-version", b"13"),
        ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let _ = Upgrade::from_request("GET", 1, headers.clone());
    let Ok(upgrade) = Upgrade::from_request("GET", 1, good.into_iter().chain(headers)) else { return };
    let open = DeflatePolicy {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        ..DeflatePolicy::default()
    };
    for policy in [DeflatePolicy::default(), open] {
        let deflate = upgrade.negotiate_deflate(&policy);
        if let Some(params) = deflate {
            assert!((9..=15).contains(&params.server_max_window_bits));
            assert!((8..=15).contains(&params.client_max_window_bits));
        }
        let head = response_head(upgrade.accept_key(), upgrade.protocols().last(), deflate.as_ref());
        let lines = 5 + usize::from(upgrade.protocols().last().is_some()) + usize::from(deflate.is_some());
        assert_eq!(head.matches("\r\n").count(), lines, "{head:?}");
        assert_eq!(head.matches(['\r', '\n']).count(), 2 * lines, "{head:?}");
    }
}
