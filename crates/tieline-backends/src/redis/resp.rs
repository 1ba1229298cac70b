//! RESP3 as far as the engines need it: bytes to what the server said, and commands to bytes.
//!
//! Everything is borrowed from what was read. To a subscriber ([`read`]) of all answers only errors matter; whoever asks
//! something gets the [`Answer`]. No I/O. Tested here by tables, cuts at every place, and random bytes.

use std::io::Write;

/// The most bytes of a message: an envelope of 16 MiB and what a broker puts before it. A longer one is garbage.
pub(super) const MAX_BULK: usize = (16 << 20) + 64;

/// The most bytes of a line: a type, a length, or the text of an error.
const MAX_LINE: usize = 4096;

/// The most parts of an answer that is made of parts.
const MAX_PARTS: usize = 4096;

/// The deepest nesting of such answers. What `HELLO` says is three deep.
const MAX_DEPTH: usize = 8;

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Somebody published to a channel this connection is subscribed to.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// One channel more is subscribed to.
    Subscribed,
    /// The server has taken a subscription back: it does not hold the channel any more.
    Dropped,
    /// A command was refused; the text says why.
    Refused(&'a [u8]),
    /// A command was carried out, or there is news that nobody asked for.
    Other,
}

/// The bytes are no RESP, or go past a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// Why reading stops.
enum Stop {
    /// Something is still to come.
    More,
    Garbage,
}

/// Reads one answer or message, and says how long it was; `None` when it has not all come yet.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, Garbage> {
    whole(bytes, Cursor::said)
}

/// Reads one answer as it is, and says how long it was; `None` when it has not all come yet.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, Garbage> {
    whole(bytes, |cursor| cursor.part(0))
}

/// Reads so many answers, and says how long they were together; `None` when they have not all come yet.
pub(super) fn answers(bytes: &[u8], count: usize) -> Result<Option<(Vec<Answer<'_>>, usize)>, Garbage> {
    let mut answers = Vec::with_capacity(count);
    let mut end = 0;
    for _ in 0..count {
        let Some((answer, len)) = answer(&bytes[end..])? else { return Ok(None) };
        answers.push(answer);
        end += len;
    }
    Ok(Some((answers, end)))
}

fn whole<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Stop>,
) -> Result<Option<(T, usize)>, Garbage> {
    let mut cursor = Cursor { bytes, at: 0 };
    match read(&mut cursor) {
        Ok(read) => Ok(Some((read, cursor.at))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Garbage) => Err(Garbage),
    }
}

/// An answer, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// A text of any kind.
    Text(&'a [u8]),
    /// A whole number.
    Number(i64),
    /// Explicitly nothing.
    Nothing,
    /// What the server refused, and why.
    Refused(&'a [u8]),
    /// Several; of a map each key and then its value.
    Many(Vec<Answer<'a>>),
    /// A kind that no command here answers with.
    Other,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn said(&mut self) -> Result<Said<'a>, Stop> {
        if self.bytes.get(self.at) != Some(&b'>') {
            return Ok(match self.part(0)? {
                Answer::Refused(reason) => Said::Refused(reason),
                _ => Said::Other,
            });
        }
        let parts = self.parts()?;
        if parts == 0 {
            return Err(Stop::Garbage);
        }
        match (self.part(1)?, parts) {
            (Answer::Text(b"message" | b"smessage"), 3) => match (self.part(1)?, self.part(1)?) {
                (Answer::Text(channel), Answer::Text(payload)) => Ok(Said::Message { channel, payload }),
                _ => Err(Stop::Garbage),
            },
            (first, parts) => {
                (1..parts).try_for_each(|_| self.part(1).map(drop))?;
                Ok(match first {
                    Answer::Text(b"subscribe" | b"ssubscribe") => Said::Subscribed,
                    Answer::Text(b"sunsubscribe") => Said::Dropped,
                    _ => Said::Other,
                })
            }
        }
    }

    /// A line, its first byte included, without its end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        match rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
            Some(end) if end >= 2 && rest[end - 1] == b'\r' => {
                self.at += end + 1;
                Ok(&rest[..end - 1])
            }
            None if rest.len() < MAX_LINE => Err(Stop::More),
            _ => Err(Stop::Garbage),
        }
    }

    /// The number of a line, at most `limit`; none for `-1`, which is how RESP2 writes nothing.
    fn number(&mut self, limit: usize) -> Result<Option<usize>, Stop> {
        match &self.line()?[1..] {
            b"-1" => Ok(None),
            digits if !digits.is_empty() && digits.len() <= 10 && digits.iter().all(u8::is_ascii_digit) => {
                let number = digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
                if number <= limit { Ok(Some(number)) } else { Err(Stop::Garbage) }
            }
            _ => Err(Stop::Garbage),
        }
    }

    fn parts(&mut self) -> Result<usize, Stop> {
        Ok(self.number(MAX_PARTS)?.unwrap_or(0))
    }

    /// So many bytes as the line says, and the end of a line.
    fn bulk(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        let Some(len) = self.number(MAX_BULK)? else { return Ok(None) };
        let rest = &self.bytes[self.at..];
        match rest.get(len..len + 2) {
            None => Err(Stop::More),
            Some(b"\r\n") => {
                self.at += len + 2;
                Ok(Some(&rest[..len]))
            }
            Some(_) => Err(Stop::Garbage),
        }
    }

    fn many(&mut self, parts: usize, depth: usize) -> Result<Answer<'a>, Stop> {
        (0..parts).map(|_| self.part(depth + 1)).collect::<Result<_, _>>().map(Answer::Many)
    }

    fn part(&mut self, depth: usize) -> Result<Answer<'a>, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Garbage);
        }
        match self.bytes.get(self.at).ok_or(Stop::More)? {
            b'$' | b'=' => Ok(self.bulk()?.map_or(Answer::Nothing, Answer::Text)),
            b'+' => Ok(Answer::Text(&self.line()?[1..])),
            b'-' => Ok(Answer::Refused(&self.line()?[1..])),
            b'!' => self.bulk()?.map(Answer::Refused).ok_or(Stop::Garbage),
            b':' => {
                let digits = &self.line()?[1..];
                let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                number.map(Answer::Number).ok_or(Stop::Garbage)
            }
            b'_' => {
                self.line()?;
                Ok(Answer::Nothing)
            }
            b',' | b'#' | b'(' => {
                self.line()?;
                Ok(Answer::Other)
            }
            b'*' | b'~' | b'>' => match self.number(MAX_PARTS)? {
                Some(parts) => self.many(parts, depth),
                None => Ok(Answer::Nothing),
            },
            b'%' => {
                let parts = 2 * self.parts()?;
                self.many(parts, depth)
            }
            b'|' => {
                // Attributes, and then what they belong to.
                let parts = 2 * self.parts()?;
                self.many(parts, depth)?;
                self.part(depth + 1)
            }
            _ => Err(Stop::Garbage),
        }
    }
}

/// Appends a command.
pub(super) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    begin(out, words.len());
    words.iter().for_each(|word| bulk(out, &[word]));
}

/// The beginning of a message to a channel.
pub(super) const PUBLISH: &[u8] = b"*3\r\n$7\r\nPUBLISH\r\n";

/// The beginning of a message to a channel of a cluster's shard.
pub(super) const SPUBLISH: &[u8] = b"*3\r\n$8\r\nSPUBLISH\r\n";

/// Appends a message that begins like this. Channel and payload are made of pieces.
pub(super) fn publish(out: &mut Vec<u8>, begin: &[u8], channel: &[&[u8]], payload: &[&[u8]]) {
    out.extend_from_slice(begin);
    bulk(out, channel);
    bulk(out, payload);
}

/// Appends a word that is made of pieces.
pub(super) fn bulk(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    head(out, b'$', pieces.iter().map(|piece| piece.len()).sum());
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out.extend_from_slice(b"\r\n");
}

/// Appends the beginning of a command of so many words, each of which a [`bulk`] appends.
pub(super) fn begin(out: &mut Vec<u8>, words: usize) {
    head(out, b'*', words);
}

fn head(out: &mut Vec<u8>, kind: u8, number: usize) {
    write!(out, "{}{number}\r\n", char::from(kind)).expect("memory takes all bytes");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whole answers, and what they say.
    const ANSWERS: &[(&[u8], Said<'_>)] = &[
        (
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\n\r\n>1\r\n",
            Said::Message { channel: b"c", payload: b"\r\n>1" },
        ),
        (b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n", Said::Message { channel: b"c", payload: b"" }),
        (b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", Said::Subscribed),
        (b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nx\r\n", Said::Message { channel: b"c", payload: b"x" }),
        (b">3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n", Said::Subscribed),
        (b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n", Said::Dropped),
        (b">2\r\n$10\r\ninvalidate\r\n_\r\n", Said::Other),
        (b":0\r\n", Said::Other),
        (b"+OK\r\n", Said::Other),
        (b"$-1\r\n", Said::Other),
        (b"-NOAUTH no\r\n", Said::Refused(b"NOAUTH no")),
        (b"!7\r\nERR\r\nno\r\n", Said::Refused(b"ERR\r\nno")),
        (b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n+modules\r\n*1\r\n%1\r\n+a\r\n#t\r\n", Said::Other),
        (b"|1\r\n+ttl\r\n:3\r\n-ERR after attributes\r\n", Said::Refused(b"ERR after attributes")),
        (b"*0\r\n", Said::Other),
        (b"~1\r\n,1.5\r\n", Said::Other),
    ];

    #[test]
    fn answers_are_read_whole_and_never_in_part() {
        for (bytes, said) in ANSWERS {
            let text = String::from_utf8_lossy(bytes);
            let mut behind = bytes.to_vec();
            behind.extend_from_slice(b":1\r\n");
            assert_eq!(read(&behind).unwrap().as_ref(), Some(&(borrowed(said), bytes.len())), "{text:?}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{text:?} cut at {cut}");
            }
        }
    }

    fn borrowed<'a>(said: &'a Said<'a>) -> Said<'a> {
        match *said {
            Said::Message { channel, payload } => Said::Message { channel, payload },
            Said::Refused(reason) => Said::Refused(reason),
            Said::Subscribed => Said::Subscribed,
            Said::Dropped => Said::Dropped,
            Said::Other => Said::Other,
        }
    }

    #[test]
    fn garbage_is_told_and_not_waited_for() {
        let endless = vec![b'1'; MAX_LINE];
        let deep = b"*1\r\n".repeat(MAX_DEPTH + 2);
        let over = format!("${}\r\n", MAX_BULK + 1).into_bytes();
        let cases: [&[u8]; 15] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            &[0x15, 3, 1, 0, 2, 2, 80],
            b"\r\n",
            b"$\r\n",
            b"$-2\r\n",
            b"$1x\r\n",
            b"$3\r\nabcd\r\n",
            b"$99999999999\r\n",
            b"*5000\r\n",
            b">0\r\n",
            b">3\r\n$7\r\nmessage\r\n:1\r\n$1\r\nx\r\n",
            b"+OK\n",
            &[b"+", &endless[..]].concat(),
            &deep,
            &over,
        ];
        for bytes in cases {
            assert_eq!(read(bytes), Err(Garbage), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn answers_are_told_as_they_are() {
        let many = |parts: &[Answer<'static>]| Answer::Many(parts.to_vec());
        let cases: [(&[u8], Answer<'_>); 8] = [
            (
                b"*3\r\n:-7\r\n_\r\n$2\r\nab\r\n",
                many(&[Answer::Number(-7), Answer::Nothing, Answer::Text(b"ab")]),
            ),
            (b"%1\r\n+mode\r\n$7\r\ncluster\r\n", many(&[Answer::Text(b"mode"), Answer::Text(b"cluster")])),
            (b"*1\r\n*2\r\n:9007199254740991\r\n-NO\r\n", {
                many(&[many(&[Answer::Number(9_007_199_254_740_991), Answer::Refused(b"NO")])])
            }),
            (b"$-1\r\n", Answer::Nothing),
            (b"*-1\r\n", Answer::Nothing),
            (b"*0\r\n", Answer::Many(Vec::new())),
            (b"#t\r\n", Answer::Other),
            (b"!2\r\nno\r\n", Answer::Refused(b"no")),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(answer(bytes), Ok(Some((wanted, bytes.len()))), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(answer(b":1x\r\n"), Err(Garbage));
    }

    #[test]
    fn commands_are_arrays_of_bulks() {
        let mut out = Vec::new();
        command(&mut out, &[b"HELLO", b"3"]);
        publish(&mut out, PUBLISH, &[b"c:", b"1"], &[b"12345678", b"\0\r\n"]);
        let text =
            b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*3\r\n$7\r\nPUBLISH\r\n$3\r\nc:1\r\n$11\r\n12345678\0\r\n\r\n";
        assert_eq!(out, text);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'>'), Just(b'*'), Just(b'$'), Just(b'1'), any::<u8>()], 0..200)) {
            if let Ok(Some((_, len))) = read(&bytes) {
                prop_assert!(len > 0 && len <= bytes.len());
                // What was whole stays so.
                prop_assert!(matches!(read(&bytes[..len]), Ok(Some((_, again))) if again == len));
            }
        }
    }
}
