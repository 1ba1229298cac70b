//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455, 9.1): names with parameters, whose values are tokens, bare or
//! quoted. Not what they mean.
//!
//! Tested here by examples, and by the fuzz target `handshake`.

use super::is_token;

/// One extension of the header, with its parameters in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extension<'a> {
    /// As written; names are compared exactly.
    pub(super) name: &'a str,
    /// Names and values.
    pub(super) params: Vec<(&'a str, Option<&'a str>)>,
}

/// The extensions of one header value. What follows a mistake in the grammar cannot be told apart any more, so the
/// mistake is the last item.
pub(super) fn parse(value: &[u8]) -> impl Iterator<Item = Result<Extension<'_>, Malformed>> {
    let mut rest = value;
    let mut failed = false;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start();
            if failed || rest.is_empty() {
                return None;
            }
            if rest[0] == b',' {
                rest = &rest[1..];
                continue;
            }
            let extension = extension(&mut rest);
            failed = extension.is_err();
            return Some(extension);
        }
    })
}

/// The header does not follow the grammar.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One extension, up to the comma behind it or the end.
fn extension<'a>(rest: &mut &'a [u8]) -> Result<Extension<'a>, Malformed> {
    let name = token(rest)?;
    let mut params = Vec::new();
    loop {
        match next_sign(rest) {
            None => return Ok(Extension { name, params }),
            Some(b',') => {
                *rest = &rest[1..];
                return Ok(Extension { name, params });
            }
            Some(b';') => {
                *rest = &rest[1..];
                let param = token(rest)?;
                let value = if next_sign(rest) == Some(b'=') {
                    *rest = &rest[1..];
                    Some(quoted_or_token(rest)?)
                } else {
                    None
                };
                params.push((param, value));
            }
            Some(_) => return Err(Malformed),
        }
    }
}

/// The next byte that is not white space, which is skipped.
fn next_sign(rest: &mut &[u8]) -> Option<u8> {
    *rest = rest.trim_ascii_start();
    rest.first().copied()
}

fn token<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    *rest = rest.trim_ascii_start();
    let len = rest.iter().take_while(|byte| is_token(&[**byte])).count();
    let (token, behind) = rest.split_at(len);
    *rest = behind;
    if token.is_empty() { Err(Malformed) } else { std::str::from_utf8(token).map_err(|_| Malformed) }
}

/// A value; within quotes it must be a token too, so there is nothing to unescape in one that means something.
fn quoted_or_token<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    if next_sign(rest) != Some(b'"') {
        return token(rest);
    }
    *rest = &rest[1..];
    let value = token(rest)?;
    if rest.first() != Some(&b'"') {
        return Err(Malformed);
    }
    *rest = &rest[1..];
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parameters_and_values() {
        let value = b" permessage-deflate; client_max_window_bits ;a=1; b=\"2\",, x-other ,";
        let found: Vec<_> = parse(value).map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name, "permessage-deflate");
        assert_eq!(found[0].params, [("client_max_window_bits", None), ("a", Some("1")), ("b", Some("2"))]);
        assert_eq!(found[1], Extension { name: "x-other", params: vec![] });
    }

    #[test]
    fn a_mistake_ends_the_header() {
        for bad in ["a b", "a;", "a;=1", "a;b=", "a;b=\"c", "a;b=\"c d\"", "a=1", "a;b\u{e9}", ";"] {
            let found: Vec<_> = parse(bad.as_bytes()).collect();
            assert_eq!(found, [Err(Malformed)], "{bad}");
        }
        let found: Vec<_> = parse(b"good, bad bad, unread").collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].is_ok() && found[1].is_err());
    }
}
