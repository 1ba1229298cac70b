//! The client protocol of NATS as far as the broker needs it: bytes to what the server said, and commands to bytes.
//!
//! Everything is borrowed from what was read: a message is handed up from where it lies. A subscription is known by its number, so
//! subjects are not even looked at. No I/O. Tested here by tables, cuts at every place, and random bytes.

use std::io::Write;

use serde::Deserialize;

/// The most bytes of a message: what a server can be configured to carry at most.
const MAX_PAYLOAD: usize = 64 << 20;

/// The most bytes of a line. Of a big cluster the server names many addresses in one.
const MAX_LINE: usize = 64 * 1024;

/// What a server carries that does not say how much.
const USUAL_PAYLOAD: usize = 1 << 20;

/// What the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Somebody published to a subject that the subscription of this number is for.
    Message { subscription: u64, payload: &'a [u8] },
    /// What the server is and wants, as JSON.
    Info(&'a [u8]),
    /// The server wants to know whether this connection lives.
    Ping,
    /// It lives itself.
    Pong,
    /// A command was carried out.
    Done,
    /// A command was refused; the text says why.
    Refused(&'a [u8]),
}

/// The bytes are nothing that a NATS server says, or go past a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// Reads one thing that the server said, and how long it was; `None` when it has not all come yet.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, Garbage> {
    let line = match bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
        Some(end) => bytes[..end].strip_suffix(b"\r").ok_or(Garbage)?,
        None if bytes.len() >= MAX_LINE => return Err(Garbage),
        // A stranger's first bytes tell it; one who says `HTTP/1.1` may never end a line.
        None if could_begin(bytes) => return Ok(None),
        None => return Err(Garbage),
    };
    let behind = line.len() + 2;
    let (word, rest) = match line.iter().position(|byte| *byte == b' ' || *byte == b'\t') {
        Some(end) => (&line[..end], line[end..].trim_ascii()),
        None => (line, &b""[..]),
    };
    let said = match word {
        b"MSG" => return message(bytes, rest, behind),
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        b"INFO" => Said::Info(rest),
        b"+OK" => Said::Done,
        b"-ERR" => Said::Refused(unquoted(rest)),
        _ => return Err(Garbage),
    };
    Ok(Some((said, behind)))
}

/// Whether these could be the first bytes of something that a server says.
fn could_begin(bytes: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] = [b"MSG ", b"PING\r", b"PONG\r", b"INFO ", b"+OK\r", b"-ERR "];
    WORDS.iter().any(|word| {
        let len = word.len().min(bytes.len());
        bytes[..len] == word[..len]
    })
}

/// `<subject> <number> [reply-to] <bytes>`, the payload behind that line, and the end of a line.
fn message<'a>(bytes: &'a [u8], rest: &[u8], start: usize) -> Result<Option<(Said<'a>, usize)>, Garbage> {
    let mut words = rest.split(|byte| *byte == b' ' || *byte == b'\t').filter(|word| !word.is_empty());
    let (_subject, subscription) = (words.next().ok_or(Garbage)?, number(words.next())?);
    let (third, fourth) = (words.next(), words.next());
    if words.next().is_some() {
        return Err(Garbage);
    }
    let len = usize::try_from(number(fourth.or(third))?).map_err(|_| Garbage)?;
    if len > MAX_PAYLOAD {
        return Err(Garbage);
    }
    match bytes.get(start + len..start + len + 2) {
        None => Ok(None),
        Some(b"\r\n") => {
            Ok(Some((Said::Message { subscription, payload: &bytes[start..start + len] }, start + len + 2)))
        }
        Some(_) => Err(Garbage),
    }
}

fn number(digits: Option<&[u8]>) -> Result<u64, Garbage> {
    let digits = digits
        .filter(|digits| !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit));
    Ok(digits.ok_or(Garbage)?.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"'").and_then(|text| text.strip_suffix(b"'")).unwrap_or(text)
}

/// What the server is and wants.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    /// Nothing goes on without TLS.
    pub(super) tls_required: bool,
    /// TLS is spoken with those who want it.
    pub(super) tls_available: bool,
    /// What proves a key when it is signed.
    pub(super) nonce: Option<String>,
    /// The most bytes of a message that it takes.
    pub(super) max_payload: usize,
}

impl Default for Info {
    fn default() -> Self {
        Info { tls_required: false, tls_available: false, nonce: None, max_payload: USUAL_PAYLOAD }
    }
}

impl Info {
    pub(super) fn read(json: &[u8]) -> Result<Info, Garbage> {
        serde_json::from_slice(json).map_err(|_| Garbage)
    }
}

/// Appends a publication. Its payload is made of pieces.
pub(super) fn publish(out: &mut Vec<u8>, subject: &[&[u8]], payload: &[&[u8]]) {
    out.extend_from_slice(b"PUB ");
    subject.iter().for_each(|piece| out.extend_from_slice(piece));
    let len: usize = payload.iter().map(|piece| piece.len()).sum();
    write!(out, " {len}\r\n").expect("memory takes all bytes");
    payload.iter().for_each(|piece| out.extend_from_slice(piece));
    out.extend_from_slice(b"\r\n");
}

/// Appends a subscription of this number.
pub(super) fn subscribe(out: &mut Vec<u8>, subject: &str, number: u64) {
    write!(out, "SUB {subject} {number}\r\n").expect("memory takes all bytes");
}

/// The answer to [`Said::Ping`].
pub(super) const PONG: &[u8] = b"PONG\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whole sayings, and what they mean.
    const SAYINGS: &[(&[u8], Said<'_>)] = &[
        (b"MSG a.b 1 5\r\n\r\nPIN\r\n", Said::Message { subscription: 1, payload: b"\r\nPIN" }),
        (b"MSG a.b 22 reply.to 0\r\n\r\n", Said::Message { subscription: 22, payload: b"" }),
        (b"MSG  a.b\t7  1\r\nx\r\n", Said::Message { subscription: 7, payload: b"x" }),
        (b"PING\r\n", Said::Ping),
        (b"PONG\r\n", Said::Pong),
        (b"+OK\r\n", Said::Done),
        (b"-ERR 'Authorization Violation'\r\n", Said::Refused(b"Authorization Violation")),
        (b"-ERR bare\r\n", Said::Refused(b"bare")),
        (b"INFO {\"max_payload\":5} \r\n", Said::Info(b"{\"max_payload\":5}")),
    ];

    #[test]
    fn sayings_are_read_whole_and_never_in_part() {
        for (bytes, said) in SAYINGS {
            let text = String::from_utf8_lossy(bytes);
            let behind = [bytes, &b"PING\r\n"[..]].concat();
            assert_eq!(read(&behind), Ok(Some((*said, bytes.len()))), "{text:?}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn garbage_is_told_and_not_waited_for() {
        let endless = [b"INFO ", &vec![b'x'; MAX_LINE][..]].concat();
        let over = format!("MSG a 1 {}\r\n", MAX_PAYLOAD + 1).into_bytes();
        let cases: [&[u8]; 15] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"HTTP",
            &[0x15, 3, 1, 0, 2, 2, 80],
            b"\r\n",
            b"PING\n",
            b"MSG\r\n",
            b"MSG a 1\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a x 1\r\n",
            b"MSG a 1 r 1 1\r\n",
            b"MSG a 1 9999999999999999999\r\n",
            b"MSG a 1 1\r\nab\r\n",
            b"ping\r\n",
            &endless,
            &over,
        ];
        for bytes in cases {
            assert_eq!(read(bytes), Err(Garbage), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_the_server_says_of_itself_may_lack_anything() {
        assert_eq!(Info::read(b"{}"), Ok(Info::default()));
        let info =
            Info::read(br#"{"nonce":"n","tls_required":true,"max_payload":8,"version":"2.9","more":[1]}"#);
        let wanted = Info { tls_required: true, nonce: Some("n".into()), max_payload: 8, ..Info::default() };
        assert_eq!(info, Ok(wanted));
        assert_eq!(Info::read(b"{\"max_payload\":-1}"), Err(Garbage));
        assert_eq!(Info::read(b"none"), Err(Garbage));
    }

    #[test]
    fn commands_are_lines_and_payloads() {
        let mut out = Vec::new();
        subscribe(&mut out, "a.b", 3);
        publish(&mut out, &[b"a.", b"b"], &[b"12345678", b"\0\r\n"]);
        assert_eq!(out, b"SUB a.b 3\r\nPUB a.b 11\r\n12345678\0\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            start in prop_oneof![Just(&b""[..]), Just(&b"MSG "[..]), Just(&b"MSG a 1 "[..]), Just(&b"-ERR "[..])],
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'1'), any::<u8>()], 0..200),
        ) {
            let bytes = [start, &bytes].concat();
            if let Ok(Some((_, len))) = read(&bytes) {
                prop_assert!(len > 0 && len <= bytes.len());
                // What was whole stays so.
                prop_assert!(matches!(read(&bytes[..len]), Ok(Some((_, again))) if again == len));
            }
        }
    }
}
